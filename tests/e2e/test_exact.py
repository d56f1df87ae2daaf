"""The exact engine as users run it: served, bought, checked offline, with traces, and a cheat that alters one sum."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.kit import MODEL, SAY, Place, Program, all_running, bundles, openai, until

from assay.apps.config import home
from assay.core.bundle import Bundle
from assay.core.encoding import b64

pytestmark = [pytest.mark.e2e, pytest.mark.model]
CHEAT = ("--cheat", "accumulator", "--i-am-testing-dishonesty")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A home that shares converted models with the user's own."""
    here = Place(tmp_path_factory.mktemp("exact"))
    (here.root / "home").mkdir()
    (home() / "exact").mkdir(parents=True, exist_ok=True)
    (here.root / "home" / "exact").symlink_to(home() / "exact")
    return here


@pytest.fixture(scope="module")
def programs(place: Place, model_path: Path) -> Iterator[tuple[Program, Program, Program]]:
    """An honest provider, one that alters a sum, and a gateway over both."""
    serve = ("serve", "--engine", "exact", "--model", str(model_path), "--context", "256", "--port", "0", "--json")
    starts = [
        place.running("honest", *serve, "--key", "honest", wait=False),
        place.running("cheat", *serve, "--key", "cheat", *CHEAT, wait=False),
    ]
    with all_running(starts) as (honest, cheat):
        named = ("--provider", honest.url, "--provider", cheat.url)
        with place.running("gateway", "gateway", "--port", "0", "--json", *named) as gateway:
            yield honest, cheat, gateway
            for program in (honest, cheat, gateway):
                assert "Traceback" not in program.log, program.log


def bought(gateway: Program, provider: Program, *, tokens: int = 12) -> Bundle:
    """An answer of that provider's, through the gateway."""
    wishes = {"assay": {"only": [provider.url], "level": "exact"}}
    reply = openai(gateway.url).chat.completions.create(model=MODEL, messages=SAY, max_tokens=tokens, extra_body=wishes)
    (bundle,) = bundles(gateway.url, reply.id)
    return bundle


def verified(place: Place, bundle: Bundle, model: Path, *options: str) -> tuple[int, Any]:
    """What `assay verify` says in another process, and its exit code."""
    file = place.root / f"{bundle.receipt.digest.hex()[:8]}.json"
    file.write_bytes(bundle.encode())
    done = place.assay("verify", str(file), "--model", str(model), "--json", *options)
    return done.returncode, json.loads(done.stdout)


def test_an_honest_answer(place: Place, programs: tuple[Program, Program, Program], model_path: Path) -> None:
    """It holds when everything is computed again, with the provider's trace, with some of it, and with one kept."""
    honest, _, gateway = programs
    bundle = bought(gateway, honest)
    assert bundle.receipt.level == "exact"
    kept = place.root / "kept.trace"
    file = place.root / "receipt.json"
    file.write_bytes(bundle.encode())
    fetched = place.assay("trace", str(file), "--provider", honest.url, "-o", str(kept), "--json")
    assert fetched.returncode == 0, fetched.stderr
    assert json.loads(fetched.stdout)["bytes"] == kept.stat().st_size > 2**20
    for options in ((), ("--trace", honest.url, "--tokens", "0.1"), ("--trace", str(kept))):
        code, verdict = verified(place, bundle, model_path, *options)
        assert (code, verdict["outcome"]) == (0, "holds"), verdict
        assert ("trace" in {finding["check"] for finding in verdict["findings"]}) is bool(options)
    assert verdict["tokens_checked"] == 12
    trace = bytearray(kept.read_bytes())
    trace[len(trace) * 2 // 3] ^= 1  # by somebody on the way
    kept.write_bytes(trace)
    code, verdict = verified(place, bundle, model_path, "--trace", str(kept))
    assert (code, verdict["outcome"]) == (0, "holds"), verdict
    assert ("trace", "unchecked") in {(finding["check"], finding["outcome"]) for finding in verdict["findings"]}


def test_one_altered_sum(place: Place, programs: tuple[Program, Program, Program], model_path: Path) -> None:
    """All tokens are honest; the receipt fails all the same, and with the trace it is said which operation it was."""
    _, cheat, gateway = programs
    bundle = bought(gateway, cheat)
    code, verdict = verified(place, bundle, model_path)
    assert (code, verdict["outcome"]) == (1, "fails")
    assert "activations" in verdict["reasons"][0]
    code, verdict = verified(place, bundle, model_path, "--trace", cheat.url)
    assert (code, verdict["outcome"]) == (1, "fails")
    assert verdict["reasons"][0].startswith(
        "row 768 of the up product is not what weights and activations give at position 16 in layer 15"
    )


def test_who_gets_a_trace(programs: tuple[Program, Program, Program]) -> None:
    """Who knows the request, one at a time, for positions that there are; who hangs up ends it."""
    honest, _, gateway = programs
    bundle = bought(gateway, honest, tokens=100)
    path = f"/assay/v1/bundles/{b64(bundle.request.name)}/trace"
    with honest.http as http:
        for name in (bundle.receipt.digest, bundle.receipt.request):
            assert http.get(f"/assay/v1/bundles/{b64(name)}/trace").status_code == 404
        for positions in ("x", "4-2", "3,3", "100000"):
            reply = http.get(path, params={"positions": positions})
            assert (reply.status_code, reply.json()["error"]["param"]) == (400, "positions")
        with http.stream("GET", path) as reply:
            assert reply.status_code == 200
            assert httpx.get(f"{honest.url}{path}").status_code == 429
            next(reply.iter_bytes())
    with honest.http as http:
        until(lambda: http.get(path, params={"positions": "0"}).status_code == 200, seconds=5)
        signed = openai(honest.url).chat.completions.create(
            model=MODEL, messages=SAY, max_tokens=2, extra_body={"assay": {"level": "signed"}}
        )
        reply = http.get(f"/assay/v1/bundles/{signed.id.removeprefix('chatcmpl-')}/trace")
        assert (reply.status_code, "level 'exact'" in reply.text) == (404, True)
