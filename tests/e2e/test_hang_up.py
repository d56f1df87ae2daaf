"""A consumer that hangs up stops the machine and still gets a receipt for what was delivered."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from tests.e2e.conftest import EXACT, ROUNDABOUT, Network, surface_of
from tests.e2e.kit import MODEL, Program, bundles, events, until

from assay.core.bundle import Bundle
from assay.core.encoding import b64
from assay.core.request import Message, Request, SamplerSettings
from assay.core.verdict import Verdict
from assay.engines.llama_model import LlamaTokenizer
from assay.network.wire import Asked, encode_request

pytestmark = [pytest.mark.e2e, pytest.mark.model]

STORY = [{"role": "user", "content": "Write a very long story about a fox. Do not stop."}]
ASK = {"model": MODEL, "messages": STORY, "temperature": 0}
SECOND = 1.0
Check = Callable[[Bundle], Verdict]


@pytest.fixture
def surface(request: pytest.FixtureRequest) -> str:
    """Against whom a test runs."""
    return surface_of(request)


def idle(program: Program) -> bool:
    """No answer is being generated there."""
    return httpx.get(f"{program.url}/health", timeout=5, verify=False).json()["active"] == 0


def stops(programs: list[Program]) -> None:
    """Within one second nobody generates any more."""
    left_at = time.monotonic()
    until(lambda: all(map(idle, programs)), seconds=10)
    assert time.monotonic() - left_at < SECOND


def behind(network: Network, surface: str) -> list[Program]:
    """The providers that a gateway asks; of another surface none."""
    if network.far is not None and surface in network.far.gateways:
        return network.far.providers
    return network.providers if surface == "gateway" else []


def receipt(program: Program, name: str) -> Bundle:
    """The receipt of an answer that was cut, as soon as it is signed."""
    (bundle,) = until(lambda: _found(program, name), seconds=5)
    assert bundle.receipt.stop == "cancelled"
    return bundle


def _found(program: Program, name: str) -> list[Bundle]:
    with program.http as http:
        return bundles(program.url, name) if http.get(f"/receipts/{name}").status_code == 200 else []


@pytest.mark.parametrize("surface", ["gateway", "node", "provider", EXACT, *ROUNDABOUT], indirect=True)
def test_hanging_up_on_a_stream(network: Network, check: Check, tokenizer: LlamaTokenizer, surface: str) -> None:
    """Generation stops within one second; the receipt covers what came, little more, and holds."""
    provider = network.providers[0]
    program = provider if surface == "provider" else network.surface(surface, MODEL)
    texts: list[str] = []
    with program.http as http, http.stream("POST", "/v1/chat/completions", json={**ASK, "stream": True}) as reply:
        for chunk in events(reply):
            name = chunk["id"]
            texts.append(chunk["choices"][0]["delta"].get("content") or "")
            if len(texts) == 8:
                break
    stops([program, *behind(network, surface)])
    bundle = receipt(program, name)
    covered = b"".join(map(tokenizer.piece, bundle.tokens)).decode("utf-8", "replace")
    assert covered.startswith("".join(texts))
    assert bundle.receipt.output_count < 60
    assert check(bundle).holds
    if surface == "gateway":
        assert network.place.verify(bundle.encode(), network.model)["holds"]
        assert receipt(provider, name) == bundle


@pytest.mark.parametrize("surface", ["gateway", "node", EXACT, *ROUNDABOUT], indirect=True)
def test_hanging_up_on_an_answer_in_one_piece(network: Network, surface: str) -> None:
    """A consumer that does not wait for the whole answer stops it too."""
    program = network.surface(surface, MODEL)
    with program.http as http, pytest.raises(httpx.ReadTimeout):
        http.post("/v1/chat/completions", json=ASK, timeout=1.0)
    stops([program, *behind(network, surface)])


@pytest.mark.parametrize("surface", ["gateway", "node", EXACT], indirect=True)
def test_hanging_up_on_several_answers(network: Network, surface: str) -> None:
    """All answers of a call stop, and each one that had begun has its receipt."""
    program = network.surface(surface, MODEL)
    ask = {**ASK, "stream": True, "n": 3}
    begun: dict[int, int] = {}
    with program.http as http, http.stream("POST", "/v1/chat/completions", json=ask) as reply:
        for chunk in events(reply):
            for choice in chunk["choices"]:
                begun[choice["index"]] = begun.get(choice["index"], 0) + 1
            if sum(begun.values()) > 15 and len(begun) == 3:
                name = chunk["id"]
                break
    stops([program])
    found = until(lambda: found if len(found := _found(program, name)) == 3 else None)
    assert [bundle.request.choice for bundle in found] == [0, 1, 2]
    assert {bundle.receipt.stop for bundle in found} == {"cancelled"}


def test_hanging_up_on_the_native_wire(network: Network, check: Check) -> None:
    """The same straight at a provider; who knows the request can fetch the receipt."""
    provider = network.providers[0]
    request = Request(
        model=MODEL,
        kind="chat",
        messages=(Message("user", STORY[0]["content"]),),
        prompt="",
        sampler=SamplerSettings(),
        max_tokens=0,
        stop=(),
        tools="",
        tool_choice="none",
        response_format="",
        level="pinned",
        nonce=time.time_ns().to_bytes(32, "big"),
        created=int(time.time()),
    )
    steps: list[Any] = []
    ask = {"content": encode_request(Asked(request)), "headers": {"content-type": "application/json"}}
    with provider.http as http, http.stream("POST", "/assay/v1/answers", **ask) as reply:
        for step in events(reply):
            steps.append(step)
            if len(steps) == 5:
                break
    stops([provider])
    with provider.http as http:
        path = f"/assay/v1/bundles/{b64(request.name)}"
        until(lambda: http.get(path).status_code == 200)
        bundle = Bundle.decode(http.get(path).content)
    assert bundle.tokens[:5] == tuple(step["t"] for step in steps)
    assert bundle.receipt.stop == "cancelled"
    assert check(bundle).holds


def test_an_answer_is_stopped_by_its_name(network: Network) -> None:
    """DELETE on the native wire ends an answer, whose stream then ends with the receipt."""
    provider = network.providers[0]
    with provider.http as http, http.stream("POST", "/v1/chat/completions", json={**ASK, "stream": True}) as reply:
        seen = 0
        for chunk in events(reply):
            seen += 1
            if seen == 5:
                name = chunk["id"].removeprefix("chatcmpl-")
                assert httpx.delete(f"{provider.url}/assay/v1/answers/{name}").status_code == 204
                asked = time.monotonic()
            last = chunk
    assert time.monotonic() - asked < 2
    assert "error" in last
    assert len(last["assay"]["receipts"]) == 1
