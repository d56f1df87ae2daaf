"""How busy providers say they are: whoever asks while a reply is young, or while one is awaited, shares it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple

from assay.core.errors import AssayError, NotFound
from assay.core.offer import Load, Offer
from assay.core.ports import Transport
from assay.market.health import Health
from assay.market.steps import Heard, Probe

PROBE_SECONDS: Final = 1.0
"""After which a provider that does not say how busy it is counts as failed, unless a token came from it meanwhile."""
SHARED_SECONDS: Final = 0.5
"""How long a reply serves other choices too, with the answers added that were asked for since."""
_SLICE: Final = 0.1
"""Seconds of a wait that are waited at once: one that takes longer, as this program had other things to do, counts as
no more."""
_NOTHING: Final = 1e-6
"""Seconds that are not worth a wait: what a sum of slices leaves, clocks may not even show."""


class _Said(NamedTuple):
    """A reply, or that there was none."""

    load: Load | None
    """See `Heard.loads`."""
    failed: bool
    at: float
    active: int
    """Our own answers there, at that time."""


class _Asking(NamedTuple):
    task: asyncio.Task[_Said]
    begun: float


class Probing:
    """Mutable; one for each `Choosing`. Close it with `close`."""

    def __init__(self, transport: Transport, health: Health, clock: Callable[[], float]) -> None:
        """`health`: says how many answers are under way. `clock`: seconds that only rise."""
        self._transport: Final = transport
        self._health: Final = health
        self._clock: Final = clock
        self._asking: Final[dict[str, _Asking]] = {}
        self._said: Final[dict[str, _Said]] = {}
        self._alive: Final[dict[str, float]] = {}

    def came(self, url: str, now: float) -> None:
        """Something came from a provider."""
        self._alive[url] = now

    async def ask(self, probe: Probe) -> Heard:
        """What they say, and who was not waited for: once one has room, the others have as long again, or the grace;
        and nobody is waited for who could not be better."""
        begun, left = self._clock(), PROBE_SECONDS
        loads: dict[str, Load | None] = {}
        after: dict[str, float] = {}
        asking: dict[asyncio.Task[_Said], str] = {}
        late, ours, failed = set[str](), set[str](), set[str]()
        for offer in probe.offers:
            said, under_way = self._said.get(offer.url), self._asking.get(offer.url)
            if said is not None and begun - said.at < SHARED_SECONDS:
                loads[offer.url] = self._now(said, offer.url)
            elif under_way is None:
                ours.add(offer.url)
                asking[self._begin(offer)] = offer.url
            elif begun - under_way.begun < PROBE_SECONDS:
                asking[under_way.task] = offer.url
            else:
                late.add(offer.url)
        if _has_room(loads):
            left = probe.grace
        waiting = set(asking)
        while waiting and left > _NOTHING and not probe.settled(loads, failed):
            before, most = self._clock(), min(left, _SLICE)
            done, waiting = await asyncio.wait(waiting, timeout=most, return_when=asyncio.FIRST_COMPLETED)
            left -= min(self._clock() - before, most)
            for task in done:
                said, url = task.result(), asking[task]
                if said.failed:
                    failed.add(url)
                    late |= {url} - ours  # whoever asked first tells
                else:
                    loads[url] = self._now(said, url)
                    if url in ours:
                        after[url] = self._clock() - begun
                    if _has_room({url: said.load}):
                        left = min(left, max(self._clock() - begun, probe.grace))
        patient = left <= _NOTHING and not _has_room(loads)
        for url in (asking[task] for task in waiting):
            if not patient or url not in ours or self._alive.get(url, 0.0) > begun:
                late.add(url)
        return Heard(self._clock(), loads, frozenset(late), after)

    async def close(self) -> None:
        """Wait for no more replies."""
        tasks = [each.task for each in self._asking.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _begin(self, offer: Offer) -> asyncio.Task[_Said]:
        task = asyncio.create_task(self._load(offer))
        self._asking[offer.url] = _Asking(task, self._clock())
        task.add_done_callback(lambda _: self._asking.pop(offer.url))
        return task

    async def _load(self, offer: Offer) -> _Said:
        load: Load | None = None
        failed = False
        try:
            load = await self._transport.load(offer)
        except NotFound:  # it serves, and does not say how busy it is
            pass
        except AssayError:
            failed = True
        said = _Said(load, failed, self._clock(), self._health.at(offer.url).active)
        if failed:
            self._said.pop(offer.url, None)
        else:
            self._said[offer.url] = said
        return said

    def _now(self, said: _Said, url: str) -> Load | None:
        if said.load is None:
            return None
        since = max(self._health.at(url).active - said.active, 0)
        return Load(said.load.running + since, said.load.places)


def _has_room(loads: dict[str, Load | None]) -> bool:
    return any(load is not None and load.room for load in loads.values())
