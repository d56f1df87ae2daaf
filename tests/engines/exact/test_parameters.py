"""The model root covers everything that decides a number, and opens to single rows."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFWriter
from tests.engines.exact.models import write_model
from tests.engines.exact.test_reference import VARIANTS

from assay.core.errors import ModelFileError
from assay.core.hashing import Digest, digest
from assay.engines.exact import tables
from assay.engines.exact.affine import Matrix
from assay.engines.exact.convert import convert
from assay.engines.exact.dispute import trees
from assay.engines.exact.dispute.catalogue import Opened
from assay.engines.exact.dispute.shape import Shape
from assay.engines.exact.parameters import FAN, MATRICES, VECTORS, Parameters, model_root
from assay.engines.exact.reference import Gain, Layer, Model


@pytest.fixture(params=[*VARIANTS, "wide"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Model:
    """A small model of every variant, and one whose rows have several leaves."""
    wide = {"width": 288, "feed": 544, "layers": 1, "head_width": 16}
    return convert(write_model(tmp_path / "m.gguf", **VARIANTS.get(request.param, wide)))


def leaf_of(content: bytes) -> Digest:
    """The digest of a leaf."""
    return digest("assay/exact-parameter/1", content)


def vector_leaves(numbers: Any) -> Iterator[bytes]:
    """As docs/exact.md says."""
    for start in range(0, len(numbers), 256):
        yield b"".join(struct.pack("<Q", int(x) % 2**64) for x in numbers[start : start + 256]).ljust(2048, b"\0")


def matrix_leaves(matrix: Matrix) -> Iterator[bytes]:
    """As docs/exact.md says."""
    kind, per_leaf = ("<H" if matrix.q.itemsize == 2 else "<B"), 256 // matrix.block
    for row in range(matrix.shape[0]):
        for segment in range(-(-matrix.shape[1] // 256)):
            blocks = slice(segment * per_leaf, (segment + 1) * per_leaf)
            q = matrix.q[row, 256 * segment : 256 * segment + 256]
            content = b"".join(struct.pack(kind, int(x)) for x in q).ljust(256 * matrix.q.itemsize, b"\0")
            for part in (matrix.scale, matrix.offset):
                content += b"".join(struct.pack("<i", int(x)) for x in part[row, blocks]).ljust(4 * per_leaf, b"\0")
            yield content.ljust(-(-len(content) // 64) * 64, b"\0")


def words(*numbers: int) -> bytes:
    """32 bytes each, as docs/exact.md says."""
    return b"".join((int(number) % 2**256).to_bytes(32) for number in numbers)


def numbers_of(matrix: Matrix) -> tuple[int, int, int]:
    """Block, fraction bits, bytes of a small number."""
    return matrix.block, matrix.fraction, matrix.q.itemsize


def model_leaf(model: Model) -> bytes:
    """As docs/exact.md says."""
    layer = model.layers[0]
    there = [getattr(layer, name) is not None for name in VECTORS[2:]]
    return words(
        1, len(model.layers), model.width, len(layer.gate.q), model.heads, model.kv_heads, model.head_width,
        len(model.head.q), model.epsilon, model.score_scale, model.halves, {"silu": 0, "gelu": 1}[model.gate],
        model.embedding_scale, model.norm.fraction, model.head is model.embedding,
        sum(bit for bit, has in zip((1, 2, 4, 8, 16, 32, 64), there, strict=True) if has),
        *numbers_of(model.head), *numbers_of(model.embedding),
    )  # fmt: skip


def layer_leaf(layer: Layer) -> bytes:
    """As docs/exact.md says."""
    gains = [getattr(layer, name) for name in VECTORS[:6]]
    matrices = [numbers_of(getattr(layer, name)) for name in MATRICES]
    return words(layer.window, *(gain.fraction if gain else 0 for gain in gains), *chain.from_iterable(matrices))


def contents(model: Model) -> Iterator[bytes]:
    """All parameters, as docs/exact.md says."""
    for name in ("exp2", "sigmoid", "sine", "log2", "tail"):
        yield from vector_leaves(getattr(tables, f"{name}_table")())
    for layer in model.layers:
        for name in VECTORS:
            vector = getattr(layer, name)
            if vector is not None:
                yield from vector_leaves(vector.weight if isinstance(vector, Gain) else vector)
        yield from vector_leaves(layer.turns)
        for name in MATRICES:
            yield from matrix_leaves(getattr(layer, name))
    yield from vector_leaves(model.norm.weight)
    yield from matrix_leaves(model.head)
    if model.head is not model.embedding:
        yield from matrix_leaves(model.embedding)


def test_the_specification(model: Model) -> None:
    """Every leaf has the content that the page says, and the root is theirs."""
    parameters = Parameters(model)
    leaves = [*map(leaf_of, contents(model))]
    assert [row.tobytes() for row in parameters.digests] == leaves
    layers = [digest("assay/exact-layer/1", layer_leaf(layer)) for layer in model.layers]
    expected = digest("assay/exact-model/1", model_leaf(model), root_of_four(layers), root_of_four(leaves))
    assert parameters.root == expected == model_root(model)


def root_of_four(level: list[Digest]) -> Digest:
    """As docs/exact.md says."""
    count = len(level)
    while len(level) > 1:
        level = [digest("assay/exact-node/1", *level[i : i + 4]) for i in range(0, len(level), 4)]
    return digest("assay/exact-root/1", count.to_bytes(8), level[0])


def test_layers_are_alike(model: Model) -> None:
    """The leaves of layer l stand l times a layer's leaves behind those of the first."""
    sections = Parameters(model).sections
    starts = [sections[f"{number}.attention_norm"].start for number in range(len(model.layers))]
    step = sections["norm"].start - starts[-1]
    assert starts == [starts[0] + number * step for number in range(len(starts))]
    for name in (*VECTORS, *MATRICES, "turns"):
        places = [sections[found].start for n in range(len(starts)) if (found := f"{n}.{name}") in sections]
        assert places == [places[0] + number * step for number in range(len(places))] if places else True
    assert (len(model_leaf(model)), len(layer_leaf(model.layers[0]))) == (704, 896)


