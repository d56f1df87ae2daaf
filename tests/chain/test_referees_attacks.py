"""What a dishonest prover would try on a referee, by name: nothing false is accepted, and nothing takes much gas."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.chain.tribunal import Case, Side, honest, sections, side, side_of, targets, tribunal, variants
from tests.engines.exact.dispute.kit import NONCE, answer
from tests.engines.exact.dispute.test_openings import pretending
from tests.engines.exact.dispute.test_steps import aims

from assay.chain.referees import KINDS, USES, Step, encode_judge
from assay.core.hashing import digest
from assay.engines.exact.dispute.plan import NumberTarget, Plan, TokenTarget
from assay.engines.exact.dispute.response import Response
from assay.engines.exact.dispute.shape import MODEL_BYTES

DICE = st.integers(0, 2**32).map(Random)


def accepts(case: Case, step: Step | None = None) -> bool:
    """Whether a referee accepts a case, called as it says, or otherwise."""
    step = step or case.step
    return tribunal().gas(step.referee, encode_judge(case.terms, case.leaf, step, case.opening)) is not None


@pytest.mark.parametrize("vector", ["input", "keys", "mixed", "feed", "gated", "head input", "token"])
def test_a_cell_of_no_section(vector: str) -> None:
    """Whatever kind, use and layer a cell is said to be of, its own are accepted only. Among these are sections without
    a row, as of a filter that is off, an addition without a bias, or a normalisation that the model does not have."""
    one = answer("llama")
    position = len(one.own.records) - 1
    layer = -1 if vector == "head input" else 1
    target = (
        TokenTarget(position) if vector == "token" else NumberTarget(position, one.shape.vector(layer, vector)[0])  # type: ignore[arg-type]
    )
    found = side("llama", target)
    middle = len(found.plan.sections) // 2
    for section in (found.plan.sections[at] for at in (0, middle, -1)):
        case = found.case(section.start)
        accepted = [
            (kind, layer, use)
            for kind in range(len(KINDS) + 1)
            for use in range(len(USES) + 1)
            for layer in (-1, 0, 1, 2)
            if accepts(case, Step(case.step.referee, kind, layer, use))
        ]
        assert accepted == [case.step[1:]]


@pytest.mark.parametrize("kind", KINDS)
def test_the_cells_of_another_target(kind: str) -> None:
    """Who commits to the cells that lead to some other number, or token, opens none of them in a dispute over this one:
    they would follow, and prove nothing."""
    dice = Random(kind)
    for name in variants(kind):
        found, section = dice.choice(sections(name, kind))
        case = found.case(dice.randrange(section.start, section.stop))
        for target in (each for each in targets(name) if each.position == found.plan.target.position):
            claimed = int(found.own.records[target]) if isinstance(target, NumberTarget) else None
            other = replace(case, plan=Plan(found.plan.shape, target, found.plan.rules), claimed=claimed)
            data = encode_judge(other.terms._replace(count=found.plan.count), case.leaf, case.step, case.opening)
            same = other.plan.count == found.plan.count and other.step == case.step
            assert (tribunal().gas(case.step.referee, data) is not None) == (same and other.holds()), target


def short(prompt: int, output: int) -> Response:
    """A response of so many tokens, whose numbers are those of another one."""
    own = answer("gemma3").own
    records = np.resize(own.records, (prompt + output - 1, own.records.shape[1]))
    tokens = [own.tokens[n % len(own.tokens)] for n in range(prompt + output)]
    return Response(own.model, own.parameters.parameters, tokens, prompt, records, NONCE)


@pytest.mark.parametrize(("prompt", "output"), [(1, 1), (1, 2), (2, 1), (1, 17), (16, 1), (17, 2), (33, 40)])
def test_the_shortest_prompts_and_answers(prompt: int, output: int) -> None:
    """Numbers of every earlier pass open, and tokens do; not as those of the pass beside, nor for a receipt of another
    length."""
    own = short(prompt, output)
    position = prompt + output - 2
    found = side_of(own, NumberTarget(position, own.shape.vector(1, "mixed")[0]))
    section = found.plan.section("value", 1)
    for index in range(section.start, section.stop):
        case = found.case(index)
        assert case.holds()
        assert accepts(case)
    case = found.case(section.start)
    for name in ("prompt_count", "output_count"):
        for change in (-1, 1):
            terms = case.terms._replace(**{name: getattr(case.terms, name) + change})
            data = encode_judge(terms, case.leaf, case.step, case.opening)
            assert found.plan.seen(1)[1] == 1 or tribunal().gas(case.step.referee, data) is None
    for at in {0, prompt - 1, prompt, position} & set(range(position + 1)):
        first = side_of(own, NumberTarget(at, own.shape.vector(0, "input")[0])).case(0)
        assert first.holds()
        assert accepts(first)


@given(st.integers(1, 40), st.integers(1, 40), DICE)
@settings(deadline=None, max_examples=25)
def test_every_length_of_prompt_and_answer(prompt: int, output: int, dice: Random) -> None:
    """The way up from a pass is the same tree's, with and without one digest of it changed."""
    own = short(prompt, output)
    found = side_of(own, NumberTarget(prompt + output - 2, own.shape.vector(0, "mixed")[0]))
    section = found.plan.section("key", 0)
    case = found.case(dice.randrange(section.start, section.stop))
    assert accepts(case)
    at = dice.randrange(len(case.opening))
    flipped = case.opening[:at] + bytes([case.opening[at] ^ 1 << dice.randrange(8)]) + case.opening[at + 1 :]
    case = replace(case, opening=flipped)
    assert not case.holds()
    assert not accepts(case)


