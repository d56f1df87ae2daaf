# pragma version 0.4.3
# pragma optimize gas
"""
@title Judges cells of normalisations over the whole width
@license Apache-2.0
@notice `judge` returns if the disputed cell follows from what the opening shows, and reverts otherwise: `norms.py`.
"""

import opening
import plan
import whole
initializes: opening
initializes: plan[opening := opening]
initializes: whole

AT: constant(uint256) = 836  # where the opening stands in the call's data: behind the arguments, with zeros behind it
MOST: constant(uint256) = 1056


@deploy
def __init__(tables: address):
    whole.__init__(tables)


@external
def judge(terms: opening.Terms, leaf: bytes32, kind: uint256, layer: int256, use: uint256):
    """
    @notice Check one cell of kinds `peak` to `normed`.
    @param leaf The digest of the cell, which the descent led to.
    @param use The normalisation (see `plan.vy`).
    """
    plan._begin(terms, layer, AT)
    plan._ensure(plan.name in [plan.INPUT, plan.FEED, plan.HEAD_INPUT])
    section: opening.Section = plan._stream(kind, layer, use)
    plan._inside(section, plan._stream(plan.NUMBER, plan.layer, 0))
    i: uint256 = terms.index - section.start
    claimed: DynArray[int256, MOST] = opening._claimed(section, i, leaf)
    found: DynArray[int256, MOST] = []
    if kind == plan.PEAK:
        found = self._peak(section, layer, use, i)
    elif kind == plan.SQUARE:
        found = self._square(section, layer, use, i)
    elif kind == plan.INVERSE:
        found = self._inverse(layer, use)
    elif kind == plan.TOP:
        found = self._top(section, layer, use, i)
    elif kind == plan.SCALE:
        found = self._scale(layer, use)
    else:
        plan._ensure(kind == plan.NORMED)
        found = self._normed(layer, use, i)
    opening._settle(claimed, found)


@internal
@view
def _after(use: uint256) -> bool:
    return use == plan.ATTENTION_AFTER or use == plan.FEED_AFTER


@internal
@view
def _product(use: uint256) -> uint256:
    if use == plan.ATTENTION_AFTER:
        return plan.OUTPUT
    return plan.DOWN


