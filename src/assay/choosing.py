"""Whom to ask for an answer: the journey's stages match and send, driven by `market/routing.py` over a transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final

import numpy as np

from assay.core.completion import Step
from assay.core.errors import ModelNotFound, NoProvider, PaymentRequired
from assay.core.hashing import Digest
from assay.core.offer import Ask, Offer
from assay.core.ports import Payer, Purse, Transport
from assay.core.request import Level, Request
from assay.core.trace import Diary
from assay.explaining import Account
from assay.market.matching import Catalogue, strongest_that_fits
from assay.market.routing import Router
from assay.market.steps import Heard, Probe, Send
from assay.market.work import Work
from assay.probing import Probing

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
        self._probing: Final = Probing(transport, self.router.health, clock)
        self._transport: Final = transport
        self._known: Final = known
        self._clock: Final = clock
        self._listed: Sequence[Offer] = ()
        self._sorting: asyncio.Task[None] | None = None

    async def models(self) -> Sequence[Offer]:
        """What the providers offer now, except other files under names that are known."""
        return self._honoured(await self._transport.offers())

    async def listed(self) -> Sequence[Offer]:
        """All that the providers offer now.

        Raises:
            ProviderFailed: there is nobody.
        """
        return await self._transport.offers()

    def honours(self, offer: Offer) -> bool:
        """It is not of another file under a name that is known."""
        return self._known.get(offer.model, offer.model_digest) == offer.model_digest

    async def strongest(self, ask: Ask) -> Level:
        """See `matching.strongest_that_fits`."""
        await self._look()
        return strongest_that_fits(ask, self.router.catalogue, self.router.fitting)

    async def turns(
        self, ask: Ask, work: Work, diary: Diary, waiting: Mapping[str, object] | None = None
    ) -> AsyncIterator[Send]:
        """Whom to ask, best first; who takes the next one says that one of them failed or is late. `waiting`: those
        whose first token is still waited for, by URL, as it is then.

        Raises:
            ModelNotFound, NoProvider: nobody offers this; the message says which wish leaves nobody.
        """
        await self._look()
        account = Account(diary, self.router, ask)
        try:
            route = self.router.route(ask, work, self._clock(), account.listed)
        except (ModelNotFound, NoProvider):
            account.listed(())
            raise
        step = next(route, None)
        while step is not None:
            if isinstance(step, Probe):
                heard = await self._probing.ask(step)
                account.probed(step, heard)
            else:
                yield step
                heard = Heard(self._clock(), late=frozenset(waiting or ()))
            try:
                step = route.send(heard)
            except StopIteration:
                return

    async def close(self) -> None:
        """Wait for nobody's word any more."""
        await self._probing.close()

    def good(self, offer: Offer) -> None:
        """An answer came whole, with its receipt."""
        self.router.good(offer, self._clock())

    async def timed(self, offer: Offer, steps: AsyncIterator[Step]) -> AsyncIterator[Step]:
        """The same steps; remembers how long they took, unless the consumer was slower."""
        tokens, waited, began = 0, 0.0, 0.0
        try:
            asked = self._clock()
            async for step in steps:
                now = self._clock()
                self._probing.came(offer.url, now)
                if tokens:
                    waited += now - asked
                else:
                    began = now
                tokens += 1
                yield step
                asked = self._clock()
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
        return [offer for offer in offers if self.honours(offer)]


async def open_purse(payer: Payer | None, offer: Offer, request: Request) -> Purse:
    """What pays the answer to `request`.

    Raises:
        PaymentRequired: there is nobody who pays, or the budget or the provider's terms do not allow it.
    """
    if payer is None:
        raise PaymentRequired(f"{offer.provider} wants to be paid", "set [chain] and a budget, or ask a free one")
    return await payer.open(offer, request)
