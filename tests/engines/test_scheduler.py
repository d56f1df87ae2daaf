"""Continuous batching: whatever runs beside it, an answer is the one that it would be alone."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from tests.tiny import PROFILE, TinyModel, TinyReader, tiny_completion, tiny_request

from assay.core.completion import Step
from assay.core.errors import AssayError, Busy, EngineError
from assay.core.request import Request
from assay.engines.answering import Answering, Picked
from assay.engines.scheduler import Job, Scheduler

READER = TinyReader()
NUMBERS = TinyModel()


class TinyDecoder:
    """A KV cache that holds the tokens themselves. It insists on what llama.cpp insists on."""

    def __init__(self, sequences: int, *, cuttable: bool = True) -> None:
        self.cells: list[list[int]] = [[] for _ in range(sequences)]
        self.batches: list[list[tuple[int, int]]] = []
        """Sequence and token of every batch's rows."""
        self.fails: Callable[[Sequence[int]], bool] = lambda _tokens: False
        self.gate = threading.Event()
        self.gate.set()
        self._rows: list[np.ndarray | None] = []
        self._cuttable = cuttable

    def decode(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        seq_ids: Sequence[int] | int,
        want_logits: Sequence[bool] | bool,
    ) -> None:
        self.gate.wait(10)
        assert len(tokens) > 0
        if self.fails(tokens):
            raise EngineError("the decoder broke")
        sequences = [seq_ids] * len(tokens) if isinstance(seq_ids, int) else list(seq_ids)
        wanted = [want_logits] * len(tokens) if isinstance(want_logits, bool) else list(want_logits)
        assert sequences == sorted(sequences)
        self._rows = []
        for token, position, sequence, want in zip(tokens, positions, sequences, wanted, strict=True):
            assert position == len(self.cells[sequence])
            self.cells[sequence].append(token)
            self._rows.append(NUMBERS.logits(self.cells[sequence]) if want else None)
        self.batches.append(list(zip(sequences, tokens, strict=True)))

    def logits(self, index: int) -> np.ndarray:
        row = self._rows[index]
        assert row is not None
        return row.copy()

    def seq_rm(self, seq: int, start: int = 0, end: int = -1) -> bool:
        if start and not self._cuttable:
            return False
        del self.cells[seq][start:]
        return True


class Listener:
    """Collects what one job emits."""

    def __init__(self, request: Request, *, answering: type[Answering] = Answering) -> None:
        self.request = request
        self.items: queue.Queue[Step | AssayError] = queue.Queue()
        prompt = READER.render(request)
        self.job = Job(
            answering(request, prompt, READER, context=PROFILE.context), prompt.tokens, self.items.put_nowait
        )

    def all(self) -> tuple[int, ...]:
        """The answer's tokens, waiting for its end."""
        tokens: list[int] = []
        while True:
            item = self.items.get(timeout=10)
            if isinstance(item, AssayError):
                raise item
            tokens.append(item.token)
            if item.stop:
                return tuple(tokens)


@contextmanager
def scheduler(decoder: TinyDecoder, *, parallel: int = 4, chunk: int = 8, reusable: bool = True) -> Iterator[Scheduler]:
    """Closed at the end."""
    running = Scheduler(decoder, parallel=parallel, chunk=chunk, reusable=reusable)
    try:
        yield running
    finally:
        decoder.gate.set()
        running.close()


def ask(number: int, **settings: object) -> Request:
    """Requests that differ."""
    content = "Say something. " * (number % 5) + str(number)
    return replace(tiny_request(content, nonce=number.to_bytes(32, "big"), max_tokens=5 + number % 30), **settings)


def until(condition: Callable[[], bool]) -> None:
    """Wait for it, 10 seconds at most."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("reusable", [True, False])
@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_answers_are_the_same_alone_and_together(chunk: int, reusable: bool) -> None:
    """40 requests over 3 slots, in any order, with shared beginnings: each answer is what the model gives alone."""
    decoder = TinyDecoder(3)
    with scheduler(decoder, parallel=3, chunk=chunk, reusable=reusable) as running:
        under_way: list[Listener] = []
        dice = random.Random(chunk)
        for number in range(40):
            while len(under_way) == 3:
                done = under_way.pop(dice.randrange(3))
                assert done.all() == tiny_completion(done.request).tokens
            under_way.append(Listener(ask(number)))
            running.submit(under_way[-1].job)
        for left in under_way:
            assert left.all() == tiny_completion(left.request).tokens
    assert running.active == 0


def test_batches_hold_all_who_generate() -> None:
    """Answers under way together are decoded together, one row each."""
    decoder = TinyDecoder(4)
    with scheduler(decoder) as running:
        decoder.gate.clear()
        listeners = [Listener(ask(number, max_tokens=30)) for number in range(4)]
        for listener in listeners:
            running.submit(listener.job)
        decoder.gate.set()
        for listener in listeners:
            listener.all()
    assert max(len({sequence for sequence, _ in batch}) for batch in decoder.batches) == 4


def test_a_full_engine_says_so() -> None:
    """One job more than there are slots is refused; a cancelled job's slot is free at once."""
    decoder = TinyDecoder(2)
    decoder.gate.clear()
    with scheduler(decoder, parallel=2) as running:
        first, second, third = (Listener(ask(number)) for number in range(3))
        running.submit(first.job)
        running.submit(second.job)
        with pytest.raises(Busy, match="2 places"):
            running.submit(third.job)
        first.job.cancelled = True
        running.submit(third.job)
        decoder.gate.set()
        assert third.all() == tiny_completion(third.request).tokens
        assert second.all() == tiny_completion(second.request).tokens
    assert first.items.empty()


