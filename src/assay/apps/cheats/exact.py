"""Dishonest providers on the exact engine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from typing_extensions import override

from assay.apps.cheats.impostors import second_best
from assay.apps.exact import folder
from assay.core.request import SamplerSettings
from assay.engines.exact.cache import open_program
from assay.engines.exact.decoder import Row
from assay.engines.exact.engine import ExactAnswering, ExactEngine
from assay.engines.exact.kernels.state import DOWN, UP
from assay.engines.exact.program import Program
from assay.engines.exact.tracing import HONEST, Alteration
from assay.engines.llama_model import LlamaModel
from assay.engines.llama_reader import LlamaReader

if TYPE_CHECKING:
    from assay.apps.cheats.catalogue import Workshop

ALTERED: Final = 16
"""The position whose pass is not what it should be: within the prompt of nearly every chat."""


def exact_engine(
    shop: Workshop,
    path: Path | None = None,
    *,
    answering: type[ExactAnswering] = ExactAnswering,
    alter: Alteration = HONEST,
) -> ExactEngine:
    """An exact engine of this or another model, under the honest model's name."""
    if path is None:
        program = open_program(shop.path, shop.digest, folder())
    else:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
        program = open_program(path, digest, shop.scratch)
    return ExactEngine(
        program,
        LlamaReader(LlamaModel(path or shop.path, vocab_only=True), limit=shop.context),
        name=shop.name,
        digest=shop.digest,
        parallel=shop.parallel,
        context=shop.context,
        threads=shop.threads,
        answering=answering,
        alter=alter,
    )


def _changed_record(program: Program, position: int, record: np.ndarray) -> np.ndarray:
    """The activation that would follow from the accumulator that `_changed_body` changes."""
    if position != ALTERED:
        return record
    plan, shape = program.plan, program.shape
    changed = record.copy()
    at = plan.inputs[DOWN] + shape.layers // 2 * plan.inputs_step + shape.feed // 2
    changed[at] += 1 if changed[at] < 0 else -1
    return changed


def _changed_body(program: Program, position: int, body: np.ndarray) -> np.ndarray:
    if position != ALTERED:
        return body
    plan, shape = program.plan, program.shape
    changed = body.copy()
    changed.reshape(shape.layers, -1)[shape.layers // 2, plan.offsets[UP] + shape.feed // 2] += 1 << 20
    return changed


ONE_ACCUMULATOR: Final = Alteration(_changed_record, _changed_body)
"""One number of one product of one layer, for one token, is another one, and so is what follows from it."""


def drawn_otherwise(change: Callable[[SamplerSettings], SamplerSettings]) -> type[ExactAnswering]:
    """Draws with other settings but the right seed, so that only the settings are wrong."""

    class Otherwise(ExactAnswering):
        @property
        @override
        def sampler(self) -> SamplerSettings:
            return change(super().sampler)

    return Otherwise


class ExactSteered(ExactAnswering):
    """Replaces one token, the eighth, by the next best one and goes on honestly from there."""

    @override
    def choose(self, row: Row, index: int, allowed: np.ndarray | None) -> int:
        """See `ExactAnswering.choose`."""
        token = super().choose(row, index, allowed)
        return second_best(self, row.logits, token) if index == 7 else token
