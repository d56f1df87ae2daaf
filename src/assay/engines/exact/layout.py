"""Where in a token's vectors of accumulators each product stands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from assay.engines.exact.accumulators import CHUNK
from assay.engines.exact.reference import Model


class Rows(NamedTuple):
    """Rows of a layer's matrices: as many accumulators has each product, in this order.

    Behind those of the query stands one number more: the fraction bits of the input of query, key and value. With it
    keys and values follow from their accumulators alone.
    """

    query: int
    key: int
    value: int
    output: int
    gate: int
    up: int
    down: int

    @property
    def total(self) -> int:
        """Numbers that a pass commits to for the layer."""
        return sum(self) + 1


@dataclass(frozen=True, slots=True)
class Layout:
    """The products of one token's pass: those of all layers make the body."""

    layers: tuple[Rows, ...]
    head: int
    """Rows of the last matrix, the size of the vocabulary."""

    @classmethod
    def of(cls, model: Model) -> Layout:
        """That of a converted model."""
        return cls(
            tuple(
                Rows(
                    query=layer.query.shape[0],
                    key=layer.key.shape[0],
                    value=layer.value.shape[0],
                    output=layer.output.shape[0],
                    gate=layer.gate.shape[0],
                    up=layer.up.shape[0],
                    down=layer.down.shape[0],
                )
                for layer in model.layers
            ),
            model.head.shape[0],
        )

    @property
    def body(self) -> int:
        """Numbers of the body."""
        return sum(rows.total for rows in self.layers)

    def kept_spans(self) -> Iterator[slice]:
        """Where in the body each layer's fraction bits, keys and values stand: what later tokens need of this one."""
        start = 0
        for rows in self.layers:
            yield slice(start + rows.query, start + rows.query + 1 + rows.key + rows.value)
            start += rows.total

    def kept_chunks(self) -> np.ndarray:
        """The chunks of the body that hold keys or values, int64, rising."""
        kept: list[int] = []
        for span in self.kept_spans():
            kept += range(span.start // CHUNK, (span.stop - 1) // CHUNK + 1)
        return np.unique(np.array(kept, dtype=np.int64))
