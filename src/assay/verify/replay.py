"""Recompute an answer by prefill, and hold it to the last bit against what the receipt commits to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from assay.core.bundle import Bundle
from assay.core.completion import Prompt
from assay.core.errors import ReplayMismatch
from assay.core.evidence import evidence_root, logits_leaf
from assay.core.ports import Replayer
from assay.core.profile import Profile
from assay.core.sampler import draw

REGIME_FIELDS: Final = ("kv_type", "flash_attention")
"""Members of a profile that a pinned regime fixes: to claim the regime with another value is a contradiction."""
MACHINE_FIELDS: Final = ("engine", "build", "regime", "isa")
"""Members of a profile in which an honest prover may differ from this machine, and then compute other bits."""


@dataclass(frozen=True, slots=True, eq=False)
class Recomputed:
    """What the model gives at one output position."""

    index: int
    """Output position, from 0."""
    token: int
    """The token that the bundle has there."""
    row: np.ndarray
    """Logits, float32 [n_vocab]."""
    allowed: np.ndarray | None
    """Which tokens the grammar leaves, bool [n_vocab]; None if all."""


def recompute(bundle: Bundle, prompt: Prompt, replayer: Replayer) -> Iterator[Recomputed]:
    """Run the model over the prompt and the output; one value for each output token.

    `bundle` has passed `check_with_model`, which also bounds the work by the receipt's counts.
    """
    constraint = replayer.reader.constraint(bundle.request)
    tokens = (*prompt.tokens, *bundle.tokens)
    rows = replayer.rows(tokens, len(prompt.tokens))
    for index, (token, row) in enumerate(zip(bundle.tokens, rows, strict=True)):
        yield Recomputed(index, token, row, constraint.allowed() if constraint else None)
        if constraint:
            constraint.accept(token)


def machine_differences(prover: Profile, verifier: Profile) -> tuple[str, ...]:
    """Members of the profiles whose difference lets an honest prover's bits differ; nothing if bits must be equal."""
    return tuple(name for name in MACHINE_FIELDS if getattr(prover, name) != getattr(verifier, name))


def regime_contradictions(prover: Profile, verifier: Profile) -> tuple[str, ...]:
    """Members that the regime both claim fixes, and that the prover's profile states otherwise."""
    return tuple(name for name in REGIME_FIELDS if getattr(prover, name) != getattr(verifier, name))


def replay(bundle: Bundle, prompt: Prompt, replayer: Replayer) -> None:
    """Recompute every token and every logit, with zero tolerance.

    Raises:
        ReplayMismatch: a token is not the one that model, settings and seed give, or the logits are not those that
            the receipt commits to.
    """
    request, seed = bundle.request, bundle.request.seed
    leaves: list[bytes] = []
    wrong: list[tuple[int, int, int]] = []
    for here in recompute(bundle, prompt, replayer):
        leaves.append(logits_leaf(here.row))
        expected = draw(here.row, request.sampler, seed, here.index, here.allowed)
        if expected != here.token:
            wrong.append((here.index, expected, here.token))
    numbers_hold = evidence_root(leaves, request.nonce) == bundle.receipt.evidence
    if wrong:
        step, expected, actual = wrong[0]
        more = f", and {len(wrong) - 1} more tokens differ" if len(wrong) > 1 else ""
        numbers = "" if numbers_hold else "; the logits are not those of this model either"
        raise ReplayMismatch(
            f"token {step} is {actual} and model and seed give {expected}{more}{numbers}",
            step=step,
            expected=expected,
            actual=actual,
        )
    if not numbers_hold:
        raise ReplayMismatch(
            "every token could be the model's, but the logits that the receipt commits to are not: other weights, "
            "another prompt, another cache type or another profile computed them"
        )
