"""Answers of this machine's own engines: admission, generation, and a signed, stored receipt of what was delivered."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from assay.apps.admission import check_settings, offers_of, read_prompt
from assay.apps.failures import cannot_keep
from assay.apps.logs import logger
from assay.apps.meter import Account, Meter
from assay.apps.till import Till
from assay.core.bundle import Bundle
from assay.core.completion import Completion, Prompt, Step, StopReason
from assay.core.errors import (
    AssayError,
    Busy,
    EngineError,
    InvalidRequest,
    ModelFileError,
    NotFound,
    PaymentRequired,
    ProviderFailed,
    StoreError,
)
from assay.core.hashing import ZERO, Digest
from assay.core.keys import Key
from assay.core.offer import Ask, Offer, Price
from assay.core.payment import Due, Payment
from assay.core.ports import Engine
from assay.core.receipt import attest
from assay.core.request import Level, Request
from assay.market.matching import choose
from assay.market.pricing import amount_due
from assay.store.receipts import ReceiptStore

if TYPE_CHECKING:
    from assay.apps.cheats.forgeries import Attest


_MOST_OWED: Final = 256
"""Answers that wait for a receipt while none can be kept. No new ones are begun then, so that there are few."""


@dataclass(frozen=True, slots=True)
class _Ended:
    """An answer that was delivered, and is to have a receipt."""

    engine: Engine
    request: Request
    completion: Completion
    price: Price
    meter: Meter | None
    """Of the channel that pays."""


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
    ) -> None:
        """`prices`: per level, free where missing. `url`: where others reach this provider. `clock`: Unix seconds.

        `till`: where answers that are not free are paid; without it, what is owed is only counted. `attest`
        makes the receipts (dishonest providers, a developer's option, have one of their own).
        """
        self.engines: Final = {engine.model: engine for engine in engines}
        self._key: Final = key
        self._store: Final = store
        self.parallel: Final = parallel
        self._clock: Final = clock
        self._attest: Final = attest
        self._till: Final = till
        self._running: dict[LocalAnswer, Digest] = {}
        self._empty: Final = asyncio.Event()
        self._empty.set()
        self._places = 0
        self._draining = False
        self._store_failed = False
        self._owed: list[_Ended] = []
        self._paying: Final = threading.Lock()
        self._offers: Final = [
            offer
            for engine in engines
            for offer in offers_of(engine, key.address, url, prices or {}, till.requirements if till else None)
        ]

    @property
    def active(self) -> int:
        """Answers being generated."""
        return self._places

    async def models(self) -> Sequence[Offer]:
        """One offer per model and level."""
        return self._offers

    async def answer(
        self,
        request: Request,
        ask: Ask,
        *,
        top_logprobs: int | None = None,
        payment: Payment | Account | None = None,
        due: Callable[[Due], None] = lambda _due: None,
    ) -> LocalAnswer:
        """Start generating. `due` is told when the consumer is to pay before it goes on.

        Raises:
            PaymentRequired: the answer is not free, and `payment` does not do.
            Busy: every place is taken, or receipts cannot be kept now.
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
        if self._places >= self.parallel:
            raise Busy(f"all {self.parallel} places are taken")
        self._places += 1
        try:
            await self._check_store()
            till = self._till if offer.paid else None
            account = await till.admit(payment, request.digest) if till else None
            prompt = await asyncio.to_thread(read_prompt, engine, request)
            meter = await till.start(account, offer.price, len(prompt.tokens), due) if till and account else None
        except BaseException as error:
            self._places -= 1
            if isinstance(error, EngineError | ModelFileError):  # no fault of the request's
                raise ProviderFailed(error.message, error.remedy) from error
            raise
        answer = LocalAnswer(self, engine, request, prompt, offer.price, top_logprobs, meter)
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

    def issue(
        self, engine: Engine, request: Request, completion: Completion, price: Price, meter: Meter | None = None
    ) -> Bundle:
        """Sign and store (blocks on the disk).

        Raises:
            Busy: the receipt cannot be kept now. It is owed: signed as soon as one can be kept, and then found by name.
        """
        ended = _Ended(engine, request, completion, price, meter)
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
        engine, request, completion, meter = ended.engine, ended.request, ended.completion, ended.meter
        price = amount_due(ended.price, len(completion.prompt.tokens), len(completion.tokens))

        def make(sequence: int, amount: int) -> Bundle:
            receipt = self._attest(
                request,
                completion,
                model=engine.model_digest,
                profile=engine.profile,
                key=self._key,
                sequence=sequence,
                issued=int(self._clock()),
                amount=amount,
                channel=ZERO if meter is None else meter.channel,
            )
            opening = b"".join(completion.leaves) if request.level == "statistical" else b""
            return Bundle(receipt, request, engine.profile, completion.tokens, opening)

        if meter is None:
            return self._store.issue(self._key.address, lambda sequence: make(sequence, price))
        bundle = self._store.charge(self._key.address, meter.channel, price, make)
        meter.signed(bundle.receipt.amount)
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


class LocalAnswer:
    """Implements `Answer`: one answer under way on this machine."""

    def __init__(
        self,
        owner: LocalAnswers,
        engine: Engine,
        request: Request,
        prompt: Prompt,
        price: Price,
        top_logprobs: int | None,
        meter: Meter | None = None,
    ) -> None:
        self.request: Final = request
        self._owner: Final = owner
        self._engine: Final = engine
        self._prompt: Final = prompt
        self._price: Final = price
        self._meter: Final = meter
        self._delivered: list[Step] = []
        self._stop: StopReason | None = None
        self._closed = False
        self._holds_place = True
        self._queue: asyncio.Queue[Step | AssayError | None] = asyncio.Queue()
        self._signing: asyncio.Task[Bundle] | None = None
        self._pump: Final = asyncio.create_task(self._generate(top_logprobs))
        # Not only in the task itself: one that is cancelled before its first turn never runs.
        self._pump.add_done_callback(lambda _: self._free_place())

    async def steps(self) -> AsyncIterator[Step]:
        """The tokens as they come. A token handed over here counts as delivered.

        Raises:
            ProviderFailed: the engine broke.
            PaymentRequired: the consumer does not pay for the next one; the answer ends there.
        """
        while not self._closed and self._stop is None:
            item = await self._queue.get()
            if self._closed:
                return
            if isinstance(item, Step):
                if self._meter is not None and not self._meter.covers(len(self._delivered) + 1):
                    await self._until_paid(self._meter)
                if self._closed:
                    return
                self._delivered.append(item)
                if item.stop:
                    self._stop = item.stop
                    self._sign()
                yield item
                continue
            self._stop = "failed"
            self._sign()
            raise item or ProviderFailed("the engine ended without a reason")

    async def _until_paid(self, meter: Meter) -> None:
        try:
            await meter.wait(len(self._delivered) + 1)
        except PaymentRequired:
            await self.close()
            raise

    async def bundle(self) -> Bundle:
        """The receipt of what was delivered; hangs up first if the answer is still under way.

        Raises:
            Busy: the receipt cannot be kept now; it is signed later, and found by name.
        """
        await self.close()
        return await asyncio.shield(self._sign())

    async def settled(self) -> None:
        """If the answer has ended, wait until its receipt is kept, or could not be."""
        if self._signing is not None:
            await asyncio.wait([self._signing])

    async def close(self) -> None:
        """Hang up: the engine stops within one token, and what was delivered is signed."""
        if self._stop is None:
            self._stop = "cancelled"
            self._closed = True
            self._pump.cancel()
            self._queue.put_nowait(None)
            self._sign()

    def _sign(self) -> asyncio.Task[Bundle]:
        """Sign once, whoever asks first, and whatever becomes of who asked."""
        if self._signing is None:
            level = self.request.level
            completion = Completion(
                prompt=self._prompt,
                tokens=tuple(step.token for step in self._delivered),
                text="".join(step.text for step in self._delivered),
                stop=self._stop or "cancelled",
                leaves=() if level == "signed" else tuple(step.leaf for step in self._delivered),
            )
            if self._meter is not None:
                self._meter.ended(len(completion.tokens))
            self._signing = asyncio.create_task(
                asyncio.to_thread(self._owner.issue, self._engine, self.request, completion, self._price, self._meter)
            )
            self._signing.add_done_callback(self._signed)
        return self._signing

    def _signed(self, task: asyncio.Task[Bundle]) -> None:
        self._owner.forget(self)
        if not task.cancelled():
            task.exception()  # seen: who asks for the bundle gets it

    async def _generate(self, top_logprobs: int | None) -> None:
        end: AssayError | None = None
        try:
            stream = self._engine.generate(self.request, self._prompt, top_logprobs=top_logprobs)
            async with aclosing(stream):  # pyrefly: ignore[bad-specialization] - engines give async generators
                async for step in stream:
                    if step.stop:
                        self._free_place()  # before anybody hears of the end and asks again
                    self._queue.put_nowait(step)
        except (InvalidRequest, Busy) as error:
            end = error
        except AssayError as error:
            end = ProviderFailed(error.message, error.remedy)
        except Exception as error:  # noqa: BLE001 - whatever an engine throws, the consumer gets an error and a receipt
            end = ProviderFailed(f"the engine failed ({type(error).__name__}: {error})")
        self._free_place()
        self._queue.put_nowait(end)

    def _free_place(self) -> None:
        if self._holds_place:
            self._holds_place = False
            self._owner.free_place()
