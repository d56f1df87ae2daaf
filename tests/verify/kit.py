"""What the tests of verification share: bundles of the tiny engine, and how to forge and re-sign them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from tests.tiny import (
    PROFILE,
    TinyModel,
    TinyReader,
    TinyReplayer,
    profile_at,
    tiny_completion,
    tiny_key,
)

from assay.core.bundle import Bundle
from assay.core.completion import Completion
from assay.core.evidence import logits_leaf, top_leaf
from assay.core.profile import Profile
from assay.core.receipt import attest, sign
from assay.core.request import Request
from assay.core.sampler import top_logprobs
from assay.verify.calibration import Calibration, Entry, Scale

KEY = tiny_key()
FREE = replace(PROFILE, regime="free", isa="another")
"""A prover whose bits may differ from those of a replayer with PROFILE."""
CALIBRATION = Calibration(
    entries=(
        Entry(
            model="*",
            prover="tiny/none",
            verifier="tiny/none",
            scales={
                "forward": Scale(False, 0.8, 0.08, 0.3, 4.0),
                "chosen": Scale(True, 0.01, 2.0, 0.5, 5.0),
                "opening": Scale(True, 0.0, 0.001, 0.0, 5.0),
                "sampler": Scale(True, 0.1, 8.0, 1.0, 5.0),
                "surprise": Scale(False, 0.0, 1.0, 0.0, 4.0),
            },
            responses=0,
            alarms=0,
            bound=1.0,
            history=((0.25, 0.5), (0.5, 0.1), (1.0, 0.013)),
        ),
    ),
    confidence=0.95,
)


class NoisyReplayer(TinyReplayer):
    """The tiny model on a machine whose logits vary by `noise` nats; `dice` seeds the variation."""

    def __init__(self, dice: int, *, noise: float = 0.1, seed: int = 0, profile: Profile = PROFILE) -> None:
        super().__init__(seed, profile=profile, noise=noise)
        self._random = np.random.default_rng(dice)


def completed(
    request: Request, change: Callable[[list[int]], list[int]] = list, *, seed: int = 0, noise: float = 0.0
) -> Completion:
    """What the tiny engine answers, after `change`, with the leaves of an honest prefill of it."""
    honest = tiny_completion(request, seed)
    tokens = change(list(honest.tokens))
    rows = prefill((*honest.prompt.tokens, *tokens), len(honest.prompt.tokens), seed=seed, noise=noise)
    leaves = tuple(leaf_of(request, row, token) for row, token in zip(rows, tokens, strict=True))
    return replace(honest, tokens=tuple(tokens), leaves=leaves if request.level != "signed" else ())


def prefill(tokens: Sequence[int], first: int, *, seed: int = 0, noise: float = 0.0) -> Iterator[np.ndarray]:
    """A prover's rows."""
    dice, model = np.random.default_rng(99), TinyModel(seed)
    for position in range(first, len(tokens)):
        row = model.logits(tokens[:position])
        yield row + dice.normal(0, noise, row.size).astype(np.float32) if noise else row


def leaf_of(request: Request, row: np.ndarray, token: int) -> bytes:
    """The evidence of one step."""
    return top_leaf(top_logprobs(row, token, 8)) if request.level == "statistical" else logits_leaf(row)


def bundled(request: Request, completion: Completion, *, profile: Profile | None = None, seed: int = 0) -> Bundle:
    """A signed receipt of `completion`, with all that travels with it."""
    profile = profile or profile_at(request.level)
    receipt = attest(
        request,
        completion,
        model=TinyModel(seed).digest,
        profile=profile,
        key=KEY,
        sequence=1,
        issued=1_790_000_001,
        amount=0,
    )
    opening = b"".join(completion.leaves) if request.level == "statistical" else b""
    return Bundle(receipt, request, profile, completion.tokens, opening)


def lie(bundle: Bundle, **changes: Any) -> Bundle:
    """The bundle with members of its receipt changed, signed again by its provider."""
    return replace(bundle, receipt=sign(replace(bundle.receipt, **changes), KEY))


def reader() -> TinyReader:
    """The tiny model's."""
    return TinyReader()
