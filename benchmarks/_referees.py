"""What each kind of step takes to be judged by a contract: whole transactions, at SmolLM2."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Final

from benchmarks._dispute import MODEL, answer_of, targets_of
from tests.chain.kit import PEOPLE, Town
from tests.chain.tribunal import Case, side_of, tribunal

from assay.apps.figures import Say
from assay.apps.wiring import find_model
from assay.chain.contracts import REFEREES, TABLES
from assay.chain.game import behind
from assay.chain.referees import table_of
from assay.engines.exact.convert import convert
from assay.engines.exact.dispute.plan import NumberTarget

CELLS: Final = 6
"""Of each section, besides the first and the last."""


def largest(say: Say) -> dict[str, Case]:
    """Of each kind, and of each product, the dearest of some steps of an answer."""
    own = answer_of(convert(find_model(MODEL).path))
    dice = Random(1)
    found: dict[str, tuple[int, Case]] = {}
    for target in targets_of(own.shape, len(own.records) - 1):
        side = side_of(own, target)
        sections = {(section.kind, section.use): section for section in side.plan.sections}
        for (kind, use), section in sections.items():
            name = f"product.{use}" if kind == "product" else kind
            inside = [dice.randrange(section.start, section.stop) for _ in range(CELLS)]
            for index in {section.start, section.stop - 1, *inside}:
                case = side.case(index)
                gas = tribunal().gas(case.step.referee, case.data)
                assert gas is not None, (name, index)
                if gas > found.get(name, (0,))[0]:
                    found[name] = gas, case
        vector = side.plan.place()[1] if isinstance(target, NumberTarget) else "token"
        say(f"referees: steps that lead to a number of {vector!r}")
    return {name: case for name, (_, case) in sorted(found.items())}


def gas_of(town: Town, cases: Mapping[str, Case]) -> dict[str, int]:
    """Of transactions on a chain with the referees on it, by `judge.` and a kind."""
    tables = {name: town.deploy(name).address for name in TABLES}
    at = {}
    for name in REFEREES:
        table = table_of(name)
        at[name] = town.deploy(name, *([tables[table]] if table else [])).address
    sent = {
        name: town.send_data(PEOPLE[1], at[case.step.referee], case.data + behind(case.data))
        for name, case in cases.items()
    }
    return {f"judge.{name}": receipt["gasUsed"] for name, receipt in sent.items()}
