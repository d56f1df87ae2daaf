"""What was delivered of answers under way, on the disk before anybody sees it: `kill -9` leaves no token unsigned.

A file for each answer, in a folder of the process's own whose lock dies with it: a line of canonical JSON, then for
each token its id (4 bytes) and evidence leaf, but for the last one, which is handed over when the receipt is in the
database and the file is gone. It is written to the system and not synced: what a dead process wrote is there, what a
dead machine wrote may not be, and then the provider has no receipt for it.
"""

from __future__ import annotations

import errno
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from assay.core.completion import Completion, Prompt, Step
from assay.core.encoding import b64, canonical, pack_ids, parse_canonical, unb64, unpack_ids
from assay.core.errors import EncodingError, StoreError
from assay.core.evidence import LEAF_SIZES
from assay.core.hashing import Digest
from assay.core.keys import Address, parse_address
from assay.core.offer import Price
from assay.core.profile import Profile
from assay.core.request import Level, Request, decimal, natural, text

_LOCK: Final = "lock"
_MEMBERS: Final = ("request", "model", "profile", "text", "tokens", "price", "channel", "provider", "began")


@dataclass(frozen=True, slots=True)
class Begun:
    """An answer that is being delivered: all that its receipt needs besides the tokens."""

    request: Request
    model: Digest
    profile: Profile
    prompt: Prompt
    price: Price
    channel: Digest
    """Which pays, or 32 zero bytes."""
    provider: Address
    began: int
    """Unix seconds."""

    def encode(self) -> bytes:
        """The line before the tokens."""
        price = {"prompt": str(self.price.prompt), "output": str(self.price.output)}
        return canonical({
            "request": self.request.to_json(),
            "model": b64(self.model),
            "profile": self.profile.to_json(),
            "text": b64(self.prompt.text),
            "tokens": b64(pack_ids(self.prompt.tokens)),
            "price": price,
            "channel": b64(self.channel),
            "provider": self.provider,
            "began": self.began,
        }) + b"\n"  # fmt: skip

    @classmethod
    def decode(cls, line: bytes) -> Begun:
        """Inverse of `encode`.

        Raises:
            EncodingError: it is another line.
        """
        value = parse_canonical(line.removesuffix(b"\n"), what="an answer under way")
        if not isinstance(value, dict) or set(value) != set(_MEMBERS) or not isinstance(value["price"], dict):
            raise EncodingError(f"an answer under way has exactly the members {', '.join(sorted(_MEMBERS))}")
        price = (decimal(text(value["price"].get(name), name), what="a price") for name in ("prompt", "output"))
        words = {name: unb64(text(value[name], name), size=None, what=name) for name in ("text", "tokens")}
        digests = {name: unb64(text(value[name], name), size=32, what=name) for name in ("model", "channel")}
        return cls(
            request=Request.from_json(value["request"]),
            model=digests["model"],
            profile=Profile.from_json(value["profile"]),
            prompt=Prompt(words["text"], unpack_ids(words["tokens"], what="tokens")),
            price=Price(*price),
            channel=digests["channel"],
            provider=parse_address(text(value["provider"], "provider"), what="provider"),
            began=natural(value["began"], "began"),
        )


class OpenPart:
    """The file of one answer under way. Made with the first token: of an answer without one there is none."""

    def __init__(self, path: Path, head: bytes, level: Level) -> None:
        """`head`: of `Begun.encode`. `level`: whose evidence there is.

        Raises:
            OSError: it cannot be made.
        """
        self._path: Final = path
        self._size: Final = LEAF_SIZES[level]
        self._head = head
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)

    def add(self, step: Step) -> None:
        """A token is about to be handed over.

        Raises:
            OSError: it cannot be written. Nothing may be added afterwards.
        """
        data = self._head + step.token.to_bytes(4, "big") + step.leaf[: self._size]
        if os.write(self._file, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._head = b""

    def end(self) -> None:
        """The receipt is on the disk."""
        with suppress(OSError):  # what is left is told from it at the next start
            os.close(self._file)
            self._path.unlink()


@dataclass(frozen=True, slots=True)
class LeftOver:
    """What was delivered of an answer whose process died before the receipt was on the disk."""

    path: Path
    begun: Begun
    completion: Completion


class PartStore:
    """The answers under way of this process, and those that dead processes left in the same place. Calls block."""

    def __init__(self, folder: Path) -> None:
        """`folder`: is made, for the owner only.

        Raises:
            StoreError: it cannot be made.
        """
        self._root: Final = folder
        self._stack: Final = ExitStack()
        try:
            self._own: Final = self._made()
        except OSError as error:
            raise StoreError(
                f"the folder {folder} cannot be made ({error.strerror})", "set ASSAY_HOME elsewhere"
            ) from error

    def _made(self) -> Path:
        """A locked folder of this process. A process that looks for left-overs may take it away before it is locked."""
        while True:
            own = self._root / secrets.token_hex(16)
            own.mkdir(mode=0o700, parents=True)
            with suppress(FileNotFoundError), ExitStack() as stack:
                if stack.enter_context(_held(own)) and (own / _LOCK).exists():
                    self._stack.push(stack.pop_all())
                    return own

    def begin(self, head: bytes, level: Level) -> OpenPart:
        """The file of an answer whose first token is there; see `OpenPart`."""
        return OpenPart(self._own / secrets.token_hex(16), head, level)

    def left_over(self) -> Iterator[LeftOver]:
        """What dead processes left, each as it is asked for; `path` is to be removed by who has signed it. What cannot
        be read was written by no process of ours, and stays."""
        for folder in sorted(self._root.iterdir()):
            if folder == self._own or not folder.is_dir():
                continue
            with _held(folder) as held:
                if not held:
                    continue
                for path in sorted(folder.iterdir()):
                    if path.name != _LOCK:
                        with suppress(EncodingError, OSError):
                            yield _read(path)
            with suppress(OSError):  # unless something stayed
                (folder / _LOCK).unlink()
                folder.rmdir()

    def close(self) -> None:
        """End; the folder goes if all answers have their receipts."""
        self._stack.close()
        with suppress(OSError):
            if [path.name for path in self._own.iterdir()] == [_LOCK]:
                (self._own / _LOCK).unlink()
                self._own.rmdir()


def _read(path: Path) -> LeftOver:
    head, _, body = path.read_bytes().partition(b"\n")
    begun = Begun.decode(head)
    leaf = LEAF_SIZES[begun.request.level]
    records = [body[at : at + 4 + leaf] for at in range(0, len(body) - 3 - leaf, 4 + leaf)]
    return LeftOver(
        path,
        begun,
        Completion(
            prompt=begun.prompt,
            tokens=tuple(int.from_bytes(record[:4], "big") for record in records),
            text="",
            stop="failed",
            leaves=tuple(record[4:] for record in records) if leaf else (),
        ),
    )


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Whether the folder's lock could be had; it is held until the end of the block, or of the process."""
    with (folder / _LOCK).open("a+b") as file:
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
