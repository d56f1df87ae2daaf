"""The steps of attention: heads, and for each a softmax over positions, a few dozen positions at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal

from assay.engines.exact.dispute.integers import (
    clip,
    divide,
    dot,
    exp2_negative,
    highest,
    narrow,
    narrow_scale,
    narrowed,
    normalise,
    round_shift,
    turned,
)
from assay.engines.exact.dispute.norms import fraction_of, product
from assay.engines.exact.dispute.plan import BEST, SPAN, Kind, Section
from assay.engines.exact.dispute.reading import Reader
from assay.engines.exact.reference import RESIDUAL, SCORE_LIMIT
from assay.engines.exact.whole import LIMIT, LOG_FRACTION, SATURATED

MIX: Final = 8
"""Fraction bits that the mean of values has over the values'."""


def biased(reader: Reader, section: Section, i: int) -> tuple[int, ...]:
    """A head's accumulators with the bias added: `reference.multiply`."""
    name, wide = section.use, reader.plan.shape.head_width
    assert name in ("query", "key", "value")
    head, shift = section.first + i, RESIDUAL - fraction_of(reader, section.layer, name)
    y = product(reader, section.layer, name, i * wide, (i + 1) * wide)
    bias = reader.vector((section.layer, f"{name}_bias"), head * wide, (head + 1) * wide)
    return tuple(clip(x + round_shift(b, shift), SATURATED) for x, b in zip(y, bias, strict=True))


def query(reader: Reader, section: Section, i: int) -> tuple[int, ...]:
    """Head `i` as activations: their fraction bits, then the numbers."""
    return _head(reader, section.layer, "query", i, 0)


def kept(reader: Reader, section: Section, _: int) -> tuple[int, ...]:
    """The same of the key or value head that is disputed."""
    assert section.use in ("key", "value")
    return _head(reader, section.layer, section.use, section.first, section.first)


def key(reader: Reader, section: Section, i: int) -> tuple[int, ...]:
    """A committed key head, with its fraction bits before it; positions of one head stand side by side."""
    return _copy(reader, section, "keys", i)


def value(reader: Reader, section: Section, i: int) -> tuple[int, ...]:
    """The same of a value head."""
    return _copy(reader, section, "values", i)


def score(reader: Reader, section: Section, i: int) -> tuple[int, ...]:
    """Scores of one head at a block of positions: `reference.attend`."""
    head, block = divmod(i, section.row)
    fraction, *numbers = reader.cells(reader.plan.section("query", section.layer), head)[0]
    keys = _block(reader, "key", section, head, block)
    scale = reader.plan.shape.score_scale
    return tuple(
        clip(round_shift(dot(numbers, key) * scale, fraction + f + 24 - LOG_FRACTION), SCORE_LIMIT) for f, *key in keys
    )


def best(reader: Reader, section: Section, i: int) -> tuple[int, ...]:
    """A head's largest score, up to BEST cells further than the last cell."""
    head, group = divmod(i, section.row)
    scores = reader.plan.section("score", section.layer)
    first = group * BEST
    cells = reader.cells(scores, head * scores.row + first, min(BEST, scores.row - first))
    most = max(map(max, cells))
    return (max(most, reader.cells(section, i - 1)[0][0]) if group else most,)


