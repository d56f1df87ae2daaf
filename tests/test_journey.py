"""The whole story in seconds: ask, match, answer, attest, check, keep, re-check, and a cheat caught. No network."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from tests.tiny import PROFILE, TinyEngine, TinyModel, TinyReplayer, profile_at, tiny_key, tiny_request

from assay.apps.auditing import StoreDesk
from assay.apps.local import LocalAnswer
from assay.apps.serving import LocalAnswers
from assay.apps.validator import Validator
from assay.core.bundle import Bundle
from assay.core.completion import Completion, Prompt, Step
from assay.core.errors import Busy, InvalidRequest, ModelNotFound, NoProvider, ProviderFailed
from assay.core.keys import Key
from assay.core.offer import Ask, Price
from assay.core.ports import Answer, Engine
from assay.core.request import LEVELS, Level, Request
from assay.core.verdict import Verdict
from assay.engines.text import spelled
from assay.journey import MarketAnswers
from assay.network.memory import MemoryTransport
from assay.store.receipts import ReceiptStore
from assay.verify.calibration import Calibration
from assay.verify.policy import verify_bundle

pytestmark = pytest.mark.anyio


class World:
    """A gateway and its providers in one process, with real databases."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.providers: dict[str, LocalAnswers] = {}
        self.store = ReceiptStore(f"sqlite:///{root / 'gateway.db'}")

    def provider(
        self,
        number: int,
        engine: Engine,
        *,
        price: int = 1,
        parallel: int = 4,
        key: Key | None = None,
        kind: type[LocalAnswers] = LocalAnswers,
    ) -> LocalAnswers:
        """Start provider `number` with its own key and database."""
        store = ReceiptStore(f"sqlite:///{self._root / f'{number}.db'}")
        prices = dict.fromkeys(LEVELS, Price(price, 2 * price))
        answers = kind([engine], key or tiny_key(number), store, prices=prices, parallel=parallel)
        self.providers[f"memory://{number}"] = answers
        return answers

    def market(self, **options: object) -> MarketAnswers:
        """The gateway over all providers started so far."""
        return MarketAnswers(MemoryTransport(self.providers), self.store, **options)  # type: ignore[arg-type]


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Empty: each test starts the providers that it needs."""
    return World(tmp_path)


def wish(request: Request, **members: object) -> Ask:
    """For the request's model and level."""
    return Ask(request.model, request.level, **members)  # type: ignore[arg-type]


async def whole(answer: Answer) -> list[Step]:
    """All tokens."""
    return [step async for step in answer.steps()]


async def read(answer: Answer, into: list[int]) -> None:
    """Collect tokens as they come."""
    async for step in answer.steps():
        into.append(step.token)  # noqa: PERF401 - an error must not lose what came before it


@pytest.mark.parametrize("level", LEVELS)
async def test_an_answer_comes_with_a_receipt_that_is_kept(world: World, level: Level) -> None:
    """At every level: tokens stream, the receipt covers just them, names price and provider, and is stored."""
    world.provider(1, TinyEngine(levels=(level,), profile=profile_at(level)))
    request = tiny_request(level=level)
    market = world.market()
    answer = await market.answer(request, wish(request))
    steps = await whole(answer)
    bundle = await answer.bundle()
    assert bundle.tokens == tuple(step.token for step in steps)
    assert bundle.receipt.stop == steps[-1].stop
    assert bundle.receipt.provider == tiny_key(1).address
    assert bundle.receipt.amount == bundle.receipt.prompt_count + 2 * bundle.receipt.output_count
    assert world.store.get(bundle.receipt.digest) == bundle
    assert market.active == 0


async def test_the_cheapest_comes_first_and_failures_go_to_the_next(world: World) -> None:
    """A provider that breaks before its first token costs the consumer nothing; after it, the next is asked first."""
    world.provider(1, TinyEngine(breaks_at=0), price=1)
    world.provider(2, TinyEngine(), price=2)
    market = world.market()
    for _ in range(2):
        request = tiny_request()
        answer = await market.answer(request, wish(request))
        await whole(answer)
        assert (await answer.bundle()).receipt.provider == tiny_key(2).address
    assert market.router.health.at("memory://1").asked == 1