@internal
def _source(layer: int256, use: uint256, i: uint256, size: uint256) -> DynArray[int256, MOST]:
    """
    @return So many numbers of what is normalised.
    """
    width: uint256 = opening.model.width
    if self._after(use):
        product: opening.Section = plan._stream(plan.PRODUCT, layer, self._product(use))
        return plan._products(product, i * size, min((i + 1) * size, width) - i * size)
    stream: opening.Section = self._stream(layer, use)
    first: uint256 = i * size // 128
    return opening._cells(stream, first, min(size // 128, plan._parts(width, 128) - first))


@internal
@view
def _stream(layer: int256, use: uint256) -> opening.Section:
    """
    @return The stream before a normalisation.
    """
    if use == plan.FEED_NORM:
        return plan._stream(plan.ADDED, layer, plan.ATTENTION_AFTER)
    last: int256 = layer - 1
    if layer == plan.ENDS:
        last = convert(opening.model.layers, int256) - 1
    if last < 0:
        return plan._stream(plan.EMBEDDED, plan.ENDS, 0)
    return plan._stream(plan.ADDED, last, plan.FEED_AFTER)


@internal
def _before(section: opening.Section, i: uint256) -> int256:
    """
    @return The running number of the cell before; 0 for the first.
    """
    if i == 0:
        return 0
    return opening._cell(section, i - 1)[0]


@internal
@view
def _last(section: opening.Section) -> uint256:
    return plan._parts(section.length, section.piece) - 1


@internal
def _peak(section: opening.Section, layer: int256, use: uint256, i: uint256) -> DynArray[int256, MOST]:
    """
    @return The smallest and the largest of 1,024 numbers, and of those before.
    """
    numbers: DynArray[int256, MOST] = self._source(layer, use, i, 1024)
    if i > 0:
        numbers.append(0)
        last: DynArray[int256, MOST] = opening._cell(section, i - 1)
        numbers[len(numbers) - 1] = last[0]
        numbers.append(last[1])
    low: int256 = numbers[0]
    high: int256 = numbers[0]
    for n: int256 in numbers:
        low = min(low, n)
        high = max(high, n)
    return [low, high]


@internal
def _shifts(layer: int256, use: uint256) -> (int256, int256, int256):
    """
    @return How numbers are shifted, twice, and the fraction bits in between.
    """
    fraction: int256 = whole.RESIDUAL
    if self._after(use):
        fraction = plan._fraction(self._product(use))
    peaks: opening.Section = plan._stream(plan.PEAK, layer, use)
    ends: DynArray[int256, MOST] = opening._cell(peaks, self._last(peaks))
    low: int256 = ends[0]
    high: int256 = ends[1]
    first: int256 = 0
    if self._after(use):
        first = whole._norm_shift(max(abs(low), abs(high)), 0)
        low = whole._shifted(low, first)
        high = whole._shifted(high, first)
        fraction -= first
    return first, whole._norm_shift(max(abs(low), abs(high)), fraction), fraction


@internal
def _square(section: opening.Section, layer: int256, use: uint256, i: uint256) -> DynArray[int256, MOST]:
    """
    @return The sum of the squares of 1,024 shifted numbers, and of those before.
    """
    numbers: DynArray[int256, MOST] = self._source(layer, use, i, 1024)
    first: int256 = 0
    second: int256 = 0
    fraction: int256 = 0
    first, second, fraction = self._shifts(layer, use)
    total: int256 = self._before(section, i)
    for n: int256 in numbers:
        x: int256 = whole._shifted(whole._shifted(n, first), second)
        total += x * x
    return [total]


@internal
def _inverse(layer: int256, use: uint256) -> DynArray[int256, MOST]:
    """
    @return The two shifts, 1 / sqrt(mean of squares), and the fraction bits of the products.
    """
    first: int256 = 0
    second: int256 = 0
    fraction: int256 = 0
    first, second, fraction = self._shifts(layer, use)
    squares: opening.Section = plan._stream(plan.SQUARE, layer, use)
    total: int256 = opening._cell(squares, self._last(squares))[0]
    root: int256 = 0
    bits: int256 = 0
    root, bits = whole._inverse_root(total, convert(opening.model.width, int256), fraction - second, opening.model.epsilon)
    if root == 0:
        return [first, second, root, 0]
    if use == plan.NORM:
        return [first, second, root, opening.model.norm + bits]
    return [first, second, root, plan._number(1 + use - plan.ATTENTION_NORM) + bits]


@internal
def _gains(use: uint256, start: uint256, count: uint256) -> DynArray[int256, MOST]:
    return opening._vector(plan._table(use), start, start + count)


@internal
def _top(section: opening.Section, layer: int256, use: uint256, i: uint256) -> DynArray[int256, MOST]:
    """
    @return The largest magnitude of 512 shifted numbers times their weights, and of those before.
    """
    inverse: DynArray[int256, MOST] = opening._cell(plan._stream(plan.INVERSE, layer, use), 0)
    numbers: DynArray[int256, MOST] = self._source(layer, use, i, 512)
    weights: DynArray[int256, MOST] = self._gains(use, i * 512, len(numbers))
    most: int256 = self._before(section, i)
    for n: uint256 in range(len(numbers), bound=MOST):
        most = max(most, abs(whole._shifted(numbers[n], inverse[1]) * weights[n]))
    return [most]


@internal
def _scale(layer: int256, use: uint256) -> DynArray[int256, MOST]:
    """
    @return By how much the products are shifted to be activations, and how many fraction bits those have.
    """
    inverse: DynArray[int256, MOST] = opening._cell(plan._stream(plan.INVERSE, layer, use), 0)
    tops: opening.Section = plan._stream(plan.TOP, layer, use)
    by: int256 = 0
    fraction: int256 = 0
    by, fraction = whole._narrow_scale(opening._cell(tops, self._last(tops))[0] * inverse[2], inverse[3])
    return [by, fraction]


@internal
def _normed(layer: int256, use: uint256, i: uint256) -> DynArray[int256, MOST]:
    """
    @return 128 activations.
    """
    inverse: DynArray[int256, MOST] = opening._cell(plan._stream(plan.INVERSE, layer, use), 0)
    by: int256 = opening._cell(plan._stream(plan.SCALE, layer, use), 0)[0]
    stream: DynArray[int256, MOST] = opening._cell(self._stream(layer, use), i)
    weights: DynArray[int256, MOST] = self._gains(use, i * 128, len(stream))
    for n: uint256 in range(len(stream), bound=MOST):
        stream[n] = whole._narrowed(whole._shifted(stream[n], inverse[1]) * weights[n] * inverse[2], by)
    return stream
