"""Runs the integer model over sequences: KV cache, batches, threads. Equal to `reference.forward` bit for bit."""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from math import prod
from typing import Final

import numpy as np

from assay.core.errors import EngineError
from assay.engines.exact.kernels.layers import Cache, Desk, Shape, Test, remember, run
from assay.engines.exact.kernels.tile import SLOT
from assay.engines.exact.packed import RECORD
from assay.engines.exact.program import Program

_SPARE: Final = 64
"""Entries that kernels may touch beyond the positions in use."""


NO_TEST: Final = Test(
    np.zeros((0, 0), np.int32), np.zeros((0, 3, 0), np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64),
    np.zeros(0, np.int64),
)  # fmt: skip


class Runner:
    """One model's passes, up to `batch` tokens each, for `sequences` sequences of up to `positions` tokens.

    Positions that come again are overwritten. Not for use from several threads at once.
    """

    def __init__(self, program: Program, *, sequences: int, positions: int, batch: int, threads: int) -> None:
        """`threads`: how many compute one pass together."""
        self.program: Final = program
        self.batch: Final = batch
        self._threads: Final = threads
        shape = program.shape
        tiles = -(-positions // 16)
        per_head = (shape.layers, sequences, shape.kv_heads)
        self._cache: Final = Cache(
            keys=_sparse((*per_head, tiles, shape.head_width // 2, 16, 2), np.dtype(np.int16)),
            key_fractions=_sparse((*per_head, tiles * 16), np.dtype(np.int32)),
            values=_sparse((*per_head, tiles * 8, shape.head_width, 2), np.dtype(np.int16)),
            value_fractions=_sparse((*per_head, tiles * 16), np.dtype(np.int32)),
        )
        self._desk: Final = _desk(shape, batch, positions, threads)
        self._passes: Final = (_Pass(program, batch), _Pass(program, batch))
        self._turn = 0
        self._helpers: Final = ThreadPoolExecutor(max(1, threads - 1), thread_name_prefix="assay-exact")

    def decode(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        seq_ids: Sequence[int] | int,
        want_logits: Sequence[bool] | bool,
    ) -> None:
        """Run the model over a batch. Tokens of one sequence must come in the order of their positions.

        What a pass leaves behind (`logits`, `body`, `head`) stays until the pass after the next.

        Raises:
            EngineError: more tokens than a batch has, or a token that the vocabulary does not have.
        """
        count = len(tokens)
        if not 0 < count <= self.batch:
            raise EngineError(f"a batch has 1 to {self.batch} tokens, not {count}")
        self._turn ^= 1
        done = self._passes[self._turn]
        sequences = np.full(count, seq_ids) if isinstance(seq_ids, int) else np.array(seq_ids, np.int64)
        wants = [want_logits] * count if isinstance(want_logits, bool) else want_logits
        wanted = np.flatnonzero(np.array(wants, bool))
        done.start(wanted)
        self._run(tokens, sequences, positions, done, wanted, NO_TEST)

    def test(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        bodies: Sequence[np.ndarray],
        heads: Mapping[int, np.ndarray],
        test: Test,
    ) -> np.ndarray:
        """Test passes of sequence 0 instead of computing them: what is wrong first with each, as `layers.run` says it.

        `bodies` int64 [accumulators of all layers] for each token; `heads` int64 [vocabulary] for those that have one,
        whose `logits` are there afterwards.
        """
        self._turn ^= 1
        done = self._passes[self._turn]
        wanted = np.array(sorted(heads), np.int64)
        done.start(wanted)
        for n, body in enumerate(bodies):
            done.body[n] = body
        for m, n in enumerate(wanted):
            done.head[m] = heads[int(n)]
        test.failed[:] = -1
        self._run(tokens, np.zeros(len(tokens), np.int64), positions, done, wanted, test)
        return test.failed[: len(tokens)]

    def remember(self, positions: Sequence[int], bodies: Sequence[np.ndarray]) -> None:
        """Take the keys and values of sequence 0's tokens from what their passes committed to, unchecked."""
        done = self._passes[self._turn]
        for n, body in enumerate(bodies):
            done.body[n] = body
        remember(
            self.program.shape, self.program.plan, self._cache, self._desk, np.zeros(len(positions), np.int64),
            np.array(positions, np.int64), done.body,
        )  # fmt: skip

    def _run(
        self,
        tokens: Sequence[int],
        sequences: np.ndarray,
        positions: Sequence[int],
        done: _Pass,
        wanted: np.ndarray,
        test: Test,
    ) -> None:
        for n, token in enumerate(tokens):
            self.program.embed(token, self._desk.stream[n])
        arguments = (
            self.program.shape, self.program.plan, self._cache, self._desk, sequences, np.array(positions, np.int64),
            done.body, wanted, done.head, done.logits, test,
        )  # fmt: skip
        others = [self._helpers.submit(run, *arguments, n, self._threads) for n in range(1, self._threads)]
        run(*arguments, 0, self._threads)
        wait(others)

    def logits(self, index: int) -> np.ndarray:
        """int32 [vocabulary] after the last pass's token `index`, which wanted them."""
        done = self._passes[self._turn]
        return done.logits[done.place[index]]

    def head(self, index: int) -> np.ndarray:
        """int64 [vocabulary]: the accumulators of the head."""
        done = self._passes[self._turn]
        return done.head[done.place[index]]

    def body(self, index: int) -> np.ndarray:
        """int64: the accumulators of all layers of the last pass's token `index`."""
        return self._passes[self._turn].body[index]

    def close(self) -> None:
        """End the threads."""
        self._helpers.shutdown()


class _Pass:
    """What a pass leaves behind."""

    def __init__(self, program: Program, batch: int) -> None:
        self._vocabulary: Final = program.vocabulary
        self.body: Final = np.zeros((batch, program.layout.body), np.int64)
        self.head = np.zeros((1, program.vocabulary), np.int64)
        self.logits = np.zeros((1, program.vocabulary), np.int32)
        self.place: dict[int, int] = {}

    def start(self, wanted: np.ndarray) -> None:
        if wanted.size > len(self.head):
            self.head = np.zeros((wanted.size, self._vocabulary), np.int64)
            self.logits = np.zeros((wanted.size, self._vocabulary), np.int32)
        self.place = {int(index): place for place, index in enumerate(wanted)}


def _sparse(dims: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Zeros that take no memory before they are written to, page by page: most positions are never reached."""
    room = mmap.mmap(-1, prod(dims) * dtype.itemsize)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):  # huge pages would be filled by the first position of each head
        room.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(room, dtype).reshape(dims)


def _desk(shape: Shape, batch: int, positions: int, threads: int) -> Desk:
    widest = max(shape.width, shape.heads * shape.head_width, shape.feed)
    slots = np.zeros((batch * -(-widest // RECORD), SLOT), np.int8)
    return Desk(
        stream=np.zeros((batch, shape.width), np.int64),
        x=np.zeros((batch, widest), np.int16),
        fractions=np.zeros(batch, np.int64),
        slots=slots,
        halves_of_slots=slots.view(np.int16),
        words_of_slots=slots.view(np.int32),
        shift=np.zeros(batch, np.int64),
        queries=np.zeros((batch, shape.heads, shape.head_width), np.int16),
        query_fractions=np.zeros((batch, shape.heads), np.int64),
        mixed=np.zeros((batch, shape.heads, shape.head_width), np.int64),
        mixed_fractions=np.zeros((batch, shape.heads), np.int64),
        waves=np.zeros((batch, 2, shape.head_width // 2), np.int64),
        scratch=np.zeros((threads, 2, widest + _SPARE), np.int64),
        narrow=np.zeros((threads, max(shape.width, shape.head_width)), np.int16),
        scores=np.zeros((threads, positions + 2 * _SPARE), np.int64),
        halves=np.zeros((threads, 2, positions + shape.head_width + 2 * _SPARE), np.int16),
        barrier=np.zeros(2, np.int64),
    )
