"""The sampler `gumbel/1` once more, one token at a time in plain Python: readable, slow, and equal to the bit."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from assay.core.request import SamplerSettings

LN2 = 0.6931471805599453


def ln(x: float) -> float:
    """Natural logarithm: exponent, then 2 artanh((m - 1) / (m + 1)) as a series."""
    mantissa, exponent = math.frexp(x)
    if mantissa < 0.7071067811865476:
        mantissa, exponent = mantissa * 2.0, exponent - 1
    s = (mantissa - 1.0) / (mantissa + 1.0)
    series = 1.0 / 19.0
    for n in range(17, 0, -2):
        series = series * (s * s) + 1.0 / n
    return exponent * LN2 + 2.0 * s * series


def position_key(seed: bytes, position: int) -> int:
    """The first 64 bits of SHA-256(seed ‖ position)."""
    return int.from_bytes(hashlib.sha256(seed + position.to_bytes(8, "big")).digest()[:8], "big")


def hash32(seed: bytes, position: int, token: int) -> int:
    """The upper half of SplitMix64 at state key + (token + 1) · gamma."""
    mask = 2**64 - 1
    z = (position_key(seed, position) + (token + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return (z ^ (z >> 31)) >> 32


def noise(hashed: int) -> float:
    """Gumbel noise of a 32-bit hash."""
    return -ln(-ln((hashed + 0.5) / 4294967296.0))


def weight(deficit: float) -> int:
    """floor(2^40 · exp(-deficit)) by a Taylor series."""
    octaves = deficit / LN2
    whole = math.floor(octaves)
    x = (octaves - whole) * -LN2
    power = 0.0
    for n in range(14, -1, -1):
        power = power * x + 1.0 / math.factorial(n)
    return math.floor(math.ldexp(power, 40 - whole))


def candidates(row: Sequence[float], settings: SamplerSettings, allowed: Sequence[bool] | None) -> dict[int, float]:
    """The tokens that masks and filters leave, in ascending order, each with its deficit."""
    logits = {i: x for i, x in enumerate(row) if allowed is None or allowed[i]}
    peak, temperature = max(logits.values()), settings.temperature / 1_000_000
    floor = float(np.float32(peak - 27.0 * temperature))
    left = {i: (peak - x) / temperature for i, x in logits.items() if x >= floor}
    if settings.top_k:
        left = {i: left[i] for i in sorted(left, key=lambda i: (left[i], i))[: settings.top_k]}
    if settings.top_p < 1_000_000:
        weights = {i: weight(x) for i, x in left.items()}
        enough, mass, kept = Fraction(sum(weights.values()) * settings.top_p, 1_000_000), 0, []
        for i in sorted(left, key=lambda i: (left[i], i)):
            kept.append(i)
            mass += weights[i]
            if mass >= enough:
                break
        left = {i: left[i] for i in kept}
    if settings.min_p:
        best = min(left, key=lambda i: (left[i], i))
        left = {i: x for i, x in left.items() if weight(x) * 1_000_000 >= settings.min_p << 40 or i == best}
    return dict(sorted(left.items()))


def scores(
    row: Sequence[float], settings: SamplerSettings, seed: bytes, position: int, allowed: Sequence[bool] | None = None
) -> dict[int, float]:
    """Noise minus deficit of every candidate; the temperature is not 0."""
    left = candidates(row, settings, allowed)
    return {i: noise(hash32(seed, position, i)) - x for i, x in left.items()}


def draw(
    row: Sequence[float], settings: SamplerSettings, seed: bytes, position: int, allowed: Sequence[bool] | None = None
) -> int:
    """The token drawn; the lowest id among equals."""
    if settings.temperature == 0:
        logits = {i: x for i, x in enumerate(row) if allowed is None or allowed[i]}
        return max(logits, key=lambda i: (logits[i], -i))
    drawn = scores(row, settings, seed, position, allowed)
    return max(drawn, key=lambda i: (drawn[i], -i))
