"""Whether the tests of the contracts would notice a mistake: each contract with one thing changed, and its tests.

A module's mutant is tried in each contract that runs the changed line. `ASSAY_BENCH_SCALE` (1 by default) is the share
of the mutants that is tried, chosen at random. As many are tried at once as this process may use processors, at most 4.
"""

from __future__ import annotations

import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Final

from benchmarks._replay import CONTRACTS, ROOT, answers_alike, environment, note
from vyper.compiler.input_bundle import FilesystemInputBundle
from vyper.compiler.phases import CompilerData
from vyper.exceptions import VyperException, VyperInternalException

from assay.apps.figures import Figure, Say
from assay.chain.contracts import MODULES
from assay.chain.contracts.compile import HERE, compiled

TESTS: Final = {
    "Channels": ("test_channels.py", "test_channels_machine.py"),
    "Collector": ("test_channels.py",),
    "Court": ("test_court.py", "test_court_machine.py"),
    "Game": ("test_game.py", "test_disputes.py"),
    "Params": ("test_params.py",),
    "Token": ("test_channels.py", "test_token.py"),
    "Vault": ("test_vault.py",),
}
"""Of contracts whose tests are run; of the others, calls are repeated, which is quicker."""
USERS: Final = {"opening": (*CONTRACTS, "Game"), "plan": tuple(CONTRACTS), "whole": ("Whole", *CONTRACTS)}
"""Where modules are, the quickest first."""
SOURCES: Final = (*TESTS, *(name for name in CONTRACTS if name != "Whole"), *MODULES)
"""What is changed."""
MOST_PROCESSES: Final = 4
CHANGES: Final = (
    (r" >= ", " > "), (r" <= ", " < "), (r" < ", " <= "), (r" > ", " >= "), (r" == ", " != "), (r" != ", " == "),
    (r" and ", " or "), (r" or ", " and "), (r" \+ ", " - "), (r" - ", " + "), (r" \+= ", " -= "), (r" -= ", " += "),
    (r" & ", " | "), (r" \| ", " & "), (r"\bmin\(", "max("), (r"\bmax\(", "min("), (r" << 128", " << 127"),
    (r" >> 128", " >> 127"), (r" // ", " % "), (r" % ", " // "), (r" \* ", " + "), (r"\b16\b", "17"), (r"\b27\b", "28"),
    (r"msg\.sender", "self"), (r"unsafe_add\(", "unsafe_sub("), (r"unsafe_sub\(", "unsafe_add("),
    (r"unsafe_mul\(", "unsafe_add("), (r" << (?!128)", " >> "), (r" >> (?!128)", " << "),
    *((rf"((?<=[-+*/%<>&] )|(?<=[-+=!<>]= )){n}\b", str(n + 1)) for n in (0, 1, 2, 15, 32, 128, 255, 256, 512, 1024)),
)  # fmt: skip
"""What a mistake may look like: every place of each is tried alone."""
_OUTSIDE: Final = re.compile(r"\s*(#|event|interface|struct|from|\w+: (public\()?constant)")
_WITHOUT: Final = re.compile(
    r"^(assert |self\.[\w\[\]. ]+ [-+]?= |@nonreentrant|log |return$|extcall |(self|opening|plan|whole)\.\w+\(.*\)$)"
)
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
    """A contract or a module with one thing changed."""

    source: str
    line: int
    text: str
    """Of the whole source."""
    change: str
    """For people."""


def mutants(source: str) -> Iterator[Mutant]:
    """All of them, whether they compile or not."""
    lines = (HERE / f"{source}.vy").read_text(encoding="utf-8").splitlines()
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
                yield _with(source, lines, number, changed)
        if _WITHOUT.match(code.strip()) and not code.rstrip().endswith(("(", ",")):
            indent = " " * (len(code) - len(code.lstrip()))
            yield _with(source, lines, number, "" if code.startswith("@") else f"{indent}pass")


def _with(source: str, lines: list[str], number: int, changed: str) -> Mutant:
    text = "\n".join([*lines[:number], changed, *lines[number + 1 :]]) + "\n"
    return Mutant(source, number + 1, text, f"{source}.vy:{number + 1}: {changed.strip() or 'left out'}")


