"""The sampler `gumbel/2` once more, one token at a time in plain Python: readable, slow, and equal to the bit."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Context, Decimal
from fractions import Fraction

from tests.core.sampler_reference import hash32

from assay.core.request import SamplerSettings

EXACT = Context(prec=60)
LN2 = EXACT.ln(Decimal(2))


def entry(x: Decimal) -> int:
    """A table's entry: 30 fraction bits."""
    return int((EXACT.multiply(x, 2**30)).to_integral_value())


def lg(x: Decimal) -> Decimal:
    """log2(x)."""
    return EXACT.divide(EXACT.ln(x), LN2)


EXP2 = [entry(EXACT.exp(EXACT.multiply(LN2, Decimal(-i) / 1024))) for i in range(1025)]
LOG2 = [entry(lg(Decimal(1024 + i) / 1024)) for i in range(1025)]
TAIL = [
    entry(lg(1 / LN2)),
    *(entry(lg(EXACT.divide(-lg(1 - x), x))) for x in (Decimal(i) / 1024 for i in range(1, 513))),
]
NATS = int(EXACT.divide(2**64 * 10**6, LN2).to_integral_value())


def between(table: Sequence[int], part: int, bits: int) -> int:
    """The table's value at part / 2^bits intervals, rounded down (for falling tables up)."""
    i, rest = divmod(part, 2**bits)
    step = abs(table[i + 1] - table[i]) * rest // 2**bits
    return table[i] + step if table[i + 1] >= table[i] else table[i] - step


def deficit(below: int, temperature: int) -> int:
    """Octaves that a logit is under the peak, 24 fraction bits."""
    quotient = NATS // temperature
    digits = quotient.bit_length()
    return below * (quotient >> (digits - 31)) >> (87 - digits)


def weight(deficit: int) -> int:
    """2^(40 - octaves), rounded down."""
    whole, part = divmod(deficit, 2**24)
    return (between(EXP2, part, 14) << 10) >> whole


def log2(x: int) -> int:
    """30 fraction bits; only the 32 highest bits of x count."""
    e = x.bit_length() - 1
    mantissa = x << (31 - e) if e <= 31 else x >> (e - 31)
    return (e << 30) + between(LOG2, mantissa - 2**31, 21)


def noise(hashed: int) -> int:
    """Octaves of Gumbel noise of a 32-bit hash, 24 fraction bits."""
    a = 2 * hashed + 1
    if a < 2**32:
        return ((30 << 30) - log2((33 << 30) - log2(a))) >> 6
    c = 2**33 - a
    return ((33 << 30) - log2(c) - between(TAIL, c, 23)) >> 6


def candidates(row: Sequence[int], settings: SamplerSettings, allowed: Sequence[bool] | None) -> dict[int, int]:
    """The tokens that masks and filters leave, the first one first, each with its deficit; the temperature is not 0."""
    ids = sorted((i for i in range(len(row)) if allowed is None or allowed[i]), key=lambda i: (-row[i], i))
    left = {i: deficit(row[ids[0]] - row[i], settings.temperature) for i in ids}
    if settings.top_k:
        left = dict(list(left.items())[: settings.top_k])
    if settings.top_p < 1_000_000:
        total, mass, kept = sum(map(weight, left.values())), 0, {}
        for i, d in left.items():
            kept[i] = d
            mass += weight(d)
            if mass >= Fraction(total * settings.top_p, 1_000_000):
                break
        left = kept
    if settings.min_p:
        left = {i: d for i, d in left.items() if weight(d) * 1_000_000 >= settings.min_p << 40 or i == ids[0]}
    return left


def draw(
    row: Sequence[int], settings: SamplerSettings, seed: bytes, position: int, allowed: Sequence[bool] | None = None
) -> int:
    """The token drawn; the lowest id among equals."""
    if settings.temperature == 0:
        return max((i for i in range(len(row)) if allowed is None or allowed[i]), key=lambda i: (row[i], -i))
    left = candidates(row, settings, allowed)
    return max(left, key=lambda i: (noise(hash32(seed, position, i)) - left[i], -i))
