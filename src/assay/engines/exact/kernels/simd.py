"""Vector code for the kernels, as LLVM instructions: what the processor at hand does best, with the same results.

A vector of bytes has 16 lanes of 32 bits, one for each row of a tile, with four columns of its row in each lane.
`Flavour` says how a product of such bytes with activations is formed. The names of LLVM's intrinsics are in its
IntrinsicsX86.td.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from llvmlite import ir
from numba import types
from numba.core.base import BaseContext
from numba.core.registry import cpu_target
from numba.core.typing import Signature
from numba.extending import intrinsic

from assay.engines.exact.kernels.emit import compiled_for
from assay.engines.exact.packed import GROUP, LEVELS, SHORT

Value: TypeAlias = ir.NamedValue | ir.Constant
"""Of a computation that is being written."""
I8: Final = ir.IntType(8)
I16: Final = ir.IntType(16)
I32: Final = ir.IntType(32)
I64: Final = ir.IntType(64)
BYTES: Final = ir.VectorType(I8, 64)
HALVES: Final = ir.VectorType(I16, 32)
WORDS: Final = ir.VectorType(I32, 16)
LONGS: Final = ir.VectorType(I64, 8)

LINE: Final = 64
"""Bytes of a cache line."""
AHEAD: Final = 2048
"""How far before its use memory is asked for."""

Flavour: TypeAlias = Literal["dot512", "dot256", "pairs512", "pairs256", "pairs128", "plain"]
"""Dot products of four bytes (VNNI) or of two 16-bit numbers, in registers of so many bits, or plain LLVM vectors."""


def choose_flavour() -> Flavour:
    """For the processor that numba compiles for (`NUMBA_CPU_NAME` and `NUMBA_CPU_FEATURES` change that)."""
    target: Any = cpu_target
    if not target.target_context.codegen().magic_tuple()[0].startswith(("x86_64", "i686")):
        return "plain"
    if compiled_for("avx512vnni", "avx512bw", "avx512vl", "avx512dq"):
        return "dot512"
    if compiled_for("avxvnni", "avx2"):
        return "dot256"
    if compiled_for("avx512bw"):
        return "pairs512"
    return "pairs256" if compiled_for("avx2") else "pairs128"


FLAVOUR: Final[Flavour] = choose_flavour()
DOTS: Final = FLAVOUR.startswith("dot")
"""Whether activations are used as two limbs of 8 bits; otherwise whole."""
TOKENS: Final = {"dot512": 4, "pairs512": 4}.get(FLAVOUR, 2)
"""The most tokens for which the registers suffice."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a kernel is compiled for; the fields are those of `Packed`."""

    bits: int
    block: int
    scales: int
    tied: bool
    """Whether offsets are a multiple of the scales."""
    limbs: int = 0
    """Digits of an auditor's products."""

    @classmethod
    def of(cls, kind: int) -> Shape:
        """From `kind`, as compiled code has it."""
        return cls(kind & 255, kind >> 8 & 255, kind >> 16 & 15, bool(kind >> 20 & 1), kind >> 24)

    @property
    def kind(self) -> int:
        """All of it as one number, which compiled code can hand on as a constant."""
        return self.bits | self.block << 8 | self.scales << 16 | self.tied << 20 | self.limbs << 24

    @property
    def parts(self) -> int:
        """Vectors of a block: its scale and, unless tied, its offset."""
        return 1 if self.tied else 2


