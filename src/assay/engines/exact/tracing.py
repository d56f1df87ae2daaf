"""The trace of a response, made again by prefill: what an auditor asks a provider for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final

from assay.core.hashing import Digest
from assay.engines.exact.chunks import accumulators_root, encode_vector
from assay.engines.exact.program import Program
from assay.engines.exact.record import record_root
from assay.engines.exact.runner import Runner
from assay.engines.exact.trace_header import TraceHeader
from assay.engines.exact.trace_stream import Computed, write_trace

BATCH: Final = 16
"""Passes computed at a time."""


def trace(
    program: Program, header: TraceHeader, tokens: Sequence[int], positions: Collection[int], *, threads: int = 1
) -> Iterator[bytes]:
    """The stream that an audit of these positions needs, in blocks; `tokens` are those of prompt and output.

    Everything is computed twice, first for the roots, which come first: so no more than a few passes are ever held.
    """
    plan = header.plan(positions)
    whole = {planned.position for planned in plan if planned.whole}
    roots: list[Digest] = []
    accumulators: list[Digest] = []
    for position, each in enumerate(_passes(program, header, tokens[: header.passes], threads, traced=header.public)):
        roots.append(record_root(program.layout, each.record))
        if header.public and position in whole:
            head = None if each.head is None else encode_vector(each.head)
            accumulators.append(accumulators_root(encode_vector(each.body), head))
    passes = _passes(program, header, tokens[: plan[-1].position + 1], threads, traced=True)
    yield from write_trace(header, roots, plan, lambda _: next(passes), accumulators=accumulators)


def _passes(
    program: Program, header: TraceHeader, tokens: Sequence[int], threads: int, *, traced: bool
) -> Iterator[Computed]:
    """Each pass; good until the next batch. Accumulators are there if it is `traced`."""
    runner = Runner(program, sequences=1, positions=len(tokens), batch=BATCH, threads=threads, traced=traced)
    try:
        for start in range(0, len(tokens), BATCH):
            part = tokens[start : start + BATCH]
            wanted = [traced and header.has_head(start + n) for n in range(len(part))]
            runner.decode(part, range(start, start + len(part)), 0, wanted)
            for n, want in enumerate(wanted):
                yield Computed(runner.record(n), runner.body(n), runner.head(n) if want else None)
    finally:
        runner.close()
