"""Pays providers for a gateway. Implements `Payer`.

Nothing here makes an answer wait but the first one at a provider: receipts are counted, vouchers signed, kept and sent
in the background. What was sent and not yet counted is on the disk too, and asked for again after a crash.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Final, Protocol

from assay.apps.funding import Budget, Funding
from assay.apps.purse import Account, LivePurse, most_cost
from assay.core.bundle import Bundle
from assay.core.encoding import parse_canonical
from assay.core.errors import (
    AssayError,
    ChainFailed,
    NotFound,
    PaymentRequired,
    StoreError,
)
from assay.core.hashing import Digest
from assay.core.keys import Address, Key
from assay.core.offer import Offer
from assay.core.payment import Due, Payment, pay_for
from assay.core.request import Request
from assay.core.voucher import Terms, Voucher, sign_voucher
from assay.market.ledger import to_sign
from assay.market.pricing import amount_due
from assay.network.wire import decode_offers
from assay.store.channels import Channel, ChannelStore, Outstanding

ROUND_SECONDS: Final = 2.0
"""Between two looks at what is left to do."""
BEGIN_SECONDS: Final = 0.05
"""After the first token."""
GATHER_SECONDS: Final = 0.25
"""A voucher for a receipt is sent so much later, with all that came meanwhile: a request may take it along before."""
MOST_REFUSALS: Final = 3
"""Of one channel in a row, before another one is opened."""
FAREWELL_SECONDS: Final = 5.0
"""At the end, for vouchers that are on their way."""
_FORGET_SECONDS: Final = 86_400
"""After which a provider that has no receipt for a request is taken at its word."""
Recover = Callable[[Bundle, Offer, Request, Digest], Awaitable[None]]
"""Check and keep a receipt that was fetched after a crash, for a request paid from a channel; AssayError: it does not
hold."""


class Post(Protocol):
    """How providers are reached (`HttpTransport`)."""

    async def pay(self, url: str, terms: Terms, voucher: Voucher) -> None:
        """Hand over a voucher."""
        ...

    async def bundle(self, url: str, name: Digest) -> Bundle:
        """Fetch a receipt."""
        ...


class Wallet:
    """The channels of one key."""

    def __init__(
        self,
        key: Key,
        funding: Funding,
        store: ChannelStore,
        post: Post,
        *,
        clock: Callable[[], float] = time.time,
        log: Callable[[str, Mapping[str, object]], None] = lambda _event, _facts: None,
    ) -> None:
        """`store` shares the receipts' database. `clock`: Unix seconds. `log` is told of events and facts."""
        self._key: Final = key
        self._funding: Final = funding
        self._store: Final = store
        self._post: Final = post
        self._clock: Final = clock
        self._log: Final = log
        self._accounts: Final[dict[Address, Account]] = {}
        """The open channel with each provider."""
        self._opening: Final[dict[Address, asyncio.Task[Account]]] = {}
        self._topping: Final[dict[Digest, asyncio.Task[None]]] = {}
        self._closing: Final[dict[Address, asyncio.Task[None]]] = {}
        self._left: Final[dict[Address, str]] = {}
        """Who is paid no more, and why."""
        self._work: Final[set[asyncio.Task[None]]] = set()

    async def open(self, offer: Offer, request: Request) -> LivePurse:
        """See `Payer.open`."""
        if offer.payment is None or offer.provider in self._left:
            raise PaymentRequired(f"{offer.provider} is paid no more", "ask another provider", reason="left")
        account = self._accounts.get(offer.provider)
        if account is None or account.left <= 0 or not self._funding.fits(account.row.terms, offer.payment):
            account = await self._ready(offer)
        if account.left < self._funding.budget.top_up_below:
            self._top_up(account)
        most, topping = most_cost(offer, request), self._topping.get(account.row.id)
        if account.left < most and topping is not None:  # or the answer could be cut for want of money
            await asyncio.wait([topping])
        return LivePurse(self, account, offer, request, most)

    @property
    def budget(self) -> Budget:
        """What may be spent."""
        return self._funding.budget

    def channels(self) -> Sequence[Channel]:
        """All of them, out of the database."""
        return self._store.known()

    def sums(self) -> Mapping[str, int]:
        """Wei over all channels by kind, out of the database."""
        return self._store.sums()

    def voucher_for(self, receipt: Digest) -> int | None:
        """Wei of the voucher, all answers of its channel together, that was signed for a receipt; None: none was."""
        return self._store.voucher_for(receipt)

    def leave(self, provider: Address, reason: str) -> None:
        """See `Payer.leave`."""
        if provider in self._left:
            return
        self._left[provider] = reason
        account = self._accounts.pop(provider, None)
        if account is not None:
            self._close(account, reason)

    @asynccontextmanager
    async def running(self, recover: Recover) -> AsyncIterator[None]:
        """Do in the background what is left to do; at the end, what is being signed is kept and sent."""
        for row in await asyncio.to_thread(self._store.known):
            if row.state == "open" and row.terms.payer == self._key.address:
                self._accounts[row.provider] = Account(row, loaded=True)
        accounts = {account.row.id: account for account in self._accounts.values()}
        for item in await asyncio.to_thread(self._store.outstanding):
            if item.channel in accounts:
                accounts[item.channel].outstanding[item.mark] = item
        for provider in self._left.keys() & self._accounts.keys():  # said before the channels were known here
            self._close(self._accounts.pop(provider), self._left[provider])
        rounds = asyncio.create_task(self._rounds(recover))
        try:
            yield
        finally:
            rounds.cancel()
            await asyncio.gather(rounds, return_exceptions=True)
            with suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL_SECONDS):
                    while self._work:
                        await asyncio.wait(self._work)
            self._store.close()

    def soon(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Do it in the background; failures are logged, and what they leave undone is done in a later round."""

        async def guarded() -> None:
            try:
                await work
            except AssayError as error:
                self._log("payment_failed", {"reason": error.message})

        task = asyncio.create_task(guarded())
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return task

    def payment(self, account: Account, request: Digest) -> Payment:
        """What goes with a request."""
        return pay_for(self._key, account.row.terms, account.row.id, request, account.row.voucher)

    @property
    def now(self) -> int:
        """Unix seconds."""
        return int(self._clock())

    def refused(self, account: Account) -> None:
        """The provider does not take the payment. Where all is paid that is known here, the books differ for good:
        after some attempts the channel is given up for another one."""
        account.refusals += 1
        settled = not account.outstanding and account.earned <= account.row.accepted
        if account.refusals >= MOST_REFUSALS and settled and self._accounts.get(account.row.provider) is account:
            del self._accounts[account.row.provider]
            self._close(account, "the provider does not take its vouchers")

    def begin(self, account: Account, item: Outstanding) -> None:
        """An answer begins. That is kept a little later, so that its first token need not wait; should the program end
        before, this receipt is not fetched, and never paid for."""

        async def work() -> None:
            await asyncio.sleep(BEGIN_SECONDS)
            async with account.lock:
                if item.mark in account.outstanding:
                    await asyncio.to_thread(self._store.begin, item)

        self.soon(work())

    def forget(self, account: Account, mark: str) -> None:
        """Nothing can be owed for a request."""
        account.outstanding.pop(mark, None)
        self.soon(self._locked(account, lambda: self._store.forget(mark)))

    def pay_due(self, account: Account, due: Due) -> None:
        """Sign in mid-answer for what has come, and send it."""
        account.asked = max(account.asked, due.amount)
        if account.paying is None or account.paying.done():
            account.paying = self.soon(self._pay_due(account))

    async def _pay_due(self, account: Account) -> None:
        done = -1
        while done != (done := account.asked):
            await self._change(account, lambda: self._store.pay(account.row.id, account.asked, self._sign(account)))
        self._hand_over(account)

    def count(self, account: Account, item: Outstanding, receipt: Digest, price: int, asked: int) -> None:
        """Count a receipt, sign for it, and send that."""
        account.outstanding.pop(item.mark, None)
        account.counting += price

        async def work() -> None:
            try:
                await self._change(
                    account, lambda: self._store.settle(item, receipt, price, asked, self._sign(account))
                )
            except StoreError:
                account.outstanding[item.mark] = item  # fetched and counted later
                raise
            finally:
                account.counting -= price
            await asyncio.sleep(GATHER_SECONDS)
            self._hand_over(account)

        self.soon(work())

    def _close(self, account: Account, reason: str) -> None:
        facts = {"channel": account.row.id.hex(), "provider": account.row.provider, "reason": reason}
        self._log("channel_closing", facts)
        self._closing[account.row.provider] = self.soon(
            self._change(account, lambda: self._store.closing(account.row.id, reason))
        )

    async def _locked(self, account: Account, work: Callable[[], None]) -> None:
        async with account.lock:
            await asyncio.to_thread(work)

    async def _change(self, account: Account, work: Callable[[], Channel]) -> None:
        async with account.lock:
            row = await asyncio.to_thread(work)
            account.row = replace(row, accepted=max(row.accepted, account.row.accepted))

    def _sign(self, account: Account) -> Callable[[Channel], Voucher | None]:
        """Signs for what is earned and what has come, within what is deposited."""
        running = sum(purse.value for purse in tuple(account.purses))  # a copy: this runs in a thread

        def sign(row: Channel) -> Voucher | None:
            if row.state != "open":
                return None
            amount = to_sign(signed=row.signed, earned=row.earned, running=running, asked=row.asked)
            amount = min(amount, row.funds)
            return sign_voucher(self._key, self._funding.domain, row.id, amount) if amount > row.signed else None

        return sign

    def _hand_over(self, account: Account) -> None:
        """Send the latest voucher, unless that is being done."""
        if account.posting is None or account.posting.done():
            account.posting = self.soon(self._send(account))

    async def _send(self, account: Account) -> None:
        while (voucher := account.row.voucher) is not None and voucher.amount > account.row.accepted:
            try:
                await self._post.pay(account.row.url, account.row.terms, voucher)
            except PaymentRequired as error:
                self._log("voucher_refused", {"channel": account.row.id.hex(), "reason": error.message})
                return
            async with account.lock:
                account.row = replace(account.row, accepted=max(account.row.accepted, voucher.amount))

    async def _ready(self, offer: Offer) -> Account:
        """The channel with a provider, with money in it; who asks meanwhile waits for the same."""
        opening = self._opening.get(offer.provider)
        if opening is None:
            opening = self._opening[offer.provider] = asyncio.create_task(self._make_ready(offer))
            opening.add_done_callback(lambda _: self._opening.pop(offer.provider, None))
        try:
            return await asyncio.shield(opening)
        except ChainFailed as error:
            raise PaymentRequired(
                f"no channel with {offer.provider} can be had now ({error.message})", "try again", reason="chain"
            ) from error

    async def _make_ready(self, offer: Offer) -> Account:
        required = offer.payment
        assert required is not None
        if (closing := self._closing.get(offer.provider)) is not None:
            await asyncio.wait([closing])
        await asyncio.to_thread(self._funding.agree, offer, required)
        row = await asyncio.to_thread(self._funding.find_or_open, offer, required)
        account = self._accounts.get(offer.provider)
        if account is None or account.row.id != row.id:
            account = self._accounts[offer.provider] = Account(row)
        if row.url != offer.url:
            await self._change(account, lambda: self._store.moved(row.id, offer.url))
        await self._deposit(account, 1)
        return account

    def _top_up(self, account: Account) -> None:
        name = account.row.id
        if name not in self._topping:
            self._topping[name] = self.soon(self._deposit(account, self._funding.budget.top_up_below))
            self._topping[name].add_done_callback(lambda _: self._topping.pop(name, None))

    async def _deposit(self, account: Account, least: int) -> None:
        """Deposit if less than `least` is left, or go on with a deposit under way; one at a time."""
        async with account.depositing:
            if account.left < least or account.row.depositing:
                done = await asyncio.to_thread(self._funding.deposit, account.row, self._funding.budget.wait)
                async with account.lock:
                    account.row = replace(account.row, deposited=done.deposited, depositing=0)

    async def _rounds(self, recover: Recover) -> None:
        while True:
            try:
                await self.tidy(recover)
            except Exception as error:  # noqa: BLE001 - whatever it is, money is looked after again in the next round
                self._log("payment_failed", {"reason": f"{type(error).__name__}: {error}"})
            await asyncio.sleep(ROUND_SECONDS)

    async def tidy(self, recover: Recover) -> None:
        """One round: fetch receipts that are missing, send vouchers again, withdraw.

        Raises:
            StoreError: the database cannot be used.
        """
        stored: dict[Digest, int] = {}
        for row in await asyncio.to_thread(self._store.known):
            stored[row.id] = row.accepted
            account = self._accounts.get(row.provider)
            if row.state == "closing" and account is not None and account.row.id == row.id:
                del self._accounts[row.provider]  # another program has said so
        for account in list(self._accounts.values()):
            if self._clock() < account.rests_until:
                continue
            if account.row.depositing:
                self._top_up(account)
            live = {purse.mark for purse in account.purses}
            missing = [item for mark, item in account.outstanding.items() if mark not in live]
            found = [await self._recover(account, item, recover) for item in missing]
            if account.row.signed > account.row.accepted:
                self._hand_over(account)
            if account.posting is not None:
                await asyncio.wait([account.posting])
            if account.row.accepted > stored.get(account.row.id, 0):  # lost, it is only sent once more
                await self._change(account, lambda row=account.row: self._store.accepted(row.id, row.accepted))
            account.rest(self._clock(), good=all(found) and account.row.signed <= account.row.accepted)
        await self._funding.withdraw_all()

    async def _recover(self, account: Account, item: Outstanding, recover: Recover) -> bool:
        """Fetch a receipt and count it; whether that is done."""
        request = Request.from_json(parse_canonical(item.request, what="a request"))
        [offer] = decode_offers(item.offer, item.url)
        try:
            bundle = await self._post.bundle(item.url, request.name)
            await recover(bundle, offer, request, account.row.id)
        except NotFound:
            if self._clock() - item.kept < _FORGET_SECONDS:
                return False
            self.forget(account, item.mark)
        except AssayError as error:
            self._log("receipt_not_recovered", {"provider": offer.provider, "reason": error.message})
            return False
        else:
            receipt = bundle.receipt
            price = amount_due(offer.price, receipt.prompt_count, receipt.output_count)
            if price > item.most:
                self.forget(account, item.mark)
                self.leave(offer.provider, "a receipt for more than came")
            else:
                self.count(account, item, receipt.digest, price, receipt.amount)
        return True
