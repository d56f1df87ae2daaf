"""A prompt's whole life on one page: accept → match → send → generate → attest → check → keep.

`accept` (network/openai/accept.py) made the `Request` and the `Ask`; `generate` and `attest` happen at the provider
(apps/serving.py, core/receipt.py); `verify` comes later, for a share of what is kept (apps/validator.py). The rest
is here: whom to ask, what to do when a provider fails, and what must hold before a receipt is taken.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final, TypeAlias

import numpy as np

from assay.choosing import Choosing, open_purse
from assay.core.bundle import Bundle
from assay.core.completion import WHOLE, Step, StepStop
from assay.core.errors import (
    AssayError,
    BindingMismatch,
    Busy,
    Equivocation,
    InvalidRequest,
    NotFound,
    PaymentRequired,
    ProviderFailed,
    StoreError,
    VerificationError,
)
from assay.core.hashing import ZERO, Digest
from assay.core.offer import Ask, Offer, Price
from assay.core.ports import Answer, Payer, Purse, Transport
from assay.core.request import Request
from assay.core.trace import Diary
from assay.market.failing import all_failed
from assay.market.pricing import amount_due
from assay.market.work import Work, work_of
from assay.store.receipts import ReceiptStore
from assay.verify.binding import check_offline

Spell: TypeAlias = Callable[[Digest, Sequence[int], Sequence[str]], str | None]
"""The text of an answer of the model with this digest, by its tokens and the request's stop texts; None: the model is
not known. Raises BindingMismatch for tokens that the model does not have."""
_REFUSALS: Final = 2
"""So many providers that call a request invalid are believed."""
_NOTE: Final = 200
"""Most characters of a provider's words in a trace."""
_VERDICTS_SECONDS: Final = 2.0
"""Age at which verdicts are looked up again."""


