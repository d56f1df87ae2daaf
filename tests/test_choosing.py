"""The router over a transport: what is probed when, who is waited for, and offers that change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from tests.market.test_matching import ASK, offer
from tests.market.test_routing import WORK, serve

from assay import choosing, probing
from assay.choosing import Choosing
from assay.core.completion import Step
from assay.core.errors import ModelNotFound, NotFound, ProviderFailed
from assay.core.offer import Load, Offer
from assay.core.ports import Answer, Purse
from assay.core.request import Request
from assay.core.trace import Diary
from assay.market.steps import Probe

pytestmark = pytest.mark.anyio


class Wire:
    """Implements `Transport`: by the provider's number, seconds until it says how busy it is, and what it says."""

    def __init__(self, offers: Sequence[Offer], replies: Mapping[int, tuple[float, Load | Exception]]) -> None:
        self.listed = list(offers)
        self.replies = replies
        self.asked: list[int] = []

    async def offers(self) -> Sequence[Offer]:
        return list(self.listed)

    async def load(self, offer: Offer) -> Load:
        number = int(offer.provider, 16)
        self.asked.append(number)
        seconds, said = self.replies.get(number, (0.0, Load(0, 4)))
        await asyncio.sleep(seconds)
        if isinstance(said, Exception):
            raise said
        return said

    async def send(
        self, offer: Offer, request: Request, *, top_logprobs: int | None = None, purse: Purse | None = None
    ) -> Answer:
        raise AssertionError


def over(wire: Wire) -> Choosing:
    """With dice that are the same each time."""
    return Choosing(wire, {}, time.monotonic, np.random.default_rng(1))


async def turns(choosing: Choosing, most: int = 99) -> list[int]:
    """Numbers of the providers in the order in which they are to be asked."""
    found: list[int] = []
    async for each in choosing.turns(ASK, WORK, Diary(time.monotonic)):
        found.append(int(each.offer.provider, 16))
        if len(found) == most:
            break
    return found


OFFERS = [offer(number, price=number) for number in range(1, 5)]


async def test_who_has_no_room_is_asked_after_those_who_have() -> None:
    """Three are asked how busy they are, at once."""
    wire = Wire(OFFERS, {1: (0.0, Load(4, 4)), 2: (0.0, Load(1, 4))})
    assert await turns(over(wire)) == [2, 3, 4, 1]
    assert wire.asked == [1, 2, 3]


async def test_two_are_asked_for_the_answer_at_once() -> None:
    """No question goes before it."""
    wire = Wire(OFFERS[:2], {})
    assert await turns(over(wire)) == [1, 2]
    assert wire.asked == []


async def test_nobody_waits_long_for_who_does_not_say() -> None:
    """Once one has room the others have as long again; who was not waited for comes later, and is not blamed."""
    wire = Wire(OFFERS, {1: (30.0, Load(0, 4))})
    choice = over(wire)
    began = time.monotonic()
    assert await turns(choice, 2) == [2, 3]
    assert time.monotonic() - began < 0.5
    assert choice.router.health.at("http://p1").failures == 0


async def test_who_says_nothing_when_nobody_has_room_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """After PROBE_SECONDS; it is asked last of all."""
    monkeypatch.setattr(probing, "PROBE_SECONDS", 0.1)
    wire = Wire(OFFERS, {1: (30.0, Load(0, 4)), 2: (0.0, Load(4, 4)), 3: (0.0, Load(9, 4))})
    choice = over(wire)
    assert await turns(choice) == [4, 2, 3, 1]
    assert choice.router.health.at("http://p1").failures == 1


async def test_who_says_nothing_while_its_answers_come_has_not_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is busy: it is asked last of all, and not left alone for that."""
    monkeypatch.setattr(probing, "PROBE_SECONDS", 0.3)
    wire = Wire(OFFERS, {number: (30.0, Load(0, 4)) for number in range(1, 5)})
    choice = over(wire)

    async def steps() -> AsyncIterator[Step]:
        for number in range(12):
            await asyncio.sleep(0.05)
            yield Step(number, 65, "a", None, b"")

    async def consume() -> None:
        async for _ in choice.timed(OFFERS[0], steps()):
            pass

    consuming = asyncio.create_task(consume())
    assert set(await turns(choice)) == {1, 2, 3, 4}
    assert [choice.router.health.at(f"http://p{number}").failures for number in (1, 2, 3)] == [0, 1, 1]
    await consuming
    await choice.close()


class Distant(Wire):
    """Its replies come through as many turns of the event loop as HTTP takes."""

    async def load(self, offer: Offer) -> Load:
        said = await super().load(offer)
        for _ in range(5):
            await asyncio.sleep(0)
        return said


async def test_a_program_that_has_no_time_blames_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replies that came while it did other things for longer than anybody is waited for are taken all the same."""
    monkeypatch.setattr(probing, "PROBE_SECONDS", 0.3)
    choice = over(Distant(OFFERS, {number: (0.05, Load(0, 4)) for number in range(1, 5)}))
    asyncio.get_running_loop().call_later(0.02, time.sleep, 0.6)
    assert (await turns(choice))[:3] == [1, 2, 3]
    assert choice.router.health.at("http://p1").failures == 0


