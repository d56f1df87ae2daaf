"""What was delivered is on the disk before anybody sees it, and found again when the process is dead."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.running import ROOT
from tests.tiny import PROFILE, TinyReader, tiny_key, tiny_request

from assay.core.completion import Step
from assay.core.errors import EncodingError, StoreError
from assay.core.evidence import LEAF_SIZES
from assay.core.offer import Price
from assay.core.request import LEVELS, Level
from assay.store.parts import Begun, PartStore


def begun(level: Level = "pinned") -> Begun:
    """Of a tiny request, paid from some channel."""
    request = tiny_request("Ça va ?", level=level)
    prompt = TinyReader().render(request)
    return Begun(request, bytes([7] * 32), PROFILE, prompt, Price(3, 2**70), bytes([8] * 32), tiny_key().address, 99)


def step(index: int, level: Level = "pinned") -> Step:
    """A token with evidence."""
    return Step(index, 1000 + index, "x", bytes([index]) * LEAF_SIZES[level])


@pytest.mark.parametrize("level", LEVELS)
def test_what_a_dead_process_left(tmp_path: Path, level: Level) -> None:
    """All that a receipt needs comes back, to the token; the answer has failed."""
    store, other = PartStore(tmp_path / "parts"), PartStore(tmp_path / "parts")
    part = store.begin(begun(level).encode(), level)
    for index in range(5):
        part.add(step(index, level))
    assert list(other.left_over()) == []  # it lives
    store._stack.close()  # as the system does when it dies
    (left,) = other.left_over()
    assert left.begun == begun(level)
    assert left.completion.prompt == begun().prompt
    assert left.completion.tokens == (1000, 1001, 1002, 1003, 1004)
    assert left.completion.leaves == (() if level == "signed" else tuple(step(i, level).leaf for i in range(5)))
    assert left.completion.stop == "failed"
    assert [each.completion for each in other.left_over()] == [left.completion]  # until it is signed
    left.path.unlink()
    assert list(other.left_over()) == []
    other.close()
    assert list((tmp_path / "parts").iterdir()) == []


def test_an_answer_with_a_receipt_leaves_nothing(tmp_path: Path) -> None:
    """Its file goes, and at the end the folder."""
    store = PartStore(tmp_path / "parts")
    part = store.begin(begun().encode(), "pinned")
    part.add(step(0))
    part.end()
    store.close()
    assert list((tmp_path / "parts").iterdir()) == []


def test_cut_and_damaged_files(tmp_path: Path) -> None:
    """A token that was half written was not handed over. What is no file of ours stays, and harms nobody."""
    store = PartStore(tmp_path)
    for name in ("cut", "damaged"):
        part = store.begin(begun().encode(), "pinned")
        part.add(step(0))
        part.add(step(1))
        part._path.rename(part._path.with_name(name))
    store.close()
    (folder,) = tmp_path.iterdir()
    cut, damaged = folder / "cut", folder / "damaged"
    cut.write_bytes(cut.read_bytes()[:-1])
    damaged.write_bytes(damaged.read_bytes()[1:])
    (folder / "stranger").write_bytes(b"\xff" * 100)
    (left,) = PartStore(tmp_path).left_over()
    assert left.completion.tokens == (1000,)
    left.path.unlink()
    assert sorted(path.name for path in folder.iterdir()) == ["damaged", "stranger"]
    assert list(PartStore(tmp_path).left_over()) == []


def test_one_spelling() -> None:
    """The line comes back, and no other one is read."""
    line = begun().encode()
    assert Begun.decode(line) == begun()
    assert replace(begun(), began=100).encode() != line
    for other in (b"{}", line[:-2], line.replace(b'"began":99', b'"began":"99"'), line.replace(b'"price"', b'"prize"')):
        with pytest.raises(EncodingError):
            Begun.decode(other)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """It is said, with what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="ASSAY_HOME"):
        PartStore(tmp_path / "file" / "parts")


_KILLED = """
import os, signal, sys
from pathlib import Path
from tests.store.test_parts import begun, step
from assay.store.parts import PartStore
part = PartStore(Path(sys.argv[1])).begin(begun().encode(), "pinned")
for index in range(100):
    part.add(step(index))
    print(index, flush=True)
    if index == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("last", [0, 3])
def test_kill_9(tmp_path: Path, last: int) -> None:
    """All that the dead process has shown is there."""
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(tmp_path), str(last)],
        env={"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -9
    (left,) = PartStore(tmp_path).left_over()
    assert [token - 1000 for token in left.completion.tokens] == [int(line) for line in done.stdout.split()]
