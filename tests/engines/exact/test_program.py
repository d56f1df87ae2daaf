"""A model laid out for the kernels has all of the model in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from tests.engines.exact.models import VOCABULARY, write_model
from tests.engines.exact.test_reference import VARIANTS

from assay.core.errors import EngineError, ModelFileError
from assay.engines.exact.convert import convert
from assay.engines.exact.kernels.state import PRODUCTS
from assay.engines.exact.parameters import MATRICES, model_root
from assay.engines.exact.program import Program, program_of
from assay.engines.exact.reference import Gain, Model, embed


@pytest.fixture(params=VARIANTS)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Model:
    """A small model of every variant."""
    return convert(write_model(tmp_path / "m.gguf", **VARIANTS[request.param]))


def gain_at(program: Program, layer: int, which: int) -> Gain | None:
    """What the plan has there."""
    start, end, fraction = (int(n) for n in program.plan.gain_at[layer, which])
    return Gain(program.plan.gains[start:end].astype(np.int64), fraction) if end > start else None


def test_everything_is_there(model: Model) -> None:
    """Gains, biases, turns, windows and matrices of every layer, in their places."""
    program = program_of(model)
    assert program.root == model_root(model)
    names = ("attention_norm", "feed_norm", "query_norm", "key_norm", "attention_after", "feed_after")
    for number, layer in enumerate(model.layers):
        for which, name in enumerate(names):
            expected, found = getattr(layer, name), gain_at(program, number, which)
            assert (found is None) == (expected is None)
            if expected is not None and found is not None:
                assert np.array_equal(found.weight, expected.weight)
                assert found.fraction == expected.fraction
        for which, bias in enumerate((layer.query_bias, layer.key_bias, layer.value_bias)):
            start, end = program.plan.bias_at[number, which]
            assert np.array_equal(program.plan.biases[start:end], [] if bias is None else bias)
        assert np.array_equal(program.plan.turns[number], layer.turns)
        assert program.plan.windows[number] == layer.window
        for which, name in enumerate(MATRICES):
            packed = program.products[PRODUCTS * number + which]
            assert (packed.rows, packed.columns) == getattr(layer, name).shape
    last = gain_at(program, len(model.layers), 0)
    assert last is not None
    assert np.array_equal(last.weight, model.norm.weight)
    assert (program.embedding is program.products[-1]) == (model.embedding is model.head)


def test_places(model: Model) -> None:
    """Accumulators stand side by side in the order of products; inputs are where the record has them."""
    program = program_of(model)
    plan, layout = program.plan, program.layout
    assert plan.offsets.tolist() == [0, *np.cumsum(plan.sizes)[:-1]]
    assert plan.layer_size == plan.sizes.sum()
    names = ("input", "input", "input", "mixed", "feed", "feed", "gated")
    for layer in range(program.shape.layers):
        for kind, name in enumerate(names):
            at = int(plan.inputs[kind]) + layer * plan.inputs_step
            columns = program.products[PRODUCTS * layer + kind].columns
            assert {layout.name(at), layout.name(at + columns)} == {(layer, name)}
            assert layout.name(at - 1) != layout.name(at) != layout.name(at + columns + 1)


def test_embeddings(model: Model) -> None:
    """Every token's is the reference's; there is none for other numbers."""
    program = program_of(model)
    for token in range(0, VOCABULARY, 7):
        assert np.array_equal(program.embed(token), embed(model, token))
    for token in (-1, VOCABULARY, 2**40):
        with pytest.raises(EngineError, match="vocabulary"):
            program.embed(token)


def test_loud_embeddings(tmp_path: Path) -> None:
    """Numbers that the residual stream cannot hold are capped as in the reference, scaled or not."""
    for architecture in ("llama", "gemma3"):
        model = convert(write_model(tmp_path / "m.gguf", architecture, layers=1, kind=Kind.F32))
        model.embedding.scale[::2] = 2**31 - 1
        model.embedding.offset[1::2] = -(2**31)
        program = program_of(model)
        for token in range(8):
            assert np.array_equal(program.embed(token), embed(model, token))


def test_heads_of_another_vocabulary(tmp_path: Path) -> None:
    """A head that has more rows than there are embeddings could draw tokens that cannot be read: refused."""
    path = write_model(tmp_path / "m.gguf", head_rows=VOCABULARY + 16)
    with pytest.raises(ModelFileError, match=r"output\.weight has the shape"):
        convert(path)