@pytest.mark.parametrize("past", [0, 1, 2**32 - 1])
def test_a_token_that_the_model_does_not_have(past: int) -> None:
    """In the prompt, at its row; as an answer, at the draw."""
    one = answer("llama")
    own = one.own
    token = min(one.shape.embedding.rows + past, 2**32 - 1)
    theirs = pretending(one, 1, token)
    honest_one = side_of(own, NumberTarget(1, one.shape.vector(0, "input")[0]))
    case = Side(theirs, honest_one.plan, honest_one.cells, honest_one.levels).case(0)
    assert not case.holds()
    assert not accepts(case)
    drawn = side_of(own, TokenTarget(own.prompt - 1))
    theirs = pretending(one, own.prompt, token)
    last = drawn.plan.count - 1
    cell = drawn.plan.sections[-1].encode([token % 2**31])
    case = Side(theirs, drawn.plan, drawn.cells, drawn.levels).exchanged({last: cell}).case(last)
    assert not case.holds()
    assert not accepts(case)


def test_zeros_at_the_end_of_a_record() -> None:
    """Whoever disputes a number that is none loses if it is 0; the prover does if it is not."""
    one = answer("llama")
    found = side("llama", aims(one.shape, 1)[0])
    case = found.case(0)
    free = next(i for i in range(one.own.records.shape[1]) if one.shape.place(i) is None)
    for claimed in (0, 1, -1):
        terms = case.terms._replace(target=free, claimed=claimed)
        step = Step("Stream", KINDS.index("number"), -1, 0)
        data = encode_judge(terms, case.leaf, step, one.own.parameters.numbers())
        assert (tribunal().gas("Stream", data) is not None) == (claimed == 0)


@pytest.mark.parametrize("vector", ["keys", "mixed", "gated", "feed"])
def test_the_numbers_of_another_layer(vector: str) -> None:
    """Nor roots that change places, or stand for the model's: a layer's numbers are its own, with their own path, and
    the model root is over both roots in their order."""
    one = answer("gemma3")
    paths = one.own.parameters
    place = one.shape.vector(1, vector)[0]  # type: ignore[arg-type]
    found = side("gemma3", NumberTarget(len(one.own.records) - 1, place))
    section = next(section for section in found.plan.sections if section.layer == 1)
    case = found.case(section.start)
    assert accepts(case)
    head, rest = case.opening[: MODEL_BYTES + 64], case.opening[MODEL_BYTES + 64 :]
    own = [one.shape.layers[n].leaf + b"".join(paths.layer(n)) for n in range(2)]
    assert own[0] != own[1]
    assert rest.startswith(own[1])
    rest = rest[len(own[1]) :]
    swapped = head[:MODEL_BYTES] + head[-32:] + head[MODEL_BYTES:-32]
    mixed = one.shape.layers[0].leaf + b"".join(paths.layer(1)), one.shape.layers[1].leaf + b"".join(paths.layer(0))
    for opening in (
        head + own[0] + rest,
        *(head + each + rest for each in mixed),
        head + rest,
        swapped + own[1] + rest,
    ):
        assert not accepts(replace(case, opening=opening))
        assert not accepts(replace(case, opening=opening), case.step._replace(layer=0))
    roots = paths.parameters.roots
    for root in (*roots, paths.parameters.layers[1], digest("assay/exact-parameter/1", head[:MODEL_BYTES])):
        data = encode_judge(case.terms._replace(parameters=root), case.leaf, case.step, case.opening)
        assert tribunal().gas(case.step.referee, data) is None


@given(DICE)
@settings(deadline=None, max_examples=60)
def test_a_model_of_absurd_sizes(dice: Random) -> None:
    """Whoever makes a model chooses its root: numbers without sense, bound to a root, are judged in bounded gas; no
    weights are read under other sizes than they were committed to with."""
    kind = dice.choice(["embedded", "logit", "product", "number", "peak"])
    _, found, index = honest(kind, dice)
    case = found.case(index)
    words = [case.opening[i : i + 32] for i in range(0, MODEL_BYTES, 32)]
    for at in dice.sample(range(1, 22), dice.randrange(1, 4)):
        value = dice.choice([0, 1, 15, 2**16, 2**32, 2**63, 2**255, 2**256 - 1])
        words[at] = value.to_bytes(32, "big")
    leaf = b"".join(words)
    roots = case.opening[MODEL_BYTES : MODEL_BYTES + 64]
    terms = case.terms._replace(parameters=digest("assay/exact-model/1", leaf, roots), index=dice.choice([0, index]))
    rest = bytes(2000) if dice.random() < 0.5 else case.opening[MODEL_BYTES + 64 :]
    data = encode_judge(terms, case.leaf, case.step, leaf + roots + rest)
    same_sizes = leaf[: 7 * 32] == case.opening[: 7 * 32]
    assert tribunal().gas(case.step.referee, data) is None or same_sizes or kind not in ("embedded", "product")
