"""What a side of a dispute has: the records of a response's passes, and from them the cells up to any number."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Final

import numpy as np
from typing_extensions import override

from assay.core.completion import token_leaves, token_salts
from assay.core.hashing import Digest
from assay.engines.exact.dispute import trees
from assay.engines.exact.dispute.catalogue import Opened, Table
from assay.engines.exact.dispute.evidence import Evidence, Tokens, evidence_of
from assay.engines.exact.dispute.plan import GREEDY, GROUP, Plan, Rules, Section, input_of
from assay.engines.exact.dispute.reading import Reader
from assay.engines.exact.dispute.shape import ENDS, PRODUCTS, Shape
from assay.engines.exact.dispute.steps import step
from assay.engines.exact.parameters import Parameters
from assay.engines.exact.record import CHUNK, chunk_digests, digest_list, record_root
from assay.engines.exact.reference import Model


class OpenedTokens:
    """The tokens of a prompt or of an answer, to open each by itself."""

    def __init__(self, tokens: Sequence[int], salts: Sequence[Digest]) -> None:
        self._tokens: Final = tokens
        self._salts: Final = salts
        self.levels: Final = trees.levels_of(token_leaves(salts, tokens))

    def open(self, index: int) -> bytes:
        """Token, salt and path."""
        token = self._tokens[index].to_bytes(4, "big")
        return b"".join([token, self._salts[index], *trees.prove(self.levels, index, index + 1)])


class Response:
    """All passes of a response."""

    def __init__(
        self,
        model: Model,
        parameters: Parameters,
        tokens: Sequence[int],
        prompt: int,
        records: np.ndarray,
        nonce: bytes,
        rules: Rules = GREEDY,
    ) -> None:
        """`records`: int16 [passes, 256 * chunks], of all tokens but the last one, as `runner.Runner` gives them;
        `nonce`: the request's."""
        self.model: Final = model
        self.shape: Final = Shape.of(model)
        self.parameters: Final = Opened(parameters, self.shape)
        self.tokens: Final = tuple(tokens)
        """Of prompt and answer."""
        self.prompt: Final = prompt
        """How many of them are the prompt's."""
        self.records: Final = records
        self.nonce: Final = nonce
        self.rules: Final = rules
        self._levels: Final[dict[int, tuple[list[list[Digest]], list[list[Digest]]]]] = {}

    def chunk(self, position: int, index: int) -> bytes:
        """The content of one chunk of a record."""
        return self.records[position, index * CHUNK : (index + 1) * CHUNK].astype("<i2").tobytes()

    def levels(self, position: int) -> tuple[list[list[Digest]], list[list[Digest]]]:
        """All levels of the trees over the chunks of a record's two parts."""
        if position not in self._levels:
            digests = digest_list(chunk_digests(self.records[position].reshape(-1, CHUNK)))
            kept = self.shape.layout.kept_chunks
            self._levels[position] = trees.levels_of(digests[:kept]), trees.levels_of(digests[kept:])
        return self._levels[position]

    @cached_property
    def leaves(self) -> list[Digest]:
        """What each pass is committed to."""
        return [record_root(self.shape.layout, record) for record in self.records]

    @cached_property
    def evidence(self) -> Evidence:
        """What a receipt for the response commits to."""
        return evidence_of(self.leaves, self.nonce, self.prompt)

    def path(self, position: int) -> list[Digest]:
        """The way from a pass's commitment to the receipt's evidence."""
        return self.evidence.prove(self.leaves, position, self.nonce)

    @cached_property
    def opened_tokens(self) -> tuple[OpenedTokens, OpenedTokens]:
        """Those of the prompt and those of the answer."""
        prompt, output = self.tokens[: self.prompt], self.tokens[self.prompt :]
        return (
            OpenedTokens(prompt, token_salts("assay/prompt-tokens/2", self.nonce, len(prompt))),
            OpenedTokens(output, token_salts("assay/output/2", self.nonce, len(output))),
        )

    @property
    def token_roots(self) -> Tokens:
        """What a receipt for the response has of the tokens."""
        prompt, output = self.opened_tokens
        return Tokens(trees.root_of(prompt.levels), trees.root_of(output.levels))

    def open_token(self, position: int) -> bytes:
        """A token, its salt and its path, as `OpenedReader.token` takes them."""
        prompt, output = self.opened_tokens
        return prompt.open(position) if position < self.prompt else output.open(position - self.prompt)


