"""The inner kernels: one tile of a packed matrix times a group of tokens, and a tile unpacked for many groups."""

from __future__ import annotations

from typing import Final

from llvmlite import ir

from assay.engines.exact.kernels.simd import (
    BYTES,
    DOTS,
    FLAVOUR,
    HALVES,
    I32,
    I64,
    LONGS,
    TOKENS,
    WORDS,
    Code,
    Shape,
    Value,
    instruction,
    scale_bytes,
)

SLOT: Final = 80
"""Bytes of a prepared record of one token: its activations, and int32 sums of its first 16, last 16 and all columns."""
SUMS: Final = 64
"""Where in a slot the sums begin."""
_WIDE: Final = ir.VectorType(I32, 32)


def write_products(code: Code, shape: Shape, tokens: Value, *rest: Value) -> None:
    """`write_product` for as many tokens as `tokens` says, 1 to `TOKENS`."""
    builder = code.builder
    after = builder.append_basic_block("stored")
    for count in range(1, TOKENS + 1):
        chosen, other = builder.append_basic_block(f"tokens{count}"), builder.append_basic_block("more")
        builder.cbranch(builder.icmp_signed("==", tokens, ir.Constant(I64, count)), chosen, other)
        builder.position_at_end(chosen)
        write_product(code, shape, count, *rest)
        builder.branch(after)
        builder.position_at_end(other)
    builder.branch(after)
    builder.position_at_end(after)


