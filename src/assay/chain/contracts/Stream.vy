# pragma version 0.4.3
# pragma optimize gas
"""
@title Judges cells of the residual stream
@license Apache-2.0
@notice `judge` returns if the disputed cell follows from what the opening shows, and reverts otherwise: `embedded` and
        `added` of `steps.py`.
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
    @notice Check one cell of kinds `embedded`, `added` or `number`.
    @param leaf The digest of the cell, which the descent led to.
    @param use The normalisation (see `plan.vy`).
    """
    plan._begin(terms, layer, AT)
    if plan.name == plan.NOTHING:  # whoever names a number that is none loses, if it is 0
        plan._ensure(terms.claimed == 0)
        return
    plan._ensure(plan.name in [plan.INPUT, plan.FEED, plan.HEAD_INPUT])
    section: opening.Section = plan._stream(kind, layer, use)
    plan._inside(section, plan._stream(plan.NUMBER, plan.layer, 0))
    i: uint256 = terms.index - section.start
    claimed: DynArray[int256, MOST] = opening._claimed(section, i, leaf)
    found: DynArray[int256, MOST] = []
    if kind == plan.EMBEDDED:
        found = self._embedded(section, i)
    elif kind == plan.ADDED:
        found = self._added(layer, use, i)
    else:
        plan._ensure(kind == plan.NUMBER)
        found = self._number(layer)
    opening._settle(claimed, found)


@internal
def _embedded(section: opening.Section, i: uint256) -> DynArray[int256, MOST]:
    """
    @return 128 numbers of the token's row.
    """
    count: uint256 = opening._size(section, i)
    token: uint256 = opening._token(opening.terms.position)
    plan._ensure(token < opening.model.vocabulary)
    matrix: plan.Matrix = plan._matrix(plan.EMBEDDING)
    group: uint256 = i * 128 // 1024
    many: uint256 = min(4, matrix.parts - group * 4)
    at: uint256 = opening._leaves(matrix.start + token * matrix.parts + group * 4, many, matrix.size)
    out: DynArray[int256, MOST] = []
    for n: uint256 in range(count, bound=128):
        k: uint256 = i * 128 - group * 1024 + n
        x: int256 = self._weight(matrix, at + k // 256 * matrix.size, k % 256)
        if opening.model.embeddingScale != 0:
            x = whole._shifted(whole._clip(x, 2**38 - 1) * opening.model.embeddingScale, matrix.fraction)
        else:
            x = whole._shifted(x, matrix.fraction - whole.RESIDUAL)
        out.append(whole._clip(x, whole.STREAM_LIMIT))
    return out


@internal
@view
def _weight(matrix: plan.Matrix, leaf: uint256, k: uint256) -> int256:
    """
    @return One weight of a leaf, with the matrix's fraction bits.
    """
    each: uint256 = 1
    q: uint256 = convert(slice(msg.data, leaf + k, 32), uint256) >> 248
    if matrix.wide:
        each = 2
        q = opening._swapped(convert(slice(msg.data, leaf + 2 * k, 32), uint256), 2) >> 240
    scale: uint256 = leaf + 256 * each + k // matrix.span * 4
    return convert(q, int256) * opening._number(scale) + opening._number(scale + 256 // matrix.span * 4)


@internal
def _added(layer: int256, use: uint256, i: uint256) -> DynArray[int256, MOST]:
    """
    @return 128 numbers of the stream behind attention or the feed-forward part.
    """
    before: opening.Section = plan._stream(plan.EMBEDDED, plan.ENDS, 0)
    product: uint256 = plan.OUTPUT
    bit: uint256 = 4
    if use == plan.FEED_AFTER:
        before = plan._stream(plan.ADDED, layer, plan.ATTENTION_AFTER)
        product = plan.DOWN
        bit = 8
    elif layer > 0:
        before = plan._stream(plan.ADDED, layer - 1, plan.FEED_AFTER)
    stream: DynArray[int256, MOST] = opening._cell(before, i)
    count: uint256 = len(stream)
    y: DynArray[int256, MOST] = plan._products(plan._stream(plan.PRODUCT, layer, product), i * 128, count)
    fraction: int256 = 0
    if opening.model.has & bit == 0:
        fraction = plan._fraction(product)
    else:
        inverse: DynArray[int256, MOST] = opening._cell(plan._stream(plan.INVERSE, layer, use), 0)
        fraction = inverse[3]
        weights: DynArray[int256, MOST] = opening._vector(plan._table(use), i * 128, i * 128 + count)
        for n: uint256 in range(count, bound=128):
            y[n] = whole._shifted(whole._shifted(y[n], inverse[0]), inverse[1]) * weights[n] * inverse[2]
    for n: uint256 in range(count, bound=128):
        stream[n] = whole._clip(
            stream[n] + whole._shifted(y[n], fraction - whole.RESIDUAL), whole.STREAM_LIMIT
        )
    return stream


@internal
def _number(layer: int256) -> DynArray[int256, MOST]:
    """
    @return The disputed number.
    """
    use: uint256 = plan.NORM
    if plan.name == plan.INPUT:
        use = plan.ATTENTION_NORM
    elif plan.name == plan.FEED:
        use = plan.FEED_NORM
    if plan.place == opening.model.width:
        scale: DynArray[int256, MOST] = opening._cell(plan._stream(plan.SCALE, layer, use), 0)
        return [whole._clip(scale[1], whole.LIMIT)]
    cell: DynArray[int256, MOST] = opening._cell(plan._stream(plan.NORMED, layer, use), plan.place // 128)
    return [cell[plan.place % 128]]

