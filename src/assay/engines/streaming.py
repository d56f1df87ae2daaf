"""From a scheduler's threads to an asynchronous stream of steps: the part that every engine of ours shares."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress

from assay.core.completion import Step
from assay.core.errors import AssayError
from assay.engines.answering import AnswerPath, Row
from assay.engines.scheduler import Job, Scheduler


async def stream(
    scheduler: Scheduler[Row], begin: Callable[[], AnswerPath[Row]], prompt: Sequence[int]
) -> AsyncGenerator[Step]:
    """Submit an answer and give its steps; closing the iterator stops generation within one token.

    `begin` makes the answer's path, in another thread: a grammar may take a while.

    Raises:
        Busy: every place of the scheduler is taken.
        AssayError: what broke the answer.
    """
    loop = asyncio.get_running_loop()
    steps: asyncio.Queue[Step | AssayError] = asyncio.Queue()

    def emit(item: Step | AssayError) -> None:
        with suppress(RuntimeError):  # the loop is closed: the program ends, and nobody waits any more
            loop.call_soon_threadsafe(steps.put_nowait, item)

    job = Job(await asyncio.to_thread(begin), tuple(prompt), emit)
    scheduler.submit(job)
    try:
        while True:
            item = await steps.get()
            if isinstance(item, AssayError):
                raise item
            yield item
            if item.stop:
                return
    finally:
        job.cancelled = True
