"""The cells of one token's pass up to one number of it: what they hold, and where each one stands.

A cell is a small vector of whole numbers, computed from earlier cells, from accumulators that the receipt commits to,
and from the model's parameters. All cells of one kind and layer are a section; a section's cells stand in rows.
Accumulators are no cells: whatever is computed from them takes them from the receipt.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

from assay.core.errors import EncodingError
from assay.engines.exact.dispute.parameters import COLUMNS, ENDS
from assay.engines.exact.dispute.shape import Norm, Product, Shape

SPAN: Final = 128
"""Numbers of a vector in one cell."""
GROUP: Final = COLUMNS
"""Numbers of a vector that one step looks through, or multiplies."""
MOST_KEYS: Final = 32
"""Positions that one step of attention looks at, at most, and as many as make BLOCK products."""
BLOCK: Final = 2048
BEST: Final = 8
"""Cells of scores that one step looks through."""

Kind: TypeAlias = Literal[
    "embedded", "peak", "square", "inverse", "top", "scale", "normed", "query", "key", "value", "score", "best",
    "weight", "low", "mix", "quotient", "join_low", "join_peak", "join_scale", "joined", "added", "gated",
    "gated_peak", "gated_scale", "activated", "sum", "fraction", "drawn",
]  # fmt: skip
"""What a cell is; `steps.py` says how each is computed."""
Use: TypeAlias = Literal["", "norm", Norm]
"""Of which normalisation a section is part, or before which one."""


class RowTarget(NamedTuple):
    """One accumulator of a pass: number `index` of its body, or of its head."""

    position: int
    head: bool
    index: int


class FractionTarget(NamedTuple):
    """The fraction bits of a layer's first normalisation at a position."""

    position: int
    layer: int


class TokenTarget(NamedTuple):
    """The token that follows a position, against another one."""

    position: int
    rival: int


Target: TypeAlias = RowTarget | FractionTarget | TokenTarget
"""The number that a dispute's cells end with."""


