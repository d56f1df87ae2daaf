"""Continuous batching: one thread that decodes all answers under way together, one token each a pass.

Every pass decodes one token of each answer that is generating and a chunk of the prompt of one that is starting, so a
long prompt never stops the others for longer than a chunk takes; prompts are read in turn. Each answer has a slot: a
sequence of the context's KV cache. A slot keeps its cache when its answer ends, and a prompt that begins alike goes on
from there.

The next pass needs only the tokens that were picked. Evidence and text of each are worked out by a second thread
while it decodes. That thread is at most one pass behind, so an answer that ends by a stop text is decoded one token
too far; nobody sees that token.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from assay.core.completion import Step
from assay.core.errors import AssayError, Busy, EngineError
from assay.engines.answering import AnswerPath, Picked, Row

Emit = Callable[[Step | AssayError], None]
"""Called in a thread of the scheduler's with each step, and with an error if the answer breaks; must not block."""


_Given = TypeVar("_Given", covariant=True)


class Decoder(Protocol[_Given]):
    """The calls of a context that the scheduler makes (see `engines/llama_context.py`)."""

    def decode(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        seq_ids: Sequence[int] | int,
        want_logits: Sequence[bool] | bool,
    ) -> None:
        """Run the model over a batch; a single id or flag holds for all tokens."""
        ...

    def logits(self, index: int) -> _Given:
        """Logits after the batch's token `index`: good until the decode after the next has begun."""
        ...

    def seq_rm(self, seq: int, start: int = 0, end: int = -1) -> bool:
        """Forget positions of a sequence."""
        ...


@dataclass(slots=True, eq=False)
class Job(Generic[Row]):
    """One answer under way."""

    answering: AnswerPath[Row]
    prompt: tuple[int, ...]
    emit: Emit
    cancelled: bool = False
    """Nobody waits for more; set from any thread. The scheduler drops the job at its next pass."""
    started: bool = False
    """Its slot's cache holds a beginning of its prompt and nothing else."""
    next_token: int | None = None
    """The token that was sampled and not yet decoded; None while the prompt is read."""
    turn: int = 0
    """The pass in which a chunk of the prompt was last read."""


@dataclass(slots=True)
class Slot(Generic[Row]):
    """A sequence of the KV cache."""

    index: int
    cached: list[int] = field(default_factory=list)
    """Tokens whose keys and values are in the cache, in order."""
    job: Job[Row] | None = None


