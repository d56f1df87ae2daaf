"""The barrier: nobody goes on before everybody is there, time after time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from assay.engines.exact.kernels.scalars import Whole, compiled
from assay.engines.exact.kernels.team import meet


@compiled
def shuttle(barrier: np.ndarray, marks: np.ndarray, rounds: Whole, thread: Whole, threads: Whole) -> Whole:
    """In each round write a mark, meet, and look at everybody's; how many were not there."""
    missing = 0
    for number in range(1, rounds + 1):
        marks[number % 2, thread] = number
        meet(barrier.ctypes.data, threads)
        for other in range(threads):
            if marks[number % 2, other] != number:
                missing += 1
    return missing


@pytest.mark.parametrize(("threads", "rounds"), [(1, 1000), (2, 3000), (3, 500), (5, 100)])
def test_nobody_is_left_behind(threads: int, rounds: int) -> None:
    """After each meeting every thread sees what every other one wrote before it, also with more threads than cores."""
    barrier, marks = np.zeros(2, np.int64), np.zeros((2, threads), np.int64)
    with ThreadPoolExecutor(threads) as pool:
        found = [pool.submit(shuttle, barrier, marks, rounds, n, threads) for n in range(threads)]
        assert [int(each.result(60)) for each in found] == [0] * threads
    assert barrier.tolist() == [0, rounds if threads > 1 else 0]
