# pragma version 0.4.3
# pragma optimize gas
"""
@title Judges cells of attention over positions
@license Apache-2.0
@notice `judge` returns if the disputed cell follows from what the opening shows, and reverts otherwise: `attention.py` from
        `key` on.
"""

import opening
import plan
import whole
initializes: opening
initializes: plan[opening := opening]
initializes: whole

AT: constant(uint256) = 836  # where the opening stands in the call's data: behind the arguments, with zeros behind it
MOST: constant(uint256) = 1056
MIX: constant(int256) = 8  # fraction bits that the mean of values has over the values'


@deploy
def __init__(tables: address):
    whole.__init__(tables)


@external
def judge(terms: opening.Terms, leaf: bytes32, kind: uint256, layer: int256, use: uint256):
    """
    @notice Check one cell of kinds `key` to `join_scale`.
    @param leaf The digest of the cell, which the descent led to.
    @param use Always 0.
    """
    plan._begin(terms, layer, AT)
    plan._ensure(layer == plan.layer)
    plan._ensure(plan.name == plan.MIXED)
    section: opening.Section = plan._attention(kind, use)
    plan._inside(section, self._section(plan.NUMBER))
    i: uint256 = terms.index - section.start
    claimed: DynArray[int256, MOST] = opening._claimed(section, i, leaf)
    found: DynArray[int256, MOST] = []
    if kind == plan.KEY or kind == plan.VALUE:
        found = self._copied(kind == plan.VALUE, i)
    elif kind == plan.SCORE:
        found = self._score(section, i)
    elif kind == plan.BEST:
        found = self._best(section, i)
    elif kind == plan.WEIGHT:
        found = self._weight(section, i)
    elif kind == plan.LOW:
        found = self._low(section, i)
    elif kind == plan.MIX:
        found = self._mix(section, i)
    elif kind == plan.QUOTIENT:
        found = self._quotient(i)
    elif kind == plan.JOIN_LOW:
        found = self._join_low()
    elif kind == plan.JOIN_PEAK:
        found = self._join_peak(section, i)
    else:
        plan._ensure(kind == plan.JOIN_SCALE)
        found = self._join_scale()
    opening._settle(claimed, found)


@internal
@view
def _section(kind: uint256) -> opening.Section:
    return plan._attention(kind, 0)


@internal
@view
def _row(section: opening.Section) -> uint256:
    """
    @return Cells of a row.
    """
    return plan._parts(section.length, section.piece)


@internal
def _block(kind: uint256, head: uint256, part: uint256) -> (uint256, uint256):
    """
    @return Where the keys or values of a head in a block of positions begin, and how many they are.
    """
    first: uint256 = 0
    seen: uint256 = 0
    keys: uint256 = 0
    first, seen, keys = plan._seen()
    count: uint256 = min(keys, seen - part * keys)
    at: uint256 = 0
    total: uint256 = 0
    at, total = opening._cells_at(self._section(kind), head * seen + part * keys, count)
    return at, count


@internal
def _copied(values: bool, i: uint256) -> DynArray[int256, MOST]:
    """
    @return A committed head of keys or values at one position, its fraction bits before it.
    """
    first: uint256 = 0
    seen: uint256 = 0
    keys: uint256 = 0
    first, seen, keys = plan._seen()
    wide: uint256 = opening.model.headWidth
    heads: uint256 = opening.model.kvHeads
    head: uint256 = i // seen
    position: uint256 = first + i % seen
    at: uint256 = convert(opening.layer, uint256) * 2 * heads * (wide + 1)
    if values:
        at += heads * (wide + 1)
    numbers: DynArray[int256, MOST] = opening._kept(at + head * wide, at + (head + 1) * wide, position)
    place: uint256 = at + heads * wide + head
    out: DynArray[int256, MOST] = [opening._kept(place, place + 1, position)[0]]
    for n: int256 in numbers:
        out.append(n)
    return out


