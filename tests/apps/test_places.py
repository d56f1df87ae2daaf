"""What a case is about, in the words of the model."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.apps.dispute_kit import Small, small
from tests.engines.exact.dispute.kit import VARIANTS

from assay.apps.disputes.places import Number, Places, shape_of
from assay.core.hashing import Digest
from assay.core.request import SamplerSettings
from assay.engines.exact.dispute.plan import NumberTarget, Plan, Rules, TokenTarget
from assay.engines.exact.dispute.shape import Shape
from assay.engines.exact.program import Program


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where model files are."""
    return tmp_path_factory.mktemp("models")


def places(found: Small) -> Places:
    """Of a machine that has converted this model, and no other."""

    def programs(model: Digest) -> Program | None:
        return found.program if model == found.digest else None

    made = Places(programs)
    made.learn(found.digest)
    return made


@pytest.mark.parametrize("name", VARIANTS)
def test_sizes_follow_from_what_was_converted(name: str, models: Path) -> None:
    """Of every kind of model, they are those of the model itself: the weights are not needed."""
    found = small(models, name)
    assert shape_of(found.program) == Shape.of(found.model)


def test_every_cell_has_a_name(models: Path) -> None:
    """Of a number, of a token, at any temperature: the kind, layer and use that its step has."""
    found = small(models, "gemma3")
    shape, here = Shape.of(found.model), places(found)
    index = shape.vector(1, "mixed")[0] + 5
    settings = SamplerSettings(temperature=700_000, top_k=7, top_p=900_000)
    rules = b"".join(n.to_bytes(8, "big") for n in (700_000, 7, 900_000, 0)) + b"\0"
    for entry, plan in (
        (index, Plan(shape, NumberTarget(4, index))),
        (None, Plan(shape, TokenTarget(4), Rules(settings, bytes(32), 1))),
    ):
        for n in range(0, plan.count, 7):
            named = here.operation(found.digest, 4, entry, rules, plan.count, n)
            section, place = plan.at(n)
            assert named is not None
            assert (named.kind, named.layer, named.use, named.place) == (
                section.kind, section.layer, section.use, place,
            )  # fmt: skip
            assert named.place < named.count
    assert here.number(found.digest, index) == Number(1, "mixed", 5, shape.vector(1, "mixed")[1])


def test_what_is_not_known(models: Path) -> None:
    """Another model; a place where nothing stands; more cells than there are; rules that are none."""
    found = small(models, "llama")
    here, rules = places(found), bytes(33)
    assert here.number(bytes(32), 0) is None
    assert here.operation(bytes(32), 0, 0, rules, 18, 0) is None
    assert here.number(found.digest, 10**9) is None
    count = Plan(Shape.of(found.model), NumberTarget(3, 0)).count
    assert here.operation(found.digest, 3, 0, rules, count, count - 1) is not None
    for entry, cells, cell in ((0, count + 1, 0), (0, count, count), (0, count, -1), (10**9, count, 0)):
        assert here.operation(found.digest, 3, entry, rules, cells, cell) is None
    assert here.operation(found.digest, 3, 0, b"", count, 0) is None


def test_a_model_that_comes_later(models: Path) -> None:
    """Is looked for again after a while, and not each time."""
    found, now, looked = small(models, "llama"), [0.0], list[Digest]()
    there: list[Program] = []

    def programs(model: Digest) -> Program | None:
        looked.append(model)
        return there[0] if there else None

    here = Places(programs, clock=lambda: now[0])
    assert not here.knows(found.digest)
    here.learn(found.digest)
    assert here.knows(found.digest)
    assert here.number(found.digest, 0) is None
    now[0] += 61
    assert not here.knows(found.digest)
    there.append(found.program)
    here.learn(found.digest)
    now[0] += 1000
    assert here.knows(found.digest)
    assert here.number(found.digest, 0) is not None
    for n in range(40):
        here.learn(bytes([n]) * 32)
    assert len(here._shapes) + len(here._missing) <= 16
