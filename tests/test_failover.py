"""Providers that break off in mid-answer: another one goes on, and every part has its receipt. No network."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.test_journey import World, whole, wish
from tests.tiny import (
    EOG,
    PROFILE,
    TinyEngine,
    TinyReader,
    TinyReplayer,
    tiny_bundle,
    tiny_completion,
    tiny_key,
    tiny_request,
)

from assay.apps.local import LocalAnswer
from assay.apps.serving import LocalAnswers
from assay.core.bundle import Bundle
from assay.core.chain import check_chain, latest
from assay.core.completion import Prompt, Step
from assay.core.errors import BindingMismatch, ProviderFailed
from assay.core.request import LEVELS, Level, Request
from assay.delivery import MOST_PARTS
from assay.engines.text import spelled
from assay.verify.binding import check_offline, check_with_model
from assay.verify.replay import replay

pytestmark = pytest.mark.anyio
ASKED = tiny_request("Say é and more.", max_tokens=24, temperature=0, stop=("qz",))
WHOLE = tiny_completion(ASKED)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Empty: each test starts the providers that it needs."""
    return World(tmp_path)


def spell(_model: bytes, tokens: Sequence[int], stops: Sequence[str]) -> tuple[str, str]:
    """What tokens of the tiny model say."""
    return spelled(TinyReader().tokenizer.piece, tokens, stops)


def text_of(steps: Sequence[Step]) -> str:
    """What was shown."""
    return "".join(step.text for step in steps)


async def until(found: Callable[[], object]) -> None:
    """Wait for it, 5 s at most."""
    for _ in range(250):
        if found():
            return
        await asyncio.sleep(0.02)
    pytest.fail("it did not come about in time")


class Dying(LocalAnswers):
    """After `after` tokens it is gone for good, as after `kill -9`: nobody hears of it any more."""

    after = 5

    async def answer(self, request: Request, *args: Any, **more: Any) -> LocalAnswer:
        return Killed(await super().answer(request, *args, **more), self.after)  # type: ignore[return-value]


class Killed:
    """Implements `Answer`."""

    earlier: Sequence[Bundle] = ()

    def __init__(self, inner: LocalAnswer, after: int) -> None:
        self.inner, self._after = inner, after
        self.back = False

    async def steps(self) -> AsyncIterator[Step]:
        async for step in self.inner.steps():
            yield step
            if step.index + 1 == self._after:
                raise ProviderFailed("the connection broke")

    async def bundle(self) -> Bundle:
        if not self.back:
            raise ProviderFailed("nobody answers")
        return await self.inner.bundle()

    async def close(self) -> None:
        return


@pytest.mark.parametrize("level", LEVELS[:3])
@pytest.mark.parametrize("at", [1, 2, 7, 23])
async def test_one_stream_of_two_providers(world: World, level: Level, at: int) -> None:
    """Wherever the first one breaks, the consumer sees the tokens, numbers and text of the unbroken answer, and gets
    two receipts that hold, that are linked, and that together cover each token once."""
    request = replace(ASKED, level=level)
    world.provider(1, TinyEngine(breaks_at=at), price=1)
    world.provider(2, TinyEngine(), price=2)
    market = world.market(spell=spell)
    answer = await market.answer(request, wish(request))
    steps = await whole(answer)
    assert [step.token for step in steps] == list(WHOLE.tokens)
    assert [step.index for step in steps] == list(range(len(WHOLE.tokens)))
    assert text_of(steps) == WHOLE.text
    last = await answer.bundle()
    parts = [*answer.earlier, last]
    assert [part.receipt.provider for part in parts] == [tiny_key(1).address, tiny_key(2).address]
    assert (*parts[0].tokens, *parts[1].tokens) == WHOLE.tokens
    assert [part.receipt.stop for part in parts] == ["failed", WHOLE.stop]
    check_chain(parts)
    for part, price in zip(parts, (1, 2), strict=True):
        check_offline(part)
        prompt = check_with_model(part, TinyReader(), TinyEngine().model_digest)
        if level == "pinned":
            replay(part, prompt, TinyReplayer())
        assert part.receipt.amount == price * part.receipt.prompt_count + 2 * price * part.receipt.output_count
    assert parts[1].receipt.prompt_count == parts[0].receipt.prompt_count + at
    assert latest(world.store.find(request.call)) == parts
    assert market.active == 0


