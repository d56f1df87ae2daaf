"""Audits: an honest response holds however its trace arrives, and whatever is wrong is refused and named."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.engines.exact.models import write_model

from assay.core.errors import AuditMismatch, EncodingError, ReplayMismatch, TraceMismatch
from assay.core.evidence import evidence_root
from assay.core.request import SamplerSettings
from assay.engines.exact.audit import Examiner, Response, header_of
from assay.engines.exact.convert import convert
from assay.engines.exact.decoder import ExactDecoder
from assay.engines.exact.kernels.sampling import draw
from assay.engines.exact.program import Program, program_of
from assay.engines.exact.runner import Runner
from assay.engines.exact.tracing import HONEST, Alteration, trace

PROMPT = [1, *range(40, 62)]
OUTPUT = 20
SEED = bytes(range(32))


@pytest.fixture(scope="module", params=["llama", "gemma3"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Program:
    """A small model."""
    return program_of(convert(write_model(tmp_path_factory.mktemp("m") / "m.gguf", request.param, tied=True)))


def audit(program: Program, response: Response, blocks: Iterable[bytes], positions: list[int] | None = None) -> int:
    """By somebody who has never audited before."""
    return Examiner(program).audit(response, blocks, positions=positions)


def replay(program: Program, response: Response) -> int:
    """Likewise, without a trace."""
    return Examiner(program).replay(response)


def answered(
    program: Program, *, alter: Alteration = HONEST, seed: bytes = SEED, spoil: int = -1, count: int = OUTPUT
) -> Response:
    """A response as a provider makes it; output token `spoil` is another one than was drawn."""
    runner = Runner(program, sequences=1, positions=len(PROMPT) + OUTPUT, batch=32, threads=1)
    decoder, tokens, leaves = ExactDecoder(runner, sequences=1, alter=alter), [*PROMPT], []
    fed = 0
    while len(leaves) < count:
        part = tokens[fed:]
        decoder.decode(part, range(fed, len(tokens)), 0, [False] * (len(part) - 1) + [True])
        fed = len(tokens)
        row = decoder.logits(len(part) - 1)
        leaves.append(row.leaf(len(leaves)))
        token = draw(row.logits, SamplerSettings(), seed, len(leaves) - 1)
        tokens.append((token + 1) % program.vocabulary if len(leaves) - 1 == spoil else token)
    decoder.close()
    evidence = evidence_root(leaves, SEED)
    return Response(tokens, len(PROMPT), evidence, SEED, SamplerSettings(), SEED)


def traced(
    program: Program, response: Response, *, size: int = 1 << 22, public: bool = False, alter: Alteration = HONEST,
    positions: list[int] | None = None,
) -> Iterator[bytes]:  # fmt: skip
    """Its trace, in blocks of a size."""
    header = header_of(program, response, public=public)
    asked = list(range(response.passes)) if positions is None else positions
    data = b"".join(trace(program, header, response.tokens, asked, alter=alter))
    return (data[i : i + size] for i in range(0, len(data), size))


def flip(position: int, index: int, bit: int) -> Callable[[Program, int, np.ndarray], np.ndarray]:
    """Another bit in one number of one pass."""

    def lie(_program: Program, at: int, honest: np.ndarray) -> np.ndarray:
        changed = honest.copy()
        changed[index] ^= (at == position) << bit
        return changed

    return lie


@pytest.mark.parametrize("public", [False, True], ids=["secret", "public"])
def test_an_honest_response_holds(program: Program, public: bool) -> None:
    """Every pass is checked, in blocks of any size, and computing it again gives the same."""
    response = answered(program)
    for size in (1000, 1 << 16, 1 << 26):
        blocks = traced(program, response, size=size, public=public)
        assert audit(program, response, blocks) == response.passes
    assert replay(program, response) == response.passes


def test_some_positions(program: Program) -> None:
    """Of the others, keys and values are taken from what was committed to."""
    response = answered(program)
    for positions in ([0], [response.passes - 1], [3, 22, 23, 40], list(range(20, 30))):
        for size in (777, 1 << 22):
            blocks = traced(program, response, positions=positions, size=size)
            assert audit(program, response, blocks, positions=positions) == len(positions)


def test_a_lie_in_the_trace_is_named(program: Program) -> None:
    """One bit of one accumulator: position, layer and product, in secret and public traces."""
    response, dice = answered(program), np.random.default_rng(1)
    plan, layers = program.plan, program.shape.layers
    names = ("query", "key", "value", "output", "gate", "up", "down")
    for trial in range(30):
        position, layer = int(dice.integers(response.passes)), int(dice.integers(layers))
        kind, bit = int(dice.integers(7)), int(dice.integers(62))
        row = int(plan.offsets[kind] + dice.integers(plan.sizes[kind]))
        index = layer * (program.body // layers) + row
        blocks = traced(program, response, alter=Alteration(body=flip(position, index, bit)), public=trial % 2 == 0)
        with pytest.raises(AuditMismatch) as caught:
            audit(program, response, blocks)
        assert (caught.value.position, caught.value.layer, caught.value.operation) == (position, layer, names[kind])


def test_what_fills_up_chunks_is_zero(program: Program) -> None:
    """Behind the accumulators of a layer and of the head there is room for what would be nothing."""
    response, size = answered(program, count=3), program.body // program.shape.layers
    assert program.plan.layer_size < size
    for public in (False, True):
        for place, bit in ((program.plan.layer_size, 0), (2 * size - 1, 40)):
            blocks = traced(program, response, alter=Alteration(body=flip(4, place, bit)), public=public)
            with pytest.raises(EncodingError, match="filled up"):
                audit(program, response, blocks)
    assert program.vocabulary % 256
    honest = b"".join(traced(program, response))
    with pytest.raises(EncodingError, match="filled up"):
        audit(program, response, [honest[:-1], b"\1"])


def test_a_lie_in_the_record_is_named(program: Program) -> None:
    """Activations that accumulators do not give, committed to and traced alike."""
    dice = np.random.default_rng(2)
    for _ in range(12):
        position, index = int(dice.integers(len(PROMPT) + OUTPUT - 1)), int(dice.integers(program.layout.chunks * 256))
        layer, vector = program.layout.name(index)
        if vector == "nothing":
            continue
        alter = Alteration(record=flip(position, index, 2))
        response = answered(program, alter=alter)
        with pytest.raises(AuditMismatch) as caught:
            audit(program, response, traced(program, response, alter=alter))
        assert caught.value.position == position
        assert vector in str(caught.value) or caught.value.layer == layer
        with pytest.raises(ReplayMismatch):
            replay(program, response)
        with pytest.raises(TraceMismatch):
            audit(program, response, traced(program, response))


def test_other_draws_are_refused(program: Program) -> None:
    """A token that was not drawn, another seed, other settings."""
    response = answered(program, spoil=7)
    for check in (
        lambda: replay(program, response),
        lambda: audit(program, response, traced(program, response)),
    ):
        with pytest.raises(ReplayMismatch, match="token 7 "):
            check()
    honest = answered(program)
    for other in (
        replace(honest, seed=bytes(32)),
        replace(honest, sampler=SamplerSettings(temperature=0)),
        answered(program, seed=bytes(32)),
    ):
        with pytest.raises(ReplayMismatch, match="model and seed give"):
            audit(program, other, traced(program, other))


def test_what_is_not_the_receipts_is_refused(program: Program) -> None:
    """Other evidence, another nonce, fewer tokens of prompt, another model, an end too early."""
    response = answered(program)
    for other in (replace(response, evidence=bytes(32)), replace(response, nonce=bytes(32))):
        with pytest.raises(TraceMismatch):
            audit(program, other, traced(program, response))
        with pytest.raises(ReplayMismatch):
            replay(program, other)
    with pytest.raises(TraceMismatch):
        audit(program, replace(response, prompt=len(PROMPT) - 1), traced(program, response))
    with pytest.raises(EncodingError, match="too early"):
        audit(program, response, list(traced(program, response, size=5000))[:-1])


def test_another_models_answer_is_refused(program: Program, tmp_path: Path) -> None:
    """The first product of the first pass whose weights differ."""
    other = program_of(convert(write_model(tmp_path / "other.gguf", "llama", tied=True, seed=9)))
    response = answered(other)
    if other.layout == program.layout and other.body == program.body:
        with pytest.raises(AuditMismatch) as caught:
            audit(program, response, traced(other, response))
        assert caught.value.position == 0
    else:
        with pytest.raises(TraceMismatch):
            audit(program, response, traced(other, response))


def test_an_examiner_of_many_responses(program: Program) -> None:
    """Longer and shorter ones, right and wrong ones, with and without traces: none has a say in another's verdict."""
    examiner, honest = Examiner(program), answered(program)
    short = answered(program, count=5)
    bad = Alteration(body=flip(3, 40, 5))
    for _ in range(2):
        assert examiner.audit(short, traced(program, short)) == short.passes
        assert examiner.replay(honest) == honest.passes
        assert examiner.audit(honest, traced(program, honest, positions=[5, 30]), positions=[5, 30]) == 2
        with pytest.raises(AuditMismatch):
            examiner.audit(honest, traced(program, honest, alter=bad))
        with pytest.raises(EncodingError):
            examiner.audit(honest, [b"no trace"])
        assert examiner.audit(short, traced(program, short, public=True)) == short.passes
        assert examiner.replay(short) == short.passes
    examiner.close()
