# pragma version 0.4.3
"""
@title The exact semantics' arithmetic, for one small step
@license Apache-2.0
@notice Mirrors `dispute/integers.py` and `dispute/draws.py`, function by function.
@dev Tables are the code of another contract, big-endian numbers of four bytes: exp2, log2 and tail one behind the other,
     or the logistic function, or the sine.
"""

TABLES: immutable(address)
EXP2: constant(uint256) = 0
LOG2: constant(uint256) = 1025
TAIL: constant(uint256) = 2050
SIGMOID: constant(uint256) = 0
SINE: constant(uint256) = 0
LIMIT: constant(int256) = 32767
MOST: constant(int256) = 2**31 - 1
SATURATED: constant(int256) = 2**62 - 1
RESIDUAL: constant(int256) = 16
LOG_FRACTION: constant(int256) = 16
STREAM_LIMIT: constant(int256) = 2**47 - 1
NORM_BITS: constant(int256) = 24
GELU_CUBE: constant(int256) = 48012366
GELU_SCALE: constant(int256) = 1713443940


@deploy
def __init__(tables: address):
    TABLES = tables


@internal
@view
def _entry(at: uint256) -> int256:
    """
    @return An entry of the tables.
    """
    return convert(convert(slice(TABLES.code, 4 * at, 4), int32), int256)


@internal
@pure
def _clip(x: int256, most: int256) -> int256:
    return max(-most, min(most, x))


@internal
@pure
def _shifted(x: int256, by: int256) -> int256:
    """
    @return x / 2^by to the nearest, halves upwards; x 2^-by, saturated, where `by` is negative.
    """
    if by > 0:
        if by > 62:
            return 0
        return (x + (1 << convert(by - 1, uint256))) >> convert(by, uint256)
    left: uint256 = convert(min(-by, 62), uint256)
    if abs(x) <= SATURATED >> left:
        return x << left
    if x > 0:
        return SATURATED
    return -SATURATED


@internal
@pure
def _length(x: int256) -> int256:
    """
    @return Bits of a number's magnitude.
    """
    rest: uint256 = convert(abs(x), uint256)
    length: int256 = 0
    for step: uint256 in [128, 64, 32, 16, 8, 4, 2, 1]:
        if rest >> step > 0:
            rest = rest >> step
            length += convert(step, int256)
    if rest > 0:
        length += 1
    return length


@internal
@pure
def _narrow_scale(most: int256, fraction: int256) -> (int256, int256):
    """
    @return By how much numbers of such a magnitude are shifted to have 15 bits, and their fraction bits then.
    """
    if most == 0:
        return 0, fraction
    by: int256 = self._length(most) - 15
    return by, fraction - by


@internal
@pure
def _narrowed(x: int256, by: int256) -> int256:
    return self._clip(self._shifted(x, by), LIMIT)


@internal
@pure
def _norm_shift(most: int256, fraction: int256) -> int256:
    return max(0, max(self._length(most) - NORM_BITS, fraction - NORM_BITS))