async def test_several_die_one_after_the_other(world: World) -> None:
    """Each goes on where the one before broke off; the last one that may be asked brings the answer to its end."""
    for number in range(1, MOST_PARTS):
        world.provider(number, TinyEngine(breaks_at=number), price=number)
    world.provider(9, TinyEngine(), price=9)
    answer = await world.market(spell=spell).answer(ASKED, wish(ASKED))
    assert text_of(await whole(answer)) == WHOLE.text
    last = await answer.bundle()
    check_chain([*answer.earlier, last])
    assert [len(part.tokens) for part in answer.earlier] == list(range(1, MOST_PARTS))
    assert latest(world.store.find(ASKED.call)) == [*answer.earlier, last]


async def test_nobody_is_asked_again_and_again(world: World) -> None:
    """After so many parts an answer has failed: each of them costs the prompt again. What came is covered."""
    for number in range(1, MOST_PARTS + 2):
        world.provider(number, TinyEngine(breaks_at=2), price=number)
    answer = await world.market().answer(ASKED, wish(ASKED))
    with pytest.raises(ProviderFailed, match="tiny engine broke"):
        await whole(answer)
    last = await answer.bundle()
    check_chain([*answer.earlier, last])
    assert last.request.continues + last.tokens == WHOLE.tokens[: 2 * MOST_PARTS]


async def test_who_is_full_is_waited_for(world: World) -> None:
    """An answer that has begun is worth a moment's wait for a place."""
    world.provider(1, TinyEngine(breaks_at=3), price=1)
    second = world.provider(2, TinyEngine(delay=0.01), price=2, parallel=1)
    other = await second.answer(replace(ASKED, max_tokens=600), wish(ASKED))
    answer = await world.market().answer(ASKED, wish(ASKED))
    reading = asyncio.create_task(whole(answer))
    await asyncio.sleep(0.3)
    await other.close()
    assert text_of(await reading) == WHOLE.text


@pytest.mark.parametrize(
    "other",
    [
        TinyEngine(breaks_at=0),
        TinyEngine(seed=1),
        TinyEngine(levels=("signed",)),
        TinyEngine(profile=replace(PROFILE, sampler="foreign")),
        TinyEngine(profile=replace(PROFILE, context=1024)),
        None,
    ],
)
async def test_nobody_else_can_go_on(world: World, other: TinyEngine | None) -> None:
    """Others fail too, have another file, level, sampler or a smaller context, or are not there: the consumer hears
    what happened, and what came is covered."""
    world.provider(1, TinyEngine(breaks_at=3), price=1)
    if other is not None:
        world.provider(2, other, price=2)
    answer = await world.market().answer(ASKED, wish(ASKED))
    with pytest.raises(ProviderFailed, match="tiny engine broke"):
        await whole(answer)
    assert (await answer.bundle()).tokens == WHOLE.tokens[:3]


async def test_who_wants_no_fallbacks_gets_none(world: World) -> None:
    """`allow_fallbacks` holds after the first token too."""
    world.provider(1, TinyEngine(breaks_at=3), price=1)
    world.provider(2, TinyEngine(), price=2)
    answer = await world.market().answer(ASKED, wish(ASKED, allow_fallbacks=False))
    with pytest.raises(ProviderFailed):
        await whole(answer)


class Inventing(TinyEngine):
    """Says something of its own at one token, then breaks off."""

    said = EOG

    async def generate(
        self, request: Request, prompt: Prompt, *, top_logprobs: int | None = None
    ) -> AsyncIterator[Step]:
        async for step in super().generate(request, prompt, top_logprobs=top_logprobs):
            yield replace(step, token=self.said, text="") if step.index == 2 else step


