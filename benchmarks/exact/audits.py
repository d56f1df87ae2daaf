"""What commitments and audits cost, beside generating the same answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, partial
from statistics import median

import numpy as np
from benchmarks.exact._kit import SMOL, answer, asked, engine_of, program_of, timed

from assay.apps.figures import Figure, Say
from assay.core.hashing import ZERO
from assay.engines.exact import decoder
from assay.engines.exact.audit import Examiner, Response, header_of
from assay.engines.exact.tracing import trace

PROMPT, OUTPUT = 200, 256
ROUNDS = 5
_BARS = {"audit": 1 / 6, "first_audit": 1 / 6, "tenth": 1 / 40, "first_tenth": None}


def measure(say: Say) -> Iterator[Figure]:
    """A 256-token answer to a prompt of 200 tokens, one thread."""
    yield from _commitment(say)
    yield from _audits(say)


def _commitment(say: Say) -> Iterator[Figure]:
    """The same answer with and without records being hashed, in turn; what disturbs a run only makes it longer."""
    spent: dict[str, list[tuple[float, float]]] = {"with": [], "without": []}
    honest = decoder.record_roots
    request = asked(PROMPT, OUTPUT)
    for number in range(-1, ROUNDS):
        for kind, root in (("with", honest), ("without", lambda _layout, records: [ZERO] * len(records))):
            decoder.record_roots = root
            engine = engine_of()
            try:
                _, wall, cpu = timed(partial(answer, engine, request, PROMPT))
            finally:
                engine.close()
                decoder.record_roots = honest
            if number >= 0:
                spent[kind].append((wall, cpu))
        if number >= 0:
            say(f"commitment {number + 1}/{ROUNDS}")
    (wall, cpu), (wall_without, cpu_without) = (map(min, zip(*each, strict=True)) for each in spent.values())
    share = 100 * (cpu / cpu_without - 1)
    yield Figure("commitment_cpu", share, "%", 5.0, share <= 5.0, ROUNDS)
    yield Figure("commitment_wall", 100 * (wall / wall_without - 1), "%", None, None, ROUNDS)
    yield Figure("record", program_of(SMOL).layout.chunks * 512, "bytes a token", None, None, 1)


def _audits(say: Say) -> Iterator[Figure]:
    """By a validator, who has audited answers of the model before; and by somebody for whom it is the first."""
    shares: dict[str, list[float]] = {name: [] for name in (*_BARS, "public_audit", "replay")}
    generating: list[float] = []
    sizes: dict[str, int] = {}
    for number in range(-1, ROUNDS):
        engine = engine_of()  # a fresh one: the prompt is read, not found in the cache
        try:
            response, _, cost = timed(partial(answer, engine, asked(PROMPT, OUTPUT, nonce=number + 1), PROMPT))
        finally:
            engine.close()
        some = sorted(np.random.default_rng(number + 1).choice(response.passes, response.passes // 10, False).tolist())
        every, first = range(response.passes), Examiner(program_of(SMOL))
        spent = {
            "audit": _audited(_validator(), response, every, sizes, "trace"),
            "tenth": _audited(_validator(), response, some, sizes, "trace_of_a_tenth"),
            "first_audit": _audited(first, response, every, sizes, "trace"),
            "first_tenth": _audited(Examiner(program_of(SMOL)), response, some, sizes, "trace_of_a_tenth"),
            "public_audit": _audited(_validator(), response, every, sizes, "public_trace", public=True),
            "replay": timed(partial(_validator().replay, response))[2],
        }
        if number < 0:
            continue
        generating.append(cost)
        for name, seconds in spent.items():
            shares[name].append(seconds / cost)
        say(
            f"audit {number + 1}/{ROUNDS}: 1/{cost / spent['audit']:.1f} of generating, "
            f"of a tenth of the tokens 1/{cost / spent['tenth']:.1f}"
        )
    yield Figure("generating_cpu", median(generating), "s", None, None, ROUNDS)
    for name, each in shares.items():
        share, limit = median(each), _BARS.get(name)
        yield Figure(
            f"{name}_over_generating", share, "ratio", limit, None if limit is None else share <= limit, ROUNDS
        )
    for name, size in sizes.items():
        yield Figure(name, size / 1e6, "MB", None, None, 1)


@cache
def _validator() -> Examiner:
    return Examiner(program_of(SMOL))


def _audited(
    examiner: Examiner,
    response: Response,
    positions: Sequence[int],
    sizes: dict[str, int],
    name: str,
    *,
    public: bool = False,
) -> float:
    """Processor seconds of an audit of these positions; the trace's size is noted."""
    program = program_of(SMOL)
    blocks = list(trace(program, header_of(program, response, public=public), response.tokens, positions))
    sizes[name] = sum(map(len, blocks))
    return timed(lambda: examiner.audit(response, blocks, positions=positions))[2]
