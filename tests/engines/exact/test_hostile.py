"""Model files by strangers: whatever is in the tensors, kernels equal the reference, or the file is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engines.exact.models import VOCABULARY, write_model
from tests.engines.exact.running import check_equal

from assay.core.errors import ModelFileError
from assay.engines.exact.affine import Matrix, read_matrix
from assay.engines.exact.convert import convert
from assay.engines.gguf_file import inspect

BASES: dict[str, dict[str, Any]] = {
    "llama": {"layers": 2, "factors": True},
    "qwen2": {"architecture": "qwen2", "layers": 1, "kind": Kind.Q8_0, "tied": True},
    "qwen3": {"architecture": "qwen3", "layers": 1, "kind": Kind.F32},
    "gemma3": {"architecture": "gemma3", "layers": 2, "kind": Kind.F16, "window": 3},
}
TOKENS = [1, 5, 7, 100, 2, VOCABULARY - 1]
HALVES = np.array([0, 0x0001, 0x03FF, 0x0400, 0x3C00, 0x7BFF, 0x8001, 0xBC00, 0xFBFF], "<u2")
"""Float16 numbers: zeros, the smallest ones, 1, the largest ones."""
WORDS = np.array(
    [0, 0x80000000, 1, 0x80000001, 0x007FFFFF, 0x33800000, 0x3F800000, 0xBF800000, 0x47000000, 0x4F000000,
     0x5A800000, 0x7F7FFFFF, 0xFF7FFFFF],
    "<u4",
)  # fmt: skip
"""Float32 numbers: zeros, the smallest ones, 2^-24, 1, 2^15, 2^31, 2^54, the largest ones."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file of each kind."""
    folder = tmp_path_factory.mktemp("bases")
    for name, variant in BASES.items():
        write_model(folder / name, **variant)
    return folder


def spoil(path: Path, to: Path, dice: np.random.Generator, changes: int) -> None:
    """A copy of a model file with extreme numbers in some tensors."""
    data = np.frombuffer(path.read_bytes(), np.uint8).copy()
    tensors = inspect(path).tensors
    for number in dice.choice(len(tensors), min(changes, len(tensors)), replace=False):
        tensor = tensors[number]
        part = data[tensor.offset : tensor.offset + tensor.size]
        words, kind = part.view("<u4") if tensor.size % 4 == 0 else part[:0].view("<u4"), int(dice.integers(5))
        if tensor.kind == 0:
            few = dice.choice(WORDS, 1 if kind == 0 else 3)
            words[dice.random(words.size) < (1 if kind < 2 else 0.2)] = few[0]
            if kind > 2:
                words[dice.random(words.size) < 0.1] = few[-1]
        elif tensor.kind == 1 or kind == 0:
            halves = part.view("<u2")
            where = dice.random(halves.size) < dice.choice([0.05, 0.5, 1])
            halves[where] = dice.choice(HALVES, int(where.sum()))
        else:  # scales of blocks
            blocks = part.reshape(-1, {3: 20, 8: 34, 2: 18}[tensor.kind])
            where = dice.random(len(blocks)) < dice.choice([0.05, 1])
            for at in (0, 2) if tensor.kind == 3 else (0,):
                blocks[where, at : at + 2] = dice.choice(HALVES, 1).view(np.uint8)
            if kind > 2:
                blocks[:, 4:] = dice.choice([0, 255, 0x88, 0x80, 0x7F])
    to.write_bytes(data.tobytes())


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(sorted(BASES)), st.integers(0, 2**32), st.integers(1, 12))
def test_extreme_numbers_in_a_file(folder: Path, base: str, seed: int, changes: int) -> None:
    """Conversion refuses them, or every accumulator and logit is the reference's."""
    path = folder / "spoilt"
    spoil(folder / base, path, np.random.default_rng(seed), changes)
    try:
        model = convert(path)
    except ModelFileError:
        return
    check_equal(model, TOKENS, batch=4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": 8}, "only a part of each head has positions"),
        ({"epsilon": 0.75}, "layer_norm_rms_epsilon is '0.75'"),
        ({"epsilon": float("nan")}, "layer_norm_rms_epsilon is 'nan'"),
        ({"epsilon": -1e-5}, "layer_norm_rms_epsilon is '-"),
        ({"head_width": 24, "width": 96}, "4 heads of 24"),
    ],
)
def test_numbers_that_cannot_be(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    """They are refused with their name."""
    with pytest.raises(ModelFileError, match=message):
        convert(write_model(tmp_path / "m.gguf", **changes))


@pytest.mark.parametrize("size", [2.0**38, 2.0**54, 2.0**100, 3e38])
def test_scales_beyond_62_bits(size: float) -> None:
    """Whole numbers of 2^-24 that 62 bits do not hold are refused, not wrapped."""
    data = np.full((1, 32), size, np.float32).view(np.uint8)
    with pytest.raises(ModelFileError, match=r"could overflow|scales of 2\^38"):
        read_matrix(data, Kind.F32, 32, "w")


def test_sums_beyond_63_bits() -> None:
    """The bound of a row of very many blocks is exact, however large; the largest negative offset counts."""
    blocks = 1 << 13
    q = np.full((1, 32 * blocks), 65535, np.uint16)
    scale = np.full((1, blocks), 2**31 - 1, np.int32)
    offset = np.full((1, blocks), -(2**31), np.int32)
    expected = blocks * 32 * ((2**31 - 1) * 65535 + 2**31) * 32767
    assert Matrix(q, scale, offset, 32, 24).bound() == expected
    assert Matrix(q[:, :32] * 0, scale[:, :1], offset[:, :1], 32, 24).bound() == 32 * 2**31 * 32767
