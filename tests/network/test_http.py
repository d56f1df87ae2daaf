"""The HTTP transport against good, dead, half-dead and lying providers, all of them real sockets."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.running import free_port, provider
from tests.tiny import PROFILE, TinyEngine, TinyReader, tiny_bundle, tiny_key, tiny_request

from assay.core.bundle import Bundle
from assay.core.completion import Completion, Step
from assay.core.errors import AssayError, BindingMismatch, Busy, InvalidRequest, ProviderFailed
from assay.core.offer import Load, Offer, Price
from assay.core.ports import Answer
from assay.core.receipt import attest
from assay.network.http import IN_FLIGHT, HttpTransport, Patience
from assay.network.wire import bundle_event, decode_event, encode_offers, step_event
from assay.verify.binding import check_offline

pytestmark = pytest.mark.anyio
KEY = tiny_key()
QUICK = Patience(connect=0.5, reply=0.5, token=0.6, silence=0.4, farewell=0.5, refresh=0.05)
REQUEST = tiny_request(nonce=bytes([4]) * 32, max_tokens=20)
LONG = tiny_request(nonce=bytes([3]) * 32, max_tokens=600)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def transport(*urls: str, patience: Patience = QUICK) -> AsyncIterator[HttpTransport]:
    """To the providers at `urls`."""
    here = HttpTransport(urls, patience=patience)
    try:
        yield here
    finally:
        await here.aclose()


@asynccontextmanager
async def listening(serve: Behaviour) -> AsyncIterator[str]:
    """A socket server; gives its address, and leaves no connection behind."""
    serving: set[asyncio.Task[object]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            await serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving)


@asynccontextmanager
async def stranger(*replies: bytes, hold: float = 0.0) -> AsyncIterator[str]:
    """A server that writes `replies` whatever is asked (a reply each connection, the last one again), then holds."""
    left = list(replies)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(left.pop(0) if len(left) > 1 else left[0])
        await writer.drain()
        await asyncio.sleep(hold)

    async with listening(serve) as url:
        yield url


def offer(url: str) -> Offer:
    """Of whoever is at `url`."""
    return Offer(KEY.address, url, "tiny", bytes(32), "pinned", Price(0, 0), 2048, True, True, bytes(32), "gumbel/1")


async def read(answer: Answer, into: list[int]) -> None:
    """Collect tokens as they come."""
    async for step in answer.steps():
        into.append(step.token)  # noqa: PERF401 - an error must not lose what came before it


def steps_of(bundle: Bundle) -> list[bytes]:
    """The events of an honest stream."""
    last = len(bundle.tokens) - 1
    stop = bundle.receipt.stop
    assert stop != "cancelled"
    return [step_event(Step(i, t, "x", b"", stop=stop if i == last else None)) for i, t in enumerate(bundle.tokens)]


async def test_an_answer_streams_and_ends_with_its_receipt(tmp_path: Path) -> None:
    """Tokens with their text and log-probabilities as the engine gave them, then a receipt that covers them."""
    async with provider(tmp_path, TinyEngine(), KEY) as there, transport(there.url) as here:
        [found] = [o for o in await here.offers() if o.level == "pinned"]
        for _ in range(2):
            answer = await here.send(found, REQUEST, top_logprobs=2)
            steps = [step async for step in answer.steps()]
            bundle = await answer.bundle()
            check_offline(bundle)
            assert bundle.tokens == tuple(step.token for step in steps)
            assert steps[-1].stop == bundle.receipt.stop
            assert all(step.top and len(step.top.ids) == 2 and step.top.chosen <= 0 for step in steps)


async def test_a_compressed_stream_is_refused() -> None:
    """Nobody asked for that, and its bounds would be those of what it unpacks to."""
    head = HEAD.replace(b"connection", b"content-encoding: gzip\r\nconnection")
    async with stranger(head) as url, transport(url) as here:
        with pytest.raises(ProviderFailed, match="compressed"):
            await here.send(offer(url), REQUEST)


async def test_connections_are_used_again(tmp_path: Path) -> None:
    """Answers that were read to the end leave their connection open for the next one."""
    async with provider(tmp_path, TinyEngine(), KEY) as there, transport(there.url) as here:
        found = next(o for o in await here.offers() if o.level == "pinned")
        for _ in range(3):
            answer = await here.send(found, REQUEST)
            async for _step in answer.steps():
                pass
            await answer.bundle()
        pool = here._client._transport._plain._pool  # type: ignore[attr-defined]
        assert len(pool.connections) == 1


async def test_closing_stops_the_provider_and_drains_to_the_receipt(tmp_path: Path) -> None:
    """Hung up in mid-stream: the provider stops, and the receipt covers every token that came."""
    engine = TinyEngine(delay=0.01)
    async with provider(tmp_path, engine, KEY) as there, transport(there.url) as here:
        found = next(o for o in await here.offers() if o.level == "pinned")
        answer = await here.send(found, LONG)
        steps = answer.steps()
        got = [(await anext(steps)).token for _ in range(3)]
        await answer.close()
        bundle = await answer.bundle()
        assert bundle.receipt.stop == "cancelled"
        assert bundle.tokens[:3] == tuple(got)
        computed = engine.generated
        await asyncio.sleep(0.05)
        assert engine.generated == computed < 20
        assert [step async for step in steps] == []


async def test_close_while_a_token_is_awaited_ends_the_wait(tmp_path: Path) -> None:
    """Another task hangs up while the consumer waits: the wait ends at once."""
    async with provider(tmp_path, TinyEngine(delay=5), KEY) as there, transport(there.url) as here:
        found = next(o for o in await here.offers() if o.level == "pinned")
        answer = await here.send(found, LONG)
        waiting = asyncio.create_task(anext(answer.steps(), None))
        await asyncio.sleep(0.05)
        await answer.close()
        assert await asyncio.wait_for(waiting, 0.5) is None
        assert (await answer.bundle()).tokens == ()


async def test_a_lost_connection_is_made_good_by_the_kept_receipt(tmp_path: Path) -> None:
    """The stream breaks on its way: the error is clean, and the receipt is fetched from where the provider kept it."""
    async with (
        provider(tmp_path, TinyEngine(delay=0.005), KEY) as there,
        _cutting_proxy(there.url, after=3_000) as url,
        transport(url) as here,
    ):
        found = next(o for o in await here.offers() if o.level == "pinned")
        answer = await here.send(found, LONG)
        got: list[int] = []
        with pytest.raises(ProviderFailed, match="broke"):
            await read(answer, got)
        bundle = await answer.bundle()
        check_offline(bundle)
        assert bundle.receipt.stop == "cancelled"
        assert bundle.tokens[: len(got)] == tuple(got)
        assert got


@asynccontextmanager
async def _cutting_proxy(url: str, after: int) -> AsyncIterator[str]:
    """Passes on what goes to and fro; cuts a connection after so many bytes of replies."""
    host, port = url.removeprefix("http://").split(":")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, int(port))

        async def up() -> None:
            while data := await reader.read(65536):
                back.write(data)

        asking = asyncio.create_task(up())
        left = after
        try:
            while left > 0 and (data := await there.read(min(left, 65536))):
                writer.write(data)
                left -= len(data)
        finally:
            asking.cancel()
            back.close()

    async with listening(serve) as here:
        yield here


async def test_a_full_provider_is_busy(tmp_path: Path) -> None:
    """A 429 arrives as Busy, with the time to wait."""
    async with provider(tmp_path, TinyEngine(delay=0.01), KEY, parallel=1) as there, transport(there.url) as here:
        found = next(o for o in await here.offers() if o.level == "pinned")
        first = await here.send(found, LONG)
        with pytest.raises(Busy) as caught:
            await here.send(found, REQUEST)
        assert caught.value.retry_after >= 1
        await first.close()
        await first.bundle()


async def test_an_invalid_request_keeps_its_field(tmp_path: Path) -> None:
    """A 400 arrives as InvalidRequest and names what is wrong."""
    async with provider(tmp_path, TinyEngine(), KEY) as there, transport(there.url) as here:
        found = next(o for o in await here.offers() if o.level == "pinned")
        with pytest.raises(InvalidRequest, match="context holds") as caught:
            await here.send(found, tiny_request("x" * 5000))
        assert caught.value.field == "messages"


async def test_offers_of_the_reachable_come_when_others_are_dead(tmp_path: Path) -> None:
    """A dead address, a silent one and one that talks nonsense do not hide the good one."""
    dead = f"http://127.0.0.1:{free_port()}"
    async with (
        provider(tmp_path, TinyEngine(), KEY) as there,
        stranger(b"", hold=5) as silent,
        stranger(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello") as nonsense,
        transport(dead, silent, nonsense, there.url) as here,
    ):
        assert {o.url for o in await here.offers()} == {there.url}


async def test_when_nobody_is_there_it_is_said_with_reasons() -> None:
    """All dead: one error that names each address."""
    one, two = f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
    async with transport(one, two) as here:
        with pytest.raises(ProviderFailed) as caught:
            await here.offers()
    assert one in str(caught.value)
    assert two in str(caught.value)


async def test_a_provider_that_comes_back_is_found_again() -> None:
    """Offers are asked for again after a while; what was missing may be there then."""
    reply = encode_offers(KEY.address, [offer("")])
    good = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(reply), reply)
    async with stranger(b"", good) as url, transport(url) as here:
        with pytest.raises(ProviderFailed):
            await here.offers()
        await asyncio.sleep(2 * QUICK.refresh)
        assert await here.offers() == [offer(url)]


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{}",
        b'{"provider":"0x12","offers":[]}',
        json.dumps({"provider": KEY.address, "offers": [{}]}).encode(),
        json.dumps({"provider": KEY.address, "offers": [{}] * 10_000}).encode(),
        encode_offers(KEY.address, [offer("")]).replace(b'"prompt":"0"', b'"prompt":"-1"'),
        encode_offers(KEY.address, [offer("")]).replace(b'"prompt":"0"', b'"prompt":"9' + b"9" * 40 + b'"'),
        encode_offers(KEY.address, [offer("")]).replace(b'"pinned"', b'"exactest"'),
        encode_offers(KEY.address, [offer("")]).replace(b'"gumbel/1"', b'"fair dice"'),
        encode_offers(KEY.address, [offer("")]).replace(b'"profile":"AA', b'"profile":"A'),
        encode_offers(KEY.address, [offer("")]).replace(b'"profile"', b'"profil"'),
        b"x" * 3_000_000,
        b"[" * 1_000_000,
    ],
)
async def test_nonsense_for_offers_is_the_providers_failure(body: bytes) -> None:
    """Whatever a stranger says instead of offers is an error of that provider, and never more."""
    reply = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    async with stranger(reply) as url, transport(url) as here:
        with pytest.raises(ProviderFailed):
            await here.offers()


async def test_a_provider_says_how_busy_it_is(tmp_path: Path) -> None:
    """Answers under way, and places."""
    async with provider(tmp_path, TinyEngine(delay=0.02), KEY, parallel=3) as there, transport(there.url) as here:
        found = next(o for o in await here.offers() if o.level == "pinned")
        assert await here.load(found) == Load(0, 3)
        answer = await here.send(found, LONG)
        await anext(answer.steps())
        assert await here.load(found) == Load(1, 3)
        await answer.close()


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"running":-1,"places":1}', b'{"running":1.5,"places":4}', b"x" * 10_000]
)
async def test_nonsense_for_a_load_is_the_providers_failure(body: bytes) -> None:
    """Nothing else gets through, and nothing large is read."""
    reply = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    async with stranger(reply) as url, transport(url) as here:
        with pytest.raises(ProviderFailed):
            await here.load(offer(url))


async def test_a_provider_that_never_says_how_busy_it_is_fails() -> None:
    """It is waited for as long as for a connection."""
    async with stranger(b"", hold=30) as url, transport(url) as here:
        with pytest.raises(ProviderFailed, match="waited"):
            await here.load(offer(url))


HONEST = tiny_bundle(REQUEST, KEY, 1)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 500 Oh\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 500 Oh\r\ncontent-length: 1000000000\r\n\r\n" + b"x" * 2_000_000,
        HEAD,
        HEAD + b"data: nonsense\n\n",
        HEAD + b"<html>hello</html>\n",
        HEAD + b'data: {"i":1,"t":5,"x":""}\n\n',
        HEAD + b'data: {"i":0,"t":-5,"x":""}\n\n',
        HEAD + b'data: {"i":0,"t":5,"x":7}\n\n',
        HEAD + b'data: {"i":0,"t":5,"x":"","stop":"because"}\n\n',
        HEAD + b'data: {"i":0,"t":5,"x":"","stop":"cancelled"}\n\n',
        HEAD + b'data: {"i":0,"t":5,"x":"","top":{"chosen":"NaN","ids":[],"logprobs":[],"bytes":[]}}\n\n',
        HEAD + b'data: {"i":0,"t":5,"x":"","top":{"chosen":NaN,"ids":[],"logprobs":[],"bytes":[""]}}\n\n',
        HEAD + b'data: {"error":{"message":"I am tired"}}\n\n',
        HEAD + b"data: " + b"x" * 1_000_000,
        HEAD + b'data: {"bundle":{}}\n\n',
        HEAD + b"".join(steps_of(HONEST)),
        HEAD + b'data: {"i":0,"t":5,"x":"","y":[' + b"[]," * 1_000_000 + b"0]}\n\n",
        HEAD + b'data: {"bundle":[' + b"[]," * 1_000_000 + b"0]}\n\n",
        HEAD + b'data: {"bundle":' + b"[" * 500_000 + b"}\n\n",
        HEAD + b"".join(steps_of(HONEST)) + step_event(Step(len(HONEST.tokens), 5, "more", b"")),
        HEAD + b'data: {"i":0,"t":5,"x":""}\n\ndata: {"error":{}}\n\ndata: {"i":1,"t":5,"x":""}\n\n',
    ],
)
async def test_what_is_not_the_protocol_is_the_providers_failure(reply: bytes) -> None:
    """Broken HTTP, errors, redirects, nonsense, other steps, cut streams: ProviderFailed, quickly, and no more."""
    async with stranger(reply) as url, transport(url) as here:
        with pytest.raises(ProviderFailed):
            await read(await here.send(offer(url), REQUEST), [])


async def test_an_answer_that_was_cut_without_a_receipt_has_none() -> None:
    """Neither on the stream nor kept: asking for the receipt is an error too, within the limits."""
    async with stranger(HEAD + steps_of(HONEST)[0]) as url, transport(url) as here:
        answer = await here.send(offer(url), REQUEST)
        with pytest.raises(ProviderFailed, match="broke off"):
            await read(answer, [])
        async with asyncio.timeout(2):
            with pytest.raises(ProviderFailed):
                await answer.bundle()


@pytest.mark.parametrize("reply", [b"", HEAD, HEAD + steps_of(HONEST)[0], HEAD + b"data: half"])
async def test_silence_is_the_providers_failure(reply: bytes) -> None:
    """A provider that accepts and then says nothing more is given up within the limits."""
    async with stranger(reply, hold=10) as url, transport(url) as here:
        async with asyncio.timeout(3):
            with pytest.raises(ProviderFailed, match=r"silent|does not reply"):
                await read(await here.send(offer(url), REQUEST), [])


async def test_signs_of_life_do_not_replace_tokens_for_ever() -> None:
    """Comments keep a slow provider alive, but not beyond the time for one token."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD)
        for _ in range(100):
            writer.write(b": still working\n\n")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with listening(serve) as url, transport(url) as here, asyncio.timeout(3):
        answer = await here.send(offer(url), REQUEST)
        with pytest.raises(ProviderFailed, match="silent"):
            await anext(answer.steps())


