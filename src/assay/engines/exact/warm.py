"""The first use of the kernels on a machine compiles them, which takes half a minute: when it is seen to be done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numba
import numpy as np

from assay.core.hashing import ZERO
from assay.core.request import SamplerSettings
from assay.engines.exact.kernels import layers
from assay.engines.exact.kernels.sampling import draw
from assay.engines.exact.program import Program
from assay.engines.exact.record import record_root
from assay.engines.exact.runner import Runner
from assay.engines.exact.sampling import top_logprobs


def is_compiled() -> bool:
    """The kernels of this version were used here before."""
    settings: Any = numba.config
    return any(Path(settings.CACHE_DIR).rglob(f"{Path(layers.__file__).stem}.run-*.nbi"))


def warm(program: Program) -> None:
    """Compute one token, with all that an answer needs, so that the first answer waits for no compiler."""
    runner = Runner(program, sequences=1, positions=2, batch=2, threads=1)
    try:
        runner.decode([0, 0], [0, 1], 0, [False, True])
        record_root(program.layout, runner.record(1))
        row = runner.logits(1)
        for settings in (SamplerSettings(), SamplerSettings(top_k=2, top_p=500_000, min_p=1), SamplerSettings(0)):
            draw(row, settings, ZERO, 0, None)
        draw(row, SamplerSettings(), ZERO, 0, np.ones(len(row), bool))
        top_logprobs(row, 0, 1)
    finally:
        runner.close()
