"""The integer model as the scheduler drives it: every pass is committed to.

In the same thread, while the pass is in the cache: a thread beside the next pass costs both more than it saves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from assay.core.hashing import Digest
from assay.engines.exact.record import prompt_leaf, record_roots
from assay.engines.exact.runner import Runner
from assay.engines.exact.tracing import HONEST, Alteration


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """What a pass gives for one token whose logits were wanted."""

    logits: np.ndarray
    """int32 [vocabulary], `reference.LOGIT_FRACTION` fraction bits; good until the decode after the next has begun."""
    roots: tuple[Digest, ...]
    """Of the records of this token and of all before it in its sequence."""

    def leaf(self, index: int) -> Digest:
        """The evidence leaf of output token `index` (from 0), which these logits give: see `record.py`."""
        return self.roots[-1] if index else prompt_leaf(self.roots)


class ExactDecoder:
    """Implements `scheduler.Decoder`."""

    def __init__(self, runner: Runner, *, sequences: int, alter: Alteration = HONEST) -> None:
        """`alter`: what a dishonest provider makes of a record before it commits to it."""
        self._runner: Final = runner
        self._alter: Final = alter
        self._roots: Final[list[list[Digest]]] = [[] for _ in range(sequences)]
        self._rows: dict[int, Row] = {}

    def decode(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        seq_ids: Sequence[int] | int,
        want_logits: Sequence[bool] | bool,
    ) -> None:
        """See `Runner.decode`."""
        self._runner.decode(tokens, positions, seq_ids, want_logits)
        self._rows = {}
        program, records = self._runner.program, self._runner.records[: len(tokens)]
        if self._alter is not HONEST:
            altered = (self._alter.record(program, *each) for each in zip(positions, records, strict=True))
            records = np.stack(list(altered))
        for index, (position, root) in enumerate(zip(positions, record_roots(program.layout, records), strict=True)):
            roots = self._roots[seq_ids if isinstance(seq_ids, int) else seq_ids[index]]
            del roots[position:]
            roots.append(root)
            if want_logits if isinstance(want_logits, bool) else want_logits[index]:
                self._rows[index] = Row(self._runner.logits(index), tuple(roots))

    def logits(self, index: int) -> Row:
        """What the batch's token `index` gives."""
        return self._rows[index]

    def seq_rm(self, seq: int, start: int = 0, end: int = -1) -> bool:
        """Forget the positions of a sequence from `start` on; only an end can be forgotten."""
        if end >= 0:
            return False
        del self._roots[seq][start:]
        return True

    def close(self) -> None:
        """End the threads."""
        self._runner.close()
