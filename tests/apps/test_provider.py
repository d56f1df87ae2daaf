"""A provider on loopback: its native wire, hang-ups, refusals, and ends of every kind."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, MutableMapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.running import provider, provider_process
from tests.tiny import TinyEngine, tiny_key, tiny_request

from assay.apps.provider import Pace, provider_app
from assay.apps.serving import LocalAnswers
from assay.core.bundle import Bundle
from assay.core.encoding import b64
from assay.core.receipt import verify_signature
from assay.core.request import Request
from assay.network.wire import Asked, encode_request
from assay.store.receipts import ReceiptStore
from assay.verify.binding import check_offline

pytestmark = pytest.mark.anyio
KEY = tiny_key()
LONG = tiny_request(max_tokens=600, nonce=bytes([3]) * 32)
"""Its answer has 600 tokens."""


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """Speaks HTTP."""
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        yield client


async def events(client: httpx.AsyncClient, url: str, request: Request, stop_after: int | None = None) -> list[dict]:
    """The stream's events; with `stop_after`, hang up after so many."""
    found: list[dict] = []
    async with client.stream("POST", f"{url}/assay/v1/answers", content=encode_request(Asked(request))) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                found.append(json.loads(line[6:]))
                if len(found) == stop_after:
                    break
    return found


async def fetch(client: httpx.AsyncClient, url: str, request: Request) -> Bundle:
    """The receipt, as soon as there is one."""
    for _ in range(50):
        response = await client.get(f"{url}/assay/v1/bundles/{b64(request.name)}")
        if response.status_code == 200:
            return Bundle.decode(response.content)
        assert response.status_code == 404
        await asyncio.sleep(0.02)
    raise AssertionError("no receipt within a second")


async def test_the_stream_ends_with_a_receipt_for_its_tokens(client: httpx.AsyncClient, tmp_path: Path) -> None:
    """Tokens one by one, then the bundle, which verifies, is stored, and can be fetched by the request's name."""
    async with provider(tmp_path, TinyEngine(), KEY) as here:
        *steps, last = await events(client, here.url, tiny_request())
        bundle = Bundle.from_json(last["bundle"])
        check_offline(bundle)
        assert [step["t"] for step in steps] == list(bundle.tokens)
        assert [step["i"] for step in steps] == list(range(len(steps)))
        assert [step.get("stop") for step in steps[:-1]] == [None] * (len(steps) - 1)
        assert steps[-1]["stop"] == bundle.receipt.stop
        assert await fetch(client, here.url, tiny_request()) == bundle
        listed = await client.get(f"{here.url}/receipts/{b64(bundle.request.call)}")
        assert Bundle.decode(listed.content) == bundle


async def test_each_choice_of_a_call_has_a_bundle_of_its_own(client: httpx.AsyncClient, tmp_path: Path) -> None:
    """The first choice's name, which is its call's too, gives the first one's bundle and no other's."""
    async with provider(tmp_path, TinyEngine(), KEY) as here:
        requests = [tiny_request(max_tokens=4).for_choice(choice) for choice in range(3)]
        for request in requests:
            await events(client, here.url, request)
        assert [(await fetch(client, here.url, request)).request.choice for request in requests] == [0, 1, 2]


async def test_offers_name_model_levels_and_prices(client: httpx.AsyncClient, tmp_path: Path) -> None:
    """Everything that a consumer chooses by is in the list of offers."""
    async with provider(tmp_path, TinyEngine(levels=("signed", "pinned")), KEY, price=3) as here:
        value = (await client.get(f"{here.url}/assay/v1/offers")).json()
    assert value["provider"] == KEY.address
    assert [offer["level"] for offer in value["offers"]] == ["signed", "pinned"]
    offer = value["offers"][0]
    assert (offer["model"], offer["price"], offer["chat"], offer["tools"]) == (
        "tiny",
        {"prompt": "3", "output": "6"},
        True,
        True,
    )


