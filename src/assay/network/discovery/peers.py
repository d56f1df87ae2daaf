"""Providers whose addresses we were given: each is asked for its record now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import httpx

from assay.core.errors import AssayError
from assay.core.ports import Finder
from assay.network.discovery.fetching import fetch_record, record_client

ASK_SECONDS: Final = 30.0
"""Between two questions to a peer that told its record."""
RETRY_SECONDS: Final = 2.0
"""After a failure; doubles up to ASK_SECONDS."""


class Peers:
    """Implements `Discovery` over base URLs."""

    def __init__(self, urls: Sequence[str], *, ask: float = ASK_SECONDS) -> None:
        """`ask`: seconds between two questions."""
        self._urls: Final = tuple(url.rstrip("/") for url in urls)
        self._ask: Final = ask

    @property
    def name(self) -> str:
        """See `Discovery`."""
        return "peers"

    async def run(self, finder: Finder) -> None:
        """See `Discovery`."""
        async with record_client() as client, asyncio.TaskGroup() as group:
            for url in self._urls:
                group.create_task(self._follow(url, finder, client))

    async def _follow(self, url: str, finder: Finder, client: httpx.AsyncClient) -> None:
        pause = RETRY_SECONDS / 2
        while True:
            try:
                data, reach = await fetch_record(client, url)
                finder.heard(data, self.name, reach)
                pause = self._ask
            except AssayError:
                pause = min(2 * pause, self._ask)
            await asyncio.sleep(pause)
