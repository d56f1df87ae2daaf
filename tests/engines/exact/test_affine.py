"""Weights as whole numbers are the file's own."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, dequantize, quantize
from gguf import GGMLQuantizationType as Kind

from assay.core.errors import ModelFileError
from assay.engines.exact.affine import ACTIVATION_LIMIT, read_matrix

EXACT = [Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1, Kind.Q8_0, Kind.Q4_K, Kind.Q5_K, Kind.Q6_K]
WIDE = [Kind.F32, Kind.F16, Kind.BF16, Kind.IQ4_NL, Kind.IQ4_XS, Kind.Q2_K, Kind.Q3_K, Kind.TQ2_0, Kind.MXFP4]
COLUMNS = 512


def random_rows(kind: Kind, rows: int = 7, seed: int = 3) -> np.ndarray:
    """Bytes of random blocks of a format, with scales like those of a real model."""
    dice = np.random.default_rng(seed)
    if kind in (Kind.F32, Kind.F16, Kind.BF16):
        values = dice.normal(0, 0.05, (rows, COLUMNS)).astype(np.float32)
        return np.ascontiguousarray(quantize(values, kind)).view(np.uint8).reshape(rows, -1)
    block, size = GGML_QUANT_SIZES[kind]
    data = dice.integers(0, 256, (rows, COLUMNS // block, size), dtype=np.uint8)
    scale = dice.normal(0, 0.01, (rows, COLUMNS // block)).astype("<f2").view(np.uint8).reshape(rows, -1, 2)
    for at in {Kind.Q6_K: (208,), Kind.Q2_K: (80, 82), Kind.Q3_K: (108,), Kind.TQ2_0: (64,), Kind.MXFP4: ()}.get(
        kind, (0, 2) if kind in (Kind.Q4_1, Kind.Q5_1, Kind.Q4_K, Kind.Q5_K) else (0,)
    ):
        data[..., at : at + 2] = scale
    if kind is Kind.MXFP4:
        data[..., 0] = 120
    return data.reshape(rows, -1)


def values_of(data: np.ndarray, kind: Kind) -> np.ndarray:
    """What the gguf package reads, in float64 [rows, COLUMNS]."""
    plain = {Kind.F32: np.float32, Kind.F16: np.float16}
    return dequantize(data.view(plain.get(kind, np.uint8)), kind).astype(np.float64).reshape(len(data), COLUMNS)


@pytest.mark.parametrize("kind", EXACT, ids=lambda kind: kind.name)
def test_block_formats_lose_nothing(kind: Kind) -> None:
    """Times a power of two, every weight of an evenly spaced format is the whole number that the engine uses."""
    data = random_rows(kind)
    matrix = read_matrix(data, kind, COLUMNS, "w")
    assert 0 <= matrix.fraction <= 24
    # The gguf package multiplies in float32: one rounding of the product, one of the sum.
    np.testing.assert_allclose(matrix.whole() / 2.0**matrix.fraction, values_of(data, kind), rtol=3e-7, atol=1e-7)


def test_nothing_at_all_is_lost_where_float32_is_exact() -> None:
    """With scales of few digits the comparison itself is exact, and so is the matrix."""
    values = np.random.default_rng(5).integers(-127, 128, (4, COLUMNS)).astype(np.float32) / 128
    values[:, ::32] = 127 / 128
    data = np.ascontiguousarray(quantize(values, Kind.Q8_0)).reshape(4, -1)
    matrix = read_matrix(data, Kind.Q8_0, COLUMNS, "w")
    assert (matrix.whole() / 2.0**matrix.fraction == values).all()


@pytest.mark.parametrize("kind", WIDE, ids=lambda kind: kind.name)
def test_other_formats_keep_sixteen_bits(kind: Kind) -> None:
    """Formats of another shape are within 2^-16 of the largest weight of each block."""
    data = random_rows(kind)
    matrix, values = read_matrix(data, kind, COLUMNS, "w"), values_of(data, kind)
    error = np.abs(matrix.whole() / 2.0**matrix.fraction - values).reshape(-1, 32)
    assert (error <= np.abs(values).reshape(-1, 32).max(-1, keepdims=True) * 2.0**-15 + 2.0**-24).all()


@pytest.mark.parametrize("kind", [Kind.Q4_1, Kind.Q6_K, Kind.F16], ids=lambda kind: kind.name)
def test_the_bound_holds(kind: Kind) -> None:
    """No activations make a product larger than the bound says, and blocks summed in any order stay under it."""
    matrix = read_matrix(random_rows(kind), kind, COLUMNS, "w")
    worst = ACTIVATION_LIMIT * np.abs(matrix.whole()).sum(-1).max()
    assert worst <= matrix.bound() < 1 << 62


def test_large_scales_are_rounded_together() -> None:
    """Scales that 32 bits do not hold cost the whole matrix the same number of fraction bits."""
    values = np.full((1, COLUMNS), 2.0**14, dtype=np.float32)
    matrix = read_matrix(values.view(np.uint8).reshape(1, -1), Kind.F32, COLUMNS, "w")
    assert matrix.fraction < 24
    np.testing.assert_allclose(matrix.whole() / 2.0**matrix.fraction, values, rtol=2.0**-14)


def test_refusals() -> None:
    """Unknown formats, broken rows and scales that are no numbers are refused with the tensor's name."""
    with pytest.raises(ModelFileError, match=r"output\.weight"):
        read_matrix(np.zeros((2, 64), np.uint8), 4, 64, "output.weight")
    broken = random_rows(Kind.Q8_0)
    broken[0, :2] = np.array([np.inf], "<f2").view(np.uint8)
    with pytest.raises(ModelFileError, match="no numbers"):
        read_matrix(broken, Kind.Q8_0, COLUMNS, "w")
    with pytest.raises(ModelFileError, match="no numbers"):
        read_matrix(np.full((1, COLUMNS), np.nan, np.float32).view(np.uint8).reshape(1, -1), Kind.F32, COLUMNS, "w")
    with pytest.raises(ModelFileError, match="whole blocks"):
        read_matrix(np.zeros((1, 48 * 4), np.uint8), Kind.F32, 48, "w")
