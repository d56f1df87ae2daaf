"""The arithmetic of the referees is that of the referee in Python, over all numbers that cells can hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.chain.tribunal import Bench

from assay.chain import contracts
from assay.core.errors import AssayError
from assay.core.keys import keccak256
from assay.engines.exact.dispute import draws, integers

EDGES = sorted({sign * (1 << bit) + near for bit in range(64) for sign in (1, -1) for near in (-1, 0, 1)})
CELL = st.one_of(
    st.integers(-(1 << 63), (1 << 63) - 1), st.sampled_from([x for x in EDGES if -(1 << 63) <= x < 1 << 63])
)
"""What one number of a cell can be."""
WIDE = st.one_of(CELL, st.integers(-(1 << 190), 1 << 190), st.integers(0, 190).map(lambda bit: 1 << bit))
"""What a product of three can be."""
BY = st.one_of(
    st.integers(-70, 70), st.sampled_from([0, 1, 61, 62, 63, 64, -61, -62, -63, -64, 1 << 15, -1 << 15]), CELL
)
"""A shift, or fraction bits."""
WORD = st.one_of(st.integers(0, (1 << 64) - 1), st.sampled_from([x for x in EDGES if 0 <= x < 1 << 64]))
HALF = st.one_of(st.integers(0, (1 << 32) - 1), st.sampled_from([0, 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]))
few = settings(deadline=None, max_examples=150)


@cache
def bench() -> Bench:
    """The arithmetic, with each of the tables."""
    from vyper.cli.vyper_compile import compile_files

    paths = [str(Path(contracts.__file__).parent)]
    (found,) = compile_files([Path(__file__).with_name("Whole.vy")], ["bytecode"], paths=paths).values()
    bench = Bench()
    for table in contracts.TABLES:
        bench.deploy(f"Whole.{table}", bytes.fromhex(found["bytecode"].removeprefix("0x")), table)
    return bench


def ask(name: str, types: str, args: Sequence[int], table: str = "Powers") -> tuple[int, ...] | None:
    """What a function returns; None if it reverts."""
    words = b"".join((x % (1 << 256)).to_bytes(32, "big") for x in args)
    found = bench().call(f"Whole.{table}", keccak256(f"{name}({types})".encode())[:4] + words)
    if found is None:
        return None
    return tuple(int.from_bytes(found[0][i : i + 32], "big", signed=True) for i in range(0, len(found[0]), 32))


def same(name: str, types: str, args: Sequence[int], own: Callable[..., Any], table: str = "Powers") -> None:
    """Both give the same, or both refuse."""
    try:
        found = own(*args)
    except AssayError:
        found = None
    expected = found if found is None or isinstance(found, tuple) else (int(found),)
    assert ask(name, types, args, table) == expected


@given(WIDE, BY)
@example(1 << 62, -1)
@example((1 << 62) - 1, 0)
@example(-(1 << 63), 0)
@example(-1, 1)
@example(1, 62)
@few
def test_shifts(x: int, by: int) -> None:
    """To the nearest, halves upwards, saturated to the left; and narrowed to 15 bits."""
    same("shifted", "int256,int256", (x, by), integers.round_shift)
    same("narrowed", "int256,int256", (x, by), integers.narrowed)


@given(WIDE, BY)
@few
def test_scales(most: int, fraction: int) -> None:
    """By the length of the largest magnitude."""
    same("narrowScale", "int256,int256", (abs(most), fraction), integers.narrow_scale)
    same("normShift", "int256,int256", (abs(most), fraction), integers.norm_shift)


@given(CELL, st.integers(1, 1 << 16), BY, CELL)
@example(0, 576, 16, 0)
@example((1 << 62) - 1, 1, 16, 0)
@example(1 << 62, 1, 16, 0)
@example(-1, 1, 16, 1)
@few
def test_roots(squares: int, n: int, fraction: int, epsilon: int) -> None:
    """Sums out of range are refused by both."""
    same("inverseRoot", "int256,int256,int256,int256", (squares, n, fraction, epsilon), integers.inverse_root)


@given(CELL)
@example(-1)
@example(-(1 << 63))
@few
def test_softmax(x: int) -> None:
    """Of a score over the largest one, too, which only a lie is."""
    same("exp2Negative", "int256", (x,), integers.exp2_negative)


@given(CELL)
@few
def test_gates(x: int) -> None:
    """Both functions, with what they are clipped to before, and unclipped."""
    same("sigmoid", "int256", (x,), integers.sigmoid, "Sigmoid")
    for number in (x, integers.clip(x, integers.MOST)):
        same("activate", "int256,uint256", (number, 0), lambda x, _: integers.activate(x, "silu"), "Sigmoid")
        same("activate", "int256,uint256", (number, 1), lambda x, _: integers.activate(x, "gelu"), "Sigmoid")


@given(WIDE, CELL)
@example(-3, 2)
@example(-1, 2)
@example(1, 2)
@example(5, 0)
@few
def test_quotients(x: int, by: int) -> None:
    """Halves upwards, below 0 as well."""
    same("divide", "int256,int256", (x, by), integers.divide)


@given(WORD)
@example((1 << 64) - 1)
@few
def test_sines(turn: int) -> None:
    """Over the whole turn."""
    same("wave", "uint256", (turn,), integers._wave, "Sine")


@given(CELL, WORD.filter(bool), HALF, WORD)
@few
def test_draws(deficit: int, x: int, hashed: int, key: int) -> None:
    """Weights, logarithms, noise and hashes."""
    same("weight", "int256", (deficit,), draws.weight)
    same("log2", "uint256", (x,), draws.log2)
    same("noise", "uint256", (hashed,), draws.noise)
    same("hash32", "uint256,uint256", (key, hashed), draws.hash32)


@pytest.mark.parametrize("hashed", [0, 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1])
def test_noise_at_its_ends(hashed: int) -> None:
    """Where one form of it ends and the other one begins."""
    same("noise", "uint256", (hashed,), draws.noise)
