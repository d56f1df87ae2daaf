"""Running commands in tests: inside the test's process, or in one of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from assay.apps.cli.app import run

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-P", "-m", "assay.apps.cli"]


@dataclass
class Said:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        """Standard output as the one JSON object that it has to be."""
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value


Cli = Callable[..., Said]


def in_process(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs commands here."""

    def cli(*args: str) -> Said:
        capsys.readouterr()
        code = run(args)
        said = capsys.readouterr()
        return Said(int(code), said.out, said.err)

    return cli


def environment(**more: str) -> Mapping[str, str]:
    """For commands in processes of their own."""
    kept = {name: value for name, value in os.environ.items() if name == "ASSAY_HOME" or not name.startswith("ASSAY_")}
    return {**kept, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "100", **more}


def in_subprocess(*args: str, stdin: str = "", timeout: float = 120, **more: str) -> Said:
    """Run a command in its own process; `more` are environment variables."""
    done = subprocess.run(
        [*COMMAND, *args], input=stdin, capture_output=True, text=True, timeout=timeout, env=environment(**more)
    )
    return Said(done.returncode, done.stdout, done.stderr)
