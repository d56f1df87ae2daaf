"""What commitments and audits cost, beside generating the same answer."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from functools import partial
from statistics import median

import numpy as np
from benchmarks.exact._kit import SMOL, answer, asked, engine_of, program_of, timed

from assay.apps.figures import Figure, Say
from assay.core.hashing import ZERO
from assay.engines.exact import decoder
from assay.engines.exact.audit import Response, audit, header_of, replay
from assay.engines.exact.tracing import trace

PROMPT, OUTPUT = 200, 256
ROUNDS = 5


def measure(say: Say) -> Iterator[Figure]:
    """A 256-token answer to a prompt of 200 tokens, one thread."""
    yield from _commitment(say)
    yield from _audits(say)


def _commitment(say: Say) -> Iterator[Figure]:
    """The same answer with and without records being hashed, in turn."""
    shares, walls = [], []
    honest = decoder.record_root
    request = asked(PROMPT, OUTPUT)
    for number in range(-1, ROUNDS):
        times = []
        for root in (honest, lambda _layout, _record: ZERO):
            decoder.record_root = root
            engine = engine_of()
            try:
                times.append(timed(partial(answer, engine, request, PROMPT))[1:])
            finally:
                engine.close()
                decoder.record_root = honest
        if number < 0:
            continue
        (wall, cpu), (wall_without, cpu_without) = times
        shares.append(100 * (cpu / cpu_without - 1))
        walls.append(100 * (wall / wall_without - 1))
        say(f"commitment {number + 1}/{ROUNDS}: {shares[-1]:.1f} % of the time of processors")
    share = median(shares)
    yield Figure("commitment_cpu", share, "%", 5.0, share <= 5.0, ROUNDS)
    yield Figure("commitment_wall", median(walls), "%", None, None, ROUNDS)
    yield Figure("record", program_of(SMOL).layout.chunks * 512, "bytes a token", None, None, 1)


def _audits(say: Say) -> Iterator[Figure]:
    shares: dict[str, list[float]] = {"audit": [], "public_audit": [], "tenth": [], "replay": []}
    generating: list[float] = []
    sizes: dict[str, int] = {}
    for number in range(-1, ROUNDS):
        engine = engine_of()  # a fresh one: the prompt is read, not found in the cache
        try:
            response, _, cost = timed(partial(answer, engine, asked(PROMPT, OUTPUT, nonce=number + 1), PROMPT))
        finally:
            engine.close()
        some = sorted(np.random.default_rng(number + 1).choice(response.passes, response.passes // 10, False).tolist())
        spent = {
            "audit": _audited(response, range(response.passes), sizes, "trace"),
            "public_audit": _audited(response, range(response.passes), sizes, "public_trace", public=True),
            "tenth": _audited(response, some, sizes, "trace_of_a_tenth"),
            "replay": timed(partial(replay, program_of(SMOL), response))[2],
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
    for name, limit in (("audit", 1 / 6), ("tenth", 1 / 40), ("public_audit", None), ("replay", None)):
        share = median(shares[name])
        yield Figure(
            f"{name}_over_generating", share, "ratio", limit, None if limit is None else share <= limit, ROUNDS
        )
    for name, size in sizes.items():
        yield Figure(name, size / 1e6, "MB", None, None, 1)


def _audited(
    response: Response, positions: Sequence[int], sizes: dict[str, int], name: str, *, public: bool = False
) -> float:
    """Processor seconds of an audit of these positions; the trace's size is noted."""
    program = program_of(SMOL)
    blocks = list(trace(program, header_of(program, response, public=public), response.tokens, positions))
    sizes[name] = sum(map(len, blocks))
    secret = secrets.token_bytes(32)
    return timed(lambda: audit(program, response, blocks, secret=secret, positions=positions))[2]
