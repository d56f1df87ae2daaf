"""Whether the tests of the contracts would notice a mistake: each contract with one thing changed, and its tests.

`ASSAY_BENCH_SCALE` (1 by default) is the share of the mutants that is tried, chosen at random.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vyper.exceptions import VyperException

from assay.apps.figures import Figure, Say
from assay.chain.contracts import NAMES
from assay.chain.contracts.compile import HERE, compiled

TESTS: Final = {
    "Channels": ("test_channels.py", "test_channels_machine.py"),
    "Collector": ("test_channels.py",),
    "Court": ("test_court.py", "test_court_machine.py"),
    "Params": ("test_params.py",),
    "Token": ("test_channels.py", "test_token.py"),
    "Vault": ("test_vault.py",),
}
CHANGES: Final = (
    (r" >= ", " > "), (r" <= ", " < "), (r" < ", " <= "), (r" > ", " >= "), (r" == ", " != "), (r" != ", " == "),
    (r" and ", " or "), (r" or ", " and "), (r" \+ ", " - "), (r" - ", " + "), (r" \+= ", " -= "), (r" -= ", " += "),
    (r" & ", " | "), (r" \| ", " & "), (r"\bmin\(", "max("), (r" << 128", " << 127"), (r" >> 128", " >> 127"),
    (r" // ", " % "), (r"\b16\b", "17"), (r"\b27\b", "28"), (r"msg\.sender", "self"),
)  # fmt: skip
"""What a mistake may look like: every place of each is tried alone."""
_OUTSIDE: Final = re.compile(r"\s*(#|event|interface|struct|from|\w+: (public\()?constant)")
_WITHOUT: Final = re.compile(r"^(assert |self\.[\w\[\]. ]+ [-+]?= |@nonreentrant|log |return$|extcall )")
"""Statements that are left out, each alone."""
_RUN: Final = """
import sys
from pathlib import Path
import pytest
from assay.chain import contracts
contracts.FOLDER = Path(sys.argv[1])
sys.exit(pytest.main(["-q", "-x", "-m", "not slow", "-p", "no:cacheprovider", *sys.argv[2:]]))
"""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A contract with one thing changed."""

    contract: str
    line: int
    text: str
    """Of the whole source."""
    change: str
    """For people."""


def mutants(contract: str) -> Iterator[Mutant]:
    """All of them, whether they compile or not."""
    lines = (HERE / f"{contract}.vy").read_text(encoding="utf-8").splitlines()
    quoted = False
    for number, line in enumerate(lines):
        marks = line.count('"""')
        code = line.split("  #")[0]
        skip = quoted or marks or not code.strip() or _OUTSIDE.match(code)
        quoted ^= marks == 1
        if skip:
            continue
        for pattern, other in CHANGES:
            for found in re.finditer(pattern, code):
                changed = code[: found.start()] + other + code[found.end() :]
                yield _with(contract, lines, number, changed)
        if _WITHOUT.match(code.strip()) and not code.rstrip().endswith(("(", ",")):
            indent = " " * (len(code) - len(code.lstrip()))
            yield _with(contract, lines, number, "" if code.startswith("@") else f"{indent}pass")


def _with(contract: str, lines: list[str], number: int, changed: str) -> Mutant:
    text = "\n".join([*lines[:number], changed, *lines[number + 1 :]]) + "\n"
    return Mutant(contract, number + 1, text, f"{contract}.vy:{number + 1}: {changed.strip() or 'left out'}")


def survives(mutant: Mutant) -> bool | None:
    """Whether all tests pass with it; None: it is no contract, or the same one."""
    root = HERE.parents[3]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / f"{mutant.contract}.vy").write_text(mutant.text, encoding="utf-8")
        try:
            code = compiled(mutant.contract, folder)
        except VyperException:
            return None
        if code == (HERE / "compiled" / f"{mutant.contract}.json").read_text(encoding="utf-8"):
            return None
        for other in NAMES:
            honest = (HERE / "compiled" / f"{other}.json").read_text(encoding="utf-8")
            text = code if other == mutant.contract else honest
            (folder / f"{other}.json").write_text(text, encoding="utf-8")
        tests = [str(root / "tests" / "chain" / test) for test in TESTS[mutant.contract]]
        environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}
        command = [sys.executable, "-c", _RUN, name, *tests]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, check=False, timeout=600)
        return done.returncode == 0


def measure(say: Say) -> Iterator[Figure]:
    """Each mutant of each contract."""
    share = float(os.environ.get("ASSAY_BENCH_SCALE", "1"))
    dice = random.Random(1)
    tried, alive = 0, 0
    for contract in NAMES:
        killed = count = 0
        for mutant in mutants(contract):
            if dice.random() >= share or (survivor := survives(mutant)) is None:
                continue
            count += 1
            killed += not survivor
            if survivor:
                say(f"survives: {mutant.change}")
        say(f"{contract}: {killed} of {count} killed")
        yield Figure(f"killed.{contract}", 100 * killed / max(count, 1), "%", 90, killed >= 0.9 * count, count)
        tried, alive = tried + count, alive + count - killed
    yield Figure("killed", 100 * (1 - alive / max(tried, 1)), "%", 90, alive <= 0.1 * tried, tried)
