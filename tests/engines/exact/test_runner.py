"""The runner computes what the reference computes: every variant, batch, thread and neighbour."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from tests.engines.exact.models import VOCABULARY, write_model
from tests.engines.exact.running import assert_same, body_of, check_equal, kernel_passes, reference_passes, running
from tests.engines.exact.test_reference import VARIANTS

from assay.core.errors import EngineError
from assay.engines.exact.convert import convert
from assay.engines.exact.kernels import simd
from assay.engines.exact.program import Program, program_of
from assay.engines.exact.reference import Model

MORE: dict[str, dict[str, Any]] = {
    "llama-no-groups": {"heads": 2, "kv_heads": 2, "head_width": 48, "layers": 1, "kind": Kind.Q8_0},
    "llama-k": {"width": 256, "feed": 256, "head_width": 64, "layers": 1, "kind": Kind.Q4_0, "head_kind": Kind.F32},
    "qwen3-bf16": {"architecture": "qwen3", "kind": Kind.BF16, "layers": 2, "biases": True},
    "gemma3-factors": {"architecture": "gemma3", "layers": 7, "factors": True, "window": 1},
}
TOKENS = [int(token) for token in np.random.default_rng(2).integers(0, VOCABULARY, 40)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A Gemma 3 with a window of 8 in all layers but one: the variant with most to go wrong."""
    return convert(write_model(tmp_path_factory.mktemp("m") / "m.gguf", "gemma3", layers=7, head_width=32, biases=True))


@pytest.fixture(scope="module")
def program(model: Model) -> Program:
    """It, laid out."""
    return program_of(model)


@pytest.mark.parametrize("variant", [*VARIANTS, *MORE])
def test_every_variant(tmp_path: Path, variant: str) -> None:
    """Every accumulator and logit, with two threads and batches of 16, 16 and 8."""
    model = convert(write_model(tmp_path / "m.gguf", **(VARIANTS | MORE)[variant]))
    check_equal(model, TOKENS, threads=2)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_split(model: Model, program: Program, threads: int) -> None:
    """How a sequence is cut into batches, and how many threads compute them, changes nothing."""
    expected = reference_passes(model, TOKENS)
    for splits in ([1], [2, 1, 3, 16], [5], [16], [13, 1]):
        with running(program, threads=threads) as runner:
            assert_same(kernel_passes(runner, TOKENS, splits), expected)


def test_sequences_side_by_side(model: Model, program: Program) -> None:
    """Four sequences in one batch, each at its own position, are what each is alone."""
    texts = [TOKENS[n : n + 10 + 3 * n] for n in range(4)]
    expected = [reference_passes(model, text) for text in texts]
    with running(program, sequences=4, batch=8, threads=2) as runner:
        for sequence, text in enumerate(texts):  # the first tokens of each alone, the others together
            kernel_passes(runner, text[: 4 + sequence], [16], sequence)
        for step in range(6):
            seqs = [0, 1, 2, 3]
            at = [4 + sequence + step for sequence in seqs]
            runner.decode([texts[s][p] for s, p in zip(seqs, at, strict=True)], at, seqs, [True, False, True, True])
            for index, (s, p) in enumerate(zip(seqs, at, strict=True)):
                assert np.array_equal(body_of(runner, index), expected[s][p].body)
                assert np.array_equal(runner.record(index), expected[s][p].record)
                if s != 1:
                    assert np.array_equal(runner.logits(index), expected[s][p].logits)
                    assert np.array_equal(runner.head(index), expected[s][p].head)


def test_only_the_last_logits(model: Model, program: Program) -> None:
    """Logits of one token of a batch are right, whichever thread had the token."""
    expected = reference_passes(model, TOKENS[:16])
    with running(program, threads=2) as runner:
        for last in range(2, 17):
            for _ in range(20):  # a race is not lost every time
                runner.decode(TOKENS[:last], range(last), 0, [False] * (last - 1) + [True])
                assert np.array_equal(runner.logits(last - 1), expected[last - 1].logits)


def test_far_positions(tmp_path: Path) -> None:
    """Beyond 256 positions sums are taken in parts; the cache's last position is like any other."""
    model = convert(
        write_model(
            tmp_path / "m.gguf", "gemma3", layers=1, heads=1, kv_heads=1, head_width=32, window=300, width=32, feed=32
        )
    )
    tokens = [TOKENS[n % 40] for n in range(337)]
    expected = reference_passes(model, tokens)
    with running(model, positions=337, threads=2) as runner:
        assert_same(kernel_passes(runner, tokens, [16]), expected)


def test_positions_that_come_again(model: Model, program: Program) -> None:
    """What was behind a position that is overwritten does not matter."""
    with running(program) as runner:
        kernel_passes(runner, list(reversed(TOKENS)), [16])
        assert_same(kernel_passes(runner, TOKENS, [7]), reference_passes(model, TOKENS))


def test_what_a_runner_refuses(program: Program) -> None:
    """Batches too large or empty, tokens, positions and sequences that there are not; afterwards it goes on."""
    with running(program, sequences=2, positions=20, batch=4) as runner:
        for tokens, positions, sequence in (
            ([], [], 0),
            ([1] * 5, range(5), 0),
            ([VOCABULARY], [0], 0),
            ([-1], [0], 0),
            ([1], [20], 0),
            ([1], [-1], 0),
            ([1], [0], 2),
            ([1, 1], [0, 0], [0, -1]),
        ):
            with pytest.raises(EngineError):
                runner.decode(tokens, positions, sequence, True)
        runner.decode([1], [19], 1, True)


@pytest.fixture(scope="module")
def digests(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder of models, and the digest of what each computes here."""
    folder = tmp_path_factory.mktemp("cpus")
    made: dict[str, str] = {}
    for name in ("llama", "llama-f16", "gemma3"):
        made[name] = digest_of(write_model(folder / name, **VARIANTS[name]))
    return folder, made


def digest_of(path: Path) -> str:
    """Of all accumulators and logits of a sequence."""
    state = hashlib.sha256()
    with running(convert(path), threads=2) as runner:
        for item in kernel_passes(runner, TOKENS, [3, 16]):
            for part in item:
                state.update(part.astype("<i8").tobytes())
    return state.hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("features", ["", "+avx2"])
def test_other_processors(digests: tuple[Path, dict[str, str]], features: str) -> None:
    """Code for processors without the instructions of this one computes the same."""
    if features and simd.FLAVOUR != "dot512":
        pytest.skip("this processor may not run that code")
    folder, expected = digests
    script = (
        "import json, sys; from pathlib import Path; from tests.engines.exact.test_runner import digest_of;"
        "print(json.dumps({p.name: digest_of(p) for p in sorted(Path(sys.argv[1]).iterdir())}))"
    )
    root = Path(__file__).parents[3]
    environment = {**os.environ, "NUMBA_CPU_NAME": "generic", "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}
    environment["NUMBA_CPU_FEATURES"] = features
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == expected
