"""A prompt's whole life on one page: accept → match → send → generate → attest → check → keep.

`accept` (network/openai/accept.py) made the `Request` and the `Ask`; `generate` and `attest` happen at the provider
(apps/serving.py, core/receipt.py); `verify` comes later, for a share of what is kept (apps/validator.py). Here is whom
to ask, and what is remembered of providers; what happens when one breaks off, and what must hold before a receipt is
taken, is in delivery.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

import numpy as np

from assay.choosing import Choosing, open_purse
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
from assay.core.keys import Address
from assay.core.offer import Ask, Defaults, Offer
from assay.core.ports import Answer, Payer, Purse, Transport
from assay.core.request import Level, Request
from assay.core.spelling import Spell, check_text
from assay.core.trace import Diary
from assay.delivery import NOTE, MarketAnswer, Part, check_promise
from assay.market.failing import all_failed
from assay.market.reputation import Report, trust
from assay.market.work import Work, work_of
from assay.racing import Race
from assay.store.receipts import ReceiptStore

__all__ = ["MarketAnswer", "MarketAnswers", "check_promise"]

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
        defaults: Defaults | None = None,
        spell: Spell = lambda _model, _tokens, _stops: None,
        clock: Callable[[], float] = time.monotonic,
        dice: np.random.Generator | None = None,
        log: Callable[[str, Mapping[str, object]], None] = lambda _event, _facts: None,
    ) -> None:
        """`payer`: pays providers that want it; without one they are not asked.

        `known`: digests of models by name; offers of other files under these names are passed over.

        `defaults`: what is wished where asks do not say. `spell`: what tokens say, where that is known here. `clock`:
        seconds that only rise. `dice`: decide whom to ask. `log`: told of events and facts.
        """
        self._transport: Final = transport
        self._store: Final = store
        self._payer: Final = payer
        self.defaults: Final = defaults or Defaults()
        """What is wished where asks do not say."""
        self.spell: Final = spell
        self._clock: Final = clock
        self._log: Final = log
        self._looked_up = float("-inf")
        self._looking: asyncio.Task[None] | None = None
        self._losers: frozenset[Address] = frozenset()
        self._stakes: Mapping[Address, int] = {}
        self._reports: Sequence[Report] = ()
        self._trusted: tuple[object, ...] = ()
        self._open: Final[set[MarketAnswer]] = set()
        self._noting: Final[set[asyncio.Task[None]]] = set()
        self._waiting: Final[set[asyncio.Task[None]]] = set()
        self._hanging_up: Final[set[asyncio.Task[Part] | asyncio.Task[Bundle]]] = set()
        self._missed: Final[dict[Digest, Part]] = {}
        """By their requests' names: what came, for when their receipts come."""
        self.choosing: Final = Choosing(transport, known or {}, clock, dice)
        self.router: Final = self.choosing.router

    @property
    def active(self) -> int:
        """Answers under way."""
        return len(self._open)

    async def models(self) -> Sequence[Offer]:
        """What the providers offer now, except other files under names that are known."""
        return await self.choosing.models()

    async def strongest(self, ask: Ask) -> Level:
        """The strongest level at which somebody fits the other wishes, those of the gateway included.

        Raises:
            ModelNotFound: nobody offers the model.
        """
        return await self.choosing.strongest(self.defaults.fill(ask))

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
        wish = replace(self.defaults.fill(ask), model=request.model, level=request.level)
        try:
            part = await self._begin(wish, request, top_logprobs, diary)
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
        gone = [name for part in begun for name in (part.offer.provider, part.offer.url)]
        wish = replace(ask, ignore=(*ask.ignore, *gone), after=begun[0].offer)
        return await self._begin(wish, request, top_logprobs, diary, before=begun[-1].shown)

    async def _begin(
        self, wish: Ask, request: Request, top_logprobs: int | None, diary: Diary, *, before: str = ""
    ) -> Part:
        """Ask those that fit, best first, until a first token comes."""
        self._look_up_verdicts()
        work = work_of(request)
        errors: list[AssayError] = []

        def failed(offer: Offer, error: AssayError) -> bool:
            errors.append(error)
            diary.mark(
                "failed",
                f"{offer.provider}: {error.message.replace(offer.url, offer.provider)[:NOTE]}",
                provider=offer.provider,
            )
            return sum(isinstance(each, InvalidRequest) for each in errors) < _REFUSALS

        def send(offer: Offer) -> Coroutine[None, None, Part]:
            beside = [asked.offer.provider for asked in race.waiting.values()]
            diary.mark("send", offer.provider, provider=offer.provider, beside=beside)
            return self._send(offer, request, work, top_logprobs, diary, before)

        race = Race[Part](send, failed, self._clock)
        try:
            found = await race.first(self.choosing.turns(wish, work, diary, race.waiting))
            for lost in race.waiting.values() if found else ():
                name = lost.offer.provider
                diary.mark("failed", f"{name}: its first token is late", provider=name, late=True)
                self.router.late(lost.offer, work, self._clock() - lost.since, self._clock())
        finally:
            for asked in race.waiting.values():
                self._hanging_up.add(asked.task)
                asked.task.add_done_callback(self._hung_up)
        if found is None:
            raise all_failed(errors)
        return found

    def note(self, request: Request, diary: Diary) -> None:
        """Store what happened to a request, in the background; that it cannot be stored costs nobody anything."""

        async def keep() -> None:
            with suppress(StoreError):
                await asyncio.to_thread(self._store.note, request, diary.trace)

        noting = asyncio.create_task(keep())
        self._noting.add(noting)
        noting.add_done_callback(self._noting.discard)

    async def told(self, stakes: Mapping[Address, int], losers: frozenset[Address]) -> None:
        """What a chain says: wei that providers have to lose, and who lost a dispute, which is proof."""
        if stakes != self._stakes:
            self._stakes = stakes
            self.router.health.staked(stakes)
        if losers != self._losers:
            self._losers = losers
            await self._refresh_verdicts()

    async def look_up_verdicts(self) -> None:
        """Let what checks found up to now decide the next choice."""
        tallies = await asyncio.to_thread(self._store.tallies)
        contradictions = await asyncio.to_thread(self._store.contradictions)
        verdicts = ((t.provider, t.level, t.outcome, t.basis, t.count) for t in tallies)
        self.router.health.judged(verdicts, [*contradictions, *self._losers])
        await self._weigh_reports()
        for provider in self.router.health.dishonest:
            if self._payer is not None:
                self._payer.leave(provider, "caught cheating")

    def heard(self, reports: Sequence[Report]) -> None:
        """What others report of providers; it counts at the next look at verdicts."""
        self._reports = reports

    async def _weigh_reports(self) -> None:
        """Compute trust anew, if what it follows from has changed."""
        reporters = {report.reporter for report in self._reports}
        stakes = {name: self._stakes[name] for name in reporters if name in self._stakes}
        records = self.router.health.of_provider.items()
        passed = {name: record.passed for name, record in records if record.passed}
        found = self._reports, stakes, passed
        if found != self._trusted:
            self._trusted, trusted = found, await asyncio.to_thread(trust, *found)
            self.router.health.trust = {name: float(value) for name, value in trusted.items() if value}

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

    def good(self, offer: Offer) -> None:
        """Remember an answer that came whole, with its receipt."""
        self.choosing.good(offer)

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
        while self._hanging_up:
            await asyncio.gather(*self._hanging_up, return_exceptions=True)
        for waiting in self._waiting:
            waiting.cancel()
        await self.choosing.close()

    async def _send(
        self, offer: Offer, request: Request, work: Work, top: int | None, diary: Diary, before: str
    ) -> Part:
        """Start at one provider and wait for the first token, whose text has to be what it says: later a lie would have
        been shown."""
        self.router.asked(offer)
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
            shown = before + first.text
            await asyncio.to_thread(check_text, self.spell, offer, request, [first.token], shown, first.stop)
        except BaseException as error:
            self.router.over(offer, begun=False)
            if isinstance(error, Busy):
                self.router.busy(offer, self._clock(), error)
            elif isinstance(error, ProviderFailed | NotFound | VerificationError) or (
                purse and isinstance(error, PaymentRequired)
            ):
                self.failed(offer, error)
            if answer is not None and purse is not None and isinstance(error, asyncio.CancelledError):
                await self._leave(offer, request, answer, purse)
                raise
            if purse is not None:
                # Where we hung up, it may have begun already, and signed for that.
                purse.over(int(isinstance(error, asyncio.CancelledError)), refused=isinstance(error, PaymentRequired))
            if answer is not None:
                await asyncio.shield(answer.close())
            raise
        diary.mark("first_token", provider=offer.provider)
        self.router.first(offer, work, self._clock() - sent, self._clock())
        return Part(self, offer, request, answer, first, steps, diary, purse, before=before)

    async def _leave(self, offer: Offer, request: Request, answer: Answer, purse: Purse) -> None:
        """Hang up before the first token has come. Nothing is owed, unless it was on its way: then the receipt is
        taken, or what the provider says is owed later would look like a lie."""
        count = 1  # where there is no receipt now, it may have been on its way as well
        try:
            bundle = await answer.bundle()
            count = len(bundle.tokens)
            if count:
                await asyncio.to_thread(check_promise, bundle, offer, request, (), None, channel=purse.channel)
                purse.settle(bundle)
                await self.keep(bundle)
        except ProviderFailed:
            pass
        except VerificationError as error:
            purse.refuse(error.message)
            self.failed(offer, error)
        finally:
            purse.over(count)

    def _hung_up(self, task: asyncio.Task[Part]) -> None:
        """Where its first token came in the same moment as another one's, or as the consumer left, it has delivered
        that, and is owed for it."""
        self._hanging_up.discard(task)
        if not task.cancelled() and task.exception() is None:
            taking = task.result().leave()
            self._hanging_up.add(taking)
            taking.add_done_callback(self._hanging_up.discard)

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
