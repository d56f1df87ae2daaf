"""The inner kernels of W^T r: numbers of 62 bits cut into signed bytes, four rows to a dot product.

With P = scale * r for a row, a column's result is the sum of P q. P is written with `limbs` digits of
-128 .. 127 to the base 256; in a byte vector of weights, each quarter (four rows of four columns) is transposed, so
that 32-bit lane 4 g + i has column i of the rows 4 g .. 4 g + 3, and meets the same digit of these rows.
"""

from __future__ import annotations

from typing import Final

from llvmlite import ir

from assay.engines.exact.kernels.simd import BYTES, I32, I64, LINE, LONGS, WORDS, Code, Shape, Value, instruction
from assay.engines.exact.kernels.tile import dot

_BIAS: Final = -0x7F7F7F7F7F7F7F80  # bytes of 128
_QUARTERS: Final = [16 * g + 4 * j + i for g in range(4) for i in range(4) for j in range(4)]
_FOURS: Final = ir.VectorType(I32, 4)
_FOUR_LONGS: Final = ir.VectorType(I64, 4)


def write_digits(
    code: Code,
    shape: Shape,
    scales: Value,
    scale_step: Value,
    units: Value,
    unit_step: Value,
    minus: Value,
    record: Value,
    r: Value,
    tiles: Value,
    digits: Value,
    constant: Value,
) -> None:
    """Digits of scale * r for one record of several tiles: int8 [tiles, blocks, limbs, 64] at `digits`.

    What the offsets contribute is the same for all columns of a block: added up at `constant`, int64 [blocks, 2, 8],
    low 32 bits and the rest apart.
    """
    builder = code.builder
    blocks, limbs = 32 // shape.block, shape.limbs

    def tile(index: Value, totals: list[Value]) -> list[Value]:
        scales_at = builder.add(scales, builder.mul(index, scale_step))
        units_at = builder.add(units, builder.mul(index, unit_step))
        to = builder.add(digits, builder.mul(index, ir.Constant(I64, 64 * limbs * blocks)))
        rows = code.load(WORDS, r, builder.mul(index, ir.Constant(I64, 64)))
        halves = (code.even, code.odd)
        totals = list(totals)
        for block in range(blocks):
            scale = code.scale(shape, scales_at, units_at, record, block, 0)
            products = [builder.mul(half(rows), half(scale)) for half in halves]
            constants = products
            if not shape.tied:
                offset = code.scale(shape, scales_at, units_at, record, block, 1)
                constants = [builder.mul(half(rows), half(offset)) for half in halves]
            for part in constants:
                low = builder.and_(part, code.all(LONGS, 0xFFFFFFFF))
                high = builder.ashr(part, code.all(LONGS, 32))
                totals[2 * block] = builder.add(totals[2 * block], low)
                totals[2 * block + 1] = builder.add(totals[2 * block + 1], high)
            for limb, vector in enumerate(_digit_vectors(code, products, limbs)):
                code.store(vector, to, 64 * (block * limbs + limb))
        return totals

    totals = code.loop(tiles, [code.all(LONGS, 0)] * (2 * blocks), tile)
    for number, total in enumerate(totals):
        if shape.tied:
            total = builder.mul(total, code.spread(minus, LONGS))
        code.store(builder.add(total, code.load(LONGS, constant, 64 * number)), constant, 64 * number)


