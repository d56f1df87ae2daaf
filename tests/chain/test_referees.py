"""Referees on the chain say of every opening what the one in Python says, and cannot be fooled by what only they see.

Two things differ, on purpose. Contracts do not mind what stands behind an opening: it is followed by zeros anyway. And
they revert where a number leaves 256 bits: only a model whose own numbers are absurd gets there.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.chain.tribunal import Case, forged, honest, side, targets, tribunal, vector_of
from tests.engines.exact.dispute.kit import VARIANTS, answer

from assay.chain.contracts import REFEREES
from assay.chain.referees import KINDS, USES, Step, Terms, encode_judge
from assay.engines.exact.dispute.plan import Kind, NumberTarget, TokenTarget
from assay.engines.exact.dispute.shape import NORMS, PRODUCTS
from assay.engines.exact.dispute.steps import STEPS

DICE = st.integers(0, 2**32).map(Random)
kinds = pytest.mark.parametrize("kind", KINDS)


def accepts(case: Case, **terms: object) -> bool:
    """Whether the referee of a case accepts it, under other terms perhaps."""
    data = encode_judge(case.terms._replace(**terms), case.leaf, case.step, case.opening)  # type: ignore[arg-type]
    return tribunal().gas(case.step.referee, data) is not None


def test_kinds_and_uses_are_the_plans() -> None:
    """In its order; every kind is judged."""
    assert get_args(Kind) == KINDS
    assert set(STEPS) == set(KINDS)
    assert ("", *PRODUCTS, "head", *NORMS, "norm") == USES
    judged = {case.step.referee for kind in KINDS for case in [some(kind)]}
    assert judged == set(REFEREES)


def some(kind: str, seed: int = 1) -> Case:
    """An honest case."""
    _, found, index = honest(kind, Random(seed))
    return found.case(index)


def broken(opening: bytes, dice: Random) -> bytes:
    """With a bit flipped, an end cut off, or parts exchanged, left out or doubled."""
    at = dice.randrange(len(opening))
    start, stop = sorted([at, dice.randrange(len(opening))])
    return dice.choice(
        [
            opening[:at] + bytes([opening[at] ^ 1 << dice.randrange(8)]) + opening[at + 1 :],
            opening[: -dice.choice([1, 32, dice.randrange(1, len(opening) + 1)])],
            opening[start:stop] + opening[:start] + opening[stop:],
            opening[:start] + opening[stop:],
            opening[:stop] + opening[start:],
            bytes(len(opening)),
        ]
    )


def agree(kind: str, dice: Random, count: int) -> tuple[int, int]:
    """Compare the verdicts on so many honest and so many other openings. How many of the latter hold, and do not."""
    held = 0
    for _ in range(count):
        _, found, index = honest(kind, dice)
        case = found.case(index)
        assert case.holds()
        assert tribunal().accepts(case), case
        if dice.random() < 0.25:
            opening = broken(case.opening, dice)
            accepted = tribunal().accepts(replace(case, opening=opening))
            case = replace(case, opening=opening.ljust(len(case.opening), b"\0")[: len(case.opening)])
        else:
            case = forged(kind, dice)
            accepted = tribunal().accepts(case)
        holds = case.holds()
        assert accepted == holds, case
        held += holds
    return held, count - held


@kinds
def test_verdicts_are_those_of_the_referee_in_python(kind: str) -> None:
    """Of honest openings, of broken ones, and of such as are bound to what is committed to and absurd."""
    held, failed = agree(kind, Random(kind), 20)
    assert held
    assert failed


@pytest.mark.slow
@kinds
def test_a_thousand_verdicts(kind: str) -> None:
    """On 1,000 honest and 1,000 dishonest openings of each kind."""
    held, failed = agree(kind, Random(f"{kind} long"), 1000)
    assert held > 100
    assert failed > 100


@pytest.mark.parametrize("name", VARIANTS)
def test_every_section_of_every_variant(name: str) -> None:
    """First and last cell of it."""
    for target in targets(name):
        found = side(name, target)
        for section in found.plan.sections:
            for index in {section.start, section.stop - 1}:
                assert tribunal().accepts(found.case(index)), (section, index)


@pytest.mark.parametrize(("name", "vector"), [("drawn", ""), ("long", "mixed"), ("wide", "head input")])
def test_every_cell_that_is_no_product(name: str, vector: str) -> None:
    """Of one target: each floor that is tried for a draw, each block of positions, each part of a wide row."""
    found = [side(name, target) for target in targets(name) if target.position == len(answer(name).own.records) - 1]
    chosen = next(each for each in found if vector == vector_of(each.plan))
    for section in chosen.plan.sections:
        for index in range(section.start, section.stop if section.kind != "product" else section.start):
            assert tribunal().accepts(chosen.case(index)), (section, index)


@kinds
@given(DICE)
@settings(deadline=None, max_examples=5)
def test_nothing_else_is_judged(kind: str, dice: Random) -> None:
    """An honest opening holds under its own terms only: not as another cell, kind, layer or use, nor of other sizes."""
    _, found, index = honest(kind, dice)
    case = found.case(index)
    assert accepts(case)
    for name in Terms._fields:
        value = getattr(case.terms, name)
        if isinstance(value, bytes):
            others: list[object] = [bytes([value[0] ^ 1]) + value[1:]]
        elif isinstance(value, bool):
            others = [not value]
        else:
            others = [value + 1, value - 1 if value else 2**64, 2 * value + 7]
        for other in others:
            same = name == "index" and found.levels[0][int(other) : int(other) + 1] == [case.leaf]  # type: ignore[call-overload]
            if name in matters(case) and not same:
                assert not accepts(case, **{name: other}), name
    step = case.step
    for wrong in wrong_steps(step):
        assert tribunal().gas(wrong.referee, encode_judge(case.terms, case.leaf, wrong, case.opening)) is None, wrong
    beside = found.case(index - 1 if index else 1)
    if beside.leaf != case.leaf:
        assert not accepts(replace(case, leaf=beside.leaf))
        assert not accepts(replace(case, opening=beside.opening))
        assert not accepts(replace(beside, opening=case.opening))


def matters(case: Case) -> set[str]:
    """Terms without which a step's verdict may be the same: what it does not read."""
    names = {"parameters", "kept_count", "inputs_count", "count", "index"}
    if isinstance(case.plan.target, NumberTarget):
        names |= {"token"}
    if case.section.kind == "number":
        names |= {"output", "output_count"} if isinstance(case.plan.target, TokenTarget) else {"claimed"}
    return names


def wrong_steps(step: Step) -> list[Step]:
    """Other referees, kinds, layers and uses."""
    return [
        *(step._replace(referee=name) for name in REFEREES if name != step.referee),
        *(step._replace(kind=kind) for kind in range(len(KINDS) + 2) if kind != step.kind),
        *(step._replace(layer=layer) for layer in (-(2**255), -2, -1, 0, 1, 2, 2**255 - 1) if layer != step.layer),
        *(step._replace(use=use) for use in (*range(len(USES) + 5), 2**256 - 1, 2**248) if use != step.use),
    ]
