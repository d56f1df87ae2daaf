"""`assay verify`: verdicts, exit codes, and every kind of file that is no receipt."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from tests.apps.cli_kit import ROOT, Cli, in_process, in_subprocess
from tests.tiny import PROFILE, TinyEngine, tiny_key, tiny_request

from assay.core.bundle import Bundle
from assay.core.completion import Completion, output_digest
from assay.core.ports import Engine
from assay.core.receipt import attest, sign
from assay.core.request import Request
from assay.engines.models import CATALOGUE
from assay.engines.models import add as add_model

NAME = "smollm2-135m"
OFFLINE = """
import socket

def refuse(*_args, **_kwargs):
    raise AssertionError("the network was used")

socket.socket.connect = socket.socket.connect_ex = socket.socket.bind = socket.getaddrinfo = refuse
"""


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_home: Path) -> Cli:
    """Runs commands in an empty home."""
    return in_process(capsys)


def answered(engine: Engine, request: Request) -> Bundle:
    """An honest answer of an engine, signed."""

    async def generate() -> Completion:
        prompt = engine.reader.render(request)
        steps = [step async for step in engine.generate(request, prompt)]
        leaves = () if request.level == "signed" else tuple(step.leaf for step in steps)
        text = "".join(step.text for step in steps)
        assert steps[-1].stop is not None
        return Completion(prompt, tuple(step.token for step in steps), text, steps[-1].stop, leaves)

    completion = asyncio.run(generate())
    receipt = attest(
        request,
        completion,
        model=engine.model_digest,
        profile=engine.profile,
        key=tiny_key(),
        sequence=1,
        issued=1_790_000_000,
        amount=0,
    )
    opening = b"".join(completion.leaves) if request.level == "statistical" else b""
    return Bundle(receipt, request, engine.profile, completion.tokens, opening)


@pytest.fixture
def bundle() -> Bundle:
    """Of a model that this machine does not have."""
    return answered(TinyEngine(seed=9), tiny_request())


def write(path: Path, bundle: Bundle) -> str:
    """Put a receipt into a file."""
    path.write_bytes(bundle.encode())
    return str(path)


def test_without_the_model(cli: Cli, tmp_path: Path, bundle: Bundle) -> None:
    """What needs no model is checked; the rest is inconclusive, and the reason says how to get the model."""
    said = cli("verify", write(tmp_path / "r.json", bundle), "--json")
    assert said.code == 3
    assert said.json["holds"] is False
    assert said.json["outcome"] == "inconclusive"
    assert "assay models add FILE" in said.json["reasons"][0]
    known = replace(bundle, receipt=sign(replace(bundle.receipt, model=CATALOGUE[NAME].sha256), tiny_key()))
    said = cli("verify", write(tmp_path / "k.json", known))
    assert said.code == 3
    assert f"assay models pull {NAME}" in " ".join(said.out.split())


def test_level_signed_needs_no_model(cli: Cli, tmp_path: Path) -> None:
    """At level `signed` everything promised can be checked without the model."""
    path = write(tmp_path / "r.json", answered(TinyEngine(), tiny_request(level="signed")))
    said = cli("verify", path, "--json")
    assert (said.code, said.json["holds"], said.json["level"], said.json["reasons"]) == (0, True, "signed", [])
    assert {"tokens_checked", "seconds"} <= set(said.json)
    assert "holds" in cli("verify", path).out


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda b: replace(b, tokens=(*b.tokens[:-1], b.tokens[-1] ^ 1)), "output"),
        (lambda b: replace(b, request=replace(b.request, max_tokens=999)), "request"),
        (lambda b: replace(b, receipt=replace(b.receipt, provider="0x" + "1" * 40)), "signed"),
        (lambda b: replace(b, profile=replace(PROFILE, threads=7)), "profile"),
    ],
)
def test_a_receipt_that_does_not_hold(cli: Cli, tmp_path: Path, bundle: Bundle, change, word: str) -> None:  # noqa: ANN001
    """Any member that differs from what was signed ends with 1 and a sentence, with or without the model."""
    path = write(tmp_path / "r.json", change(bundle))
    said = cli("verify", path, "--json")
    assert (said.code, said.json["holds"]) == (1, False)
    assert any(word in reason for reason in said.json["reasons"])
    assert "does not hold" in cli("verify", path).out


@pytest.mark.parametrize(
    "data",
    [b"", b"{}\n", b"null\n", b"[" * 100_000, b"\x00\xff\n", b'{"receipt":1}\n', b"x" * 1000, b"NaN\n", b'"\xff"\n'],
)
def test_files_that_are_no_receipts(cli: Cli, tmp_path: Path, data: bytes) -> None:
    """Anything else is bad input: a sentence, exit code 2, and with --json the same keys as ever."""
    path = tmp_path / "r.json"
    path.write_bytes(data)
    said = cli("verify", str(path), "--json")
    assert said.code == 2
    assert {"holds", "level", "reasons", "tokens_checked", "seconds"} <= set(said.json)
    assert said.json["holds"] is False
    assert str(path) in said.err
    assert "Traceback" not in said.err


def test_files_that_cannot_be_read(cli: Cli, tmp_path: Path, bundle: Bundle) -> None:
    """A missing file and a folder are named; a file without its last byte, or with one more, is no receipt."""
    for path in (tmp_path / "missing.json", tmp_path):
        assert cli("verify", str(path)).code == 2
    whole = bundle.encode()
    for data in (whole[:-1], whole[:-2], whole + b"\n", b" " + whole, whole[1:]):
        (tmp_path / "r.json").write_bytes(data)
        assert cli("verify", str(tmp_path / "r.json")).code == 2


def test_a_file_of_several_receipts(cli: Cli, tmp_path: Path) -> None:
    """What /receipts/ID gives for a call of several answers: each line is checked, the worst is the exit code, and
    `--json` prints a list; a line that is no receipt is named."""
    requests = [tiny_request(level="signed").for_choice(choice) for choice in range(3)]
    good = [answered(TinyEngine(), request) for request in requests]
    path = tmp_path / "r.json"
    path.write_bytes(b"".join(bundle.encode() for bundle in good))
    said = cli("verify", str(path), "--json")
    assert said.code == 0
    assert [item["holds"] for item in json.loads(said.out)] == [True] * 3
    bad = replace(good[1], tokens=(*good[1].tokens, 5))
    path.write_bytes(b"".join(bundle.encode() for bundle in (good[0], bad, good[2])))
    said = cli("verify", str(path), "--json")
    assert said.code == 1
    assert [item["holds"] for item in json.loads(said.out)] == [True, False, True]
    assert "line 2: does not hold" in cli("verify", str(path)).out
    path.write_bytes(good[0].encode() + b"nonsense\n")
    said = cli("verify", str(path), "--json")
    assert (said.code, said.json["holds"]) == (2, False)
    assert f"line 2 of {path}" in " ".join(said.err.split())


def test_parts_of_one_answer(cli: Cli, tmp_path: Path) -> None:
    """They hold if each does and each goes on where the one before broke off; one alone may hold, and it is said that
    what it continues is not there."""
    path, asked = tmp_path / "r.json", tiny_request(level="signed", max_tokens=12)
    whole = answered(TinyEngine(), asked)
    first = replace(whole, tokens=whole.tokens[:5])
    first = replace(first, receipt=sign(replace(
        whole.receipt, stop="failed", output_count=5, output=output_digest(asked.nonce, first.tokens)
    ), tiny_key()))  # fmt: skip
    rest, other = (answered(TinyEngine(), asked.after(tokens)) for tokens in (whole.tokens[:4], (97, 98)))

    def said(*parts: Bundle) -> list[tuple[bool, str]]:
        path.write_bytes(b"".join(part.encode() for part in parts))
        told = json.loads(cli("verify", str(path), "--json").out)
        findings = [verdict["findings"][-1] for verdict in (told if len(parts) > 1 else [told])]
        return [(found["check"] == "continues", found["outcome"]) for found in findings]

    assert said(first, rest)[1] == (True, "holds")
    assert said(rest, first)[0] == (True, "holds")
    assert said(rest) == [(True, "unchecked")]
    assert said(first, other)[1] == (True, "fails")
    assert cli("verify", str(path)).code == 1
    path.write_bytes(first.encode() + rest.encode())
    assert cli("verify", str(path)).code == 0


@pytest.mark.parametrize("indent", [None, 2])
def test_a_receipt_alone(cli: Cli, tmp_path: Path, bundle: Bundle, indent: int | None) -> None:
    """What a reply carries shows who signed it and no more: undecided, and where the file is; a false one fails."""
    path = tmp_path / "r.json"
    path.write_text(json.dumps(bundle.receipt.to_json(), indent=indent))
    said = cli("verify", str(path), "--json")
    assert said.code == 3
    assert (said.json["holds"], said.json["outcome"], said.json["level"]) == (False, "inconclusive", "pinned")
    assert "/receipts/ID" in said.json["reasons"][0]
    assert bundle.receipt.provider in said.json["reasons"][0]
    path.write_text(json.dumps(replace(bundle.receipt, output_count=99).to_json()))
    assert cli("verify", str(path)).code == 1


def test_a_model_that_does_not_work_is_json_too(cli: Cli, tmp_path: Path, bundle: Bundle) -> None:
    """With `--json` every failure is an object with the usual keys."""
    path, model = write(tmp_path / "r.json", bundle), tmp_path / "m.gguf"
    model.write_bytes(b"GGUF" + bytes(100))
    for file in (model, tmp_path / "missing.gguf"):
        said = cli("verify", path, "--model", str(file), "--json")
        assert said.code == 2
        assert said.json["holds"] is False
        assert file.name in said.json["reasons"][0]
        assert {"level", "tokens_checked", "seconds"} <= set(said.json)


def test_the_wrong_model_file(cli: Cli, tmp_path: Path, bundle: Bundle) -> None:
    """A file that is not the receipt's model, or no model at all, is refused: it could not show anything."""
    path = write(tmp_path / "r.json", bundle)
    other = tmp_path / "other.gguf"
    other.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(16))
    said = cli("verify", path, "--model", str(other))
    assert said.code == 2
    assert bundle.receipt.model.hex() in said.err
    other.write_bytes(b"no model")
    assert cli("verify", path, "--model", str(other)).code == 2
    assert cli("verify", path, "--model", str(tmp_path / "missing.gguf")).code == 2