async def test_what_happened_is_kept(world: World) -> None:
    """The trace names each stage in its order, who failed and why, and nothing that was said."""
    world.provider(1, TinyEngine(breaks_at=0), price=1)
    world.provider(2, TinyEngine(), price=2)
    market = world.market()
    request = tiny_request("a secret question")
    answer = await market.answer(request, wish(request))
    await whole(answer)
    bundle = await answer.bundle()
    await market.drain(1)
    (trace,) = world.store.traces(request.name)
    assert [mark["stage"] for mark in trace] == [
        "match", "send", "failed", "send", "first_token", "last_token", "attest", "check", "keep",
    ]  # fmt: skip
    times = [mark["at_us"] for mark in trace]
    assert times == sorted(times)
    assert trace[0]["note"] == "2 of 6 offers fit"
    assert str(trace[2]["note"]).startswith(tiny_key(1).address)
    assert trace[6]["note"] == bundle.receipt.digest.hex()
    assert "secret" not in str(trace)
    assert world.store.traces(request.call) == [trace]
    assert world.store.traces(request.digest) == []


async def test_what_failed_is_kept_too(world: World) -> None:
    """Also where nobody gave a first token."""
    world.provider(1, TinyEngine(breaks_at=0))
    market = world.market()
    request = tiny_request()
    with pytest.raises(ProviderFailed):
        await market.answer(request, wish(request))
    await market.drain(1)
    (trace,) = world.store.traces(request.name)
    assert [mark["stage"] for mark in trace] == ["match", "send", "failed"]


async def test_what_a_choice_rested_on_is_kept(world: World) -> None:
    """Each wish with what it left and whom it left out, the shortlist, and what those who were asked said; also where
    nobody fits, and nothing that was said."""
    for number in range(1, 6):
        world.provider(number, TinyEngine(), price=number, parallel=number)
    market, names = world.market(), ["", *(tiny_key(number).address for number in range(1, 6))]
    request = tiny_request("a secret question")
    wished = wish(request, ignore=(names[1],), max_price=Price(4, 8))
    await (await market.answer(request, wished)).bundle()
    with pytest.raises(NoProvider):
        await market.answer(tiny_request("another"), wish(request, ignore=(names[1],), region="mars"))
    await market.drain(1)
    [trace] = world.store.traces(request.name)
    facts = trace[0]["facts"]
    assert isinstance(facts, dict)
    shortlist = facts.pop("shortlist")
    assert facts == {
        "all": 15, "model": "tiny", "level": "pinned", "like": 5, "sort": "balance",
        "wishes": [
            {"wish": "ignore", "value": names[1], "left": 4, "out": [names[1]]},
            {"wish": "max_price", "value": "4/8", "left": 3, "out": [names[5]]},
        ],
    }  # fmt: skip
    assert [(each["provider"], each["tier"]) for each in shortlist] == [(name, "newcomer") for name in names[2:5]]
    assert trace[1]["stage"] == "match"
    assert isinstance(trace[1]["facts"], dict)
    first, *_ = trace[1]["facts"]["probed"]
    assert (first["provider"], first["said"], first["running"], first["places"]) == (names[2], "room", 0, 2)
    [trace] = world.store.traces(tiny_request("another").name)
    assert [mark["stage"] for mark in trace] == ["match"]
    assert isinstance(trace[0]["facts"], dict)
    assert trace[0]["note"] == "0 of 15 offers fit"
    assert trace[0]["facts"]["wishes"][-1] == {"wish": "region", "value": "mars", "left": 0, "out": names[2:6]}
    assert trace[0]["facts"]["shortlist"] == []


async def test_full_providers_are_passed_over_and_when_all_are_full_it_is_said(world: World) -> None:
    """Nobody queues: a full provider refuses, the next one serves, and when all are full so does the gateway."""
    slow = TinyEngine(delay=0.02)
    world.provider(1, slow, price=1, parallel=1)
    world.provider(2, slow, price=2, parallel=1)
    market = world.market()
    request = tiny_request(max_tokens=20)
    answers = [await market.answer(request, wish(request)) for _ in range(2)]
    with pytest.raises(Busy):
        await market.answer(request, wish(request))
    providers = []
    for answer in answers:
        await answer.close()
        providers.append((await answer.bundle()).receipt.provider)
    assert providers == [tiny_key(1).address, tiny_key(2).address]