class MarketAnswers:
    """Implements `Answers` over the market: the gateway's side of the journey."""

    def __init__(
        self,
        transport: Transport,
        store: ReceiptStore,
        *,
        payer: Payer | None = None,
        known: Mapping[str, Digest] | None = None,
        ceiling: Price | None = None,
        spell: Spell = lambda _model, _tokens, _stops: None,
        clock: Callable[[], float] = time.monotonic,
        dice: np.random.Generator | None = None,
        log: Callable[[str, Mapping[str, object]], None] = lambda _event, _facts: None,
    ) -> None:
        """`payer`: pays providers that want it; without one they are not asked.

        `known`: digests of models by name; offers of other files under these names are passed over.

        `ceiling`: for asks that name no `max_price`. `spell`: what tokens say, where that is known here. `clock`:
        seconds that only rise. `dice`: decide whom to ask. `log`: told of events and facts.
        """
        self._transport: Final = transport
        self._store: Final = store
        self._payer: Final = payer
        self._ceiling: Final = ceiling
        self.spell: Final = spell
        self._clock: Final = clock
        self._log: Final = log
        self._looked_up = float("-inf")
        self._looking: asyncio.Task[None] | None = None
        self._open: Final[set[MarketAnswer]] = set()
        self._noting: Final[set[asyncio.Task[None]]] = set()
        self.choosing: Final = Choosing(transport, known or {}, clock, dice)
        self.router: Final = self.choosing.router

    @property
    def active(self) -> int:
        """Answers under way."""
        return len(self._open)

    async def models(self) -> Sequence[Offer]:
        """What the providers offer now, except other files under names that are known."""
        return await self.choosing.models()

    async def answer(self, request: Request, ask: Ask, *, top_logprobs: int | None = None) -> MarketAnswer:
        """Match, then send to one provider after the other until the first token comes.

        Raises:
            ModelNotFound, NoProvider: nobody offers this; the message says which wish leaves nobody.
            InvalidRequest: providers say so.
            Busy: all that fit are full.
            PaymentRequired: all that fit want to be paid, and cannot be.
            ProviderFailed: all that fit failed; the message has each one's reason.
        """
        diary = Diary(self._clock)
        wish = replace(ask, model=request.model, level=request.level, max_price=ask.max_price or self._ceiling)
        self._look_up_verdicts()
        work = work_of(request)
        errors: list[AssayError] = []
        async for offer in self.choosing.offers(wish, work, diary):
            try:
                return await self._send(offer, request, work, top_logprobs, diary)
            except (Busy, PaymentRequired, ProviderFailed, InvalidRequest, NotFound) as error:
                errors.append(error)
                diary.mark("failed", f"{offer.provider}: {error.message[:_NOTE]}")
            if sum(isinstance(error, InvalidRequest) for error in errors) >= _REFUSALS:
                break
        self.note(request, diary)
        raise all_failed(errors)

    def note(self, request: Request, diary: Diary) -> None:
        """Store what happened to a request, in the background; that it cannot be stored costs nobody anything."""

        async def keep() -> None:
            with suppress(StoreError):
                await asyncio.to_thread(self._store.note, request, diary.trace)

        noting = asyncio.create_task(keep())
        self._noting.add(noting)
        noting.add_done_callback(self._noting.discard)

    async def look_up_verdicts(self) -> None:
        """Let what checks found up to now decide the next choice."""
        tallies = await asyncio.to_thread(self._store.tallies)
        contradictions = await asyncio.to_thread(self._store.contradictions)
        self.router.health.judged(((t.provider, t.level, t.outcome, t.basis, t.count) for t in tallies), contradictions)
        for provider in self.router.health.dishonest:
            if self._payer is not None:
                self._payer.leave(provider, "caught cheating")

    async def keep(self, bundle: Bundle) -> None:
        """Store a receipt that was checked. That it cannot be stored must not cost the buyer answer or receipt.

        Raises:
            Equivocation: the provider signed another receipt under the same number.
        """
        try:
            await asyncio.to_thread(self._store.put, bundle)
        except StoreError as error:
            self._log("receipt_not_kept", {"receipt": bundle.receipt.digest.hex(), "reason": str(error)})
        except Equivocation:
            await self.look_up_verdicts()
            raise

    async def recover(self, bundle: Bundle, offer: Offer, request: Request, channel: Digest) -> None:
        """Check and keep the receipt of an answer that was under way when the program ended.

        Raises:
            VerificationError: it does not hold.
        """
        await asyncio.to_thread(check_promise, bundle, offer, request, (), None, channel=channel)
        await self.keep(bundle)

    def failed(self, offer: Offer, error: AssayError) -> None:
        """Remember a failure; one that is a lie weighs more."""
        self.router.failed(offer, self._clock(), badly=isinstance(error, VerificationError))
        self._log("provider_failed", {"provider": offer.provider, "url": offer.url, "reason": error.message})

    async def drain(self, grace: float) -> None:
        """Let answers finish for `grace` seconds, then hang up and take the receipts of what came."""
        if self._open:
            await asyncio.wait([answer.over for answer in self._open], timeout=grace)
        await asyncio.gather(*(answer.bundle() for answer in list(self._open)), return_exceptions=True)
        await asyncio.gather(*self._noting)

    async def _send(self, offer: Offer, request: Request, work: Work, top: int | None, diary: Diary) -> MarketAnswer:
        """Start at one provider and wait for the first token."""
        self.router.asked(offer)
        diary.mark("send", f"{offer.provider} at {offer.url}")
        answer: Answer | None = None
        purse: Purse | None = None
        try:
            if offer.paid:
                purse = await open_purse(self._payer, offer, request)
            sent = self._clock()
            answer = await self._transport.send(offer, request, top_logprobs=top, purse=purse)
            steps = self.choosing.timed(offer, answer.steps())
            first = await anext(steps, None)
            if first is None:
                raise ProviderFailed(f"{offer.url} ended before its first token", "ask another provider")
        except BaseException as error:
            self.router.over(offer, begun=False)
            if isinstance(error, Busy):
                self.router.busy(offer, self._clock(), error)
            elif isinstance(error, ProviderFailed | NotFound) or (purse and isinstance(error, PaymentRequired)):
                self.failed(offer, error)
            if purse is not None:
                purse.over(0, refused=isinstance(error, PaymentRequired))
            if answer is not None:
                await asyncio.shield(answer.close())
            raise
        diary.mark("first_token")
        self.router.first(offer, work, self._clock() - sent, self._clock())
        begun = MarketAnswer(self, offer, request, answer, first, steps, diary, purse)
        self._open.add(begun)
        begun.over.add_done_callback(lambda _: self._open.discard(begun))
        return begun

    def _look_up_verdicts(self) -> None:
        """In the background: an answer does not wait for the database."""
        if self._looking is None and self._clock() - self._looked_up > _VERDICTS_SECONDS:
            self._looking = asyncio.create_task(self._refresh_verdicts())

    async def _refresh_verdicts(self) -> None:
        try:
            with suppress(StoreError):
                await self.look_up_verdicts()
        finally:
            self._looked_up, self._looking = self._clock(), None