def test_traces_that_make_no_sense(cli: Cli, tmp_path: Path, bundle: Bundle) -> None:
    """A share needs a trace, a trace belongs to one receipt, and a file must be there."""
    path = tmp_path / "receipt.json"
    path.write_bytes(bundle.encode())
    said = cli("verify", str(path), "--tokens", "0.1", "--json")
    assert (said.code, "leave --tokens out" in said.err) == (2, True)
    said = cli("verify", str(path), "--trace", str(tmp_path / "missing"))
    assert (said.code, "neither a file nor an address" in said.err) == (2, True)
    said = cli("trace", str(path), "--provider", "http://127.0.0.1:9", "-o", str(tmp_path / "out"))
    assert (said.code, "has no trace" in said.err) == (2, True)
    path.write_bytes(bundle.encode() * 2)
    said = cli("verify", str(path), "--trace", str(path))
    assert (said.code, "a trace is of one" in said.err) == (2, True)


@pytest.fixture(scope="module")
def real(model_path: Path) -> dict[str, Bundle]:
    """An honest answer of the real model at each level."""
    from assay.apps.wiring import Capacity, open_engine
    from assay.engines.models import resolve

    model = resolve(str(model_path), model_path.parent)
    with open_engine(model, Capacity(threads=1, parallel=1, context=256)) as engine:
        return {
            level: answered(engine, tiny_request("Name a colour.", level=level, max_tokens=12, model=NAME))
            for level in ("pinned", "statistical", "signed")
        }