async def test_hanging_up_stops_the_engine_and_still_brings_a_receipt(world: World) -> None:
    """Cut after five tokens: the receipt covers five tokens or what was on its way, and the engine computes no more."""
    engine = TinyEngine(delay=0.005)
    provider = world.provider(1, engine)
    request = tiny_request(max_tokens=500, nonce=bytes([1]) * 32)
    market = world.market()
    answer = await market.answer(request, wish(request))
    steps = answer.steps()
    got = [(await anext(steps)).token for _ in range(5)]
    await answer.close()
    bundle = await answer.bundle()
    assert bundle.tokens == tuple(got)
    assert bundle.receipt.stop == "cancelled"
    assert world.store.get(bundle.receipt.digest) == bundle
    computed = engine.generated
    await asyncio.sleep(0.03)
    assert engine.generated == computed <= 7
    assert provider.active == 0


async def test_a_broken_stream_is_an_error_with_a_receipt_for_the_part(world: World) -> None:
    """After the first token no other provider goes on: the consumer hears of it, and the part is covered."""
    world.provider(1, TinyEngine(breaks_at=3))
    request = tiny_request(nonce=bytes([1]) * 32)
    answer = await world.market().answer(request, wish(request))
    got: list[int] = []
    with pytest.raises(ProviderFailed, match="tiny engine broke"):
        await read(answer, got)
    bundle = await answer.bundle()
    assert bundle.tokens == tuple(got)
    assert len(got) == 3
    assert bundle.receipt.stop == "failed"


async def test_wishes_that_leave_nobody_are_named(world: World) -> None:
    """Unknown model, level or price: the error says which wish it is, and what to do."""
    world.provider(1, TinyEngine(levels=("signed",)), price=5)
    market = world.market()
    request = tiny_request(level="signed")
    with pytest.raises(ModelNotFound, match="offered: tiny"):
        await market.answer(replace(request, model="huge"), wish(request))
    with pytest.raises(NoProvider, match="at level 'pinned'"):
        await market.answer(replace(request, level="pinned"), wish(request))
    with pytest.raises(NoProvider, match="asks 5 wei a prompt token and 10"):
        await market.answer(request, wish(request, max_price=Price(4, 100)))


async def test_a_request_that_the_model_cannot_take_is_the_consumers_error(world: World) -> None:
    """Providers agree that the prompt is too long: that is an invalid request, not a failed provider."""
    world.provider(1, TinyEngine())
    world.provider(2, TinyEngine())
    request = tiny_request("x" * 5000)
    with pytest.raises(InvalidRequest, match="context holds"):
        await world.market().answer(request, wish(request))


async def test_another_file_under_a_known_name_is_not_asked(world: World) -> None:
    """Who offers another model file under a name whose digest is known is passed over, however cheap."""
    world.provider(1, TinyEngine(seed=1), price=1)
    honest = TinyEngine()
    world.provider(2, honest, price=9)
    request = tiny_request()
    answer = await world.market(known={"tiny": honest.model_digest}).answer(request, wish(request))
    await answer.close()
    assert (await answer.bundle()).receipt.provider == tiny_key(2).address


