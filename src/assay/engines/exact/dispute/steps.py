"""How each cell follows from earlier ones: the steps that a referee recomputes, in plain whole numbers.

A step reads through a `Reader`: earlier cells, committed accumulators, parameters. What it reads, in which order, is a
function of the cell's index alone, so the side that opens a step knows what to show, and a contract what to expect.
This file has the products, the embedding and the feed-forward part; `norms.py` and `attention.py` have the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from assay.engines.exact.dispute import attention, norms
from assay.engines.exact.dispute.integers import (
    MOST,
    activate,
    clip,
    dot,
    highest,
    narrow_scale,
    narrowed,
    round_shift,
)
from assay.engines.exact.dispute.parameters import COLUMNS, ENDS
from assay.engines.exact.dispute.plan import GROUP, SPAN, Kind, Section, TokenTarget
from assay.engines.exact.dispute.reading import Reader
from assay.engines.exact.dispute.shape import Product
from assay.engines.exact.reference import EMBEDDING_LIMIT, LOGIT_FRACTION, RESIDUAL, STREAM_LIMIT
from assay.engines.exact.whole import LOG_FRACTION

Step: TypeAlias = Callable[[Reader, Section, int], tuple[int, ...]]
"""A cell, given what may be read, its section and its place in it."""


def step(reader: Reader, index: int) -> tuple[int, ...]:
    """The numbers of cell `index`."""
    section, i = reader.plan.at(index)
    return STEPS[section.kind](reader, section, i)


def embedded(reader: Reader, section: Section, i: int) -> tuple[int, ...]:
    """SPAN numbers of the token's row: `reference.embed`."""
    shape = reader.plan.shape
    start = i * SPAN
    row = reader.weights((ENDS, "embedding"), reader.token, start // COLUMNS, shape.embedding)
    part = row.whole()[start % COLUMNS : start % COLUMNS + section.numbers(i)]
    if shape.embedding_scale:
        part = [clip(x, EMBEDDING_LIMIT) * shape.embedding_scale for x in part]
        return tuple(clip(round_shift(x, shape.embedding.fraction), STREAM_LIMIT) for x in part)
    return tuple(clip(round_shift(x, shape.embedding.fraction - RESIDUAL), STREAM_LIMIT) for x in part)


def added(reader: Reader, section: Section, i: int) -> tuple[int, ...]:
    """SPAN numbers of the residual stream behind attention or the feed-forward part: `reference.add`."""
    plan, layer = reader.plan, section.layer
    product: Product = "output" if section.use == "attention_after" else "down"
    count = section.numbers(i)
    if product == "output":
        (stream,) = reader.cells(norms.stream_before(plan, layer), i)
    else:
        (stream,) = reader.cells(plan.section("added", layer, "attention_after"), i)
    y, fraction = norms.product(reader, layer, product, i * SPAN, i * SPAN + count)
    norm = plan.shape.layers[layer].norm(section.use)
    if norm is not None:
        first, second, inverse, fraction = reader.cell(plan.section("inverse", layer, section.use))
        weight = reader.numbers((layer, section.use), 0, i * SPAN // COLUMNS, 2)[i * SPAN % COLUMNS :][:count]
        y = [round_shift(round_shift(x, first), second) * w * inverse for x, w in zip(y, weight, strict=True)]
    return tuple(clip(x + round_shift(n, fraction - RESIDUAL), STREAM_LIMIT) for x, n in zip(stream, y, strict=True))


def gated(reader: Reader, section: Section, i: int) -> tuple[int, ...]:
    """SPAN numbers of the gate's function times what it gates, LOG_FRACTION fraction bits."""
    layer, start = section.layer, i * SPAN
    stop = start + section.numbers(i)
    gate, fraction = norms.product(reader, layer, "gate", start, stop)
    gate = [clip(round_shift(x, fraction - LOG_FRACTION), MOST) for x in gate]
    up, fraction = norms.product(reader, layer, "up", start, stop)
    up = [clip(round_shift(x, fraction - LOG_FRACTION), MOST) for x in up]
    kind = reader.plan.shape.gate
    return tuple(round_shift(activate(g, kind) * u, LOG_FRACTION) for g, u in zip(gate, up, strict=True))


def gated_peak(reader: Reader, section: Section, i: int) -> tuple[int, ...]:
    """The largest magnitude of those, up to GROUP numbers further than the last cell."""
    source = reader.plan.section("gated", section.layer)
    first = i * GROUP // SPAN
    cells = reader.cells(source, first, min(GROUP // SPAN, source.row - first))
    return (max(norms.before(reader, section, i), *map(highest, cells)),)


def gated_scale(reader: Reader, section: Section, _: int) -> tuple[int, ...]:
    """By how much they are shifted to be activations, and how many fraction bits they have then."""
    peak = reader.plan.section("gated_peak", section.layer)
    return narrow_scale(reader.cells(peak, peak.row - 1)[0][0], LOG_FRACTION)


def activated(reader: Reader, section: Section, i: int) -> tuple[int, ...]:
    """SPAN of them as activations."""
    shift, _ = reader.cell(reader.plan.section("gated_scale", section.layer))
    return tuple(narrowed(x, shift) for x in reader.cells(reader.plan.section("gated", section.layer), i)[0])


def summed(reader: Reader, section: Section, i: int) -> tuple[int, ...]:
    """The disputed row times the activations, up to column COLUMNS (i + 1)."""
    plan = reader.plan
    layer, name, row = plan.product()
    matrix = plan.shape.head if name == "head" else plan.shape.layers[layer].product(name)
    inputs, _ = plan.inputs_of(layer, name)
    first = i * COLUMNS // SPAN
    x = [n for cell in reader.cells(inputs, first, min(COLUMNS // SPAN, inputs.row - first)) for n in cell]
    weights = reader.weights((layer, name), row, i, matrix)
    total = norms.before(reader, section, i)
    for number, (scale, offset) in enumerate(zip(weights.scale, weights.offset, strict=True)):
        block = slice(number * matrix.block, (number + 1) * matrix.block)
        total += scale * dot(weights.q[block], x[block]) + offset * sum(x[block])
    return (total,)


def fraction_of(reader: Reader, section: Section, _: int) -> tuple[int, ...]:
    """The fraction bits of a layer's first normalisation."""
    return (reader.cell(reader.plan.section("scale", section.layer, "attention_norm"))[1],)


def drawn(reader: Reader, _section: Section, _i: int) -> tuple[int, ...]:
    """The logits of the token that follows, and of its rival."""
    target = reader.plan.target
    assert isinstance(target, TokenTarget)
    _, fraction = reader.cell(reader.plan.section("scale", ENDS, "norm"))
    shift = fraction + reader.plan.shape.head.fraction - LOGIT_FRACTION
    rows = (reader.next_token, target.rival)
    return tuple(clip(round_shift(reader.accumulators(row, row + 1, head=True)[0], shift), MOST) for row in rows)


STEPS: Final[dict[Kind, Step]] = {
    "embedded": embedded,
    "added": added,
    "gated": gated,
    "gated_peak": gated_peak,
    "gated_scale": gated_scale,
    "activated": activated,
    "sum": summed,
    "fraction": fraction_of,
    "drawn": drawn,
    **norms.STEPS,
    **attention.STEPS,
}
"""By kind."""
