"""Threads that run one pass together: a share of the work for each, and a barrier between steps that depend."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

from llvmlite import ir
from numba import types

from assay.engines.exact.kernels.emit import generated
from assay.engines.exact.kernels.scalars import Whole, compiled

_LONG: Final = ir.IntType(64)
_SPINS: Final = 5_000
"""Looks at the barrier (some microseconds) before a thread lets others have the processor between looks."""
_YIELD: Final = "SwitchToThread" if sys.platform == "win32" else "sched_yield"


@generated
def _fetch_add(_typing: Any, address: Any, value: Any) -> tuple[Any, Callable[..., ir.Value]]:
    """Add to the int64 at an address; what it was before."""

    def codegen(_context: Any, builder: Any, _signature: Any, arguments: Any) -> ir.Value:
        pointer = builder.inttoptr(arguments[0], _LONG.as_pointer())
        return builder.atomic_rmw("add", pointer, arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@generated
def _look(_typing: Any, _address: Any) -> tuple[Any, Callable[..., ir.Value]]:
    """The int64 at an address, as it is now."""

    def codegen(_context: Any, builder: Any, _signature: Any, arguments: Any) -> ir.Value:
        return builder.load_atomic(builder.inttoptr(arguments[0], _LONG.as_pointer()), "acquire", 8)

    return types.int64(types.int64), codegen


@generated
def _let_others(_typing: Any) -> tuple[Any, Callable[..., ir.Value]]:
    def codegen(_context: Any, builder: Any, _signature: Any, _arguments: Any) -> ir.Value:
        module = builder.module
        function = module.globals.get(_YIELD) or ir.Function(module, ir.FunctionType(ir.IntType(32), []), _YIELD)
        builder.call(function, [])
        return ir.Constant(_LONG, 0)

    return types.int64(), codegen


@compiled
def meet(barrier: Whole, threads: Whole) -> None:
    """Go on when all threads are here. `barrier`: the address of two int64, zero at first."""
    if threads == 1:
        return
    turn = _look(barrier + 8)
    if _fetch_add(barrier, 1) == threads - 1:
        _fetch_add(barrier, -threads)
        _fetch_add(barrier + 8, 1)
        return
    spins = 0
    while _look(barrier + 8) == turn:
        spins += 1
        if spins > _SPINS:
            _let_others()
