"""Addresses as whole numbers: what kernels read from them, and functions that are called there."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from assay.engines.exact.kernels.emit import generated

_LONG = ir.IntType(64)


@generated
def call(_typing: Any, _address: Any, arguments: Any) -> tuple[Any, Any]:
    """Call the C function at an address with a tuple of int64; it gives nothing back."""

    def codegen(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        words = [builder.extract_value(values[1], i) for i in range(arguments.count)]
        kind = ir.FunctionType(ir.VoidType(), [_LONG] * arguments.count)
        builder.call(builder.inttoptr(values[0], kind.as_pointer()), words)
        return ir.Constant(_LONG, 0)

    return types.int64(types.int64, types.UniTuple(types.int64, arguments.count)), codegen


@generated
def word_at(_typing: Any, _address: Any) -> tuple[Any, Any]:
    """The int64 at an address."""

    def codegen(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.load(builder.inttoptr(values[0], _LONG.as_pointer()))

    return types.int64(types.int64), codegen


@generated
def half_word_at(_typing: Any, _address: Any) -> tuple[Any, Any]:
    """The uint32 at an address."""

    def codegen(_context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.zext(builder.load(builder.inttoptr(values[0], ir.IntType(32).as_pointer())), _LONG)

    return types.int64(types.int64), codegen
