"""What a court tells of providers, block by block: what each has to lose, and who has lost something.

Stakes are asked for one by one, and again when an event says that one has changed. Slashings are read from blocks that
count, so that nothing takes one back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import islice
from typing import Final, NamedTuple

from assay.chain.court import DAY, CourtClient
from assay.chain.court_events import Happening, Slashing, read_slashed
from assay.chain.docket import Docket
from assay.chain.events import MAX_BLOCKS
from assay.chain.node import Entry
from assay.core.keys import Address

MOST_READ: Final = 256
"""Stakes that one look asks for."""
MOST_BLOCKS: Final = 50 * MAX_BLOCKS
"""That one look reads."""
PAST: Final = 60 * DAY
"""Seconds before the first look from which slashings count."""
_CHANGES: Final[tuple[Happening, ...]] = ("Staked", "Slashed")


class Slashed(NamedTuple):
    """A slashing, and where it stands in the chain."""

    entry: Entry
    loss: Slashing


class StakeReader:
    """Mutable; for use from one thread. Every method raises ChainFailed when the chain cannot be asked; then nothing is
    lost, and the next look goes on."""

    def __init__(self, court: CourtClient) -> None:
        self.stakes: Final[dict[Address, int]] = {}
        """Wei that are bonded and not leaving, of those that were asked for."""
        self._court: Final = court
        self._docket: Final = Docket(court)
        self._seen: int | None = None

    def look(self, offered: Collection[Address]) -> None:
        """Ask for up to MOST_READ stakes of `offered` providers that are not known or have changed; forget others'."""
        head, _ = self._docket.heads()
        changed: Iterable[Address] = ()
        if self._seen is not None:
            # Blocks that may be taken back are read again.
            first = max(0, min(self._seen, head.number) + 1 - self._court.confirmations)
            if head.number - first < MOST_BLOCKS:
                found = [each for what in _CHANGES for each in self._docket.events(what, first, head, [])]
                changed = [_provider(each) for each in found]
            else:
                changed = list(self.stakes)
        self._seen = head.number
        for provider in {*changed, *(self.stakes.keys() - set(offered))}:
            self.stakes.pop(provider, None)
        for provider in islice((each for each in offered if each not in self.stakes), MOST_READ):
            self.stakes[provider] = self._court.at_stake(provider)

    def slashed(self, first: int | None) -> tuple[list[Slashed], int]:
        """Slashings from block `first` on, of up to MOST_BLOCKS blocks, and the block to go on with. None: those of the
        last PAST seconds."""
        _, last = self._docket.heads()
        if first is None:
            first = self._docket.block_at(last.timestamp - PAST, last)
        if last.number - first >= MOST_BLOCKS:
            last = self._court.node.head(first + MOST_BLOCKS - 1)
        found = self._docket.events("Slashed", first, last, [])
        return [Slashed(each, read_slashed(each)) for each in found], max(first, last.number + 1)


def _provider(entry: Entry) -> Address:
    """The first indexed member of an event."""
    return f"0x{entry.topics[1][-20:].hex()}" if len(entry.topics) > 1 else ""
