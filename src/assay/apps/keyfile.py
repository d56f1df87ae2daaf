"""Signing keys on disk: private files, written whole or not at all, never overwritten by accident."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Final

from assay.core.errors import ConfigError, EncodingError, NotFound
from assay.core.keys import Key

MODE: Final = 0o600
"""Only the owner reads or writes a key."""
_SIZE: Final = 65
"""64 hexadecimal digits and a newline."""


def key_path(home: Path, name: str) -> Path:
    """Where the key called `name` lives under `home` (ASSAY_HOME).

    Raises:
        ConfigError: the name is no plain file name.
    """
    if not name or not all(c.isascii() and (c.isalnum() or c in "-_.") for c in name) or name.startswith("."):
        raise ConfigError(f"{name!r} cannot be a key's name", "use letters, digits, - and _")
    return home / "keys" / f"{name}.key"


def new_key(path: Path, *, force: bool = False) -> Key:
    """Make a key from the system's randomness and keep it at `path`.

    Raises:
        ConfigError: there is a key already (and not `force`), or the file cannot be written.
    """
    while True:
        try:
            key = Key.from_secret(secrets.token_bytes(32))
            break
        except EncodingError:  # one in 2^127: zero, or not below the group's order
            continue
    write_private(path, key.secret.hex() + "\n", force=force)
    return key


def load_key(path: Path) -> Key:
    """Read the key at `path`.

    Raises:
        NotFound: there is none.
        ConfigError: others may read it, or it is not a key.
    """
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise ConfigError(f"{path} is not a file", "name the key's file")
        if os.name == "posix" and info.st_mode & 0o077:
            raise ConfigError(f"other users may read the key {path}", f"run `chmod 600 {path}`")
        with path.open("rb") as file:
            data = file.read(_SIZE + 1)
    except FileNotFoundError as error:
        raise NotFound(f"there is no key at {path}", "make one with `assay keys new`") from error
    except OSError as error:
        raise ConfigError(f"the key {path} cannot be read ({error.strerror})", "check its owner and mode") from error
    try:
        return Key.from_secret(bytes.fromhex(data.decode("ascii").strip()))
    except (ValueError, EncodingError) as error:
        raise ConfigError(
            f"{path} does not hold a key (64 hexadecimal digits)", "restore it, or make another with `assay keys new`"
        ) from error


def load_or_new(path: Path) -> tuple[Key, bool]:
    """The key at `path`, made now if there is none; and whether it was made now.

    Raises:
        ConfigError: see `load_key` and `new_key`.
    """
    try:
        return load_key(path), False
    except NotFound:
        pass
    try:
        return new_key(path), True
    except ConfigError:
        if path.exists():  # another process was quicker
            return load_key(path), False
        raise


def write_private(path: Path, text: str, *, force: bool) -> None:
    """Write a file that only the owner reads, and give it its name in one step: a crash leaves the old state or the new
    one.

    Raises:
        ConfigError: there is one already (and not `force`), or it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            if force:
                draft.replace(path)
            else:
                _claim(draft, path)
        finally:
            draft.unlink(missing_ok=True)
    except FileExistsError as error:
        raise ConfigError(
            f"there is a key at {path} already, and without it nobody can sign or be paid for its address",
            "give another name, or --force to lose it",
        ) from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror})", "check disk and permissions") from error


def _claim(draft: Path, path: Path) -> None:
    """Move `draft` to `path` unless something is there; raises FileExistsError."""
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError as error:  # a file system without hard links
        if path.exists():
            raise FileExistsError(path) from error
        draft.rename(path)
