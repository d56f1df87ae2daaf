"""Perplexity and agreement: what is counted, which texts are taken, and that the exact engine keeps its bars."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
from benchmarks._quality import (
    FEW_TOKENS,
    MOST_BYTES,
    MOST_TOKENS,
    Reading,
    compared,
    read,
    read_file,
    shipped,
    text_figures,
    tokens_of,
)
from tests.engines.exact.models import write_model

from assay.core.errors import InvalidRequest
from assay.engines.llama_model import LlamaModel


def hush(_line: str) -> None:
    """Shows nothing."""


def test_a_reading() -> None:
    """A row of logits is compared with the token that follows; after the last token nothing does."""
    rows = [np.array([0.0, math.log(3), 0.0]), np.array([1000.0, 0.0, 0.0]), np.array([9.0, 9.0, 9.0])]
    reading = read(rows, [2, 1, 0])
    assert np.allclose(reading.losses, [-math.log(3 / 5), 0.0])
    assert reading.choices.tolist() == [1, 0]
    assert reading.perplexity == pytest.approx(math.sqrt(5 / 3))


def test_a_model_that_knows_nothing() -> None:
    """The perplexity of equal logits is the number of tokens; impossible ones stay finite."""
    assert read([np.zeros(50)] * 4, [1, 2, 3, 4]).perplexity == pytest.approx(50)
    assert math.isfinite(read([np.array([0.0, 1e6])] * 2, [0, 0]).perplexity)


def reading(loss: float, wrong: int = 0) -> Reading:
    """200 predictions, of which some are not the float64 model's."""
    return Reading(np.full(200, loss), np.arange(200) + (np.arange(200) < wrong))


@pytest.mark.parametrize(
    ("exact", "misses"),
    [
        (reading(2.0049, 6), set()),
        (reading(1.9949, 6), {"difference_exact"}),
        (reading(2.0051, 6), {"difference_exact"}),
        (reading(2.0, 7), {"agreement_exact"}),
        (reading(2.0, 11), {"agreement_exact", "agreement_exact_over_llama_cpp"}),
    ],
)
def test_bars(exact: Reading, misses: set[str]) -> None:
    """Half a percent of perplexity on either side, 97 % of agreement, and no less than llama.cpp's."""
    figures = list(compared("text", exact, reading(2.02, 10), reading(2.0)))
    assert {figure.name for figure in figures if figure.holds is False} == {f"text.{name}" for name in misses}
    assert {figure.n for figure in figures} == {200}
    found = {figure.name: figure.value for figure in figures}
    assert found["text.agreement_llama_cpp"] == 95
    assert found["text.difference_llama_cpp"] == pytest.approx(100 * math.expm1(0.02))


def test_files_that_are_no_texts(tmp_path: Path) -> None:
    """Missing files, folders, pipes, binary files and files with NUL bytes are refused by name."""
    (tmp_path / "binary").write_bytes(b"abc\xff\xfe")
    (tmp_path / "zeros").write_bytes(bytes(100))
    os.mkfifo(tmp_path / "pipe")
    for name, message in {
        "missing": "is not a file", ".": "is not a file", "pipe": "is not a file", "a" * 300: "cannot be read",
        "binary": "byte 3", "zeros": "NUL bytes", "a\0b": "a",
    }.items():  # fmt: skip
        with pytest.raises(InvalidRequest, match=message):
            read_file(tmp_path / name, hush)


def test_a_huge_file(tmp_path: Path) -> None:
    """Only its beginning is read, up to a whole character, and that is said."""
    said: list[str] = []
    path = tmp_path / "huge"
    for start in ("", "a", "ab"):
        path.write_text(start + "€" * MOST_BYTES)
        text = read_file(path, said.append)
        assert len(text.encode()) in range(MOST_BYTES - 3, MOST_BYTES + 1)
        assert text == start + "€" * (len(text) - len(start))
    assert said == ["huge: only its first 64 KiB are read"] * 3


def test_length_of_a_text(tmp_path: Path) -> None:
    """Long texts are cut at what the model was trained on, 2,000 tokens at most; short ones are remarked on, empty ones
    refused."""
    said: list[str] = []
    with LlamaModel(write_model(tmp_path / "model.gguf")) as model:
        assert model.n_ctx_train == 512
        long = tokens_of("long", "abc" * MOST_TOKENS, model, said.append)
        assert (len(long.tokens), "only the first 512 of its" in said[0]) == (512, True)
        short = tokens_of("short", "a cab", model, said.append)
        assert (short.tokens[0], "few" in said[1]) == (model.tokenizer.bos(), True)
        with pytest.raises(InvalidRequest, match="nothing has no text"):
            tokens_of("nothing", "", model, said.append)


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_figures_of_small_models(tmp_path: Path, architecture: str) -> None:
    """On a text of a user's, a small random model in whole numbers is nearer to float64 than llama.cpp is."""
    path = write_model(tmp_path / "model.gguf", architecture, layers=2)
    (tmp_path / "mine.md").write_text("she had a cab and a bag, he had a bed. " * 6)
    figures = {figure.name: figure for figure in text_figures(hush, path, [tmp_path / "mine.md"])}
    assert abs(figures["mine.difference_exact"].value) < abs(figures["mine.difference_llama_cpp"].value)
    assert all(figure.holds is not False for figure in figures.values())
    assert figures["mine.perplexity_float64"].n >= 200


def test_files_of_one_name(tmp_path: Path) -> None:
    """They are told apart by their paths."""
    path = write_model(tmp_path / "model.gguf", layers=1)
    files = [tmp_path / "a.txt", tmp_path / "a.md"]
    for file in files:
        file.write_text("a bed, a cab, a bag")
    names = {figure.name.rpartition(".")[0] for figure in text_figures(hush, path, files)}
    assert names == {str(file) for file in files}


@pytest.mark.model
def test_texts_that_come_with_the_repository(model_path: Path) -> None:
    """At least six, of 250 tokens or more, one of them of 1,000."""
    with LlamaModel(model_path, vocab_only=True) as model:
        counts = {file.stem: len(model.tokenizer.encode(read_file(file, hush), special=False)) for file in shipped()}
    assert {"prose", "code", "french", "arabic", "dialogue", "long"} <= counts.keys()
    assert min(counts.values()) >= FEW_TOKENS
    assert counts["long"] >= 1000


@pytest.mark.slow
@pytest.mark.model
def test_the_real_model(model_path: Path) -> None:
    """Every bar holds on a page of prose: half a percent of perplexity, 97 % of agreement, llama.cpp's agreement."""
    figures = list(text_figures(hush, model_path, [file for file in shipped() if file.stem == "prose"]))
    assert len([figure for figure in figures if figure.holds]) == 3
    assert [figure for figure in figures if figure.holds is False] == []
