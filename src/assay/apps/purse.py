"""One answer that a gateway pays for, and the channel that pays for it."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from assay.core.bundle import Bundle
from assay.core.encoding import canonical
from assay.core.errors import BindingMismatch, ProviderFailed
from assay.core.hashing import Digest
from assay.core.offer import Offer
from assay.core.payment import Due, Payment
from assay.core.request import Request
from assay.market.ledger import check_asked, most_prompt_tokens
from assay.market.pricing import amount_due
from assay.network.http import IN_FLIGHT
from assay.network.wire import encode_offers
from assay.store.channels import Channel, Outstanding

if TYPE_CHECKING:
    from assay.apps.wallet import Wallet


LONGEST_REST: Final = 300.0
"""Seconds between two attempts to send or fetch what is missing."""


class Account:
    """One channel in memory."""

    def __init__(self, row: Channel, *, loaded: bool = False) -> None:
        """`loaded`: another program had it before, which may have ended before it could keep what it had asked for."""
        self.row = row
        self.loaded = loaded
        self.slack = 0
        """What is owed for answers that nobody here knows of: never paid, but no lie."""
        self.counting = 0
        """What receipts are worth that are being counted."""
        self.outstanding: Final[dict[str, Outstanding]] = {}
        self.purses: Final[set[LivePurse]] = set()
        self.lock: Final = asyncio.Lock()
        """Of writes: rows are replaced in their order."""
        self.asked = 0
        """In mid-answer."""
        self.depositing: Final = asyncio.Lock()
        self.failures = 0
        """Rounds in which the provider could not be reached, since the last good one."""
        self.rests_until = 0.0
        """Unix seconds."""
        self.refusals = 0
        """Requests that the provider did not begin because of the payment, since the last one that it did."""
        self.paying: asyncio.Task[None] | None = None
        self.posting: asyncio.Task[None] | None = None

    def rest(self, now: float, *, good: bool) -> None:
        """Leave the provider alone for a while after a failure, longer with each."""
        self.failures = 0 if good else self.failures + 1
        self.rests_until = now if good else now + min(2.0 ** min(self.failures, 16), LONGEST_REST)

    @property
    def earned(self) -> int:
        """What all checked receipts are worth."""
        return self.row.earned + self.counting

    @property
    def most(self) -> int:
        """What may be owed beyond what is earned."""
        return sum(item.most for item in self.outstanding.values())

    @property
    def left(self) -> int:
        """Of the deposit, when everything under way is paid."""
        return self.row.funds - max(self.row.signed, self.earned) - sum(purse.value for purse in self.purses)


class LivePurse:
    """Implements `Purse`: one answer at a provider."""

    def __init__(self, wallet: Wallet, account: Account, offer: Offer, request: Request, most: int) -> None:
        """`most`: what it can cost, wei."""
        self.mark: Final = secrets.token_hex(16)
        self.value = 0
        """What has come is worth, as far as it was asked for."""
        self._wallet: Final = wallet
        self._account: Final = account
        self._offer: Final = offer
        body = canonical(request.to_json())
        self._prompts: Final = most_prompt_tokens(len(body), offer.context)
        self._prompt: int | None = None
        self._payment: Final = wallet.payment(account, request.digest)
        listed = encode_offers(offer.provider, [offer])
        self._item: Final = Outstanding(self.mark, account.row.id, most, offer.url, listed, body, wallet.now)
        account.purses.add(self)
        account.outstanding[self.mark] = self._item

    @property
    def channel(self) -> Digest:
        """Which pays."""
        return self._account.row.id

    @property
    def payment(self) -> Payment:
        """See `Purse.payment`."""
        return self._payment

    def begun(self) -> None:
        """See `Purse.begun`."""
        self._wallet.begin(self._account, self._item)

    def due(self, due: Due, received: int) -> None:
        """See `Purse.due`.

        Raises:
            ProviderFailed: it asks for more than all its answers can be worth.
        """
        if due.prompt > self._prompts or due.amount > self._account.earned + self._account.most + self._allowed:
            self._wallet.leave(self._offer.provider, "asked too much in mid-answer")
            raise ProviderFailed(
                f"{self._offer.provider} asks for {due.amount} wei, and that cannot be owed", "ask another provider"
            )
        self._prompt = due.prompt
        self.value = max(self.value, amount_due(self._offer.price, due.prompt, received))
        self._wallet.pay_due(self._account, due)

    def settle(self, bundle: Bundle) -> None:
        """See `Purse.settle`."""
        receipt, account = bundle.receipt, self._account
        account.purses.discard(self)
        if receipt.channel != self.channel:
            raise BindingMismatch("channel", "the receipt is of another channel than the one that pays")
        price = amount_due(self._offer.price, receipt.prompt_count, receipt.output_count)
        others = account.most - (self._item.most if self.mark in account.outstanding else 0)
        self._learn(receipt.amount - account.earned - price - others)
        try:
            check_asked(receipt.amount, earned=account.earned + price, outstanding=others + account.slack)
            if self._prompt not in (None, receipt.prompt_count):
                raise BindingMismatch("prompt", "the receipt's prompt has another length than was told before")
        except BindingMismatch as error:
            # The answer is paid, what is asked beyond it is not, and there is no further one.
            self._wallet.count(account, self._item, receipt.digest, price, account.earned + price)
            self._wallet.leave(self._offer.provider, error.message)
            raise
        self._wallet.count(account, self._item, receipt.digest, price, receipt.amount)

    @property
    def _allowed(self) -> int:
        """What may be owed beyond all that is known: with a channel that was in use before this program began, as much
        as the provider gives credit for."""
        account, required = self._account, self._offer.payment
        return account.slack if not account.loaded or required is None else required.credit

    def _learn(self, excess: int) -> None:
        """The first receipt tells what that is."""
        if self._account.loaded:
            self._account.slack = excess if 0 < excess <= self._allowed else 0
            self._account.loaded = False

    def refuse(self, reason: str) -> None:
        """See `Purse.refuse`."""
        self._account.purses.discard(self)
        if self.mark in self._account.outstanding:
            self._wallet.forget(self._account, self.mark)
        self._wallet.leave(self._offer.provider, reason)

    def over(self, received: int, *, refused: bool = False) -> None:
        """See `Purse.over`."""
        account = self._account
        account.purses.discard(self)
        if received:
            account.refusals = 0
        if self.mark not in account.outstanding:
            return
        if received or self._prompt is not None:  # there may be a receipt yet, for what came and was on its way
            if not received:
                self.begun()
            most = self._offer.price.of(self._prompts, received + IN_FLIGHT)
            account.outstanding[self.mark] = replace(self._item, most=min(self._item.most, most))
        else:
            self._wallet.forget(account, self.mark)
        if refused:
            self._wallet.refused(account)


def most_cost(offer: Offer, request: Request) -> int:
    """What an answer can cost, wei: the longest prompt that the request can have, and all tokens that it allows."""
    prompt = most_prompt_tokens(len(canonical(request.to_json())), offer.context)
    return offer.price.of(prompt, min(request.max_tokens or offer.context, offer.context))
