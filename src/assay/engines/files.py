"""Model files on disk: locks between processes, atomic writes, and digests that are computed once."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from assay.core.errors import MachineError, ModelFileError
from assay.core.hashing import Digest

_SETTLED_NS = 1_000_000_000
"""A file that changed this recently may change again under the same time stamp (their grain is some milliseconds)."""


@contextmanager
def disk_errors(doing: str) -> Iterator[None]:
    """Turn the operating system's refusals into errors that say what to do.

    Raises:
        MachineError: no space while `doing`.
        ModelFileError: no permission, or any other failed file operation.
    """
    try:
        yield
    except OSError as error:
        where = f" at {error.filename}" if error.filename else ""
        said = f"{doing} failed{where} ({error.strerror or error})"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise MachineError(said, "free some space, or point ASSAY_HOME at another disk") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            remedy = "check the permissions, or point ASSAY_HOME at a folder that you may write"
        else:
            remedy = "check the path and the disk"
        raise ModelFileError(said, remedy) from error


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, waiting for other processes; the system releases it when a process dies."""
    with path.open("a+b") as file:
        if sys.platform == "win32":
            import msvcrt

            while True:
                try:
                    file.seek(0)
                    msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
                    break
                except OSError:
                    time.sleep(0.1)
            try:
                yield
            finally:
                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
            yield  # closing the file releases the lock


def write_atomic(path: Path, data: bytes) -> None:
    """Replace `path` with `data`: readers, and a machine that loses power, see the old file or the new one."""
    descriptor, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_object(path: Path) -> Mapping[str, object]:
    """The JSON object in `path`; empty when there is none, or when it is not a JSON object."""
    try:
        value: object = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else {}


def file_digest(path: Path, cache: Path) -> Digest:
    """SHA-256 of a file, remembered in the JSON file `cache`.

    A remembered digest counts only while path, size, inode, modification and change time are the same. The change time
    cannot be set back by a program, so an edited file with a forged modification time is hashed again.

    Raises:
        ModelFileError: the file keeps changing while it is read.
        OSError: it cannot be read.
    """
    key = str(path)
    remembered = read_object(cache)
    mark = _mark(path)
    entry = remembered.get(key)
    if isinstance(entry, dict) and entry.get("mark") == mark and isinstance(found := entry.get("sha256"), str):
        with suppress(ValueError):  # somebody edited the cache: hash again
            return bytes.fromhex(found)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    if _mark(path) != mark:
        raise ModelFileError(f"{path} changed while it was read", "wait until it is written completely, then try again")
    if time.time_ns() - max(mark[1], mark[2]) > _SETTLED_NS:
        kept = {name: value for name, value in remembered.items() if Path(name).is_file()}
        kept[key] = {"mark": mark, "sha256": digest.hex()}
        with suppress(OSError):  # a read-only or full disk costs the next reader a second, nothing more
            write_atomic(cache, json.dumps(kept, indent=1).encode())
    return digest


def _mark(path: Path) -> list[int]:
    """Size, modification time, change time, inode: what tells whether a file is still the same."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