class OwnReader(Reader):
    """Reads a side's own numbers."""

    def __init__(self, plan: Plan, own: Response, cells: Sequence[bytes]) -> None:
        super().__init__(plan, own.parameters.catalogue)
        self._own = own
        self._cells = cells

    @override
    def raw_cells(self, section: Section, i: int, count: int) -> Sequence[bytes]:
        """Of the cells so far."""
        return self._cells[section.start + i : section.start + i + count]

    @override
    def raw_chunks(self, position: int, first: int, count: int) -> Sequence[bytes]:
        """Of a record."""
        return [self._own.chunk(position, index) for index in range(first, first + count)]

    @override
    def raw_model(self) -> bytes:
        """Of the model."""
        return self._own.shape.leaf

    @override
    def raw_layer(self, layer: int) -> bytes:
        """Of the model."""
        return self._own.shape.layers[layer].leaf

    @override
    def raw_parameters(self, table: Table, row: int, part: int, count: int) -> Sequence[bytes]:
        """Of the model."""
        return [self._own.parameters.leaf(table, row, each) for each in range(part, part + count)]

    @override
    def token(self, position: int) -> int:
        """Of prompt or answer."""
        return self._own.tokens[position]


class OpeningReader(OwnReader):
    """The same, and writes down what it reads as an opening."""

    def __init__(self, plan: Plan, own: Response, cells: Sequence[bytes], levels: Sequence[Sequence[Digest]]) -> None:
        super().__init__(plan, own, cells)
        self._levels = levels
        self._out = bytearray()

    def opening(self) -> bytes:
        """Of all that was read."""
        return bytes(self._out)

    def show(self, data: bytes) -> None:
        """Write down what needs no path."""
        self._out += data

    @override
    def raw_cells(self, section: Section, i: int, count: int) -> Sequence[bytes]:
        """With their path."""
        cells = super().raw_cells(section, i, count)
        start = section.start + i
        self._out += b"".join([*cells, *trees.prove(self._levels, start, start + count)])
        return cells

    @override
    def raw_chunks(self, position: int, first: int, count: int) -> Sequence[bytes]:
        """With all that `OpenedReader.raw_chunks` takes."""
        chunks = super().raw_chunks(position, first, count)
        kept, inputs = self._own.levels(position)
        start = self.plan.shape.layout.kept_chunks
        mine, other, first = (kept, inputs, first) if first < start else (inputs, kept, first - start)
        self._out += b"".join([*chunks, *trees.prove(mine, first, first + count)])
        if position != self.plan.target.position:
            self._out += b"".join([trees.root_of(other), *self._own.path(position)])
        return chunks

    @override
    def raw_model(self) -> bytes:
        """With what stands beside them."""
        self._out += self._own.parameters.numbers()
        return super().raw_model()

    @override
    def raw_layer(self, layer: int) -> bytes:
        """With their path."""
        numbers = super().raw_layer(layer)
        self._out += b"".join([numbers, *self._own.parameters.layer(layer)])
        return numbers

    @override
    def raw_parameters(self, table: Table, row: int, part: int, count: int) -> Sequence[bytes]:
        """With their path."""
        leaves = super().raw_parameters(table, row, part, count)
        placed = self.catalogue.tables[table]
        start = placed.start + row * placed.parts + part
        self._out += b"".join([*leaves, *self._own.parameters.path(start, start + count)])
        return leaves

    @override
    def token(self, position: int) -> int:
        """With salt and path."""
        self._out += self._own.open_token(position)
        return super().token(position)


def expand(plan: Plan, own: Response) -> list[bytes]:
    """All cells of a plan, encoded.

    Products are multiplied as matrices; every other cell is a referee's step over the cells before.
    """
    cells: list[bytes] = []
    reader = OwnReader(plan, own, cells)
    for section in plan.sections:
        if section.kind == "product":
            cells += _products(plan, own, section)
            continue
        for index in range(section.start, section.stop):
            cells.append(section.encode(step(reader, index)))
    return cells


def _products(plan: Plan, own: Response, section: Section) -> list[bytes]:
    layer, name = section.layer, section.use
    assert name == "head" or name in PRODUCTS
    matrix = getattr(own.model if layer == ENDS else own.model.layers[layer], name)
    start, size = plan.shape.vector(layer, input_of(name))
    x = own.records[plan.target.position, start : start + size - 1].astype(np.int64)
    out = np.empty((section.rows, section.row), ">i8")
    for row in range(0, section.row, 1024):
        rows = slice(section.first + row, section.first + min(row + 1024, section.row))
        whole = matrix.whole(rows)
        sums = [whole[:, k : k + GROUP] @ x[k : k + GROUP] for k in range(0, len(x), GROUP)]
        out[:, row : row + 1024] = np.cumsum(sums, axis=0)
    data = out.tobytes()
    return [data[i : i + 8] for i in range(0, len(data), 8)]
