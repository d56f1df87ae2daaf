"""What nobody should send, sent to real programs: a clear error, never a 5xx, and the program goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.conftest import EXACT, Network, surface_of
from tests.e2e.kit import MODEL, SAY, Place, Program, check_error

pytestmark = [pytest.mark.e2e, pytest.mark.model]
SLOW = pytest.mark.slow

ASK: dict[str, Any] = {"model": MODEL, "messages": SAY, "max_tokens": 2}
JSON = {"content-type": "application/json"}
CHAT, COMPLETION, NATIVE = "/v1/chat/completions", "/v1/completions", "/assay/v1/answers"


@pytest.fixture(params=["gateway", "node", "provider", EXACT])
def program(network: Network, request: pytest.FixtureRequest) -> Program:
    """To whom it is sent."""
    return network.providers[0] if request.param == "provider" else network.surface(surface_of(request), MODEL)


@pytest.fixture
def http(program: Program) -> Iterator[httpx.Client]:
    """Afterwards the program still answers, and idles."""
    with program.http as client:
        yield client
        assert client.post(CHAT, json=ASK).status_code == 200
        assert client.get("/health").json()["active"] == 0


MALFORMED = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"1e999",
    b'"text"',
    b"\xff\xfe{\x00}\x00",
    b"\xef\xbb\xbf{}",
    b'{"model": NaN}',
    b'{"model": "a", "model": "b"}',
    b'{"model": "\xff"}',
    b'{"temperature": 1e400}',
    b'{"seed": ' + b"9" * 5000 + b"}",
    b'{"max_tokens": -1e308}',
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b'{"messages": ' + b"[" * 2000 + b"]" * 2000 + b"}",
    b"{" + b",".join(b'"%d": 0' % i for i in range(50_000)) + b"}",
    b"\x00" * 1000,
    b'{"model": "smollm2-135m", "messages": [{"role": "user", "content": "x"}]} and more',
]


def test_malformed_json(http: httpx.Client) -> None:
    """Whatever is no JSON object of the right form is a 400, on every path that takes one."""
    for path in (CHAT, COMPLETION, NATIVE):
        for body in MALFORMED:
            reply = http.post(path, content=body, headers=JSON)
            assert reply.status_code in (400, 404), (path, body[:40], reply.status_code, reply.text[:300])
            assert set(reply.json()["error"]) == {"message", "type", "param", "code"}


def test_wrong_types(http: httpx.Client) -> None:
    """Every field of the wrong type is a 400 that names it."""
    wrong: list[Any] = [[], {}, "", "x", -1, 1.5, True, 2**70, {"x": [1]}, [None]]
    fields = ("model", "messages", "max_tokens", "temperature", "top_p", "n", "seed", "stop", "stream", "tools")
    fields += ("tool_choice", "response_format", "logprobs", "top_logprobs", "stream_options", "assay", "logit_bias")
    refused = 0
    for field in fields:
        for value in wrong:
            reply = http.post(CHAT, json={**ASK, field: value})
            assert reply.status_code in (200, 400, 404), (field, value, reply.text[:300])
            if reply.status_code == 400:
                refused += 1
                param = reply.json()["error"]["param"]
                assert param is None or param.startswith(field) or field in reply.text, (field, value, reply.text)
    assert refused > 120


@pytest.mark.parametrize(
    "message",
    [
        '{"role": "user", "content": "\\ud800"}',
        '{"role": "user", "content": "\\udc00\\ud800"}',
        '{"role": "user", "name": "\\udfff", "content": "x"}',
        '{"role": "assistant", "content": "x", "tool_calls": [{"id": "\\ud800", "type": "function", '
        '"function": {"name": "f", "arguments": "{}"}}]}',
    ],
)
def test_lone_surrogates(http: httpx.Client, message: str) -> None:
    """Half of a surrogate pair has no UTF-8 and is refused; a whole pair is a letter like any other."""
    for extra in ("", ', "stream": true'):
        body = f'{{"model": "{MODEL}", "max_tokens": 2, "messages": [{message}]{extra}}}'
        assert "surrogate" in check_error(http.post(CHAT, content=body.encode(), headers=JSON), 400)
    for field in ("stop", "model", "user", "prompt"):
        body = json.dumps({"model": MODEL, "prompt": "x", "max_tokens": 2, field: "\udbff"}).encode()
        assert "surrogate" in check_error(http.post(COMPLETION, content=body, headers=JSON), 400)
    pair = f'{{"model": "{MODEL}", "prompt": "\\ud83e\\udd8a", "max_tokens": 2}}'
    assert http.post(COMPLETION, content=pair.encode(), headers=JSON).status_code == 200


def test_giant_bodies(http: httpx.Client) -> None:
    """A 10 MB prompt is a 413, told in its length or not, and others are answered meanwhile."""
    giant = json.dumps({**ASK, "messages": [{"role": "user", "content": "word " * 2_100_000}]}).encode()
    assert len(giant) > 10_000_000
    for content in (giant, iter([giant[:5_000_000], giant[5_000_000:]])):
        assert "larger than" in check_error(http.post(CHAT, content=content, headers=JSON), 413)
    prompt = json.dumps({"model": MODEL, "prompt": "a" * 10_000_000}).encode()
    check_error(http.post(COMPLETION, content=prompt, headers=JSON), 413)


@pytest.mark.parametrize("words", ["word ", "a", "é", "🦊", " \t", "<|im_start|>", "\u202e\u0301"])
def test_prompts_just_under_the_limit(http: httpx.Client, words: str) -> None:
    """Three megabytes of anything are a context overflow within seconds."""
    content = (words * 3_000_000)[: 3_000_000 // len(words.encode())]
    started = time.monotonic()
    body = {**ASK, "messages": [{"role": "user", "content": content}]}
    reply = http.post(CHAT, content=json.dumps(body, ensure_ascii=False).encode(), headers=JSON)
    message = check_error(reply, 400)
    assert "context" in message or "characters" in message
    assert time.monotonic() - started < 20


def test_unknown_names(http: httpx.Client) -> None:
    """Unknown models, paths and methods are told apart."""
    for name in ("gpt-5", "", "a" * 256, "../../etc/passwd", "smollm2-135m\n"):
        reply = http.post(CHAT, json={**ASK, "model": name})
        assert reply.status_code in (400, 404), reply.text
    reply = http.post(CHAT, json={**ASK, "model": "gpt-5"})
    assert reply.json()["error"]["code"] == "model_not_found"
    assert check_error(http.get("/v1/nothing"), 404)
    assert check_error(http.get(CHAT), 405)
    assert check_error(http.get("/receipts/%00%ff"), 404)
    assert check_error(http.get("/v1/models/..%2f..%2fetc"), 404)
    assert check_error(http.post(CHAT, content=json.dumps(ASK).encode(), headers={"content-type": "text/plain"}), 400)


def test_the_native_wire_takes_no_nonsense(network: Network) -> None:
    """Canonical requests with impossible members are refused one by one."""
    provider = network.providers[0]
    good = {
        "model": MODEL, "kind": "chat", "prompt": "", "max_tokens": 2, "stop": [], "tools": "", "tool_choice": "none",
        "messages": [{"role": "user", "content": "x", "tool_calls": "", "tool_call_id": "", "name": ""}],
        "sampler": {"temperature": 0, "top_k": 0, "top_p": 10**6, "min_p": 0},
        "response_format": "", "level": "pinned", "nonce": "A" * 43, "created": 0, "choice": 0,
    }  # fmt: skip
    bad: list[dict[str, Any]] = [
        {"model": "other"}, {"kind": "song"}, {"messages": [{}]}, {"max_tokens": -1},
        {"max_tokens": 2**53}, {"stop": [""]}, {"stop": ["x"] * 17}, {"tools": "["}, {"tools": "[1]"},
        {"tool_choice": "function:f"}, {"tool_choice": "nonsense"}, {"response_format": "{"},
        {"response_format": '{"type": 5}'}, {"level": "absolute"}, {"nonce": "A"}, {"nonce": "é" * 43},
        {"created": 2**53 - 1}, {"choice": 2**40}, {"sampler": {}},
        {"sampler": {"temperature": 2**52, "top_k": 0, "top_p": 10**6, "min_p": 0}},
        {"messages": [{"role": "user", "content": "x", "tool_calls": "{", "tool_call_id": "", "name": ""}]},
        {"prompt": "\ud800"},
    ]  # fmt: skip
    with provider.http as http:
        assert http.post(NATIVE, json={"request": good, "top_logprobs": None}).status_code == 200
        for change in bad:
            body = json.dumps({"request": {**good, **change}, "top_logprobs": None}).encode()
            reply = http.post(NATIVE, content=body, headers=JSON)
            assert reply.status_code in (400, 404, 424), (change, reply.status_code, reply.text[:300])
            assert reply.json()["error"]["message"]
        for top in (-1, 21, "x", 1.5, True):
            body = json.dumps({"request": good, "top_logprobs": top}).encode()
            check_error(http.post(NATIVE, content=body, headers=JSON), 400)
        check_error(http.get("/assay/v1/bundles/nothing"), 404)
        check_error(http.delete("/assay/v1/answers/nothing"), 404)
        assert http.get("/health").json()["active"] == 0


def test_slow_and_broken_bodies(network: Network) -> None:
    """A body that never ends, or less of it than was announced, keeps nobody else waiting."""
    for program in (network.gateway, network.node):
        host, port = program.url.removeprefix("http://").split(":")
        head = f"POST {CHAT} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        import socket

        with socket.create_connection((host, int(port))) as slow, socket.create_connection((host, int(port))) as gone:
            slow.sendall(f"{head}content-length: 1000\r\n\r\n{{".encode())
            gone.sendall(f"{head}content-length: 1000\r\n\r\n{{".encode())
            gone.close()
            with program.http as http:
                assert http.post(CHAT, json=ASK).status_code == 200
        with socket.create_connection((host, int(port))) as wild:
            wild.sendall(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
            assert b" 400 " in wild.recv(1000)


TRUNCATED = {"empty": 0, "magic": 4, "header": 20, "metadata": 50_000, "vocabulary": 1_000_000, "weights": 40_000_000}


@pytest.mark.parametrize("part", ["weights", *(pytest.param(part, marks=SLOW) for part in ("empty", "header"))])
@pytest.mark.parametrize("command", ["serve", "models add", "verify"])
def test_truncated_models(network: Network, tmp_path: Path, part: str, command: str) -> None:
    """A model file that was cut anywhere is refused with what to do, before anything is started."""
    cut = tmp_path / "cut.gguf"
    with network.model.open("rb") as file:
        cut.write_bytes(file.read(TRUNCATED[part]))
    place = Place(tmp_path)
    receipt = tmp_path / "receipt.json"
    if command == "verify":
        with network.node.http as http:
            name = http.post(CHAT, json=ASK).json()["id"]
            receipt.write_bytes(http.get(f"/receipts/{name}").content)
    args = {
        "serve": ("serve", "--port", "0", "--model", str(cut)),
        "models add": ("models", "add", str(cut)),
        "verify": ("verify", str(receipt), "--model", str(cut)),
    }
    done = place.assay(*args[command])
    assert done.returncode == 2, done
    assert "cut.gguf" in done.stderr
    assert "Traceback" not in done.stderr
    assert "try:" in done.stderr
    assert not done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("part", TRUNCATED)
def test_truncated_models_everywhere(network: Network, tmp_path: Path, part: str) -> None:
    """The same for more places to cut, files that are no files, and one that only looks like a GGUF."""
    cut = tmp_path / "cut.gguf"
    with network.model.open("rb") as file:
        whole = file.read(50_000_000)
    place = Place(tmp_path)
    for data in (whole[: TRUNCATED[part]], whole[: TRUNCATED[part]] + bytes(5000)):
        cut.write_bytes(data)
        for args in (("up", "--port", "0", "--model", str(cut)), ("models", "add", str(cut))):
            done = place.assay(*args)
            assert done.returncode in (2, 5), done
            assert "Traceback" not in done.stderr
            assert done.stderr.startswith("error:") or "error:" in done.stderr


def test_receipts_that_are_none(network: Network, tmp_path: Path) -> None:
    """Files that are no receipts, and receipts with a byte changed, are told with exit codes 2 and 1."""
    with network.node.http as http:
        name = http.post(CHAT, json=ASK).json()["id"]
        good = http.get(f"/receipts/{name}").content
    place = Place(tmp_path)
    changed = good.replace(b'"temperature":1000000', b'"temperature":1000001')
    assert changed != good
    for data, code in ((b"", 2), (good[:-1], 2), (good[: len(good) // 2], 2), (b"\xff" * 100, 2), (changed, 1)):
        path = tmp_path / "receipt.json"
        path.write_bytes(data)
        done = place.assay("verify", str(path), "--model", str(network.model), "--json")
        assert done.returncode == code, done
        assert json.loads(done.stdout)["holds"] is False
        assert json.loads(done.stdout)["reasons"]
        assert "Traceback" not in done.stderr
    missing = place.assay("verify", str(tmp_path / "nothing.json"))
    assert missing.returncode == 2
    assert "cannot be read" in missing.stderr
