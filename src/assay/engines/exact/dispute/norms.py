"""The steps of a normalisation over the whole width, in groups: of the residual stream, or of what is added to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from assay.engines.exact.dispute.integers import (
    dot,
    highest,
    inverse_root,
    narrow_scale,
    narrowed,
    norm_shift,
    round_shift,
)
from assay.engines.exact.dispute.plan import FEW, GROUP, SPAN, Kind, Plan, Section, input_of
from assay.engines.exact.dispute.reading import Reader
from assay.engines.exact.dispute.shape import ENDS, Product
from assay.engines.exact.reference import RESIDUAL


def product(reader: Reader, layer: int, name: Product | Literal["head"], start: int, stop: int) -> list[int]:
    """Accumulators of some rows of a product: its last running sums. Rows count from the section's first one."""
    section = reader.plan.section("product", layer, name)
    cells = reader.cells(section, (section.rows - 1) * section.row + start, stop - start)
    return [number for cell in cells for number in cell]


def fraction_of(reader: Reader, layer: int, name: Product | Literal["head"]) -> int:
    """Fraction bits of a product's accumulators."""
    return reader.fraction(layer, input_of(name)) + reader.plan.shape.matrix(layer, name).fraction


def stream_before(plan: Plan, layer: int) -> Section:
    """The residual stream that comes into a layer, or behind the last one."""
    last = len(plan.shape.layers) - 1 if layer == ENDS else layer - 1
    return plan.section("embedded", ENDS) if last < 0 else plan.section("added", last, "feed_after")


def before(reader: Reader, section: Section, i: int) -> int:
    """The running number of the cell before; 0 for the first."""
    return reader.cells(section, i - 1)[0][0] if i else 0


def peak(reader: Reader, section: Section, i: int) -> tuple[int, ...]:
    """The smallest and the largest number, up to GROUP numbers further than the last cell."""
    numbers = _source(reader, section, i)
    if i:
        numbers = [*numbers, *reader.cells(section, i - 1)[0]]
    return min(numbers), max(numbers)


def square(reader: Reader, section: Section, i: int) -> tuple[int, ...]:
    """The sum of the squares of the shifted numbers, so far."""
    numbers = _source(reader, section, i)
    first, second, _ = _shifts(reader, section, _fraction(reader, section))
    x = [round_shift(round_shift(n, first), second) for n in numbers]
    return (before(reader, section, i) + dot(x, x),)


def inverse(reader: Reader, section: Section, _: int) -> tuple[int, ...]:
    """The two shifts, 1 / sqrt(mean of squares), and the fraction bits of the products."""
    plan, squares = reader.plan, reader.plan.section("square", section.layer, section.use)
    first, second, fraction = _shifts(reader, section, _fraction(reader, section))
    (total,) = reader.cells(squares, squares.row - 1)[0]
    root, bits = inverse_root(total, plan.shape.width, fraction - second, plan.shape.epsilon)
    return first, second, root, _gain(plan, section) + bits if root else 0


def top(reader: Reader, section: Section, i: int) -> tuple[int, ...]:
    """The largest magnitude of a shifted number times its weight, up to FEW numbers further than the last cell."""
    _, second, _, _ = reader.cell(reader.plan.section("inverse", section.layer, section.use))
    numbers = _stream_numbers(reader, section, i, FEW)
    weight = reader.vector((section.layer, section.use), i * FEW, i * FEW + len(numbers))
    products = (round_shift(n, second) * w for n, w in zip(numbers, weight, strict=True))
    return (max(before(reader, section, i), highest(products)),)


def scale(reader: Reader, section: Section, _: int) -> tuple[int, ...]:
    """By how much the products are shifted to be activations, and how many fraction bits those have."""
    tops = reader.plan.section("top", section.layer, section.use)
    _, _, root, fraction = reader.cell(reader.plan.section("inverse", section.layer, section.use))
    return narrow_scale(reader.cells(tops, tops.row - 1)[0][0] * root, fraction)


def normed(reader: Reader, section: Section, i: int) -> tuple[int, ...]:
    """SPAN activations."""
    plan = reader.plan
    _, second, root, _ = reader.cell(plan.section("inverse", section.layer, section.use))
    shift, _ = reader.cell(plan.section("scale", section.layer, section.use))
    (stream,) = reader.cells(_stream(plan, section), i)
    weight = reader.vector((section.layer, section.use), i * SPAN, i * SPAN + len(stream))
    return tuple(narrowed(round_shift(x, second) * w * root, shift) for x, w in zip(stream, weight, strict=True))


def _source(reader: Reader, section: Section, i: int) -> list[int]:
    """GROUP numbers of what is normalised."""
    if section.use in ("attention_after", "feed_after"):
        stop = min((i + 1) * GROUP, reader.plan.shape.width)
        return product(reader, section.layer, _product(section), i * GROUP, stop)
    return _stream_numbers(reader, section, i, GROUP)


def _stream_numbers(reader: Reader, section: Section, i: int, size: int) -> list[int]:
    """So many numbers of the residual stream."""
    stream = _stream(reader.plan, section)
    first = i * size // SPAN
    cells = reader.cells(stream, first, min(size // SPAN, stream.row - first))
    return [n for cell in cells for n in cell]


def _stream(plan: Plan, section: Section) -> Section:
    if section.use == "feed_norm":
        return plan.section("added", section.layer, "attention_after")
    return stream_before(plan, section.layer)


def _product(section: Section) -> Product:
    return "output" if section.use == "attention_after" else "down"


def _fraction(reader: Reader, section: Section) -> int:
    """Of what is normalised."""
    if section.use not in ("attention_after", "feed_after"):
        return RESIDUAL
    return fraction_of(reader, section.layer, _product(section))


def _shifts(reader: Reader, section: Section, fraction: int) -> tuple[int, int, int]:
    """How numbers are shifted, first as `reference.add` does and then as `normalise`; the fraction bits in between."""
    peaks = reader.plan.section("peak", section.layer, section.use)
    low, high = reader.cells(peaks, peaks.row - 1)[0]
    first = 0
    if section.use in ("attention_after", "feed_after"):
        first = norm_shift(highest((low, high)), 0)
        low, high, fraction = round_shift(low, first), round_shift(high, first), fraction - first
    return first, norm_shift(highest((low, high)), fraction), fraction


def _gain(plan: Plan, section: Section) -> int:
    if section.layer == ENDS:
        return plan.shape.norm
    fraction = plan.shape.layers[section.layer].norm(section.use)
    assert fraction is not None
    return fraction


STEPS: Final[dict[Kind, Callable[[Reader, Section, int], tuple[int, ...]]]] = {
    "peak": peak,
    "square": square,
    "inverse": inverse,
    "top": top,
    "scale": scale,
    "normed": normed,
}
"""By kind."""
