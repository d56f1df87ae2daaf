"""The task: its questions, and that engines are scored alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from benchmarks._float_model import FloatModel, float_logits
from benchmarks._questions import questions
from benchmarks._voices import Voice
from benchmarks.task import Asked, right, right_in_float64
from tests.engines.exact.models import VOCABULARY, write_model


class FloatDecoder:
    """The model in float64 behind the calls of an engine, in units of half a nat."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tokens: list[int] = []
        self._last = np.zeros((0, 0))

    def decode(
        self, tokens: Sequence[int], positions: Sequence[int], seq_ids: Sequence[int] | int, want_logits: object
    ) -> None:
        assert list(positions) == list(range(len(self._tokens), len(self._tokens) + len(tokens)))
        self._tokens += tokens
        self._last = 2 * float_logits(self._path, self._tokens)[-len(tokens) :]

    def logits(self, index: int) -> np.ndarray:
        return self._last[index]

    def forget(self, start: int) -> None:
        del self._tokens[start:]


def test_questions() -> None:
    """Some 300 different ones of five kinds, with 2 or 4 answers that begin as words do; the same ones every time."""
    asked = questions()
    assert asked == questions()
    assert len({question.prompt for question in asked}) == len(asked) >= 300
    assert min(Counter(question.kind for question in asked).values()) >= 30
    for question in asked:
        assert len(set(question.choices)) == len(question.choices) in (2, 4)
        assert all(choice[0] == " " and choice[1] != " " for choice in question.choices)


def test_engines_are_scored_alike(tmp_path: Path) -> None:
    """One question at a time through an engine, or all at once in float64: the same answers are right, whether they
    have one token or several."""
    path = write_model(tmp_path / "model.gguf")
    dice = np.random.default_rng(3)

    def draw(count: int) -> tuple[int, ...]:
        return tuple(int(token) for token in dice.integers(3, VOCABULARY, count))

    lengths = ((1, 1), (1, 2, 1, 1), (3, 3, 3, 2), (2, 1, 4, 1)) * 6
    items = [Asked(draw(2 + n % 5), tuple(map(draw, counts))) for n, counts in enumerate(lengths)]
    decoder = FloatDecoder(path)
    voice = Voice(decoder, 3, 0.5, decoder.forget)
    found = [right(voice, item) for item in items]
    assert found == right_in_float64(FloatModel(path), items)
    assert 0 < sum(found) < len(found)
