"""The cells that lead to one number of a pass, from numbers of records: what they hold, and where each one stands.

A cell is a small vector of whole numbers, computed from earlier cells, from numbers that the receipt commits to, and
from the model's parameters. All cells of one kind and layer are a section; a section's cells stand in rows.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

from assay.core.encoding import MICRO
from assay.core.errors import EncodingError
from assay.core.request import SamplerSettings
from assay.engines.exact.dispute.shape import ENDS, Norm, Product, Shape, Vector
from assay.engines.exact.parameters import SEGMENT

SPAN: Final = 128
"""Numbers of a vector in one cell."""
GROUP: Final = 1024
"""Numbers of a vector that one step looks through, or multiplies: a row of weights is cut into runs of so many."""
LEAVES: Final = GROUP // SEGMENT
"""Leaves of parameters that those are."""
FEW: Final = GROUP // 2
"""Numbers that one step looks through where it reads something else for each of them."""
MOST_KEYS: Final = 32
"""Positions that one step of attention looks at, at most, and as many as make BLOCK products."""
BLOCK: Final = 2048
BEST: Final = 8
"""Cells of scores that one step looks through."""

Kind: TypeAlias = Literal[
    "embedded", "product", "peak", "square", "inverse", "top", "scale", "normed", "added", "biased", "kept", "query",
    "key", "value", "score", "best", "weight", "low", "mix", "quotient", "join_low", "join_peak", "join_scale",
    "joined", "gated", "gated_peak", "gated_scale", "activated", "logit", "likeliest", "deficit", "count", "share",
    "total", "mass", "race", "number",
]  # fmt: skip
"""What a cell is; `steps.py` says how each is computed."""
Use: TypeAlias = Literal["", "norm", "head", Norm, Product]
"""Of which normalisation or product a section is part, or before which one."""


class NumberTarget(NamedTuple):
    """One number of a pass's record."""

    position: int
    index: int


class TokenTarget(NamedTuple):
    """The token that was drawn behind a position."""

    position: int


Target: TypeAlias = NumberTarget | TokenTarget
"""What a dispute's cells end with."""


class Rules(NamedTuple):
    """How the tokens of an answer are drawn; no grammar restricts them."""

    settings: SamplerSettings
    seed: bytes
    """32 bytes."""
    prompt: int
    """Tokens of the prompt: output positions count from there."""


GREEDY: Final = Rules(SamplerSettings(temperature=0), bytes(32), 1)
"""The likeliest token is drawn."""


class Filters(NamedTuple):
    """Which filters leave anything out."""

    top_k: bool
    top_p: bool


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
    first: int = 0
    """Of a product: the row of the matrix with which its cells begin; of `biased` and `kept`, the head."""

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
    first: int = 0


