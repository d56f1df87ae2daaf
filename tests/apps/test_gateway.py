"""A gateway on loopback with real providers behind it: streaming, fail-over, hang-ups, broken and lying providers."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path

import httpx
import pytest
from tests.network.test_http import stranger
from tests.running import free_port, provider, provider_process, running
from tests.tiny import TinyEngine, tiny_key

from assay.apps.auditing import HttpDesk
from assay.apps.gateway import gateway_app
from assay.apps.serving import LocalAnswers
from assay.core.bundle import Bundle
from assay.core.chain import check_chain
from assay.core.completion import Completion
from assay.core.encoding import b64
from assay.core.errors import NotFound
from assay.core.keys import Key
from assay.core.offer import Price
from assay.core.ports import Engine
from assay.core.receipt import Receipt, sign, verify_signature
from assay.core.request import Request
from assay.core.verdict import Finding, Verdict
from assay.journey import MarketAnswers
from assay.network.http import HttpTransport, Patience
from assay.store.receipts import ReceiptStore
from assay.verify.binding import check_offline

pytestmark = pytest.mark.anyio
QUICK = Patience(connect=0.5, reply=1.0, token=2.0, silence=1.0, farewell=1.0, refresh=0.2)
LONG_SEED = 4
"""With it, the tiny model's answer to HELLO has hundreds of tokens."""
HELLO = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 16}


@dataclass
class Gateway:
    url: str
    market: MarketAnswers
    store: ReceiptStore
    client: httpx.AsyncClient

    async def ask(self, **members: object) -> httpx.Response:
        """A chat completion in one piece."""
        return await self.client.post(f"{self.url}/v1/chat/completions", json=HELLO | members)

    async def stream(
        self, stop_after: int | None = None, each: Callable[[int], object] = lambda _: None, **members: object
    ) -> list[dict]:
        """The stream's events; with `stop_after`, hang up after so many. `each` is told how many have come."""
        body = HELLO | {"stream": True} | members
        found: list[dict] = []
        async with self.client.stream("POST", f"{self.url}/v1/chat/completions", json=body) as response:
            assert response.status_code == 200, await response.aread()
            async for line in response.aiter_lines():
                if line == "data: [DONE]":
                    found.append({"done": True})
                elif line.startswith("data: "):
                    found.append(json.loads(line[6:]))
                    each(len(found))
                    if len(found) == stop_after:
                        break
        return found


@asynccontextmanager
async def gateway(
    root: Path,
    *urls: str,
    patience: Patience = QUICK,
    audit_token: str = "",
    parallel: int = 64,
    key: Key | None = None,
) -> AsyncIterator[Gateway]:
    """A gateway over the providers at `urls`."""
    store = ReceiptStore(f"sqlite:///{root / 'gateway.db'}")
    transport = HttpTransport(urls, patience=patience, key=key)
    market = MarketAnswers(transport, store)
    app = gateway_app(market, store, audit_token=audit_token, parallel=parallel, close=transport.aclose)
    async with running(app, drain=market.drain) as url, httpx.AsyncClient(trust_env=False, timeout=20) as client:
        yield Gateway(url, market, store, client)


def receipts(reply: Mapping[str, object]) -> list[Receipt]:
    """The receipts of a reply or of a stream's last event."""
    return [Receipt.from_json(item) for item in reply["assay"]["receipts"]]  # type: ignore[index]


async def bundle_of(here: Gateway, reply: Mapping[str, object]) -> Bundle:
    """As the gateway keeps it."""
    return Bundle.decode((await here.client.get(f"{here.url}/receipts/{reply['id']}")).content)


async def test_an_answer_in_one_piece_carries_its_receipt(tmp_path: Path) -> None:
    """The OpenAI object, with a receipt that verifies, is kept, and is found by the completion's id."""
    async with provider(tmp_path, TinyEngine(), tiny_key()) as one, gateway(tmp_path, one.url) as here:
        reply = (await here.ask()).json()
        [receipt] = receipts(reply)
        bundle = await bundle_of(here, reply)
        assert bundle.receipt == receipt
        check_offline(bundle)
        assert reply["usage"]["completion_tokens"] == len(bundle.tokens)
        assert reply["assay"]["provider"] == tiny_key().address