class MarketAnswer:
    """Implements `Answer`: one answer under way at a provider that has sent its first token."""

    def __init__(
        self,
        market: MarketAnswers,
        offer: Offer,
        request: Request,
        inner: Answer,
        first: Step,
        rest: AsyncIterator[Step],
        diary: Diary,
        purse: Purse | None = None,
    ) -> None:
        self.offer: Final = offer
        self.over: Final[asyncio.Future[None]] = asyncio.get_running_loop().create_future()
        """Done when the receipt was taken, or there is none."""
        self._market: Final = market
        self._request: Final = request
        self._inner: Final = inner
        self._first: Final = first
        self._rest: Final = rest
        self._diary: Final = diary
        self._purse: Final = purse
        self._tokens: list[int] = []
        self._shown: list[str] = []
        self._stop: StepStop | None = None
        self._hung_up = False
        self._taking: asyncio.Task[Bundle] | None = None

    async def steps(self) -> AsyncIterator[Step]:
        """The tokens as they come.

        Raises:
            ProviderFailed: the provider broke off, or ended without saying that the answer is whole though nobody
                hung up; `bundle` may still have its receipt for the part.
        """
        step: Step | None = self._first
        try:
            while step is not None:
                self._tokens.append(step.token)
                self._shown.append(step.text)
                self._stop = step.stop
                yield step
                step = await anext(self._rest, None)
            if self._stop not in WHOLE and not self._hung_up:
                raise ProviderFailed(
                    f"{self.offer.provider} ended the answer in the middle ({self._stop or 'it does not say why'})",
                    "ask again, or ask another provider",
                )
        except ProviderFailed as error:
            self._market.failed(self.offer, error)
            if self.offer.provider in error.message:
                raise
            raise ProviderFailed(f"{self.offer.provider} failed: {error.message}", error.remedy) from error

    async def bundle(self) -> Bundle:
        """The receipt, checked and kept; hangs up first if the answer is still under way.

        Raises:
            ProviderFailed: there is none, or it does not hold.
        """
        return await asyncio.shield(self._take())

    async def close(self) -> None:
        """Hang up; the receipt of what came is taken all the same."""
        self._take()
        await self._inner.close()

    def _take(self) -> asyncio.Task[Bundle]:
        """Once, whoever asks first, and whatever becomes of who asked."""
        if self._taking is None:
            self._hung_up = True
            self._taking = asyncio.create_task(self._check_and_keep())
            self._taking.add_done_callback(self._taken)
        return self._taking

    async def _check_and_keep(self) -> Bundle:
        self._diary.mark("last_token", f"{len(self._tokens)} tokens, {self._stop or 'cut'}")
        try:
            return await self._attested()
        except ProviderFailed as error:
            self._diary.mark("failed", f"{self.offer.provider}: {error.message[:_NOTE]}")
            raise
        finally:
            self._market.note(self._request, self._diary)

    async def _attested(self) -> Bundle:
        try:
            bundle = await self._inner.bundle()
            self._diary.mark("attest", bundle.receipt.digest.hex())
            channel = ZERO if self._purse is None else self._purse.channel
            await asyncio.to_thread(
                check_promise, bundle, self.offer, self._request, self._tokens, self._stop, channel=channel
            )
            await asyncio.to_thread(self._check_text)
            if self._purse is not None:
                self._purse.settle(bundle)
            self._diary.mark("check")
            await self._market.keep(bundle)
            self._diary.mark("keep")
        except ProviderFailed as error:
            self._market.failed(self.offer, error)
            raise
        except VerificationError as error:
            if self._purse is not None:
                self._purse.refuse(error.message)
            self._market.failed(self.offer, error)
            raise ProviderFailed(
                f"the receipt of {self.offer.provider} does not hold: {error.message}", "ask another provider"
            ) from error
        if self._stop in WHOLE:
            self._market.choosing.good(self.offer)
        return bundle

    def _check_text(self) -> None:
        """Tokens are what a receipt binds, and text is what people read: it has to be what the tokens say."""
        said = self._market.spell(self.offer.model_digest, self._tokens, self._request.stop)
        shown = "".join(self._shown)
        if said is not None and (said != shown if self._stop in WHOLE else not said.startswith(shown)):
            raise BindingMismatch("text", f"the text that came is not what its {len(self._tokens)} tokens say")

    def _taken(self, task: asyncio.Task[Bundle]) -> None:
        if self._purse is not None:
            self._purse.over(len(self._tokens))
        self._market.router.over(self.offer)
        self.over.set_result(None)
        if not task.cancelled():
            task.exception()  # seen: who asks for the bundle gets it


def check_promise(
    bundle: Bundle,
    offer: Offer,
    request: Request,
    tokens: Sequence[int],
    stop: StepStop | None,
    *,
    channel: Digest = ZERO,
) -> None:
    """Check a receipt against itself, the offer, the request and what was delivered; no model is needed.

    `tokens` are those that came and `stop` is how the last one ended the answer, None if it was cut: then the
    receipt may cover tokens that were still on their way (the transport bounds how many). On a `channel` the amount is
    that of all answers, which its `Purse` checks.

    Raises:
        InvalidSignature, BindingMismatch: it does not hold.
    """
    check_offline(bundle)
    receipt = bundle.receipt
    due = amount_due(offer.price, receipt.prompt_count, receipt.output_count)
    for name, promised, found in (
        ("request", request.digest, receipt.request),
        ("model", offer.model_digest, receipt.model),
        ("provider", offer.provider, receipt.provider),
        ("channel", channel, receipt.channel),
        ("amount", due if channel == ZERO else receipt.amount, receipt.amount),
        ("context", offer.context, bundle.profile.context),
        ("sampler", offer.sampler, bundle.profile.sampler),
        ("profile", offer.profile, receipt.profile),
    ):
        if promised != found:
            raise BindingMismatch(name, f"the receipt's {name} is not what was promised")
    covered = bundle.tokens if stop else bundle.tokens[: len(tokens)]
    if covered != tuple(tokens):
        raise BindingMismatch("output", "the receipt is for other tokens than those that came")
    if stop and receipt.stop != stop:
        raise BindingMismatch("stop", f"the answer ended with {stop!r}, and the receipt says {receipt.stop!r}")
