"""The exact semantics at speed: compiled with numba, equal to `reference.py` bit for bit.

Compiled code is kept on disk. Numba recompiles a function when its own file is newer or lies elsewhere, but not when a
file changes that it calls into: so every version of these files has a folder of its own, and only what they say counts.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numba
from llvmlite.binding import get_host_cpu_features
from numba.core.caching import UserProvidedCacheLocator
from typing_extensions import override

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


class ByContent(UserProvidedCacheLocator):
    """Finds the compiled code of these files wherever they lie: another checkout or installation compiles nothing."""

    @override
    def get_source_stamp(self) -> bytes:
        """Always the same: the folder tells versions apart."""
        return b""

    @override
    @classmethod
    def get_suitable_cache_subpath(cls, py_file: str) -> str:
        """All in one folder."""
        return ""

    @override
    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> Any:
        """None for functions of other files."""
        return super().from_function(py_func, py_file) if Path(py_file).parent == Path(__file__).parent else None


_SETTINGS: Any = numba.config
if not (_SETTINGS.CPU_NAME or _SETTINGS.CPU_FEATURES):
    _SETTINGS.CPU_FEATURES = _features()
_CACHE = Path(_SETTINGS.CACHE_DIR or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "assay")
_SETTINGS.CACHE_DIR = str(_CACHE / f"kernels-{_digest_of_sources()}")
_SETTINGS.CACHE_LOCATOR_CLASSES = f"{__name__}.{ByContent.__name__},{UserProvidedCacheLocator.__name__}"