def write_product(
    code: Code,
    shape: Shape,
    tokens: int,
    weights: Value,
    scales: Value,
    units: Value,
    minus: Value,
    base: Value,
    records: Value,
    x: Value,
    out: Value,
    stride: Value,
) -> None:
    """Store the products of 16 rows with `tokens` prepared tokens at `out`, `stride` bytes from token to token.

    `minus`: the offsets are so many times the scales, where they are tied. `base`: see `Packed.base`.
    """
    builder = code.builder
    if shape.bits == 16:
        minus = builder.ashr(minus, ir.Constant(I64, 8))
    minus = builder.trunc(minus, I32)
    zero = code.all(LONGS, 0)

    def record(index: Value, y: list[Value]) -> list[Value]:
        at = builder.add(weights, builder.mul(index, ir.Constant(I64, 64 * shape.bits)))
        scales_at = builder.add(scales, builder.mul(index, ir.Constant(I64, scale_bytes(shape))))
        code.prefetch(at, 64 * shape.bits)
        code.prefetch(scales_at, scale_bytes(shape))
        x_at = builder.add(x, builder.mul(index, ir.Constant(I64, SLOT * tokens)))
        y = list(y)
        for block in range(32 // shape.block):
            scale = code.scale(shape, scales_at, units, index, block, 0)
            for shift, total in _blocks(code, shape, at, x_at, tokens, block, minus):
                _add_scaled(code, y, scale, total, shift)
            if not shape.tied:
                offset = code.scale(shape, scales_at, units, index, block, 1)
                for token in range(tokens):
                    columns = code.even(code.spread(code.load(I32, x_at, _sum_at(shape, block, token)), WORDS))
                    y[2 * token] = builder.add(y[2 * token], builder.mul(code.even(offset), columns))
                    y[2 * token + 1] = builder.add(y[2 * token + 1], builder.mul(code.odd(offset), columns))
        return y

    y = code.loop(records, [zero] * (2 * tokens), record)
    up = code.spread(base, LONGS)
    for token in range(tokens):
        even, odd = (builder.shl(part, up) for part in y[2 * token : 2 * token + 2])
        place = builder.add(out, builder.mul(stride, ir.Constant(I64, token)))
        for half in range(2):
            lanes = [lane + 8 * which for lane in range(4 * half, 4 * half + 4) for which in range(2)]
            code.store(code.shuffle(even, odd, lanes), place, 64 * half)


def write_expanded(
    code: Code,
    shape: Shape,
    weights: Value,
    scales: Value,
    units: Value,
    records: Value,
    bytes_at: Value,
    words_at: Value,
) -> None:
    """Store a tile's q as bytes and its scales and offsets as int32, as they would be with 8 bits and `WORD`.

    With 16 bits, only the scales and offsets.
    """
    builder = code.builder
    blocks = 32 // shape.block

    def record(index: Value, _: list[Value]) -> list[Value]:
        at = builder.add(weights, builder.mul(index, ir.Constant(I64, 64 * shape.bits)))
        to = builder.add(bytes_at, builder.mul(index, ir.Constant(I64, 512)))
        code.prefetch(at, 64 * shape.bits)
        for number in range(8 if shape.bits <= 8 else 0):
            code.store(code.byte_vector(shape.bits, at, number), to, 64 * number)
        at = builder.add(scales, builder.mul(index, ir.Constant(I64, scale_bytes(shape))))
        to = builder.add(words_at, builder.mul(index, ir.Constant(I64, 64 * shape.parts * blocks)))
        for block in range(blocks):
            for part in range(shape.parts):
                value = code.scale(shape, at, units, index, block, part)
                code.store(value, to, 64 * (block * shape.parts + part))
        return []

    code.loop(records, [], record)


def write_copy(code: Code, _: Shape, source: Value, to: Value, count: Value) -> None:
    """Copy so many 64-bit numbers, at least one, between addresses."""

    def one(index: Value, _: list[Value]) -> list[Value]:
        offset = code.builder.mul(index, ir.Constant(I64, 8))
        code.store(code.load(I64, source, offset), to, offset)
        return []

    code.loop(count, [], one)


def _sum_at(shape: Shape, block: int, token: int) -> int:
    return SLOT * token + SUMS + 4 * (2 if shape.block == 32 else block)


def _blocks(
    code: Code, shape: Shape, at: Value, x_at: Value, tokens: int, block: int, minus: Value
) -> list[tuple[int, list[Value]]]:
    """Products of q with each token's activations over a block: int32 [16] each, and what to shift them by."""
    builder = code.builder
    count = shape.block // 4
    planes = [(0, 0), (8, 512)] if shape.bits == 16 else [(0, 0)]
    results = []
    for shift, offset in planes:
        states = []
        for token in range(tokens):
            first = code.all(WORDS, 0)
            if shape.tied and shift == planes[-1][0]:
                columns = code.load(I32, x_at, _sum_at(shape, block, token))
                first = code.spread(builder.mul(columns, minus), WORDS)
            states.append([code.all(WORDS, 0), first] if DOTS else [first])
        for number in range(block * count, (block + 1) * count):
            place = code.plus(at, offset)
            vector = code.byte_vector(min(shape.bits, 8), place, number)
            for token, state in enumerate(states):
                _step(code, state, vector, x_at, SLOT * token, number)
        results.append((shift, [_finish(code, state) for state in states]))
    return results


def _add_scaled(code: Code, y: list[Value], scale: Value, totals: list[Value], shift: int) -> None:
    builder = code.builder
    for token, total in enumerate(totals):
        for which, half in enumerate((code.even, code.odd)):
            product = builder.mul(half(total), half(scale))
            if shift:
                product = builder.shl(product, code.all(LONGS, shift))
            y[2 * token + which] = builder.add(y[2 * token + which], product)


def _step(code: Code, state: list[Value], vector: Value, x_at: Value, slot: int, number: int) -> None:
    """Add the products of a byte vector with four activations."""
    if DOTS:
        for limb in range(2):
            x = code.spread(code.load(I32, x_at, slot + 32 * limb + 4 * number), WORDS)
            state[limb] = dot(code, state[limb], vector, code.builder.bitcast(x, BYTES))
        return
    builder = code.builder
    halves = builder.bitcast(vector, HALVES)
    pairs = (builder.and_(halves, code.all(HALVES, 255)), builder.lshr(halves, code.all(HALVES, 8)))
    for which, pair in enumerate(pairs):
        x = code.spread(code.load(I32, x_at, slot + 8 * number + 4 * which), WORDS)
        state[0] = builder.add(state[0], _pairs(code, pair, builder.bitcast(x, HALVES)))


def _finish(code: Code, state: list[Value]) -> Value:
    if DOTS:
        return code.builder.add(code.builder.shl(state[0], code.all(WORDS, 8)), state[1])
    return state[0]


def dot(code: Code, total: Value, unsigned: Value, signed: Value) -> Value:
    """Add the dot product of four bytes to each lane (VPDPBUSD)."""
    if FLAVOUR == "dot512":
        return code.call("llvm.x86.avx512.vpdpbusd.512", WORDS, total, unsigned, signed)
    parts = [
        code.call(
            "llvm.x86.avx512.vpdpbusd.256",
            ir.VectorType(I32, 8),
            code.shuffle(total, total, range(8 * half, 8 * half + 8)),
            *(code.shuffle(part, part, range(32 * half, 32 * half + 32)) for part in (unsigned, signed)),
        )
        for half in range(2)
    ]
    return code.shuffle(parts[0], parts[1], range(16))


def _pairs(code: Code, one: Value, other: Value) -> Value:
    """Sums of the products of neighbouring 16-bit numbers: int32 [16] (PMADDWD)."""
    if FLAVOUR == "pairs512":
        return code.call("llvm.x86.avx512.pmaddw.d.512", WORDS, one, other)
    if FLAVOUR == "plain":
        builder = code.builder
        product = builder.mul(builder.sext(one, _WIDE), builder.sext(other, _WIDE))
        return builder.add(*(code.shuffle(product, product, range(which, 32, 2)) for which in range(2)))
    name, lanes = ("llvm.x86.avx2.pmadd.wd", 16) if FLAVOUR == "pairs256" else ("llvm.x86.sse2.pmadd.wd", 8)
    parts = [
        code.call(
            name,
            ir.VectorType(I32, lanes // 2),
            *(code.shuffle(part, part, range(start, start + lanes)) for part in (one, other)),
        )
        for start in range(0, 32, lanes)
    ]
    while len(parts) > 1:
        count = parts[0].type.count
        parts = [code.shuffle(parts[n], parts[n + 1], range(2 * count)) for n in range(0, len(parts), 2)]
    return parts[0]


product: Final = instruction(write_products)
expand: Final = instruction(write_expanded)
copy: Final = instruction(write_copy)