async def test_a_stream_ends_with_its_receipt(tmp_path: Path) -> None:
    """Chunks as OpenAI has them, then one without choices that carries the receipt, then the end."""
    async with provider(tmp_path, TinyEngine(), tiny_key()) as one, gateway(tmp_path, one.url) as here:
        *chunks, last, done = await here.stream(stream_options={"include_usage": True})
        assert done == {"done": True}
        assert last["choices"] == []
        bundle = await bundle_of(here, last)
        assert receipts(last) == [bundle.receipt]
        check_offline(bundle)
        text = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])
        assert text
        assert bytes(t for t in bundle.tokens if t < 256).decode(errors="replace") == text


async def test_several_choices_have_a_receipt_each(tmp_path: Path) -> None:
    """`n` answers are `n` receipts of one call."""
    async with provider(tmp_path, TinyEngine(), tiny_key()) as one, gateway(tmp_path, one.url) as here:
        reply = (await here.ask(n=3)).json()
        assert len({receipt.digest for receipt in receipts(reply)}) == 3
        lines = (await here.client.get(f"{here.url}/receipts/{reply['id']}")).content.splitlines(keepends=True)
        assert [Bundle.decode(line).request.choice for line in lines] == [0, 1, 2]


async def test_a_consumer_that_hangs_up_stops_the_provider_and_the_receipt_is_kept(tmp_path: Path) -> None:
    """Through the gateway too: the engine stops within a second, and what came is covered and kept."""
    engine = TinyEngine(delay=0.01)
    async with provider(tmp_path, engine, tiny_key()) as one, gateway(tmp_path, one.url) as here:
        events = await here.stream(stop_after=6, max_tokens=1000, seed=LONG_SEED)
        for _ in range(100):
            if here.store.count():
                break
            await asyncio.sleep(0.01)
        computed = engine.generated
        await asyncio.sleep(0.1)
        assert engine.generated == computed < 100
        [bundle] = here.store.find(b64_digest(events[0]["id"]))
        check_offline(bundle)
        assert bundle.receipt.stop == "cancelled"
        assert len(bundle.tokens) >= 4
        assert here.market.active == 0


def b64_digest(completion: str) -> bytes:
    """The digest in a completion's id."""
    from assay.core.encoding import unb64

    return unb64(completion.removeprefix("chatcmpl-"), size=32, what="id")


async def test_a_full_provider_is_passed_over_and_when_all_are_full_it_is_a_429(tmp_path: Path) -> None:
    """The second request goes to the second provider, the third is told to come again."""
    async with (
        provider(tmp_path, TinyEngine(delay=0.1), tiny_key(1), parallel=1) as one,
        provider(tmp_path, TinyEngine(delay=0.1), tiny_key(2), parallel=1, price=2) as two,
        gateway(tmp_path, one.url, two.url) as here,
    ):
        first = asyncio.create_task(here.ask(max_tokens=30))
        await asyncio.sleep(0.15)
        second = asyncio.create_task(here.ask(max_tokens=30))
        await asyncio.sleep(0.15)
        third = await here.ask()
        assert third.status_code == 429
        assert int(third.headers["retry-after"]) >= 1
        providers = [(await task).json()["assay"]["provider"] for task in (first, second)]
        assert providers == [tiny_key(1).address, tiny_key(2).address]


async def test_a_dead_provider_costs_nothing_but_a_moment(tmp_path: Path) -> None:
    """Nobody at the cheapest address any more: the next one answers."""
    async with AsyncExitStack() as stack, provider(tmp_path, TinyEngine(), tiny_key(2), price=5) as two:
        one = await stack.enter_async_context(provider(tmp_path, TinyEngine(), tiny_key(1)))
        async with gateway(tmp_path, one.url, two.url, patience=replace(QUICK, refresh=60)) as here:
            assert (await here.ask()).json()["assay"]["provider"] == tiny_key(1).address
            await stack.aclose()
            assert (await here.ask()).json()["assay"]["provider"] == tiny_key(2).address


