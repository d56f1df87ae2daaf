"""Whom to ask for an answer: the journey's stages match and send, driven by `market/routing.py` over a transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final

import numpy as np

from assay.core.completion import Step
from assay.core.errors import AssayError, NotFound, PaymentRequired
from assay.core.hashing import Digest
from assay.core.offer import Ask, Load, Offer
from assay.core.ports import Payer, Purse, Transport
from assay.core.request import Request
from assay.core.trace import Diary
from assay.market.matching import Catalogue
from assay.market.routing import Router
from assay.market.steps import Heard, Probe, Send
from assay.market.work import Work

PROBE_SECONDS: Final = 1.0
"""After which a provider that does not say how busy it is counts as failed."""
_ENOUGH: Final = 8
"""Tokens that tell how fast they come."""
_SMALL: Final = 2000
"""Offers that are put in order at once; more of them in a thread, while those of before serve."""


class Choosing:
    """Mutable; one for each `MarketAnswers`."""

    def __init__(
        self,
        transport: Transport,
        known: Mapping[str, Digest],
        clock: Callable[[], float],
        dice: np.random.Generator | None = None,
    ) -> None:
        """`known`: digests of models by name; offers of other files under these names are passed over.

        `clock`: seconds that only rise. `dice`: without them, other ones each time.
        """
        self.router: Final = Router(dice or np.random.default_rng())
        self._transport: Final = transport
        self._known: Final = known
        self._clock: Final = clock
        self._listed: Sequence[Offer] = ()
        self._sorting: asyncio.Task[None] | None = None

    async def models(self) -> Sequence[Offer]:
        """What the providers offer now, except other files under names that are known."""
        return self._honoured(await self._transport.offers())

    async def turns(
        self, ask: Ask, work: Work, diary: Diary, waiting: Mapping[str, object] | None = None
    ) -> AsyncIterator[Send]:
        """Whom to ask, best first; who takes the next one says that one of them failed or is late. `waiting`: those
        whose first token is still waited for, by URL, as it is then.

        Raises:
            ModelNotFound, NoProvider: nobody offers this; the message says which wish leaves nobody.
        """
        await self._look()
        route = self.router.route(ask, work, self._clock())
        diary.mark("match", f"{self.router.fitting(ask)} of {self.router.catalogue.size} offers fit")
        step = next(route, None)
        while step is not None:
            if isinstance(step, Probe):
                heard = await self._probe(step)
            else:
                yield step
                heard = Heard(self._clock(), late=frozenset(waiting or ()))
            try:
                step = route.send(heard)
            except StopIteration:
                return

    def good(self, offer: Offer) -> None:
        """An answer came whole, with its receipt."""
        self.router.good(offer, self._clock())

    async def timed(self, offer: Offer, steps: AsyncIterator[Step]) -> AsyncIterator[Step]:
        """The same steps; remembers how long they took, unless the consumer was slower."""
        tokens, waited, began = 0, 0.0, 0.0
        try:
            while True:
                asked = self._clock()
                step = await anext(steps, None)
                if step is None:
                    return
                if tokens:
                    waited += self._clock() - asked
                else:
                    began = self._clock()
                tokens += 1
                yield step
        finally:
            if tokens >= _ENOUGH and 2 * waited > self._clock() - began:
                self.router.wrote(offer, tokens - 1, waited, self._clock())

    async def _look(self) -> None:
        """See whether the offers have changed."""
        listed = await self._transport.offers()
        if listed is self._listed or listed == self._listed:
            return
        if len(listed) <= _SMALL:
            self._use(listed, Catalogue(self._honoured(listed)))
            return
        if self._sorting is None:
            self._sorting = asyncio.create_task(self._sort(listed))
        if not self._listed:
            await asyncio.shield(self._sorting)

    async def _sort(self, listed: Sequence[Offer]) -> None:
        try:
            self._use(listed, await asyncio.to_thread(lambda: Catalogue(self._honoured(listed)).index()))
        finally:
            self._sorting = None

    def _use(self, listed: Sequence[Offer], catalogue: Catalogue) -> None:
        self.router.use(catalogue)
        self._listed = listed

    def _honoured(self, offers: Sequence[Offer]) -> Sequence[Offer]:
        return [offer for offer in offers if self._known.get(offer.model, offer.model_digest) == offer.model_digest]

    async def _probe(self, probe: Probe) -> Heard:
        """What they say, and who was not waited for: once one has room, the others have as long again, or the grace."""
        asking = {asyncio.create_task(self._load(offer)): offer.url for offer in probe.offers}
        loads: dict[str, Load | None] = {}
        after: dict[str, float] = {}
        failed: set[str] = set()
        begun = self._clock()
        end, waiting = begun + PROBE_SECONDS, set(asking)
        try:
            while waiting and (left := end - self._clock()) > 0:
                done, waiting = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    if (said := task.result()) is _DEAD:
                        failed.add(asking[task])
                    else:
                        loads[asking[task]], after[asking[task]] = said, self._clock() - begun
                    if said is not None and said.room:
                        end = min(end, self._clock() + max(self._clock() - begun, probe.grace))
                if probe.settled(loads, failed):
                    break
        finally:
            for task in waiting:
                task.cancel()
        patient = self._clock() - begun >= PROBE_SECONDS
        late = frozenset() if patient else frozenset(asking[task] for task in waiting)
        return Heard(self._clock(), loads, late, after)

    async def _load(self, offer: Offer) -> Load | None:
        try:
            return await self._transport.load(offer)
        except NotFound:  # it serves, and does not say how busy it is
            return None
        except AssayError:
            return _DEAD


async def open_purse(payer: Payer | None, offer: Offer, request: Request) -> Purse:
    """What pays the answer to `request`.

    Raises:
        PaymentRequired: there is nobody who pays, or the budget or the provider's terms do not allow it.
    """
    if payer is None:
        raise PaymentRequired(f"{offer.provider} wants to be paid", "set [chain] and a budget, or ask a free one")
    return await payer.open(offer, request)


_DEAD: Final = Load(running=1, places=0)
"""Stands for no reply, or one that is none."""
