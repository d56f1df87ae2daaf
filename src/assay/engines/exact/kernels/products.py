"""Placeholder."""

from __future__ import annotations

import numba
import numpy as np

from assay.engines.exact.kernels.scalars import compiled


@numba.extending.intrinsic
def _as_ptr(typ, a):
    from llvmlite import ir

    def cg(c, b, s, args):
        return b.inttoptr(args[0], ir.IntType(8).as_pointer())

    return numba.types.voidptr(numba.types.int64), cg


@compiled
def prepare_row(x: np.ndarray, ready: np.ndarray, n: int, count: int) -> None:
    """Placeholder."""
    out = ready.view(np.int16)
    for i in range(x.size):
        out[n * 65536 + i] = x[i]


@compiled
def multiply_share(
    fields: np.ndarray, ready: np.ndarray, count: int, out: np.ndarray, at: int, thread: int, threads: int
) -> None:
    """Placeholder."""
    rows, columns = fields[1], fields[2]
    w = numba.carray(_as_ptr(fields[3]), (rows, columns), np.int64)
    x = ready.view(np.int16)
    for r in range(rows * thread // threads, rows * (thread + 1) // threads):
        for n in range(count):
            t = np.int64(0)
            for i in range(columns):
                t += w[r, i] * x[n * 65536 + i]
            out[n, at + r] = t
