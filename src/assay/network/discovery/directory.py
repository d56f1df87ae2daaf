"""Directories: services that keep providers' records for anybody. They cannot forge records; what they leave out shows
when several are compared."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import httpx

from assay.core.errors import AssayError
from assay.core.keys import Address
from assay.core.ports import Finder
from assay.network.discovery.book import MOST
from assay.network.discovery.pages import LARGEST, Page
from assay.network.replies import body, body_and_reach, within

LOOK_SECONDS: Final = 10.0
"""Between two questions for what is new."""
GRACE_SECONDS: Final = 900.0
"""So long a directory may lack what most others list: records travel between them."""
_REPLY_SECONDS: Final = 10.0
_PAGES: Final = 1024
"""Pages that are read in a row, whatever a directory says: several times as many as a book has room for."""
_MAX_ERROR: Final = 65_536


@dataclass(slots=True)
class _Listed:
    since: float
    expires: float


class Directory:
    """Implements `Discovery` over one directory, and hands in a provider's own record there."""

    def __init__(self, url: str, *, look: float = LOOK_SECONDS, clock: Callable[[], float] = time.time) -> None:
        """`look`: seconds between two questions. `clock`: Unix seconds."""
        self._url: Final = url.rstrip("/")
        self._look: Final = look
        self._clock: Final = clock
        self._cursor = ""
        self._listed: Final[dict[Address, _Listed]] = {}
        self.complete = False
        """All that it lists has been read once."""

    @property
    def name(self) -> str:
        """See `Discovery`."""
        return self._url

    async def run(self, finder: Finder) -> None:
        """See `Discovery`."""
        async with _client() as client:
            while True:
                try:
                    await self._read(client, finder)
                    self.complete = True
                except AssayError:
                    self.complete = False
                self._forget()
                await asyncio.sleep(self._look)

    async def publish(self, data: bytes) -> None:
        """Hand in a record.

        Raises:
            Busy, ProviderFailed: it is not taken, or the directory cannot be reached.
        """
        async with _client() as client:
            asked = client.stream("PUT", f"{self._url}/assay/v1/records", content=data)
            await within(_REPLY_SECONDS, body(asked, _MAX_ERROR, status=204), f"{self._url} does not reply")

    def lists(self, provider: Address) -> bool:
        """It listed a record of this provider, which is alive."""
        return provider in self._listed

    def listed(self, before: float) -> Sequence[Address]:
        """Whom it has listed since before a time, in Unix seconds."""
        return [provider for provider, listed in self._listed.items() if listed.since <= before]

    async def _read(self, client: httpx.AsyncClient, finder: Finder) -> None:
        """All that is new."""
        for _ in range(_PAGES):
            asked = client.stream("GET", f"{self._url}/assay/v1/records", params={"since": self._cursor})
            data, reach = await within(_REPLY_SECONDS, body_and_reach(asked, LARGEST), f"{self._url} does not reply")
            page = Page.decode(data)
            for line in page.records:
                if record := finder.heard(line, self.name, reach):
                    found = self._listed.get(record.provider)
                    if found is not None:
                        found.expires = record.expires
                    elif len(self._listed) < MOST:
                        self._listed[record.provider] = _Listed(self._clock(), record.expires)
                await asyncio.sleep(0)  # answers under way go on between two records
            self._cursor = page.cursor
            if not page.more:
                break

    def _forget(self) -> None:
        now = self._clock()
        for provider in [provider for provider, listed in self._listed.items() if listed.expires <= now]:
            del self._listed[provider]


def withheld(directories: Sequence[Directory], now: float, grace: float = GRACE_SECONDS) -> Mapping[str, int]:
    """How many providers each directory lacks that more than half of the others have listed for `grace` seconds.

    That alone is no proof: a directory may be full, and those who list may have made the providers up. It is a reason
    to ask another one, and to look.
    """
    whole = [directory for directory in directories if directory.complete]
    counts: dict[Address, int] = {}
    for directory in whole:
        for provider in directory.listed(now - grace):
            counts[provider] = counts.get(provider, 0) + 1
    return {
        directory.name: sum(
            2 * count > len(whole) - 1 and not directory.lists(provider) for provider, count in counts.items()
        )
        for directory in whole
    }


def _client() -> httpx.AsyncClient:
    return httpx.AsyncClient(
        timeout=httpx.Timeout(_REPLY_SECONDS), headers={"accept-encoding": "identity"}, trust_env=False
    )
