"""Answers for x402's clients: the OpenAI routes of a provider, paid by what comes in the heads of HTTP requests.

The price is the most that an answer can cost; what it did cost is charged. Before any work the voucher is on the disk,
and the money in the channel. Answers come in one piece, since their heads tell what was charged.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, Protocol

from starlette.requests import Request as HttpRequest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from assay.apps.admission import check_settings, read_prompt
from assay.apps.failures import error_response
from assay.apps.logs import logger
from assay.apps.meter import Account
from assay.apps.metrics import Measured
from assay.apps.reply import Reply
from assay.apps.serving import LocalAnswers
from assay.apps.till import Till
from assay.core.deposit import Authorization, TokenDomain
from assay.core.errors import (
    AssayError,
    EncodingError,
    EngineError,
    InvalidRequest,
    InvalidSignature,
    ModelFileError,
    PaymentRequired,
    ProviderFailed,
    TransactionFailed,
)
from assay.core.hashing import Digest
from assay.core.offer import Ask, Offer, Price
from assay.core.ports import Answer, Answers
from assay.core.request import Request
from assay.core.voucher import Terms
from assay.market.matching import choose
from assay.market.pricing import amount_due
from assay.network.openai.accept import Accepted
from assay.network.x402 import (
    REQUIRED,
    RESPONSE,
    SIGNATURE,
    SLACK,
    Offered,
    Standing,
    Wanted,
    WrongPayment,
    read_offered,
    required_header,
    response_header,
)

DEPOSIT_SECONDS: Final = 60.0
"""Until a deposit has to be final."""
WORTH: Final = 10
"""Answers, at their highest price, that a client is asked to deposit for at once."""


class Deposits(Protocol):
    """Sends deposits for their payers; calls block (`chain/deposits.py`)."""

    @property
    def token(self) -> TokenDomain:
        """What payers sign in."""
        ...

    def send(self, terms: Terms, authorization: Authorization, *, seconds: float) -> bytes:
        """Put a payer's money into its channel; the transaction's hash."""
        ...


class X402:
    """Stands between the OpenAI routes and the answers of this machine."""

    def __init__(
        self, local: LocalAnswers, answers: Measured, till: Till, deposits: Deposits, *, least_deposit: int = 1
    ) -> None:
        """`answers` measures `local`, whose till is `till`. `least_deposit`: wei for which a deposit is worth its gas,
        which the provider pays."""
        self._answers: Final = answers
        self._local: Final = local
        self._till: Final = till
        self._deposits: Final = deposits
        self._least: Final = least_deposit
        self._busy: Final[set[Digest]] = set()

    async def __call__(self, request: HttpRequest, accepted: Accepted, make: Callable[[Answers], Reply]) -> ASGIApp:
        """The reply to a request that was understood: `make` makes it of what answers.

        Raises:
            InvalidRequest: it wants a stream.
            ModelNotFound, NoProvider, ProviderFailed: see `Answers.answer`.
        """
        quotes = [await self._quote(each, accepted.ask) for each in accepted.requests]
        price = sum(most for most, _ in quotes)
        if not price:
            return make(self._answers)
        header = request.headers.get(SIGNATURE)
        asked = price if header is not None else price + secrets.randbelow(price // SLACK + 1)
        wanted = Wanted(self._till.requirements, asked, max(self._least, WORTH * price), self._deposits.token)
        channel: Digest | None = None
        try:
            if header is None:
                raise PaymentRequired("answers here have to be paid for", "pay by x402, or ask through a gateway")
            if accepted.delivery.stream:
                raise InvalidRequest(
                    "paid by x402, answers come in one piece", field="stream", remedy="leave `stream` out"
                )
            offered = self._read(header, wanted)
            channel = offered.voucher.channel
            if channel in self._busy:
                raise PaymentRequired("an answer is under way on this channel", "wait for its end", reason="busy")
            self._busy.add(channel)
            try:
                account, deposit = await self._take(offered, wanted)
            except BaseException:
                self._busy.discard(channel)
                raise
        except PaymentRequired as error:
            if header is not None:  # the first question of every client has none
                logger("x402").info("payment_refused", reason=error.reason, message=error.message)
            wrong_sum = error.reason in ("amount", "used")
            standing = await self._standing(channel) if channel is not None and wrong_sum else None
            response = error_response(error)
            response.headers[REQUIRED] = required_header(
                wanted, str(request.url), reason=error.reason, standing=standing
            )
            return response
        prices = {each.digest: quoted for each, (_, quoted) in zip(accepted.requests, quotes, strict=True)}
        paid = make(PaidAnswers(self._local, self._answers, account, prices))
        return _Paid(paid, account, offered, wanted, deposit, lambda: self._busy.discard(account.channel))

    async def _quote(self, request: Request, ask: Ask) -> tuple[int, Price]:
        """The most that an answer can cost, wei, 0 where it is free; and at which price."""
        wish = replace(ask, model=request.model, level=request.level, allow_fallbacks=False)
        (offer,) = choose(wish, await self._local.models()).offers
        if not offer.paid:
            return 0, offer.price
        engine = self._local.engines[offer.model]
        check_settings(request)
        try:
            prompt = len((await asyncio.to_thread(read_prompt, engine, request)).tokens)
        except (EngineError, ModelFileError) as error:
            raise ProviderFailed(error.message, error.remedy) from error
        room = offer.context - prompt
        most = min(request.max_tokens, room) if request.max_tokens else room
        return amount_due(offer.price, prompt, most), offer.price

    def _read(self, header: str, wanted: Wanted) -> Offered:
        try:
            return read_offered(header, wanted, self._till.domain)
        except WrongPayment as error:
            raise PaymentRequired(error.message, "pay what is wanted", reason=error.reason) from error
        except EncodingError as error:
            raise PaymentRequired(error.message, "see x402's batch-settlement", reason="payload") from error
        except InvalidSignature as error:
            raise PaymentRequired(error.message, "sign with the channel's key", reason="signature") from error

    async def _take(self, offered: Offered, wanted: Wanted) -> tuple[Account, bytes]:
        """The channel that pays, and the transaction that deposited, if there was one."""
        deposit = b""
        if offered.deposit is not None:
            self._till.check_terms(offered.terms)
            deposit = await self._deposit(offered.terms, offered.deposit, wanted)
        return await self._till.prepay(offered.terms, offered.voucher, offered.amount), deposit

    async def _deposit(self, terms: Terms, authorization: Authorization, wanted: Wanted) -> bytes:
        if authorization.amount < wanted.least_deposit:
            raise PaymentRequired(
                f"{authorization.amount} wei are deposited, and at least {wanted.least_deposit} are wanted",
                "deposit more",
                reason="least",
            )
        try:
            return await asyncio.to_thread(self._deposits.send, terms, authorization, seconds=DEPOSIT_SECONDS)
        except InvalidSignature as error:
            raise PaymentRequired(error.message, "sign with the payer's key", reason="deposit") from error
        except TransactionFailed as error:  # or somebody else has sent it: the channel shows
            logger("x402").warning("deposit_failed", payer=terms.payer, reason=error.message)
            return b""
        except AssayError as error:
            raise PaymentRequired(error.message, "try again later", reason="chain") from error

    async def _standing(self, channel: Digest) -> Standing | None:
        found = await self._till.best(channel)
        if found is None:
            return None
        account, voucher = found
        return Standing(channel, account.tab.funds, account.claimed, account.tab.owed, voucher)


class PaidAnswers:
    """Implements `Answers` on a channel that was paid in advance."""

    def __init__(
        self, local: LocalAnswers, answers: Measured, account: Account, prices: Mapping[Digest, Price]
    ) -> None:
        """`prices`: that the payer was told, by the digest of the request."""
        self._prices: Final = prices
        self._local: Final = local
        self._answers: Final = answers
        self._account: Final = account

    async def models(self) -> Sequence[Offer]:
        """See `Answers`."""
        return await self._answers.models()

    async def answer(self, request: Request, ask: Ask, *, top_logprobs: int | None = None) -> Answer:
        """See `Answers`."""
        price = self._prices.get(request.digest)
        starting = self._local.answer(request, ask, top_logprobs=top_logprobs, price=price, payment=self._account)
        return await self._answers.measure(request, starting)


class _Paid:
    """A reply with a head that tells what was charged; an ASGI application."""

    def __init__(
        self,
        inner: ASGIApp,
        account: Account,
        offered: Offered,
        wanted: Wanted,
        deposit: bytes,
        over: Callable[[], None],
    ) -> None:
        self._offered: Final = offered
        self._inner: Final = inner
        self._account: Final = account
        self._wanted: Final = wanted
        self._deposit: Final = deposit
        self._over: Final = over
        self._before: Final = account.tab.owed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                head = (RESPONSE.encode(), self._header().encode())
                message = {**message, "headers": [*message["headers"], head]}
            await send(message)

        try:
            await self._inner(scope, receive, told)
        finally:
            tab, spent = self._account.tab, self._account.spent
            if tab.owed > self._before:
                spent.add(self._offered.voucher.amount)
                spent.difference_update([amount for amount in spent if amount <= tab.owed])
            self._over()

    def _header(self) -> str:
        account, tab = self._account, self._account.tab
        standing = Standing(account.channel, tab.funds, account.claimed, tab.owed)
        charged = tab.owed - self._before
        return response_header(self._wanted, account.terms.payer, standing, charged=charged, deposit=self._deposit)
