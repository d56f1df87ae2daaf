"""What steps cost for a shape, without a model: bytes of their openings, and multiplications.

`python -m tests.engines.exact.dispute.meter` prints the table of docs/dispute.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple
from unittest.mock import patch

from typing_extensions import override

from assay.core.request import SamplerSettings
from assay.core.tree16 import FAN as SIXTEEN
from assay.engines.exact.dispute import sampling, trees
from assay.engines.exact.dispute.catalogue import Catalogue, Table, Weights
from assay.engines.exact.dispute.draws import hash32
from assay.engines.exact.dispute.evidence import Evidence
from assay.engines.exact.dispute.game import most_exchanges
from assay.engines.exact.dispute.plan import GROUP, Kind, NumberTarget, Plan, Rules, Section, Target, TokenTarget
from assay.engines.exact.dispute.reading import Reader
from assay.engines.exact.dispute.shape import (
    ENDS,
    LAYER_BYTES,
    MODEL_BYTES,
    VECTORS,
    LayerShape,
    MatrixShape,
    Shape,
    Vector,
)
from assay.engines.exact.dispute.steps import step
from assay.engines.exact.parameters import FAN, SEGMENT
from assay.engines.exact.record import CHUNK, CHUNK_BYTES


class Counted(int):
    """A whole number that counts what is done with it."""

    products = 0
    """Multiplications."""
    operations = 0
    """All, comparisons and shifts among them."""

    def __mul__(self, other: Any) -> Counted:
        Counted.products += 1
        Counted.operations += 1
        return Counted(int(self) * int(other))

    __rmul__ = __mul__


def _counting(name: str) -> Callable[..., Any]:
    def counting(self: Counted, *other: int) -> Any:
        Counted.operations += 1
        result = getattr(int, name)(self, *other)
        return result if isinstance(result, bool) else Counted(result)

    return counting


_BOTH = ("add", "sub", "rshift", "lshift")
for _name in (*_BOTH, *(f"r{name}" for name in _BOTH), "and", "or", "xor", "mod", "floordiv", "neg", "abs", "lt", "gt"):
    setattr(Counted, f"__{_name}__", _counting(f"__{_name}__"))


class Cost(NamedTuple):
    """Of a step, or the largest of several."""

    products: int = 0
    operations: int = 0
    size: int = 0
    """Bytes of an opening."""

    def most(self, other: Cost) -> Cost:
        """The larger ones."""
        return Cost(*map(max, self, other))


def longest_path(leaves: int, count: int, fan: int) -> int:
    """So many digests open a run of `count` leaves at most, wherever it stands: it can lie in two nodes of a level."""
    first, *sizes = [*trees.sizes_of(leaves, fan)[:-1], 0]
    beside = min(first, fan * ((count + fan - 2) // fan + 1)) - count
    most = (fan - 1) * (1 if count == 1 else 2)
    return max(0, beside) + sum(max(0, min(size - 1, most if size > fan else fan - 1)) for size in sizes)


class Meter(Reader):
    """Reads ones, and counts what an opening has at most, wherever in the trees its leaves stand."""

    def __init__(self, plan: Plan, catalogue: Catalogue, evidence: Evidence) -> None:
        super().__init__(plan, catalogue)
        self._tokens = max(evidence.prompt, evidence.output)
        self._path = max(evidence.path_length(at) for at in {0, evidence.prompt - 1, evidence.passes - 1})
        self.size = 0

    @override
    def check_shape(self, layer: int) -> None:
        self.size += MODEL_BYTES + 2 * 32
        if layer != ENDS:
            self._count(len(self.plan.shape.layers), 0, 1, LAYER_BYTES, FAN)

    @override
    def token(self, position: int) -> int:
        self._count(self._tokens, 0, 1, 4 + 32)
        return 0

    @override
    def cells(self, section: Section, i: int, count: int = 1) -> list[tuple[int, ...]]:
        sizes = [section.numbers(n) for n in range(i, i + count)]
        self._count(self.plan.count, section.start + i, count, sum(sizes) * section.width)
        return [(Counted(1),) * size for size in sizes]

    @override
    def numbers(self, layer: int, name: Vector, start: int, stop: int, position: int | None = None) -> list[int]:
        layout = self.plan.shape.layout
        kept = name in ("keys", "values")
        chunks = layout.kept_chunks if kept else layout.chunks - layout.kept_chunks
        count = min(chunks, (stop - start + CHUNK - 2) // CHUNK + 1)  # wherever it begins
        self._count(chunks, 0, count, count * CHUNK_BYTES)
        if position is not None and position != self.plan.target.position:
            self.size += 32 + 32 * self._path
        return [Counted(1)] * (stop - start)

    @override
    def weights(self, table: Table, row: int, group: int, matrix: MatrixShape) -> Weights:
        leaves = self._parameters(table, group * (GROUP // SEGMENT), GROUP // SEGMENT)
        ones = (Counted(1),) * (leaves * SEGMENT // matrix.block)
        return Weights((Counted(1),) * (leaves * SEGMENT), ones, ones, matrix.block)

    @override
    def vector(self, table: Table, start: int, stop: int) -> list[int]:
        first = start // SEGMENT
        self._parameters(table, first, (stop - 1) // SEGMENT - first + 1)
        return [Counted(1)] * (stop - start)

    def _parameters(self, table: Table, part: int, count: int) -> int:
        placed = self.catalogue.tables[table]
        count = min(count, placed.parts - part)
        self._count(self.catalogue.count, placed.start + part, count, count * placed.size, FAN)
        return count

    def _count(self, leaves: int, start: int, count: int, content: int, fan: int = SIXTEEN) -> None:
        assert 0 <= start < start + count <= leaves
        self.size += content + 32 * longest_path(leaves, count, fan)

    raw_cells = raw_chunks = raw_model = raw_layer = raw_parameters = None  # type: ignore[assignment]


Meter.__abstractmethods__ = frozenset()

SETTINGS = SamplerSettings(temperature=700_000, top_k=40, top_p=900_000, min_p=50_000)


def aims(shape: Shape, prompt: int, output: int) -> list[Plan]:
    """Plans that together have steps of every kind, the costly ones among them."""
    position, last = prompt + output - 2, len(shape.layers) - 1
    rules = Rules(SETTINGS, bytes(32), prompt)
    ends: list[tuple[int, Vector]] = [(last, name) for name in VECTORS[:-1]]
    ends.append((ENDS, "head input"))
    found: list[Target] = [NumberTarget(position, shape.vector(*end)[0]) for end in ends]
    return [Plan(shape, target, rules) for target in (*found, TokenTarget(position))]


def _counted_hash(key: int, token: int) -> int:
    return hash32(Counted(key), Counted(token))


def costs(shape: Shape, prompt: int, output: int) -> dict[Kind, Cost]:
    """Of each kind, the most over samples of its cells."""
    evidence, catalogue = Evidence(bytes(32), prompt, output), Catalogue(shape)
    last = len(shape.layers) - 1
    found: dict[Kind, Cost] = {}
    for plan in aims(shape, prompt, output):
        for section in plan.sections:
            if section.layer not in (0, last, ENDS):
                continue
            size = section.stop - section.start
            for i in {*range(min(size, 18)), *range(0, size, max(1, size // 7)), *range(max(0, size - 17), size)}:
                Counted.products = Counted.operations = 0
                meter = Meter(plan, catalogue, evidence)
                meter.check_shape(section.layer)
                with patch.object(sampling, "hash32", _counted_hash):
                    step(meter, section.start + i)
                meter.claimed(section.start + i)
                cost = Cost(Counted.products, Counted.operations, meter.size + section.numbers(i) * section.width)
                found[section.kind] = cost.most(found.get(section.kind, Cost()))
    return found


def shape_of(
    width: int, layers: int, heads: int, kv_heads: int, head_width: int, feed: int, vocabulary: int, **more: Any
) -> Shape:
    """A model of blocks of 32 numbers of 8 bits."""
    inner, kv = heads * head_width, kv_heads * head_width
    sizes = [(inner, width), (kv, width), (kv, width), (width, inner), (feed, width), (feed, width), (width, feed)]
    norms = (10, 10) + (10 if more.get("head_norms") else None,) * 2 + (10 if more.get("after") else None,) * 2
    layer = LayerShape(
        tuple(MatrixShape(rows, columns, 32, 24, False) for rows, columns in sizes),
        norms,
        (bool(more.get("biases")),) * 3,
        more.get("window", 0),
    )
    table = MatrixShape(vocabulary, width, 32, 24, False)
    gate = more.get("gate", "silu")
    return Shape(table, (layer,) * layers, 10, table, heads, kv_heads, head_width, 42950, 10**6, True, gate, 0, True)


SMOLLM2 = shape_of(576, 30, 9, 3, 64, 1536, 49152)
QWEN2 = shape_of(1536, 28, 12, 2, 128, 8960, 151936, biases=True)
LLAMA_8B = shape_of(4096, 32, 32, 8, 128, 14336, 128256)
GEMMA3_12B = shape_of(3840, 48, 16, 8, 256, 15360, 262144, head_norms=True, after=True, gate="gelu", window=1024)


def largest(shape: Shape, prompt: int, output: int) -> int:
    """Cells of the largest dispute over the last token's pass."""
    return max(plan.count for plan in aims(shape, prompt, output))


