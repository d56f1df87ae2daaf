"""`assay models`: the commands over the catalogue and the user's own files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from tests.apps.cli_kit import Cli, in_process

from assay.engines.models import CATALOGUE

GGUF = b"GGUF" + (3).to_bytes(4, "little") + bytes(16)
"""The shortest intact file: no tensors, no metadata."""


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_home: Path) -> Cli:
    """Runs commands in an empty home."""
    return in_process(capsys)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A GGUF file of the user's own."""
    path = tmp_path / "mine.gguf"
    path.write_bytes(GGUF)
    return path


def test_nothing_is_here_yet(cli: Cli) -> None:
    """An empty home lists what can be fetched, and how."""
    assert cli("models", "list", "--json").json == {"installed": [], "available": list(CATALOGUE)}
    assert "assay models pull smollm2-135m" in cli("models", "list").out


def test_add_list_and_rm(cli: Cli, file: Path) -> None:
    """A file of one's own gets a name, is listed with its digest, and is forgotten without being touched."""
    added = cli("models", "add", str(file), "--json")
    assert added.code == 0
    assert added.json == {
        "name": "mine",
        "path": str(file),
        "sha256": hashlib.sha256(GGUF).hexdigest(),
        "size": len(GGUF),
    }
    assert cli("models", "list", "--json").json["installed"] == [added.json]
    assert cli("models", "add", str(file), "--name", "other").code == 0
    assert cli("models", "rm", "mine").code == 0
    assert [model["name"] for model in cli("models", "list", "--json").json["installed"]] == ["other"]
    assert file.read_bytes() == GGUF


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (("models", "rm", "nothing"), "assay models pull"),
        (("models", "pull", "nothing"), "smollm2-135m"),
        (("models", "add", "/nowhere/x.gguf"), "assay models list"),
        (("models", "add", "/dev/null"), ""),
    ],
)
def test_what_cannot_be_done(cli: Cli, words: tuple[str, ...], remedy: str) -> None:
    """Unknown names and files are refused with what to do instead."""
    said = cli(*words)
    assert said.code == 2
    assert remedy in said.err
    assert "Traceback" not in said.err