@pytest.mark.model
def test_offline(real: dict[str, Bundle], model_path: Path, tmp_path: Path, tmp_home: Path) -> None:
    """In another process without network, the model is found by its digest, and receipts of every level hold."""
    (tmp_path / "offline").mkdir()
    (tmp_path / "offline" / "sitecustomize.py").write_text(OFFLINE)
    add_model(model_path, "mine", tmp_home)
    for level, bundle in real.items():
        path = write(tmp_path / f"{level}.json", bundle)
        said = in_subprocess("verify", path, "--json", PYTHONPATH=f"{tmp_path / 'offline'}{os.pathsep}{ROOT / 'src'}")
        assert (said.code, said.json["holds"], said.json["level"]) == (0, True, level), said
        assert said.json["tokens_checked"] == (0 if level == "signed" else bundle.receipt.output_count)


@pytest.mark.model
def test_another_token(cli: Cli, real: dict[str, Bundle], model_path: Path, tmp_path: Path) -> None:
    """A token that the model would not have given is found, though everything is signed anew around it."""
    honest = real["pinned"]
    tokens = (*honest.tokens[:3], honest.tokens[3] + 1, *honest.tokens[4:])
    receipt = replace(honest.receipt, output=output_digest(honest.request.nonce, tokens))
    path = write(tmp_path / "r.json", replace(honest, receipt=sign(receipt, tiny_key()), tokens=tokens))
    said = cli("verify", path, "--model", str(model_path), "--json")
    assert said.code == 1
    assert any("token 3" in reason for reason in said.json["reasons"])