async def test_tokens_that_cannot_be_continued(world: World) -> None:
    """The first provider lied about its tokens, so that the answer would have ended before: nobody goes on, and nobody
    else is paid or blamed."""
    world.provider(1, Inventing(breaks_at=3), price=1)
    second = world.provider(2, TinyEngine(), price=2)
    market = world.market()
    answer = await market.answer(ASKED, wish(ASKED))
    with pytest.raises(ProviderFailed):
        await whole(answer)
    assert second.active == 0
    assert world.store.count() <= 1
    assert market.router.health.at("memory://2").failures == 0


class Ghostwriting(TinyEngine):
    """Draws the right tokens and shows other words, from token `begins` on."""

    begins = 2

    async def generate(
        self, request: Request, prompt: Prompt, *, top_logprobs: int | None = None
    ) -> AsyncIterator[Step]:
        async for step in super().generate(request, prompt, top_logprobs=top_logprobs):
            yield replace(step, text=step.text.upper() + "!") if step.index >= self.begins else step


@pytest.mark.parametrize("liar", [1, 2])
async def test_words_that_the_tokens_do_not_say(world: World, liar: int) -> None:
    """A gateway that knows the vocabulary sends nobody on after a lie, and takes no receipt from a liar who goes on."""
    world.provider(1, (Ghostwriting if liar == 1 else TinyEngine)(breaks_at=4), price=1)
    second = TinyEngine() if liar == 1 else Ghostwriting()
    world.provider(2, second, price=2)
    answer = await world.market(spell=spell).answer(ASKED, wish(ASKED))
    if liar == 1:
        with pytest.raises(ProviderFailed):
            await whole(answer)
        assert second.generated == 0
    else:
        await whole(answer)
    with pytest.raises(ProviderFailed, match="not what its"):
        await answer.bundle()
    assert [part.tokens for part in answer.earlier] == ([] if liar == 1 else [WHOLE.tokens[:4]])
    assert world.store.count() == len(answer.earlier)


async def test_a_first_token_that_lies_is_not_shown(world: World) -> None:
    """A gateway that knows the vocabulary asks the next one, and the liar rests as long as any."""
    liar = Ghostwriting()
    liar.begins = 0
    world.provider(1, liar, price=1)
    world.provider(2, TinyEngine(), price=2)
    market = world.market(spell=spell)
    answer = await market.answer(ASKED, wish(ASKED))
    assert text_of(await whole(answer)) == WHOLE.text
    check_chain([await answer.bundle()])
    assert market.router.health.at("memory://1").resting > market.router.health.at("memory://2").resting
    assert market.router.health.at("memory://1").active == 0


class Mumbling(TinyEngine):
    """Draws the right tokens and shows nothing, until it breaks."""

    async def generate(
        self, request: Request, prompt: Prompt, *, top_logprobs: int | None = None
    ) -> AsyncIterator[Step]:
        async for step in super().generate(request, prompt, top_logprobs=top_logprobs):
            yield replace(step, text="")


async def test_who_goes_on_is_not_blamed_for_what_was_kept_back(world: World) -> None:
    """A provider that keeps its text back and breaks off frames nobody: the gateway shows what the tokens say."""
    world.provider(1, Mumbling(breaks_at=3), price=1)
    world.provider(2, TinyEngine(), price=2)
    market = world.market(spell=spell)
    answer = await market.answer(ASKED, wish(ASKED))
    assert text_of(await whole(answer)) == WHOLE.text
    last = await answer.bundle()
    check_chain([*answer.earlier, last])
    assert market.router.health.at("memory://2").failures == 0


