"""A program finds providers: its sources run, its record book is kept in order and remembered over restarts."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from assay.apps.config import Network
from assay.apps.logs import logger
from assay.apps.metrics import DiscoveryMetrics
from assay.core.errors import AssayError, StoreError
from assay.core.keys import Address
from assay.core.ports import Discovery
from assay.core.reach import EVERYWHERE, Reach, reach_of
from assay.network.discovery.book import MOST, RecordBook
from assay.network.discovery.directory import Directory, withheld
from assay.network.discovery.finder import BookFinder
from assay.network.discovery.peers import Peers
from assay.network.discovery.registry import Registry
from assay.store.marks import MarkStore

KEEP_SECONDS: Final = 1.0
"""Between two times that marks are written: so much of them is lost at a crash."""
TIDY_SECONDS: Final = 30.0
"""Between two looks at what has expired and at what directories withhold."""
_AGAIN_SECONDS: Final = 5.0
"""Until a source that failed is tried again."""


class Discoveries:
    """What a program's sources find."""

    def __init__(
        self,
        sources: Sequence[Discovery],
        metrics: DiscoveryMetrics,
        store: MarkStore | None = None,
        *,
        most: int = MOST,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`store`: where marks are kept. `most`: records. `clock`: Unix seconds."""
        self._sources: Final = sources
        self._metrics: Final = metrics
        self._store: Final = store
        self._clock: Final = clock
        self._suspected: frozenset[str] = frozenset()
        marks = () if store is None else store.load()
        self.book: Final = RecordBook(salt=secrets.token_bytes(32), most=most, marks=marks)
        self.finder: Final = BookFinder(
            self.book, clock=clock, count=lambda source, outcome: metrics.records.labels(source, outcome).inc()
        )
        metrics.known.set_function(lambda: len(self.book))

    def dealt(self, provider: Address) -> None:
        """An answer of this provider's has held: it stays, whoever floods us with others."""
        self.book.pin(provider)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look for providers until the end of the block."""
        tasks = [asyncio.create_task(self._follow(source)) for source in self._sources]
        tasks += [asyncio.create_task(self._keep()), asyncio.create_task(self._tidy())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._store is not None:
                with suppress(StoreError):
                    await asyncio.to_thread(self._store.keep, self.book.marks(), self._clock())
                self._store.close()

    async def _follow(self, source: Discovery) -> None:
        """One source, again and again: that it fails ends nothing else."""
        while True:
            try:
                await source.run(self.finder)
            except (AssayError, OSError, ExceptionGroup) as error:
                logger("discovery").warning("source_failed", source=source.name, reason=str(error))
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _keep(self) -> None:
        while self._store is not None:
            await asyncio.sleep(KEEP_SECONDS)
            marks = self.book.marks()
            try:
                if marks:
                    await asyncio.to_thread(self._store.keep, marks, self._clock())
            except StoreError as error:
                logger("discovery").warning("marks_not_kept", reason=error.message, remedy=error.remedy)

    async def _tidy(self) -> None:
        directories = [source for source in self._sources if isinstance(source, Directory)]
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            self.book.expire(self._clock())
            missing = withheld(directories, self._clock())
            for name, count in missing.items():
                self._metrics.withheld.labels(name).set(count)
                if count and name not in self._suspected:
                    logger("discovery").warning("directory_withholds", directory=name, providers=count)
            self._suspected = frozenset(name for name, count in missing.items() if count)


def sources_of(
    settings: Network, registry: Path, *, lan: bool, dropped: Callable[[], None] = lambda: None
) -> list[Discovery]:
    """The sources that are configured. `lan`: whether the local network is one. `dropped`: see `LocalNetwork`."""
    found: list[Discovery] = [Registry(registry)]
    if lan:
        from assay.network.discovery.lan import LocalNetwork  # a tenth of a second

        found.append(LocalNetwork(dropped=dropped))
    if settings.peers:
        found.append(Peers(settings.peers))
    return [*found, *map(Directory, settings.directories)]


def uses_lan(settings: Network, host: str) -> bool:
    """Whether a program that listens on `host` uses the local network: one that is for this machine only does not tell
    others of itself, nor sends prompts to whoever is near, unless it is told to."""
    return (host in EVERYWHERE or reach_of(host) < Reach.MACHINE) if settings.lan is None else settings.lan


def registry_folder(home: Path) -> Path:
    """Where the providers of this user on this machine are listed."""
    return home / "run" / "providers"
