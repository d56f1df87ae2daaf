"""What a side of a dispute has: all passes of a response, and from them the cells of any of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from typing_extensions import override

from assay.core.hashing import ZERO, Digest
from assay.engines.exact import reference
from assay.engines.exact.affine import Matrix
from assay.engines.exact.dispute import trees
from assay.engines.exact.dispute.commitment import (
    CHUNK,
    Evidence,
    chunk_count,
    chunk_digest,
    encode_chunk,
    encode_fractions,
    evidence_of,
    fractions_digest,
    pass_leaf,
)
from assay.engines.exact.dispute.parameters import Parameters
from assay.engines.exact.dispute.plan import Plan, Section
from assay.engines.exact.dispute.reading import Reader
from assay.engines.exact.dispute.shape import Shape
from assay.engines.exact.dispute.steps import step
from assay.engines.exact.reference import Cache, Gain, Layer, Model
from assay.engines.exact.whole import LOG_FRACTION, SATURATED, narrow, round_shift


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """The numbers of one token's pass that others are computed from."""

    body: np.ndarray
    """int64: the accumulators of all layers."""
    head: np.ndarray | None
    """int64 [vocabulary], where logits were wanted."""
    fractions: tuple[int, ...]
    """Fraction bits of each layer's first normalisation."""
    head_fraction: int = 0
    """Fraction bits of the head's accumulators."""

    def logits(self) -> np.ndarray:
        """int64 [vocabulary]: as `reference.forward` gives them."""
        assert self.head is not None
        return reference.into_32_bits(round_shift(self.head, self.head_fraction - reference.LOGIT_FRACTION))


def run_pass(model: Model, token: int, cache: Cache, *, head: bool, known: np.ndarray | None = None) -> Pass:
    """One token after those in the cache: `reference.forward`, with what it leaves out of its result.

    `known`: the body's accumulators, int64, where they are there already; then only the head is multiplied.
    """
    body: list[np.ndarray] = []
    fractions: list[int] = []

    def multiply(matrix: Matrix, x: np.ndarray, fraction: int) -> tuple[np.ndarray, int]:
        if known is None:
            y, fraction = reference.multiply(matrix, x, fraction)
        else:
            start = sum(map(len, body))
            y, fraction = known[start : start + matrix.shape[0]], fraction + matrix.fraction
        body.append(y)
        return y, fraction

    stream = reference.embed(model, token)
    for number, layer in enumerate(model.layers):
        x, fraction = reference.normalise(stream, reference.RESIDUAL, layer.attention_norm, model.epsilon)
        fractions.append(fraction)
        y, fraction = _attend(model, layer, x, fraction, cache.keys[number], cache.values[number], multiply)
        stream = reference.add(model, stream, y, fraction, layer.attention_after)
        x, fraction = reference.normalise(stream, reference.RESIDUAL, layer.feed_norm, model.epsilon)
        gate, f = multiply(layer.gate, x, fraction)
        gate = reference.into_32_bits(round_shift(gate, f - LOG_FRACTION))
        up, f = multiply(layer.up, x, fraction)
        up = reference.into_32_bits(round_shift(up, f - LOG_FRACTION))
        x, fraction = narrow(round_shift(reference.activate(gate, model.gate) * up, LOG_FRACTION), LOG_FRACTION)
        y, fraction = multiply(layer.down, x, fraction)
        stream = reference.add(model, stream, y, fraction, layer.feed_after)
    if not head:
        return Pass(np.concatenate(body), None, tuple(fractions))
    x, fraction = reference.normalise(stream, reference.RESIDUAL, model.norm, model.epsilon)
    y, fraction = reference.multiply(model.head, x, fraction)
    return Pass(np.concatenate(body), y, tuple(fractions), fraction)