async def test_a_cheat_is_caught_and_asked_no_more(world: World) -> None:
    """Another model under the claimed name: the receipt looks right, recomputing shows it, and the market remembers."""
    world.provider(1, _Swapped(), price=1)
    world.provider(2, TinyEngine(), price=5)
    market = world.market()

    def check(bundle: Bundle) -> Verdict:
        return verify_bundle(bundle, TinyReplayer(), calibration=Calibration((), 0.95), clock=time.time)

    async def ask(number: int, level: Level) -> Bundle:
        request = tiny_request(nonce=bytes([number]) * 32, level=level)
        answer = await market.answer(request, wish(request, order=(tiny_key(1 + number % 2).address,)))
        await whole(answer)
        return await answer.bundle()

    bundles = [
        await ask(number, level) for number, level in enumerate(["pinned", "pinned", "statistical", "statistical"])
    ]
    validator = Validator(StoreDesk(world.store), check, share=1.0)
    assert await validator.look() == 4
    outcomes = [world.store.verdicts_on(bundle.receipt.digest)[0]["outcome"] for bundle in bundles]
    assert outcomes == ["fails", "holds", "fails", "holds"]
    await market.look_up_verdicts()
    assert (await ask(4, "pinned")).receipt.provider == tiny_key(2).address


class _Swapped(TinyEngine):
    """Serves model 1 under the name and digest of model 0."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = TinyModel(1)


class _Tampering(LocalAnswers):
    """Signs something else than it delivered."""

    def issue(self, engine: Engine, request: Request, completion: Completion, price: Price, *more: object) -> Bundle:
        if completion.tokens:
            completion = replace(completion, tokens=(*completion.tokens[:-1], completion.tokens[-1] ^ 1))
        return super().issue(engine, request, completion, price, *more)  # type: ignore[arg-type]


class _Padding(LocalAnswers):
    """Charges for more than the price that it offered."""

    def issue(self, engine: Engine, request: Request, completion: Completion, price: Price, *more: object) -> Bundle:
        return super().issue(engine, request, completion, Price(price.prompt + 1, price.output), *more)  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "said"), [(_Tampering, "other tokens"), (_Padding, "amount")])
async def test_a_receipt_that_breaks_its_promise_is_refused(world: World, kind: type[LocalAnswers], said: str) -> None:
    """Cheap checks at once: a receipt for other tokens, or at another price, is not taken, and the liar rests."""
    world.provider(1, TinyEngine(), kind=kind)
    world.provider(2, TinyEngine(), price=7)
    market = world.market()
    request = tiny_request()
    answer = await market.answer(request, wish(request))
    await whole(answer)
    with pytest.raises(ProviderFailed, match=said):
        await answer.bundle()
    assert world.store.count() == 0
    answer = await market.answer(request, wish(request))
    await whole(answer)
    assert (await answer.bundle()).receipt.provider == tiny_key(2).address


class _Elsewhere(TinyEngine):
    """Changes the machine that it claims after it made its offers."""

    async def generate(
        self, request: Request, prompt: Prompt, *, top_logprobs: int | None = None
    ) -> AsyncIterator[Step]:
        self.profile = replace(PROFILE, isa="another")  # type: ignore[misc]
        async for step in super().generate(request, prompt, top_logprobs=top_logprobs):
            yield step


class _SmallContext(TinyEngine):
    """Stops after three tokens, and signs a context that was full just then."""

    async def generate(
        self, request: Request, prompt: Prompt, *, top_logprobs: int | None = None
    ) -> AsyncIterator[Step]:
        self.profile = replace(PROFILE, context=len(prompt.tokens) + 3)  # type: ignore[misc]
        async for step in super().generate(request, prompt, top_logprobs=top_logprobs):
            yield step


@pytest.mark.parametrize(("engine", "said"), [(_Elsewhere, "profile is not"), (_SmallContext, "context is not")])
async def test_the_machine_is_the_one_that_was_offered(world: World, engine: type[TinyEngine], said: str) -> None:
    """A profile that was made up for the answer breaks the offer's promise, though the receipt fits together."""
    world.provider(1, engine())
    request = tiny_request(nonce=bytes([1]) * 32)
    answer = await world.market().answer(request, wish(request))
    await whole(answer)
    with pytest.raises(ProviderFailed, match=said):
        await answer.bundle()


