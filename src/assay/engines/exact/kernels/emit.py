"""Writing LLVM IR into numba's functions: vectors of stated widths, for which numba has no expression."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.extending import intrinsic


def inline(body: Callable[..., Any]) -> Callable[..., Any]:
    """numba's `intrinsic`, typed as what compiled functions call: without the context that the body takes first."""
    return intrinsic(body)


def declared(builder: ir.IRBuilder, name: str, gives: ir.Type, takes: Sequence[ir.Type]) -> ir.Function:
    """One of LLVM's intrinsic functions."""
    known = builder.module.globals.get(name)
    return known or ir.Function(builder.module, ir.FunctionType(gives, takes), name)