async def test_a_receipt_for_other_tokens_than_were_sent_is_refused() -> None:
    """The receipt on the stream must cover exactly the stream."""
    events = steps_of(HONEST)
    async with stranger(HEAD + b"".join(events[:-1]) + bundle_event(HONEST)) as url, transport(url) as here:
        answer = await here.send(offer(url), REQUEST)
        async for _step in answer.steps():
            pass
        with pytest.raises(BindingMismatch, match="other tokens"):
            await answer.bundle()


@pytest.mark.parametrize(("surplus", "taken"), [(IN_FLIGHT, True), (IN_FLIGHT + 1, False)])
async def test_after_a_hang_up_only_what_was_on_its_way_is_billed(surplus: int, taken: bool) -> None:
    """A provider that goes on after it was told to stop gets no receipt taken for what it made meanwhile."""
    steps = [step_event(Step(i, 32, "x", b"")) for i in range(1 + surplus)]
    request = replace(REQUEST, max_tokens=2 * IN_FLIGHT)
    completion = Completion(
        TinyReader().render(request), (32,) * len(steps), "", "cancelled", (bytes(32),) * len(steps)
    )
    receipt = attest(
        request, completion, model=bytes(32), profile=PROFILE, key=KEY, sequence=1, issued=1, amount=0
    )  # fmt: skip
    late = b"".join(steps[1:]) + bundle_event(Bundle(receipt, request, PROFILE, completion.tokens, b""))
    told = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (await reader.readuntil(b"\r\n\r\n")).startswith(b"DELETE"):
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            told.set()
        else:
            writer.write(HEAD + steps[0])
            await told.wait()
            await asyncio.sleep(0.3)
            writer.write(late)
        await writer.drain()
        writer.close()

    async with listening(serve) as url, transport(url) as here:
        answer = await here.send(offer(url), request)
        await anext(answer.steps())
        await answer.close()
        if taken:
            assert len((await answer.bundle()).tokens) == len(steps)
        else:
            with pytest.raises(BindingMismatch, match="was stopped after 1"):
                await answer.bundle()


