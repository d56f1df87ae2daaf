"""The integer sampler `gumbel/2`, to be read: which token follows from whole-number logits, settings and seed.

It draws as `gumbel/1` does (core/sampler.py): the argmax of noise - deficit over what mask and filters leave, with the
same generator. But everything is whole numbers of at most 63 bits, and nats have become octaves (powers of two), so
that one multiplication is all that the temperature costs. The fast form is kernels/sampling.py; tests hold both equal.

Candidates have one order: the larger logit first, the lower id first among equals. Every filter keeps the first so
many in that order, so what is left is told by its last member, the **cut**.

A dispute over a drawn token goes so. The prover names the drawn token, the peak and, where top-k or top-p apply, the
cut; each one's logit is a function of one committed accumulator, and its score of that logit and the peak. It loses to

- one token that comes before the peak;
- one token up to the cut that `min_p` leaves and that beats the drawn one: for each of the two a deficit, a hash and a
  noise (`deficits`, `noise`: a multiplication, SplitMix64, two interpolations in tables of 4 and 2 KB);
- a drawn token that is itself beyond the cut or under `min_p`: the same functions once;
- a wrong cut: `top_k` says how many tokens are up to the cut, `top_p` that their weights are just enough of the sum of
  all, which the prover states too. Counts and sums add up over chunks of the vocabulary, so a wrong one is bisected
  to the one chunk of accumulators that it is wrong in, whose weights are then summed (`weights`: one interpolation
  each).

The mask follows from the request and the tokens before, and is the same for both sides.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np

from assay.core import sampler
from assay.core.completion import TopLogprobs
from assay.core.encoding import MICRO
from assay.core.errors import EngineError
from assay.core.request import SamplerSettings
from assay.core.sampler import hashes_at
from assay.engines.exact.reference import LOGIT_FRACTION
from assay.engines.exact.tables import (
    EXP2_BITS,
    EXP2_STEPS,
    LOG2_BITS,
    LOG2_STEPS,
    exp2_table,
    log2_table,
    tail_table,
)

OCTAVE: Final = 24
"""Fraction bits of deficits, noise and scores, which count octaves."""
MASS_BITS: Final = 40
"""The weight of a token at the peak is 2^40, and 0 for one more than MASS_BITS octaves under it."""
NATS: Final = 26613026195688644983488525
"""10^6 log2(e) 2^64, rounded half to even: octaves of a nat at a temperature of one millionth."""
RATE_BITS: Final = 31
"""Bits of the multiplier that makes logits deficits."""


def draw(
    logits: np.ndarray, settings: SamplerSettings, seed: bytes, position: int, allowed: np.ndarray | None = None
) -> int:
    """The token drawn at output position `position` (from 0).

    `logits`: int32 or int64 [vocabulary], at most 2^31 - 1 in magnitude, LOGIT_FRACTION fraction bits; the vocabulary
    has at most 2^22 tokens. `seed`: 32 bytes. `allowed`: bool [vocabulary], which tokens a grammar leaves.

    Raises:
        EngineError: no token is left.
    """
    ids = ordered(logits, allowed)
    if settings.temperature == 0:
        return int(ids[0])
    deficit = deficits(logits[ids[0]].astype(np.int64) - logits[ids], settings.temperature)
    left = kept(deficit, settings)
    ids, deficit = ids[:left], deficit[:left]
    score = noise(hashes_at(seed, position, ids)) - deficit
    return int(ids[score == score.max()].min())


def ordered(logits: np.ndarray, allowed: np.ndarray | None = None) -> np.ndarray:
    """Ids of the tokens that the mask leaves: the largest logit first, the lowest id first among equals.

    Raises:
        EngineError: no token is left.
    """
    ids = np.arange(logits.size) if allowed is None else np.flatnonzero(allowed)
    if not ids.size:
        raise nothing_left()
    return ids[np.argsort(-logits[ids].astype(np.int64), kind="stable")]


def nothing_left() -> EngineError:
    """The mask allows no token."""
    return EngineError("no token is left to draw from", "the grammar of the request allows none here")


def kept(deficit: np.ndarray, settings: SamplerSettings) -> int:
    """How many of the candidates the filters leave: top-k, then top-p of those, then min-p; at least one.

    `deficit`: int64, in the candidates' order.
    """
    count = min(settings.top_k, deficit.size) if settings.top_k else deficit.size
    if settings.top_p < MICRO:
        mass = np.cumsum(weights(deficit[:count]))
        count = min(count, int(np.searchsorted(mass, enough(int(mass[-1]), settings.top_p))) + 1)
    if settings.min_p:
        least = -(-(settings.min_p << MASS_BITS) // MICRO)  # weight * 10^6 >= min_p * 2^40, within 63 bits
        count = min(count, max(1, int((weights(deficit) >= min(least, 2 << MASS_BITS)).sum())))
    return count


def enough(total: int, top_p: int) -> int:
    """Weight that `top_p` millionths of `total` are, rounded up."""
    return -(-total * top_p // MICRO)


@lru_cache(maxsize=64)
def rate(temperature: int) -> tuple[int, int]:
    """A multiplier of RATE_BITS bits and a shift: deficit = (peak - logit) * multiplier >> shift.

    `temperature`: millionths, from 1 to 2^53 - 1. The shift is from 2 to 55.
    """
    quotient = NATS // temperature
    spare = quotient.bit_length() - RATE_BITS
    return quotient >> spare, LOGIT_FRACTION + 64 - OCTAVE - spare


def deficits(below: np.ndarray, temperature: int) -> np.ndarray:
    """Octaves by which tokens are less probable than the best: int64, OCTAVE fraction bits, rounded down.

    `below`: int64, peak - logit. `temperature`: millionths, not 0.
    """
    multiplier, shift = rate(temperature)
    return below * multiplier >> shift


def weights(deficit: np.ndarray) -> np.ndarray:
    """2^(40 - deficit / 2^24), from the table by linear interpolation, rounded down: int64."""
    table = exp2_table().astype(np.int64)
    drop = OCTAVE - EXP2_STEPS
    part = deficit & ((1 << OCTAVE) - 1)
    index, rest = part >> drop, part & ((1 << drop) - 1)
    fine = table[index] - ((table[index] - table[index + 1]) * rest >> drop)
    return fine << (MASS_BITS - EXP2_BITS) >> np.minimum(deficit >> OCTAVE, MASS_BITS + 1)


def noise(hashes: np.ndarray) -> np.ndarray:
    """Gumbel noise in octaves, -log2(-log2(u)) with u = (hash + 1/2) / 2^32: int64, OCTAVE fraction bits, rounded down.

    `hashes`: uint64 [n], of 32 bits. Where u is over 1/2, x = 1 - u tells it apart: -log2(u) is x times a smooth
    function of x, whose logarithm is `tail_table`. (Standard Gumbel noise in octaves is larger by -log2(ln 2).)
    """
    twice = 2 * hashes.astype(np.int64) + 1
    rest = (1 << 33) - twice  # x = rest / 2^33
    upper = (33 << LOG2_BITS) - log2(rest) - _tail(np.minimum(rest, (1 << 32) - 1))
    lower = (LOG2_BITS << LOG2_BITS) - log2((33 << LOG2_BITS) - log2(twice))
    return np.where(rest < 1 << 32, upper, lower) >> (LOG2_BITS - OCTAVE)


def log2(x: np.ndarray) -> np.ndarray:
    """Of whole numbers from 1 to 2^38 - 1: int64, LOG2_BITS fraction bits, from the table by linear interpolation.

    Of numbers over 2^32 the upper 32 bits count.
    """
    table = log2_table().astype(np.int64)
    length = np.zeros_like(x)
    for bits in (32, 16, 8, 4, 2, 1):
        length += bits * (x >> length >= 1 << bits)
    mantissa = x << np.maximum(31 - length, 0) >> np.maximum(length - 31, 0)  # 32 bits, the highest is set
    drop = 31 - LOG2_STEPS
    index, rest = (mantissa >> drop) - (1 << LOG2_STEPS), mantissa & ((1 << drop) - 1)
    return (length << LOG2_BITS) + table[index] + ((table[index + 1] - table[index]) * rest >> drop)


def _tail(rest: np.ndarray) -> np.ndarray:
    table = tail_table().astype(np.int64)
    drop = 33 - LOG2_STEPS
    index, part = rest >> drop, rest & ((1 << drop) - 1)
    return table[index] + ((table[index + 1] - table[index]) * part >> drop)


def top_logprobs(logits: np.ndarray, token: int, count: int) -> TopLogprobs:
    """Log-probabilities for people, in floating point: `core.sampler.top_logprobs` of whole-number logits."""
    return sampler.top_logprobs(logits.astype(np.float32) * np.float32(2.0**-LOGIT_FRACTION), token, count)
