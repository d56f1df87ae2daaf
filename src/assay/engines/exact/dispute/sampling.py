"""The steps of the sampler: from the head's accumulators to the token that is drawn, see `exact/sampling.py`.

Candidates are ordered by their *key*, which is larger for a larger logit and, among equals, for a lower token. So what
a filter keeps are the keys from a *floor* on. Floors are found bit by bit: how many tokens (`top_k`), or how much
weight (`top_p`), have keys from there on is counted with the next bit set, and the bit stays if that is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from assay.core.encoding import MICRO
from assay.core.errors import EncodingError
from assay.core.sampler import position_key
from assay.engines.exact.dispute import norms
from assay.engines.exact.dispute.draws import hash32, noise, weight
from assay.engines.exact.dispute.integers import MOST, clip, round_shift
from assay.engines.exact.dispute.plan import FEW, GROUP, Kind, Plan, Section
from assay.engines.exact.dispute.reading import Reader
from assay.engines.exact.dispute.shape import ENDS
from assay.engines.exact.parameters import SEGMENT
from assay.engines.exact.reference import LOGIT_FRACTION
from assay.engines.exact.sampling import MASS_BITS, enough, rate

_NOBODY: Final = -(1 << 62)
"""The score where no token is left."""


def logit(reader: Reader, section: Section, i: int) -> tuple[int, ...]:
    """SEGMENT logits."""
    shift = norms.fraction_of(reader, ENDS, "head") - LOGIT_FRACTION
    accumulators = norms.product(reader, ENDS, "head", i * SEGMENT, i * SEGMENT + section.numbers(i))
    return tuple(clip(round_shift(x, shift), MOST) for x in accumulators)


def likeliest(reader: Reader, section: Section, i: int) -> tuple[int, ...]:
    """The largest logit, and the lowest token that has it, up to GROUP tokens further than the last cell."""
    numbers = _group(reader, "logit", i)
    most = max(numbers)
    found = most, i * GROUP + numbers.index(most)
    if i == 0:
        return found
    logit, token = reader.cells(section, i - 1)[0]
    return found if found[0] > logit else (logit, token)


def deficit(reader: Reader, _: Section, i: int) -> tuple[int, ...]:
    """By how many octaves SEGMENT tokens are less probable than the likeliest.

    Raises:
        EncodingError: a logit is over the largest one.
    """
    peak = _last(reader, "likeliest")[0]
    multiplier, shift = rate(reader.plan.rules.settings.temperature)
    logits = reader.cells(reader.plan.section("logit", ENDS), i)[0]
    if max(logits) > peak:
        raise EncodingError("a logit is out of range")
    return tuple((peak - x) * multiplier >> shift for x in logits)


def count(reader: Reader, section: Section, i: int) -> tuple[int, ...]:
    """A key, and how many tokens up to GROUP (k + 1) have that one or a larger."""
    group = i % section.row
    floor, before = _tried(reader, section, i, reader.plan.rules.settings.top_k)
    keys = _keys(reader.plan, _group(reader, "logit", group), group * GROUP)
    return floor, before + sum(key >= floor for key in keys)


def share(reader: Reader, _: Section, i: int) -> tuple[int, ...]:
    """The weights of SEGMENT tokens, 0 of those that `top_k` leaves out."""
    plan = reader.plan
    deficits = reader.cells(plan.section("deficit", ENDS), i)[0]
    if not plan.filters.top_k:
        return tuple(map(weight, deficits))
    floor = _floor(reader, "count", plan.rules.settings.top_k)
    keys = _keys(plan, reader.cells(plan.section("logit", ENDS), i)[0], i * SEGMENT)
    return tuple(weight(x) if key >= floor else 0 for key, x in zip(keys, deficits, strict=True))


def total(reader: Reader, section: Section, i: int) -> tuple[int, ...]:
    """The sum of the weights, so far."""
    return (norms.before(reader, section, i) + sum(_group(reader, "share", i)),)


def mass(reader: Reader, section: Section, i: int) -> tuple[int, ...]:
    """A key, and the weight of the tokens up to FEW (k + 1) that have that one or a larger."""
    group = i % section.row
    floor, before = _tried(reader, section, i, _needed(reader))
    keys = _keys(reader.plan, _group(reader, "logit", group, FEW), group * FEW)
    shares = _group(reader, "share", group, FEW)
    return floor, before + sum(x for key, x in zip(keys, shares, strict=True) if key >= floor)


def race(reader: Reader, section: Section, i: int) -> tuple[int, ...]:
    """The largest score, and the lowest token that has it, up to SEGMENT tokens further than the last cell."""
    plan, settings = reader.plan, reader.plan.rules.settings
    best, token = reader.cells(section, i - 1)[0] if i else (_NOBODY, 0)
    floor = 0
    if plan.filters.top_p:
        floor = _floor(reader, "mass", _needed(reader))
    elif plan.filters.top_k:
        floor = _floor(reader, "count", settings.top_k)
    first = _last(reader, "likeliest")[1]
    logits = reader.cells(plan.section("logit", ENDS), i)[0] if floor else ()
    keys = _keys(plan, logits, i * SEGMENT)
    key = position_key(plan.rules.seed, plan.target.position + 1 - plan.rules.prompt)
    for n, x in enumerate(reader.cells(plan.section("deficit", ENDS), i)[0]):
        each = i * SEGMENT + n
        if floor and keys[n] < floor:
            continue
        if settings.min_p and each != first and weight(x) * MICRO < settings.min_p << MASS_BITS:
            continue
        score = noise(hash32(key, each)) - x
        if score > best:
            best, token = score, each
    return best, token


def drawn(reader: Reader) -> int:
    """The token."""
    return _last(reader, "race" if reader.plan.rules.settings.temperature else "likeliest")[1]


def _last(reader: Reader, kind: Kind) -> tuple[int, ...]:
    section = reader.plan.section(kind, ENDS)
    return reader.cells(section, section.stop - section.start - 1)[0]


def _group(reader: Reader, kind: Kind, group: int, tokens: int = GROUP) -> list[int]:
    """So many numbers of cells of SEGMENT."""
    section, size = reader.plan.section(kind, ENDS), tokens // SEGMENT
    cells = reader.cells(section, group * size, min(size, section.row - group * size))
    return [number for cell in cells for number in cell]


def _keys(plan: Plan, logits: Sequence[int], first: int) -> list[int]:
    """Those of tokens from `first` on: logits over the smallest one, then what is left of the vocabulary."""
    bits = plan.key_bits - 32
    last = (1 << bits) - 1 - first
    return [(x + MOST << bits) + last - n for n, x in enumerate(logits)]


def _tried(reader: Reader, section: Section, i: int, least: int) -> tuple[int, int]:
    """The floor that is tried in a row of cells, and what was counted before."""
    bit, group = divmod(i, section.row)
    if group:
        floor, before = reader.cells(section, i - 1)[0]
        return floor, before
    top = 1 << reader.plan.key_bits - 1
    return (_settled(reader, section, bit, least) if bit else 0) + (top >> bit), 0


def _settled(reader: Reader, section: Section, bits: int, least: int) -> int:
    """The floor's upper `bits` bits."""
    floor, counted = reader.cells(section, bits * section.row - 1)[0]
    return floor if counted >= least else floor - (1 << reader.plan.key_bits - bits)


def _floor(reader: Reader, kind: Kind, least: int) -> int:
    return _settled(reader, reader.plan.section(kind, ENDS), reader.plan.key_bits, least)


def _needed(reader: Reader) -> int:
    """The weight that `top_p` asks for, at least that of one token."""
    return max(1, enough(_last(reader, "total")[0], reader.plan.rules.settings.top_p))


STEPS: Final[dict[Kind, Callable[[Reader, Section, int], tuple[int, ...]]]] = {
    "logit": logit,
    "likeliest": likeliest,
    "deficit": deficit,
    "count": count,
    "share": share,
    "total": total,
    "mass": mass,
    "race": race,
}
"""By kind."""
