"""A converted model as the kernels want it: packed matrices, flat arrays, and tables of where everything is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import numpy as np

from assay.core.errors import EngineError
from assay.core.hashing import Digest
from assay.engines.exact.affine import Matrix
from assay.engines.exact.chunks import CHUNK, chunk_count
from assay.engines.exact.kernels.products import describe
from assay.engines.exact.kernels.state import PRODUCTS, Plan, Shape
from assay.engines.exact.packed import Packed, pack, unpack_row
from assay.engines.exact.parameters import model_root
from assay.engines.exact.record import RecordLayout
from assay.engines.exact.reference import EMBEDDING_LIMIT, RESIDUAL, Gain, Layer, Model, into_stream
from assay.engines.exact.whole import round_shift

PLAN_ARRAYS: Final = ("gains", "gain_at", "biases", "bias_at", "turns", "windows")
"""Names of `Program.parameters`."""


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """What a runner needs of a model."""

    shape: Shape
    products: tuple[Packed, ...]
    """Seven of each layer, then the head."""
    embedding: Packed
    """The head itself where the model has tied them."""
    embedding_scale: int
    """See `reference.Model`."""
    parameters: Mapping[str, np.ndarray]
    """The arrays of `Plan` that the model decides."""
    root: Digest
    """Over everything that decides the numbers; see `parameters.py`."""
    plan: Plan = field(init=False)
    layout: RecordLayout = field(init=False)

    def __post_init__(self) -> None:
        shape = self.shape
        rows = [packed.rows for packed in self.products[:PRODUCTS]]
        layout = RecordLayout(shape.layers, shape.width, shape.heads, shape.kv_heads, shape.head_width, shape.feed)
        starts = {name: start for name, (start, _) in layout.parts.items()}
        inputs = [starts[name] for name in ("input", "input", "input", "mixed", "feed", "feed", "gated")]
        plan = Plan(
            **{name: self.parameters[name] for name in PLAN_ARRAYS},
            products=np.array([describe(packed) for packed in self.products], np.int64),
            offsets=np.cumsum([0, *rows[:-1]]).astype(np.int64),
            sizes=np.array(rows, np.int64),
            layer_size=sum(rows),
            inputs=np.array(inputs, np.int64),
            inputs_step=layout.inputs_step,
            kept=np.array([starts["keys"], starts["values"]], np.int64),
            kept_step=layout.kept_step,
        )
        object.__setattr__(self, "layout", layout)
        object.__setattr__(self, "plan", plan)

    @property
    def vocabulary(self) -> int:
        """Token ids are 0 .. vocabulary - 1."""
        return self.products[-1].rows

    @property
    def body(self) -> int:
        """Accumulators of all layers, those of each filled up with zeros to whole chunks."""
        return chunk_count(self.plan.layer_size) * CHUNK * self.shape.layers

    def embed(self, token: int) -> np.ndarray:
        """A token's embedding, `reference.embed`: int64 [width], not to be written to.

        Raises:
            EngineError: there is no such token.
        """
        if not 0 <= token < self.embedding.rows:
            raise EngineError(f"token {token} is not in the vocabulary of {self.embedding.rows} tokens")
        return _embedding(self, token)


@lru_cache(maxsize=1024)
def _embedding(program: Program, token: int) -> np.ndarray:
    x, fraction = unpack_row(program.embedding, token), program.embedding.fraction
    if program.embedding_scale:
        x = np.clip(x, -EMBEDDING_LIMIT, EMBEDDING_LIMIT) * program.embedding_scale
    else:
        fraction -= RESIDUAL
    return into_stream(round_shift(x, fraction))


def program_of(model: Model) -> Program:
    """Lay a model out."""
    layers = model.layers
    gains, biases = _Flat(np.dtype(np.int32)), _Flat(np.dtype(np.int64))
    gain_table = [
        [gains.place(gain) for gain in (layer.attention_norm, layer.feed_norm, layer.query_norm, layer.key_norm,
                                        layer.attention_after, layer.feed_after)]
        for layer in layers
    ]  # fmt: skip
    gain_table.append([gains.place(model.norm), *[gains.place(None)] * 5])
    bias_table = [
        [biases.place(bias)[:2] for bias in (layer.query_bias, layer.key_bias, layer.value_bias)] for layer in layers
    ]
    products = tuple(pack(matrix) for layer in layers for matrix in _products(layer))
    head = pack(model.head)
    shape = Shape(
        layers=len(layers),
        width=model.width,
        heads=model.heads,
        kv_heads=model.kv_heads,
        head_width=model.head_width,
        feed=layers[0].gate.shape[0],
        epsilon=model.epsilon,
        score_scale=model.score_scale,
        halves=int(model.halves),
        gelu=int(model.gate == "gelu"),
    )
    return Program(
        shape,
        (*products, head),
        head if model.head is model.embedding else pack(model.embedding),
        model.embedding_scale,
        {
            "gains": gains.array,
            "gain_at": np.array(gain_table, np.int64),
            "biases": biases.array,
            "bias_at": np.array(bias_table, np.int64),
            "turns": np.array([layer.turns for layer in layers], np.uint64),
            "windows": np.array([layer.window for layer in layers], np.int64),
        },
        model_root(model),
    )


def _products(layer: Layer) -> tuple[Matrix, ...]:
    return layer.query, layer.key, layer.value, layer.output, layer.gate, layer.up, layer.down


class _Flat:
    """Vectors one behind the other."""

    def __init__(self, dtype: np.dtype) -> None:
        self.array = np.zeros(0, dtype)

    def place(self, vector: Gain | np.ndarray | None) -> tuple[int, int, int]:
        """Start, end and fraction bits of a vector that is added; of none, zeros."""
        if vector is None:
            return 0, 0, 0
        numbers, fraction = (vector.weight, vector.fraction) if isinstance(vector, Gain) else (vector, 0)
        start = self.array.size
        self.array = np.concatenate([self.array, numbers.astype(self.array.dtype)])
        return start, self.array.size, fraction
