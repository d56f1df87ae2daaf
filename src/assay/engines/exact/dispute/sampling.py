"""The steps of the sampler: from the head's accumulators to the token that is drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from assay.engines.exact.dispute import norms
from assay.engines.exact.dispute.integers import MOST, clip, round_shift
from assay.engines.exact.dispute.plan import GROUP, Kind, Section
from assay.engines.exact.dispute.reading import Reader
from assay.engines.exact.dispute.shape import ENDS
from assay.engines.exact.parameters import SEGMENT
from assay.engines.exact.reference import LOGIT_FRACTION


def logit(reader: Reader, section: Section, i: int) -> tuple[int, ...]:
    """SEGMENT logits."""
    shift = norms.fraction_of(reader, ENDS, "head") - LOGIT_FRACTION
    accumulators = norms.product(reader, ENDS, "head", i * SEGMENT, i * SEGMENT + section.numbers(i))
    return tuple(clip(round_shift(x, shift), MOST) for x in accumulators)


def likeliest(reader: Reader, section: Section, i: int) -> tuple[int, ...]:
    """The largest logit, and the lowest token that has it, up to GROUP tokens further than the last cell."""
    logits = reader.plan.section("logit", ENDS)
    first = i * GROUP // SEGMENT
    cells = reader.cells(logits, first, min(GROUP // SEGMENT, logits.row - first))
    numbers = [number for cell in cells for number in cell]
    most = max(numbers)
    found = most, i * GROUP + numbers.index(most)
    if i:
        before = reader.cells(section, i - 1)[0]
        found = found if found[0] > before[0] else (before[0], before[1])
    return found


def drawn(reader: Reader) -> int:
    """The token."""
    section = reader.plan.section("likeliest", ENDS)
    return reader.cells(section, section.row - 1)[0][1]


STEPS: Final[dict[Kind, Callable[[Reader, Section, int], tuple[int, ...]]]] = {"logit": logit, "likeliest": likeliest}
"""By kind."""
