"""Compiled code that is kept on disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[4] / "src"
CALL = """
from assay.engines.exact.kernels.sampling import _weight
from assay.engines.exact.tables import exp2_table
_weight(5, exp2_table())
print(sum(_weight.stats.cache_hits.values()), sum(_weight.stats.cache_misses.values()))
"""


@pytest.mark.slow
def test_another_checkout_compiles_nothing(tmp_path: Path) -> None:
    """What was compiled from the same sources serves, wherever they lie and however new they are; others are
    compiled."""

    def hits_and_misses(name: str, *, changed: bool = False) -> str:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(SRC, tmp_path / name, copy_function=shutil.copyfile, ignore=ignore)
        if changed:
            with (tmp_path / name / "assay/engines/exact/kernels/emit.py").open("a") as file:
                file.write("# changed\n")
        kept = {"XDG_CACHE_HOME": str(tmp_path / "kept"), "PYTHONPATH": str(tmp_path / name)}
        done = subprocess.run(
            [sys.executable, "-P", "-c", CALL], env={**os.environ, **kept}, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    assert hits_and_misses("first") == "0 1"
    assert hits_and_misses("second") == "1 0"
    assert hits_and_misses("third", changed=True) == "0 1"
