"""Who gives the first token: one provider after the other is asked, and where one is late, a second one beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Final, Generic, NamedTuple, TypeVar

from assay.core.errors import (
    AssayError,
    Busy,
    InvalidRequest,
    NotFound,
    PaymentRequired,
    ProviderFailed,
    VerificationError,
)
from assay.core.offer import Offer
from assay.market.steps import Send

FAILURES: Final = (Busy, PaymentRequired, ProviderFailed, InvalidRequest, NotFound, VerificationError)
"""What one provider may say or do that another one may not."""
_T = TypeVar("_T")


class Asked(NamedTuple, Generic[_T]):
    """Somebody whose first token is waited for."""

    offer: Offer
    since: float
    """On the clock of the race."""
    task: asyncio.Task[_T]


class Race(Generic[_T]):
    """For one first token. `market/routing.py` says who runs, and when a second one starts."""

    def __init__(
        self,
        send: Callable[[Offer], Coroutine[None, None, _T]],
        failed: Callable[[Offer, AssayError], bool],
        clock: Callable[[], float],
    ) -> None:
        """`send`: asks for the answer and waits for its first token; hangs up if it is cancelled. `failed`: is told
        which of FAILURES it raised, and says whether others are worth asking."""
        self.waiting: Final[dict[str, Asked[_T]]] = {}
        """Who is waited for, by URL; after `first`, those who lost. They are being hung up on."""
        self._send: Final = send
        self._failed: Final = failed
        self._clock: Final = clock

    async def first(self, turns: AsyncIterator[Send]) -> _T | None:
        """What the first one gave; None: all have failed. `turns` are whom to ask, best first; taking the next one says
        that one failed or is late.

        Raises:
            AssayError: what `turns` raises, and what `send` raises that is not one of FAILURES.
        """
        turn: asyncio.Task[Send | None] | None = asyncio.create_task(_next(turns))
        more, patience = True, float("inf")
        try:
            while turn is not None or self.waiting:
                tasks = {asked.task for asked in self.waiting.values()}
                timeout = patience if turn is None and patience < float("inf") else None
                done, _ = await asyncio.wait(
                    tasks if turn is None else {*tasks, turn}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
                )
                won, worth_it = self._ended()
                if won is not None:
                    return won
                more = more and worth_it
                if turn is not None and turn in done:
                    step, turn = turn.result(), None
                    more = more and step is not None
                    if step is not None and more:
                        task = asyncio.create_task(self._send(step.offer))
                        self.waiting[step.offer.url] = Asked(step.offer, self._clock(), task)
                        patience = step.patience
                elif turn is None:
                    patience = float("inf")
                    turn = asyncio.create_task(_next(turns)) if more else None
            return None
        finally:
            for asked in self.waiting.values():
                asked.task.cancel()
            if turn is not None:
                turn.cancel()
                await asyncio.wait({turn})

    def _ended(self) -> tuple[_T | None, bool]:
        """Who has won, if anybody has, and whether others are worth asking after those that failed."""
        worth_it = True
        for url, asked in list(self.waiting.items()):
            if asked.task.done():
                del self.waiting[url]
                try:
                    return asked.task.result(), worth_it
                except FAILURES as error:
                    worth_it = self._failed(asked.offer, error) and worth_it
        return None, worth_it


async def _next(turns: AsyncIterator[Send]) -> Send | None:
    return await anext(turns, None)
