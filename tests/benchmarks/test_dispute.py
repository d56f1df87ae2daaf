"""The figures of disputes, on a small model."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks._dispute import model_figures
from tests.engines.exact.models import write_model

from assay.engines.exact.convert import convert


@pytest.mark.slow
def test_the_referee_is_right(tmp_path: Path) -> None:
    """No verdict is wrong, and all bars hold, on a model that has every kind of step."""
    model = convert(write_model(tmp_path / "model.gguf", "qwen2", layers=2))
    figures = {figure.name: figure for figure in model_figures(lambda _: None, model, runs=2, receipts=4)}
    assert all(figure.holds is not False for figure in figures.values())
    assert figures["dispute.exchanges"].value == 7
    assert figures["dispute.kinds"].value == 37
    assert {name.rpartition(".")[2]: figure.n for name, figure in figures.items() if "wrong" in name} == {
        "honest": 2 * 37 + 14,
        "bent": 2 * 37,
        "receipts": 4,
        "timeout": figures["dispute.wrong_verdicts.timeout"].n,
    }
