"""The model in float64 that others are measured against. That it is the right model, `engines/exact` tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmarks._float_model import FloatModel, float_logits
from tests.engines.exact.models import write_model

from assay.core.errors import ModelFileError

SEQUENCES = ([5, 6, 7, 8, 9, 10], [5], [11, 12, 6, 7])


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_sequences_do_not_see_each_other(tmp_path: Path, architecture: str) -> None:
    """Several sequences at once have the logits of each alone, one after the other; so have those that are wanted."""
    path = write_model(tmp_path / "model.gguf", architecture, window=3)
    alone = np.concatenate([float_logits(path, sequence) for sequence in SEQUENCES])
    together = np.concatenate(list(FloatModel(path).logits(SEQUENCES)))
    assert np.allclose(together, alone, rtol=0, atol=1e-10)
    wanted = np.array([9, 0, 6, 6])
    assert np.allclose(np.concatenate(list(FloatModel(path).logits(SEQUENCES, wanted))), alone[wanted], atol=1e-10)


def test_long_texts_come_in_pieces(tmp_path: Path) -> None:
    """No more than 64 rows of logits are in memory at a time."""
    path = write_model(tmp_path / "model.gguf", layers=1)
    pieces = list(FloatModel(path).logits([[3 + n % 200 for n in range(150)]]))
    assert [len(piece) for piece in pieces] == [64, 64, 22]


def test_what_is_not_known(tmp_path: Path) -> None:
    """Another architecture and a missing tensor are refused by name."""
    with pytest.raises(ModelFileError, match="architecture 'falcon'"):
        FloatModel(write_model(tmp_path / "other.gguf", "falcon"))
    path = write_model(tmp_path / "model.gguf")
    path.write_bytes(path.read_bytes().replace(b"blk.1.ffn_up.weight", b"blk.1.ffn_xx.weight"))
    with pytest.raises(ModelFileError, match=r"blk\.1\.ffn_up\.weight is missing"):
        float_logits(path, [5, 6])
