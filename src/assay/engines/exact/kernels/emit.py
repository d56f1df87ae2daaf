"""Writing LLVM IR into numba's functions: vectors of stated widths, for which numba has no expression."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from llvmlite import ir
from numba.core.registry import cpu_target
from numba.extending import intrinsic

_PAIRS: Final = 16
_WORD: Final = ir.IntType(32)
_LONG: Final = ir.IntType(64)
_WORDS: Final = ir.VectorType(_WORD, _PAIRS)
_TWO_A_LANE: Final = ir.VectorType(_WORD, 2 * _PAIRS)


def generated(build: Callable[..., Any]) -> Callable[..., Any]:
    """numba's `intrinsic`, typed as what compiled functions call: without the context that `build` takes first."""
    return intrinsic(build)


def compiled_for(*features: str) -> bool:
    """Whether numba compiles for a processor with all of these (`NUMBA_CPU_NAME` and `NUMBA_CPU_FEATURES` count)."""
    context: Any = cpu_target.target_context
    return {f"+{feature}" for feature in features} <= set(str(context.codegen().magic_tuple()[2]).split(","))


def declared(builder: ir.IRBuilder, name: str, gives: ir.Type, takes: Sequence[ir.Type]) -> ir.Function:
    """One of LLVM's intrinsic functions."""
    known = builder.module.globals.get(name)
    return known or ir.Function(builder.module, ir.FunctionType(gives, takes), name)


def place(builder: ir.IRBuilder, address: ir.Value, offset: int, kind: ir.Type) -> ir.Value:
    """A pointer to what is `offset` bytes behind an address (a number of 64 bits)."""
    return builder.inttoptr(builder.add(address, ir.Constant(_LONG, offset)), kind.as_pointer())


def add_pairs(builder: ir.IRBuilder, total: ir.Value, left: ir.Value, right: ir.Value) -> ir.Value:
    """int32 [16] total + left[2i] * right[2i] + left[2i+1] * right[2i+1], of int16 [32]: one instruction of x86
    (vpdpwssd), or two."""
    product = builder.mul(builder.sext(left, _TWO_A_LANE), builder.sext(right, _TWO_A_LANE))
    undefined = ir.Constant(_TWO_A_LANE, ir.Undefined)
    even, odd = (
        builder.shuffle_vector(product, undefined, ir.Constant(_WORDS, [2 * i + first for i in range(_PAIRS)]))
        for first in (0, 1)
    )
    return builder.add(total, builder.add(even, odd))
