"""Answers of this machine's own engines: admission, generation, and a signed, stored receipt of what was delivered."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from assay.apps.admission import (
    check_places,
    check_price,
    check_room,
    check_settings,
    minute_of_day,
    offers_of,
    read_prompt,
)
from assay.apps.failures import cannot_keep
from assay.apps.local import LocalAnswer
from assay.apps.logs import logger
from assay.apps.meter import Account, Meter
from assay.apps.till import Till
from assay.core.bundle import Bundle
from assay.core.completion import Completion, Prompt
from assay.core.errors import (
    BindingMismatch,
    Busy,
    EngineError,
    ModelFileError,
    NotFound,
    ProviderFailed,
    StoreError,
)
from assay.core.hashing import ZERO, Digest
from assay.core.keys import Key
from assay.core.offer import Ask, Load, Offer, Price
from assay.core.payment import Due, Payment
from assay.core.ports import Engine
from assay.core.profile import Profile
from assay.core.receipt import attest
from assay.core.request import Level, Request
from assay.engines.text import spelled
from assay.market.matching import choose
from assay.market.pricing import FREE, amount_due
from assay.market.sale import Sale
from assay.store.parts import Begun, LeftOver, PartStore
from assay.store.receipts import ReceiptStore

if TYPE_CHECKING:
    from assay.apps.cheats.forgeries import Attest


_MOST_OWED: Final = 256
"""Answers that wait for a receipt while none can be kept. No new ones are begun then, so that there are few."""


def _nothing() -> None:
    return


@dataclass(frozen=True, slots=True)
class _Ended:
    """An answer that was delivered, and is to have a receipt."""

    model: Digest
    profile: Profile
    request: Request
    completion: Completion
    price: Price
    channel: Digest
    """Which pays, or 32 zero bytes."""
    meter: Meter | None
    """Of the channel, if the answer was under way just now."""
    over: Callable[[], None]
    """The receipt is on the disk."""


class LocalAnswers:
    """Implements `Answers` over engines of this machine. With `parallel` answers under way the next one is refused."""

    def __init__(
        self,
        engines: Sequence[Engine],
        key: Key,
        store: ReceiptStore,
        *,
        prices: Mapping[Level, Price] | None = None,
        parallel: int = 4,
        url: str = "",
        clock: Callable[[], float] = time.time,
        till: Till | None = None,
        attest: Attest = attest,
        parts: PartStore | None = None,
    ) -> None:
        """`prices`: per level, free where missing. `url`: where others reach this provider. `clock`: Unix seconds.

        `till`: where answers that are not free are paid; without it, what is owed is only counted. `attest`
        makes the receipts (dishonest providers, a developer's option, have one of their own). `parts`: where tokens
        are noted before they are handed over; without it, those of answers under way are lost with the process.
        """
        self.engines: Final = {engine.model: engine for engine in engines}
        self._key: Final = key
        self._store: Final = store
        self.parallel: Final = parallel
        self._sale = Sale(prices or {}, parallel)
        self._clock: Final = clock
        self._attest: Final = attest
        self._till: Final = till
        self._parts: Final = parts
        self._running: dict[LocalAnswer, Digest] = {}
        self._empty: Final = asyncio.Event()
        self._empty.set()
        self._places = 0
        self._draining = False
        self._store_failed = False
        self._owed: list[_Ended] = []
        self._paying: Final = threading.Lock()
        self._offers: Sequence[Offer] = [
            offer
            for engine in engines
            for offer in offers_of(engine, key.address, url, self._sale.prices, till.requirements if till else None)
        ]

    @property
    def active(self) -> int:
        """Answers being generated."""
        return self._places

    @property
    def load(self) -> Load:
        """Answers being generated, and how many may be."""
        return Load(self._places, self._open)

    @property
    def sale(self) -> Sale:
        """What is sold now."""
        return self._sale

    def sell(self, sale: Sale) -> None:
        """Go by other prices, places and hours from now on; answers under way go on as they began.

        Raises:
            InvalidRequest: there are not so many places.
        """
        check_places(sale, self.parallel)
        self._sale = sale
        offers = [replace(offer, price=sale.prices.get(offer.level, FREE)) for offer in self._offers]
        self._offers = offers if self._till is None else self._till.terms_of(offers)

    @property
    def _open(self) -> int:
        """Places for answers, at this time of day."""
        return self._sale.places_at(minute_of_day(self._clock()))

    def spell(self, model: Digest, tokens: Sequence[int], stops: Sequence[str]) -> tuple[str, str] | None:
        """See `Spell`; known are the models that are served here.

        Raises:
            BindingMismatch: a token that the model does not have.
            InvalidRequest: stop texts that no request has.
        """
        readers = (engine.reader for engine in self.engines.values() if engine.model_digest == model)
        reader = next(readers, None)
        if reader is None:
            return None
        if any(token >= reader.tokenizer.n_vocab for token in tokens):
            raise BindingMismatch("tokens", f"the model knows {reader.tokenizer.n_vocab} tokens")
        return spelled(reader.tokenizer.piece, tokens, stops)

    async def models(self) -> Sequence[Offer]:
        """One offer per model and level."""
        return self._offers

    async def answer(
        self,
        request: Request,
        ask: Ask,
        *,
        top_logprobs: int | None = None,
        price: Price | None = None,
        payment: Payment | Account | None = None,
        due: Callable[[Due], None] = lambda _due: None,
    ) -> LocalAnswer:
        """Start generating. `price`: that the consumer reckons with; None: whatever it is. `due` is told when the
        consumer is to pay before it goes on.

        Raises:
            PaymentRequired: the answer is not free, and `payment` does not do.
            Busy: every place is taken, receipts cannot be kept now, or the price is another one.
            ModelNotFound, NoProvider: not served here, or not at this level or price.
            InvalidRequest: the model cannot take the request.
            ProviderFailed: engine or model file do not work.
        """
        offer = choose(
            replace(ask, model=request.model, level=request.level, allow_fallbacks=False), self._offers
        ).offers[0]
        engine = self.engines[offer.model]
        check_settings(request)
        if self._draining:
            raise Busy("this provider is shutting down", retry_after=10)
        check_price(price, offer)
        check_room(self._places, self._open)
        self._places += 1
        try:
            await self._check_store()
            till = self._till if offer.paid else None
            account = await till.admit(payment, request.digest) if till else None
            prompt, head = await asyncio.to_thread(self._read, engine, request, offer, account)
            meter = await till.start(account, offer.price, len(prompt.tokens), due) if till and account else None
        except BaseException as error:
            self._places -= 1
            if isinstance(error, EngineError | ModelFileError):  # no fault of the request's
                raise ProviderFailed(error.message, error.remedy) from error
            raise
        begin = partial(self._parts.begin, head, request.level) if self._parts else None
        answer = LocalAnswer(self, engine, request, prompt, offer.price, top_logprobs, meter, begin)
        self._running[answer] = request.name
        self._empty.clear()
        return answer

    async def stop(self, name: Digest) -> None:
        """Hang up the answer under way to the request with this name.

        Raises:
            NotFound: there is none, or several, so that it is not known whose it is.
        """
        found = [answer for answer, running in self._running.items() if running == name]
        if len(found) != 1:
            raise NotFound(f"{len(found)} answers to this request are under way", "close the connection instead")
        await found[0].close()

    async def settled(self, name: Digest) -> None:
        """Wait until the answers to the request (or call) with this name that have ended have their receipts, if these
        can be kept now."""
        for answer in [answer for answer, running in self._running.items() if running == name]:
            await answer.settled()
        if any(name in (ended.request.name, ended.request.call) for ended in list(self._owed)):
            with suppress(Busy):
                await self._check_store()

    async def drain(self, grace: float) -> None:
        """Take no more requests, let answers finish for `grace` seconds, then hang up and sign what was delivered."""
        self._draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._empty.wait()
        for answer in list(self._running):
            await answer.close()
        await self._empty.wait()
        with suppress(Busy):  # the last moment to sign what is owed
            await self._check_store()

    def recover(self) -> None:
        """Sign what was delivered of answers whose process died before their receipts were kept, each once (blocks on
        the disk). What cannot be signed now is tried again at the next start."""
        log = logger("provider")
        for left in self._parts.left_over() if self._parts else ():
            begun = left.begun
            facts = {"model": begun.request.model, "tokens": len(left.completion.tokens)}
            if begun.provider != self._key.address:
                log.warning("left_over_of_another_key", provider=begun.provider, **facts)
                continue
            try:
                if not self._has_receipt(left):
                    self._issue(
                        _Ended(
                            begun.model,
                            begun.profile,
                            begun.request,
                            left.completion,
                            begun.price,
                            begun.channel,
                            None,
                            _nothing,
                        )
                    )
                    log.info("left_over_signed", **facts)
                left.path.unlink()
            except (StoreError, OSError) as error:
                log.error("left_over_not_signed", reason=str(error), **facts)

    def _has_receipt(self, left: LeftOver) -> bool:
        """The process died between keeping the receipt, which may be for the last token too, and forgetting that it was
        owed. Of two answers to one request that began in the same second and say the same, one may stay unsigned, and
        none is signed twice."""
        return any(
            bundle.request == left.begun.request
            and bundle.tokens[: len(left.completion.tokens)] == left.completion.tokens
            and bundle.receipt.issued >= left.begun.began
            for bundle in self._store.find(left.begun.request.name)
        )

    def _read(self, engine: Engine, request: Request, offer: Offer, account: Account | None) -> tuple[Prompt, bytes]:
        """The prompt, and what is noted of the answer with its first token."""
        prompt = read_prompt(engine, request)
        if self._parts is None:
            return prompt, b""
        channel, now = ZERO if account is None else account.channel, int(self._clock())
        begun = Begun(
            request, engine.model_digest, engine.profile, prompt, offer.price, channel, self._key.address, now
        )
        return prompt, begun.encode()

    def issue(
        self,
        engine: Engine,
        request: Request,
        completion: Completion,
        price: Price,
        meter: Meter | None = None,
        over: Callable[[], None] = _nothing,
    ) -> Bundle:
        """Sign and store (blocks on the disk). `over` is told when the receipt is on the disk.

        Raises:
            Busy: the receipt cannot be kept now. It is owed: signed as soon as one can be kept, and then found by name.
        """
        channel = ZERO if meter is None else meter.channel
        ended = _Ended(engine.model_digest, engine.profile, request, completion, price, channel, meter, over)
        try:
            return self._issue(ended)
        except StoreError as error:
            self._store_failed = True
            if len(self._owed) < _MOST_OWED:
                self._owed.append(ended)
            else:
                logger("provider").error("receipt_lost", model=request.model, tokens=len(completion.tokens))
            raise cannot_keep(error) from error

    def _issue(self, ended: _Ended) -> Bundle:
        request, completion = ended.request, ended.completion
        price = amount_due(ended.price, len(completion.prompt.tokens), len(completion.tokens))

        def make(sequence: int, amount: int) -> Bundle:
            receipt = self._attest(
                request,
                completion,
                model=ended.model,
                profile=ended.profile,
                key=self._key,
                sequence=sequence,
                issued=int(self._clock()),
                amount=amount,
                channel=ended.channel,
            )
            opening = b"".join(completion.leaves) if request.level == "statistical" else b""
            return Bundle(receipt, request, ended.profile, completion.tokens, opening)

        if ended.channel == ZERO:
            bundle = self._store.issue(self._key.address, lambda sequence: make(sequence, price))
        else:
            bundle = self._store.charge(self._key.address, ended.channel, price, make)
        if ended.meter is not None:
            ended.meter.signed(bundle.receipt.amount)
        ended.over()
        return bundle

    def _pay(self) -> None:
        """Sign what is owed, once each: whatever becomes of who asked for it, this goes on to its end in a thread.

        Raises:
            StoreError: receipts still cannot be kept.
        """
        with self._paying:
            self._store.check()
            while self._owed:
                self._issue(self._owed[0])
                del self._owed[0]

    def free_place(self) -> None:
        """An answer's engine has stopped."""
        self._places -= 1

    def forget(self, answer: LocalAnswer) -> None:
        """An answer is over and signed."""
        self._running.pop(answer, None)
        if not self._running:
            self._empty.set()

    async def _check_store(self) -> None:
        """After a failure to keep a receipt, generate nothing until one can be kept; then first sign what is owed.

        Raises:
            Busy: none can be kept now.
        """
        if not self._store_failed:
            return
        try:
            await asyncio.to_thread(self._pay)
        except StoreError as error:
            raise cannot_keep(error) from error
        self._store_failed = bool(self._owed)
