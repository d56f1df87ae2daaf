# pragma version 0.4.3
# pragma optimize gas
"""
@title Judges cells of one head, of queries, keys or values, and of heads side by side
@license Apache-2.0
@notice `judge` returns if the disputed cell follows from what the opening shows, and reverts otherwise: `attention.py`, but for
        what is over positions.
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
    @notice Check one cell of kinds `biased`, `kept`, `query` and `joined`, or `number`.
    @param leaf The digest of the cell, which the descent led to.
    @param use The product (see `plan.vy`), or 0.
    """
    plan._begin(terms, layer, AT)
    plan._ensure(layer == plan.layer)
    section: opening.Section = self._section(kind, use)
    plan._inside(section, self._section(plan.NUMBER, 0))
    i: uint256 = terms.index - section.start
    claimed: DynArray[int256, MOST] = opening._claimed(section, i, leaf)
    found: DynArray[int256, MOST] = []
    if kind == plan.BIASED:
        found = self._biased(use, i)
    elif kind == plan.KEPT:
        found = self._head(use, plan._head(), 0)
    elif kind == plan.QUERY:
        found = self._head(plan.Q, i, i)
    elif kind == plan.JOINED:
        found = self._joined(section, i)
    else:
        plan._ensure(kind == plan.NUMBER)
        found = self._number()
    opening._settle(claimed, found)


@internal
@view
def _section(kind: uint256, use: uint256) -> opening.Section:
    if plan.name == plan.MIXED:
        return plan._attention(kind, use)
    plan._ensure(plan.name in [plan.KEYS, plan.VALUES])
    return plan._kept(kind, use)


@internal
def _biased(use: uint256, i: uint256) -> DynArray[int256, MOST]:
    """
    @return A head's accumulators with the bias added.
    """
    wide: uint256 = opening.model.headWidth
    head: uint256 = i + plan._first_row() // wide
    by: int256 = whole.RESIDUAL - plan._fraction(use)
    y: DynArray[int256, MOST] = plan._products(self._section(plan.PRODUCT, use), i * wide, wide)
    bias: DynArray[int256, MOST] = opening._vector(
        plan._table(use - plan.Q + plan.QUERY_BIAS), head * wide, (head + 1) * wide
    )
    for n: uint256 in range(wide, bound=MOST):
        y[n] = whole._clip(y[n] + whole._shifted(bias[n], by), whole.SATURATED)
    return y


@internal
def _head(use: uint256, head: uint256, i: uint256) -> DynArray[int256, MOST]:
    """
    @param i The head's place among those of the plan.
    @return One head as activations: their fraction bits, then the numbers.
    """
    wide: uint256 = opening.model.headWidth
    fraction: int256 = plan._fraction(use)
    y: DynArray[int256, MOST] = []
    if opening.model.has & (16 << (use - plan.Q)) != 0:
        y = opening._cell(self._section(plan.BIASED, use), i)
    else:
        y = plan._products(self._section(plan.PRODUCT, use), i * wide, wide)
    if use != plan.V:
        if opening.model.has & use != 0:  # bits 1 and 2: of queries and of keys
            y, fraction = self._normalised(y, fraction, use)
        y, fraction = self._turned(y, fraction)
    return self._narrow(y, fraction)


@internal
@view
def _highest(x: DynArray[int256, MOST]) -> int256:
    most: int256 = 0
    for n: int256 in x:
        most = max(most, abs(n))
    return most


@internal
@view
def _narrow(x: DynArray[int256, MOST], fraction: int256) -> DynArray[int256, MOST]:
    """
    @return Fraction bits, then the numbers in 15 bits and sign.
    """
    by: int256 = 0
    bits: int256 = 0
    by, bits = whole._narrow_scale(self._highest(x), fraction)
    out: DynArray[int256, MOST] = [whole._clip(bits, whole.LIMIT)]
    for n: int256 in x:
        out.append(whole._narrowed(n, by))
    return out