async def test_hanging_up_stops_the_engine_and_leaves_a_receipt(client: httpx.AsyncClient, tmp_path: Path) -> None:
    """A consumer that just goes away: within a second the engine stands still, and the receipt covers what was sent."""
    engine = TinyEngine(delay=0.01)
    async with provider(tmp_path, engine, KEY) as here:
        got = await events(client, here.url, LONG, stop_after=5)
        bundle = await fetch(client, here.url, LONG)
        check_offline(bundle)
        assert bundle.receipt.stop == "cancelled"
        assert [step["t"] for step in got] == list(bundle.tokens[:5])
        assert len(bundle.tokens) <= 10
        computed = engine.generated
        await asyncio.sleep(0.1)
        assert engine.generated == computed
        assert here.answers.active == 0


async def test_hanging_up_while_the_prompt_is_read_frees_the_place(client: httpx.AsyncClient, tmp_path: Path) -> None:
    """A consumer that leaves before the first token holds no place."""
    async with provider(tmp_path, TinyEngine(delay=30), KEY, parallel=1) as here:
        with pytest.raises(httpx.ReadTimeout):
            async with client.stream(
                "POST", f"{here.url}/assay/v1/answers", content=encode_request(Asked(LONG)), timeout=0.2
            ) as response:
                await response.aread()
        await asyncio.sleep(0.1)
        assert here.answers.active == 0


async def test_delete_ends_the_stream_with_its_receipt(client: httpx.AsyncClient, tmp_path: Path) -> None:
    """Asked to stop, the provider sends the receipt on the stream that is open."""
    async with provider(tmp_path, TinyEngine(delay=0.01), KEY) as here:
        streaming = asyncio.create_task(events(client, here.url, LONG))
        await asyncio.sleep(0.1)
        name = b64(LONG.name)
        assert (await client.delete(f"{here.url}/assay/v1/answers/{name}")).status_code == 204
        *steps, last = await streaming
        bundle = Bundle.from_json(last["bundle"])
        assert bundle.receipt.stop == "cancelled"
        assert [step["t"] for step in steps] == list(bundle.tokens)
        assert (await client.delete(f"{here.url}/assay/v1/answers/{name}")).status_code == 404


async def test_one_more_than_the_places_is_told_to_come_again(client: httpx.AsyncClient, tmp_path: Path) -> None:
    """Full: 429 with Retry-After at once, and the answer under way goes on."""
    async with provider(tmp_path, TinyEngine(delay=0.005), KEY, parallel=1) as here:
        first = asyncio.create_task(events(client, here.url, tiny_request(max_tokens=20)))
        await asyncio.sleep(0.05)
        response = await client.post(f"{here.url}/assay/v1/answers", content=encode_request(Asked(LONG)))
        assert response.status_code == 429
        assert int(response.headers["retry-after"]) >= 1
        assert response.json()["error"]["code"] == "rate_limit_exceeded"
        assert "bundle" in (await first)[-1]


async def test_an_engine_that_breaks_gives_an_error_and_a_receipt_for_the_part(
    client: httpx.AsyncClient, tmp_path: Path
) -> None:
    """The stream tells the failure, then brings the receipt of what was sent, with stop `failed`."""
    async with provider(tmp_path, TinyEngine(breaks_at=4), KEY) as here:
        *steps, error, last = await events(client, here.url, LONG)
        assert error["error"]["code"] == "provider_failed"
        bundle = Bundle.from_json(last["bundle"])
        check_offline(bundle)
        assert bundle.receipt.stop == "failed"
        assert [step["t"] for step in steps] == list(bundle.tokens)
        assert len(steps) == 4