def weight(reader: Reader, section: Section, i: int) -> tuple[int, ...]:
    """Softmax weights of a head at a block of positions, before they are divided by their sum."""
    bests = reader.plan.section("best", section.layer)
    (most,) = reader.cells(bests, (i // section.row + 1) * bests.row - 1)[0]
    return tuple(exp2_negative(most - x) for x in reader.cells(reader.plan.section("score", section.layer), i)[0])


def low(reader: Reader, section: Section, i: int) -> tuple[int, ...]:
    """The fewest fraction bits of a value head up to a block of positions; heads of one block stand side by side."""
    heads = reader.plan.shape.kv_heads
    block, head = divmod(i, heads)
    least = min(cell[0] for cell in _kv_block(reader, "value", section.layer, head, block))
    return (min(least, reader.cells(section, i - heads)[0][0]) if block else least,)


def mix(reader: Reader, section: Section, i: int) -> tuple[int, ...]:
    """The sum of a head's weights up to a block of positions, then the weighted sum of the values."""
    weights = reader.plan.section("weight", section.layer)
    head, block = divmod(i, weights.row)
    (least,) = _lows(reader, section.layer, head // _group(reader), 1)
    row = reader.cells(weights, i)[0]
    values = _block(reader, "value", section, head, block)
    shares = [round_shift(w, value[0] - least) for w, value in zip(row, values, strict=True)]
    cell = [sum(row), *(dot(shares, column) for column in list(zip(*values, strict=True))[1:])]
    if block:
        cell = [x + y for x, y in zip(reader.cells(section, i - 1)[0], cell, strict=True)]
    return tuple(cell)


def quotient(reader: Reader, section: Section, i: int) -> tuple[int, ...]:
    """A head's mean of the values."""
    blocks = reader.plan.section("weight", section.layer).row
    total, *sums = reader.cells(reader.plan.section("mix", section.layer), (i + 1) * blocks - 1)[0]
    return tuple(divide(x << MIX, total) for x in sums)


def join_low(reader: Reader, section: Section, _: int) -> tuple[int, ...]:
    """The fewest fraction bits of all heads' means: `reference.join`."""
    return (min(_lows(reader, section.layer, 0, reader.plan.shape.kv_heads)) + MIX,)


def join_peak(reader: Reader, section: Section, i: int) -> tuple[int, ...]:
    """The largest magnitude with so many fraction bits, up to head `i`."""
    (lowest,) = reader.cell(reader.plan.section("join_low", section.layer))
    (own,) = _lows(reader, section.layer, i // _group(reader), 1)
    means = reader.cells(reader.plan.section("quotient", section.layer), i)[0]
    most = highest(round_shift(x, own + MIX - lowest) for x in means)
    return (max(most, reader.cells(section, i - 1)[0][0]) if i else most,)


def join_scale(reader: Reader, section: Section, _: int) -> tuple[int, ...]:
    """By how much all are shifted to be activations, and how many fraction bits those have."""
    peaks = reader.plan.section("join_peak", section.layer)
    (lowest,) = reader.cell(reader.plan.section("join_low", section.layer))
    return narrow_scale(reader.cells(peaks, peaks.row - 1)[0][0], lowest)


def joined(reader: Reader, section: Section, i: int) -> tuple[int, ...]:
    """SPAN activations of the heads side by side."""
    plan, layer, wide = reader.plan, section.layer, reader.plan.shape.head_width
    shift, _ = reader.cell(plan.section("join_scale", layer))
    (lowest,) = reader.cell(plan.section("join_low", layer))
    lows = _lows(reader, layer, 0, plan.shape.kv_heads)
    start, stop = i * SPAN, i * SPAN + section.numbers(i)
    first, last = start // wide, (stop - 1) // wide
    cells = reader.cells(plan.section("quotient", layer), first, last - first + 1)
    numbers = [
        narrowed(round_shift(x, lows[head // _group(reader)] + MIX - lowest), shift)
        for head, cell in enumerate(cells, first)
        for x in cell
    ]
    return tuple(numbers[start - first * wide : stop - first * wide])


def _copy(reader: Reader, section: Section, name: Literal["keys", "values"], i: int) -> tuple[int, ...]:
    shape = reader.plan.shape
    first, seen = reader.plan.seen(section.layer)
    head, position = i // seen, first + i % seen
    numbers = reader.numbers(section.layer, name, head * shape.head_width, (head + 1) * shape.head_width, position)
    at = shape.kv_heads * shape.head_width + head
    return (*reader.numbers(section.layer, name, at, at + 1, position), *numbers)


def _head(reader: Reader, layer: int, name: Literal["query", "key", "value"], head: int, first: int) -> tuple[int, ...]:
    """One head of a product whose cells begin with head `first`: `reference.attention_block`."""
    shape = reader.plan.shape
    wide, parts = shape.head_width, shape.layers[layer]
    fraction = fraction_of(reader, layer, name)
    if parts.biased(name):
        y: Sequence[int] = reader.cells(reader.plan.section("biased", layer, name), head - first)[0]
    else:
        y = product(reader, layer, name, (head - first) * wide, (head - first + 1) * wide)
    if name != "value":
        gain = parts.norm("query_norm" if name == "query" else "key_norm")
        if gain is not None:
            y, fraction = normalise(y, fraction, reader.vector((layer, f"{name}_norm"), 0, wide), gain, shape.epsilon)
        turns = reader.vector((layer, "turns"), 0, wide // 2)
        turn = [reader.plan.target.position * t % (1 << 64) for t in turns]
        y, fraction = turned(y, fraction, turn, halves=shape.halves)
    y, fraction = narrow(y, fraction)
    return (clip(fraction, LIMIT), *y)


def _group(reader: Reader) -> int:
    """Query heads that share a key head."""
    return reader.plan.shape.heads // reader.plan.shape.kv_heads


def _block(
    reader: Reader, kind: Literal["key", "value"], section: Section, head: int, block: int
) -> Sequence[Sequence[int]]:
    """The keys or values that a query head sees in a block of positions."""
    return _kv_block(reader, kind, section.layer, head // _group(reader), block)


def _kv_block(
    reader: Reader, kind: Literal["key", "value"], layer: int, head: int, block: int
) -> Sequence[Sequence[int]]:
    _, seen = reader.plan.seen(layer)
    first = block * reader.plan.keys
    return reader.cells(reader.plan.section(kind, layer), head * seen + first, min(reader.plan.keys, seen - first))


def _lows(reader: Reader, layer: int, head: int, count: int) -> list[int]:
    """The fewest fraction bits of value heads over all positions."""
    lows = reader.plan.section("low", layer)
    return [cell[0] for cell in reader.cells(lows, lows.rows - reader.plan.shape.kv_heads + head, count)]


STEPS: Final[dict[Kind, Callable[[Reader, Section, int], tuple[int, ...]]]] = {
    "biased": biased,
    "query": query,
    "kept": kept,
    "key": key,
    "value": value,
    "score": score,
    "best": best,
    "weight": weight,
    "low": low,
    "mix": mix,
    "quotient": quotient,
    "join_low": join_low,
    "join_peak": join_peak,
    "join_scale": join_scale,
    "joined": joined,
}
"""By kind."""
