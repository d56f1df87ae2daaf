"""What a chain says of providers flows into a gateway's choice: what each has to lose, and who lost a dispute."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Final

from assay.apps.config import Config
from assay.apps.logs import logger
from assay.apps.onchain import has_court, open_court
from assay.apps.wiring import store_url
from assay.chain.court import CourtClient
from assay.chain.stakes import StakeReader
from assay.core.errors import AssayError, ProviderFailed
from assay.core.keys import Address
from assay.core.offer import Offer
from assay.market.reputation import WHOLE
from assay.store.losses import Loss, LossStore

TICK_SECONDS: Final = 1.0
"""Between two looks at who is offered: the stakes of new ones are asked for at once."""

Offers = Callable[[], Awaitable[Collection[Offer]]]
"""Gives what there is now. Raises ProviderFailed: nobody is there."""
Others = Callable[[], Collection[Address]]
"""Gives those whose stakes are asked for beside those of providers."""
Tell = Callable[[Mapping[Address, int], frozenset[Address]], Awaitable[None]]
"""Takes what providers have to lose, wei, and who lost a dispute."""


class Standing:
    """Follows a court in a thread of its own; what is not known yet counts as nothing."""

    def __init__(
        self,
        court: CourtClient,
        store: LossStore,
        offers: Offers,
        *,
        others: Others = tuple,
        interval: float,
        tick: float = TICK_SECONDS,
    ) -> None:
        """`offers`: of those whose stakes are asked for; the same object while none has changed. `others`: whose
        stakes are asked for, too. `interval`: seconds between two looks at the chain where nobody is new. `tick`:
        between two at who is.
        """
        self._reader: Final = StakeReader(court)
        self._store: Final = store
        self._offers: Final = offers
        self._others: Final = others
        self._interval: Final = interval
        self._tick: Final = tick
        self._losers, self._next = store.load()
        self._trouble = ""

    def stakes(self) -> Mapping[Address, int]:
        """Wei, as far as they are known."""
        return self._reader.stakes

    @asynccontextmanager
    async def running(self, tell: Tell) -> AsyncIterator[None]:
        """Look until the end of the block; tell at once what was known before."""
        await tell({}, self._losers)
        task = asyncio.create_task(self._follow(tell))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._store.close()

    async def _follow(self, tell: Tell) -> None:
        looked, listed, names = float("-inf"), None, dict[Address, None]()
        while True:
            with suppress(ProviderFailed):
                found = await self._offers()
                if found is not listed:
                    listed, names = found, dict.fromkeys(offer.provider for offer in found)
            wanted = {**names, **dict.fromkeys(self._others())}
            unknown = not self._trouble and any(name not in self._reader.stakes for name in wanted)
            if unknown or time.monotonic() - looked >= self._interval:
                try:
                    await asyncio.to_thread(self.look, wanted.keys())
                    self._trouble = ""
                except AssayError as error:
                    if error.message != self._trouble:
                        logger("gateway").warning("stakes_unknown", reason=error.message, remedy=error.remedy)
                    self._trouble = error.message
                looked = time.monotonic()
                await tell(dict(self._reader.stakes), self._losers)
            await asyncio.sleep(self._tick)

    def look(self, offered: Collection[Address]) -> None:
        """Read what is new, of these providers.

        Raises:
            ChainFailed, StoreError: it cannot be read, or kept; the next look goes on.
        """
        found, block = self._reader.slashed(self._next)
        losses = [
            Loss(entry.transaction, entry.index, loss.provider, loss.bond + loss.held)
            for entry, loss in found
            if loss.bond + loss.held >= WHOLE  # less is lost by who does not look: anybody may bond for anybody
        ]
        self._store.keep(losses, block)
        self._losers, self._next = self._losers | {each.provider for each in losses}, block
        self._reader.look(offered)


@contextmanager
def open_standing(config: Config, offers: Offers, others: Others = tuple) -> Iterator[Standing | None]:
    """Of the court that is configured, see `Standing`; None: there is none.

    Raises:
        ConfigError, ChainFailed, StoreError: see `onchain.open_client`.
    """
    if not has_court(config):
        yield None
        return
    with open_court(config) as court:
        name = f"{court.client.addresses.chain_id} {court.where}"
        store = LossStore(config.database_url or store_url(config, "gateway"), name)
        yield Standing(court, store, offers, others=others, interval=config.chain.look_seconds)
