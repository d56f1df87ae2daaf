"""The trace of a response, made again by prefill: what an auditor asks a provider for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from assay.core.errors import EngineError
from assay.core.hashing import Digest
from assay.engines.exact.chunks import accumulators_root, encode_vector
from assay.engines.exact.program import Program
from assay.engines.exact.record import record_root
from assay.engines.exact.runner import BATCH, Runner
from assay.engines.exact.trace_header import TraceHeader
from assay.engines.exact.trace_stream import Computed, write_trace


@dataclass(frozen=True, slots=True)
class Alteration:
    """What a dishonest provider makes of a pass at a position; the honest one makes nothing of it."""

    record: Callable[[Program, int, np.ndarray], np.ndarray] = lambda _program, _position, record: record
    """Before it is committed to: int16, see `Runner.record`."""
    body: Callable[[Program, int, np.ndarray], np.ndarray] = lambda _program, _position, body: body
    """Before it is sent to an auditor: int64, see `Runner.body`."""


HONEST: Final = Alteration()


def trace(
    program: Program,
    header: TraceHeader,
    tokens: Sequence[int],
    positions: Collection[int],
    *,
    threads: int = 1,
    stopped: Callable[[], bool] = lambda: False,
    alter: Alteration = HONEST,
) -> Iterator[bytes]:
    """The stream that an audit of these positions needs, in blocks; `tokens` are those of prompt and output.

    Everything is computed twice, first for the roots, which come first: so no more than a few passes are ever held.

    Raises:
        EncodingError: a position that the response does not have.
        EngineError: `stopped` said so.
    """
    plan = header.plan(positions)
    whole = {planned.position for planned in plan if planned.whole}
    roots: list[Digest] = []
    accumulators: list[Digest] = []
    everything = _Passes(program, header, threads, stopped, alter)
    for position, each in enumerate(everything.of(tokens[: header.passes], traced=header.public)):
        roots.append(record_root(program.layout, each.record))
        if header.public and position in whole:
            head = None if each.head is None else encode_vector(each.head)
            accumulators.append(accumulators_root(encode_vector(each.body), head))
    passes = everything.of(tokens[: plan[-1].position + 1], traced=True)
    yield from write_trace(header, roots, plan, lambda _: next(passes), accumulators=accumulators)


@dataclass(frozen=True, slots=True)
class _Passes:
    program: Program
    header: TraceHeader
    threads: int
    stopped: Callable[[], bool]
    alter: Alteration

    def of(self, tokens: Sequence[int], *, traced: bool) -> Iterator[Computed]:
        """The pass of each token; good until the next batch. Accumulators are there if it is `traced`."""
        program, alter = self.program, self.alter
        runner = Runner(program, sequences=1, positions=len(tokens), batch=BATCH, threads=self.threads, traced=traced)
        try:
            for start in range(0, len(tokens), BATCH):
                if self.stopped():
                    raise EngineError("the trace was broken off", "ask for it again")
                part = tokens[start : start + BATCH]
                wanted = [traced and self.header.has_head(start + n) for n in range(len(part))]
                runner.decode(part, range(start, start + len(part)), 0, wanted)
                for n, want in enumerate(wanted):
                    yield Computed(
                        alter.record(program, start + n, runner.record(n)),
                        alter.body(program, start + n, runner.body(n)) if traced else runner.body(n),
                        runner.head(n) if want else None,
                    )
        finally:
            runner.close()
