"""The exact semantics compute the model: the same as float64, to far less than llama.cpp's own rounding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks._float_model import float_logits
from gguf import GGMLQuantizationType as Kind
from tests.engines.exact.models import VOCABULARY, write_model

from assay.core.errors import ModelFileError
from assay.engines.exact.convert import convert
from assay.engines.exact.reference import Cache, Model, forward
from assay.engines.llama_context import LlamaContext
from assay.engines.llama_model import LlamaModel

VARIANTS: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama-tied-scaled": {"tied": True, "factors": True, "kind": Kind.Q8_0},
    "llama-f16": {"kind": Kind.F16},
    "llama-biased": {"biases": True, "kind": Kind.Q5_1},
    "qwen2": {"architecture": "qwen2", "kind": Kind.Q5_0},
    "qwen3": {"architecture": "qwen3", "head_width": 32},
    "gemma3": {"architecture": "gemma3", "layers": 7, "head_width": 32, "kind": Kind.Q4_0, "tied": True},
    "gemma3-loud": {"architecture": "gemma3", "layers": 7, "head_width": 32, "loud": 20_000.0},
    "gemma3-local": {"architecture": "gemma3", "layers": 2, "head_kind": Kind.Q8_0, "window": 5},
}
TOKENS = [int(token) for token in np.random.default_rng(1).integers(3, VOCABULARY, 24)]


@pytest.fixture(params=VARIANTS)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A small model of every variant."""
    return write_model(tmp_path / "model.gguf", **VARIANTS[request.param])


def run(model: Model, tokens: Sequence[int]) -> np.ndarray:
    """Logits in nats, float64 [tokens, vocabulary]."""
    cache = Cache.of(model)
    return np.array([forward(model, token, cache) for token in tokens]) / 65536


def test_against_float64_and_llama_cpp(path: Path) -> None:
    """Every logit is within 0.01 of float64's, the mean within 0.001; llama.cpp computes the same model, and is 3 times
    further away at least."""
    expected = float_logits(path, TOKENS)
    error = np.abs(run(convert(path), TOKENS) - expected)
    with LlamaModel(path) as model, LlamaContext(model, n_ctx=256, n_ubatch=32, n_outputs=len(TOKENS)) as context:
        context.decode(TOKENS, range(len(TOKENS)), 0, True)
        theirs = np.abs(np.array([context.logits(n) for n in range(len(TOKENS))]) - expected)
    assert error.max() < 0.01
    assert error.mean() < 0.001
    assert 3 * error.mean() < theirs.mean() < 0.1


def test_a_second_conversion_is_the_same(path: Path) -> None:
    """Nothing but the file decides the numbers."""
    assert (run(convert(path), TOKENS[:4]) == run(convert(path), TOKENS[:4])).all()


def test_what_was_said_decides(tmp_path: Path) -> None:
    """A changed token changes all logits from there on and none before; a cut cache goes on as it began."""
    model = convert(write_model(tmp_path / "model.gguf"))
    other = [*TOKENS[:10], TOKENS[10] ^ 1, *TOKENS[11:]]
    changed = (run(model, TOKENS) != run(model, other)).any(axis=1)
    assert changed.tolist() == [False] * 10 + [True] * 14


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"architecture": "falcon"}, "architecture 'falcon'"), ({"heads": 6, "kv_heads": 4}, "6 heads of 16")],
)
def test_models_that_are_not_understood(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    """They are refused with what is not understood."""
    with pytest.raises(ModelFileError, match=message):
        convert(write_model(tmp_path / "model.gguf", **settings))


def test_a_missing_tensor(tmp_path: Path) -> None:
    """It is named."""
    path = write_model(tmp_path / "model.gguf")
    path.write_bytes(path.read_bytes().replace(b"blk.1.ffn_up.weight", b"blk.1.ffn_xx.weight"))
    with pytest.raises(ModelFileError, match=r"blk\.1\.ffn_up\.weight is missing"):
        convert(path)
