"""Every cell follows from those before it by its step, and they lead to the numbers that the engine commits to."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engines.exact.dispute.kit import VARIANTS, answer

from assay.core.request import SamplerSettings
from assay.engines.exact.dispute.catalogue import Catalogue
from assay.engines.exact.dispute.plan import NumberTarget, Plan, Rules, Target, TokenTarget
from assay.engines.exact.dispute.response import OwnReader, expand
from assay.engines.exact.dispute.shape import ENDS, VECTORS, Shape, Vector
from assay.engines.exact.dispute.sides import drawn
from assay.engines.exact.dispute.steps import STEPS, step
from assay.engines.exact.record import CHUNK
from assay.engines.exact.sampling import draw

variants = pytest.mark.parametrize("name", VARIANTS)


def vectors(shape: Shape) -> list[tuple[int, Vector]]:
    """All of a record."""
    inner = [(layer, name) for layer in range(len(shape.layers)) for name in VECTORS[:-1]]
    return [*inner, (ENDS, "head input")]


@variants
def test_cells_lead_to_the_record(name: str) -> None:
    """In each vector of the engine's own record: the first number, the last, fraction bits, some between."""
    own = answer(name).own
    position = len(own.records) - 1
    for layer, vector in vectors(own.shape):
        start, size = own.shape.vector(layer, vector)
        heads = own.shape.kv_heads
        for at in {0, size // 3, size - heads - 1, size - heads, size - 2, size - 1}:
            plan = Plan(own.shape, NumberTarget(position, start + at), own.rules)
            assert plan.place() == (layer, vector, at)
            number = plan.sections[-1].decode(expand(plan, own)[-1])
            assert number == (own.records[position, start + at],), (layer, vector, at)


@variants
def test_all_numbers_of_the_record(name: str) -> None:
    """Whole vectors as the cells have them are the engine's."""
    own = answer(name).own
    record = own.records[-1].tolist()
    for layer, vector in vectors(own.shape):
        if vector in ("keys", "values"):
            continue
        start, size = own.shape.vector(layer, vector)
        plan = Plan(own.shape, NumberTarget(len(own.records) - 1, start))
        cells = expand(plan, own)
        section = plan.sections[-2]
        numbers = [x for cell in cells[section.start : section.stop] for x in section.decode(cell)]
        assert numbers == record[start : start + size - 1]


@given(st.integers(0, 2**32).map(Random))
@settings(deadline=None, max_examples=25)
def test_draws_are_the_samplers(dice: Random) -> None:
    """At every temperature, with every filter or none."""
    one = answer("drawn").own
    position = dice.randrange(one.prompt - 1, len(one.records))
    rules = Rules(
        SamplerSettings(
            temperature=dice.choice([0, 1, 10**5, 10**6, 10**7, 2**53 - 1]),
            top_k=dice.choice([0, 1, 40, 1025, 2299, 2300, 5000]),
            top_p=dice.choice([0, 1, 500_000, 950_000, 999_999, 1_000_000]),
            min_p=dice.choice([0, 1, 50_000, 900_000, 1_000_000]),
        ),
        dice.randbytes(32),
        one.prompt,
    )
    plan = Plan(one.shape, TokenTarget(position), rules)
    cells = expand(plan, one)
    found = plan.section("logit", ENDS)
    logits = np.array([x for cell in cells[found.start : found.stop] for x in found.decode(cell)])
    expected = draw(logits, rules.settings, rules.seed, position + 1 - one.prompt)
    assert plan.sections[-1].decode(cells[-1]) == (expected,)


@variants
def test_cells_lead_to_the_token(name: str) -> None:
    """Behind each pass of the answer."""
    own = answer(name).own
    for position in range(own.prompt - 1, len(own.records)):
        assert drawn(own, position) == own.tokens[position + 1]


def aims(shape: Shape, position: int) -> list[Target]:
    """Targets that together have cells of every kind."""
    ends = [(len(shape.layers) - 1, name) for name in VECTORS[:-1]]
    return [*(NumberTarget(position, shape.vector(*end)[0]) for end in ends), TokenTarget(position)]


@variants
def test_steps_read_only_what_is_before(name: str) -> None:
    """Every cell, products among them, is its step over earlier cells and earlier numbers of the record."""
    own = answer(name).own
    for target in aims(own.shape, len(own.records) - 1):
        plan = Plan(own.shape, target, own.rules)
        cells = expand(plan, own)
        known: list[bytes] = []
        reader = Ranked(plan, own, known)
        for index in range(plan.count):
            section, i = plan.at(index)
            assert section.start <= index < section.stop
            assert len(cells[index]) == section.numbers(i) * section.width
            if section.kind != "product" or i % 37 == 0:
                assert section.decode(cells[index]) == step(reader, index), section
            known.append(cells[index])


class Ranked(OwnReader):
    """Refuses numbers of the disputed pass that are computed after the target."""

    def numbers(self, layer: int, name: Vector, start: int, stop: int, position: int | None = None) -> list[int]:
        """Checked."""
        plan, shape = self.plan, self.plan.shape
        assert position is None or position <= plan.target.position
        if isinstance(plan.target, NumberTarget) and position in (None, plan.target.position):
            first = shape.vector(layer, name)[0]
            mine = shape.rank(plan.target.index)
            assert shape.rank(first + start)[:2] < mine[:2]
            assert shape.rank(first + stop - 1)[:2] < mine[:2]
        return super().numbers(layer, name, start, stop, position)


@variants
def test_the_shape_is_the_models(name: str) -> None:
    """Under the model root; and leaves stand where the catalogue has them."""
    own = answer(name).own
    parameters, catalogue = own.parameters.parameters, Catalogue(own.shape)
    assert catalogue.count == len(parameters.digests)
    for (layer, tensor), placed in catalogue.tables.items():
        where = f"{layer}.{tensor}" if layer != ENDS else tensor
        section = parameters.sections.get(where, parameters.sections["head"])
        assert (placed.start, placed.parts) == (section.start, section.per_row)
        assert len(own.parameters.leaf((layer, tensor), placed.rows - 1, placed.parts - 1)) == placed.size


def test_ranks() -> None:
    """Each number has a place, but for zeros at the end; ranks rise within both parts of a record."""
    shape = answer("qwen3").shape
    kept = shape.layout.kept_chunks * CHUNK
    for part in (range(kept), range(kept, shape.layout.chunks * CHUNK)):
        ranks = [shape.rank(index) for index in part]
        assert ranks == sorted(ranks)
    assert shape.place(shape.layout.chunks * CHUNK - 1) is None


def test_all_kinds_are_tried() -> None:
    """The variants have cells of every kind."""
    kinds = set()
    for name in VARIANTS:
        shape, rules = answer(name).shape, answer(name).rules
        kinds |= {section.kind for target in aims(shape, 5) for section in Plan(shape, target, rules).sections}
    assert kinds == set(STEPS)