PARTS = [
    "attn_q.bias",
    "attn_k.bias",
    "attn_v.bias",
    "attn_q_norm.weight",
    "attn_k_norm.weight",
    "post_attention_norm.weight",
    "post_ffw_norm.weight",
]


@pytest.mark.parametrize("missing", PARTS)
def test_unlike_layers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """A model of which one layer lacks a bias or a normalisation that others have."""
    add = GGUFWriter.add_tensor

    def add_others(self: GGUFWriter, name: str, *args: Any, **more: Any) -> None:
        if name != f"blk.1.{missing}":
            add(self, name, *args, **more)

    monkeypatch.setattr(GGUFWriter, "add_tensor", add_others)
    path = write_model(tmp_path / "m.gguf", "gemma3", layers=2, biases=True)
    with pytest.raises(ModelFileError, match="do not all have the same"):
        convert(path)


def test_leaves_open(model: Model) -> None:
    """A row of a matrix or a vector is proved to be the model's."""
    parameters = Parameters(model)
    opened = Opened(parameters, Shape.of(model))
    for name, row, segment in [
        ("sine", 0, 16), ("0.attention_norm", 0, 0), ("0.turns", 0, 0),
        ("0.down", model.width - 1, 0),
        ("head", 5, 0), ("norm", 0, 0), ("0.gate", 3, (model.width - 1) // 256),
    ]:  # fmt: skip
        section = parameters.sections[name]
        index = section.start + row * section.per_row + segment
        item = leaf_of(parameters.leaf(name, row, segment))
        path = opened.path(index, index + 1)
        assert trees.climb(len(parameters.digests), index, [item], path, FAN) == parameters.roots[1]


def changed(model: Model) -> Iterator[tuple[str, Model]]:
    """The model with one thing of each kind changed."""
    layer = model.layers[-1]

    def with_layer(**changes: Any) -> Model:
        return replace(model, layers=[*model.layers[:-1], replace(layer, **changes)])

    def bumped(values: np.ndarray) -> np.ndarray:
        other = values.copy()
        other.flat[-1] ^= 1
        return other

    for name in ("heads", "kv_heads", "head_width", "epsilon", "score_scale", "embedding_scale"):
        yield name, replace(model, **{name: getattr(model, name) + 1})
    yield "halves", replace(model, halves=not model.halves)
    yield "gate", replace(model, gate="gelu" if model.gate == "silu" else "silu")
    yield "norm", replace(model, norm=replace(model.norm, weight=bumped(model.norm.weight)))
    yield "norm fraction", replace(model, norm=replace(model.norm, fraction=model.norm.fraction + 1))
    yield "window", with_layer(window=layer.window + 1)
    yield "turns", with_layer(turns=bumped(layer.turns))
    yield "a layer", replace(model, layers=[*model.layers, layer])
    for name in VECTORS:
        vector = getattr(layer, name)
        if isinstance(vector, Gain):
            yield name, with_layer(**{name: replace(vector, weight=bumped(vector.weight))})
            yield f"{name} fraction", with_layer(**{name: replace(vector, fraction=vector.fraction - 1)})
        elif vector is not None:
            yield name, with_layer(**{name: bumped(vector)})
    for name in MATRICES:
        matrix = getattr(layer, name)
        for part in ("q", "scale", "offset"):
            yield f"{name} {part}", with_layer(**{name: replace(matrix, **{part: bumped(getattr(matrix, part))})})
        yield f"{name} fraction", with_layer(**{name: replace(matrix, fraction=matrix.fraction + 1)})
    yield "head", replace(model, head=replace(model.head, q=bumped(model.head.q)))
    yield "embedding", replace(model, embedding=replace(model.embedding, scale=bumped(model.embedding.scale)))


@pytest.mark.parametrize("variant", ["llama-biased", "gemma3-local"])
def test_everything_counts(tmp_path: Path, variant: str) -> None:
    """No two models that differ in one number share a root."""
    model = convert(write_model(tmp_path / "m.gguf", **VARIANTS[variant]))
    roots = {"the model": model_root(model)} | {what: model_root(other) for what, other in changed(model)}
    assert len(set(roots.values())) == len(roots)


def test_layers_have_no_other_fields() -> None:
    """A field that is added to a layer or a model must be added to the root."""
    covered = {*VECTORS, *MATRICES, "window", "turns"}
    assert set(Layer.__dataclass_fields__) == covered
    assert set(Model.__dataclass_fields__) == {
        "embedding", "layers", "norm", "head", "heads", "kv_heads", "head_width", "epsilon", "score_scale", "halves",
        "gate", "embedding_scale",
    }  # fmt: skip
