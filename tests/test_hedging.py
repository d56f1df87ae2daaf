"""A first token that is late: a second provider is asked beside the first, and who is first goes on. No network."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.market.test_matching import offer
from tests.test_failover import until
from tests.test_journey import World, whole, wish
from tests.tiny import TinyEngine, tiny_completion, tiny_key, tiny_request

from assay.core.errors import Busy, ProviderFailed, StoreError
from assay.core.offer import Defaults, Offer
from assay.delivery import Part
from assay.market.steps import Send
from assay.racing import Race

pytestmark = pytest.mark.anyio
ASKED = tiny_request("Say é and more.", max_tokens=4, temperature=0)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Two providers: the cheaper one is asked first, and slow."""
    made = World(tmp_path)
    made.provider(1, TinyEngine(delay=3.0), price=1)
    made.provider(2, TinyEngine(), price=2)
    return made


@pytest.mark.parametrize(("wished", "usual"), [(True, None), (None, None), (None, True)])
async def test_a_second_one_answers_where_the_first_is_late(
    world: World, wished: bool | None, usual: bool | None
) -> None:
    """The consumer has the whole answer long before the first one would have begun, with one receipt. The first one is
    hung up on, is not blamed, and is asked later from then on."""
    market = world.market(defaults=Defaults(hedge=usual))
    began = time.monotonic()
    answer = await market.answer(ASKED, wish(ASKED, hedge=wished))
    steps = await whole(answer)
    assert time.monotonic() - began < 2.0
    assert [step.token for step in steps] == list(tiny_completion(ASKED).tokens)
    bundle = await answer.bundle()
    assert bundle.receipt.provider == tiny_key(2).address
    assert list(answer.earlier) == []
    await market.drain(1)
    slow = market.router.health.at("memory://1")
    assert (slow.active, slow.waiting, slow.failures) == (0, 0, 0)
    assert world.providers["memory://1"].active == 0
    assert world.store.find(ASKED.name) == [bundle]
    [trace] = world.store.traces(ASKED.name)
    stages = [mark["stage"] for mark in trace]
    assert stages[:5] == ["match", "send", "send", "first_token", "failed"]
    slow_one, quick_one = tiny_key(1).address, tiny_key(2).address
    assert [mark["facts"] for mark in trace[1:5]] == [
        {"provider": slow_one, "beside": []},
        {"provider": quick_one, "beside": [slow_one]},
        {"provider": quick_one},
        {"provider": slow_one, "late": True},
    ]
    again = await market.answer(ASKED, wish(ASKED, hedge=False))
    assert time.monotonic() - began < 4.0
    assert (await again.bundle()).receipt.provider == tiny_key(2).address


@pytest.mark.parametrize("members", [{"hedge": False}, {"hedge": True, "allow_fallbacks": False}])
async def test_nobody_else_is_asked_where_that_is_not_wanted(world: World, members: dict[str, bool]) -> None:
    """The late one is waited for."""
    answer = await world.market().answer(ASKED, wish(ASKED, **members))
    await answer.close()
    assert (await answer.bundle()).receipt.provider == tiny_key(1).address


async def test_a_consumer_who_leaves_leaves_both(world: World) -> None:
    """Nothing is under way afterwards, and nobody is blamed."""
    world.providers.clear()
    for number in (1, 2):
        world.provider(number, TinyEngine(delay=30.0), price=number)
    market = world.market()
    asking = asyncio.create_task(market.answer(ASKED, wish(ASKED, hedge=True)))
    await until(lambda: all(each.active for each in world.providers.values()))
    asking.cancel()
    await asyncio.wait({asking})
    await market.drain(1)
    for url, provider in world.providers.items():
        assert provider.active == 0
        assert market.router.health.at(url)[1:3] == (0, 0)
        assert market.router.health.at(url).failures == 0


@pytest.mark.parametrize("left", [False, True])
async def test_first_tokens_that_come_in_the_same_moment(world: World, left: bool) -> None:
    """One goes on; the other has delivered a token as well: it is hung up on, and its receipt is taken. Both are, where
    the consumer leaves in that moment."""
    world.providers.clear()
    for number, delay in ((1, 0.7), (2, 0.0)):
        world.provider(number, TinyEngine(delay=delay), price=number)
    market = world.market()
    send, together = market._send, asyncio.Barrier(2)

    async def at_once(*args: Any) -> Part:
        part = await send(*args)
        async with together:
            if left:
                asking.cancel()
            return part

    market._send = at_once
    asking = asyncio.create_task(market.answer(ASKED, wish(ASKED, hedge=True)))
    await asyncio.wait({asking})
    assert asking.cancelled() == left
    if not left:
        await whole(await asking)
        await (await asking).bundle()
    await market.drain(1)
    kept = {bundle.receipt.provider: len(bundle.tokens) for bundle in world.store.find(ASKED.name)}
    assert kept.keys() == {tiny_key(1).address, tiny_key(2).address}
    assert all(0 < tokens <= 4 for tokens in kept.values())
    for url, provider in world.providers.items():
        assert provider.active == 0
        assert market.router.health.at(url)[1:3] == (0, 0)


class Turns:
    """Whom to ask: numbers, each with a patience; `taken` are those that were."""

    def __init__(self, *patience: float) -> None:
        self.taken = 0
        self._patience = patience

    async def turns(self) -> AsyncIterator[Send]:
        """One after the other."""
        for number, patience in enumerate(self._patience):
            self.taken += 1
            yield Send(offer(number), patience)


def racing(runs: list[tuple[float, int | Exception]], *, worth_it: bool = True) -> tuple[Race[int], list[str]]:
    """A race among runners with times and results; and of whom it was told that they failed."""
    failed: list[str] = []

    async def send(to: Offer) -> int:
        seconds, result = runs[int(to.provider, 16)]
        await asyncio.sleep(seconds)
        if isinstance(result, Exception):
            raise result
        return result

    def tell(by: Offer, _error: Exception) -> bool:
        failed.append(by.url)
        return worth_it

    return Race[int](send, tell, time.monotonic), failed


async def test_a_failure_takes_the_next_turn_while_another_is_waited_for() -> None:
    """The first is late, the second fails, the third is asked beside the first: and comes first."""
    turns = Turns(0.05, float("inf"), float("inf"), float("inf"))
    race, failed = racing([(30.0, 0), (0.0, Busy("full")), (0.01, 2), (0.0, 3)])
    assert await race.first(turns.turns()) == 2
    assert (turns.taken, failed, list(race.waiting)) == (3, [offer(1).url], [offer(0).url])


async def test_who_is_late_still_wins_when_nobody_else_is_left() -> None:
    """Also when the turns have ended."""
    race, failed = racing([(0.3, 0), (0.0, ProviderFailed("gone"))])
    assert await race.first(Turns(0.05, float("inf")).turns()) == 0
    assert failed == [offer(1).url]
    assert race.waiting == {}


async def test_all_have_failed_or_nobody_else_is_worth_asking() -> None:
    """Then there is no first token; what is no failure of a provider's is raised."""
    turns = Turns(*[float("inf")] * 3)
    race, failed = racing([(0.0, Busy("full"))] * 3)
    assert await race.first(turns.turns()) is None
    assert len(failed) == 3
    turns = Turns(*[float("inf")] * 3)
    race, failed = racing([(0.0, Busy("full"))] * 3, worth_it=False)
    assert await race.first(turns.turns()) is None
    assert len(failed) == turns.taken == 1
    race, _ = racing([(0.0, StoreError("a disk"))])
    with pytest.raises(StoreError):
        await race.first(Turns(float("inf")).turns())
