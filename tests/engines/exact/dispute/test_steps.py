"""Every cell follows from those before it by its step, and they lead to the reference's numbers."""

from __future__ import annotations

from itertools import chain

import pytest
from tests.engines.exact.dispute.kit import VARIANTS, response

from assay.engines.exact.dispute.plan import FractionTarget, Plan, RowTarget, TokenTarget
from assay.engines.exact.dispute.record import OwnReader, expand, run_pass
from assay.engines.exact.dispute.shape import PRODUCTS
from assay.engines.exact.dispute.steps import STEPS, step
from assay.engines.exact.reference import Cache, forward

variants = pytest.mark.parametrize("name", VARIANTS)


@variants
def test_passes_are_the_references(name: str) -> None:
    """The recorded passes have the logits, keys and values of `reference.forward`."""
    own = response(name).record
    model, cache = own.parameters.model, Cache.of(own.parameters.model)
    for token, one in zip(own.tokens[:-1], own.passes, strict=True):
        logits = forward(model, token, cache)
        assert one.head is None or (one.logits() == logits).all()
    for mine, theirs in ((own.cache.keys, cache.keys), (own.cache.values, cache.values)):
        for (a, f), (b, g) in zip(chain(*mine), chain(*theirs), strict=True):
            assert (a == b).all()
            assert (f == g).all()


@variants
def test_cells_lead_to_the_accumulators(name: str) -> None:
    """In each product the first, the last and some row between; the head; each fraction; the logits."""
    own = response(name).record
    position = len(own.passes) - 1
    one = own.passes[position]
    for layer, shape in enumerate(own.shape.layers):
        for product in PRODUCTS:
            rows, start = shape.product(product).rows, own.shape.offset(layer, product)
            for row in {0, rows // 3, rows - 1}:
                plan = Plan(own.shape, RowTarget(position, False, start + row))
                assert plan.sections[-1].decode(expand(plan, own)[-1]) == (one.body[start + row],)
        plan = Plan(own.shape, FractionTarget(position - 1, layer))
        assert plan.sections[-1].decode(expand(plan, own)[-1]) == (own.passes[position - 1].fractions[layer],)
    assert one.head is not None
    plan = Plan(own.shape, RowTarget(position, True, 7))
    assert plan.sections[-1].decode(expand(plan, own)[-1]) == (one.head[7],)
    plan = Plan(own.shape, TokenTarget(position, 9))
    assert plan.sections[-1].decode(expand(plan, own)[-1]) == (one.logits()[own.tokens[-1]], one.logits()[9])


@variants
def test_steps_read_only_what_is_before(name: str) -> None:
    """Every cell, keys and values of earlier positions among them, is its step over earlier cells."""
    own = response(name).record
    plan = Plan(own.shape, RowTarget(len(own.passes) - 1, True, 0))
    cells = expand(plan, own)
    known: list[bytes] = []
    reader = OwnReader(plan, own, known)
    for index in range(plan.count):
        section, i = plan.at(index)
        assert section.start <= index < section.stop
        assert len(cells[index]) == section.numbers(i) * section.width
        assert section.decode(cells[index]) == step(reader, index), section
        known.append(cells[index])


def test_known_accumulators_are_not_multiplied_again() -> None:
    """A pass over given accumulators is the same pass."""
    own = response("gemma3").record
    cache = Cache.of(own.parameters.model)
    for token, one in zip(own.tokens[:-1], own.passes, strict=True):
        again = run_pass(own.parameters.model, token, cache, head=one.head is not None, known=one.body)
        assert (again.body == one.body).all()
        assert again.fractions == one.fractions


def test_all_kinds_are_tried() -> None:
    """The variants have cells of every kind."""
    kinds = set()
    for name in VARIANTS:
        shape, position = response(name).shape, len(response(name).record.passes) - 1
        for target in (RowTarget(position, True, 0), FractionTarget(1, 0), TokenTarget(position, 1)):
            kinds |= {section.kind for section in Plan(shape, target).sections}
    assert kinds == set(STEPS)
