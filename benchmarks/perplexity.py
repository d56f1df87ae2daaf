"""Perplexity and agreement of the exact engine beside float64 and llama.cpp, on texts of yours or on those shipped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from benchmarks._quality import text_figures

from assay.apps.figures import Figure, Say
from assay.apps.wiring import find_model

MODEL: Final = "smollm2-135m"


def measure(say: Say, *, files: Sequence[Path] = (), model: str = MODEL) -> Iterable[Figure]:
    """`files`: texts in UTF-8; none: those in `texts/`. `model`: a name or a GGUF file."""
    return text_figures(say, find_model(model).path, files)
