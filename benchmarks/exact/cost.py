"""How the cost of an audit grows with a model's shape: a count of operations, held against measurements.

    generating a token   weights / w + steps
    auditing a pass      accumulators / a + steps
    steps                activations / s + attention / t

weights: bytes of packed weights; accumulators: rows of all matrices; activations: numbers of a record; attention:
multiply-adds of scores and mixes. The rates w, a, s and t are fitted to the smallest and the largest of a few random
models, and the others are predicted. docs/cost.md says what follows for large models.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from tests.engines.exact.models import write_model

from assay.apps.figures import Figure, Say
from assay.engines.exact.challenge import challenge
from assay.engines.exact.chunks import Chunks, encode_vector
from assay.engines.exact.convert import convert
from assay.engines.exact.program import Program, program_of
from assay.engines.exact.runner import Runner

SHAPES = {
    "6M": {"layers": 8, "width": 256, "heads": 4, "kv_heads": 2, "head_width": 64, "feed": 704},
    "27M": {"layers": 12, "width": 448, "heads": 7, "kv_heads": 7, "head_width": 64, "feed": 1184},
    "60M": {"layers": 16, "width": 576, "heads": 9, "kv_heads": 3, "head_width": 64, "feed": 1760},
    "127M": {"layers": 12, "width": 1024, "heads": 16, "kv_heads": 4, "head_width": 64, "feed": 2752},
    "235M": {"layers": 12, "width": 1408, "heads": 22, "kv_heads": 11, "head_width": 64, "feed": 3776},
}
"""The first and the last give the rates."""
LARGE = {
    "1B": {"layers": 16, "width": 2048, "heads": 32, "kv_heads": 8, "head_width": 64, "feed": 8192},
    "8B": {"layers": 32, "width": 4096, "heads": 32, "kv_heads": 8, "head_width": 128, "feed": 14336},
    "70B": {"layers": 80, "width": 8192, "heads": 64, "kv_heads": 8, "head_width": 128, "feed": 28672},
}
"""Those of Llama 3, with 5 bits a weight."""
POSITIONS = 128
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Counted:
    """What a model's shape gives, for one token at the mean position."""

    weights: int
    accumulators: int
    steps: int
    """Activations, and attention's multiply-adds as 1/64 of one each."""


def counted(program: Program) -> Counted:
    """Operations of a token, and of its pass's audit."""
    shape = program.shape
    attention = 2 * shape.layers * shape.heads * shape.head_width * POSITIONS // 2
    return Counted(
        weights=sum(packed.size for packed in program.products[:-1]),
        accumulators=sum(packed.rows for packed in program.products[:-1]),
        steps=program.layout.chunks * 256 + attention // 64,
    )


def imagined(layers: int, width: int, heads: int, kv_heads: int, head_width: int, feed: int) -> Counted:
    """The same for a shape that is too large to be measured here."""
    inner, kept = heads * head_width, kv_heads * head_width
    attention = 2 * layers * inner * POSITIONS // 2
    return Counted(
        weights=layers * (width * (2 * inner + 2 * kept) + 3 * width * feed) * 5 // 8,
        accumulators=layers * (inner + 2 * kept + width + 2 * feed + width),
        steps=layers * (2 * width + inner + feed + 2 * kept) + attention // 64,
    )


def measure(say: Say) -> Iterator[Figure]:
    """Measured and predicted time of an audit, as shares of generating."""
    counts: dict[str, Counted] = {}
    seconds: dict[str, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, shape in SHAPES.items():
            program = program_of(convert(write_model(Path(folder) / name, tied=True, **shape)))
            counts[name], seconds[name] = counted(program), _seconds(program)
            say(f"{name}: {seconds[name][0] * 1e3:.2f} ms a token, {seconds[name][1] * 1e3:.2f} ms its audit")
    first, *between, last = SHAPES
    ends = [counts[first], counts[last]]
    per_weight, per_step = _solve([(each.weights, each.steps) for each in ends], [seconds[n][0] for n in (first, last)])
    rest = [seconds[name][1] - per_step * counts[name].steps for name in (first, last)]
    per_accumulator = sum(rest) / sum(each.accumulators for each in ends)
    for name, shape in LARGE.items():
        each = imagined(**shape)
        generating = per_weight * each.weights + per_step * each.steps
        auditing = per_accumulator * each.accumulators + per_step * each.steps
        yield Figure(f"cost.{name}.predicted_audit_over_decoding", auditing / generating, "ratio", None, None, 1)
    for name in SHAPES:
        each = counts[name]
        generating = per_weight * each.weights + per_step * each.steps
        auditing = per_accumulator * each.accumulators + per_step * each.steps
        ratio = seconds[name][1] / seconds[name][0]
        yield Figure(f"cost.{name}.audit_over_decoding", ratio, "ratio", None, None, ROUNDS)
        if name in between:
            off = ratio / (auditing / generating)
            yield Figure(f"cost.{name}.measured_over_predicted", off, "ratio", None, None, ROUNDS)


def _solve(rows: list[tuple[int, int]], values: list[float]) -> tuple[float, float]:
    """Two rates that explain two times, none below zero."""
    one, other = np.linalg.lstsq(np.array(rows, float), np.array(values), rcond=None)[0]
    return max(float(one), 0.0), max(float(other), 0.0)


def _seconds(program: Program) -> tuple[float, float]:
    """Processor seconds of decoding a token, and of testing its pass in batches of 16."""
    tokens = np.random.default_rng(1).integers(3, program.vocabulary, POSITIONS).tolist()
    traced = Runner(program, sequences=1, positions=POSITIONS, batch=16, threads=1, traced=True)
    runner = Runner(program, sequences=1, positions=POSITIONS, batch=16, threads=1)
    bodies: list[Chunks] = []
    decoding, testing = [], []
    try:
        for start in range(0, POSITIONS, 16):
            traced.decode(tokens[start : start + 16], range(start, start + 16), 0, False)
            bodies += [encode_vector(traced.body(n)) for n in range(16)]
        test = challenge(program, bytes(32), batch=16, repetitions=1)
        for _ in range(ROUNDS):
            started = time.process_time()
            for position in range(POSITIONS):
                runner.decode(tokens[position : position + 1], [position], 0, False)
            decoding.append((time.process_time() - started) / POSITIONS)
            started = time.process_time()
            for start in range(0, POSITIONS, 16):
                part = slice(start, start + 16)
                runner.test(tokens[part], range(start, start + 16), bodies[part], {}, test)
            testing.append((time.process_time() - started) / POSITIONS)
    finally:
        traced.close()
        runner.close()
    return median(decoding), median(testing)
