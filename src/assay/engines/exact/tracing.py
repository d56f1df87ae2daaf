"""The trace of a response, made again by prefill: what an auditor asks a provider for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final

import numpy as np

from assay.core.errors import EngineError
from assay.core.hashing import Digest
from assay.engines.exact.chunks import commit
from assay.engines.exact.program import Program
from assay.engines.exact.runner import Runner
from assay.engines.exact.trace_header import TraceHeader
from assay.engines.exact.trace_stream import EncodedPass, write_trace

BATCH: Final = 16
"""Passes computed at a time."""


Alter = Callable[[int, np.ndarray], np.ndarray]
"""What becomes of the body at a position."""


def honest(_position: int, body: np.ndarray) -> np.ndarray:
    """Nothing becomes of it; only a dishonest provider has another."""
    return body


def trace(
    program: Program,
    header: TraceHeader,
    tokens: Sequence[int],
    positions: Collection[int],
    *,
    threads: int = 1,
    stopped: Callable[[], bool] = lambda: False,
    alter: Alter = honest,
) -> Iterator[bytes]:
    """The stream that an audit of these positions needs, in blocks; `tokens` are those of prompt and output.

    Everything is computed twice, first for the leaves, which come first: so no more than a few passes are ever held.

    Raises:
        EncodingError: a position that the response does not have.
        EngineError: `stopped` said so.
    """
    plan = header.plan(positions)
    everything = _passes(program, header, tokens[: header.passes], threads, stopped)
    leaves: list[Digest] = [commit(alter(n, body), head) for n, (body, head) in enumerate(everything)]
    passes = enumerate(_passes(program, header, tokens[: plan[-1].position + 1], threads, stopped))

    def fetch(_position: int) -> EncodedPass:
        n, (body, head) = next(passes)
        return EncodedPass.of(alter(n, body), head)

    yield from write_trace(header, leaves, plan, fetch)


def _passes(
    program: Program, header: TraceHeader, tokens: Sequence[int], threads: int, stopped: Callable[[], bool]
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Body and head of each pass; good until the next batch."""
    runner = Runner(program, sequences=1, positions=len(tokens), batch=BATCH, threads=threads)
    try:
        for start in range(0, len(tokens), BATCH):
            if stopped():
                raise EngineError("the trace was broken off", "ask for it again")
            part = tokens[start : start + BATCH]
            wanted = [header.has_head(start + n) for n in range(len(part))]
            runner.decode(part, range(start, start + len(part)), 0, wanted)
            for n, want in enumerate(wanted):
                yield runner.body(n), runner.head(n) if want else None
    finally:
        runner.close()