@internal
def _normalised(
    x: DynArray[int256, MOST], fraction: int256, use: uint256
) -> (DynArray[int256, MOST], int256):
    weight: DynArray[int256, MOST] = opening._vector(plan._table(use - plan.Q + plan.QUERY_NORM), 0, len(x))
    by: int256 = whole._norm_shift(self._highest(x), fraction)
    y: DynArray[int256, MOST] = []
    squares: int256 = 0
    for n: int256 in x:
        near: int256 = whole._shifted(n, by)
        y.append(near)
        squares += near * near
    root: int256 = 0
    bits: int256 = 0
    root, bits = whole._inverse_root(squares, convert(len(x), int256), fraction - by, opening.model.epsilon)
    for n: uint256 in range(len(y), bound=MOST):
        y[n] = y[n] * weight[n] * root
    if root == 0:
        bits = 0
    else:
        bits += plan._number(1 + use - plan.Q + plan.QUERY_NORM - plan.ATTENTION_NORM)
    by, bits = whole._narrow_scale(self._highest(y), bits)
    for n: uint256 in range(len(y), bound=MOST):
        y[n] = whole._narrowed(y[n], by)
    return y, bits


@internal
def _turned(x: DynArray[int256, MOST], fraction: int256) -> (DynArray[int256, MOST], int256):
    """
    @return Rotary position encoding of one head, in at most 30 bits.
    """
    half: uint256 = len(x) // 2
    turns: DynArray[int256, MOST] = opening._vector(plan._table(plan.TURNS), 0, half)
    by: int256 = max(0, whole._length(self._highest(x)) - 30)
    position: int256 = convert(opening.terms.position, int256)
    y: DynArray[int256, MOST] = x
    for i: uint256 in range(half, bound=MOST):
        angle: uint256 = convert(position * turns[i] & (2**64 - 1), uint256)
        sine: int256 = whole._wave(angle)
        cosine: int256 = whole._wave((angle + 2**62) % 2**64)
        a: uint256 = i
        b: uint256 = i + half
        if opening.model.halves == 0:
            a = 2 * i
            b = 2 * i + 1
        first: int256 = whole._shifted(x[a], by)
        second: int256 = whole._shifted(x[b], by)
        y[a] = whole._shifted(first * cosine - second * sine, 30)
        y[b] = whole._shifted(first * sine + second * cosine, 30)
    return y, fraction - by


@internal
def _joined(section: opening.Section, i: uint256) -> DynArray[int256, MOST]:
    """
    @return 128 activations of the heads side by side.
    """
    wide: uint256 = opening.model.headWidth
    by: int256 = opening._first(self._section(plan.JOIN_SCALE, 0), 0)
    lowest: int256 = opening._first(self._section(plan.JOIN_LOW, 0), 0)
    lows: DynArray[int256, MOST] = plan._lows(0, opening.model.kvHeads)
    start: uint256 = i * 128
    count: uint256 = opening._size(section, i)
    first: uint256 = start // wide
    at: uint256 = 0
    total: uint256 = 0
    at, total = opening._cells_at(self._section(plan.QUOTIENT, 0), first, (start + count - 1) // wide - first + 1)
    out: DynArray[int256, MOST] = opening._numbers(at + 4 * (start - first * wide), count, 4, False)
    for n: uint256 in range(count, bound=128):
        own: int256 = lows[(start + n) // wide // plan._group()]
        out[n] = whole._narrowed(whole._shifted(out[n], own + MIX - lowest), by)
    return out


@internal
def _number() -> DynArray[int256, MOST]:
    """
    @return The disputed number.
    """
    if plan.name == plan.MIXED:
        if plan.place == opening.model.heads * opening.model.headWidth:
            return [whole._clip(opening._cell(self._section(plan.JOIN_SCALE, 0), 0)[1], whole.LIMIT)]
        return [opening._cell(self._section(plan.JOINED, 0), plan.place // 128)[plan.place % 128]]
    wide: uint256 = opening.model.headWidth
    product: uint256 = plan.K
    if plan.name == plan.VALUES:
        product = plan.V
    cell: DynArray[int256, MOST] = opening._cell(plan._kept(plan.KEPT, product), 0)
    if plan.place < opening.model.kvHeads * wide:
        return [cell[1 + plan.place % wide]]
    return [cell[0]]
