"""Freivalds' test of one product: r . y = (W^T r) . x, as exact whole numbers (Freivalds 1977).

For a wrong y, at most one of the 2^31 values of some entry of r makes both sides equal: modulo 2^64 that would not
hold, because an error of 2^46 is zero there for every r that is a multiple of 2^18. So sums are kept in three words of
32 bits, the highest one signed and as wide as it gets.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from assay.engines.exact.kernels.scalars import compiled

WORD: Final = 0xFFFFFFFF
_POSITIVE: Final = 0x7FFFFFFF


@compiled
def agrees(r: np.ndarray, y: np.ndarray, v: np.ndarray, x: np.ndarray) -> bool:
    """Whether r . y = v . x, for `r` int32 [rows] (not negative), `y` int64 [rows], `v` int32 [3, columns] (digits to
    the base 2^31, the highest signed) and `x` int16 [columns]; rows under 2^30, |v . x| under 2^108."""
    low, middle, high = np.int64(0), np.int64(0), np.int64(0)
    for i in range(y.size):
        factor = np.int64(r[i]) & _POSITIVE
        below, above = factor * (y[i] & WORD), factor * (y[i] >> 32)
        low += below & WORD
        middle += (below >> 32) + (above & WORD)
        high += above >> 32
    one, two, three = np.int64(0), np.int64(0), np.int64(0)
    for i in range(x.size):
        value = np.int64(x[i])
        one += np.int64(v[0, i]) * value
        two += np.int64(v[1, i]) * value
        three += np.int64(v[2, i]) * value
    middle += low >> 32
    # one + 2^31 two + 2^62 three, in words of 32 bits.
    one += (two & 1) << 31
    two = (two >> 1) + ((three & 3) << 30) + (one >> 32)
    return (
        (low & WORD) == (one & WORD)
        and (middle & WORD) == (two & WORD)
        and high + (middle >> 32) == (three >> 2) + (two >> 32)
    )