async def test_a_provider_that_is_killed_in_mid_stream_gives_a_clean_error(tmp_path: Path) -> None:
    """`kill -9`: the consumer gets what came, an OpenAI-shaped error event and the end; no receipt is lost."""
    with provider_process(tmp_path, delay=0.01) as (url, process):
        async with gateway(tmp_path, url) as here:
            before = (await here.ask()).json()
            *chunks, error, done = await here.stream(
                each=lambda count: count == 4 and process.send_signal(signal.SIGKILL), max_tokens=1000, seed=LONG_SEED
            )
            assert done == {"done": True}
            assert error["error"]["code"] == "provider_failed"
            assert len(chunks) > 3
            verify_signature((await bundle_of(here, before)).receipt)
            after = await here.ask()
            assert after.status_code == 424
            assert after.json()["error"]["code"] in ("provider_failed", "no_provider")
            for message in (error["error"]["message"], after.json()["error"]["message"]):
                assert url in message
                assert "Error" not in message, "no name of Python's"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_provider_that_is_killed_is_made_up_for_by_another_one(tmp_path: Path, stream: bool) -> None:
    """`kill -9`: to the consumer it is one answer. Its last event has the receipt of who went on and its usage; when
    the one that was killed is back, it has signed what it delivered, and both are found by the answer's name."""
    port, wishes = free_port(), {"max_tokens": 60, "temperature": 0, "stream": stream}
    with provider_process(tmp_path, 2, delay=0.01) as (other, _):
        with provider_process(tmp_path, 1, port=port, delay=0.01) as (url, process):
            async with gateway(tmp_path, url, other) as here:
                order = {"assay": {"order": [url]}}
                unbroken = (await here.ask(**wishes | {"assay": {"only": [other]}, "stream": False})).json()
                if stream:
                    asking = asyncio.create_task(here.stream(**wishes, **order, stream_options={"include_usage": True}))
                else:
                    asking = asyncio.create_task(here.ask(**wishes, **order))
                await asyncio.sleep(0.35)
                process.send_signal(signal.SIGKILL)
                if stream:
                    *chunks, reply, done = await asking
                    assert done == {"done": True}
                    said = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
                else:
                    reply = (await asking).json()
                    said = reply["choices"][0]["message"]["content"]
                assert said == unbroken["choices"][0]["message"]["content"]
                assert reply["usage"] == unbroken["usage"]
                assert [receipt.provider for receipt in receipts(reply)] == [tiny_key(2).address]
                with provider_process(tmp_path, 1, port=port):
                    for _ in range(300):
                        lines = (await here.client.get(f"{here.url}/receipts/{reply['id']}")).content.splitlines(True)
                        if len(lines) == 2:
                            break
                        await asyncio.sleep(0.05)
                    parts = [Bundle.decode(line) for line in lines]
                    check_chain(parts)
                    for part in parts:
                        check_offline(part)
                    assert [part.receipt.provider for part in parts] == [tiny_key(1).address, tiny_key(2).address]
                    assert 1 <= len(parts[0].tokens) < 60
                    assert len(parts[1].request.continues) + len(parts[1].tokens) == 60


async def test_an_engine_that_breaks_gives_an_error_with_a_receipt_for_the_part(tmp_path: Path) -> None:
    """The provider lives, its engine does not: the error event brings the receipt of what came."""
    async with provider(tmp_path, TinyEngine(breaks_at=5), tiny_key()) as one, gateway(tmp_path, one.url) as here:
        *_, error, _done = await here.stream(max_tokens=1000, seed=LONG_SEED)
        assert error["error"]["code"] == "provider_failed"
        [receipt] = receipts(error)
        assert (receipt.stop, receipt.output_count) == ("failed", 5)
        check_offline(await bundle_of(here, error))


