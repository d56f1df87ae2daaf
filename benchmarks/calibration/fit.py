"""Thresholds of the statistical tests from the published data, and what they achieve on it."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from assay.verify.calibration import TESTS, Calibration, Entry, Scale, Test, largest_product, limit_of_block

CONFIDENCE: Final = 0.95
EDGES: Final = (0.4, 0.6, 0.8, 1.0)
"""Severities at which an answer counts as evidence in a history."""
GAUSSIAN: Final = 4.0
"""Threshold of `forward` and `surprise`, averages over many tokens, in standard deviations."""
MARGIN: Final = 2.0
"""Threshold of the sums, whose tails are heavier: this many times the largest deviation of the fitting set."""
PROVER: Final = "llama.cpp/f16"
SETS: Final = {
    PROVER: ("honest", "held-out"),
    "foreign": ("honest", "foreign-held-out"),
}
"""Fitting and held-out set of each class of provers; a class whose data are not there gets no entry."""
VERIFIER: Final = "llama.cpp/bf16+f16"
"""The class of the pinned regime."""
Row = tuple[int, dict[Test, float]]
"""Tokens of an answer and its statistics."""


def fit(directory: Path, target: Path) -> str:
    """Write the calibration file; returns a table of what it achieves."""
    data = {path.stem: read(path) for path in sorted(directory.glob("*.csv"))}
    entries: list[dict[str, object]] = []
    each = 1 - (1 - CONFIDENCE) / len(EDGES)
    lines = ["set                      answers  rejected  forward  chosen  opening  sampler  surprise"]
    for prover, (fitting, held_out) in SETS.items():
        if not {fitting, held_out} <= set(data):
            continue
        scales = {test: scale_of(test, data[fitting]) for test in TESTS if test != "surprise" or prover == "foreign"}
        draft = Entry("*", prover, VERIFIER, scales, 0, 0, 1.0)
        severities = [severity(draft, row) for row in data[held_out]]
        alarms = sum(worst > 1 for worst in severities)
        reached = [sum(worst >= edge for worst in severities) for edge in EDGES]
        entries.append(
            {
                "model": "*",
                "prover": prover,
                "verifier": VERIFIER,
                "scales": {test: rounded(scale) for test, scale in scales.items()},
                "fitted_on": len(data[fitting]),
                "responses": len(severities),
                "alarms": alarms,
                "bound": ceiling(at_most(alarms, len(severities), CONFIDENCE)),
                "history": [
                    [edge, ceiling(at_most(count, len(severities), each))]
                    for edge, count in zip(EDGES, reached, strict=True)
                ],
            }
        )
        for name, rows in data.items():
            if class_of(name) == prover:
                lines.append(line(name, rows, draft))
    value = {
        "about": "Thresholds of the statistical tests, made by `python -m benchmarks.calibration` from its data",
        "confidence": CONFIDENCE,
        "entries": entries,
        "data": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.glob("*.csv"))},
        "provenance": json.loads((directory / "provenance.json").read_text()),
    }
    target.write_text(json.dumps(value, indent=1) + "\n")
    calibration = Calibration.from_json(target.read_bytes())
    lines.append("")
    fitted = {entry.prover: entry for entry in calibration.entries}
    lines += [
        pooled_line(name, rows, fitted[class_of(name)])
        for name, rows in data.items()
        if name != "honest" and class_of(name) in fitted
    ]
    return "\n".join(lines)


def class_of(name: str) -> str:
    """The class of provers that a set of answers is about: the first word of its name is that of the held-out set."""
    first = name.split("-")[0]
    return next((prover for prover, (_, held_out) in SETS.items() if held_out.split("-")[0] == first), PROVER)


def read(path: Path) -> list[Row]:
    """The statistics of one kind's answers."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [(int(row["tokens"]), {test: float(row[test]) for test in TESTS if row[test]}) for row in rows]


def scale_of(test: Test, rows: Sequence[Row]) -> Scale:
    """How a statistic behaves over honest answers."""
    values = [(tokens, found[test]) for tokens, found in rows if test in found]
    if test == "opening":  # zero for every honest answer: only rounding is left
        return Scale(True, 0.0, 0.001, 0.0, 5.0)
    if test == "surprise":  # standardised already: nothing is fitted
        return Scale(False, 0.0, 1.0, 0.0, GAUSSIAN)
    if test == "forward":
        mean = statistics.fmean(x for _, x in values)
        between, within = split_variance([(tokens, (x - mean) ** 2) for tokens, x in values])
        # Short answers decide how the variance falls; longer ones than were tried are not trusted to vary much less.
        between = max(between, math.hypot(between, within / 8) / 2)
        return Scale(False, mean, between, within, GAUSSIAN)
    total = sum(tokens for tokens, _ in values)
    mean = sum(x for _, x in values) / total
    within = math.sqrt(sum((x - tokens * mean) ** 2 for tokens, x in values) / total)
    # One token can add much: short answers get the room of an answer of 64 tokens.
    draft = Scale(True, mean, within * 8, within, 1.0)
    return Scale(True, mean, within * 8, within, MARGIN * max(draft.severity(x, tokens) for tokens, x in values))


def split_variance(squares: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """between and within of squared deviations ≈ between² + within²/n, by least squares with neither negative."""
    x = [1 / tokens for tokens, _ in squares]
    y = [square for _, square in squares]
    mean_x, mean_y = statistics.fmean(x), statistics.fmean(y)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)
    slope = min(max(slope, 0.0), mean_y / mean_x)
    return math.sqrt(max(mean_y - slope * mean_x, 1e-6)), math.sqrt(slope)


def severity(entry: Entry, row: Row) -> float:
    """The largest severity of an answer's tests."""
    tokens, found = row
    return max(entry.scales[test].severity(x, tokens) for test, x in found.items())


def at_most(hits: int, of: int, confidence: float) -> float:
    """Upper confidence bound of a probability after `hits` in `of` trials (Clopper and Pearson 1934)."""
    return bisect(lambda p: sum(math.comb(of, k) * p**k * (1 - p) ** (of - k) for k in range(hits + 1)), 1 - confidence)


def bisect(falling: Callable[[float], float], value: float) -> float:
    """Where a falling function on [0, 1] takes a value."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > value else (low, middle)
    return high


def ceiling(x: float) -> float:
    """Rounded up to five digits."""
    return min(math.ceil(x * 1e5) / 1e5, 1.0)


def rounded(scale: Scale) -> dict[str, object]:
    """For the file."""
    numbers = {name: float(f"{getattr(scale, name):.5g}") for name in ("mean", "between", "within", "threshold")}
    return {"per_token": scale.per_token, **numbers}


def line(name: str, rows: Sequence[Row], entry: Entry) -> str:
    """How many answers of a set each test rejects."""
    by_test = [
        sum(entry.scales[test].severity(found[test], n) > 1 for n, found in rows if test in found)
        if test in entry.scales
        else 0
        for test in TESTS
    ]
    rejected = sum(severity(entry, row) > 1 for row in rows)
    return f"{name:24} {len(rows):7}  {rejected:8}  " + "  ".join(f"{count:7}" for count in by_test)


def pooled_line(name: str, rows: Sequence[Row], entry: Entry) -> str:
    """How many blocks of eight consecutive answers are rejected."""
    found = [severity(entry, row) for row in rows]
    # Every eighth: neighbours answer the same prompt.
    step = len(found) // 8
    blocks = [found[start::step][:8] for start in range(step)]
    rejected = sum(largest_product(map(entry.evidence, block)) >= limit_of_block(1) for block in blocks)
    return f"{name:24} {len(blocks):7} blocks of 8, {rejected} rejected"
