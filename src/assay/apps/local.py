"""One answer of this machine's own engines, from its first token to its receipt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from assay.apps.logs import logger
from assay.apps.meter import Meter
from assay.core.bundle import Bundle
from assay.core.completion import Completion, Prompt, Step, StopReason
from assay.core.errors import AssayError, Busy, InvalidRequest, PaymentRequired, ProviderFailed
from assay.core.offer import Price
from assay.core.ports import Engine
from assay.core.request import Request
from assay.store.parts import OpenPart

if TYPE_CHECKING:
    from assay.apps.serving import LocalAnswers


class LocalAnswer:
    """Implements `Answer`: one answer under way on this machine."""

    earlier: Sequence[Bundle] = ()

    def __init__(
        self,
        owner: LocalAnswers,
        engine: Engine,
        request: Request,
        prompt: Prompt,
        price: Price,
        top_logprobs: int | None,
        meter: Meter | None = None,
        begin: Callable[[], OpenPart] | None = None,
    ) -> None:
        """`begin`: makes the file in which tokens are noted."""
        self.request: Final = request
        self._owner: Final = owner
        self._engine: Final = engine
        self._prompt: Final = prompt
        self._price: Final = price
        self._meter: Final = meter
        self._delivered: list[Step] = []
        self._begin = begin
        self._part: OpenPart | None = None
        self._stop: StopReason | None = None
        self._closed = False
        self._holds_place = True
        self._queue: asyncio.Queue[Step | AssayError | None] = asyncio.Queue()
        self._signing: asyncio.Task[Bundle] | None = None
        self._pump: Final = asyncio.create_task(self._generate(top_logprobs))
        # Not only in the task itself: one that is cancelled before its first turn never runs.
        self._pump.add_done_callback(lambda _: self._free_place())

    async def steps(self) -> AsyncIterator[Step]:
        """The tokens as they come. A token handed over here counts as delivered. Before the last one is, the receipt is
        signed and kept: nobody has a whole answer without one, whenever the process dies.

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
                if item.stop is None:
                    self._note(item)
                self._delivered.append(item)
                if item.stop:
                    self._stop = item.stop
                    await asyncio.wait([self._sign()])
                yield item
                continue
            self._stop = "failed"
            self._sign()
            raise item or ProviderFailed("the engine ended without a reason")

    def _note(self, step: Step) -> None:
        """On the disk before it is handed over. Where that cannot be, the answer goes on: what is delivered from here
        on is lost if the process dies."""
        if self._begin is None:
            return
        try:
            if self._part is None:
                self._part = self._begin()
            self._part.add(step)
        except OSError as error:
            self._begin = None
            logger("provider").warning("tokens_not_noted", reason=str(error))

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
                asyncio.to_thread(
                    self._owner.issue, self._engine, self.request, completion, self._price, self._meter, self._over
                )
            )
            self._signing.add_done_callback(self._signed)
        return self._signing

    def _over(self) -> None:
        if self._part is not None:
            self._part.end()

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
