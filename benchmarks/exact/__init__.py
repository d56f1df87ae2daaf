"""The exact engine: one answer everywhere, its quality, speed, commitments and audits, and faults that must not pass.

`ASSAY_BENCH_SCALE` (1 by default) multiplies how many faults, honest audits and questions are tried; every figure says
its sample size.
"""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks._dispute import dispute_figures
from benchmarks._quality import text_figures
from benchmarks.exact import audits, cost, faults, one_answer, speed
from benchmarks.task import task_figures

from assay.apps.figures import Figure, Say
from assay.apps.wiring import find_model

MODELS = ("smollm2-135m", "gemma3-270m")


def measure(say: Say) -> Iterable[Figure]:
    """All parts, the short ones first."""
    yield from speed.measure(say)
    yield from audits.measure(say)
    yield from cost.measure(say)
    yield from one_answer.measure(say)
    for name in MODELS:
        path = find_model(name).path
        for figure in (*text_figures(say, path, ()), *task_figures(say, path)):
            yield Figure(f"{name}.{figure.name}", figure.value, figure.unit, figure.limit, figure.holds, figure.n)
    yield from dispute_figures(say)
    yield from faults.measure(say)