def test_cancelling_in_the_middle_of_a_prompt() -> None:
    """Whoever takes the slot next gets its own answer, though half of another prompt is in the cache."""
    decoder = TinyDecoder(1)
    decoder.fails = lambda _tokens: len(decoder.cells[0]) > 10 and bool(decoder.gate.clear())
    with scheduler(decoder, parallel=1, chunk=2) as running:
        long = Listener(tiny_request("word " * 400))
        running.submit(long.job)
        until(lambda: not decoder.gate.is_set())
        decoder.fails = lambda _tokens: False
        long.job.cancelled = True
        after = Listener(tiny_request("word word"))
        running.submit(after.job)
        decoder.gate.set()
        assert after.all() == tiny_completion(after.request).tokens
    assert len(decoder.batches) < 60
    assert long.items.empty()


def test_a_beginning_is_read_once() -> None:
    """A prompt that goes on from an earlier one is read from where they part, its last token in any case."""
    decoder = TinyDecoder(2)
    with scheduler(decoder, parallel=2) as running:
        story = tiny_request("a story " * 20, max_tokens=4)
        for _ in range(3):
            listener = Listener(story)
            running.submit(listener.job)
            assert listener.all() == tiny_completion(story).tokens
    prompt = READER.render(story).tokens
    assert sum(len(batch) for batch in decoder.batches) < len(prompt) + 3 * (1 + 4)


def test_a_cache_that_cannot_be_cut() -> None:
    """Where the memory refuses to forget an end, the whole prompt is read again."""
    decoder = TinyDecoder(1, cuttable=False)
    with scheduler(decoder, parallel=1) as running:
        for number in (1, 1, 2):
            listener = Listener(ask(number))
            running.submit(listener.job)
            assert listener.all() == tiny_completion(listener.request).tokens


def test_a_stop_text_ends_the_answer() -> None:
    """No token after the one that completed a stop text is emitted, though one more may have been decoded; the slot's
    next answer is right."""
    free = "".join(map(chr, tiny_completion(ask(3)).tokens))
    request = ask(3, stop=(free[4:6],))
    decoder = TinyDecoder(1)
    with scheduler(decoder, parallel=1) as running:
        for wanted in (request, ask(3), request):
            listener = Listener(wanted)
            running.submit(listener.job)
            assert listener.all() == tiny_completion(wanted).tokens
            until(lambda: running.active == 0)
            assert listener.items.empty()


def test_prompts_are_read_in_turn() -> None:
    """A short prompt does not wait until a long one in an earlier slot is read."""
    decoder = TinyDecoder(2)
    decoder.gate.clear()
    with scheduler(decoder, parallel=2, chunk=4) as running:
        long, short = Listener(tiny_request("word " * 200)), Listener(tiny_request("hi", max_tokens=1))
        running.submit(long.job)
        running.submit(short.job)
        decoder.gate.set()
        short.all()
        long.all()
    read_short = max(number for number, batch in enumerate(decoder.batches) if batch[0][0] == 1)
    assert read_short < 20 < len(decoder.batches)


class Panicking(Answering):
    """Its sampler fails at the third token with what is not even an Exception, as a Rust library's panic is."""

    def choose(self, row: np.ndarray, index: int, allowed: np.ndarray | None) -> int:
        if index == 2:
            raise BaseException("panic")
        return super().choose(row, index, allowed)


class Unfinished(Answering):
    """Fails after the pick."""

    def observe(self, row: np.ndarray, picked: Picked) -> tuple[bytes, None]:
        raise ValueError("no evidence")


@pytest.mark.parametrize("broken", [Panicking, Unfinished])
def test_one_answer_s_failure_is_its_own(broken: type[Answering]) -> None:
    """What breaks one answer is told to that one; its neighbour goes on."""
    decoder = TinyDecoder(2)
    decoder.gate.clear()
    with scheduler(decoder, parallel=2) as running:
        good, bad = Listener(ask(1, max_tokens=30)), Listener(ask(2, max_tokens=30), answering=broken)
        running.submit(good.job)
        running.submit(bad.job)
        decoder.gate.set()
        with pytest.raises(EngineError, match="the engine failed"):
            bad.all()
        assert good.all() == tiny_completion(good.request).tokens
        again = Listener(ask(2))
        running.submit(again.job)
        assert again.all() == tiny_completion(again.request).tokens


def test_a_failed_decode_ends_all_and_the_engine_lives() -> None:
    """Nobody knows what the cache holds then: everybody hears of it, and the next answers are right."""
    decoder = TinyDecoder(2)
    with scheduler(decoder, parallel=2) as running:
        decoder.gate.clear()
        listeners = [Listener(ask(number, max_tokens=30)) for number in (1, 2)]
        for listener in listeners:
            running.submit(listener.job)
        decoder.fails = lambda _tokens: len(decoder.batches) > 12
        decoder.gate.set()
        for listener in listeners:
            with pytest.raises(EngineError, match="the decoder broke"):
                listener.all()
        decoder.fails = lambda _tokens: False
        again = Listener(ask(1))
        running.submit(again.job)
        assert again.all() == tiny_completion(again.request).tokens


def test_closing_breaks_off() -> None:
    """Answers under way hear that the engine shuts down, and a closed engine takes no more."""
    decoder = TinyDecoder(2)
    with scheduler(decoder, parallel=2) as running:
        listener = Listener(tiny_request("word " * 300))
        running.submit(listener.job)
    with pytest.raises(EngineError, match="shutting down"):
        listener.all()
    with pytest.raises(EngineError, match="shutting down"):
        running.submit(Listener(ask(1)).job)
