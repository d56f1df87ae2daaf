"""docs/exact.md in plain Python: arithmetic, tables, normalisation, turns, attention, gates. None of it is from src."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

SATURATED = 2**62 - 1


_ONE = 2**140
"""What stands for 1 below: enough for what is rounded to 30 bits."""


def _pi() -> Fraction:
    def arctan_of_inverse(x: int) -> Fraction:
        return sum((Fraction((-1) ** n, (2 * n + 1) * x ** (2 * n + 1)) for n in range(40)), Fraction(0))

    return 4 * (4 * arctan_of_inverse(5) - arctan_of_inverse(239))


def _series(x: int, start: int, step: int, sign: int) -> int:
    """x^start/start! + sign x^(start+step)/(start+step)! + …, of so many `_ONE`s."""
    term = x if start else _ONE
    total, n = 0, start
    while abs(term) > 2**10:
        total += term
        for _ in range(step):
            n += 1
            term = term * x // (n * _ONE)
        term *= sign
    return total


def _rounded(x: int, bits: int) -> int:
    """To so many bits after the point."""
    return round(Fraction(x * 2**bits, _ONE))


def _table(name: str) -> list[int]:
    ln2 = 2 * sum((Fraction(1, (2 * n + 1) * 3 ** (2 * n + 1)) for n in range(80)), Fraction(0))
    two_pi, ln2 = (round(x * _ONE) for x in (2 * _pi(), ln2))
    if name == "exp2":
        return [_rounded(_series(-ln2 * i // 1024, 0, 1, 1), 30) for i in range(1025)]
    if name == "sigmoid":
        step = _series(-_ONE // 256, 0, 1, 1)
        table, power = [], _ONE
        for _ in range(4097):
            table.append(round(Fraction(2**24 * _ONE, _ONE + power)))
            power = power * step // _ONE
        return table
    angles = [two_pi * (i if i <= 2048 else i - 4096) // 4096 for i in range(4097)]
    return [_rounded(_series(angle, 1, 2, -1), 30) for angle in angles]


EXP2, SIGMOID, SINE = (_table(name) for name in ("exp2", "sigmoid", "sine"))


def clip(x: int, most: int) -> int:
    """At most `most` in magnitude."""
    return max(-most, min(most, x))


def round_shift(x: int, s: int) -> int:
    """x / 2^s to the nearest, halves upwards; x * 2^-s, saturated."""
    if s > 62:
        return 0
    if s > 0:
        return (x + 2 ** (s - 1)) >> s
    if abs(x) > SATURATED >> min(-s, 62):
        return SATURATED if x > 0 else -SATURATED
    return x << -s if x else 0


def bits(x: Sequence[int]) -> int:
    """Of the largest magnitude."""
    return max(abs(each) for each in x).bit_length()


def narrow(x: Sequence[int], f: int) -> tuple[list[int], int]:
    """Activations, and their fraction bits."""
    if not any(x):
        return list(x), f
    s = bits(x) - 15
    return [clip(round_shift(each, s), 32767) for each in x], f - s


def divide(x: int, n: int) -> int:
    """To the nearest, halves upwards."""
    return (2 * x + n) // (2 * n)


def exp2_negative(x: int) -> int:
    """2^(15 - x), x with 16 fraction bits."""
    w, i, r = min(x >> 16, 40), x % 2**16 >> 6, x % 2**6
    return min(round_shift(EXP2[i] - ((EXP2[i] - EXP2[i + 1]) * r >> 6), 15 + w), 32767)


def sigmoid(x: int) -> int:
    """With 24 fraction bits, x with 16."""
    a = min(abs(x), 2**20 - 1)
    i, r = a >> 8, a % 2**8
    y = SIGMOID[i] + ((SIGMOID[i + 1] - SIGMOID[i]) * r >> 8)
    return y if x >= 0 else 2**24 - y


def sine(t: int) -> int:
    """Of parts of 2^64 of a turn, with 30 fraction bits."""
    i, r = t >> 52, (t >> 32) % 2**20
    return SINE[i] + ((SINE[i + 1] - SINE[i]) * r >> 20)


def cosine(t: int) -> int:
    """A quarter of a turn further."""
    return sine((t + 2**62) % 2**64)


def silu(x: int) -> int:
    """The gate of most models."""
    return round_shift(x * sigmoid(x), 24)


def gelu(x: int) -> int:
    """The gate of Gemma."""
    c = clip(x, 2**20)
    k = round_shift(round_shift(c * c, 16) * c, 16)
    return round_shift(x * sigmoid(round_shift((c + round_shift(k * 48012366, 30)) * 1713443940, 30)), 24)


def norm(x: Sequence[int], f: int, gain: Sequence[int], gain_fraction: int, epsilon: int) -> tuple[list[int], int]:
    """RMS norm, as activations."""
    s = max(0, bits(x) - 24, f - 24)
    y = [round_shift(each, s) for each in x]
    total = sum(each * each for each in y) + len(y) * round_shift(epsilon, 32 - 2 * (f - s))
    if total == 0:
        return narrow([0] * len(y), 0)
    u = 62 - total.bit_length()
    u -= u % 2
    v = 2**62 // math.isqrt(total * 2**u) >> 9
    return narrow([a * g * v for a, g in zip(y, gain, strict=True)], gain_fraction + 53 - u // 2)


def turned(x: Sequence[int], turns: Sequence[int], *, halves: bool) -> list[int]:
    """Position encoding of a head."""
    y, h = list(x), len(x) // 2
    for i, t in enumerate(turns):
        one, two = (i, i + h) if halves else (2 * i, 2 * i + 1)
        a, b = x[one], x[two]
        y[one] = round_shift(a * cosine(t) - b * sine(t), 30)
        y[two] = round_shift(a * sine(t) + b * cosine(t), 30)
    return y


def attend(
    query: Sequence[int], f: int, keys: Sequence[tuple[Sequence[int], int]],
    values: Sequence[tuple[Sequence[int], int]], scale: int,
) -> tuple[list[int], int]:  # fmt: skip
    """One head's mixed values, and their fraction bits."""
    scores = [
        clip(round_shift(sum(a * b for a, b in zip(query, key, strict=True)) * scale, f + other + 8), 2**40)
        for key, other in keys
    ]
    weights = [exp2_negative(max(scores) - score) for score in scores]
    lowest = min(other for _, other in values)
    total = [0] * len(query)
    for weight, (value, other) in zip(weights, values, strict=True):
        total = [t + round_shift(weight, other - lowest) * x for t, x in zip(total, value, strict=True)]
    return [divide(each * 2**8, sum(weights)) for each in total], lowest + 8
