"""The trace of a response, made again by prefill: what an auditor asks a provider for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final

import numpy as np

from assay.core.hashing import Digest
from assay.engines.exact.chunks import commit
from assay.engines.exact.program import Program
from assay.engines.exact.runner import Runner
from assay.engines.exact.trace_header import TraceHeader
from assay.engines.exact.trace_stream import EncodedPass, write_trace

BATCH: Final = 16
"""Passes computed at a time."""


def trace(
    program: Program, header: TraceHeader, tokens: Sequence[int], positions: Collection[int], *, threads: int = 1
) -> Iterator[bytes]:
    """The stream that an audit of these positions needs, in blocks; `tokens` are those of prompt and output.

    Everything is computed twice, first for the leaves, which come first: so no more than a few passes are ever held.
    """
    leaves = list(_leaves(program, header, tokens, threads))
    plan = header.plan(positions)
    passes = _passes(program, header, tokens[: plan[-1].position + 1], threads)
    yield from write_trace(header, leaves, plan, lambda _: EncodedPass.of(*next(passes)))


def _leaves(program: Program, header: TraceHeader, tokens: Sequence[int], threads: int) -> Iterator[Digest]:
    for body, head in _passes(program, header, tokens[: header.passes], threads):
        yield commit(body, head)


def _passes(
    program: Program, header: TraceHeader, tokens: Sequence[int], threads: int
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Body and head of each pass; good until the next batch."""
    runner = Runner(program, sequences=1, positions=len(tokens), batch=BATCH, threads=threads)
    try:
        for start in range(0, len(tokens), BATCH):
            part = tokens[start : start + BATCH]
            wanted = [header.has_head(start + n) for n in range(len(part))]
            runner.decode(part, range(start, start + len(part)), 0, wanted)
            for n, want in enumerate(wanted):
                yield runner.body(n), runner.head(n) if want else None
    finally:
        runner.close()
