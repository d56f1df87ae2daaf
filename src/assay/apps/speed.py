"""How fast this machine decodes, and how many threads to use."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from assay.engines.llama_context import LlamaContext
from assay.engines.llama_model import LlamaModel

if TYPE_CHECKING:
    from assay.engines.exact.program import Program

MARGIN: Final = 1.2
"""More threads are taken only if they are so much faster: on a busy machine they stand in each other's way."""
_WARM: Final = 4
_POSITIONS: Final = 256


def measure(model: LlamaModel, *, tokens: int = 32) -> Mapping[int, float]:
    """Tokens per second of one stream by number of threads: one, and all cores but one."""
    return {threads: _rate(model, threads, tokens) for threads in sorted({1, max(1, (os.cpu_count() or 1) - 1)})}


def choose_threads(model: LlamaModel) -> int:
    """The number of threads to decode with here; measures for a moment where there is a choice."""
    if (os.cpu_count() or 1) <= 2:
        return 1
    rates = measure(model, tokens=12)
    best = max(rates, key=lambda threads: rates[threads])
    return best if rates[best] > MARGIN * rates[1] else 1


def measure_exact(program: Program, *, tokens: int = 16) -> tuple[bool, float]:
    """Whether the exact engine gives the same in passes of one token and of many, and tokens per second of the former.

    Both runs are of the same arbitrary tokens.
    """
    from assay.engines.exact.runner import Runner

    ids = [n * 97 % program.vocabulary for n in range(tokens)]
    one, many = (Runner(program, sequences=1, positions=tokens, batch=tokens, threads=1) for _ in range(2))
    try:
        many.decode(ids, range(tokens), 0, True)
        one.decode(ids[:1], [0], 0, True)
        started = time.perf_counter()
        for position in range(1, tokens):
            one.decode(ids[position : position + 1], [position], 0, True)
        rate = (tokens - 1) / (time.perf_counter() - started)
        last = tokens - 1
        alike = (one.record(0) == many.record(last)).all() and (one.logits(0) == many.logits(last)).all()
        return bool(alike), rate
    finally:
        one.close()
        many.close()


def _rate(model: LlamaModel, threads: int, tokens: int) -> float:
    token = model.tokenizer.bos() or 0
    with LlamaContext(model, n_ctx=_POSITIONS, n_threads=threads, n_ubatch=32) as context:
        started = 0.0
        for position in range(_WARM + tokens):
            if position == _WARM:
                started = time.perf_counter()
            context.decode([token], [position], 0, True)
            token = int(context.logits(0).argmax())
        return tokens / (time.perf_counter() - started)
