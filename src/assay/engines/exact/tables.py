"""The tables of the exact semantics: powers of two, logarithms, logistic function and sine, as whole numbers.

They are part of the semantics (docs/protocol.md), so they are computed with `decimal`, whose arithmetic is defined to
the last digit (General Decimal Arithmetic Specification 1.70), and never with a platform's maths library.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import lru_cache
from typing import Final

import numpy as np

_DIGITS: Final = Context(prec=50, rounding=ROUND_HALF_EVEN)

EXP2_BITS: Final = 30
"""Fraction bits of `exp2_table`."""
EXP2_STEPS: Final = 10
"""It has 2^10 intervals between exponents 0 and -1."""
SIGMOID_BITS: Final = 24
"""Fraction bits of `sigmoid_table`."""
SIGMOID_STEPS: Final = 8
"""It has 2^8 intervals for each unit of the argument, from 0 to SIGMOID_REACH."""
SIGMOID_REACH: Final = 16
"""Beyond it the logistic function is taken as at it: it is within 1.2e-7 of 1."""
SINE_BITS: Final = 30
"""Fraction bits of `sine_table`."""
SINE_STEPS: Final = 12
"""It has 2^12 intervals for the whole turn."""
LOG2_BITS: Final = 30
"""Fraction bits of `log2_table` and `tail_table`."""
LOG2_STEPS: Final = 10
"""`log2_table` has 2^10 intervals between 1 and 2, `tail_table` as many for each unit."""


@lru_cache(maxsize=1)
def exp2_table() -> np.ndarray:
    """int32 [1025]: entry i is 2^(30 - i/1024), rounded half to even."""
    step = _DIGITS.divide(_ln2(), Decimal(1 << EXP2_STEPS))
    return _rounded(
        _DIGITS.exp(_DIGITS.multiply(step, Decimal(-i))) * (1 << EXP2_BITS) for i in range((1 << EXP2_STEPS) + 1)
    )


@lru_cache(maxsize=1)
def sigmoid_table() -> np.ndarray:
    """int32 [4097]: entry i is 2^24 / (1 + exp(-i/256)), rounded half to even."""
    return _rounded(
        _DIGITS.divide(Decimal(1 << SIGMOID_BITS), 1 + _DIGITS.exp(Decimal(-i) / (1 << SIGMOID_STEPS)))
        for i in range((SIGMOID_REACH << SIGMOID_STEPS) + 1)
    )


@lru_cache(maxsize=1)
def log2_table() -> np.ndarray:
    """int32 [1025]: entry i is 2^30 log2(1 + i/1024), rounded half to even."""
    return _rounded(_log2(1 + Decimal(i) / (1 << LOG2_STEPS)) * (1 << LOG2_BITS) for i in range((1 << LOG2_STEPS) + 1))


@lru_cache(maxsize=1)
def tail_table() -> np.ndarray:
    """int32 [513]: entry i is 2^30 log2(-log2(1 - x) / x) for x = i/1024, rounded half to even; log2(log2 e) at 0."""
    parts = [Decimal(i) / (1 << LOG2_STEPS) for i in range(1, (1 << LOG2_STEPS - 1) + 1)]
    ratios = [_DIGITS.divide(1, _ln2()), *(_DIGITS.divide(-_log2(1 - x), x) for x in parts)]
    return _rounded(_log2(ratio) * (1 << LOG2_BITS) for ratio in ratios)


@lru_cache(maxsize=1)
def sine_table() -> np.ndarray:
    """int32 [4097]: entry i is 2^30 sin(2 pi i / 4096), rounded half to even."""
    turn = _DIGITS.multiply(2, _pi())
    return _rounded(
        _sine(_DIGITS.divide(_DIGITS.multiply(turn, i), 1 << SINE_STEPS)) * (1 << SINE_BITS)
        for i in range((1 << SINE_STEPS) + 1)
    )


def turns_per_position(base: Decimal, half_dims: int, factors: tuple[Decimal, ...] = ()) -> np.ndarray:
    """uint64 [half_dims]: by which part of 2^64 each pair of a head turns from one position to the next.

    Pair i turns by base^(-i / half_dims) radians (RoFormer, arXiv:2104.09864), divided by `factors[i]` where a model
    brings its own (Llama 3's long contexts).
    """
    turn = _DIGITS.multiply(2, _pi())
    ln_base = _DIGITS.ln(base)
    turns = []
    for i in range(half_dims):
        angle = _DIGITS.exp(_DIGITS.divide(_DIGITS.multiply(ln_base, -i), half_dims))
        if factors:
            angle = _DIGITS.divide(angle, factors[i])
        turns.append(int(_DIGITS.multiply(_DIGITS.divide(angle, turn), 1 << 64).to_integral_value()) % (1 << 64))
    return np.array(turns, dtype=np.uint64)


def _rounded(values: Iterable[Decimal]) -> np.ndarray:
    return np.array([int(value.to_integral_value(ROUND_HALF_EVEN)) for value in values], dtype=np.int32)


@lru_cache(maxsize=1)
def _ln2() -> Decimal:
    return _DIGITS.ln(Decimal(2))


def _log2(x: Decimal) -> Decimal:
    return _DIGITS.divide(_DIGITS.ln(x), _ln2())


@lru_cache(maxsize=1)
def _pi() -> Decimal:
    """Machin's formula: pi/4 = 4 arctan(1/5) - arctan(1/239)."""
    return _DIGITS.multiply(4, _DIGITS.subtract(_DIGITS.multiply(4, _arctan_of_inverse(5)), _arctan_of_inverse(239)))


def _arctan_of_inverse(x: int) -> Decimal:
    power = total = _DIGITS.divide(Decimal(1), x)
    for n in range(1, 40):
        power = _DIGITS.divide(power, -x * x)
        total = _DIGITS.add(total, _DIGITS.divide(power, 2 * n + 1))
    return total


def _sine(angle: Decimal) -> Decimal:
    """By its series, after bringing the angle into (-pi, pi]."""
    turn = _DIGITS.multiply(2, _pi())
    x = angle if angle <= _pi() else _DIGITS.subtract(angle, turn)
    term = total = x
    for n in range(1, 40):
        term = _DIGITS.divide(_DIGITS.multiply(term, _DIGITS.multiply(-x, x)), 2 * n * (2 * n + 1))
        total = _DIGITS.add(total, term)
    return total
