"""What a pass does with accumulators that are given to it: it tests them, or remembers their keys and values."""

from __future__ import annotations

import numpy as np
import pytest
from tests.engines.exact.models import write_model
from tests.engines.exact.running import Pass, assert_same, kernel_passes, running

from assay.engines.exact.challenge import challenge
from assay.engines.exact.convert import convert
from assay.engines.exact.kernels.layers import FRACTION, PRODUCTS
from assay.engines.exact.program import Program, program_of

TOKENS = [5, 9, 100, 101, 7, 280, 30, 12]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """A small Gemma 3, with biases."""
    path = write_model(tmp_path_factory.mktemp("m") / "m.gguf", "gemma3", layers=2, biases=True, window=4)
    return program_of(convert(path))


@pytest.fixture(scope="module")
def passes(program: Program) -> list[Pass]:
    """What it computes."""
    with running(program) as runner:
        return kernel_passes(runner, TOKENS, [16])


def test_keys_and_values_from_commitments(program: Program, passes: list[Pass]) -> None:
    """A cache that was filled from what passes committed to goes on as one that was computed."""
    with running(program) as runner:
        runner.remember(range(5), [each.body for each in passes[:5]])
        runner.decode(TOKENS[5:], range(5, 8), 0, True)
        found = [Pass(runner.logits(n), runner.body(n), runner.head(n)) for n in range(3)]
        assert_same(found, passes[5:])


@pytest.mark.parametrize("threads", [1, 2])
def test_right_passes_pass(program: Program, passes: list[Pass], threads: int) -> None:
    """Nothing is found, and logits follow from the head's accumulators."""
    test = challenge(program, bytes(32), batch=16)
    with running(program, threads=threads) as runner:
        bodies, heads = [each.body for each in passes], {n: passes[n].head for n in (1, 4, 7)}
        assert runner.test(TOKENS, range(8), bodies, heads, test).tolist() == [-1] * 8
        for n in heads:
            assert np.array_equal(runner.logits(n), passes[n].logits)


@pytest.mark.parametrize("threads", [1, 2])
def test_every_product_is_tested(program: Program, passes: list[Pass], threads: int) -> None:
    """One accumulator, of any product, that is wrong by any power of two is found, and named first."""
    test = challenge(program, bytes(32), batch=16)
    plan, dice = program.plan, np.random.default_rng(1)
    with running(program, threads=threads) as runner:
        for layer in range(program.shape.layers):
            for kind in range(PRODUCTS + 1):
                token, bit = int(dice.integers(8)), int(dice.integers(62))
                size = 1 if kind == FRACTION else int(plan.sizes[kind])
                at = layer * plan.layer_size + int(plan.offsets[kind]) + int(dice.integers(size))
                bodies = [each.body.copy() for each in passes]
                bodies[token][at] ^= 1 << bit
                heads = {n: each.head for n, each in enumerate(passes)}
                found = runner.test(TOKENS, range(8), bodies, heads, test)
                assert found[token] == (PRODUCTS + 1) * layer + kind
                assert (found[:token] == -1).all()
        heads = {n: each.head.copy() for n, each in enumerate(passes)}
        heads[3][17] += 1 << 46  # modulo 2^64 this would be missed once in 2^18 times
        found = runner.test(TOKENS, range(8), [each.body for each in passes], heads, test)
        assert found.tolist() == [-1] * 3 + [(PRODUCTS + 1) * program.shape.layers] + [-1] * 4


def test_absurd_commitments(program: Program) -> None:
    """Accumulators of any size are tested or remembered without a crash."""
    test = challenge(program, bytes(32), batch=16)
    dice = np.random.default_rng(2)
    size, vocabulary = program.layout.body, program.vocabulary
    for edge in (2**63 - 1, -(2**63), 2**62, 0):
        bodies = [np.where(dice.random(size) < 0.5, edge, dice.integers(-(2**62), 2**62, size)) for _ in TOKENS]
        heads = {n: np.full(vocabulary, edge) for n in range(8)}
        with running(program) as runner:
            assert (runner.test(TOKENS, range(8), bodies, heads, test) >= 0).all()
            runner.remember(range(8), bodies)
            runner.decode([1], [8], 0, True)
