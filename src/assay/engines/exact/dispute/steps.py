"""How each cell follows from earlier ones: the steps that a referee recomputes, in plain whole numbers.

A step reads through a `Reader`: earlier cells, numbers of records, parameters. What it reads, in which order, is a
function of the cell's index alone, so the side that opens a step knows what to show, and a contract what to expect.
This file has the products, the embedding, the feed-forward part and the ends of disputes; `norms.py`, `attention.py`
and `sampling.py` have the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from assay.engines.exact.dispute import attention, norms, sampling
from assay.engines.exact.dispute.integers import (
    MOST,
    activate,
    clip,
    highest,
    narrow_scale,
    narrowed,
    round_shift,
)
from assay.engines.exact.dispute.plan import GROUP, SPAN, Kind, Section, TokenTarget, input_norm, input_of
from assay.engines.exact.dispute.reading import Reader
from assay.engines.exact.dispute.shape import ENDS, PRODUCTS, Product
from assay.engines.exact.reference import EMBEDDING_LIMIT, RESIDUAL, STREAM_LIMIT
from assay.engines.exact.whole import LIMIT, LOG_FRACTION

Step: TypeAlias = Callable[[Reader, Section, int], tuple[int, ...]]
"""A cell, given what may be read, its section and its place in it."""


def step(reader: Reader, index: int) -> tuple[int, ...]:
    """The numbers of cell `index`."""
    section, i = reader.plan.at(index)
    return STEPS[section.kind](reader, section, i)


def embedded(reader: Reader, section: Section, i: int) -> tuple[int, ...]:
    """SPAN numbers of the token's row: `reference.embed`."""
    shape = reader.plan.shape
    group, start = divmod(i * SPAN, GROUP)
    token = reader.token(reader.plan.target.position)
    part = reader.weights((ENDS, "embedding"), token, group, shape.embedding).whole()
    part = part[start : start + section.numbers(i)]
    if shape.embedding_scale:
        part = [clip(x, EMBEDDING_LIMIT) * shape.embedding_scale for x in part]
        return tuple(clip(round_shift(x, shape.embedding.fraction), STREAM_LIMIT) for x in part)
    return tuple(clip(round_shift(x, shape.embedding.fraction - RESIDUAL), STREAM_LIMIT) for x in part)


def multiplied(reader: Reader, section: Section, i: int) -> tuple[int, ...]:
    """One row of a matrix times its input, up to column GROUP (k + 1), for all rows one behind the other."""
    group, row = divmod(i, section.row)
    layer, name = section.layer, section.use
    assert name == "head" or name in PRODUCTS
    matrix = reader.plan.shape.matrix(layer, name)
    start, stop = group * GROUP, min((group + 1) * GROUP, matrix.columns)
    x = reader.numbers(layer, input_of(name), start, stop)
    total = reader.weights((layer, name), section.first + row, group, matrix).times(x)
    return (total + reader.cells(section, i - section.row)[0][0] if group else total,)


def added(reader: Reader, section: Section, i: int) -> tuple[int, ...]:
    """SPAN numbers of the residual stream behind attention or the feed-forward part: `reference.add`."""
    plan, layer, use = reader.plan, section.layer, section.use
    assert use in ("attention_after", "feed_after")
    name: Product = "output" if use == "attention_after" else "down"
    count = section.numbers(i)
    before = norms.stream_before(plan, layer) if name == "output" else plan.section("added", layer, "attention_after")
    (stream,) = reader.cells(before, i)
    y = norms.product(reader, layer, name, i * SPAN, i * SPAN + count)
    if plan.shape.layers[layer].norm(use) is None:
        fraction = norms.fraction_of(reader, layer, name)
    else:
        first, second, inverse, fraction = reader.cell(plan.section("inverse", layer, use))
        weight = reader.vector((layer, use), i * SPAN, i * SPAN + count)
        y = [round_shift(round_shift(x, first), second) * w * inverse for x, w in zip(y, weight, strict=True)]
    return tuple(clip(x + round_shift(n, fraction - RESIDUAL), STREAM_LIMIT) for x, n in zip(stream, y, strict=True))


def gated(reader: Reader, section: Section, i: int) -> tuple[int, ...]:
    """SPAN numbers of the gate's function times what it gates, LOG_FRACTION fraction bits."""
    layer, start = section.layer, i * SPAN
    stop = start + section.numbers(i)
    shape, fraction = reader.plan.shape.layers[layer], reader.fraction(layer, "feed") - LOG_FRACTION
    gate, up = (
        [
            clip(round_shift(x, fraction + shape.product(name).fraction), MOST)
            for x in norms.product(reader, layer, name, start, stop)
        ]
        for name in ("gate", "up")
    )
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


def number(reader: Reader, section: Section, _: int) -> tuple[int, ...]:
    """What a dispute's cells lead to: a number of the record, or a token."""
    plan, layer = reader.plan, section.layer
    if isinstance(plan.target, TokenTarget):
        return (sampling.drawn(reader),)
    _, name, at = plan.place()
    shape = plan.shape
    if name in ("keys", "values"):
        wide, heads = shape.head_width, shape.kv_heads
        cell = reader.cell(plan.section("kept", layer, "key" if name == "keys" else "value"))
        return (cell[1 + at % wide] if at < heads * wide else cell[0],)
    last = at == shape.vector(layer, name)[1] - 1
    if name == "mixed":
        source = plan.section("join_scale" if last else "joined", layer)
    elif name == "gated":
        source = plan.section("gated_scale" if last else "activated", layer)
    else:
        source = plan.section("scale" if last else "normed", layer, input_norm(name))
    if last:
        return (clip(reader.cell(source)[1], LIMIT),)
    return (reader.cells(source, at // SPAN)[0][at % SPAN],)


STEPS: Final[dict[Kind, Step]] = {
    "embedded": embedded,
    "product": multiplied,
    "added": added,
    "gated": gated,
    "gated_peak": gated_peak,
    "gated_scale": gated_scale,
    "activated": activated,
    "number": number,
    **norms.STEPS,
    **attention.STEPS,
    **sampling.STEPS,
}
"""By kind."""