def _digit_vectors(code: Code, products: list[Value], limbs: int) -> list[Value]:
    """From int64 of even and of odd rows: for each limb the digits of rows 4 g .. 4 g + 3 in all lanes of quarter g."""
    builder = code.builder
    bias = code.all(LONGS, _BIAS)
    even, odd = (builder.bitcast(builder.xor(builder.add(part, bias), bias), BYTES) for part in products)
    rows01 = code.shuffle(even, odd, [16 * g + n + 64 * which for g in range(4) for n in range(8) for which in (0, 1)])
    rows23 = code.shuffle(
        even, odd, [16 * g + 8 + n + 64 * which for g in range(4) for n in range(8) for which in (0, 1)]
    )
    fours = [
        builder.bitcast(
            code.shuffle(
                rows01,
                rows23,
                [
                    16 * g + 8 * half + 2 * limb + byte + 64 * which
                    for g in range(4)
                    for limb in range(4)
                    for which in (0, 1)
                    for byte in (0, 1)
                ],
            ),
            WORDS,
        )
        for half in range(2)
    ]
    return [
        code.shuffle(fours[limb // 4], fours[limb // 4], [4 * (lane // 4) + limb % 4 for lane in range(16)])
        for limb in range(limbs)
    ]


def write_gathered(
    code: Code,
    shape: Shape,
    weights: Value,
    step: Value,
    tiles: Value,
    digits: Value,
    totals: Value,
) -> None:
    """Add one record of several tiles, `step` bytes apart, to `totals`: int32 [8, limbs, 16]."""
    builder = code.builder
    blocks, limbs = 32 // shape.block, shape.limbs
    for pair in range(0, 8, 2):
        size = 64 * limbs
        block = pair * 4 // shape.block

        def tile(index: Value, sums: list[Value], pair: int = pair, block: int = block) -> list[Value]:
            at = builder.add(weights, builder.mul(index, step))
            digits_at = builder.add(digits, builder.mul(index, ir.Constant(I64, 64 * limbs * blocks)))
            sums = list(sums)
            for which in range(2):
                vector = code.byte_vector(shape.bits, at, pair + which)
                columns = code.shuffle(vector, vector, _QUARTERS)
                for limb in range(limbs):
                    digit = code.load(BYTES, digits_at, 64 * (block * limbs + limb))
                    number = which * limbs + limb
                    sums[number] = dot(code, sums[number], columns, digit)
            return sums

        start = [code.load(WORDS, totals, size * pair + 64 * n) for n in range(2 * limbs)]
        for number, total in enumerate(code.loop(tiles, start, tile)):
            code.store(total, totals, size * pair + 64 * number)


def write_joined(code: Code, shape: Shape, totals: Value, constant: Value, out: Value, step: Value) -> None:
    """Add one record's `totals` and `constant` (int64 [blocks, 2]) to its columns in three rows of `out`, `step` apart.

    The rows are for 1, 2^24 and 2^48.
    """
    builder, limbs = code.builder, shape.limbs
    for vector in range(8):
        block = vector * 4 // shape.block
        low, high = (code.spread(code.load(I64, constant, 16 * block + 8 * n), _FOUR_LONGS) for n in range(2))
        parts = [
            low,
            builder.shl(builder.and_(high, code.all(_FOUR_LONGS, 0xFFFF)), code.all(_FOUR_LONGS, 8)),
            builder.ashr(high, code.all(_FOUR_LONGS, 16)),
        ]
        for limb in range(limbs):
            place = 64 * (vector * limbs + limb)
            total = code.all(_FOUR_LONGS, 0)
            for quarter in range(4):
                total = builder.add(total, builder.sext(code.load(_FOURS, totals, place + 16 * quarter), _FOUR_LONGS))
            total = builder.shl(total, code.all(_FOUR_LONGS, 8 * (limb % 3)))
            parts[limb // 3] = builder.add(parts[limb // 3], total)
        for row, part in enumerate(parts):
            at = builder.add(out, builder.mul(step, ir.Constant(I64, row)))
            code.store(builder.add(part, code.load(_FOUR_LONGS, at, 32 * vector)), at, 32 * vector)


def write_fetch(code: Code, _: Shape, address: Value, lines: Value) -> None:
    """Ask for so many cache lines, at least one, that will be wanted soon."""

    def one(index: Value, _: list[Value]) -> list[Value]:
        code.prefetch(code.builder.add(address, code.builder.mul(index, ir.Constant(I64, LINE))), LINE, ahead=0)
        return []

    code.loop(lines, [], one)


cut: Final = instruction(write_digits)
gather: Final = instruction(write_gathered)
join: Final = instruction(write_joined)
fetch: Final = instruction(write_fetch)
