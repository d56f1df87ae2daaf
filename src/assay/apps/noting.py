"""When the answers of this machine reached each stage: for a node's window, as a market keeps it at a gateway."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Final

from assay.core.bundle import Bundle
from assay.core.completion import Step
from assay.core.errors import StoreError
from assay.core.offer import Ask, Offer
from assay.core.ports import Answer, Answers
from assay.core.request import Request
from assay.core.trace import Diary
from assay.store.receipts import ReceiptStore


class Noted:
    """Implements `Answers` by passing everything through; the trace of each answer with a receipt is kept beside it."""

    def __init__(self, inner: Answers, store: ReceiptStore, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds that only rise."""
        self._inner: Final = inner
        self._store: Final = store
        self._clock: Final = clock

    async def models(self) -> Sequence[Offer]:
        """As the inner one."""
        return await self._inner.models()

    async def answer(self, request: Request, ask: Ask, *, top_logprobs: int | None = None) -> Answer:
        """As the inner one."""
        diary = Diary(self._clock)
        answer = await self._inner.answer(request, ask, top_logprobs=top_logprobs)
        diary.mark("send", "to an engine of this machine")
        return _NotedAnswer(answer, request, diary, self._store)


class _NotedAnswer:
    def __init__(self, inner: Answer, request: Request, diary: Diary, store: ReceiptStore) -> None:
        self._inner: Final = inner
        self._request: Final = request
        self._diary: Final = diary
        self._store: Final = store
        self._count = 0
        self._noted = False

    @property
    def earlier(self) -> Sequence[Bundle]:
        return self._inner.earlier

    async def steps(self) -> AsyncIterator[Step]:
        async for step in self._inner.steps():
            if not self._count:
                self._diary.mark("first_token")
            self._count += 1
            if step.stop:
                self._diary.mark("last_token", f"{self._count} tokens, {step.stop}")
            yield step

    async def bundle(self) -> Bundle:
        bundle = await self._inner.bundle()
        if not self._noted:
            self._noted = True
            self._diary.mark("attest", bundle.receipt.digest.hex())
            with suppress(StoreError):  # that it cannot be stored costs nobody anything
                await asyncio.to_thread(self._store.note, self._request, self._diary.trace)
        return bundle

    async def close(self) -> None:
        await self._inner.close()
