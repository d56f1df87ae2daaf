"""Products of packed matrices are exact, in every form and on every kind of processor."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from hypothesis import given, settings
from hypothesis import strategies as st
from llvmlite.binding import get_host_cpu_features
from tests.engines.exact.test_affine import COLUMNS, EXACT, random_rows

from assay.engines.exact.affine import Matrix, read_matrix
from assay.engines.exact.kernels import simd
from assay.engines.exact.kernels.products import multiply, multiply_tiles, prepare, transpose_multiply
from assay.engines.exact.packed import Packed, pack

KINDS = [*EXACT, Kind.F16]
SOME = (Kind.Q4_1, Kind.Q5_K, Kind.Q6_K, Kind.Q8_0, Kind.F16)
EDGES = np.array([32767, -32767, 32640, 32639, -32640, -32641, -32639, 128, 127, -128, -129, 0, 1, -1], np.int16)


def of(kind: Kind, rows: int = 37) -> Matrix:
    """Random weights of a format."""
    return read_matrix(random_rows(kind, rows), kind, COLUMNS, "w")


def activations(tokens: int, columns: int = COLUMNS, seed: int = 1) -> np.ndarray:
    """Some tokens of any numbers, and some of edges only."""
    dice = np.random.default_rng(seed)
    x = dice.integers(-32767, 32768, (tokens, columns)).astype(np.int16)
    x[1::3] = dice.choice(EDGES, (len(x[1::3]), columns))
    x[2::3] = dice.integers(-3000, 3001, (len(x[2::3]), columns))
    return x


def product(packed: Packed, x: np.ndarray) -> np.ndarray:
    """W x for each token."""
    out = np.full((len(x), packed.rows), -1, np.int64)
    multiply(packed, x, out)
    return out


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_products_are_exact(kind: Kind) -> None:
    """For one token, for a few and for many, also where the last tile is not full."""
    matrix = of(kind)
    packed, weights = pack(matrix), matrix.whole()
    for tokens in (1, 2, 3, 4, 5, 11):
        x = activations(tokens)
        assert np.array_equal(product(packed, x), x.astype(np.int64) @ weights.T)


@st.composite
def matrices(draw: st.DrawFn) -> Matrix:
    """Any q, scales and offsets whose products stay under 2^62."""
    dice = np.random.default_rng(draw(st.integers(0, 2**32)))
    block = draw(st.sampled_from([16, 32]))
    rows, blocks = draw(st.integers(1, 40)), draw(st.integers(1, 20))
    bits = draw(st.sampled_from([4, 8, 16]))
    most = 2 ** min(31, 62 - 15 - bits - (block * blocks).bit_length() - 1)
    scale = dice.integers(-most + 1, most, (rows, blocks))
    scale >>= dice.integers(0, 31, scale.shape if draw(st.booleans()) else ())
    scale[dice.random(scale.shape) < 0.1] = draw(st.sampled_from([0, most - 1, 1 - most]))
    if draw(st.booleans()):
        tied = min(2 ** (bits - 1), most)
        offset = -tied * (scale := scale // tied)
    else:
        offset = dice.integers(-most + 1, most, (rows, blocks))
    q = dice.integers(0, 2**bits, (rows, blocks * block)).astype(np.uint16 if bits == 16 else np.uint8)
    if draw(st.booleans()):
        q[:] = 2**bits - 1
    return Matrix(q, scale.astype(np.int32), offset.astype(np.int32), block, 24)


@given(matrices(), st.integers(1, 6), st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_any_matrix_times_any_activations(matrix: Matrix, tokens: int, seed: int) -> None:
    """Whatever the scales, exactly the matrix's weights are multiplied."""
    x = activations(tokens, matrix.shape[1], seed)
    assert matrix.bound() < 1 << 62
    assert np.array_equal(product(pack(matrix), x), x.astype(np.int64) @ matrix.whole().T)


@given(matrices(), st.integers(0, 2**32), st.sampled_from([0, 1, 2**31 - 1, None]))
@settings(max_examples=10, deadline=None)
def test_any_matrix_times_random_rows(matrix: Matrix, seed: int, every: int | None) -> None:
    """W^T r is exact beyond 64 bits."""
    rows = matrix.shape[0]
    r = np.random.default_rng(seed).integers(0, 2**31, rows) if every is None else np.full(rows, every)
    r = r.astype(np.int32)
    assert numbers(transpose_multiply(pack(matrix), r)) == numbers_of(matrix, r)


@pytest.mark.parametrize("kind", SOME, ids=lambda kind: kind.name)
def test_transposed_products_are_exact(kind: Kind) -> None:
    """In formats of every width; the two lower limbs have 32 bits each."""
    matrix = of(kind, 300)
    r = np.random.default_rng(4).integers(0, 2**31, 300, np.int32)
    limbs = transpose_multiply(pack(matrix), r)
    assert limbs[:2].min() >= 0
    assert limbs[:2].max() < 2**32
    assert numbers(limbs) == numbers_of(matrix, r)