@internal
@pure
def _inverse_root(squares: int256, n: int256, fraction: int256, small: int256) -> (int256, int256):
    """
    @return 1 / sqrt(mean of squares + epsilon), and 53 less its fraction bits; 0 and 0 of nothing.
    """
    total: int256 = squares + n * self._shifted(small, 32 - 2 * fraction)
    assert total >= 0 and total < 2**62, "sum of squares"
    if total == 0:
        return 0, 0
    up: int256 = (62 - self._length(total)) // 2 * 2
    root: int256 = convert(isqrt(convert(total << convert(up, uint256), uint256)), int256)
    return ((2**62) // root) >> 9, 53 - up // 2


@internal
@view
def _exp2_negative(x: int256) -> int256:
    """
    @return 2^(15 - x / 2^16), at most 2^15 - 1, for x >= 0.
    """
    part: uint256 = convert(x & 65535, uint256)
    low: int256 = self._entry(EXP2 + (part >> 6))
    fine: int256 = low - ((low - self._entry(EXP2 + (part >> 6) + 1)) * convert(part & 63, int256) >> 6)
    return min(self._shifted(fine, 15 + min(x >> 16, 40)), 32767)


@internal
@view
def _sigmoid(x: int256) -> int256:
    """
    @return 2^24 / (1 + exp(-x / 2^16)).
    """
    size: uint256 = convert(min(abs(x), 16 * 65536 - 1), uint256)
    low: int256 = self._entry(SIGMOID + (size >> 8))
    positive: int256 = low + (
        (self._entry(SIGMOID + (size >> 8) + 1) - low) * convert(size & 255, int256) >> 8
    )
    if x < 0:
        return 2**24 - positive
    return positive


@internal
@view
def _activate(x: int256, gelu: bool) -> int256:
    inner: int256 = x
    if gelu:
        near: int256 = self._clip(x, 2**20)
        cube: int256 = self._shifted(self._shifted(near * near, 16) * near, 16)
        inner = self._shifted((near + self._shifted(cube * GELU_CUBE, 30)) * GELU_SCALE, 30)
    return self._shifted(x * self._sigmoid(inner), 24)


@internal
@pure
def _divide(x: int256, by: int256) -> int256:
    """
    @return x / by to the nearest, halves upwards.
    """
    assert by > 0, "sum of weights"
    above: int256 = 2 * x + by
    quotient: int256 = above // (2 * by)
    if above < 0 and quotient * 2 * by != above:
        quotient -= 1
    return quotient


@internal
@view
def _wave(turn: uint256) -> int256:
    """
    @return The sine of a part of 2^64 of a turn, 30 fraction bits.
    """
    low: int256 = self._entry(SINE + (turn >> 52))
    rest: int256 = convert((turn >> 32) & (2**20 - 1), int256)
    return low + ((self._entry(SINE + (turn >> 52) + 1) - low) * rest >> 20)


@internal
@view
def _rising(table: uint256, x: uint256, drop: uint256) -> int256:
    at: uint256 = table + (x >> drop)
    low: int256 = self._entry(at)
    rest: int256 = convert(x & ((1 << drop) - 1), int256)
    return low + ((self._entry(at + 1) - low) * rest >> drop)


@internal
@view
def _weight(deficit: int256) -> int256:
    """
    @return 2^(40 - deficit / 2^24), rounded down.
    """
    least: uint256 = convert(max(0, deficit), uint256)
    part: uint256 = least & (2**24 - 1)
    low: int256 = self._entry(EXP2 + (part >> 14))
    rest: int256 = convert(part & (2**14 - 1), int256)
    fine: int256 = low - ((low - self._entry(EXP2 + (part >> 14) + 1)) * rest >> 14)
    return (fine << 10) >> min(least >> 24, 41)


@internal
@view
def _log2(x: uint256) -> int256:
    """
    @return Of 1 and more, 30 fraction bits. Of numbers over 2^32 the upper 32 bits count.
    """
    length: uint256 = convert(self._length(convert(x, int256)), uint256) - 1
    mantissa: uint256 = 0
    if length <= 31:
        mantissa = x << (31 - length)
    else:
        mantissa = x >> (length - 31)
    return convert(length << 30, int256) + self._rising(LOG2, mantissa - 2**31, 21)


@internal
@view
def _noise(hashed: uint256) -> int256:
    """
    @return Gumbel noise in octaves, 24 fraction bits.
    """
    twice: uint256 = 2 * hashed + 1
    rest: uint256 = 2**33 - twice
    x: int256 = 0
    if rest < 2**32:
        x = 33 * 2**30 - self._log2(rest) - self._rising(TAIL, rest, 23)
    else:
        x = 30 * 2**30 - self._log2(convert(33 * 2**30 - self._log2(twice), uint256))
    return x >> 6


@internal
@pure
def _hash(key: uint256, token: uint256) -> uint256:
    """
    @return 32 random bits of a token: SplitMix64 (Steele, Lea, Flood 2014).
    """
    z: uint256 = (key + (token + 1) * 11400714819323198485) & (2**64 - 1)
    z = ((z ^ (z >> 30)) * 13787848793156543929) & (2**64 - 1)
    z = ((z ^ (z >> 27)) * 10723151780598845931) & (2**64 - 1)
    return (z ^ (z >> 31)) >> 32
