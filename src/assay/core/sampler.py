"""The seeded sampler `gumbel/1`: which token follows from logits, settings and seed, the same on every machine.

Gumbel-max (Gumbel 1954; Maddison et al. 2014, "A* Sampling"): argmax of logit/temperature + noise draws from the
softmax. The noise is a function of (seed, position, token id), so that a verifier draws again. Every step is either
integer arithmetic or one IEEE-754 basic operation at a time (no libm, no fused or reordered sums), hence equal
logits give equal tokens on any processor.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from assay.core.completion import TopLogprobs
from assay.core.encoding import MICRO
from assay.core.errors import EngineError
from assay.core.request import SamplerSettings

REACH: Final = 27.0
"""Tokens further than this many nats under the best one are never drawn: noise lies in [-3.14, 22.88], and weights
below 2^-39 are nothing."""
_LN2: Final = 0.6931471805599453
_WEIGHT_BITS: Final = 40
_EXACT: Final = 2**12
"""So many weights sum up to less than 2^53, whole numbers all the way."""
_TAYLOR: Final = tuple(1.0 / math.factorial(n) for n in range(14, -1, -1))
_QUICK: Final = 3.0
"""Tokens whose noise is below this can only win if they are less than this far under the best (see `_noise`)."""
_QUICK_HASH: Final = int(2**32 * 0.9514)
"""Noise is over _QUICK only for hashes over about this: exp(-exp(-3)) = 0.95143."""


@dataclass(frozen=True, slots=True)
class Draw:
    """The outcome at one position."""

    token: int
    """The token that logits, settings and seed give."""
    gap: float
    """By how many nats (temperature applied) `token` beats the token asked about; infinite if filters exclude it."""


def draw(
    row: np.ndarray, settings: SamplerSettings, seed: bytes, position: int, allowed: np.ndarray | None = None
) -> int:
    """The token drawn at output position `position` (from 0).

    `row`: logits, float32 [n_vocab]. `seed`: 32 bytes. `allowed`: bool [n_vocab], which tokens a grammar leaves.

    Raises:
        EngineError: no logit is finite, or one is NaN.
    """
    ids, deficit = _candidates(row, settings, allowed)
    if settings.temperature == 0:
        return int(ids[0])
    return int(ids[_winner(hashes_at(seed, position, ids), deficit)])


def redraw(
    row: np.ndarray,
    settings: SamplerSettings,
    seed: bytes,
    position: int,
    token: int,
    allowed: np.ndarray | None = None,
) -> Draw:
    """Draw again, and measure how far `token` is from being drawn. Arguments as for `draw`.

    At temperature 0 the gap is in nats of the unscaled logits.
    """
    ids, deficit = _candidates(row, settings, allowed)
    if settings.temperature == 0:
        if not 0 <= token < row.size or (allowed is not None and not allowed[token]):
            return Draw(int(ids[0]), float("inf"))
        return Draw(int(ids[0]), float(row[ids[0]]) - float(row[token]))
    hashes = hashes_at(seed, position, ids)
    best = _winner(hashes, deficit)
    where = np.flatnonzero(ids == token)
    if not where.size:
        return Draw(int(ids[best]), float("inf"))
    two = np.array([best, where[0]])
    score = _noise(hashes[two]) - deficit[two]
    return Draw(int(ids[best]), float(score[0] - score[1]))


def top_logprobs(row: np.ndarray, token: int, count: int) -> TopLogprobs:
    """Log-probabilities of `token` and of the `count` most probable tokens (temperature 1, no filters).

    Computed in float32 and float64 with the platform's own exp: for people and statistical tests, never compared
    bit for bit.

    Raises:
        EngineError: no logit is finite, or one is NaN.
    """
    peak = _peak(row)
    total = peak + float(np.log(np.exp(row - np.float32(peak)).sum(dtype=np.float64)))
    ids = np.zeros(0, dtype=np.int64)
    if count:
        within = 16.0
        while ids.size < min(count, row.size):
            ids = np.flatnonzero(row >= np.float32(peak - within))
            within = within * 2 if within < 1e6 else math.inf
        ids = ids[np.lexsort((ids, -row[ids]))][:count]
    return TopLogprobs(
        chosen=float(row[token]) - total,
        ids=tuple(ids.tolist()),
        logprobs=tuple((row[ids].astype(np.float64) - total).tolist()),
    )


def _candidates(
    row: np.ndarray, settings: SamplerSettings, allowed: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Ids (ascending) that filters leave, and how far each is under the best, in nats with temperature applied.

    At temperature 0: the one best id.
    """
    if allowed is not None:
        row = np.where(allowed, row, np.float32(-np.inf))
    peak = _peak(row)
    if settings.temperature == 0:
        return np.array([np.argmax(row)]), np.zeros(1)
    temperature = settings.temperature / MICRO
    ids = np.flatnonzero(row >= np.float32(peak - REACH * temperature))
    deficit = (peak - row[ids].astype(np.float64)) / temperature
    if settings.top_k and ids.size > settings.top_k:
        last = np.partition(deficit, settings.top_k - 1)[settings.top_k - 1]
        which = _ranked(deficit, last)[: settings.top_k]
        ids, deficit = _keep(ids, deficit, which)
    if settings.top_p < MICRO:
        ids, deficit = _keep(ids, deficit, _nucleus(deficit, settings.top_p))
    if settings.min_p:
        near = np.flatnonzero(deficit <= 0.001 - math.log(settings.min_p / MICRO))  # spares the weights of most others
        near = near[_weights(deficit[near]).astype(np.int64) * MICRO >= settings.min_p << _WEIGHT_BITS]
        ids, deficit = _keep(ids, deficit, near if near.size else np.array([deficit.argmin()]))
    return ids, deficit


