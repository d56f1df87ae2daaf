"""A converted model as the kernels want it: flat arrays, and a table of where everything is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from assay.engines.exact.affine import Matrix
from assay.engines.exact.kernels.layers import PRODUCTS, Plan, Shape
from assay.engines.exact.reference import Gain, Layer, Model


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """What a runner needs of a model."""

    shape: Shape
    plan: Plan
    body_size: int
    """Accumulators of all layers."""
    vocabulary: int
    model: Model
    keep: tuple[object, ...]

    def embed(self, token: int, out: np.ndarray) -> None:
        """Write a token's row of the embedding."""
        from assay.engines.exact.reference import embed

        out[:] = embed(self.model, token)


def program_of(model: Model) -> Program:
    """Lay a model out."""
    layers = model.layers
    gains: list[np.ndarray] = []
    biases: list[np.ndarray] = []
    keep: list[object] = []

    def place(parts: list[np.ndarray], part: np.ndarray) -> tuple[int, int]:
        start = sum(map(len, parts))
        parts.append(part)
        return start, start + len(part)

    def gain_at(gain: Gain | None) -> tuple[int, int, int]:
        return (0, 0, 0) if gain is None else (*place(gains, gain.weight.astype(np.int32)), gain.fraction)

    def bias_at(bias: np.ndarray | None) -> tuple[int, int]:
        return (0, 0) if bias is None else place(biases, bias)

    def fields(matrix: Matrix) -> list[int]:
        whole = matrix.whole()
        keep.append(whole)
        return [matrix.fraction, *matrix.shape, whole.ctypes.data]

    def products(layer: Layer) -> tuple[Matrix, ...]:
        return layer.query, layer.key, layer.value, layer.output, layer.gate, layer.up, layer.down

    rows = [matrix.shape[0] for matrix in products(layers[0])]
    nothing = (0, 0, 0)
    gain_table = [
        [gain_at(g) for g in (layer.attention_norm, layer.feed_norm, layer.query_norm, layer.key_norm,
                              layer.attention_after, layer.feed_after)]
        for layer in layers
    ] + [[gain_at(model.norm)] + [nothing] * 5]  # fmt: skip
    bias_table = [[bias_at(b) for b in (layer.query_bias, layer.key_bias, layer.value_bias)] for layer in layers]
    plan = Plan(
        gains=np.concatenate(gains),
        gain_at=np.array(gain_table, np.int64),
        biases=np.concatenate(biases or [np.zeros(0, np.int64)]),
        bias_at=np.array(bias_table, np.int64),
        turns=np.array([layer.turns for layer in layers], np.uint64),
        windows=np.array([layer.window for layer in layers], np.int64),
        products=np.array([fields(m) for layer in layers for m in products(layer)] + [fields(model.head)], np.int64),
        offsets=np.array([0, rows[0] + 1, *(np.cumsum(rows[1:-1]) + rows[0] + 1), rows[0]], np.int64),
        sizes=np.array(rows, np.int64),
        layer_size=sum(rows) + 1,
    )
    shape = Shape(
        layers=len(layers), width=model.width, heads=model.heads, kv_heads=model.kv_heads,
        head_width=model.head_width, feed=rows[4], epsilon=model.epsilon, score_scale=model.score_scale,
        halves=int(model.halves), gelu=int(model.gate == "gelu"), norm_fraction=0,
    )  # fmt: skip
    return Program(shape, plan, (sum(rows) + 1) * len(layers), model.head.shape[0], model, tuple(keep))
