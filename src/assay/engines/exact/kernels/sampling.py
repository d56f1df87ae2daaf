"""The integer sampler `gumbel/2`, compiled: the token that sampling.py draws, at some ten microseconds a draw.

It looks at the vocabulary in blocks and passes over those whose largest logit cannot matter. Filters become a floor
under the logits and, among equals of it, a last id. What is skipped cannot win: see `_race`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
from numba import njit

from assay.core.encoding import MICRO
from assay.core.request import SamplerSettings
from assay.core.sampler import position_key
from assay.engines.exact.sampling import MASS_BITS, OCTAVE, nothing_left, weights
from assay.engines.exact.sampling import rate as rate_of
from assay.engines.exact.tables import (
    EXP2_BITS,
    EXP2_STEPS,
    LOG2_BITS,
    LOG2_STEPS,
    exp2_table,
    log2_table,
    tail_table,
)

BLOCK: Final = 128
"""Tokens that are looked at together."""
_MASKED: Final = -(2**31)
"""Stands for the logit of a token that the mask forbids; no logit is so small."""
_LEAST: Final = -(2**31) + 1
_LAST: Final = 2**31 - 1
_HALF: Final = 1 << (OCTAVE - 1)
_Whole: TypeAlias = int | np.int64
"""What numba has for integers."""
_Rate: TypeAlias = tuple[int, int]
"""Multiplier and shift, see `sampling.rate`."""
_STRIDE: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def draw(
    logits: np.ndarray, settings: SamplerSettings, seed: bytes, position: int, allowed: np.ndarray | None = None
) -> int:
    """The token drawn at output position `position` (from 0). Arguments as for `sampling.draw`.

    Raises:
        EngineError: no token is left.
    """
    values = np.ascontiguousarray(logits, dtype=np.int32)
    if allowed is not None or values.size % BLOCK:
        values = _fill(values, np.ones(values.size, np.bool_) if allowed is None else allowed)
    if settings.temperature == 0:
        token = int(values.argmax())
        if values[token] == _MASKED:
            raise nothing_left()
        return token
    plan = _plan(settings)
    token = int(
        _draw(
            values,
            np.uint64(position_key(seed, position)),
            plan.rate,
            plan.reach,
            plan.top_k,
            plan.top_p,
            plan.near,
            exp2_table(),
            log2_table(),
            tail_table(),
        )
    )
    if token < 0:
        raise nothing_left()
    return token


@dataclass(frozen=True, slots=True)
class _Plan:
    """What settings mean to the kernel."""

    rate: tuple[int, int]
    reach: int
    """Tokens further than this under the peak have no weight, nor ever enough noise."""
    top_k: int
    """0: no such filter."""
    top_p: int
    """MICRO: no such filter."""
    near: int
    """Tokens further than this under the peak fall to min-p; -1: all but the best do."""


@lru_cache(maxsize=64)
def _plan(settings: SamplerSettings) -> _Plan:
    multiplier, shift = rate_of(settings.temperature)

    def farthest(deficit: int) -> int:
        """The largest difference to the peak that is at most so many octaves."""
        return min((((deficit + 1) << shift) - 1) // multiplier, 2**32)

    reach = near = farthest(MASS_BITS << OCTAVE)
    if settings.min_p:
        low, high = -1, MASS_BITS << OCTAVE  # the last one whose weight is enough, by bisection
        while low < high:
            middle = (low + high + 1) // 2
            enough = int(weights(np.array([middle]))[0]) * MICRO >= settings.min_p << MASS_BITS
            low, high = (middle, high) if enough else (low, middle - 1)
        near = farthest(low) if low >= 0 else -1
    return _Plan((multiplier, shift), reach, min(settings.top_k, 2**31), min(settings.top_p, MICRO), near)


@njit(cache=True, nogil=True)
def _fill(logits: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Logits with the forbidden ones masked, and filled up to whole blocks."""
    values = np.full((len(logits) + BLOCK - 1) // BLOCK * BLOCK, np.int32(_MASKED))
    for i in range(len(logits)):
        values[i] = logits[i] if allowed[i] else np.int32(_MASKED)
    return values


@njit(cache=True, nogil=True)
def _draw(
    values: np.ndarray,
    key: np.uint64,
    rate: _Rate,
    reach: _Whole,
    top_k: _Whole,
    top_p: _Whole,
    near: _Whole,
    exp2: np.ndarray,
    log2: np.ndarray,
    tail: np.ndarray,
) -> _Whole:
    """The token, or -1 where all are masked."""
    maxima = np.empty(len(values) // BLOCK, np.int32)
    for block in range(len(maxima)):
        part = values[block * BLOCK : (block + 1) * BLOCK]
        largest = part[0]
        for i in range(BLOCK):
            largest = max(largest, part[i])
        maxima[block] = largest
    peak = np.int64(maxima.max())
    if peak == _MASKED:
        return -1
    best = np.int64(maxima.argmax()) * BLOCK
    while values[best] != peak:
        best += 1
    if near < 0 or top_k == 1:
        return best
    floor, last = max(peak - reach, _LEAST), _LAST
    if top_k > 0 or top_p < MICRO:
        floor, last = _cut(values, maxima, peak, floor, rate, top_k, top_p, exp2)
    if peak - near > floor:
        floor, last = peak - near, _LAST
    return _race(values, maxima, key, best, floor, last, rate, log2, tail)


@njit(cache=True, nogil=True)
def _race(
    values: np.ndarray,
    maxima: np.ndarray,
    key: np.uint64,
    best: _Whole,
    floor: _Whole,
    last: _Whole,
    rate: _Rate,
    log2: np.ndarray,
    tail: np.ndarray,
) -> _Whole:
    """The token with the largest score among those over the floor, and those at it with ids up to `last`.

    With c = 2^33 - (2 hash + 1), noise is under 33 - log2(c) - 1/2 where it is over 0. So a token whose deficit is d
    can reach a score s only if c <= 2^(33 - w), w the whole octaves of s + d + 1/2 (`_limit`). That is asked of the
    largest logit and the least c of each block; then of each token; and what is left is computed. `best` is the best
    token: scores are compared with its score, and then with the best one's so far.
    """
    peak = np.int64(values[best])
    score = _noise(_rest(key, best), log2, tail)
    rests = np.empty(BLOCK, np.int64)
    for block in range(len(maxima)):
        if maxima[block] < floor:
            continue
        start = block * BLOCK
        part = values[start : start + BLOCK]
        least = 1 << 33
        for i in range(BLOCK):
            rests[i] = _rest(key, start + i)
            least = min(least, rests[i])
        if least > _limit(_deficit(peak - maxima[block], rate), score):
            continue
        may = 0
        for i in range(BLOCK):
            may += rests[i] <= _limit(_deficit(peak - part[i], rate), score)
        if may == 0:
            continue
        for i in range(BLOCK):
            if part[i] < floor or (part[i] == floor and start + i > last):
                continue
            deficit = _deficit(peak - part[i], rate)
            if rests[i] > _limit(deficit, score):
                continue
            here = _noise(rests[i], log2, tail) - deficit
            if here > score or (here == score and start + i < best):
                score, best = here, start + i
    return best


@njit(cache=True, nogil=True, inline="always")
def _limit(deficit: _Whole, score: _Whole) -> _Whole:
    return (1 << 33) >> min(max((deficit + score + _HALF) >> OCTAVE, 0), 63)


@njit(cache=True, nogil=True)
def _cut(
    values: np.ndarray,
    maxima: np.ndarray,
    peak: _Whole,
    floor: _Whole,
    rate: _Rate,
    top_k: _Whole,
    top_p: _Whole,
    exp2: np.ndarray,
) -> tuple[_Whole, _Whole]:
    """The floor and the last id at it that top-k and top-p leave; `floor`: of what is in reach.

    A key tells a candidate's place: logit 2^32 + (2^31 - 1 - id), the largest key first.
    """
    keys = np.empty(len(values), np.int64)
    mass = np.empty(len(values), np.int64)
    found, wanted = 0, 0
    below = (peak - floor) >> 4
    if top_k > 0:
        if top_k <= len(maxima):  # each of the k largest blocks has a token that is as large
            for block in range(len(maxima)):
                keys[block], mass[block] = maxima[block], 1
            below = peak - keys[_select(keys, mass, len(maxima), top_k)]
        found = _collect(values, maxima, max(peak - below, floor), keys)
        while found < top_k and below < peak - floor:
            below += (below >> 1) + 1
            found = _collect(values, maxima, max(peak - below, floor), keys)
        if found >= top_k:
            mass[:found] = 1
            found = _select(keys, mass, found, top_k) + 1
        elif top_p == MICRO:
            return floor, _LAST
        wanted = _enough(_weigh(keys, mass, found, peak, rate, exp2), top_p)
    else:
        wanted = _enough(_total(values, maxima, peak, floor, rate, exp2), top_p)
        while True:
            found = _collect(values, maxima, max(peak - below, floor), keys)
            if _weigh(keys, mass, found, peak, rate, exp2) >= wanted:
                break
            below += (below >> 1) + 1
    last = keys[_select(keys, mass, found, wanted)]
    return last >> 32, _LAST - (last & 0xFFFFFFFF)


@njit(cache=True, nogil=True)
def _total(
    values: np.ndarray, maxima: np.ndarray, peak: _Whole, floor: _Whole, rate: _Rate, exp2: np.ndarray
) -> _Whole:
    """The sum of all weights."""
    total = 0
    for block in range(len(maxima)):
        if maxima[block] >= floor:
            part = values[block * BLOCK : (block + 1) * BLOCK]
            for i in range(BLOCK):
                weight = _weight(_deficit(peak - part[i], rate), exp2)
                total += weight if part[i] >= floor else 0
    return total


@njit(cache=True, nogil=True)
def _collect(values: np.ndarray, maxima: np.ndarray, bound: _Whole, keys: np.ndarray) -> _Whole:
    """Write the keys of tokens with logits of at least `bound`, in ascending order of ids; how many."""
    found = 0
    for block in range(len(maxima)):
        if maxima[block] >= bound:
            for i in range(block * BLOCK, (block + 1) * BLOCK):
                keys[found] = (np.int64(values[i]) << 32) + (_LAST - i)
                found += values[i] >= bound
    return found


@njit(cache=True, nogil=True)
def _weigh(keys: np.ndarray, mass: np.ndarray, count: _Whole, peak: _Whole, rate: _Rate, exp2: np.ndarray) -> _Whole:
    """Write the weights of the first `count` keys' tokens; their sum."""
    total = 0
    for i in range(count):
        mass[i] = _weight(_deficit(peak - (keys[i] >> 32), rate), exp2)
        total += mass[i]
    return total


@njit(cache=True, nogil=True)
def _enough(total: _Whole, top_p: _Whole) -> _Whole:
    """total top_p / 10^6, rounded up, without passing 2^63; at least 1."""
    return max(total // MICRO * top_p + (total % MICRO * top_p + MICRO - 1) // MICRO, 1)


@njit(cache=True, nogil=True)
def _select(keys: np.ndarray, mass: np.ndarray, count: _Whole, enough: _Whole) -> _Whole:
    """Where the largest keys have `enough` mass together, all of which is as much: the last one's place.

    Quickselect (Hoare 1961): larger keys come to stand before it. The places of the pivots are scattered, so that no
    order of the keys is slow.
    """
    low, high, before, state = 0, count, 0, np.uint64(count)
    while high - low > 1:
        state = state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
        chosen = low + np.int64(state >> np.uint64(33)) % (high - low)
        pivot, weight = keys[chosen], mass[chosen]
        keys[chosen], mass[chosen] = keys[high - 1], mass[high - 1]
        place, larger = low, 0
        for i in range(low, high - 1):  # without a branch that nobody can foresee
            key, one = keys[i], mass[i]
            keys[i], mass[i] = keys[place], mass[place]
            keys[place], mass[place] = key, one
            larger += one if key > pivot else 0
            place += key > pivot
        keys[high - 1], mass[high - 1] = keys[place], mass[place]
        keys[place], mass[place] = pivot, weight
        if before + larger >= enough:
            high = place
        elif before + larger + weight >= enough:
            return place
        else:
            before += larger + weight
            low = place + 1
    return low


@njit(cache=True, nogil=True, inline="always")
def _deficit(below: _Whole, rate: _Rate) -> _Whole:
    return below * rate[0] >> rate[1]


@njit(cache=True, nogil=True, inline="always")
def _rest(key: np.uint64, token: _Whole) -> _Whole:
    """2^33 - (2 hash + 1) of the token."""
    z = key + (np.uint64(token) + np.uint64(1)) * _STRIDE
    z = (z ^ (z >> np.uint64(30))) * _MIX[0]
    z = (z ^ (z >> np.uint64(27))) * _MIX[1]
    return (1 << 33) - 2 * np.int64((z ^ (z >> np.uint64(31))) >> np.uint64(32)) - 1


@njit(cache=True, nogil=True, inline="always")
def _weight(deficit: _Whole, exp2: np.ndarray) -> _Whole:
    drop = OCTAVE - EXP2_STEPS
    part = deficit & ((1 << OCTAVE) - 1)
    index, rest = part >> drop, part & ((1 << drop) - 1)
    fine = exp2[index] - ((exp2[index] - exp2[index + 1]) * rest >> drop)
    return fine << (MASS_BITS - EXP2_BITS) >> min(deficit >> OCTAVE, MASS_BITS + 1)


@njit(cache=True, nogil=True)
def _noise(rest: _Whole, log2: np.ndarray, tail: np.ndarray) -> _Whole:
    if rest < 1 << 32:
        drop = 33 - LOG2_STEPS
        index, part = rest >> drop, rest & ((1 << drop) - 1)
        slope = tail[index] + ((tail[index + 1] - tail[index]) * part >> drop)
        return ((33 << LOG2_BITS) - _log2(rest, log2) - slope) >> (LOG2_BITS - OCTAVE)
    inner = (33 << LOG2_BITS) - _log2((1 << 33) - rest, log2)
    return ((LOG2_BITS << LOG2_BITS) - _log2(inner, log2)) >> (LOG2_BITS - OCTAVE)


@njit(cache=True, nogil=True)
def _log2(x: _Whole, table: np.ndarray) -> _Whole:
    length = 0
    while x >> length > 1:
        length += 1
    mantissa = x << max(31 - length, 0) >> max(length - 31, 0)
    drop = 31 - LOG2_STEPS
    index, rest = (mantissa >> drop) - (1 << LOG2_STEPS), mantissa & ((1 << drop) - 1)
    return (length << LOG2_BITS) + table[index] + ((table[index + 1] - table[index]) * rest >> drop)