class _EditedToken(LocalAnswers):
    def issue(self, engine: Engine, request: Request, completion: Completion, price: Price, *more: object) -> Bundle:
        edited = (*completion.tokens[:-1], completion.tokens[-1] ^ 1)
        return super().issue(engine, request, replace(completion, tokens=edited), price, *more)  # type: ignore[arg-type]


class _OtherKey(LocalAnswers):
    def issue(self, engine: Engine, request: Request, completion: Completion, price: Price, *more: object) -> Bundle:
        bundle = super().issue(engine, request, completion, price, *more)  # type: ignore[arg-type]
        return replace(bundle, receipt=sign(bundle.receipt, tiny_key(99)))


class _OneNumber(LocalAnswers):
    def issue(self, engine: Engine, request: Request, completion: Completion, price: Price, *more: object) -> Bundle:
        bundle = super().issue(engine, request, completion, price, *more)  # type: ignore[arg-type]
        return replace(bundle, receipt=sign(replace(bundle.receipt, sequence=7), tiny_key(1)))


@pytest.mark.parametrize(
    ("kind", "said"), [(_EditedToken, "other tokens"), (_OtherKey, "another key"), (_OneNumber, "sequence number 7")]
)
async def test_a_lying_provider_is_found_out_at_once_and_rests(
    tmp_path: Path, kind: type[LocalAnswers], said: str
) -> None:
    """Receipts that do not hold are a clean 424 naming why, are not kept, and the next request goes elsewhere."""
    async with (
        provider(tmp_path, TinyEngine(), tiny_key(1), kind=kind) as liar,
        provider(tmp_path, TinyEngine(), tiny_key(2), price=9) as honest,
        gateway(tmp_path, liar.url, honest.url) as here,
    ):
        if kind is _OneNumber:
            assert (await here.ask()).status_code == 200
        reply = await here.ask()
        assert reply.status_code == 424
        assert said in reply.json()["error"]["message"]
        assert (await here.ask()).json()["assay"]["provider"] == tiny_key(2).address


