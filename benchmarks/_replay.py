"""Asks contracts what the tests of the referees ask, and compares the answers.

The tests have to make models, answers and openings first, which takes a minute; asking again takes seconds.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Final

from tests.chain.tribunal import Bench

from assay.chain.contracts import REFEREES, TABLES
from assay.chain.contracts.compile import HERE
from assay.chain.referees import table_of

ROOT: Final = HERE.parents[3]
CONTRACTS: Final = {
    **{name: {name: table_of(name)} for name in REFEREES},
    "Whole": {f"Whole.{name}": name for name in TABLES},
}
"""Those that are asked: under which names tests deploy them, with which table. `Whole` is the tests' own."""
TESTS: Final = ("test_referees.py", "test_referees_attacks.py", "test_whole.py")


def environment() -> dict[str, str]:
    """Of processes that run tests."""
    return {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}


def note(path: Path) -> None:
    """Run the tests, and write down in a file what they ask.

    Raises:
        CalledProcessError: one of them fails.
    """
    tests = [str(ROOT / "tests" / "chain" / test) for test in TESTS]
    command = [sys.executable, "-m", "benchmarks._notes", str(path), *tests]
    subprocess.run(command, cwd=ROOT, env=environment(), check=True, stdout=subprocess.DEVNULL)


@cache
def noted(path: Path) -> dict[str, list[tuple[bytes, bytes, bytes | None]]]:
    """See `_notes.Notes.write`."""
    return pickle.loads(path.read_bytes())


def answers_alike(path: Path, contract: str, code: bytes) -> bool:
    """Whether a contract with other code answers as was noted."""
    bench = Bench()
    try:
        for name, table in CONTRACTS[contract].items():
            bench.deploy(name, code, table)
            for head, rest, answer in noted(path)[name]:
                found = bench.call(name, head + rest)
                if (found and found[0]) != answer:
                    return False
    except RuntimeError:  # it halts, or fits no chain
        return False
    return True
