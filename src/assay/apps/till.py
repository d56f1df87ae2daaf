"""Where a provider is paid: payments are checked before any work, vouchers kept, and answers go on only while paid for.

What the chain says of a channel is remembered and asked again in the background: no answer waits for it, but the first
one on a channel, and one that the money remembered would not suffice for.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final, Protocol

from assay.apps.logs import logger
from assay.apps.meter import Account, Meter
from assay.core.errors import AssayError, InvalidSignature, PaymentRequired, StoreError
from assay.core.hashing import Digest
from assay.core.offer import Offer, Price
from assay.core.payment import Due, Payment, Requirements
from assay.core.voucher import Terms, Voucher
from assay.market.pricing import amount_due, credit_for
from assay.market.tab import Tab
from assay.store.tabs import TabStore

MOST_ACCOUNTS: Final = 10_000
"""That are remembered; others are read from the database again."""


class ChannelMoney(Protocol):
    """What the chain says of a channel, wei."""

    @property
    def balance(self) -> int:
        """Deposits less what was taken back."""
        ...

    @property
    def claimed(self) -> int:
        """Of the balance."""
        ...

    @property
    def leaving(self) -> int:
        """What the payer is withdrawing."""
        ...


class ChainView(Protocol):
    """What a provider asks of the chain; calls block."""

    @property
    def domain(self) -> bytes:
        """The EIP-712 domain of its `Channels` contract."""
        ...

    def channel_state(self, channel: Digest) -> ChannelMoney:
        """What is in a channel.

        Raises:
            AssayError: the chain cannot be asked.
        """
        ...


@dataclass(frozen=True, slots=True)
class TillPace:
    """In seconds."""

    grace: float = 5.0
    """How long an answer waits for a voucher."""
    refresh: float = 5.0
    """Between two looks at the channels in use."""
    use: float = 60.0
    """For how long a channel counts as in use."""
    look: float = 3.0
    """Longest wait for the chain."""


class Till:
    """Takes payments on the channels of one contract."""

    def __init__(
        self,
        requirements: Requirements,
        chain: ChainView,
        store: TabStore,
        *,
        pace: TillPace | None = None,
        clock: Callable[[], float] = time.monotonic,
        refused: Callable[[str], None] = lambda _reason: None,
        follows: bool = False,
    ) -> None:
        """`store` shares the receipts' database. `clock`: seconds that only rise. `refused` is told why. `follows`: the
        credit does, the prices."""
        self.requirements = requirements
        self._follows: Final = follows
        self._chain: Final = chain
        self._store: Final = store
        self.pace: Final = pace or TillPace()
        self.clock: Final = clock
        self.refused: Final = refused
        self._accounts: Final[OrderedDict[Digest, Account]] = OrderedDict()
        self._opening: Final[dict[Digest, asyncio.Task[Account]]] = {}
        self._keeping: Final[set[asyncio.Task[None]]] = set()

    @property
    def claimed(self) -> int:
        """Wei, of all channels that are in use, when the chain was asked last."""
        return sum(account.claimed for account in list(self._accounts.values()))

    def terms_of(self, offers: Sequence[Offer]) -> list[Offer]:
        """The offers, with how they are paid: on a credit that does for the dearest, unless it is set."""
        if self._follows:
            credit = max((credit_for(offer.price, offer.context) for offer in offers), default=0)
            self.requirements = replace(self.requirements, credit=credit)
            for account in self._accounts.values():
                account.tab.credit = credit
        return [replace(offer, payment=self.requirements) for offer in offers]

    async def admit(self, payment: Payment | Account | None, request: Digest) -> Account:
        """Check what comes with the request of this digest, and take its voucher, which is kept in the background; or
        nothing, where `prepay` has done so.

        Raises:
            PaymentRequired: the payment is missing, wrong, or not enough for any work.
        """
        try:
            if isinstance(payment, Account):
                return payment
            if payment is None:
                raise PaymentRequired("answers here have to be paid for", "ask through a gateway with a channel")
            account = await self._account(payment.terms)
            try:
                payment.check(account.channel, request)
            except InvalidSignature as error:
                raise PaymentRequired(error.message, "sign with the channel's key", reason="signature") from error
            if payment.voucher is not None and payment.voucher.amount > account.known:
                await self._check(account, payment.voucher)
                await self._found(account, payment.voucher.amount)
                self._keep_soon(account, payment.voucher)
            await self._found(account, 0)
            if account.tab.owed > max(account.tab.paid, account.known) + account.tab.credit:
                raise PaymentRequired(
                    f"{account.tab.owed} wei are owed on this channel and {account.tab.paid} paid, "
                    f"and no more than {account.tab.credit} may be unpaid",
                    "pay what is owed, or open another channel",
                    reason="credit",
                )
        except PaymentRequired as error:
            self.refused(error.reason)
            raise
        return account

    async def take(self, terms: Terms, voucher: Voucher) -> None:
        """Keep a voucher; when this returns it is on the disk.

        Raises:
            PaymentRequired: it is wrong, or worth less than one that is here.
            StoreError: it cannot be kept now.
        """
        try:
            account = await self._account(terms)
            if voucher.amount < account.known:
                raise PaymentRequired(
                    f"a voucher for {account.known} wei is here, and this one is for {voucher.amount}",
                    "send the latest one",
                    reason="lower",
                )
            await self._check(account, voucher)
        except PaymentRequired as error:
            self.refused(error.reason)
            raise
        await self._found(account, voucher.amount)
        await self._keep(account, voucher)

    async def prepay(self, terms: Terms, voucher: Voucher, most: int) -> Account:
        """Take a voucher for what is owed and `most` wei more, which the next answer may cost; it is on the disk then.

        Raises:
            PaymentRequired: it is wrong, or for another amount, or another answer is under way on the channel.
            StoreError: it cannot be kept now.
        """
        try:
            account = await self._account(terms)
            await self._check(account, voucher)
            await self._found(account, max(0, voucher.amount - most))
            if voucher.amount in account.spent:  # whoever has seen it has it: on its way, or in a claim
                raise PaymentRequired("this voucher has paid an answer", "sign for another sum", reason="used")
            if account.tab.running:
                raise PaymentRequired("an answer is under way on this channel", "wait for its end", reason="busy")
            if voucher.amount != account.tab.owed + most:
                raise PaymentRequired(
                    f"the voucher is for {voucher.amount} wei; {account.tab.owed} are owed, and up to {most} will be",
                    "sign for the sum",
                    reason="amount",
                )
        except PaymentRequired as error:
            self.refused(error.reason)
            raise
        await self._keep(account, voucher)
        return account

    async def best(self, channel: Digest) -> tuple[Account, Voucher | None] | None:
        """A channel that is in use here, and its best voucher."""
        account = self._accounts.get(channel)
        if account is None:
            return None
        kept = await asyncio.to_thread(self._store.find, channel)
        return account, None if kept is None else kept.voucher

    async def start(
        self, account: Account, price: Price, prompt: int, due: Callable[[Due], None] = lambda _due: None
    ) -> Meter:
        """Begin an answer to a prompt of so many tokens: its meter, when its first token is paid for or on credit.
        `due` is told when the provider wants to be paid.

        Raises:
            PaymentRequired: that is not so within the grace.
        """
        meter = Meter(self, account, price, prompt, due)
        first = amount_due(price, prompt, 1)
        try:
            if first > account.tab.credit and account.tab.total + first > account.tab.paid:
                raise PaymentRequired(
                    f"the prompt and one token cost {first} wei, and no more than {account.tab.credit} may be unpaid",
                    "shorten the prompt, or ask a provider with more credit",
                    reason="credit",
                )
            # Only where something is on its way does a place wait for it.
            expected = account.known > account.tab.paid or len(account.tab.running) > 0
            await meter.wait(1, None if expected else 0.0)
        except BaseException:
            meter.forget()
            raise
        return meter

    async def look(self, account: Account) -> None:
        """Ask the chain what is in a channel. Where it cannot be asked, what was known holds for half a withdrawal's
        delay: nothing can leave sooner than announced."""
        try:
            async with asyncio.timeout(self.pace.look):
                state = await asyncio.to_thread(self._chain.channel_state, account.channel)
        except (AssayError, TimeoutError) as error:
            logger("till").warning("chain_unreachable", channel=account.channel.hex(), reason=str(error))
            if self.clock() - account.checked > account.terms.withdraw_delay / 2:
                account.tab.funds = 0
            return
        account.tab.funds = max(state.balance - state.leaving, state.claimed)
        account.claimed = state.claimed
        account.checked = self.clock()
        account.wake()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Look at the channels in use, again and again; at the end, vouchers that are being kept are kept."""
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, *self._keeping, return_exceptions=True)
            self._store.close()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.pace.refresh)
            now = self.clock()
            for account in list(self._accounts.values()):
                if account.tab.running or now - account.used < self.pace.use:
                    await self.look(account)

    @property
    def domain(self) -> bytes:
        """The EIP-712 domain of vouchers and channels."""
        return self._chain.domain

    def check_terms(self, terms: Terms) -> None:
        """Check that a channel pays this provider.

        Raises:
            PaymentRequired: it does not, or its money can be withdrawn too soon.
        """
        required = self.requirements
        for name, wanted, given in (
            ("receiver", required.receiver, terms.receiver),
            ("receiver's key", required.authorizer, terms.receiver_authorizer),
            ("token", required.token, terms.token),
        ):
            if wanted != given:
                raise PaymentRequired(
                    f"the channel's {name} is {given}, and {wanted} is wanted here", "open another", reason="terms"
                )
        if terms.withdraw_delay < required.delay:
            raise PaymentRequired(
                f"the channel's money can be withdrawn in {terms.withdraw_delay} s, and {required.delay} are wanted",
                "open another",
                reason="terms",
            )

    async def _account(self, terms: Terms) -> Account:
        self.check_terms(terms)
        channel = terms.channel(self._chain.domain)
        account = self._accounts.get(channel)
        if account is None:
            opening = self._opening.get(channel)
            if opening is None:
                opening = self._opening[channel] = asyncio.create_task(self._open(terms, channel))
                opening.add_done_callback(lambda _: self._opening.pop(channel, None))
            account = await asyncio.shield(opening)
        self._accounts.move_to_end(channel)
        account.used = self.clock()
        return account

    async def _open(self, terms: Terms, channel: Digest) -> Account:
        """From the database; a channel is kept there only when the chain has money in it."""
        kept = await asyncio.to_thread(self._store.find, channel)
        paid = 0 if kept is None or kept.voucher is None else kept.voucher.amount
        tab = Tab(owed=0 if kept is None else kept.owed, paid=paid, funds=0, credit=self.requirements.credit)
        account = Account(terms, channel, tab, self.clock())
        await self.look(account)
        if account.checked == float("-inf"):
            raise PaymentRequired("the chain cannot be asked for this channel now", "try again later", reason="chain")
        if tab.funds <= account.claimed:
            raise PaymentRequired("there is no money in this channel", "deposit first", reason="funds")
        account.fresh = kept is None
        tab.credit = self.requirements.credit  # it may have changed meanwhile
        self._accounts[channel] = account
        while len(self._accounts) > MOST_ACCOUNTS:
            idle = next((name for name, each in self._accounts.items() if not each.tab.running), None)
            if idle is None:
                break
            del self._accounts[idle]
        return account

    async def _found(self, account: Account, paid: int) -> None:
        """Keep a channel that the database does not have. What was claimed on it, or is paid by its first voucher, was
        owed before: the database is new, or was lost."""
        if account.fresh:
            owed = max(account.claimed, paid)
            kept = await asyncio.to_thread(self._store.open, account.channel, account.terms, owed)
            account.tab.owed = max(account.tab.owed, kept.owed)
            account.tab.paid = max(account.tab.paid, account.claimed)
            account.known = max(account.known, account.tab.paid)
            account.fresh = False

    async def _check(self, account: Account, voucher: Voucher) -> None:
        if voucher.channel != account.channel:
            raise PaymentRequired("the voucher is for another channel", "sign for this one", reason="channel")
        try:
            voucher.check(self._chain.domain, account.terms.payer_authorizer)
        except InvalidSignature as error:
            raise PaymentRequired(error.message, "sign with the channel's key", reason="signature") from error
        if voucher.amount > account.tab.funds:
            await self.look(account)
        if voucher.amount > account.tab.funds:
            raise PaymentRequired(
                f"the voucher is for {voucher.amount} wei, and the channel holds {account.tab.funds}",
                "deposit more",
                reason="funds",
            )

    def _keep_soon(self, account: Account, voucher: Voucher) -> None:
        async def keep() -> None:
            try:
                await self._keep(account, voucher)
            except StoreError as error:  # what is not on the disk does not count as paid
                logger("till").error("voucher_not_kept", channel=account.channel.hex(), reason=error.message)

        keeping = asyncio.create_task(keep())
        self._keeping.add(keeping)
        keeping.add_done_callback(self._keeping.discard)

    async def _keep(self, account: Account, voucher: Voucher) -> None:
        if voucher.amount <= account.tab.paid:
            return
        account.known = max(account.known, voucher.amount)
        try:
            best = await asyncio.to_thread(self._store.raise_to, voucher)
        except StoreError:
            account.known = account.tab.paid
            raise
        account.tab.paid = max(account.tab.paid, best)
        account.wake()