def _attend(
    model: Model,
    layer: Layer,
    x: np.ndarray,
    fraction: int,
    keys: list[tuple[np.ndarray, np.ndarray]],
    values: list[tuple[np.ndarray, np.ndarray]],
    multiply: Callable[[Matrix, np.ndarray, int], tuple[np.ndarray, int]],
) -> tuple[np.ndarray, int]:
    """`reference.attention_block` between its normalisations."""
    position = len(keys)

    def heads_of(
        matrix: Matrix, bias: np.ndarray | None, norm: Gain | None, *, turned: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        y, f = multiply(matrix, x, fraction)
        if bias is not None:
            y = np.clip(y + round_shift(bias, reference.RESIDUAL - f), -SATURATED, SATURATED)
        parts: list[tuple[np.ndarray, int]] = []
        for part in y.reshape(-1, model.head_width):
            head = (part, f)
            if norm is not None:
                head = reference.normalise(*head, norm, model.epsilon)
            if turned:
                part, bits = reference.narrow_down(*head, reference.HEAD_BITS)
                turn = np.uint64(position) * layer.turns
                head = reference.turn_heads(part, turn, halves=model.halves), bits
            parts.append(narrow(*head))
        return np.array([part for part, _ in parts]), np.array([bits for _, bits in parts], dtype=np.int64)

    queries = heads_of(layer.query, layer.query_bias, layer.query_norm, turned=True)
    keys.append(heads_of(layer.key, layer.key_bias, layer.key_norm, turned=True))
    values.append(heads_of(layer.value, layer.value_bias, None, turned=False))
    start = max(0, position + 1 - layer.window) if layer.window else 0
    group = model.heads // model.kv_heads
    mixed = [
        reference.attend(model, queries[0][h], int(queries[1][h]),
                         [(k[h // group], int(f[h // group])) for k, f in keys[start:]],
                         [(v[h // group], int(f[h // group])) for v, f in values[start:]])
        for h in range(model.heads)
    ]  # fmt: skip
    return multiply(layer.output, *reference.join([part for part, _ in mixed], [f for _, f in mixed]))


class Record:
    """All passes of a response."""

    def __init__(
        self, parameters: Parameters, tokens: Sequence[int], prompt: int, passes: Sequence[Pass], cache: Cache
    ) -> None:
        self.parameters: Final = parameters
        self.shape: Final = Shape.of(parameters.model)
        self.tokens: Final = tuple(tokens)
        """Of prompt and answer."""
        self.prompt: Final = prompt
        """How many of them are the prompt's."""
        self.passes: Final = tuple(passes)
        self.cache: Final = cache
        """Keys and values of all of them."""
        self._vectors: Final[dict[tuple[int, bool], tuple[list[bytes], list[list[Digest]]]]] = {}

    def vector(self, position: int, *, head: bool) -> tuple[list[bytes], list[list[Digest]]]:
        """The encoded chunks of a pass's body or head, and all levels of the tree over them."""
        if (position, head) not in self._vectors:
            numbers = self.passes[position].head if head else self.passes[position].body
            listed = [] if numbers is None else [*numbers.tolist(), *[0] * (-len(numbers) % CHUNK)]
            chunks = [encode_chunk(listed[i * CHUNK : (i + 1) * CHUNK]) for i in range(chunk_count(len(listed)))]
            self._vectors[position, head] = chunks, trees.levels_of([chunk_digest(chunk) for chunk in chunks])
        return self._vectors[position, head]

    def vector_root(self, position: int, *, head: bool) -> Digest:
        """The root over those; ZERO for a head that is not there."""
        if head and self.passes[position].head is None:
            return ZERO
        return trees.root_of(self.vector(position, head=head)[1])

    @cached_property
    def leaves(self) -> list[Digest]:
        """Of all passes."""
        return [
            pass_leaf(self.vector_root(i, head=False), self.vector_root(i, head=True)) for i in range(len(self.passes))
        ]

    def evidence(self, nonce: bytes) -> Evidence:
        """What a receipt for the response commits to."""
        return evidence_of(self.leaves, nonce, self.prompt)

    def fractions(self, position: int) -> list[bytes]:
        """The encoded fraction bits of all positions before one."""
        return [encode_fractions(one.fractions) for one in self.passes[:position]]

    def fraction_levels(self, position: int) -> list[list[Digest]]:
        """All levels of the tree over them."""
        return trees.levels_of([fractions_digest(data) for data in self.fractions(position)])


def evidence_path(own: Record, position: int) -> list[Digest]:
    """The way from a pass's leaf to the receipt's evidence."""
    return own.evidence(b"").prove(own.leaves, position)


def record(parameters: Parameters, tokens: Sequence[int], prompt: int) -> Record:
    """Compute all passes of a response: all its tokens but the last one."""
    model, cache = parameters.model, Cache.of(parameters.model)
    passes = [run_pass(model, t, cache, head=i >= prompt - 1) for i, t in enumerate(tokens[:-1])]
    return Record(parameters, tokens, prompt, passes, cache)


class OwnReader(Reader):
    """Reads a side's own numbers."""

    def __init__(self, plan: Plan, own: Record, cells: Sequence[bytes]) -> None:
        super().__init__(plan, own.parameters.catalogue, own.tokens)
        self._own = own
        self._cells = cells

    @override
    def accumulators(self, start: int, stop: int, *, position: int | None = None, head: bool = False) -> list[int]:
        """Those of the pass, without a detour over chunks."""
        one = self._own.passes[self.plan.target.position if position is None else position]
        numbers = one.head if head else one.body
        assert numbers is not None
        return numbers[start:stop].tolist()

    @override
    def raw_cells(self, section: Section, i: int, count: int) -> Sequence[bytes]:
        """Of the cells so far."""
        return self._cells[section.start + i : section.start + i + count]

    @override
    def raw_chunks(self, position: int, first: int, count: int, *, head: bool) -> Sequence[bytes]:
        """Of a pass."""
        return self._own.vector(position, head=head)[0][first : first + count]

    @override
    def raw_fractions(self, position: int) -> bytes:
        """Of a pass."""
        return encode_fractions(self._own.passes[position].fractions)

    @override
    def raw_parameter(self, index: int, length: int) -> bytes:
        """Of the model."""
        data = self._own.parameters.leaf(*self._own.parameters.catalogue.place(index))
        assert len(data) == length
        return data


class OpeningReader(OwnReader):
    """The same, and writes down what it reads as an opening."""

    def __init__(
        self, plan: Plan, own: Record, cells: Sequence[bytes], levels: Sequence[Sequence[Digest]], position: int
    ) -> None:
        super().__init__(plan, own, cells)
        self._levels = levels
        self._position = position
        """That was challenged."""
        self._out = bytearray()

    def opening(self) -> bytes:
        """Of all that was read."""
        return bytes(self._out)

    @override
    def accumulators(self, start: int, stop: int, *, position: int | None = None, head: bool = False) -> list[int]:
        """From chunks, because those are what is opened."""
        return Reader.accumulators(self, start, stop, position=position, head=head)

    @override
    def raw_cells(self, section: Section, i: int, count: int) -> Sequence[bytes]:
        """With their path."""
        cells = super().raw_cells(section, i, count)
        start = section.start + i
        self._out += b"".join([*cells, *trees.prove(self._levels, start, start + count)])
        return cells

    @override
    def raw_chunks(self, position: int, first: int, count: int, *, head: bool) -> Sequence[bytes]:
        """With all that `OpenedReader.raw_chunks` takes."""
        chunks = super().raw_chunks(position, first, count, head=head)
        for chunk in chunks:
            self._out += bytes([len(chunk) // CHUNK]) + chunk
        own = self._own
        self._out += b"".join(trees.prove(own.vector(position, head=head)[1], first, first + count))
        self._out += own.vector_root(position, head=not head)
        if position != self._position:
            self._out += b"".join(evidence_path(own, position))
        return chunks

    @override
    def raw_fractions(self, position: int) -> bytes:
        """With its path."""
        data = super().raw_fractions(position)
        levels = self._own.fraction_levels(self._position)
        self._out += b"".join([data, *trees.prove(levels, position, position + 1)])
        return data

    @override
    def raw_parameter(self, index: int, length: int) -> bytes:
        """With its path."""
        data = super().raw_parameter(index, length)
        self._out += b"".join([data, *trees.prove(self._own.parameters.levels, index, index + 1)])
        return data


def expand(plan: Plan, own: Record) -> list[bytes]:
    """All cells of a plan, encoded.

    Keys and values are those that the pass has computed; every other cell is a referee's step over the cells before.
    """
    cells: list[bytes] = []
    reader = OwnReader(plan, own, cells)
    for section in plan.sections:
        if section.kind in ("key", "value"):
            cells += _kept(plan, own, section)
            continue
        for index in range(section.start, section.stop):
            cells.append(section.encode(step(reader, index)))
    return cells


def _kept(plan: Plan, own: Record, section: Section) -> list[bytes]:
    first, seen = plan.seen(section.layer)
    kept = own.cache.keys if section.kind == "key" else own.cache.values
    entries = kept[section.layer][first : first + seen]
    return [
        section.encode([int(fractions[head]), *numbers[head].tolist()])
        for head in range(plan.shape.kv_heads)
        for numbers, fractions in entries
    ]