def test_transposed_products_of_very_many_rows() -> None:
    """32-bit totals are emptied before they can overflow."""
    rows = 16 * 8192 + 53
    q = np.full((rows, 32), 255, np.uint8)
    matrix = Matrix(q, np.full((rows, 1), 0x7F7F7F, np.int32), np.full((rows, 1), -77, np.int32), 32, 24)
    r = np.full(rows, 2**31 - 1, np.int32)
    assert numbers(transpose_multiply(pack(matrix), r)) == [rows * (0x7F7F7F * 255 - 77) * (2**31 - 1)] * 32


def numbers(limbs: np.ndarray) -> list[int]:
    """Limbs put together."""
    return [int(a) + (int(b) << 32) + (int(c) << 64) for a, b, c in limbs.T]


def numbers_of(matrix: Matrix, r: np.ndarray) -> list[int]:
    """W^T r in Python's integers."""
    return (matrix.whole().astype(object) * r.astype(object)[:, None]).sum(0).tolist()


def test_a_mapped_file_serves(tmp_path: Path) -> None:
    """Read-only arrays of a file do as well."""
    matrix = of(Kind.Q8_0)
    arrays = pack(matrix).arrays()
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    packed = Packed.from_arrays(
        {name: np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in arrays if arrays[name].size}
        | {"unit": arrays["unit"]}
    )
    x, r = activations(2), np.arange(37, dtype=np.int32) + 2**30
    assert np.array_equal(product(packed, x), x.astype(np.int64) @ matrix.whole().T)
    assert numbers(transpose_multiply(packed, r)) == numbers_of(matrix, r)


def test_threads_share_a_matrix() -> None:
    """Ranges of tiles fill their part of a larger array's rows, and nothing else."""
    matrix = of(Kind.Q4_1, 100)
    packed, x = pack(matrix), activations(6)
    room = np.full((6, 120), 7, np.int64)
    prepared, out = prepare(x), room[:, 10:110]
    threads = [
        threading.Thread(target=multiply_tiles, args=(packed, prepared, out, *part)) for part in [(0, 3), (3, 7)]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert np.array_equal(out, x.astype(np.int64) @ matrix.whole().T)
    assert (room[:, :10] == 7).all()
    assert (room[:, 110:] == 7).all()


def test_refusals() -> None:
    """Arrays of other types and shapes never reach compiled code."""
    packed, x = pack(of(Kind.Q4_0)), activations(2)
    out = np.zeros((2, 37), np.int64)
    for wrong in (out[:1], out.astype(np.int32), np.zeros((2, 74), np.int64)[:, ::2]):
        with pytest.raises(ValueError, match="result"):
            multiply(packed, x, wrong)
    fixed = out.copy()
    fixed.flags.writeable = False
    with pytest.raises(ValueError, match="written"):
        multiply(packed, x, fixed)
    for wrong in (x.astype(np.int32), x[0], x[:0]):
        with pytest.raises(ValueError, match="int16"):
            prepare(wrong)
    with pytest.raises(ValueError, match="columns"):
        multiply(packed, x[:, :32], out)
    for part in [(0, 4), (-1, 2), (2, 1)]:
        with pytest.raises(ValueError, match="tiles"):
            multiply_tiles(packed, prepare(x), out, *part)
    for r in (np.zeros(36, np.int32), np.zeros(37, np.int64), np.full(37, -1, np.int32)):
        with pytest.raises(ValueError, match="random number"):
            transpose_multiply(packed, r)


def digest() -> str:
    """Of products of several forms."""
    state = hashlib.sha256()
    for kind in (Kind.Q4_1, Kind.Q6_K, Kind.F16):
        packed = pack(of(kind))
        for tokens in (1, 7):
            state.update(product(packed, activations(tokens)).tobytes())
        state.update(transpose_multiply(packed, np.arange(37, dtype=np.int32) << 25).tobytes())
    return state.hexdigest()


@pytest.mark.parametrize(
    ("features", "flavour"),
    [
        ("", "pairs128"),
        pytest.param("+avx2", "pairs256", marks=pytest.mark.slow),
        pytest.param("+avx2,+avxvnni", "dot256", marks=pytest.mark.slow),
        pytest.param("+avx512f,+avx512bw,+avx512vl,+avx512dq", "pairs512", marks=pytest.mark.slow),
    ],
)
def test_other_processors_compute_the_same(features: str, flavour: str) -> None:
    """Code for processors without dot products of bytes, and for those with shorter registers, gives the same bytes."""
    has: Any = get_host_cpu_features()  # what this processor has, whatever numba is told to compile for
    if missing := [name for name in features.replace("+", "").split(",") if name and not has.get(name, False)]:
        pytest.skip(f"this processor has no {', '.join(missing)}")
    code = "from tests.engines.exact.test_products import digest, simd; print(digest(), simd.FLAVOUR)"
    environment = {**os.environ, "NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": features}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    if simd.FLAVOUR != "plain":
        assert done.stdout.split() == [digest(), flavour]
