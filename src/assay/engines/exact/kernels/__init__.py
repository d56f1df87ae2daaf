"""The exact semantics at speed: compiled with numba, equal to `reference.py` bit for bit.

Compiled code is kept on disk. Numba recompiles a function when its own file changes, but not when a file changes that
it calls into: so every version of these files has a folder of its own.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numba
from llvmlite.binding import get_host_cpu_features

_FROM_OUTSIDE = ("packed.py", "reference.py", "tables.py", "whole.py")
"""Other files of which kernels use constants."""


def _digest_of_sources() -> str:
    here = Path(__file__).parent
    files = [*sorted(here.glob("*.py")), *(here.parent / name for name in _FROM_OUTSIDE)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def _features() -> str | None:
    """The processor's, with vectors of 512 bits where it has them: LLVM alone would take 256."""
    own = get_host_cpu_features()
    return f"{own.flatten()},-prefer-256-bit" if own.get("avx512vl") else None


_SETTINGS: Any = numba.config
if not (_SETTINGS.CPU_NAME or _SETTINGS.CPU_FEATURES):
    _SETTINGS.CPU_FEATURES = _features()
_CACHE = Path(_SETTINGS.CACHE_DIR or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "assay")
_SETTINGS.CACHE_DIR = str(_CACHE / f"kernels-{_digest_of_sources()}")
