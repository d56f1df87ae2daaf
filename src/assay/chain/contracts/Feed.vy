# pragma version 0.4.3
# pragma optimize gas
"""
@title Judges cells of the feed-forward part's gate
@license Apache-2.0
@notice `judge` returns if the disputed cell follows from what the opening shows, and reverts otherwise: the latter half of `steps.py`.
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
    @notice Check one cell of kinds `gated` to `activated`, or `number`.
    @param leaf The digest of the cell, which the descent led to.
    @param use The product (see `plan.vy`), or 0.
    """
    plan._begin(terms, layer, AT)
    plan._ensure(layer == plan.layer)
    plan._ensure(plan.name == plan.ACTIVATIONS)
    section: opening.Section = plan._feed(kind, use)
    plan._inside(section, plan._feed(plan.NUMBER, 0))
    i: uint256 = terms.index - section.start
    claimed: DynArray[int256, MOST] = opening._claimed(section, i, leaf)
    found: DynArray[int256, MOST] = []
    if kind == plan.GATED:
        found = self._gated(section, i)
    elif kind == plan.GATED_PEAK:
        found = self._peak(section, i)
    elif kind == plan.GATED_SCALE:
        found = self._scale()
    elif kind == plan.ACTIVATED:
        found = self._activated(i)
    else:
        plan._ensure(kind == plan.NUMBER)
        found = self._number()
    opening._settle(claimed, found)


@internal
def _gated(section: opening.Section, i: uint256) -> DynArray[int256, MOST]:
    """
    @return 128 numbers of the gate's function times what it gates, 16 fraction bits.
    """
    count: uint256 = opening._size(section, i)
    fraction: int256 = plan._fraction(plan.GATE) - plan._matrix(plan.GATE).fraction - whole.LOG_FRACTION
    gate: DynArray[int256, MOST] = plan._products(plan._feed(plan.PRODUCT, plan.GATE), i * 128, count)
    up: DynArray[int256, MOST] = plan._products(plan._feed(plan.PRODUCT, plan.UP), i * 128, count)
    first: int256 = fraction + plan._matrix(plan.GATE).fraction
    second: int256 = fraction + plan._matrix(plan.UP).fraction
    gelu: bool = opening.model.gate == 1
    for n: uint256 in range(count, bound=128):
        g: int256 = whole._clip(whole._shifted(gate[n], first), whole.MOST)
        u: int256 = whole._clip(whole._shifted(up[n], second), whole.MOST)
        gate[n] = whole._shifted(whole._activate(g, gelu) * u, whole.LOG_FRACTION)
    return gate


@internal
def _peak(section: opening.Section, i: uint256) -> DynArray[int256, MOST]:
    """
    @return The largest magnitude of 1,024 of them, and of those before.
    """
    source: opening.Section = plan._feed(plan.GATED, 0)
    first: uint256 = i * 8
    numbers: DynArray[int256, MOST] = opening._cells(source, first, min(8, plan._parts(source.length, 128) - first))
    most: int256 = 0
    if i > 0:
        most = opening._first(section, i - 1)
    for n: int256 in numbers:
        most = max(most, abs(n))
    return [most]


@internal
def _scale() -> DynArray[int256, MOST]:
    """
    @return By how much they are shifted to be activations, and how many fraction bits they have then.
    """
    peaks: opening.Section = plan._feed(plan.GATED_PEAK, 0)
    by: int256 = 0
    fraction: int256 = 0
    by, fraction = whole._narrow_scale(opening._first(peaks, peaks.length - 1), whole.LOG_FRACTION)
    return [by, fraction]


@internal
def _activated(i: uint256) -> DynArray[int256, MOST]:
    """
    @return 128 of them as activations.
    """
    by: int256 = opening._first(plan._feed(plan.GATED_SCALE, 0), 0)
    cell: DynArray[int256, MOST] = opening._cell(plan._feed(plan.GATED, 0), i)
    for n: uint256 in range(len(cell), bound=128):
        cell[n] = whole._narrowed(cell[n], by)
    return cell


@internal
def _number() -> DynArray[int256, MOST]:
    """
    @return The disputed number.
    """
    if plan.place == opening.model.feed:
        return [whole._clip(opening._cell(plan._feed(plan.GATED_SCALE, 0), 0)[1], whole.LIMIT)]
    return [opening._cell(plan._feed(plan.ACTIVATED, 0), plan.place // 128)[plan.place % 128]]