class Plan:
    """The cells that lead to a target, in order."""

    def __init__(self, shape: Shape, target: Target, rules: Rules = GREEDY) -> None:
        """Lay them out.

        Raises:
            EncodingError: a record has no such number.
        """
        self.shape: Final = shape
        self.target: Final = target
        self.rules: Final = rules
        vocabulary, settings = shape.head.rows, rules.settings
        self.filters: Final = Filters(0 < settings.top_k < vocabulary, settings.top_p < MICRO)
        self.key_bits: Final = 32 + (vocabulary - 1).bit_length()
        """Of the numbers by which candidates are ordered."""
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

    def place(self) -> tuple[int, Vector, int]:
        """Layer and vector of the number that is the target, and which of its numbers it is.

        Raises:
            EncodingError: a record has no such number.
        """
        assert isinstance(self.target, NumberTarget)
        found = self.shape.place(self.target.index)
        if found is None:
            raise EncodingError("there is no such number")
        return found

    def _rows(self) -> Iterator[_Row]:
        if isinstance(self.target, TokenTarget):
            yield from self._draw()
            return
        layer, name, at = self.place()
        if name in ("keys", "values"):
            yield from self._kept(layer, "key" if name == "keys" else "value", at)
        elif name == "mixed":
            yield from self._attention(layer)
        elif name == "gated":
            yield from self._gated(layer)
        else:
            yield from self._stream(layer, name)
            yield from self._norm(layer, input_norm(name))
        yield _Row("number", layer, "", 1, 1, 1, 0, 2)

    def _stream(self, layer: int, name: Vector) -> Iterator[_Row]:
        """The residual stream up to a normalisation: the sum of the token's row and of all parts before."""
        yield _Row("embedded", ENDS, "", 1, self.shape.width, SPAN, 0, 8)
        last = len(self.shape.layers) if layer == ENDS else layer
        for before in range(last):
            yield from self._part(before, "output", "attention_after")
            yield from self._part(before, "down", "feed_after")
        if name == "feed":
            yield from self._part(layer, "output", "attention_after")

    def _part(self, layer: int, product: Product, after: Norm) -> Iterator[_Row]:
        yield self._product(layer, product)
        if self.shape.layers[layer].norm(after) is not None:
            yield from self._norm(layer, after)
        yield _Row("added", layer, after, 1, self.shape.width, SPAN, 0, 8)

    def _product(self, layer: int, name: Product | Literal["head"], first: int = 0, rows: int = 0) -> _Row:
        """Running sums: those over the first columns of all rows, then those over more columns; `rows`: all, if 0."""
        matrix = self.shape.matrix(layer, name)
        return _Row("product", layer, name, -(-matrix.columns // GROUP), rows or matrix.rows, 1, 0, 8, first)

    def _norm(self, layer: int, use: Norm | Literal["norm"]) -> Iterator[_Row]:
        groups = -(-self.shape.width // GROUP)
        yield _Row("peak", layer, use, 1, 2 * groups, 2, 0, 8)
        yield _Row("square", layer, use, 1, groups, 1, 0, 8)
        yield _Row("inverse", layer, use, 1, 4, 4, 0, 8)
        if use not in ("attention_after", "feed_after"):
            yield _Row("top", layer, use, 1, -(-self.shape.width // FEW), 1, 0, 8)
            yield _Row("scale", layer, use, 1, 2, 2, 0, 8)
            yield _Row("normed", layer, use, 1, self.shape.width, SPAN, 0, 2)

    def _kept(self, layer: int, product: Literal["key", "value"], at: int) -> Iterator[_Row]:
        """One head, the one that the number or the fraction bits are of."""
        wide, heads = self.shape.head_width, self.shape.kv_heads
        head = at // wide if at < heads * wide else at - heads * wide
        yield self._product(layer, product, head * wide, wide)
        if self.shape.layers[layer].biased(product):
            yield _Row("biased", layer, product, 1, wide, wide, 0, 8, head)
        yield _Row("kept", layer, product, 1, wide, wide, 1, 2, head)

    def _attention(self, layer: int) -> Iterator[_Row]:
        shape, keys, wide = self.shape, self.keys, self.shape.head_width
        _, seen = self.seen(layer)
        blocks = -(-seen // keys)
        yield self._product(layer, "query")
        if shape.layers[layer].biased("query"):
            yield _Row("biased", layer, "query", shape.heads, wide, wide, 0, 8)
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

    def _gated(self, layer: int) -> Iterator[_Row]:
        feed = self.shape.layers[layer].product("gate").rows
        yield self._product(layer, "gate")
        yield self._product(layer, "up")
        yield _Row("gated", layer, "", 1, feed, SPAN, 0, 8)
        yield _Row("gated_peak", layer, "", 1, -(-feed // GROUP), 1, 0, 8)
        yield _Row("gated_scale", layer, "", 1, 2, 2, 0, 8)
        yield _Row("activated", layer, "", 1, feed, SPAN, 0, 2)

    def _draw(self) -> Iterator[_Row]:
        vocabulary = self.shape.head.rows
        yield self._product(ENDS, "head")
        yield _Row("logit", ENDS, "", 1, vocabulary, SEGMENT, 0, 4)
        groups = -(-vocabulary // GROUP)
        yield _Row("likeliest", ENDS, "", 1, 2 * groups, 2, 0, 8)
        if self.rules.settings.temperature:
            yield _Row("deficit", ENDS, "", 1, vocabulary, SEGMENT, 0, 8)
            if self.filters.top_k:
                yield _Row("count", ENDS, "", self.key_bits, 2 * groups, 2, 0, 8)
            if self.filters.top_p:
                yield _Row("share", ENDS, "", 1, vocabulary, SEGMENT, 0, 8)
                yield _Row("total", ENDS, "", 1, groups, 1, 0, 8)
                yield _Row("mass", ENDS, "", self.key_bits, 2 * -(-vocabulary // FEW), 2, 0, 8)
            yield _Row("race", ENDS, "", 1, 2 * -(-vocabulary // SEGMENT), 2, 0, 8)
        yield _Row("number", ENDS, "", 1, 1, 1, 0, 4)


def input_norm(name: Vector) -> Literal["norm", "attention_norm", "feed_norm"]:
    """The normalisation that a vector comes from."""
    return "norm" if name == "head input" else "attention_norm" if name == "input" else "feed_norm"


def input_of(product: Product | Literal["head"]) -> Vector:
    """What a matrix is multiplied with."""
    if product in ("query", "key", "value"):
        return "input"
    names: dict[str, Vector] = {"output": "mixed", "gate": "feed", "up": "feed", "down": "gated", "head": "head input"}
    return names[product]