async def test_the_receipt_of_who_died_comes_later(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is whole without it; it is fetched when its provider is back, checked against what came, and then all
    parts are found by the call's name."""
    monkeypatch.setattr("assay.journey._RETRIES", (0.05,) * 40)
    world.provider(1, TinyEngine(), price=1, kind=Dying)
    world.provider(2, TinyEngine(), price=2)
    market = world.market(spell=spell)
    answer = await market.answer(ASKED, wish(ASKED))
    assert text_of(await whole(answer)) == WHOLE.text
    last = await answer.bundle()
    assert not answer.earlier
    assert latest(world.store.find(ASKED.call)) == [last]
    with pytest.raises(BindingMismatch, match="missing"):
        check_chain([last])
    killed = answer._parts[0].inner._inner  # type: ignore[attr-defined]
    killed.back = True
    await until(lambda: world.store.count() == 2)
    found = latest(world.store.find(ASKED.call))
    check_chain(found)
    assert [len(part.tokens) for part in found] == [5, len(WHOLE.tokens) - 5]
    await market.drain(0)


async def test_a_receipt_that_comes_later_covers_what_came(world: World) -> None:
    """Who was dead cannot sign for other tokens than those that another one went on after."""
    world.provider(1, TinyEngine(), price=1, kind=Dying)
    world.provider(2, TinyEngine(), price=2)
    market = world.market()
    answer = await market.answer(ASKED, wish(ASKED))
    await whole(answer)
    await answer.bundle()
    part = answer._parts[0]
    liar = world.provider(3, Inventing(breaks_at=7), price=1, key=tiny_key(1))
    other = await liar.answer(ASKED, wish(ASKED))
    with suppress(ProviderFailed):
        await whole(other)
    forged = await other.bundle()
    for gateway in (market, world.market()):  # the second one knows only what is in the database
        with pytest.raises(BindingMismatch, match="other tokens"):
            await gateway.recover(forged, part.offer, ASKED, bytes(32))
    honest = await part.inner._inner.inner.bundle()  # type: ignore[attr-defined]
    await market.recover(honest, part.offer, ASKED, bytes(32))
    check_chain(latest(world.store.find(ASKED.call)))


@pytest.mark.parametrize("how", ["close", "bundle", "cancel"])
async def test_a_consumer_who_hangs_up_while_nobody_has_gone_on_yet(world: World, how: str) -> None:
    """Whoever is being asked stops and keeps no place; the receipt of what came is taken."""
    world.provider(1, TinyEngine(breaks_at=3), price=1)
    slow = TinyEngine(delay=30)
    second = world.provider(2, slow, price=2)
    market = world.market()
    answer = await market.answer(ASKED, wish(ASKED))
    got: list[Step] = []

    async def read() -> None:
        got.extend([step async for step in answer.steps()])

    reading = asyncio.create_task(read())
    await until(lambda: slow.active)
    if how == "cancel":
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await answer.close()
    elif how == "close":
        await answer.close()
        await reading
        assert len(got) == 3
    last = await answer.bundle()
    assert last.tokens == WHOLE.tokens[:3]
    await until(lambda: not (slow.active or second.active or market.active))
    reading.cancel()


def test_of_several_answers_to_one_call_the_newest_is_found() -> None:
    """Parts are put in order, whichever came first; a later answer stands for itself."""

    def cut(bundle: Bundle, count: int) -> Bundle:
        return replace(bundle, tokens=bundle.tokens[:count], receipt=replace(bundle.receipt, stop="failed"))

    key = tiny_key()
    first = cut(tiny_bundle(ASKED, key, 1), 5)
    second = cut(tiny_bundle(ASKED.after(WHOLE.tokens[:4]), key, 2), 3)
    third = tiny_bundle(ASKED.after(WHOLE.tokens[:7]), key, 3)
    for order in ((first, second, third), (third, first, second), (second, third, first)):
        assert latest(order) == [first, second, third]
    check_chain([first, second, third])
    assert latest([first, third]) == [first, third]
    for wrong in ([first, third], [second, third], [third, first], [first, tiny_bundle(ASKED.after([1]), key, 4)]):
        with pytest.raises(BindingMismatch):
            check_chain(wrong)
    unbroken = tiny_bundle(ASKED, key, 5)
    check_chain([unbroken, third])  # its end was lost on its way, and somebody else was asked to go on
    with pytest.raises(BindingMismatch):
        check_chain([unbroken, replace(third, request=ASKED.after(WHOLE.tokens))])
    assert latest([unbroken, third]) == latest([third, unbroken]) == [unbroken, third]
    unbroken = replace(unbroken, receipt=replace(unbroken.receipt, issued=unbroken.receipt.issued + 1))
    assert latest([first, second, third, unbroken]) == [unbroken]
    assert latest([unbroken, first, second]) == [first, second]