def _ranked(deficit: np.ndarray, most: float) -> np.ndarray:
    """Where deficits up to `most` are, the smallest first, the lowest id first among equals."""
    near = np.flatnonzero(deficit <= most)
    return near[np.argsort(deficit[near], kind="stable")]


def _nucleus(deficit: np.ndarray, top_p: int) -> np.ndarray:
    """The best candidates, as few as have `top_p` millionths of all weight."""
    weight = _weights(deficit)
    enough = -(-_total(weight) * top_p // MICRO)
    most = 1.0
    while True:  # sorting all takes longer than everything else
        order = _ranked(deficit, most)
        mass = np.cumsum(weight[order].astype(np.int64))
        if order.size == deficit.size or mass[-1] >= enough:
            return order[: int(np.searchsorted(mass, enough)) + 1]
        most *= 1.5


def _winner(hashes: np.ndarray, deficit: np.ndarray) -> int:
    """Where noise - deficit is largest; the first one among equals."""
    # Most tokens cannot win: far under the best, and without large noise. If a token scores over 0, those score less.
    quick = np.flatnonzero((deficit < _QUICK) | (hashes > _QUICK_HASH))
    score = _noise(hashes[quick]) - deficit[quick]
    best = int(np.argmax(score))
    if score[best] > 0.0:
        return int(quick[best])
    return int(np.argmax(_noise(hashes) - deficit))


def _peak(row: np.ndarray) -> float:
    with np.errstate(invalid="ignore"):
        peak = float(row.max())
    if not math.isfinite(peak):
        raise EngineError("the logits are not finite", "the model file or the engine is broken")
    return peak


def _keep(ids: np.ndarray, deficit: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    which = np.sort(which)
    return ids[which], deficit[which]


def _weights(deficit: np.ndarray) -> np.ndarray:
    """floor(2^40 exp(-deficit)): whole numbers as float64, so that sums under 2^53 do not depend on their order."""
    octaves = deficit / _LN2
    whole = np.floor(octaves)
    x = (octaves - whole) * -_LN2
    power = np.full_like(x, _TAYLOR[0])
    for coefficient in _TAYLOR[1:]:  # exp on (-ln 2, 0], by Horner: power * x + coefficient
        power *= x
        power += coefficient
    return np.floor(np.ldexp(power, (_WEIGHT_BITS - whole).astype(np.int32)))


def _total(weight: np.ndarray) -> int:
    """The exact sum of weights."""
    return sum(map(int, np.add.reduceat(weight, np.arange(0, weight.size, _EXACT))))


@lru_cache(maxsize=64)
def position_key(seed: bytes, position: int) -> int:
    """The generator's 64-bit key at output position `position` (from 0). `seed`: 32 bytes."""
    return int.from_bytes(hashlib.sha256(seed + position.to_bytes(8, "big")).digest()[:8], "big")


def hashes_at(seed: bytes, position: int, ids: np.ndarray) -> np.ndarray:
    """Upper 32 bits of SplitMix64 (Steele, Lea, Flood 2014) at counter `id`, keyed per position: uint64 [ids]."""
    with np.errstate(over="ignore"):
        z = np.uint64(position_key(seed, position)) + (ids.astype(np.uint64) + np.uint64(1)) * np.uint64(
            0x9E3779B97F4A7C15
        )
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))) >> np.uint64(32)


def _noise(hashes: np.ndarray) -> np.ndarray:
    """Standard Gumbel noise -ln(-ln(u)), u = (hash + 1/2) / 2^32: float64."""
    return -_ln(-_ln((hashes.astype(np.float64) + 0.5) / 4294967296.0))


def _ln(x: np.ndarray) -> np.ndarray:
    """Natural logarithm by basic operations only: exponent, then 2 artanh((m - 1) / (m + 1)) as a series."""
    mantissa, exponent = np.frexp(x)
    low = mantissa < 0.7071067811865476
    mantissa = np.where(low, mantissa * 2.0, mantissa)
    exponent = exponent - low
    s = (mantissa - 1.0) / (mantissa + 1.0)
    square = s * s
    series = np.full_like(s, 1.0 / 19.0)
    for n in (17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0):
        series = series * square + 1.0 / n
    return exponent * _LN2 + 2.0 * s * series