async def test_a_fast_provider_is_not_blamed_for_what_it_made_before_it_heard() -> None:
    """Hundreds of tokens may come between hanging up and the provider's word that it has heard of it."""
    steps = [step_event(Step(i, 32, "x", b"")) for i in range(5 * IN_FLIGHT)]
    request = replace(REQUEST, max_tokens=len(steps))
    completion = Completion(
        TinyReader().render(request), (32,) * len(steps), "", "cancelled", (bytes(32),) * len(steps)
    )
    receipt = attest(
        request, completion, model=bytes(32), profile=PROFILE, key=KEY, sequence=1, issued=1, amount=0
    )  # fmt: skip
    late = b"".join(steps[1:]) + bundle_event(Bundle(receipt, request, PROFILE, completion.tokens, b""))
    told = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (await reader.readuntil(b"\r\n\r\n")).startswith(b"DELETE"):
            told.set()
            await asyncio.sleep(0.5)
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        else:
            writer.write(HEAD + steps[0])
            await told.wait()
            writer.write(late)
        await writer.drain()
        writer.close()

    async with listening(serve) as url, transport(url) as here:
        answer = await here.send(offer(url), request)
        await anext(answer.steps())
        await answer.close()
        assert len((await answer.bundle()).tokens) == len(steps)


