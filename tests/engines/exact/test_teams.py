"""Threads that share a pass: what they compute does not depend on how many they are, nor on who wants logits."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from tests.engines.exact.models import VOCABULARY, write_model

from assay.engines.exact.convert import convert
from assay.engines.exact.program import program_of
from assay.engines.exact.runner import Runner


@pytest.mark.parametrize("threads", [2, 3])
def test_logits_of_some_tokens(tmp_path: Path, threads: int) -> None:
    """Logits of a pass's last token are those that one thread computes, though another thread adds up its stream than
    normalises it."""
    program = program_of(convert(write_model(tmp_path / "model.gguf", layers=1, width=512, feed=64)))
    dice = np.random.default_rng(4)
    prompts = [dice.integers(3, VOCABULARY, 2 + n % 5).tolist() for n in range(400)]

    def run(threads: int) -> np.ndarray:
        with closing(Runner(program, sequences=1, positions=16, batch=8, threads=threads)) as runner:
            found = []
            for prompt in prompts:
                last = len(prompt) - 1
                runner.decode(prompt, range(len(prompt)), 0, [n == last for n in range(len(prompt))])
                found.append(runner.logits(last).copy())
        return np.array(found)

    differ = (run(threads) != run(1)).any(axis=1)
    assert np.flatnonzero(differ).tolist() == []