class Code:
    """Writes instructions at the end of a function; addresses are 64-bit numbers."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.builder = builder

    def at(self, address: Value, offset: int | Value = 0) -> Value:
        """A pointer."""
        if isinstance(offset, int):
            offset = ir.Constant(I64, offset)
        return self.builder.inttoptr(self.builder.add(address, offset), ir.PointerType())

    def load(self, kind: ir.Type, address: Value, offset: int | Value = 0) -> Value:
        """From any address."""
        return self.builder.load(self.at(address, offset), typ=kind, align=1)

    def store(self, value: Value, address: Value, offset: int | Value = 0) -> None:
        """To any address."""
        self.builder.store(value, self.at(address, offset), align=1)

    def prefetch(self, address: Value, size: int, ahead: int = AHEAD) -> None:
        """Ask for so many bytes that will be wanted soon; they may lie behind the end of an array."""
        kinds = [ir.PointerType(), I32, I32, I32]
        module = self.builder.module
        name = "llvm.prefetch.p0"
        function = module.globals.get(name) or ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name)
        for line in range(0, size, LINE):
            self.builder.call(
                function, [self.at(address, ahead + line), *(ir.Constant(I32, value) for value in (0, 3, 1))]
            )

    def plus(self, address: Value, offset: int) -> Value:
        """An address so many bytes on."""
        return self.builder.add(address, ir.Constant(I64, offset))

    def all(self, kind: ir.VectorType, value: int) -> ir.Constant:
        """The same number in every lane."""
        return ir.Constant(kind, [value] * kind.count)

    def spread(self, value: Value, kind: ir.VectorType) -> Value:
        """A number from a register in every lane."""
        first = self.builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(I32, 0))
        lanes = ir.Constant(ir.VectorType(I32, kind.count), [0] * kind.count)
        return self.builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), lanes)

    def shuffle(self, one: Value, other: Value, lanes: Sequence[int]) -> Value:
        """Lanes of two vectors, counted through."""
        return self.builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes)))

    def call(self, name: str, result: ir.Type, *arguments: Value) -> Value:
        """An intrinsic."""
        kind = ir.FunctionType(result, [argument.type for argument in arguments])
        module = self.builder.module
        function = module.globals.get(name) or ir.Function(module, kind, name)
        return self.builder.call(function, arguments)

    def loop(
        self, count: Value, start: Sequence[Value], body: Callable[[Value, list[Value]], list[Value]]
    ) -> list[Value]:
        """Run `body(i, values)`, which gives the next values, for i = 0 .. count - 1; count must be at least 1."""
        builder = self.builder
        before, inside = builder.block, builder.append_basic_block("loop")
        builder.branch(inside)
        builder.position_at_end(inside)
        index = builder.phi(I64)
        index.add_incoming(ir.Constant(I64, 0), before)
        values = [builder.phi(value.type) for value in start]
        for phi, value in zip(values, start, strict=True):
            phi.add_incoming(value, before)
        results = body(index, list(values))
        following, end = self.plus(index, 1), builder.block
        index.add_incoming(following, end)
        for phi, value in zip(values, results, strict=True):
            phi.add_incoming(value, end)
        after = builder.append_basic_block("after")
        builder.cbranch(builder.icmp_signed("<", following, count), inside, after)
        builder.position_at_end(after)
        return results

    def even(self, words: Value) -> Value:
        """Lanes 0, 2, 4 … of 32 bits in 64."""
        longs = self.builder.bitcast(words, LONGS)
        return self.builder.ashr(self.builder.shl(longs, self.all(LONGS, 32)), self.all(LONGS, 32))

    def odd(self, words: Value) -> Value:
        """Lanes 1, 3, 5 … of 32 bits in 64."""
        return self.builder.ashr(self.builder.bitcast(words, LONGS), self.all(LONGS, 32))

    def byte_vector(self, bits: int, record: Value, number: int) -> Value:
        """Byte vector `number` of a record of 4 to 8 bits."""
        builder = self.builder
        if bits == 8:
            return self.load(BYTES, record, 64 * number)
        stored = self.load(HALVES, record, 64 * (number // 2))
        if number % 2:
            stored = builder.lshr(stored, self.all(HALVES, 4))
        low = builder.and_(stored, self.all(HALVES, 0x0F0F))
        if bits > 4:
            each = bits - 4
            per_vector = 8 // each
            plane = self.load(HALVES, record, 256 + 64 * (number // per_vector))
            move = 4 - number % per_vector * each
            if move:
                shift = builder.shl if move > 0 else builder.lshr
                plane = shift(plane, self.all(HALVES, abs(move)))
            mask = ((1 << each) - 1) << 4
            low = builder.or_(low, builder.and_(plane, self.all(HALVES, mask * 0x101)))
        return builder.bitcast(low, BYTES)

    def scale(self, shape: Shape, scales: Value, units: Value, record: Value, block: int, part: int) -> Value:
        """Scales (`part` 0) or offsets (1) of block `block` of a record, at `scales`: int32 [16]."""
        builder = self.builder
        vector = block * shape.parts + part
        if shape.scales == SHORT:
            short = builder.sext(self.load(ir.VectorType(I16, 16), scales, 32 * vector), WORDS)
            shift = builder.and_(short, self.all(WORDS, 15))
            return builder.shl(builder.ashr(short, self.all(WORDS, 4)), shift)
        if shape.scales == LEVELS:
            level = builder.sext(self.load(ir.VectorType(I8, 16), scales, 16 * vector), WORDS)
            group = builder.lshr(record, ir.Constant(I64, GROUP.bit_length() - 1))
            at = builder.mul(group, ir.Constant(I64, 64 * shape.parts))
            return builder.mul(level, self.load(WORDS, units, self.plus(at, 64 * part)))
        return self.load(WORDS, scales, 64 * vector)


def instruction(write: Callable[..., None]) -> Callable[[int, tuple[int, ...]], None]:
    """For use in compiled code: what `write(code, shape, *values)` writes, called with a `Shape.kind` and the values.

    The kind must be known when the code is compiled; the values are whole numbers, 64 bits wide.
    """

    def typed(_: object, kind: types.IntegerLiteral, values: types.BaseTuple) -> tuple[Signature, Callable[..., Value]]:
        shape = Shape.of(kind.literal_value)

        def generate(
            context: BaseContext, builder: ir.IRBuilder, signature: Signature, arguments: Sequence[Value]
        ) -> Value:
            given = signature.args[1]
            numbers = (
                context.cast(builder, builder.extract_value(arguments[1], at), given[at], types.intp)
                for at in range(len(given))
            )
            write(Code(builder), shape, *numbers)
            return context.get_dummy_value()

        return types.void(kind, values), generate

    typed.__name__ = write.__name__
    made: Any = intrinsic(prefer_literal=True)(typed)
    return made


def scale_bytes(shape: Shape) -> int:
    """Of a record."""
    each = 32 if shape.scales == SHORT else 16 if shape.scales == LEVELS else 64
    return each * shape.parts * (32 // shape.block)
