"""The integer model as the scheduler drives it: every pass is committed to, beside the next one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Final

import numpy as np

from assay.core.hashing import Digest
from assay.engines.exact.accumulators import prompt_leaf, token_leaf
from assay.engines.exact.chunks import vector_root
from assay.engines.exact.runner import Runner

Root = Callable[[np.ndarray], Digest]
"""The root over a vector of accumulators."""


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """What a pass gives for one token whose logits were wanted."""

    logits: np.ndarray
    """int32 [vocabulary], `reference.LOGIT_FRACTION` fraction bits; good until the decode after the next has begun."""
    bodies: tuple[Future[Digest], ...]
    """Roots of the bodies of this token and of all before it in its sequence."""
    head: Future[Digest]

    def leaf(self, index: int) -> Digest:
        """The evidence leaf of output token `index` (from 0), which these logits give: see `accumulators.py`."""
        last = token_leaf(self.bodies[-1].result(), self.head.result())
        if index:
            return last
        return prompt_leaf([*(token_leaf(body.result()) for body in self.bodies[:-1]), last])


class ExactDecoder:
    """Implements `scheduler.Decoder`: a runner, and a thread that commits to what it computed."""

    def __init__(self, runner: Runner, *, sequences: int, root: Root = vector_root) -> None:
        """`root`: how a vector is committed to; only a dishonest provider has another."""
        self._runner: Final = runner
        self._root: Final = root
        self._bodies: Final[list[list[Future[Digest]]]] = [[] for _ in range(sequences)]
        self._committer: Final = ThreadPoolExecutor(1, thread_name_prefix="assay-commit")
        self._pending: list[Future[Digest]] = []
        self._before: list[Future[Digest]] = []
        self._rows: dict[int, Row] = {}

    def decode(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        seq_ids: Sequence[int] | int,
        want_logits: Sequence[bool] | bool,
    ) -> None:
        """See `Runner.decode`."""
        wait(self._before)  # the runner writes again where these read
        self._before = self._pending.copy()
        self._pending.clear()
        self._runner.decode(tokens, positions, seq_ids, want_logits)
        self._rows = {}
        for index, position in enumerate(positions):
            bodies = self._bodies[seq_ids if isinstance(seq_ids, int) else seq_ids[index]]
            del bodies[position:]
            bodies.append(self._commit(self._runner.body(index)))
            if want_logits if isinstance(want_logits, bool) else want_logits[index]:
                head = self._commit(self._runner.head(index))
                self._rows[index] = Row(self._runner.logits(index), tuple(bodies), head)

    def logits(self, index: int) -> Row:
        """What the batch's token `index` gives."""
        return self._rows[index]

    def seq_rm(self, seq: int, start: int = 0, end: int = -1) -> bool:
        """Forget the positions of a sequence from `start` on; only an end can be forgotten."""
        if end >= 0:
            return False
        del self._bodies[seq][start:]
        return True

    def close(self) -> None:
        """End the threads."""
        self._committer.shutdown()
        self._runner.close()

    def _commit(self, vector: np.ndarray) -> Future[Digest]:
        root = self._committer.submit(self._root, vector)
        self._pending.append(root)
        return root
