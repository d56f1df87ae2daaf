"""Packed matrices hold the same weights in few bytes."""

from __future__ import annotations

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from tests.engines.exact.test_affine import COLUMNS, random_rows

from assay.core.errors import ModelFileError
from assay.engines.exact.affine import Matrix, read_matrix
from assay.engines.exact.packed import LEVELS, SHORT, UNTIED, WORD, Packed, pack, unpack_row

FORMS = {
    Kind.Q4_0: (4, SHORT, 8, 4.5),
    Kind.Q4_1: (4, SHORT, UNTIED, 5),
    Kind.Q5_0: (5, SHORT, 16, 5.5),
    Kind.Q5_1: (5, SHORT, UNTIED, 6),
    Kind.Q8_0: (8, SHORT, 128, 8.5),
    Kind.Q4_K: (4, LEVELS, UNTIED, 4.75),
    Kind.Q5_K: (5, LEVELS, UNTIED, 5.75),
    Kind.Q6_K: (6, LEVELS, 32, 6.625),
    Kind.F16: (16, SHORT, 32768, 16.5),
}
"""Bits, scales, factor of the offsets, and bits of a weight with all that belongs to it."""


def of(kind: Kind, rows: int = 32) -> Matrix:
    """Random weights of a format."""
    return read_matrix(random_rows(kind, rows), kind, COLUMNS, "w")


@pytest.mark.parametrize("kind", FORMS, ids=lambda kind: kind.name)
def test_every_format_is_as_narrow_as_it_can_be(kind: Kind) -> None:
    """Offsets that follow from the scales are not stored, and scales take the bits that the file gives them."""
    packed = pack(of(kind))
    bits, scales, tied, size = FORMS[kind]
    assert (packed.bits, packed.scales, packed.tied) == (bits, scales, tied)
    stored = packed.weights.nbytes + packed.scale.nbytes + packed.unit.nbytes
    assert stored * 8 / (32 * COLUMNS) == size


@pytest.mark.parametrize("kind", FORMS, ids=lambda kind: kind.name)
def test_rows_come_back(kind: Kind) -> None:
    """A row is what the matrix says, also in a tile that is not full."""
    matrix = of(kind, 19)
    packed = pack(matrix)
    assert all(np.array_equal(unpack_row(packed, row), matrix.whole(row)) for row in range(19))
    with pytest.raises(IndexError):
        unpack_row(packed, 19)


def test_any_scales_are_kept() -> None:
    """Scales and offsets that no short form holds stay 32 bits wide."""
    dice = np.random.default_rng(2)
    scale, offset = dice.integers(-(2**31) + 1, 2**31, (2, 5, 3), dtype=np.int32)
    matrix = Matrix(dice.integers(0, 16, (5, 48), dtype=np.uint8), scale, offset, 16, 24)
    packed = pack(matrix)
    assert packed.scales == WORD
    assert all(np.array_equal(unpack_row(packed, row), matrix.whole(row)) for row in range(5))


@pytest.mark.parametrize("kind", FORMS, ids=lambda kind: kind.name)
def test_arrays_are_all_there_is(kind: Kind) -> None:
    """A file of the arrays gives the same matrix, packing gives the same arrays, and they start at cache lines."""
    matrix = of(kind, 17)
    packed, again = pack(matrix), pack(matrix)
    loaded = Packed.from_arrays(packed.arrays())
    for name, array in packed.arrays().items():
        assert np.array_equal(array, again.arrays()[name])
        assert np.array_equal(array, loaded.arrays()[name])
    assert all(array.ctypes.data % 64 == 0 for array in (packed.weights, packed.scale, packed.sums))
    assert np.array_equal(unpack_row(loaded, 16), matrix.whole(16))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("weights", lambda array: array[:-1]),
        ("weights", lambda array: array.view(np.int8)),
        ("scale", lambda array: array[:, :-1]),
        ("scale", lambda array: array.astype(np.int32)),
        ("sums", lambda array: array[:, ::-1]),
        ("unit", lambda array: np.zeros((2, 1, 2, 16), np.int32)),
        ("numbers", lambda array: array[:-1]),
        ("numbers", lambda array: array + 1),
        ("numbers", lambda array: array * np.array([1 << 40] + [1] * (len(array) - 1))),
        ("numbers", lambda array: np.where(np.arange(len(array)) == 6, 300, array)),
    ],
)
def test_damaged_arrays_are_refused(name: str, change) -> None:  # noqa: ANN001
    """Kernels never see arrays whose shapes do not belong together."""
    arrays = pack(of(Kind.Q4_1)).arrays()
    with pytest.raises(ModelFileError, match="damaged"):
        Packed.from_arrays({**arrays, name: change(arrays[name])})
    with pytest.raises(ModelFileError, match=name):
        Packed.from_arrays({key: array for key, array in arrays.items() if key != name})
