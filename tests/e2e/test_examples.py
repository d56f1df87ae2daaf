"""The examples of the pages, run as a reader would run them: each `sh` block line by line, on a machine of its own with
the ports that the pages name, and each `python` block against a node."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.e2e.kit import Place, first_line
from tests.test_docs import PAGES, ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.model, pytest.mark.slow]

STAYING = {"devnet", "directory", "gateway", "relay", "serve", "up", "validate"}
"""Commands that answer until they are stopped: a reader gives each a terminal of its own."""


def blocks(language: str) -> list[object]:
    """The fenced blocks of that language on all pages, as parameters."""
    return [
        pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")
        for page in PAGES
        for number, block in enumerate(re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.M | re.S))
    ]


@pytest.fixture
def place(tmp_path: Path, model_path: Path) -> Place:
    """A machine that `make setup` was run on."""
    models = tmp_path / "home" / "models"
    models.mkdir(parents=True)
    (models / model_path.name).symlink_to(model_path)
    return Place(tmp_path)


@contextmanager
def staying(place: Place, name: str, words: Sequence[str], **environment: str) -> Iterator[None]:
    """A command in a terminal of its own, from when it says where it answers."""
    with place.running(name, *words, wait=False, data=place.root / "home" / "data", **environment) as program:
        assert b"answers at http" in first_line(program)
        yield
        assert "Traceback" not in program.log, program.log


def run(place: Place, lines: list[str]) -> None:
    """All of them, in order; what stays is stopped at the end."""
    with ExitStack() as stack:
        for number, line in enumerate(lines):
            words = shlex.split(line, comments=True)
            given = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
            command, *words = words[len(given) :]
            assert Path(command).name == "assay", line
            if words[0] in STAYING:
                stack.enter_context(staying(place, f"{number}-{words[0]}", words, **given))
            else:
                done = place.assay(*words, timeout=240, **given)
                assert done.returncode == 0, (line, done.stdout, done.stderr)
                assert done.stdout.strip(), line


@pytest.mark.parametrize("block", blocks("sh"))
def test_commands(place: Place, block: str) -> None:
    """Every line does what it is there for: it ends well and says something, or answers."""
    run(place, block.splitlines())


@pytest.mark.parametrize("block", blocks("python"))
def test_programs(place: Place, block: str) -> None:
    """Every program ends well against a node, and prints what its last lines say."""
    with staying(place, "up", ["up"]):
        done = subprocess.run(
            [sys.executable, "-c", block], capture_output=True, text=True, timeout=120, check=False, cwd=place.root
        )
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) >= block.count("print("), done.stdout


def test_there_are_examples() -> None:
    """The patterns above find something."""
    assert len(blocks("sh")) >= 5
    assert blocks("python")
