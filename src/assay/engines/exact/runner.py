"""Runs the integer model over sequences: KV cache, batches, threads. Equal to `reference.forward` bit for bit."""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from typing import Final

import numpy as np

from assay.core.errors import EngineError
from assay.engines.exact.challenge import passed
from assay.engines.exact.chunks import CHUNK, Chunks, chunk_count
from assay.engines.exact.kernels.attention import STEP, TILES, TOGETHER
from assay.engines.exact.kernels.layers import remember, run
from assay.engines.exact.kernels.state import Cache, Desk, Shape, Test
from assay.engines.exact.kernels.tile import SLOT
from assay.engines.exact.packed import RECORD
from assay.engines.exact.program import Program

_SPARE: Final = 64
"""Entries that kernels may touch beyond the positions in use."""
BATCH: Final = 16
"""Passes that are computed or tested together where many wait: what other answers wait for."""
NO_TEST: Final = Test(
    np.zeros((0, 0), np.int32), np.zeros((0, 0, 0), np.int16), np.zeros((0, 0), np.uint8), np.zeros((0, 0), np.int64),
    np.zeros(0, np.int64), np.zeros((0, 0, 2, 8), np.int64), np.zeros((0, 0, 0), np.int64),
)  # fmt: skip


class Runner:
    """One model's passes, up to `batch` tokens each, for `sequences` sequences of up to `positions` tokens.

    Positions that come again are overwritten. Not for use from several threads at once.
    """

    def __init__(
        self,
        program: Program,
        *,
        sequences: int,
        positions: int,
        batch: int,
        threads: int,
        traced: bool = False,
        filled: bool = False,
    ) -> None:
        """`threads`: how many compute one pass together. `traced`: accumulators are kept. `filled`: all positions will
        be used, so that their memory is taken at once, which is faster.
        """
        self.program: Final = program
        self.batch: Final = batch
        self._threads: Final = threads
        self._sequences: Final = sequences
        self._positions: Final = positions
        shape, plan = program.shape, program.plan
        tiles = -(-positions // 16)
        zeros = np.zeros if filled else _sparse
        per_head = (shape.layers, sequences, shape.kv_heads)
        self._cache: Final = Cache(
            keys=zeros((*per_head, tiles + TILES, shape.head_width // 2, 16, 2), np.dtype(np.int16)),
            key_fractions=zeros((*per_head, tiles * 16 + STEP), np.dtype(np.int32)),
            values=zeros((*per_head, tiles * 8, shape.head_width, 2), np.dtype(np.int16)),
            value_fractions=zeros((*per_head, tiles * 16 + STEP), np.dtype(np.int32)),
        )
        self._desk: Final = _desk(shape, batch, positions, threads)
        self._passes: Final = (_Pass(program, batch), _Pass(program, batch))
        self._turn = 0
        size = chunk_count(plan.layer_size) * CHUNK
        self._stride: Final = size if traced else 0
        self._bodies: Final = np.zeros((batch, size * shape.layers if traced else size), np.int64)
        self._heads = np.zeros((1, chunk_count(program.vocabulary) * CHUNK), np.int64)
        self._helpers: Final = ThreadPoolExecutor(max(1, threads - 1), thread_name_prefix="assay-exact")

    def decode(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        seq_ids: Sequence[int] | int,
        want_logits: Sequence[bool] | bool,
    ) -> None:
        """Run the model over a batch. Tokens of one sequence must come in the order of their positions.

        `logits` and `record` of a pass stay until the pass after the next, its accumulators until the next.

        Raises:
            EngineError: more tokens than a batch has, a token that the vocabulary does not have, or a position or
                sequence that the cache has no place for.
        """
        count = len(tokens)
        if not 0 < count <= self.batch:
            raise EngineError(f"a batch has 1 to {self.batch} tokens, not {count}")
        sequences = np.full(count, seq_ids) if isinstance(seq_ids, int) else np.array(seq_ids, np.int64)
        if not 0 <= sequences.min() <= sequences.max() < self._sequences:
            raise EngineError(f"there are {self._sequences} sequences")
        wants = [want_logits] * count if isinstance(want_logits, bool) else want_logits
        wanted = np.flatnonzero(np.array(wants, bool))
        self._reserve(wanted.size)
        self._run(tokens, sequences, positions, wanted, NO_TEST)

    def test(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        bodies: Sequence[Chunks],
        heads: Mapping[int, Chunks],
        test: Test,
    ) -> list[bool]:
        """Test passes of sequence 0 instead of computing them: whether the products of each are right.

        `bodies`: the accumulators of all layers for each token; `heads`: of the head for those that have one, whose
        `logits` are there afterwards. So are the records. Not for a runner that is `traced`.
        """
        wanted = np.array(sorted(heads), np.int64)
        self._reserve(wanted.size)
        layers = self.program.shape.layers
        for n, body in enumerate(bodies):
            size = len(body.widths)
            test.widths[n, :size] = body.widths
            ends = np.cumsum(body.widths.reshape(layers, -1).sum(axis=1, dtype=np.int64)) * CHUNK
            test.places[n, 0] = body.data.ctypes.data
            test.places[n, 1:] = body.data.ctypes.data + ends
            if n in heads:
                test.widths[n, size:] = heads[n].widths
                test.head_places[n] = heads[n].data.ctypes.data
        test.rows[:] = 0
        test.columns[:] = 0
        self._run(tokens, np.zeros(len(tokens), np.int64), positions, wanted, test)
        return [passed(test, n) for n in range(len(tokens))]

    def remember(self, positions: Sequence[int], kept: np.ndarray) -> None:
        """Take the keys and values of sequence 0's tokens from the first parts of their records, int16 [n, numbers]."""
        where = np.array(positions, np.int64)
        remember(self.program.shape, self.program.plan, self._cache, np.zeros(len(where), np.int64), where, kept)

    def logits(self, index: int) -> np.ndarray:
        """int32 [vocabulary] after the last pass's token `index`, which wanted them."""
        done = self._passes[self._turn]
        return done.logits[done.place[index]]

    @property
    def records(self) -> np.ndarray:
        """What the tokens of the last pass commit to, and behind them older ones: int16 [batch, 256 * chunks]."""
        return self._passes[self._turn].record

    def record(self, index: int) -> np.ndarray:
        """What the last pass's token `index` commits to: int16 [256 * chunks]; see `record.py`."""
        return self.records[index]

    def head(self, index: int) -> np.ndarray:
        """int64 [vocabulary]: the accumulators of the head."""
        return self._heads[self._passes[self._turn].place[index], : self.program.vocabulary]

    def body(self, index: int) -> np.ndarray:
        """int64: the accumulators of all layers of the last pass's token `index`; for a runner that is `traced`."""
        return self._bodies[index, : self.program.body]

    def close(self) -> None:
        """End the threads."""
        self._helpers.shutdown()

    def _reserve(self, heads: int) -> None:
        """Make room for so many heads; what was there may be gone."""
        if heads > len(self._heads):
            self._heads = np.zeros((min(max(heads, 2 * len(self._heads)), self.batch), self._heads.shape[1]), np.int64)

    def _run(
        self,
        tokens: Sequence[int],
        sequences: np.ndarray,
        positions: Sequence[int],
        wanted: np.ndarray,
        test: Test,
    ) -> None:
        if not 0 <= min(positions) <= max(positions) < self._positions:
            raise EngineError(f"a sequence has {self._positions} positions")
        self._turn ^= 1
        done = self._passes[self._turn]
        done.start(wanted)
        for n, token in enumerate(tokens):
            self._desk.stream[n] = self.program.embed(token)
        arguments = (
            self.program.shape, self.program.plan, self._cache, self._desk, sequences, np.array(positions, np.int64),
            done.record, self._bodies, self._stride, wanted, self._heads, done.logits, test,
        )  # fmt: skip
        others = [self._helpers.submit(run, *arguments, n, self._threads) for n in range(1, self._threads)]
        run(*arguments, 0, self._threads)
        for other in others:
            other.result()


class _Pass:
    """What a pass leaves behind."""

    def __init__(self, program: Program, batch: int) -> None:
        self.record: Final = program.layout.empty(batch)
        self.logits = np.zeros((1, program.vocabulary), np.int32)
        self.place: dict[int, int] = {}

    def start(self, wanted: np.ndarray) -> None:
        if wanted.size > len(self.logits):
            self.logits = np.zeros((wanted.size, self.logits.shape[1]), np.int32)
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
        scores=np.zeros((threads, TOGETHER, positions + 3 * _SPARE), np.int64),
        halves=np.zeros((threads, TOGETHER, 2, positions + shape.head_width + 2 * _SPARE), np.int16),
        totals=np.zeros((threads, TOGETHER, -(-shape.head_width // 16) * 16), np.int64),
        barrier=np.zeros(2, np.int64),
    )
