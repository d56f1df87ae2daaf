# pragma version 0.4.3
"""
@title What referees do with bytes of a call and with sizes of a model, without what binds them to a dispute
"""

import opening
import plan
import Products
initializes: Products
uses: (opening, plan)


@external
def climb(count: uint256, start: uint256, bits: uint256, items: DynArray[bytes32, 8], path: Bytes[2048]) -> (bytes32, uint256):
    """
    @return The root, and how many bytes of the path were read.
    """
    begin: uint256 = 36 + convert(slice(msg.data, 132, 32), uint256)
    opening.at = begin
    root: bytes32 = opening._climb(count, start, items, bits)
    return root, opening.at - begin


@external
def hashed(tag: bytes32, length: uint256, content: Bytes[4128]) -> bytes32:
    return opening._hashed(tag, 36 + convert(slice(msg.data, 68, 32), uint256), length)


@external
@view
def dot(size: uint256, span: uint256, wide: bool, count: uint256, x: Bytes[2048], leaves: Bytes[2624]) -> int256:
    matrix: plan.Matrix = plan.Matrix(start=0, parts=0, size=size, columns=0, span=span, fraction=0, wide=wide)
    inputs: uint256 = 36 + convert(slice(msg.data, 132, 32), uint256)
    q: uint256 = 36 + convert(slice(msg.data, 164, 32), uint256)
    return Products._dot(matrix, q, inputs, count)


@external
def section(
    terms: opening.Terms, model: opening.Model, layer: int256, kind: uint256, use: uint256
) -> opening.Section:
    """
    @dev The layer's numbers stand behind the arguments.
    """
    opening.terms = terms
    opening.model = model
    opening.layer = layer
    plan.numbers = 4 + 47 * 32
    plan._aim()
    if terms.token:
        return plan._draw(kind, use)
    if plan.name in [plan.KEYS, plan.VALUES]:
        return plan._kept(kind, use)
    if plan.name == plan.MIXED:
        return plan._attention(kind, use)
    if plan.name == plan.ACTIVATIONS:
        return plan._feed(kind, use)
    return plan._stream(kind, layer, use)


@external
def table(model: opening.Model, layer: int256, use: uint256) -> (uint256, uint256):
    """
    @return The first leaf, and how many all tables have.
    """
    opening.model = model
    opening.layer = layer
    start: uint256 = plan._table(use)
    return start, opening.leaves