@pytest.mark.parametrize(
    "reply", [b"", b"nonsense", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", b"HTTP/1.1 500 X\r\n\r\n"]
)
async def test_when_only_nonsense_is_there_it_is_a_424(tmp_path: Path, reply: bytes) -> None:
    """No 5xx for anything that a provider can do; the message names the address."""
    async with stranger(reply) as url, gateway(tmp_path, url) as here:
        answer = await here.ask()
        assert answer.status_code == 424
        assert url in answer.json()["error"]["message"]
        assert "Error" not in answer.json()["error"]["message"], "no name of Python's"
        assert (await here.client.get(f"{here.url}/v1/models")).status_code == 424
        assert (await here.client.get(f"{here.url}/health")).status_code == 200


async def test_nobody_at_all_is_a_424_with_the_remedy(tmp_path: Path) -> None:
    """An address at which nothing listens: the error says so and what to start."""
    async with gateway(tmp_path, f"http://127.0.0.1:{free_port()}") as here:
        message = (await here.ask()).json()["error"]["message"]
        assert "no provider can be reached" in message
        assert "assay serve" in message


async def test_buyers_wishes_decide(tmp_path: Path) -> None:
    """`order`, `only`, `ignore`, `max_price` and `level` are obeyed, and the one that leaves nobody is named."""
    async with (
        provider(tmp_path, TinyEngine(), tiny_key(1)) as one,
        provider(tmp_path, TinyEngine(levels=("signed",)), tiny_key(2), price=5) as two,
        gateway(tmp_path, one.url, two.url) as here,
    ):

        async def chosen(**wishes: object) -> str:
            reply = (await here.ask(assay=wishes)).json()
            return reply["assay"]["provider"] if "assay" in reply else reply["error"]["message"]

        assert await chosen() == tiny_key(1).address
        assert await chosen(level="signed") == tiny_key(1).address
        assert await chosen(level="signed", order=[tiny_key(2).address]) == tiny_key(2).address
        assert await chosen(level="signed", only=[two.url]) == tiny_key(2).address
        assert await chosen(level="signed", ignore=[one.url]) == tiny_key(2).address
        assert "at level 'pinned'" in await chosen(level="pinned", ignore=[one.url]) or "ignore" in await chosen(
            level="pinned", ignore=[one.url]
        )
        assert "max_price" in await chosen(max_price={"prompt": 0, "completion": 0})


async def test_the_validators_desk_needs_its_token(tmp_path: Path) -> None:
    """Strangers see nothing; with the token, receipts are listed and verdicts count in the next choice."""
    async with (
        provider(tmp_path, TinyEngine(), tiny_key(1)) as one,
        provider(tmp_path, TinyEngine(), tiny_key(2), price=3) as two,
        gateway(tmp_path, one.url, two.url, audit_token="secret") as here,
    ):
        [receipt] = receipts((await here.ask()).json())
        stranger_desk, desk = HttpDesk(here.url, "guess"), HttpDesk(here.url, "secret")
        with pytest.raises(NotFound):
            await stranger_desk.unaudited(0)
        [(_, digest, by)] = await desk.unaudited(0)
        assert (digest, by) == (receipt.digest, receipt.provider)
        assert (await desk.bundle(digest)).receipt == receipt
        caught = Verdict(
            digest.hex(), receipt.provider, "pinned", "fails", (Finding("replay", "fails", "another model"),), 5, 0.1
        )
        tested = replace(caught, outcome="holds", findings=(Finding("forward", "holds", "as ever", None, 0.1, 1.0),))
        with pytest.raises(NotFound):
            await stranger_desk.passed(receipt.provider)
        assert await desk.tested(receipt.provider) == 0
        await desk.judge(tested)
        assert (await desk.tested(receipt.provider), await desk.passed(receipt.provider)) == (1, 1)
        await desk.judge(caught)
        assert await desk.unaudited(0) == []
        assert (await here.ask()).json()["assay"]["provider"] == tiny_key(2).address
        refused = (await here.ask(assay={"only": [one.url]})).json()["error"]["message"]
        assert "caught cheating" in refused
        text = (await here.client.get(f"{here.url}/metrics")).text
        assert (
            f'assay_verdicts_total{{checked="exact",level="pinned",outcome="fails",provider="{receipt.provider}"}} 1.0'
            in text
        )
        await stranger_desk.aclose()
        await desk.aclose()


async def test_a_gateway_that_starts_again_knows_who_was_caught(tmp_path: Path) -> None:
    """Its very first request goes to somebody else, and nobody had to tell it anew."""
    async with (
        provider(tmp_path, TinyEngine(), tiny_key(1)) as one,
        provider(tmp_path, TinyEngine(), tiny_key(2), price=3) as two,
    ):
        async with gateway(tmp_path, one.url, two.url) as here:
            [receipt] = receipts((await here.ask()).json())
            wrong = Finding("replay", "fails", "another model")
            here.store.judge(Verdict(receipt.digest.hex(), receipt.provider, receipt.level, "fails", (wrong,), 5, 0.1))
        async with gateway(tmp_path, one.url, two.url) as here:
            assert (await here.ask()).json()["assay"]["provider"] == tiny_key(2).address


async def test_a_verdict_is_on_its_receipt_alone(tmp_path: Path) -> None:
    """Who holds the token cannot pin one provider's fault on another, nor at another level: 400, and nothing counts."""
    async with (
        provider(tmp_path, TinyEngine(), tiny_key(1)) as one,
        gateway(tmp_path, one.url, audit_token="secret") as here,
    ):
        [receipt] = receipts((await here.ask()).json())
        finding = Finding("replay", "fails", "another model")
        good = Verdict(receipt.digest.hex(), receipt.provider, receipt.level, "fails", (finding,), 5, 0.1)
        for wrong in (replace(good, provider=tiny_key(2).address), replace(good, level="signed")):
            reply = await here.client.post(
                f"{here.url}/assay/v1/verdicts",
                content=json.dumps(wrong.to_json()),
                headers={"authorization": "Bearer secret"},
            )
            assert reply.status_code == 400
            assert "the receipt's is" in reply.json()["error"]["message"]
        assert here.store.tallies() == []
        assert (await here.ask()).status_code == 200


async def test_a_receipt_that_is_shown_around_opens_no_conversation(tmp_path: Path) -> None:
    """Of provider (or node) and gateway, no public route gives anything for a digest in a receipt or its own, in any
    spelling; the reply's id gives the bundle at both, and the validators' token at the desk."""
    async with (
        provider(tmp_path, TinyEngine(), tiny_key()) as one,
        gateway(tmp_path, one.url, audit_token="secret") as here,
    ):
        reply = (await here.ask()).json()
        [receipt] = receipts(reply)
        shown = [
            receipt.digest,
            *(value for item in fields(receipt) if isinstance(value := getattr(receipt, item.name), bytes)),
        ]
        assert len(shown) == 10
        for url in (one.url, here.url):
            told = (await here.client.get(f"{url}/openapi.json")).json()["paths"].items()
            at_the_desk = "/assay/v1/receipts/"  # strangers see nothing there
            routes = {path.partition("{")[0] for path, methods in told if "{" in path and "get" in methods} | {
                at_the_desk
            }
            assert {"/receipts/", "/v1/models/"} <= routes
            assert ("/assay/v1/bundles/" in routes) == (url == one.url)
            for digest in shown:
                for name in (b64(digest), digest.hex(), f"chatcmpl-{b64(digest)}", f"cmpl-{digest.hex()}"):
                    for route in routes:
                        assert (await here.client.get(f"{url}{route}{name}")).status_code == 404, route
                    assert (await here.client.delete(f"{url}/assay/v1/answers/{name}")).status_code == 404
            bundle = Bundle.decode((await here.client.get(f"{url}/receipts/{reply['id']}")).content)
            assert bundle.receipt == receipt
        kept = f"{here.url}{at_the_desk}{b64(receipt.digest)}"
        for token, status in (("guess", 404), ("secret", 200)):
            found = await here.client.get(kept, headers={"authorization": f"Bearer {token}"})
            assert found.status_code == status
        assert Bundle.decode(found.content).receipt == receipt


async def test_a_trace_is_read_by_the_replys_id(tmp_path: Path) -> None:
    """Who has the reply's id sees what happened to the request; other names find nothing."""
    async with provider(tmp_path, TinyEngine(), tiny_key()) as one, gateway(tmp_path, one.url) as here:
        reply = (await here.ask(n=2)).json()
        await here.market.drain(1)
        found = (await here.client.get(f"{here.url}/traces/{reply['id']}")).json()["traces"]
        assert [marks[-1]["stage"] for marks in found] == ["keep", "keep"]
        for name in (reply["assay"]["receipts"][0]["request"], "x", b64(bytes(32))):
            assert (await here.client.get(f"{here.url}/traces/{name}")).status_code == 404


async def test_a_gateway_whose_database_fails_still_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The buyer gets answer and receipt, even if the gateway cannot keep a copy."""
    import sqlite3

    monkeypatch.setattr("assay.store.database.BUSY_SECONDS", 0.1)
    async with provider(tmp_path, TinyEngine(), tiny_key()) as one, gateway(tmp_path, one.url) as here:
        holder = sqlite3.connect(tmp_path / "gateway.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        reply = await here.ask()
        holder.close()
        assert reply.status_code == 200
        verify_signature(receipts(reply.json())[0])


async def test_requests_over_parallel_are_refused(tmp_path: Path) -> None:
    """A gateway takes as many requests at a time as it is set to, more than 64 too, and so does a provider."""
    async with (
        provider(tmp_path, TinyEngine(parallel=80, delay=0.3), tiny_key(), parallel=80) as one,
        gateway(tmp_path, one.url, parallel=70, patience=Patience()) as gate,
    ):
        replies = await asyncio.gather(*(gate.ask(max_tokens=4, seed=number) for number in range(72)))
    assert sorted(reply.status_code for reply in replies) == [200] * 70 + [429] * 2
