"""A small task, scored by the exact engine, by llama.cpp and in float64: which answer is the most probable one?

The questions of `_questions.py` have 2 or 4 answers. A model's answer is the one whose tokens have the highest
probability after the question.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from benchmarks._float_model import FloatModel
from benchmarks._questions import Question, questions
from benchmarks._voices import Voice, begin, exact_voice, llama_voice, log_probability

from assay.apps.figures import Figure, Say
from assay.apps.wiring import find_model
from assay.engines.llama_model import LlamaModel

MODEL: Final = "smollm2-135m"
DIFFERENCE: Final = 1.0
"""Bar, in percentage points: how far the exact engine's score may be from that of llama.cpp."""


def measure(say: Say, *, model: str = MODEL) -> Iterable[Figure]:
    """`model`: a name or a GGUF file."""
    return task_figures(say, find_model(model).path)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question in tokens."""

    prompt: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...]
    """The right one first."""


def task_figures(say: Say, path: Path) -> Iterable[Figure]:
    """Percent of the questions to which the right answer is the most probable one.

    Raises:
        ModelFileError: the exact engine does not know the model's architecture or format.
    """
    asked = questions()
    with LlamaModel(path) as model:
        items = [_asked(question, model) for question in asked]
        positions = max(len(item.prompt) + max(map(len, item.choices)) for item in items)
        say(f"exact: {len(items)} questions, {sum(len(item.prompt) for item in items)} tokens")
        with exact_voice(path, positions) as voice:
            exact = [right(voice, item) for item in items]
        say("llama.cpp")
        with llama_voice(model, positions) as voice:
            theirs = [right(voice, item) for item in items]
    say("float64")
    floats = right_in_float64(FloatModel(path), items)
    n = len(items)
    for kind in dict.fromkeys(question.kind for question in asked):
        of_kind = [found for found, question in zip(exact, asked, strict=True) if question.kind == kind]
        yield Figure(f"{kind}.exact", _percent(of_kind), "%", None, None, len(of_kind))
    for engine, found in (("exact", exact), ("float64", floats), ("llama_cpp", theirs)):
        yield Figure(f"score_{engine}", _percent(found), "%", None, None, n)
    yield Figure("chance", 100 * sum(1 / len(item.choices) for item in items) / n, "%", None, None, n)
    off = _percent(exact) - _percent(theirs)
    yield Figure("exact_over_llama_cpp", off, "points", DIFFERENCE, abs(off) <= DIFFERENCE, n)


def right(voice: Voice, item: Asked) -> bool:
    """Whether the right choice is the most probable one."""
    (first,) = voice.after(item.prompt, last=True)
    sums: list[float] = []
    for choice in item.choices:
        rows = [first, *voice.after(choice[:-1], len(item.prompt))]
        sums.append(sum(log_probability(row, token) for row, token in zip(rows, choice, strict=True)))
    return sums[0] > max(sums[1:])


def right_in_float64(model: FloatModel, items: Sequence[Asked]) -> list[bool]:
    """`right` for all questions at once, so that the weights are decoded once."""
    starts: dict[tuple[int, ...], int] = {}
    total = 0
    for sequence in dict.fromkeys(item.prompt + choice[:-1] for item in items for choice in item.choices):
        starts[sequence] = total
        total += len(sequence)
    sums = [[0.0] * len(item.choices) for item in items]
    wanted: list[int] = []
    meant: list[tuple[int, int, int]] = []
    for number, item in enumerate(items):
        for place, choice in enumerate(item.choices):
            after = starts[item.prompt + choice[:-1]] + len(item.prompt) - 1
            for step, token in enumerate(choice):
                wanted.append(after + step)
                meant.append((number, place, token))
    rows = (row for rows in model.logits(list(starts), np.array(wanted)) for row in rows)
    for row, (number, place, token) in zip(rows, meant, strict=True):
        sums[number][place] += log_probability(row, token)
    return [found[0] > max(found[1:]) for found in sums]


def _asked(question: Question, model: LlamaModel) -> Asked:
    encode = model.tokenizer.encode
    return Asked(
        begin(model) + encode(question.prompt, special=False),
        tuple(encode(choice, special=False) for choice in question.choices),
    )


def _percent(found: Sequence[bool]) -> float:
    return 100 * sum(found) / len(found)
