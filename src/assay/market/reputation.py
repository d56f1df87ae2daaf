"""What own and others' verdicts say of a provider: everybody who has the same verdicts computes the same, alone.

    weight(v)  WHOLE wei for a verdict whose evidence was checked again here, UNCHECKED of it for one that was not
    praise(p)  WHOLE for each check here that p has passed, and Σ over reporters r of the weights of their good verdicts
               on p, scaled down where all good ones of r together weigh more than r's stake; blame(p) likewise for the
               bad ones
    trust(p)   praise / (praise + BLAME · blame + NEWCOMER): from 0 (nothing is known, or only bad) to 1

What a reporter says never weighs more than its stake, however many verdicts it signs, so that dividing a stake over
many keys wins nothing, and reports without a stake move nothing. Who reports what a check here shows to be wrong, or
two things of one receipt, is not heard at all; nor is anybody on itself. A new key begins at 0: who throws a bad name
away is worth no more than who was never seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal, TypeAlias

from assay.core.hashing import Digest
from assay.core.keys import Address

WHOLE: Final = 10**17
"""Wei of stake that stand behind one verdict which was checked again."""
UNCHECKED: Final = Fraction(1, 10)
"""Of that, for a verdict that was not checked again."""
BLAME: Final = 100
"""What one false answer weighs, in good ones."""
NEWCOMER: Final = 10 * WHOLE
"""Wei: what a provider needs to be half trusted, ten good verdicts that were checked again."""

_NOTHING: Final[Mapping[Address, int]] = {}

Recheck: TypeAlias = Literal["holds", "fails", "not made"]
"""What came of checking a verdict's evidence here: it is as the reporter says; it is not; nobody tried."""


@dataclass(frozen=True, slots=True)
class Report:
    """A verdict of somebody else's on one receipt."""

    reporter: Address
    provider: Address
    receipt: Digest
    good: bool
    """The receipt holds, says the reporter."""
    recheck: Recheck


def trust(
    reports: Iterable[Report], stakes: Mapping[Address, int], passed: Mapping[Address, int] = _NOTHING
) -> Mapping[Address, Fraction]:
    """Of every provider that is reported on, from 0 to 1; others have 0.

    `stakes`: wei that each reporter has at stake, none where it is missing. `passed`: checks here that each provider
    passed. The order of reports decides nothing, and neither does saying one thing twice.
    """
    said: dict[tuple[Address, Address, Digest], set[Report]] = {}
    for report in reports:
        if report.reporter != report.provider:
            said.setdefault((report.reporter, report.provider, report.receipt), set()).add(report)
    liars = {
        reporter
        for (reporter, _, _), found in said.items()
        if len({report.good for report in found}) > 1 or any(report.recheck == "fails" for report in found)
    }
    weights: dict[tuple[Address, bool], dict[Address, Fraction]] = {}
    for (reporter, provider, _), found in said.items():
        if reporter not in liars:
            of = weights.setdefault((reporter, next(iter(found)).good), {})
            of[provider] = of.get(provider, Fraction(0)) + max(map(_weight, found))
    sums = {name: {True: Fraction(WHOLE * count), False: Fraction(0)} for name, count in passed.items() if count}
    for (reporter, good), of in weights.items():
        scale = min(Fraction(1), Fraction(stakes.get(reporter, 0)) / sum(of.values()))
        for provider, weight in of.items():
            sums.setdefault(provider, {True: Fraction(0), False: Fraction(0)})[good] += weight * scale
    return {provider: found[True] / (found[True] + BLAME * found[False] + NEWCOMER) for provider, found in sums.items()}


def _weight(report: Report) -> Fraction:
    return WHOLE * (Fraction(1) if report.recheck == "holds" else UNCHECKED)
