"""What a pass does with accumulators that are given to it: it tests them, or remembers their keys and values."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from tests.engines.exact.models import write_model
from tests.engines.exact.running import Pass, running

from assay.engines.exact.challenge import challenge
from assay.engines.exact.chunks import Chunks, encode_vector
from assay.engines.exact.convert import convert
from assay.engines.exact.kernels.state import PRODUCTS
from assay.engines.exact.program import Program, program_of
from assay.engines.exact.runner import Runner

TOKENS = [5, 9, 100, 101, 7, 280, 30, 12]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """A small Gemma 3, with biases."""
    path = write_model(tmp_path_factory.mktemp("m") / "m.gguf", "gemma3", layers=2, biases=True, window=4)
    return program_of(convert(path))


@pytest.fixture(scope="module")
def passes(program: Program) -> list[Pass]:
    """What it computes, accumulators with the zeros behind each layer's."""
    with running(program) as runner:
        runner.decode(TOKENS, range(8), 0, True)
        return [
            Pass(runner.logits(n).copy(), runner.body(n).copy(), runner.head(n).copy(), runner.record(n).copy())
            for n in range(8)
        ]


def runner_of(program: Program, threads: int = 1) -> Runner:
    """One that tests."""
    return Runner(program, sequences=1, positions=20, batch=16, threads=threads)


def packed(vectors: Iterable[np.ndarray]) -> list[Chunks]:
    """As they travel."""
    return [encode_vector(each) for each in vectors]


def right(program: Program, bodies: list[np.ndarray], heads: dict[int, np.ndarray], threads: int = 1) -> list[bool]:
    """Whether the products of each pass are right."""
    test = challenge(program, bytes(32), batch=16, repetitions=1)
    runner = runner_of(program, threads)
    try:
        return runner.test(
            TOKENS, range(8), packed(bodies), {n: encode_vector(head) for n, head in heads.items()}, test
        )
    finally:
        runner.close()


def test_keys_and_values_from_commitments(program: Program, passes: list[Pass]) -> None:
    """A cache that was filled from what passes committed to goes on as one that was computed."""
    kept = program.layout.kept_chunks * 256
    with running(program) as runner:
        runner.remember(range(5), np.stack([each.record[:kept] for each in passes[:5]]))
        runner.decode(TOKENS[5:], range(5, 8), 0, True)
        for n in range(3):
            assert np.array_equal(runner.record(n), passes[5 + n].record)
            assert np.array_equal(runner.logits(n), passes[5 + n].logits)


@pytest.mark.parametrize("threads", [1, 2])
def test_right_passes_pass(program: Program, passes: list[Pass], threads: int) -> None:
    """Nothing is found; logits and records follow from the accumulators."""
    test = challenge(program, bytes(32), batch=16, repetitions=2)
    heads = {n: encode_vector(passes[n].head) for n in (1, 4, 7)}
    runner = runner_of(program, threads)
    found = runner.test(TOKENS, range(8), packed(each.body for each in passes), heads, test)
    assert found == [True] * 8
    for n, each in enumerate(passes):
        assert np.array_equal(runner.record(n), each.record)
        if n in heads:
            assert np.array_equal(runner.logits(n), each.logits)
    runner.close()


@pytest.mark.parametrize("threads", [1, 2])
def test_every_product_is_tested(program: Program, passes: list[Pass], threads: int) -> None:
    """One accumulator, of any product, that is wrong by any power of two is found, in its pass and no earlier one."""
    plan, dice = program.plan, np.random.default_rng(1)
    heads = {n: each.head for n, each in enumerate(passes)}
    for layer in range(program.shape.layers):
        for kind in range(PRODUCTS):
            token, bit = int(dice.integers(8)), int(dice.integers(62))
            row = int(plan.offsets[kind]) + int(dice.integers(plan.sizes[kind]))
            bodies = [each.body.copy() for each in passes]
            bodies[token].reshape(program.shape.layers, -1)[layer, row] ^= 1 << bit
            assert right(program, bodies, heads, threads)[: token + 1] == [True] * token + [False]
    heads[3] = heads[3].copy()
    heads[3][17] += 1 << 46  # modulo 2^64 this would be missed once in 2^18 times
    assert right(program, [each.body for each in passes], heads, threads) == [True] * 3 + [False] + [True] * 4


def test_what_fills_chunks_up_is_zeros(program: Program, passes: list[Pass]) -> None:
    """Nothing is carried behind the last accumulator of a layer, or of the head."""
    assert program.vocabulary % 256
    heads = {n: each.head for n, each in enumerate(passes)}
    bodies = [each.body.copy() for each in passes]
    bodies[6].reshape(program.shape.layers, -1)[0, program.plan.layer_size :] = 1
    assert right(program, bodies, heads) == [True] * 6 + [False, True]
    heads[5] = np.concatenate([heads[5], np.ones(1, np.int64)])
    assert right(program, bodies, heads) == [True] * 5 + [False, False, True]


def test_absurd_accumulators(program: Program) -> None:
    """Of any size, they are tested without a crash."""
    dice = np.random.default_rng(2)
    for edge in (2**63 - 1, -(2**63), 2**62, 0):
        bodies = [
            np.where(dice.random(program.body) < 0.5, edge, dice.integers(-(2**62), 2**62, program.body))
            for _ in TOKENS
        ]
        heads = {n: np.full(program.vocabulary, edge) for n in range(8)}
        assert not any(right(program, bodies, heads))