SHAPES = {
    "SmolLM2 135M": (SMOLLM2, 400, 56),
    "Qwen2 1.5B": (QWEN2, 4000, 96),
    "Llama 3 8B": (LLAMA_8B, 8000, 192),
    "Gemma 3 12B": (GEMMA3_12B, 8000, 192),
}
"""With tokens of prompt and answer."""


def sizes_row(name: str) -> list[str]:
    """A row of the documentation's table of models."""
    shape, prompt, output = SHAPES[name]
    cells, layout = largest(shape, prompt, output), shape.layout
    exchanges = most_exchanges(max(layout.kept_chunks, layout.chunks - layout.kept_chunks), cells)
    size = max(cost.size for cost in costs(shape, prompt, output).values())
    return [name, str(prompt + output), f"{cells:,}", str(layout.chunks), str(exchanges), f"{size:,}"]


def costs_rows() -> list[list[str]]:
    """The rows of the documentation's table of steps, without what they do."""
    return [[f"`{kind}`", *(f"{n:,}" for n in cost)] for kind, cost in costs(*SHAPES["SmolLM2 135M"]).items()]


if __name__ == "__main__":
    for row in (*map(sizes_row, SHAPES), *costs_rows()):
        print("| " + " | ".join(row) + " |")  # noqa: T201
