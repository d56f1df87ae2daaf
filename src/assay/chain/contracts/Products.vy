# pragma version 0.4.3
# pragma optimize gas
"""
@title Judges one product of a row of weights with a vector
@license Apache-2.0
@notice `judge` returns if the disputed cell follows from what the opening shows, and reverts otherwise: `steps.multiplied`.
@dev Sixteen weights are multiplied at a time: eight lanes of 32 bits of one word, in reverse order, times eight of
     another one have the sum of the products in the highest lane.
"""

import opening
import plan
initializes: opening
initializes: plan[opening := opening]

AT: constant(uint256) = 836  # where the opening stands in the call's data: behind the arguments, with zeros behind it
LANES: constant(uint256) = 1766820105243087041267848467410591083712559083657179364930612997358944255
ONES: constant(uint256) = 26959946673427741531515197488526605382048662297355296634326893985793
BYTES_16: constant(uint256) = 450552876409790643671482431940419874915447411150352389258589821042463539455
SIGNS: constant(uint256) = 57896928055670665928733867960092856710703453994410772906766553944782138277888
BIASES: constant(uint256) = 883423532594880234504689991304039805158970566159738360113623662126465024
HALF: constant(uint256) = 2**223
MASK_64: constant(uint256) = 2**64 - 1
M32: constant(uint256) = 1461501636990620551282746369252908412228459298815
M16: constant(uint256) = 411369862228566123880278864766078120783549026323861987005628415
M8: constant(uint256) = 6874786401724074090536375359574284372422408885825600641753357966377215
R64: constant(uint256) = 6277101735386680763495507056286727952657427581105975853055
R32: constant(uint256) = 26959946660873538060741835960174461801791452538186943042387869433855


@external
def judge(terms: opening.Terms, leaf: bytes32, kind: uint256, layer: int256, use: uint256):
    """
    @notice Check one cell of kind `product`.
    @param leaf The digest of the cell, which the descent led to.
    @param use The product (see `plan.vy`).
    """
    plan._ensure(kind == plan.PRODUCT)
    plan._begin(terms, layer, AT)
    section: opening.Section = self._section(kind, layer, use)
    plan._inside(section, self._section(plan.NUMBER, plan.layer, 0))
    i: uint256 = terms.index - section.start
    opening._same(opening._hashed(opening.CELL_TAG, opening.at, 8), leaf)
    claimed: int256 = convert(opening._word(), int256) >> 192
    opening.at += 8
    assert self._multiplied(section, i, use) == claimed, "product"


@internal
@view
def _section(kind: uint256, layer: int256, use: uint256) -> opening.Section:
    if plan.name in [plan.INPUT, plan.FEED, plan.HEAD_INPUT]:
        return plan._stream(kind, layer, use)
    plan._ensure(layer == plan.layer)
    if plan.name in [plan.KEYS, plan.VALUES]:
        return plan._kept(kind, use)
    if plan.name == plan.MIXED:
        return plan._attention(kind, use)
    if plan.name == plan.ACTIVATIONS:
        return plan._feed(kind, use)
    plan._ensure(opening.terms.token)
    return plan._draw(kind, use)


@internal
def _multiplied(section: opening.Section, i: uint256, use: uint256) -> int256:
    """
    @return A row times its input, up to column 1,024 (k + 1).
    """
    matrix: plan.Matrix = plan._matrix(use)
    group: uint256 = i // section.length
    row: uint256 = i % section.length + plan._first_row()
    at: uint256 = 0
    size: uint256 = 0
    at, size = plan._input(use)
    start: uint256 = group * 1024
    count: uint256 = min(1024, matrix.columns - start)
    x: uint256 = opening._inputs(at + start, at + start + count)
    q: uint256 = opening._leaves(
        matrix.start + row * matrix.parts + group * 4, min(4, matrix.parts - group * 4), matrix.size
    )
    total: int256 = self._dot(matrix, q, x, count)
    if group > 0:
        total += opening._first(section, i - section.length)
    return total


