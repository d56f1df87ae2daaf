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

AT: constant(uint256) = 900  # where the opening stands in the call's data
LANES: constant(uint256) = 1766820105243087041267848467410591083712559083657179364930612997358944255
ONES: constant(uint256) = 26959946673427741531515197488526605382048662297355296634326893985793
BYTES_16: constant(uint256) = 450552876409790643671482431940419874915447411150352389258589821042463539455
SIGNS: constant(uint256) = 226159875217463538784116671719112721526185367165667081667056851346805227648
M32: constant(uint256) = 1461501636990620551282746369252908412228459298815
M16: constant(uint256) = 411369862228566123880278864766078120783549026323861987005628415
M8: constant(uint256) = 6874786401724074090536375359574284372422408885825600641753357966377215
R64: constant(uint256) = 6277101735386680763495507056286727952657427581105975853055
R32: constant(uint256) = 26959946660873538060741835960174461801791452538186943042387869433855


@external
def judge(
    terms: opening.Terms, leaf: bytes32, kind: uint256, layer: int256, use: uint256, proof: Bytes[45056]
):
    """
    @notice Check one cell of kind `product`.
    @param leaf The digest of the cell, which the descent led to.
    @param use The product (see `plan.vy`).
    @param proof The opening, with zeros behind it.
    """
    assert kind == plan.PRODUCT, "kind"
    plan._begin(terms, layer, AT)
    section: opening.Section = self._section(kind, layer, use)
    plan._inside(section, self._section(plan.NUMBER, plan.layer, 0))
    assert opening._cell_digest(8) == leaf, "cell"
    claimed: int256 = convert(convert(opening._word(), bytes32), int256) >> 192
    opening.at += 8
    assert self._multiplied(section, terms.index - section.start, use) == claimed, "product"


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
    total: int256 = 0
    each: uint256 = 1
    if matrix.wide:
        each = 2
    span: uint256 = matrix.span
    products: uint256 = 0
    weights: uint256 = 0
    inputs: uint256 = 0
    for n: uint256 in range(count // 16, bound=64):
        k: uint256 = 16 * n
        inside: uint256 = k % 256
        leaf: uint256 = q + k // 256 * matrix.size
        a: uint256 = convert(slice(msg.data, x + 2 * k, 32), uint256)
        a = a ^ SIGNS  # so that numbers are not negative
        a = ((a & BYTES_16) << 8) | ((a >> 8) & BYTES_16)
        odd: uint256 = a & LANES
        even: uint256 = (a >> 16) & LANES
        inputs = unsafe_add(inputs, unsafe_mul(unsafe_add(odd, even), ONES) >> 224)
        b: uint256 = convert(slice(msg.data, leaf + each * inside, 32), uint256)
        if matrix.wide:
            b = self._reversed(b)
            high: uint256 = b & BYTES_16
            low: uint256 = (b >> 8) & BYTES_16
            products = unsafe_add(products, unsafe_add(256 * self._times(high, odd, even), self._times(low, odd, even)))
            weights = unsafe_add(weights, unsafe_add(256 * self._sum(high), self._sum(low)))
        else:
            b = self._spread(b >> 128)
            products = unsafe_add(products, self._times(b, odd, even))
            weights = unsafe_add(weights, self._sum(b))
        if (k + 16) % span == 0:
            number: uint256 = leaf + 256 * each + inside // span * 4
            scale: int256 = opening._number(number)
            offset: int256 = opening._number(number + 256 // span * 4)
            total += scale * (convert(products, int256) - 32768 * convert(weights, int256))
            total += offset * (convert(inputs, int256) - 32768 * convert(span, int256))
            products = 0
            weights = 0
            inputs = 0
    return total


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
def _spread(word: uint256) -> uint256:
    """
    @return Sixteen bytes as lanes of 16 bits, in reverse order.
    """
    w: uint256 = (word >> 64) | ((word & 18446744073709551615) << 128)
    w = ((w >> 32) & M32) | ((w & M32) << 64)
    w = ((w >> 16) & M16) | ((w & M16) << 32)
    return ((w >> 8) & M8) | ((w & M8) << 16)


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
