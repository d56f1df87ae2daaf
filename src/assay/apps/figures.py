"""What a benchmark reports: figures, each with its bar, beside the machine and the versions measured on."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import os
import platform
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Protocol, TypeAlias

import assay
from assay.core.errors import ConfigError, InvalidRequest, NotFound

ALL: Final = "all"
"""Stands for every benchmark."""
_PACKAGES: Final = ("numpy", "numba", "xllamacpp", "gguf", "uvicorn", "starlette", "httpx", "sqlalchemy")


@dataclass(frozen=True, slots=True)
class Figure:
    """One number that was measured."""

    name: str
    value: float | int
    unit: str
    limit: float | int | None
    """The bar; None for a number without one."""
    holds: bool | None
    """The value keeps to the bar; None without one."""
    n: int
    """Sample size."""


Say: TypeAlias = Callable[[str], None]
"""Shows a line of progress."""


class Benchmark(Protocol):
    """What a module in `benchmarks/` has."""

    @property
    def measure(self) -> Callable[..., Iterable[Figure]]:
        """Measure: `measure(say)`, where `say` shows progress.

        Where it has the keywords `files` (a sequence of paths) or `model` (a name or a GGUF file), users may give them.
        """
        ...


def folder() -> Path:
    """The folder of the benchmarks, which are not part of the installed package.

    Raises:
        ConfigError: it is not there.
    """
    found = Path(assay.__file__).resolve().parents[2] / "benchmarks"
    if not found.is_dir():
        raise ConfigError(
            "the benchmarks are not part of the installed package",
            "clone the repository and run `make setup`, then `assay bench` in it",
        )
    return found


def names() -> Sequence[str]:
    """The benchmarks that there are."""
    root = folder()
    modules = [path.stem for path in root.glob("*.py")] + [path.parent.name for path in root.glob("*/__init__.py")]
    return sorted(name for name in modules if not name.startswith("_"))


def measure(name: str, say: Say, *, files: Sequence[Path] = (), model: str = "") -> dict[str, object]:
    """Run a benchmark (or `all`): its figures, the machine and the versions.

    `files` and `model` are for benchmarks that take them; empty ones are not passed on.

    Raises:
        NotFound: there is no such benchmark.
        InvalidRequest: the benchmark does not take files, or no model.
    """
    known = names()
    if name != ALL and name not in known:
        raise NotFound(f"there is no benchmark {name[:80]!r}", f"choose one of {', '.join(known)} or {ALL}")
    chosen = {each: _load(each) for each in (known if name == ALL else [name])}
    given = {key: value for key, value in (("files", files), ("model", model)) if value}
    for each, key in ((each, key) for each in chosen for key in given):
        if key not in inspect.signature(chosen[each].measure).parameters:
            raise InvalidRequest(f"the benchmark {each} takes no {key}", remedy=f"leave the {key} out")
    figures: list[Mapping[str, object]] = []
    for each, benchmark in chosen.items():
        say(f"{each}:")
        prefix = f"{each}." if name == ALL else ""
        figures += [{**asdict(figure), "name": prefix + figure.name} for figure in benchmark.measure(say, **given)]
    return {"benchmark": name, "figures": figures, "machine": machine(), "versions": versions()}


def machine() -> dict[str, object]:
    """What was measured on."""
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Versions of what decides the speed."""
    found = {"assay": assay.__version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "missing"
    return found


def _load(name: str) -> Benchmark:
    root = str(folder().parent)
    if root not in sys.path:
        sys.path.insert(0, root)
    module = importlib.import_module(f"benchmarks.{name}")
    if not callable(getattr(module, "measure", None)):
        raise NotFound(f"benchmarks/{name} has no function `measure`", "run one of the others")
    return module


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()