@internal
@view
def _dot(matrix: plan.Matrix, q: uint256, x: uint256, count: uint256) -> int256:
    """
    @return The sum of the products with `count` numbers.
    """
    at: uint256 = min(x, len(msg.data) - 2048)
    numbers: Bytes[2048] = slice(msg.data, at, 2048)
    at = x - at
    begin: uint256 = q
    leaves: Bytes[2624] = b""
    if matrix.size > 320:
        begin = min(begin, len(msg.data) - 2624)
        leaves = slice(msg.data, begin, 2624)
    else:
        begin = min(begin, len(msg.data) - 1312)
        leaves = slice(msg.data, begin, 1312)
    begin = q - begin
    total: int256 = 0
    each: uint256 = 1
    if matrix.wide:
        each = 2
    span: uint256 = matrix.span
    blocks: uint256 = 256 // span
    scales: uint256 = 0
    offsets: uint256 = 0
    for n: uint256 in range(count // span, bound=64):
        inside: uint256 = n % blocks
        leaf: uint256 = unsafe_add(begin, unsafe_mul(n // blocks, matrix.size))
        if inside & 7 == 0:
            number: uint256 = leaf + 256 * each + 4 * inside
            scales = opening._swapped(extract32(leaves, number, output_type=uint256), 4)
            offsets = opening._swapped(extract32(leaves, number + 4 * blocks, output_type=uint256), 4)
        place: uint256 = unsafe_add(leaf, unsafe_mul(each, unsafe_mul(inside, span)))
        lows: uint256 = 0  # sums in lanes
        highs: uint256 = 0
        inputs: uint256 = 0
        for _: uint256 in range(span >> 4, bound=16):
            a: uint256 = extract32(numbers, at, output_type=uint256)
            at = unsafe_add(at, 32)
            a = (((a & BYTES_16) << 8) | ((a >> 8) & BYTES_16)) ^ SIGNS
            odd: uint256 = unsafe_sub(a & LANES, BIASES)
            a = unsafe_sub((a >> 16) & LANES, BIASES)
            inputs = unsafe_add(inputs, unsafe_add(odd, a))
            b: uint256 = extract32(leaves, place, output_type=uint256)
            place = unsafe_add(place, unsafe_mul(16, each))
            if matrix.wide:
                b = self._reversed(b)
                high: uint256 = b & BYTES_16
                highs = unsafe_add(highs, unsafe_add(unsafe_mul(high & LANES, a), unsafe_mul(high >> 16 & LANES, odd)))
                b = (b >> 8) & BYTES_16
            else:  # sixteen bytes as lanes of 16 bits, in reverse order
                b = (b >> 192) | ((b >> 128 & MASK_64) << 128)
                b = ((b >> 32) & M32) | ((b & M32) << 64)
                b = ((b >> 16) & M16) | ((b & M16) << 32)
                b = ((b >> 8) & M8) | ((b & M8) << 16)
            lows = unsafe_add(lows, unsafe_add(unsafe_mul(b & LANES, a), unsafe_mul((b >> 16) & LANES, odd)))
        products: int256 = unsafe_add(self._highest(lows), unsafe_mul(256, self._highest(highs)))
        scale: int256 = convert(convert(scales, bytes32), int256) >> 224
        offset: int256 = convert(convert(offsets, bytes32), int256) >> 224
        total = unsafe_add(total, unsafe_mul(scale, products))
        total = unsafe_add(total, unsafe_mul(offset, self._highest(unsafe_mul(inputs, ONES))))
        scales = scales << 32
        offsets = offsets << 32
    return total


@internal
@pure
def _highest(lanes: uint256) -> int256:
    """
    @return The number in the highest lane: those under it may have taken one from it.
    """
    return convert(convert(unsafe_add(lanes, HALF), bytes32), int256) >> 224


@internal
@pure
def _reversed(word: uint256) -> uint256:
    """
    @return Sixteen lanes of 16 bits in reverse order.
    """
    w: uint256 = (word >> 128) | (word << 128)
    w = ((w >> 64) & R64) | ((w & R64) << 64)
    w = ((w >> 32) & R32) | ((w & R32) << 32)
    return ((w >> 16) & LANES) | ((w & LANES) << 16)