async def test_a_consumer_that_does_not_read_counts_as_gone(tmp_path: Path) -> None:
    """Who leaves a token unread for too long is hung up on, with a receipt: nobody holds a place for ever."""
    store, engine = ReceiptStore(f"sqlite:///{tmp_path / 'a.db'}"), TinyEngine(delay=0.01)
    answers = LocalAnswers([engine], KEY, store)
    app = provider_app(answers, store, KEY.address, pace=Pace(stall=0.1))
    sent: list[dict] = []

    async def receive() -> dict:
        if not sent:
            return {"type": "http.request", "body": encode_request(Asked(LONG)), "more_body": False}
        return await asyncio.Future()

    async def send(message: dict) -> None:
        sent.append(message)
        if len(sent) > 3:
            await asyncio.Future()  # the socket's buffers are full, and the other side reads nothing

    scope = {"type": "http", "method": "POST", "path": "/assay/v1/answers", "headers": [], "query_string": b""}
    await asyncio.wait_for(app(scope, receive, send), 5)  # type: ignore[arg-type]
    assert answers.active == 0
    [bundle] = store.find(LONG.name)
    assert (bundle.receipt.stop, len(bundle.tokens)) == ("cancelled", 3)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"{}",
        b"[" * 100_000,
        b'{"request": {}, "top_logprobs": null}',
        b'{"request": 1e5, "top_logprobs": 1.5}',
        b"\xff\xfe\x00",
        b'{"request":' + json.dumps({**tiny_request().to_json(), "created": -1}).encode() + b',"top_logprobs":null}',
        b'{"request":'
        + json.dumps({**tiny_request().to_json(), "prompt": "\ud800"}).encode()
        + b',"top_logprobs":null}',
        b'{"request":' + json.dumps({**tiny_request().to_json(), "tools": "{{"}).encode() + b',"top_logprobs":null}',
        b'{"request":' + json.dumps({**tiny_request().to_json(), "tools": "5"}).encode() + b',"top_logprobs":null}',
        b'{"request":' + json.dumps({**tiny_request().to_json(), "stop": [""]}).encode() + b',"top_logprobs":null}',
        b'{"request":'
        + json.dumps({**tiny_request().to_json(), "max_tokens": 2**60}).encode()
        + b',"top_logprobs":null}',
        encode_request(Asked(tiny_request("x" * 10_000))),
    ],
)
async def test_bodies_that_cannot_be_served_are_a_400(client: httpx.AsyncClient, tmp_path: Path, body: bytes) -> None:
    """Malformed, mistyped, out of range or too long: an OpenAI-shaped 400, and the place stays free."""
    async with provider(tmp_path, TinyEngine(), KEY, parallel=1) as here:
        for _ in range(2):
            response = await client.post(f"{here.url}/assay/v1/answers", content=body)
            assert response.status_code == 400, response.text
            assert response.json()["error"]["message"]
        assert here.answers.active == 0


async def test_a_giant_body_is_a_413(client: httpx.AsyncClient, tmp_path: Path) -> None:
    """Ten megabytes are refused without being kept."""
    async with provider(tmp_path, TinyEngine(), KEY) as here:
        response = await client.post(f"{here.url}/assay/v1/answers", content=b"x" * 10_000_000)
        assert response.status_code == 413


@pytest.mark.parametrize("path", ["answers/zz", "bundles/zz", "bundles/" + b64(bytes(32)), "answers/" + b64(bytes(32))])
async def test_names_that_lead_nowhere_are_a_404(client: httpx.AsyncClient, tmp_path: Path, path: str) -> None:
    """Unknown or malformed names."""
    async with provider(tmp_path, TinyEngine(), KEY) as here:
        method = "DELETE" if path.startswith("answers") else "GET"
        response = await client.request(method, f"{here.url}/assay/v1/{path}")
        assert response.status_code == 404
        assert response.json()["error"]["type"] == "not_found_error"


async def test_metrics_count_answers_tokens_and_refusals(client: httpx.AsyncClient, tmp_path: Path) -> None:
    """What happened can be read by Prometheus."""
    async with provider(tmp_path, TinyEngine(), KEY) as here:
        *steps, _ = await events(client, here.url, tiny_request())
        await client.post(f"{here.url}/assay/v1/answers", content=encode_request(Asked(tiny_request("x" * 5000))))
        text = (await client.get(f"{here.url}/metrics")).text
    assert f'assay_tokens_total{{kind="output",model="tiny"}} {len(steps)}.0' in text
    assert 'assay_refusals_total{kind="invalid_request_error"} 1.0' in text
    assert 'assay_receipts_total{level="pinned"} 1.0' in text
    assert "assay_answers_active 0.0" in text
    assert "assay_first_token_seconds_count 1.0" in text


