"""The integer sampler's arithmetic on plain whole numbers: what `exact/sampling.py` does, for one token."""

from __future__ import annotations

from functools import cache
from typing import Final

from assay.engines.exact.sampling import MASS_BITS, OCTAVE
from assay.engines.exact.tables import EXP2_BITS, EXP2_STEPS, LOG2_BITS, LOG2_STEPS, exp2_table, log2_table, tail_table

_STRIDE: Final = 0x9E3779B97F4A7C15
_MIX: Final = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_WORD: Final = (1 << 64) - 1


def hash32(key: int, token: int) -> int:
    """32 random bits of a token: see `core.sampler.hashes_at`. `key`: of the output position."""
    z = (key + (token + 1) * _STRIDE) & _WORD
    z = (z ^ z >> 30) * _MIX[0] & _WORD
    z = (z ^ z >> 27) * _MIX[1] & _WORD
    return (z ^ z >> 31) >> 32


def weight(deficit: int) -> int:
    """2^(40 - deficit / 2^24), rounded down; 2^40 of a negative one, which no honest side states."""
    deficit = max(0, deficit)
    drop = OCTAVE - EXP2_STEPS
    part = deficit & ((1 << OCTAVE) - 1)
    return _falling(_exp2(), part, drop) << (MASS_BITS - EXP2_BITS) >> min(deficit >> OCTAVE, MASS_BITS + 1)


def noise(hashed: int) -> int:
    """Gumbel noise in octaves, OCTAVE fraction bits."""
    twice = 2 * hashed + 1
    rest = (1 << 33) - twice
    if rest < 1 << 32:
        x = (33 << LOG2_BITS) - log2(rest) - _rising(_tail(), rest, 33 - LOG2_STEPS)
    else:
        x = (LOG2_BITS << LOG2_BITS) - log2((33 << LOG2_BITS) - log2(twice))
    return x >> (LOG2_BITS - OCTAVE)


def log2(x: int) -> int:
    """Of 1 and more: LOG2_BITS fraction bits. Of numbers over 2^32 the upper 32 bits count."""
    length = x.bit_length() - 1
    mantissa = x << 31 - length if length <= 31 else x >> length - 31
    return (length << LOG2_BITS) + _rising(_log2(), mantissa - (1 << 31), 31 - LOG2_STEPS)


def _rising(table: tuple[int, ...], x: int, drop: int) -> int:
    index, rest = x >> drop, x & ((1 << drop) - 1)
    return table[index] + ((table[index + 1] - table[index]) * rest >> drop)


def _falling(table: tuple[int, ...], x: int, drop: int) -> int:
    index, rest = x >> drop, x & ((1 << drop) - 1)
    return table[index] - ((table[index] - table[index + 1]) * rest >> drop)


@cache
def _exp2() -> tuple[int, ...]:
    return tuple(exp2_table().tolist())


@cache
def _log2() -> tuple[int, ...]:
    return tuple(log2_table().tolist())


@cache
def _tail() -> tuple[int, ...]:
    return tuple(tail_table().tolist())
