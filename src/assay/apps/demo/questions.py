"""The questions that the demonstration asks (`questions.json`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from assay.core.errors import ConfigError
from assay.core.request import LEVELS, Level


@dataclass(frozen=True, slots=True)
class Question:
    """One question and how it should be answered."""

    text: str
    language: str
    level: Level
    temperature: float
    top_p: float
    max_tokens: int


def load_questions(path: Path | None = None) -> Sequence[Question]:
    """The questions of a file, or those that come with the package.

    Raises:
        ConfigError: the file is not a list of questions.
    """
    try:
        text = (path or files("assay.apps.demo").joinpath("questions.json")).read_text(encoding="utf-8")
        found = tuple(Question(**item) for item in json.loads(text))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"the questions cannot be read ({error})", "write a list like questions.json") from error
    if not found or any(question.level not in LEVELS for question in found):
        raise ConfigError("the questions are empty, or one has an unknown level", f"levels are {', '.join(LEVELS)}")
    return found