class Scheduler(Generic[Row]):
    """Runs jobs on `parallel` slots of a decoder, in a thread of its own, until `close`."""

    def __init__(self, decoder: Decoder[Row], *, parallel: int, chunk: int, reusable: bool) -> None:
        """`chunk`: most tokens of a prompt in one pass. `reusable`: the cache can be cut at any position."""
        self._decoder = decoder
        self._chunk = chunk
        self._reusable = reusable
        self._slots: list[Slot[Row]] = [Slot(index) for index in range(parallel)]
        self._changed = threading.Condition()
        self._closing = False
        self._passes = 0
        self._finishing: list[Future[None]] = []
        self._finisher = ThreadPoolExecutor(1, thread_name_prefix="assay-answers")
        self._thread = threading.Thread(target=self._run, name="assay-engine", daemon=True)
        self._thread.start()

    @property
    def active(self) -> int:
        """Answers under way."""
        return sum(slot.job is not None and not slot.job.cancelled for slot in self._slots)

    def submit(self, job: Job[Row]) -> None:
        """Start a job; its steps come through `job.emit`.

        Raises:
            Busy: every slot is taken.
            EngineError: the scheduler is closed.
        """
        with self._changed:
            if self._closing:
                raise EngineError("the engine is shutting down")
            free = [slot for slot in self._slots if slot.job is None or slot.job.cancelled]
            if not free:
                raise Busy(f"all {len(self._slots)} places are taken")
            slot = max(free, key=lambda slot: (_common(slot.cached, job.prompt), -len(slot.cached), -slot.index))
            slot.job = job
            self._changed.notify()

    def close(self) -> None:
        """Break off all answers and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._finisher.shutdown()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or any(slot.job for slot in self._slots))
                if self._closing:
                    break
                for slot in self._slots:
                    if slot.job is not None and slot.job.cancelled:
                        slot.job = None
                busy = [slot for slot in self._slots if slot.job is not None]
            if not busy:
                continue
            try:
                self._pass(busy)
            except BaseException as error:  # noqa: BLE001 - the thread must outlive any failure of one pass
                self._fail(busy, _engine_error(error))
        self._fail([slot for slot in self._slots if slot.job is not None], EngineError("the engine is shutting down"))

    def _pass(self, busy: list[Slot[Row]]) -> None:
        """One token of every answer that is generating, then a chunk of the prompt that has waited longest.

        In two decodes, each with its rows in the order of the slots: llama.cpp runs rows of neighbouring sequences
        and of equal number in one pass over the weights, and anything else in several.
        """
        self._passes += 1
        generating = [(slot, job) for slot in busy if (job := slot.job) and job.next_token is not None]
        reading = [(slot, job) for slot in busy if (job := slot.job) and job.next_token is None]
        if generating:
            tokens = [job.next_token or 0 for _, job in generating]
            positions = [len(slot.cached) for slot, _ in generating]
            self._decoder.decode(tokens, positions, [slot.index for slot, _ in generating], True)
            self._settle()
            for index, ((slot, job), token) in enumerate(zip(generating, tokens, strict=True)):
                slot.cached.append(token)
                self._advance(slot, job, index)
        if reading:
            self._read(*min(reading, key=lambda pair: pair[1].turn))

    def _read(self, slot: Slot[Row], job: Job[Row]) -> None:
        """The next chunk of a prompt."""
        if not job.started:
            # The prompt's last token is read in any case: its logits are needed.
            self._trim(slot, min(_common(slot.cached, job.prompt), len(job.prompt) - 1))
            job.started = True
        job.turn = self._passes
        start = len(slot.cached)
        chunk = job.prompt[start : start + self._chunk]
        done = start + len(chunk) == len(job.prompt)
        wanted = [False] * (len(chunk) - 1) + [done]
        self._decoder.decode(chunk, range(start, start + len(chunk)), slot.index, wanted)
        slot.cached += chunk
        if done:
            self._advance(slot, job, len(chunk) - 1)

    def _trim(self, slot: Slot[Row], keep: int) -> None:
        if keep == len(slot.cached):
            return
        if not self._reusable or not self._decoder.seq_rm(slot.index, keep, -1):
            self._decoder.seq_rm(slot.index, 0, -1)
            keep = 0
        del slot.cached[keep:]

    def _advance(self, slot: Slot[Row], job: Job[Row], index: int) -> None:
        """Pick a job's next token. What breaks here, a sampler or a grammar, is the job's own failure."""
        if job.cancelled:
            return
        try:
            row = self._decoder.logits(index)
            picked = job.answering.pick(row)
        except BaseException as error:  # noqa: BLE001 - a grammar library's panic is not even an Exception
            self._release(slot, job)
            job.emit(_engine_error(error))
            return
        job.next_token = picked.token
        if picked.stop:
            self._release(slot, job)
        self._finishing.append(self._finisher.submit(_finish, job, row, picked))

    def _settle(self) -> None:
        """Wait until what was picked is finished."""
        for finishing in self._finishing:
            finishing.result()
        self._finishing.clear()

    def _release(self, slot: Slot[Row], job: Job[Row]) -> None:
        with self._changed:
            if slot.job is job:
                slot.job = None

    def _fail(self, slots: list[Slot[Row]], error: AssayError) -> None:
        """A decode failed: what the cache holds is unknown, so every answer in it ends and the slots start afresh."""
        self._settle()
        for slot in slots:
            job = slot.job
            slot.cached.clear()
            if not self._closing:
                self._decoder.seq_rm(slot.index, 0, -1)
            if job is not None:
                self._release(slot, job)
                job.emit(error)


def _finish(job: Job[Row], row: Row, picked: Picked) -> None:
    """Work out what a token adds, and hand it over."""
    if job.cancelled:
        return
    try:
        step = job.answering.finish(row, picked)
    except BaseException as error:  # noqa: BLE001 - see `Scheduler._advance`
        job.cancelled = True
        job.emit(_engine_error(error))
        return
    if step.stop:
        job.cancelled = True
    job.emit(step)


def _engine_error(error: BaseException) -> AssayError:
    if isinstance(error, AssayError):
        return error
    return EngineError(f"the engine failed ({type(error).__name__}: {error})")


def _common(cached: Sequence[int], prompt: Sequence[int]) -> int:
    """How many tokens the two begin with alike."""
    count = 0
    for one, other in zip(cached, prompt, strict=False):
        if one != other:
            break
        count += 1
    return count
