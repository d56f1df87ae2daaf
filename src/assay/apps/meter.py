"""One answer under way at a provider, counted against the channel that pays for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from assay.core.errors import PaymentRequired
from assay.core.hashing import Digest
from assay.core.offer import Price
from assay.core.payment import Due
from assay.core.voucher import Terms
from assay.market.pricing import amount_due
from assay.market.tab import Tab

if TYPE_CHECKING:
    from assay.apps.till import Till


class Account:
    """One channel at this provider."""

    def __init__(self, terms: Terms, channel: Digest, tab: Tab, now: float) -> None:
        self.terms: Final = terms
        self.channel: Final = channel
        self.tab: Final = tab
        self.claimed = 0
        """On the chain, when it was asked last."""
        self.known = tab.paid
        """Amount of the best voucher that was checked, kept or about to be."""
        self.checked = float("-inf")
        """When the chain was asked last."""
        self.used = now
        self.fresh = False
        """Not in the database yet."""
        self._changed = asyncio.Event()

    def wake(self) -> None:
        """Something has changed for those who wait."""
        old, self._changed = self._changed, asyncio.Event()
        old.set()

    async def change(self, seconds: float) -> None:
        """Wait for that, but no longer than so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()


class Meter:
    """Counts one answer under way against its channel."""

    def __init__(self, till: Till, account: Account, price: Price, prompt: int, due: Callable[[Due], None]) -> None:
        self.account: Final = account
        self._till: Final = till
        self._price: Final = price
        self._prompt: Final = prompt
        self._due: Final = due
        self._loop: Final = asyncio.get_running_loop()
        self._asked = -1
        self._over = False

    @property
    def channel(self) -> Digest:
        """Which pays."""
        return self.account.channel

    def covers(self, tokens: int) -> bool:
        """Whether token number `tokens` (from 1) may be handed over now; asks for a voucher in time."""
        tab = self.account.tab
        if self._over:  # hung up while this waited
            return True
        tab.running[self] = amount_due(self._price, self._prompt, tokens)
        if tab.low and tab.total - self._asked > tab.credit // 4:
            self._ask()
        return tab.covers

    async def wait(self, tokens: int, grace: float | None = None) -> None:
        """Wait until token number `tokens` may be handed over, for as many seconds as the till gives, or `grace`.

        Raises:
            PaymentRequired: no voucher came within the grace, or the channel has not enough money.
        """
        account = self.account
        until = self._till.clock() + (self._till.pace.grace if grace is None else grace)
        looked, paid = False, -1
        while not self.covers(tokens):
            if not account.tab.backed:
                if looked:
                    self._till.refused("funds")
                    raise PaymentRequired(
                        f"the channel holds {account.tab.funds} wei and {account.tab.total} would be owed",
                        "deposit more",
                        reason="funds",
                    )
                looked = True
                await self._till.look(account)
                continue
            if paid != account.tab.paid:  # also again, when what came was not enough
                paid = account.tab.paid
                self._ask()
            left = until - self._till.clock()
            if left <= 0:
                self._till.refused("unpaid")
                raise PaymentRequired(
                    f"{account.tab.total} wei are due on the channel, and {account.tab.paid} are paid",
                    "send a voucher when one is due",
                    reason="unpaid",
                )
            await account.change(left)

    def ended(self, tokens: int) -> None:
        """So many tokens were handed over, no more will be, and the receipt is to come."""
        self._over = True
        self.account.wake()
        self.account.tab.running[self] = amount_due(self._price, self._prompt, tokens)

    def signed(self, owed: int) -> None:
        """The receipt is on the disk, and so much is owed in all; callable from any thread."""

        def count() -> None:
            self.account.tab.owed = max(self.account.tab.owed, owed)
            self.forget()

        with suppress(RuntimeError):  # the loop is closed: the program ends
            self._loop.call_soon_threadsafe(count)

    def forget(self) -> None:
        """Nothing is under way any more."""
        self._over = True
        self.account.tab.running.pop(self, None)
        self.account.wake()

    def _ask(self) -> None:
        """Ask for what has been handed over until now; the next token comes on credit."""
        self._asked = self.account.tab.total
        self._due(Due(self._asked, self._prompt))