async def test_who_cannot_be_checked_is_asked_last(world: World) -> None:
    """A provider of another claimed machine, however cheap: three checks that could not be made, and others come first;
    alone it is still asked, for it may be honest."""
    world.provider(1, TinyEngine(profile=replace(PROFILE, isa="another")), price=1)
    world.provider(2, TinyEngine(), price=5)
    market = world.market()

    def check(bundle: Bundle) -> Verdict:
        return verify_bundle(bundle, TinyReplayer(), calibration=Calibration((), 0.95), clock=time.time)

    async def ask(number: int, **members: object) -> str:
        request = tiny_request(nonce=bytes([number]) * 32)
        answer = await market.answer(request, wish(request, **members))
        await whole(answer)
        return (await answer.bundle()).receipt.provider

    assert [await ask(number) for number in range(3)] == [tiny_key(1).address] * 3
    await Validator(StoreDesk(world.store), check, share=1.0).look()
    await market.look_up_verdicts()
    assert await ask(4) == tiny_key(2).address
    assert await ask(5, only=("memory://1",)) == tiny_key(1).address


class _Quitter(LocalAnswers):
    """Stops after three tokens; `word` is what the last step says, and the receipt says `cancelled`."""

    word: str | None = None

    async def answer(self, request: Request, ask: Ask, *, top_logprobs: int | None = None) -> LocalAnswer:
        answer = await super().answer(request, ask, top_logprobs=top_logprobs)
        return _Quitting(answer, self.word)  # type: ignore[return-value]


class _Quitting:
    """Implements `Answer`."""

    def __init__(self, inner: LocalAnswer, word: str | None) -> None:
        self.bundle, self.close = inner.bundle, inner.close
        self._inner, self._word = inner, word

    async def steps(self) -> AsyncIterator[Step]:
        async for step in self._inner.steps():
            last = step.index == 2
            yield replace(step, stop=self._word) if last else step  # type: ignore[arg-type]
            if last:
                await self.close()
                return


class _Cancelling(_Quitter):
    word = "cancelled"


@pytest.mark.parametrize("kind", [_Quitter, _Cancelling])
async def test_an_answer_that_ends_early_as_cancelled_is_the_providers_failure(
    world: World, kind: type[LocalAnswers]
) -> None:
    """Nobody hung up: whatever the provider calls it, it failed, and the next one is asked first from then on."""
    world.provider(1, TinyEngine(), kind=kind)
    world.provider(2, TinyEngine(), price=7)
    market = world.market()
    request = tiny_request(nonce=bytes([1]) * 32)
    answer = await market.answer(request, wish(request, allow_fallbacks=False))
    got: list[int] = []
    with pytest.raises(ProviderFailed, match="in the middle"):
        await read(answer, got)
    assert len(got) == 3
    with suppress(ProviderFailed):
        assert (await answer.bundle()).receipt.stop == "cancelled"
    assert market.router.health.at("memory://1").failures >= 1
    answer = await market.answer(request, wish(request))
    await whole(answer)
    assert (await answer.bundle()).receipt.provider == tiny_key(2).address


class _Ghostwriter(TinyEngine):
    """Draws the right tokens and shows other words from the second one on."""

    async def generate(
        self, request: Request, prompt: Prompt, *, top_logprobs: int | None = None
    ) -> AsyncIterator[Step]:
        async for step in super().generate(request, prompt, top_logprobs=top_logprobs):
            yield replace(step, text=step.text.upper() + "!") if step.index else step


@pytest.mark.parametrize("hang_up", [False, True])
async def test_words_that_the_tokens_do_not_say_are_refused(world: World, hang_up: bool) -> None:
    """Receipts bind tokens and people read text: a gateway that knows the vocabulary holds them together."""
    reader = TinyEngine().reader

    def spell(_model: bytes, tokens: Sequence[int], stops: Sequence[str]) -> tuple[str, str]:
        return spelled(reader.tokenizer.piece, tokens, stops)

    world.provider(1, _Ghostwriter(), price=1)
    world.provider(2, TinyEngine(), price=7)
    market = world.market(spell=spell)
    request = tiny_request()
    answer = await market.answer(request, wish(request))
    if hang_up:
        async for step in answer.steps():
            if step.index:
                break
    else:
        await whole(answer)
    with pytest.raises(ProviderFailed, match="not what its"):
        await answer.bundle()
    answer = await market.answer(request, wish(request))
    await whole(answer)
    assert (await answer.bundle()).receipt.provider == tiny_key(2).address
