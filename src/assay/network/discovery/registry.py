"""Providers of this user on this machine: a folder with one file for each, which only the user may read and write."""

from __future__ import annotations

import asyncio
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from assay.core.errors import AssayError, MachineError
from assay.core.keys import Address
from assay.core.ports import Finder
from assay.core.reach import Reach, usable
from assay.core.record import MAX_RECORD_BYTES, ProviderRecord

MOST_FILES: Final = 256
"""Files that are looked at."""
LOOK_SECONDS: Final = 0.5
"""Between two looks."""
_CONNECT_SECONDS: Final = 0.5
_ENDING: Final = ".record"


class Registry:
    """Implements `Discovery` over the folder, and keeps a provider's own record in it.

    A file is only as good as the process behind it: nobody is told of a provider that does not take connections.
    """

    def __init__(self, folder: Path, *, look: float = LOOK_SECONDS) -> None:
        """`look`: seconds between two looks."""
        self._folder: Final = folder
        self._look: Final = look

    @property
    def name(self) -> str:
        """See `Discovery`."""
        return "registry"

    def publish(self, record: ProviderRecord) -> None:
        """Put a record there, whole or not at all.

        Raises:
            MachineError: the folder cannot be written.
        """
        path = self._path(record.provider)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(record.encode())
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)
        except OSError as error:
            raise MachineError(
                f"the folder of running providers, {self._folder}, cannot be written ({error.strerror})",
                "check ASSAY_HOME and its disk",
            ) from error

    def withdraw(self, provider: Address) -> None:
        """Take a provider's record away."""
        with suppress(OSError):
            self._path(provider).unlink(missing_ok=True)

    async def run(self, finder: Finder) -> None:
        """See `Discovery`."""
        seen: set[Address] = set()
        while True:
            files = await asyncio.to_thread(self._read)
            alive = await asyncio.gather(*map(_answers, files))
            here: set[Address] = set()
            for data, answers in zip(files, alive, strict=True):
                if answers and (record := finder.heard(data, self.name, Reach.MACHINE)):
                    here.add(record.provider)
            for provider in seen - here:
                finder.gone(provider)
            seen = here
            await asyncio.sleep(self._look)

    def _path(self, provider: Address) -> Path:
        return self._folder / f"{provider}{_ENDING}"

    def _read(self) -> list[bytes]:
        """The files' contents; what is no plain small file is passed over."""
        found: list[bytes] = []
        with suppress(OSError):
            names = sorted(path for path in self._folder.iterdir() if path.suffix == _ENDING)
            for path in names[:MOST_FILES]:
                with suppress(OSError):
                    found.append(_small_file(path))
        return found


def _small_file(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return b""
        return file.read(MAX_RECORD_BYTES + 1)


async def _answers(data: bytes) -> bool:
    """Somebody takes connections where the record says; garbage is passed on to who counts it."""
    try:
        endpoint = usable(ProviderRecord.decode(data), Reach.MACHINE, ["direct"])
    except AssayError:
        return True
    if endpoint is None:
        return False
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    except OSError:  # TimeoutError is one
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True
