"""One HTTP reply made of the `n` answers of a call, streamed or in one piece.

Each choice is pumped by a task of its own, and chunks go to the socket one at a time: an answer is never read faster
than its consumer takes it. A consumer that hangs up, a choice that fails and a server that stops all end the same
way: every answer is closed, then its receipt is awaited, so that what was delivered is covered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from assay.apps.failures import INTERNAL, error_response
from assay.core.bundle import Bundle
from assay.core.completion import WHOLE
from assay.core.errors import AssayError, Busy, ProviderFailed
from assay.core.ports import Answer, Answers
from assay.core.sse import DONE, KEEP_ALIVE
from assay.network.openai.shape import Choice, Chunks, Shape, ToolReader, encode, error_object, event, proof
from assay.network.waiting import WaitLimit

_STREAM_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
_RETRY_S: Final = 0.25
"""How often a choice that found no place asks again while others of its call run."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, in seconds."""

    keep_alive: float = 10.0
    """Silence after which a stream gets a comment (and its head, if it has none yet)."""
    write: float = 60.0
    """For a consumer to take what was sent; then it counts as gone."""
    receipt: float = 30.0
    """For receipts after the last token."""
    hang_up: float = 10.0
    """For answers to end and be signed after the consumer has gone."""


class Reply:
    """An ASGI application for one call: starts the answers and sends what they give."""

    def __init__(
        self, answers: Answers, shape: Shape, *, read_tools: ToolReader | None = None, patience: Patience | None = None
    ) -> None:
        self._answers: Final = answers
        self._shape: Final = shape
        self._delivery: Final = shape.accepted.delivery
        self._patience: Final = patience or Patience()
        self._choices: Final = [Choice(request, read_tools) for request in shape.accepted.requests]
        self._open: dict[int, Answer] = {}
        self._running = len(self._choices)
        """Choices that have not ended."""
        self._active = 0
        """Choices under way."""
        self._final: Chunks | None = None
        self._gone: Final = asyncio.Event()
        self._lock: Final = asyncio.Lock()
        self._started = False
        self._ended = False
        self._last_write = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the call."""
        self._scope, self._receive, self._send = scope, receive, send
        self._stall = WaitLimit(self._patience.write)
        self._gone_task: asyncio.Task[object] = asyncio.create_task(self._gone.wait())
        work = asyncio.create_task(self._work())
        helpers = [self._gone_task, asyncio.create_task(self._watch())]
        if self._delivery.stream:
            helpers.append(asyncio.create_task(self._beat()))
        try:
            await asyncio.wait({work, self._gone_task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not work.done():
                self._gone.set()
                await self._close_answers()
                await _within(self._patience.hang_up, [work])
            await _within(0, [work, *helpers])
        if not work.cancelled():
            work.result()

    async def _work(self) -> None:
        try:
            bundles = await self._answer()
        except Exception as error:
            await self._fail(error if isinstance(error, AssayError) else INTERNAL)
            if not isinstance(error, AssayError):
                raise
            return
        if self._delivery.stream:
            await self._write(self._last(bundles) + DONE, more=False)
        else:
            body = encode(self._shape.whole(self._choices, bundles))
            await self._respond(Response(body, media_type="application/json"))

    async def _answer(self) -> list[Bundle]:
        """All choices from beginning to end, then their receipts in order."""
        pumps: list[asyncio.Task[None]] = []
        try:
            # The first one alone: what refuses it would refuse them all.
            first = await self._begin(0)
            pumps.append(asyncio.create_task(self._pump(0, first)))
            pumps += [asyncio.create_task(self._begin_and_pump(place)) for place in range(1, len(self._choices))]
            await asyncio.gather(*pumps)
        except BaseException:
            await self._close_answers()
            await _within(self._patience.hang_up, pumps)
            raise
        bundles: list[Bundle] = []
        for found in await self._receipts():
            if isinstance(found, asyncio.CancelledError):
                raise ProviderFailed("the receipt did not come in time", "ask another provider")
            if isinstance(found, BaseException):
                raise found
            bundles += found
        return bundles

    async def _begin(self, place: int) -> Answer:
        """Start one choice; if there is no place for it, wait while other choices of this call take some."""
        accepted = self._shape.accepted
        while True:
            start = asyncio.create_task(
                self._answers.answer(accepted.requests[place], accepted.ask, top_logprobs=self._delivery.top_logprobs)
            )
            try:
                await asyncio.wait({start, self._gone_task}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await _within(0, [start])
            if not start.done() or start.cancelled():  # who is hung up on may take its time to hear of it
                raise ProviderFailed("the consumer has gone")
            try:
                answer = self._open[place] = start.result()
            except Busy:
                if not self._active or self._gone.is_set():
                    raise
                await asyncio.sleep(_RETRY_S)
                continue
            self._active += 1
            if self._gone.is_set():
                await answer.close()
            return answer

    async def _begin_and_pump(self, place: int) -> None:
        await self._pump(place, await self._begin(place))

    async def _pump(self, place: int, answer: Answer) -> None:
        choice, stream = self._choices[place], self._delivery.stream
        chunks = self._shape.chunks(choice)
        opening = chunks.first()
        async for step in answer.steps():
            choice.add(step)
            if stream and (data := opening + chunks.step(step)):
                await self._write(data)
                opening = b""
        if not self._gone.is_set():
            _check_end(choice)
        self._running -= 1
        self._active -= 1
        if stream:
            await self._write(opening + chunks.rest())
            if self._running or self._delivery.include_usage:
                await self._write(chunks.last())
            else:
                self._final = chunks  # its last chunk brings the receipts

    def _last(self, bundles: Sequence[Bundle]) -> bytes:
        return self._shape.last_chunk(bundles) if self._final is None else self._final.last(bundles)

    async def _receipts(self) -> list[Sequence[Bundle] | BaseException]:
        """The receipts of every answer that was started, one for each part of it, or why the last one is missing."""
        waits = [asyncio.create_task(_parts(self._open[place])) for place in sorted(self._open)]
        await _within(self._patience.receipt, waits)
        return await asyncio.gather(*waits, return_exceptions=True)

    async def _fail(self, error: AssayError) -> None:
        """Tell the consumer; receipts of what was delivered before come along where they can be had."""
        receipts = zip(sorted(self._open), await self._receipts(), strict=True)
        found = [
            bundle
            for place, item in receipts
            for bundle in (self._open[place].earlier if isinstance(item, BaseException) else item)
        ]
        more = {"id": self._shape.id, "assay": proof(found)} if found else {}
        if self._delivery.stream and self._started:
            await self._write(event(error_object(error) | more) + DONE, more=False)
        else:
            await self._respond(error_response(error, more))

    async def _respond(self, response: Response) -> None:
        async with self._lock:
            if not self._gone.is_set():
                self._started = self._ended = True
                await response(self._scope, self._receive, self._send)

    async def _write(self, data: bytes, *, more: bool = True) -> None:
        """Send a part of a stream, its head before it if that is still to come."""
        async with self._lock:
            if self._ended or self._gone.is_set() or not data:
                return
            self._ended = not more
            try:
                with self._stall:
                    if not self._started:
                        self._started = True
                        await self._send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})
                    await self._send({"type": "http.response.body", "body": data, "more_body": more})
            except (OSError, TimeoutError):
                self._gone.set()
            self._last_write = asyncio.get_running_loop().time()

    async def _watch(self) -> None:
        """Notice that the consumer has gone."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone.set()

    async def _beat(self) -> None:
        """Show that the connection lives while there is nothing to send."""
        while True:
            await asyncio.sleep(self._patience.keep_alive)
            if asyncio.get_running_loop().time() - self._last_write >= self._patience.keep_alive / 2:
                await self._write(KEEP_ALIVE)

    async def _close_answers(self) -> None:
        await _within(self._patience.hang_up, [asyncio.create_task(answer.close()) for answer in self._open.values()])


async def _parts(answer: Answer) -> Sequence[Bundle]:
    last = await answer.bundle()
    return [*answer.earlier, last]


def _check_end(choice: Choice) -> None:
    """A whole answer says that it is one."""
    if choice.stop is None:
        raise ProviderFailed("the answer broke off without a reason", "ask again, or ask another provider")
    if choice.stop not in WHOLE:
        raise ProviderFailed("the provider failed in the middle of the answer", "ask again, or ask another provider")


async def _within(seconds: float, tasks: Collection[asyncio.Task[object]]) -> None:
    """Wait for tasks to end; cancel those that take longer. Their results and errors are left to be asked for."""
    if not tasks:
        return
    _, late = await asyncio.wait(tasks, timeout=seconds)
    for task in late:
        task.cancel()
    if late:
        await asyncio.wait(late, timeout=1.0)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()  # seen