@internal
def _score(section: opening.Section, i: uint256) -> DynArray[int256, MOST]:
    """
    @return Scores of one head at a block of positions.
    """
    head: uint256 = i // self._row(section)
    query: DynArray[int256, MOST] = opening._cell(self._section(plan.QUERY), head)
    at: uint256 = 0
    count: uint256 = 0
    at, count = self._block(plan.KEY, head // plan._group(), i % self._row(section))
    size: uint256 = len(query)
    out: DynArray[int256, MOST] = []
    for n: uint256 in range(count, bound=32):
        key: DynArray[int256, MOST] = opening._numbers(at + 2 * size * n, size, 2, False)
        total: int256 = 0
        for k: uint256 in range(1, size, bound=MOST):
            total += query[k] * key[k]
        by: int256 = query[0] + key[0] + 24 - whole.LOG_FRACTION
        out.append(whole._clip(whole._shifted(total * opening.model.scoreScale, by), 2**40))
    return out


@internal
def _best(section: opening.Section, i: uint256) -> DynArray[int256, MOST]:
    """
    @return A head's largest score in 8 cells, and of those before.
    """
    row: uint256 = self._row(section)
    scores: opening.Section = self._section(plan.SCORE)
    first: uint256 = i % row * 8
    many: uint256 = min(8, self._row(scores) - first)
    numbers: DynArray[int256, MOST] = opening._cells(scores, i // row * self._row(scores) + first, many)
    most: int256 = min_value(int256)
    for n: int256 in numbers:
        most = max(most, n)
    if i % row > 0:
        most = max(most, opening._first(section, i - 1))
    return [most]


@internal
def _weight(section: opening.Section, i: uint256) -> DynArray[int256, MOST]:
    """
    @return Softmax weights at a block of positions, before they are divided by their sum.
    """
    bests: opening.Section = self._section(plan.BEST)
    most: int256 = opening._first(bests, (i // self._row(section) + 1) * self._row(bests) - 1)
    out: DynArray[int256, MOST] = opening._cell(self._section(plan.SCORE), i)
    for n: uint256 in range(len(out), bound=32):
        out[n] = whole._exp2_negative(most - out[n])
    return out


@internal
def _low(section: opening.Section, i: uint256) -> DynArray[int256, MOST]:
    """
    @return The fewest fraction bits of a value head up to a block of positions.
    """
    heads: uint256 = opening.model.kvHeads
    at: uint256 = 0
    count: uint256 = 0
    at, count = self._block(plan.VALUE, i % heads, i // heads)
    size: uint256 = opening.model.headWidth + 1
    least: int256 = max_value(int256)
    for n: uint256 in range(count, bound=32):
        least = min(least, opening._numbers(at + 2 * size * n, 1, 2, False)[0])
    if i >= heads:
        least = min(least, opening._first(section, i - heads))
    return [least]


@internal
def _mix(section: opening.Section, i: uint256) -> DynArray[int256, MOST]:
    """
    @return The sum of a head's weights up to a block of positions, then the weighted sum of the values.
    """
    weights: opening.Section = self._section(plan.WEIGHT)
    head: uint256 = i // self._row(weights)
    least: int256 = plan._lows(head // plan._group(), 1)[0]
    row: DynArray[int256, MOST] = opening._cell(weights, i)
    at: uint256 = 0
    count: uint256 = 0
    at, count = self._block(plan.VALUE, head // plan._group(), i % self._row(weights))
    size: uint256 = opening.model.headWidth + 1
    out: DynArray[int256, MOST] = []
    for k: uint256 in range(size, bound=MOST):
        out.append(0)
    for n: uint256 in range(count, bound=32):
        numbers: DynArray[int256, MOST] = opening._numbers(at + 2 * size * n, size, 2, False)
        share: int256 = whole._shifted(row[n], numbers[0] - least)
        out[0] += row[n]
        for k: uint256 in range(1, size, bound=MOST):
            out[k] += share * numbers[k]
    if i % self._row(weights) > 0:
        before: DynArray[int256, MOST] = opening._cell(section, i - 1)
        for k: uint256 in range(size, bound=MOST):
            out[k] += before[k]
    return out


@internal
def _quotient(i: uint256) -> DynArray[int256, MOST]:
    """
    @return A head's mean of the values.
    """
    blocks: uint256 = self._row(self._section(plan.WEIGHT))
    sums: DynArray[int256, MOST] = opening._cell(self._section(plan.MIX), (i + 1) * blocks - 1)
    out: DynArray[int256, MOST] = []
    for k: uint256 in range(1, len(sums), bound=MOST):
        out.append(whole._divide(sums[k] * 256, sums[0]))
    return out


@internal
def _join_low() -> DynArray[int256, MOST]:
    """
    @return The fewest fraction bits of all heads' means.
    """
    least: int256 = max_value(int256)
    lows: DynArray[int256, MOST] = plan._lows(0, opening.model.kvHeads)
    for n: int256 in lows:
        least = min(least, n)
    return [least + MIX]


@internal
def _join_peak(section: opening.Section, i: uint256) -> DynArray[int256, MOST]:
    """
    @return The largest magnitude with so many fraction bits, up to a head.
    """
    lowest: int256 = opening._first(self._section(plan.JOIN_LOW), 0)
    own: int256 = plan._lows(i // plan._group(), 1)[0]
    means: DynArray[int256, MOST] = opening._cell(self._section(plan.QUOTIENT), i)
    most: int256 = 0
    for n: int256 in means:
        most = max(most, abs(whole._shifted(n, own + MIX - lowest)))
    if i > 0:
        most = max(most, opening._first(section, i - 1))
    return [most]


@internal
def _join_scale() -> DynArray[int256, MOST]:
    """
    @return By how much all are shifted to be activations, and how many fraction bits those have.
    """
    peaks: opening.Section = self._section(plan.JOIN_PEAK)
    lowest: int256 = opening._first(self._section(plan.JOIN_LOW), 0)
    by: int256 = 0
    fraction: int256 = 0
    by, fraction = whole._narrow_scale(opening._first(peaks, peaks.length - 1), lowest)
    return [by, fraction]