async def test_an_endless_answer_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider cannot fill our memory: past the limit of an answer's bytes it has failed."""
    monkeypatch.setattr("assay.network.http._MAX_STREAM", 100_000)
    flood = b"".join(step_event(replace(_step(i), text="y" * 1000)) for i in range(200))
    async with stranger(HEAD + flood, hold=1) as url, transport(url) as here:
        answer = await here.send(offer(url), LONG)
        with pytest.raises(ProviderFailed, match="without end"):
            async for _ in answer.steps():
                pass


@pytest.mark.parametrize(("asked", "context", "most"), [(20, 2048, 20), (0, 50, 50), (2**31 - 1, 50, 50)])
async def test_more_tokens_than_an_answer_can_have_are_refused(asked: int, context: int, most: int) -> None:
    """What was asked for is the limit, and the context that was offered."""
    flood = HEAD + b"".join(step_event(_step(i)) for i in range(most + 1))
    async with stranger(flood, hold=1) as url, transport(url) as here:
        got: list[int] = []
        answer = await here.send(replace(offer(url), context=context), replace(REQUEST, max_tokens=asked))
        with pytest.raises(ProviderFailed, match=f"{most} tokens"):
            await read(answer, got)
        assert len(got) == most


async def test_a_slow_consumer_holds_its_provider_up_and_not_our_memory() -> None:
    """A bounded number of steps is kept; who goes on reading gets them all, and who hangs up still gets the receipt."""
    bundle = tiny_bundle(LONG, KEY, 1)
    assert len(bundle.tokens) > 300
    async with stranger(HEAD + b"".join(steps_of(bundle)) + bundle_event(bundle)) as url, transport(url) as here:
        for hang_up in (False, True):
            answer = await here.send(offer(url), LONG)
            await asyncio.sleep(0.1)
            assert answer._queue.qsize() == 256
            if not hang_up:
                assert [step.token async for step in answer.steps()] == list(bundle.tokens)
            assert await answer.bundle() == bundle


