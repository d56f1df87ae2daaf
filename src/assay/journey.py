"""A prompt's whole life on one page: accept → match → send → generate → attest → check → keep.

`accept` (network/openai/accept.py) made the `Request` and the `Ask`; `generate` and `attest` happen at the provider
(apps/serving.py, core/receipt.py); `verify` comes later, for a share of what is kept (apps/validator.py). Here is whom
to ask, and what is remembered of providers; what happens when one breaks off, and what must hold before a receipt is
taken, is in delivery.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from assay.core.bundle import Bundle
from assay.core.chain import delivered
from assay.core.errors import (
    AssayError,
    Busy,
    Equivocation,
    InvalidRequest,
    NotFound,
    PaymentRequired,
    ProviderFailed,
    StoreError,
    VerificationError,
)
from assay.core.hashing import Digest
from assay.core.offer import Ask, Offer, Price
from assay.core.ports import Answer, Payer, Purse, Transport
from assay.core.request import Request
from assay.core.trace import Diary
from assay.delivery import NOTE, MarketAnswer, Part, Spell, check_promise
from assay.market.continuing import successors
from assay.market.failing import all_failed
from assay.market.health import Health
from assay.market.matching import choose
from assay.store.receipts import ReceiptStore

__all__ = ["MarketAnswer", "MarketAnswers", "Spell", "check_promise"]

_REFUSALS: Final = 2
"""So many providers that call a request invalid are believed."""
_RETRIES: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
"""Seconds between attempts to fetch a receipt from a provider that broke off: it signs it when it starts again."""
_MOST_MISSED: Final = 1000
"""Parts whose receipts are missing that are remembered."""
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
        log: Callable[[str, Mapping[str, object]], None] = lambda _event, _facts: None,
    ) -> None:
        """`payer`: pays providers that want it; without one they are not asked.

        `known`: digests of models by name; offers of other files under these names are passed over.

        `ceiling`: for asks that name no `max_price`. `spell`: what tokens say, where that is known here. `clock`:
        seconds that only rise. `log`: told of events and facts.
        """
        self._transport: Final = transport
        self._store: Final = store
        self._payer: Final = payer
        self._known: Final = known or {}
        self._ceiling: Final = ceiling
        self.spell: Final = spell
        self._clock: Final = clock
        self._log: Final = log
        self._looked_up = float("-inf")
        self._looking: asyncio.Task[None] | None = None
        self._open: Final[set[MarketAnswer]] = set()
        self._noting: Final[set[asyncio.Task[None]]] = set()
        self._waiting: Final[set[asyncio.Task[None]]] = set()
        self._missed: Final[dict[Digest, Part]] = {}
        """By their requests' names: what came, for when their receipts come."""
        self.health: Final = Health()

    @property
    def active(self) -> int:
        """Answers under way."""
        return len(self._open)

    async def models(self) -> Sequence[Offer]:
        """What the providers offer now, except other files under names that are known."""
        offers = await self._transport.offers()
        return [offer for offer in offers if self._known.get(offer.model, offer.model_digest) == offer.model_digest]

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
        try:
            part = await self._begin(wish, await self.models(), request, top_logprobs, diary)
        except AssayError:
            self.note(request, diary)
            raise
        answer = MarketAnswer(self, wish, part, diary, top_logprobs=top_logprobs)
        self._open.add(answer)
        answer.over.add_done_callback(lambda _: self._open.discard(answer))
        return answer

    async def go_on(
        self, ask: Ask, request: Request, begun: Sequence[Part], *, top_logprobs: int | None, diary: Diary
    ) -> Part:
        """Send what is left of an answer to somebody else than the providers of `begun`, who failed.

        Raises:
            AssayError: nobody goes on with it; as `answer` says.
        """
        offers = successors(await self.models(), [part.offer for part in begun])
        return await self._begin(ask, offers, request, top_logprobs, diary, before=begun[-1].shown)

    async def _begin(
        self,
        wish: Ask,
        offers: Sequence[Offer],
        request: Request,
        top_logprobs: int | None,
        diary: Diary,
        *,
        before: str = "",
    ) -> Part:
        """Ask one after the other of those that fit, best first, until a first token comes."""
        self._look_up_verdicts()
        match = choose(wish, offers, records=self.health.records, now=self._clock())
        diary.mark("match", f"{len(match.offers)} of {len(offers)} offers fit")
        errors: list[AssayError] = []
        for offer in match.offers:
            try:
                return await self._send(offer, request, top_logprobs, diary, before)
            except (Busy, PaymentRequired, ProviderFailed, InvalidRequest, NotFound) as error:
                errors.append(error)
                diary.mark("failed", f"{offer.provider}: {error.message[:NOTE]}")
            if sum(isinstance(error, InvalidRequest) for error in errors) >= _REFUSALS:
                break
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
        self.health.judged(((t.provider, t.level, t.outcome, t.basis, t.count) for t in tallies), contradictions)
        for provider, record in self.health.records.of_provider.items():
            if self._payer is not None and record.dishonest:
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
        part = self._missed.get(request.name)
        if part is None:  # this program was started anew meanwhile
            came: Sequence[int] = delivered(request, await asyncio.to_thread(self._store.find, request.call))
        else:
            came = part.tokens
        await asyncio.to_thread(check_promise, bundle, offer, request, came, None, channel=channel)
        await self.keep(bundle)
        self._missed.pop(request.name, None)

    def missed(self, part: Part) -> None:
        """The receipt of what a provider delivered before it broke off is not to be had now: ask again for a while, in
        the background. Where it is to be paid, its `Payer` does that."""
        self._missed[part.request.name] = part
        while len(self._missed) > _MOST_MISSED:
            del self._missed[next(iter(self._missed))]
        if part.purse is None and part.tokens:
            waiting = asyncio.create_task(self._fetch_later(part))
            self._waiting.add(waiting)
            waiting.add_done_callback(self._waiting.discard)

    async def _fetch_later(self, part: Part) -> None:
        for seconds in _RETRIES:
            await asyncio.sleep(seconds)
            try:
                bundle = await part.inner.bundle()
                await asyncio.to_thread(check_promise, bundle, part.offer, part.request, part.tokens, part.stop)
                await self.keep(bundle)
                self._missed.pop(part.request.name, None)
                self._log("receipt_late", {"provider": part.offer.provider, "receipt": bundle.receipt.digest.hex()})
            except VerificationError as error:
                self.failed(part.offer, error)
            except ProviderFailed:
                continue
            return

    def failed(self, offer: Offer, error: AssayError) -> None:
        """Remember a failure; one that is a lie weighs more."""
        self.health.failed(offer.url, self._clock(), badly=isinstance(error, VerificationError))
        self._log("provider_failed", {"provider": offer.provider, "url": offer.url, "reason": error.message})

    async def drain(self, grace: float) -> None:
        """Let answers finish for `grace` seconds, then hang up and take the receipts of what came."""
        if self._open:
            await asyncio.wait([answer.over for answer in self._open], timeout=grace)
        await asyncio.gather(*(answer.bundle() for answer in list(self._open)), return_exceptions=True)
        await asyncio.gather(*self._noting)
        for waiting in self._waiting:
            waiting.cancel()

    async def _send(self, offer: Offer, request: Request, top_logprobs: int | None, diary: Diary, before: str) -> Part:
        """Start at one provider and wait for the first token."""
        self.health.asked(offer.url)
        diary.mark("send", f"{offer.provider} at {offer.url}")
        answer: Answer | None = None
        purse: Purse | None = None
        try:
            if offer.paid:
                purse = await self._purse_for(offer, request)
            answer = await self._transport.send(offer, request, top_logprobs=top_logprobs, purse=purse)
            steps = answer.steps()
            first = await anext(steps, None)
            if first is None:
                raise ProviderFailed(f"{offer.url} ended before its first token", "ask another provider")
        except BaseException as error:
            self.health.over(offer.url)
            if isinstance(error, Busy):
                self.health.busy(offer.url, self._clock(), error)
            elif isinstance(error, ProviderFailed | NotFound) or (purse and isinstance(error, PaymentRequired)):
                self.failed(offer, error)
            if purse is not None:
                purse.over(0, refused=isinstance(error, PaymentRequired))
            if answer is not None:
                await asyncio.shield(answer.close())
            raise
        diary.mark("first_token")
        return Part(self, offer, request, answer, first, steps, diary, purse, before=before)

    async def _purse_for(self, offer: Offer, request: Request) -> Purse:
        if self._payer is None:
            raise PaymentRequired(f"{offer.provider} wants to be paid", "set [chain] and a budget, or ask a free one")
        return await self._payer.open(offer, request)

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