@dataclass(frozen=True, slots=True)
class Section:
    """The cells of one kind and layer."""

    kind: Kind
    layer: int
    """Or ENDS."""
    use: Use
    start: int
    """Index of its first cell."""
    rows: int
    length: int
    """Numbers of a row, shared out to cells."""
    piece: int
    """Of them, in one cell; the last of a row has the rest."""
    extra: int
    """Numbers that each cell has before those."""
    width: int
    """Bytes of a number."""

    @property
    def row(self) -> int:
        """Cells of a row."""
        return -(-self.length // self.piece)

    @property
    def stop(self) -> int:
        """The index after its last cell."""
        return self.start + self.rows * self.row

    def numbers(self, i: int) -> int:
        """How many cell `i` of the section holds."""
        return self.extra + min(self.piece, self.length - i % self.row * self.piece)

    def encode(self, cell: Sequence[int]) -> bytes:
        """A cell's bytes: its numbers in two's complement, big-endian.

        Raises:
            EncodingError: a number does not fit.
        """
        try:
            return struct.pack(f">{len(cell)}{_CODES[self.width]}", *cell)
        except struct.error as error:
            raise EncodingError(f"a number of the cell {self.kind} has over {self.width} bytes") from error

    def decode(self, data: bytes) -> tuple[int, ...]:
        """Inverse of `encode`, for bytes of the right length."""
        return struct.unpack(f">{len(data) // self.width}{_CODES[self.width]}", data)


_CODES: Final = {2: "h", 4: "i", 8: "q"}


class _Row(NamedTuple):
    kind: Kind
    layer: int
    use: Use
    rows: int
    length: int
    piece: int
    extra: int
    width: int


class Plan:
    """The cells that lead to a target, in order."""

    def __init__(self, shape: Shape, target: Target) -> None:
        self.shape: Final = shape
        self.target: Final = target
        self.keys: Final = max(1, min(MOST_KEYS, BLOCK // shape.head_width))
        """Positions that a step of attention looks at."""
        self.sections: Final[list[Section]] = []
        self._found: Final[dict[tuple[Kind, int, Use], Section]] = {}
        at = 0
        for row in self._rows():
            section = Section(row.kind, row.layer, row.use, at, *row[3:])
            self.sections.append(section)
            self._found[row.kind, row.layer, row.use] = section
            at = section.stop
        self.count: Final = at
        """All cells."""
        self._starts: Final = [section.start for section in self.sections]

    def section(self, kind: Kind, layer: int, use: Use = "") -> Section:
        """The one of this kind."""
        return self._found[kind, layer, use]

    def at(self, index: int) -> tuple[Section, int]:
        """The section of cell `index`, and its place in it."""
        section = self.sections[bisect_right(self._starts, index) - 1]
        return section, index - section.start

    def seen(self, layer: int) -> tuple[int, int]:
        """The first position that attention sees in a layer, and how many."""
        first = self.shape.seen_from(layer, self.target.position)
        return first, self.target.position + 1 - first

    def product(self) -> tuple[int, Product | Literal["head"], int]:
        """Layer, matrix and row of the accumulator that is the target."""
        target = self.target
        assert isinstance(target, RowTarget)
        return (ENDS, "head", target.index) if target.head else self.shape.product_at(target.index)

    def inputs_of(self, layer: int, product: Product | Literal["head"]) -> tuple[Section, Section]:
        """The cells that a matrix is multiplied with, and the one with their fraction bits."""
        if product == "output":
            return self.section("joined", layer), self.section("join_scale", layer)
        if product == "down":
            return self.section("activated", layer), self.section("gated_scale", layer)
        use: Use = "norm" if product == "head" else "feed_norm" if product in ("gate", "up") else "attention_norm"
        return self.section("normed", layer, use), self.section("scale", layer, use)

    def _rows(self) -> Iterator[_Row]:
        yield from self._prefix()
        target = self.target
        if isinstance(target, FractionTarget):
            yield _Row("fraction", target.layer, "", 1, 1, 1, 0, 8)
        elif isinstance(target, TokenTarget):
            yield _Row("drawn", ENDS, "", 1, 2, 2, 0, 8)
        else:
            layer, name, _ = self.product()
            matrix = self.shape.head if name == "head" else self.shape.layers[layer].product(name)
            yield _Row("sum", layer, "", 1, -(-matrix.columns // COLUMNS), 1, 0, 8)

    def _prefix(self) -> Iterator[_Row]:
        """The cells that come before the disputed number's own."""
        width, stop = self.shape.width, self._stop()
        yield _Row("embedded", ENDS, "", 1, width, SPAN, 0, 8)
        for layer, shape in enumerate(self.shape.layers):
            yield from self._norm(layer, "attention_norm")
            if stop == (layer, "query"):
                return
            yield from self._attention(layer)
            if stop == (layer, "output"):
                return
            if shape.norm("attention_after") is not None:
                yield from self._norm(layer, "attention_after")
            yield _Row("added", layer, "attention_after", 1, width, SPAN, 0, 8)
            yield from self._norm(layer, "feed_norm")
            if stop == (layer, "gate"):
                return
            feed = shape.product("gate").rows
            yield _Row("gated", layer, "", 1, feed, SPAN, 0, 8)
            yield _Row("gated_peak", layer, "", 1, -(-feed // GROUP), 1, 0, 8)
            yield _Row("gated_scale", layer, "", 1, 2, 2, 0, 8)
            yield _Row("activated", layer, "", 1, feed, SPAN, 0, 2)
            if stop == (layer, "down"):
                return
            if shape.norm("feed_after") is not None:
                yield from self._norm(layer, "feed_after")
            yield _Row("added", layer, "feed_after", 1, width, SPAN, 0, 8)
        yield from self._norm(ENDS, "norm")

    def _stop(self) -> tuple[int, str]:
        """Before which product the cells end."""
        target = self.target
        if isinstance(target, FractionTarget):
            return target.layer, "query"
        if isinstance(target, TokenTarget):
            return ENDS, "head"
        layer, name, _ = self.product()
        return layer, {"key": "query", "value": "query", "up": "gate"}.get(name, name)

    def _norm(self, layer: int, use: Use) -> Iterator[_Row]:
        groups = -(-self.shape.width // GROUP)
        yield _Row("peak", layer, use, 1, 2 * groups, 2, 0, 8)
        yield _Row("square", layer, use, 1, groups, 1, 0, 8)
        yield _Row("inverse", layer, use, 1, 4, 4, 0, 8)
        if use not in ("attention_after", "feed_after"):
            yield _Row("top", layer, use, 1, groups, 1, 0, 8)
            yield _Row("scale", layer, use, 1, 2, 2, 0, 8)
            yield _Row("normed", layer, use, 1, self.shape.width, SPAN, 0, 2)

    def _attention(self, layer: int) -> Iterator[_Row]:
        shape, keys, wide = self.shape, self.keys, self.shape.head_width
        _, seen = self.seen(layer)
        blocks = -(-seen // keys)
        yield _Row("query", layer, "", shape.heads, wide, wide, 1, 2)
        yield _Row("key", layer, "", shape.kv_heads * seen, wide, wide, 1, 2)
        yield _Row("value", layer, "", shape.kv_heads * seen, wide, wide, 1, 2)
        yield _Row("score", layer, "", shape.heads, seen, keys, 0, 8)
        yield _Row("best", layer, "", shape.heads, -(-blocks // BEST), 1, 0, 8)
        yield _Row("weight", layer, "", shape.heads, seen, keys, 0, 2)
        yield _Row("low", layer, "", blocks * shape.kv_heads, 1, 1, 0, 8)
        yield _Row("mix", layer, "", shape.heads * blocks, wide, wide, 1, 8)
        yield _Row("quotient", layer, "", shape.heads, wide, wide, 0, 4)
        yield _Row("join_low", layer, "", 1, 1, 1, 0, 8)
        yield _Row("join_peak", layer, "", 1, shape.heads, 1, 0, 8)
        yield _Row("join_scale", layer, "", 1, 2, 2, 0, 8)
        yield _Row("joined", layer, "", 1, shape.inner, SPAN, 0, 2)