async def test_choices_share_what_is_asked() -> None:
    """Those at the same time wait for one reply, and those just after it take it."""
    wire = Wire(OFFERS, {number: (0.02, Load(0, 4)) for number in range(1, 5)})
    choice = over(wire)
    assert await asyncio.gather(*(turns(choice, 1) for _ in range(20))) == [[1]] * 20
    assert await turns(choice, 1) == [1]
    assert wire.asked == [1, 2, 3]
    await asyncio.sleep(probing.SHARED_SECONDS)
    assert await turns(choice, 1) == [1]
    assert wire.asked == [1, 2, 3, 1, 2, 3]


async def test_answers_asked_for_since_a_reply_are_added_to_it() -> None:
    """So a reply that is shared fills nobody with more than it has room for."""
    choice = over(Wire(OFFERS, {1: (0.0, Load(2, 4))}))
    asked = Probe(OFFERS[:1])
    shared = probing.Probing(Wire(OFFERS, {1: (0.0, Load(2, 4))}), choice.router.health, time.monotonic)
    assert (await shared.ask(asked)).loads == {"http://p1": Load(2, 4)}
    choice.router.asked(OFFERS[0])
    heard = await shared.ask(asked)
    assert heard.loads == {"http://p1": Load(3, 4)}
    assert not heard.after  # how long it took is counted once
    choice.router.asked(OFFERS[0])
    load = (await shared.ask(asked)).loads["http://p1"]
    assert load is not None
    assert not load.room


async def test_who_is_not_waited_for_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Later choices pass over who owes a reply for long; one failure is told once, by whoever asked."""
    monkeypatch.setattr(probing, "PROBE_SECONDS", 0.1)
    wire = Wire(OFFERS, {1: (0.3, ProviderFailed("broken"))})
    asked = Probe(OFFERS[:1])
    shared = probing.Probing(wire, over(wire).router.health, time.monotonic)
    first, second = await asyncio.gather(shared.ask(asked), shared.ask(asked))
    assert (first.late, second.late) == (set(), {"http://p1"})
    began = time.monotonic()
    assert (await shared.ask(asked)).late == {"http://p1"}
    assert time.monotonic() - began < 0.05
    assert wire.asked == [1]
    await shared.close()


async def test_one_that_does_not_know_the_question_is_asked_and_one_that_fails_is_not() -> None:
    """An older provider says 404; nonsense is a failure."""
    wire = Wire(OFFERS, {1: (0.0, ProviderFailed("nonsense")), 2: (0.0, NotFound("what?"))})
    choice = over(wire)
    assert await turns(choice) == [2, 3, 4, 1]
    assert choice.router.health.at("http://p1").failures == 1
    assert choice.router.health.at("http://p2").failures == 0


async def test_new_offers_are_seen_at_once_and_many_of_them_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few are put in order before the next choice. Many are put in order meanwhile, except the first ones."""
    wire = Wire([], {})
    choice = over(wire)
    with pytest.raises(ModelNotFound):
        await turns(choice)
    wire.listed = OFFERS[:1]
    assert await turns(choice) == [1]
    monkeypatch.setattr(choosing, "_SMALL", 1)
    wire.listed = OFFERS[1:3]
    assert await turns(choice) == [1]
    await asyncio.sleep(0.1)
    assert await turns(choice) == [2, 3]
    fresh = over(wire)
    assert await asyncio.gather(turns(fresh), turns(fresh)) == [[2, 3], [2, 3]]


async def test_files_that_are_not_the_known_ones_are_passed_over() -> None:
    """Also in the list of models."""
    other = replace(OFFERS[0], model_digest=bytes([1]) * 32)
    choice = Choosing(Wire([other, *OFFERS[1:3]], {}), {"tiny": bytes(32)}, time.monotonic)
    assert await turns(choice) == [2, 3]
    assert await choice.models() == OFFERS[1:3]


async def test_the_pace_of_a_provider_is_seen_and_not_that_of_its_consumer() -> None:
    """Where the consumer is what is waited for, nothing is learned."""
    one, other = offer(1), offer(2)
    choice = over(Wire([one, other], {}))
    for by in (one, other):
        serve(choice.router, by, rest=1.0)

    async def steps(seconds: float) -> AsyncIterator[Step]:
        for number in range(12):
            await asyncio.sleep(seconds)
            yield Step(number, 65, "a", None, b"")

    async def consume(by: Offer, *, seconds: float, pause: float) -> float:
        speeds, row = choice.router.of(by)
        before = float(speeds.rows["pace"][row])
        async for _ in choice.timed(by, steps(seconds)):
            await asyncio.sleep(pause)
        return float(speeds.rows["pace"][row]) - before

    assert await consume(one, seconds=0.05, pause=0.0) > 0.3
    assert await consume(other, seconds=0.0, pause=0.02) == 0.0
