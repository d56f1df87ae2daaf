"""A real gateway among providers that are away, half-dead or lying."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.bad_providers import BAD, UNASKED, listening
from tests.e2e.conftest import Network
from tests.e2e.kit import MODEL, SAY, Place, Program, bundles, check_error, events
from tests.running import free_port

from assay.core.receipt import Receipt

pytestmark = [pytest.mark.e2e, pytest.mark.model]

ASK: dict[str, Any] = {"model": MODEL, "messages": SAY, "max_tokens": 3}


@contextmanager
def gateway(place: Place, *providers: str) -> Iterator[Program]:
    """A gateway that waits two seconds for a word of a provider."""
    named = [part for url in providers for part in ("--provider", url)]
    args = ("gateway", "--port", "0", "--json", *named)
    with place.running("gateway", *args, ASSAY_GATEWAY_TIMEOUT_SECONDS="2") as program:
        yield program
        assert "Traceback" not in program.log
        assert httpx.get(f"{program.url}/health").json()["active"] == 0


@pytest.mark.slow
def test_an_honest_one_among_bad_ones(network: Network, tmp_path: Path) -> None:
    """Buyers are served in spite of all of them: at the latest when each one has failed once, every answer comes, and
    until then failures are said in order."""
    with ExitStack() as stack:
        bad = [stack.enter_context(listening(talk)) for talk in BAD.values()]
        urls = [*(each.url for each in bad), f"http://127.0.0.1:{free_port()}", network.providers[0].url]
        front = stack.enter_context(gateway(Place(tmp_path), *urls))
        http = stack.enter_context(front.http)
        started = time.monotonic()
        statuses = []
        while statuses[-3:] != [200] * 3:
            assert len(statuses) < 2 * len(BAD), statuses
            reply = http.post("/v1/chat/completions", json=ASK)
            statuses.append(reply.status_code)
            if reply.status_code != 200:
                check_error(reply, 424)
        assert time.monotonic() - started < 60
        receipt = Receipt.from_json(reply.json()["assay"]["receipts"][0])
        assert receipt.provider == network.providers[0].facts["address"]
        assert bundles(front.url, reply.json()["id"])[0].receipt == receipt
        assert any(each.asked for each in bad)


def test_the_first_answer_does_not_wait_for_the_half_dead(network: Network, tmp_path: Path) -> None:
    """A provider that accepts connections and says nothing costs the first buyer a moment, not its whole patience."""
    with listening(BAD["mute"]) as mute, gateway(Place(tmp_path), mute.url, network.providers[0].url) as front:
        started = time.monotonic()
        assert httpx.post(f"{front.url}/v1/chat/completions", json=ASK, timeout=60).status_code == 200
        assert time.monotonic() - started < 5


@pytest.mark.slow
@pytest.mark.parametrize("kind", BAD)
def test_each_bad_one_alone(tmp_path: Path, kind: str) -> None:
    """With nobody else, the buyer hears in good time what is wrong, streamed or not, and what to do."""
    with listening(BAD[kind]) as bad, gateway(Place(tmp_path), bad.url) as front, front.http as http:
        for stream in (False, True):
            started = time.monotonic()
            with http.stream("POST", "/v1/chat/completions", json={**ASK, "stream": stream}) as reply:
                if reply.status_code == 200:
                    error = list(events(reply))[-1]["error"]
                else:
                    reply.read()
                    check_error(reply, 424)
                    error = reply.json()["error"]
            assert error["type"] == "provider_error"
            assert time.monotonic() - started < 30
    assert (bad.asked == 0) == (kind in UNASKED)