async def test_hostile_events_cost_no_more_memory_than_they_have_bytes() -> None:
    """Three megabytes of brackets, as a step or as a receipt, are refused unparsed."""
    for begins in (b'{"i":0,"t":5,"x":"","y":[', b'{"bundle":['):
        data = begins + b"[]," * 1_000_000 + b"0]}"
        tracemalloc.start()
        try:
            with pytest.raises(ProviderFailed):
                decode_event(data, 0)
            assert tracemalloc.get_traced_memory()[1] < 3 * len(data)
        finally:
            tracemalloc.stop()


def _step(index: int) -> Step:
    return Step(index, 5, "", b"")


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, InvalidRequest), (413, InvalidRequest), (404, AssayError), (429, Busy), (424, ProviderFailed)],
)
async def test_statuses_have_their_meaning(status: int, kind: type[AssayError]) -> None:
    """Errors before the stream keep their kind, also without a readable body."""
    for body in (b"", b'{"error":{"message":"so it is"}}', b'{"error":5}'):
        head = f"HTTP/1.1 {status} X\r\nretry-after: soon\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        async with stranger(head.encode() + body) as url, transport(url) as here:
            with pytest.raises(kind):
                await here.send(offer(url), REQUEST)


@pytest.mark.parametrize(("type_", "kind"), [("rate_limit_error", Busy), ("invalid_request_error", InvalidRequest)])
async def test_refusals_on_the_stream_have_their_meaning_before_the_first_token(
    type_: str, kind: type[AssayError]
) -> None:
    """An engine may refuse only when it begins; in mid-answer the same words are a failure."""
    error = b"data: " + json.dumps({"error": {"message": "no", "type": type_}}).encode() + b"\n\n"
    async with stranger(HEAD + error) as url, transport(url) as here:
        with pytest.raises(kind):
            await anext((await here.send(offer(url), REQUEST)).steps())
    async with stranger(HEAD + steps_of(HONEST)[0] + error) as url, transport(url) as here:
        with pytest.raises(ProviderFailed):
            [step async for step in (await here.send(offer(url), REQUEST)).steps()]