def survives(mutant: Mutant, noted: Path) -> bool | None:
    """Whether all tests pass with it; None: it does not compile, or to what was there before."""
    users = [name for name in USERS.get(mutant.source, ()) if (mutant.source, mutant.line) in reached(name)]
    found = None
    with tempfile.TemporaryDirectory() as name:
        folder = _sources(Path(name))
        (folder / f"{mutant.source}.vy").write_text(mutant.text, encoding="utf-8")
        for contract in users if mutant.source in USERS else (mutant.source,):
            try:
                with redirect_stdout(io.StringIO()):  # the compiler tells of errors there
                    code = compiled(contract, folder)
            except (VyperException, VyperInternalException):
                return None
            if _runs(code) == _runs(original(contract)):
                continue
            if not _passes(contract, code, folder, noted):
                return False
            found = True
    return found


def _sources(folder: Path) -> Path:
    """Those of referees and games, in a folder."""
    for module in MODULES:
        shutil.copy(HERE / f"{module}.vy", folder)
    for contract in {name for names in USERS.values() for name in names}:
        shutil.copy((ROOT / "tests" / "chain" if contract == "Whole" else HERE) / f"{contract}.vy", folder)
    return folder


@cache
def original(contract: str) -> str:
    """What the compiler makes of a contract in which nothing is changed."""
    if contract != "Whole":
        return (HERE / "compiled" / f"{contract}.json").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as name:
        return compiled(contract, _sources(Path(name)))


def _runs(code: str) -> bytes:
    """The code of a compiled contract, without what the compiler writes behind it, as a hash of the source."""
    found = bytes.fromhex(json.loads(code)["code"])
    return found[: -int.from_bytes(found[-2:], "big")]


@cache
def reached(contract: str) -> set[tuple[str, int]]:
    """Sources and numbers of the lines of a contract, and of its modules, that may run."""
    with tempfile.TemporaryDirectory() as name:
        bundle = FilesystemInputBundle([_sources(Path(name))])
        data = CompilerData(bundle.load_file(f"{contract}.vy"), bundle)
        module = data.annotated_vyper_module._metadata["type"]
    entries = [*module.exposed_functions, *([module.init_function] if module.init_function else [])]
    functions = {function for entry in entries for function in (entry, *entry.reachable_internal_functions)}
    return {
        (Path(function.decl_node.module_node.resolved_path).stem, line)
        for function in functions
        for line in range(function.decl_node.lineno, function.decl_node.end_lineno + 1)
    }


def _passes(contract: str, code: str, folder: Path, noted: Path) -> bool:
    """Whether the tests of a contract pass with other code."""
    if contract in CONTRACTS:
        return answers_alike(noted, contract, bytes.fromhex(json.loads(code)["code"]))
    shutil.copytree(HERE / "compiled", folder, dirs_exist_ok=True)
    (folder / f"{contract}.json").write_text(code, encoding="utf-8")
    tests = [str(ROOT / "tests" / "chain" / test) for test in TESTS[contract]]
    command = [sys.executable, "-c", _RUN, str(folder), *tests]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, check=False, timeout=600)
    return done.returncode == 0


def processes() -> int:
    """How many mutants are tried at once."""
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(MOST_PROCESSES, allowed)


def measure(say: Say) -> Iterator[Figure]:
    """Each mutant of each contract and each module."""
    share = float(os.environ.get("ASSAY_BENCH_SCALE", "1"))
    dice = random.Random(1)
    tried, alive = 0, 0
    with tempfile.TemporaryDirectory() as name, ProcessPoolExecutor(processes()) as pool:
        noted = Path(name) / "noted"
        note(noted)
        chosen = {source: [mutant for mutant in mutants(source) if dice.random() < share] for source in SOURCES}
        running = {source: pool.map(partial(survives, noted=noted), some) for source, some in chosen.items()}
        for source, some in chosen.items():
            killed = count = 0
            for mutant, survivor in zip(some, running[source], strict=True):
                if survivor is None:
                    continue
                count += 1
                killed += not survivor
                if survivor:
                    say(f"survives: {mutant.change}")
            say(f"{source}: {killed} of {count} killed")
            yield Figure(f"killed.{source}", 100 * killed / max(count, 1), "%", 90, killed >= 0.9 * count, count)
            tried, alive = tried + count, alive + count - killed
    yield Figure("killed", 100 * (1 - alive / max(tried, 1)), "%", 90, alive <= 0.1 * tried, tried)