async def test_when_receipts_cannot_be_kept_nothing_more_is_answered(
    client: httpx.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that another program holds: no receipt that is not kept, then 429 until it can be used again."""
    monkeypatch.setattr("assay.store.database.BUSY_SECONDS", 0.1)
    async with provider(tmp_path, TinyEngine(), KEY) as here:
        holder = sqlite3.connect(tmp_path / f"{KEY.address}.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        *_, last = await events(client, here.url, tiny_request())
        assert last["error"]["type"] == "rate_limit_error"
        assert str(tmp_path) not in last["error"]["message"]
        refused = await client.post(f"{here.url}/assay/v1/answers", content=encode_request(Asked(tiny_request())))
        assert refused.status_code == 429
        assert "receipts cannot be kept" in refused.json()["error"]["message"]
        holder.close()
        *_, last = await events(client, here.url, tiny_request())
        assert "bundle" in last


async def test_shutdown_lets_answers_finish_then_signs_what_was_delivered(
    client: httpx.AsyncClient, tmp_path: Path
) -> None:
    """Told to stop: a short answer ends by itself, a long one is cut after the grace time with its receipt."""
    async with provider(tmp_path, TinyEngine(delay=0.02), KEY) as here:
        short = asyncio.create_task(events(client, here.url, tiny_request(max_tokens=10)))
        long = asyncio.create_task(events(client, here.url, LONG))
        await asyncio.sleep(0.1)
        started = time.monotonic()
    assert time.monotonic() - started < 8
    *steps, last = await short
    assert Bundle.from_json(last["bundle"]).receipt.stop in ("stop", "length")
    *steps, last = await long
    bundle = Bundle.from_json(last["bundle"])
    check_offline(bundle)
    assert bundle.receipt.stop == "cancelled"
    assert [step["t"] for step in steps] == list(bundle.tokens)


async def test_the_last_token_and_the_receipt_are_one_write(tmp_path: Path) -> None:
    """No moment at which a process can be killed leaves a consumer with a whole answer and no receipt."""
    store, sent = ReceiptStore(f"sqlite:///{tmp_path / 'one.db'}"), list[bytes]()
    app = provider_app(LocalAnswers([TinyEngine()], KEY, store), store, KEY.address)
    body = encode_request(Asked(tiny_request(max_tokens=5)))

    async def receive() -> dict[str, object]:
        if not sent:
            return {"type": "http.request", "body": body}
        return await asyncio.Future()

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message.get("body", b""))

    scope = {"type": "http", "method": "POST", "path": "/assay/v1/answers", "headers": [], "query_string": b""}
    await asyncio.wait_for(app(scope, receive, send), 10)
    assert [data.count(b'"t":') for data in sent[1:]] == [1, 1, 1, 1, 1]
    assert [data.count(b'"bundle":') for data in sent[1:]] == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_every_receipt_that_was_sent_survives_the_end_of_the_process(
    client: httpx.AsyncClient, tmp_path: Path, how: signal.Signals
) -> None:
    """However the process ends, receipts that reached a consumer are in the database, and numbers go on."""
    with provider_process(tmp_path, delay=0.002) as (url, process):
        sent = []
        for number in range(3):
            *_, last = await events(client, url, tiny_request(nonce=bytes([number]) * 32, max_tokens=5))
            sent.append(Bundle.from_json(last["bundle"]))
        streaming = asyncio.create_task(events(client, url, LONG))
        await asyncio.sleep(0.2)
        process.send_signal(how)
        if how == signal.SIGKILL:
            with pytest.raises(httpx.HTTPError):
                await streaming
        else:
            sent.append(Bundle.from_json((await streaming)[-1]["bundle"]))
        await asyncio.to_thread(process.wait, 10)
        assert "Traceback" not in (process.stdout.read() if process.stdout else "")
    store = ReceiptStore(f"sqlite:///{tmp_path / 'process1.db'}")
    for bundle in sent:
        assert store.get(bundle.receipt.digest) == bundle
        verify_signature(bundle.receipt)
    numbers = [bundle.receipt.sequence for bundle in sent]
    assert numbers == list(range(numbers[0], numbers[0] + len(sent)))
