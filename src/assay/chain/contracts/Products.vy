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
SIGNS: constant(uint256) = 226159875217463538784116671719112721526185367165667081667056851346805227648
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
    numbers: Bytes[2048] = slice(msg.data, x, 2048)
    leaves: Bytes[2624] = b""
    if matrix.size > 320:
        leaves = slice(msg.data, q, 2624)
    else:
        leaves = slice(msg.data, q, 1312)
    total: int256 = 0
    each: uint256 = 1
    if matrix.wide:
        each = 2
    span: uint256 = matrix.span
    steps: uint256 = span >> 4
    at: uint256 = 0
    for n: uint256 in range(count // span, bound=64):
        inside: uint256 = unsafe_mul(n, span)
        leaf: uint256 = unsafe_mul(inside >> 8, matrix.size)
        inside = inside & 255
        place: uint256 = unsafe_add(leaf, unsafe_mul(each, inside))
        products: uint256 = 0
        weights: uint256 = 0
        inputs: uint256 = 0
        for _: uint256 in range(steps, bound=16):
            a: uint256 = extract32(numbers, at, output_type=uint256) ^ SIGNS  # so that numbers are not negative
            at = unsafe_add(at, 32)
            a = ((a & BYTES_16) << 8) | ((a >> 8) & BYTES_16)
            odd: uint256 = a & LANES
            even: uint256 = (a >> 16) & LANES
            inputs = unsafe_add(inputs, unsafe_mul(unsafe_add(odd, even), ONES) >> 224)
            b: uint256 = extract32(leaves, place, output_type=uint256)
            place = unsafe_add(place, unsafe_mul(16, each))
            if matrix.wide:
                b = self._reversed(b)
                high: uint256 = b & BYTES_16
                products = unsafe_add(products, unsafe_mul(256, self._times(high, odd, even)))
                weights = unsafe_add(weights, unsafe_mul(256, self._sum(high)))
                b = (b >> 8) & BYTES_16
            else:  # sixteen bytes as lanes of 16 bits, in reverse order
                b = (b >> 192) | ((b >> 128 & MASK_64) << 128)
                b = ((b >> 32) & M32) | ((b & M32) << 64)
                b = ((b >> 16) & M16) | ((b & M16) << 32)
                b = ((b >> 8) & M8) | ((b & M8) << 16)
            low: uint256 = b & LANES
            b = (b >> 16) & LANES
            products = unsafe_add(products, unsafe_add(unsafe_mul(low, even), unsafe_mul(b, odd)) >> 224)
            weights = unsafe_add(weights, unsafe_mul(unsafe_add(low, b), ONES) >> 224)
        number: uint256 = unsafe_add(unsafe_add(leaf, unsafe_mul(256, each)), unsafe_mul(inside // span, 4))
        scale: int256 = self._little(extract32(leaves, number, output_type=uint256))
        offset: int256 = self._little(
            extract32(leaves, unsafe_add(number, unsafe_mul(256 // span, 4)), output_type=uint256)
        )
        products = unsafe_sub(products, weights << 15)
        inputs = unsafe_sub(inputs, span << 15)
        total = unsafe_add(total, unsafe_mul(scale, convert(convert(products, bytes32), int256)))
        total = unsafe_add(total, unsafe_mul(offset, convert(convert(inputs, bytes32), int256)))
    return total


@internal
@pure
def _little(word: uint256) -> int256:
    """
    @return The little-endian number of the word's first four bytes.
    """
    x: uint256 = ((word & BYTES_16) << 8) | ((word >> 8) & BYTES_16)
    return convert(convert(((x & LANES) << 16) | ((x >> 16) & LANES), bytes32), int256) >> 224


@internal
@pure
def _times(b: uint256, odd: uint256, even: uint256) -> uint256:
    return unsafe_add(unsafe_mul(b & LANES, even), unsafe_mul((b >> 16) & LANES, odd)) >> 224


@internal
@pure
def _sum(b: uint256) -> uint256:
    return unsafe_mul(unsafe_add(b & LANES, (b >> 16) & LANES), ONES) >> 224


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
