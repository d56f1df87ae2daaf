"""The record book: of each provider its newest record that holds, in bounded memory.

What it stands against:

- forgery: a record is checked before it changes anything;
- replay and roll-back: the highest sequence number of each provider outlives its record, and the process (`Mark`);
- equivocation: of two records under one number neither is used, as the key is then in two hands. Which of them came
  first would otherwise decide, and whoever carries records could choose that. A higher number ends it;
- floods: providers that we have dealt with are never given up for others. For the rest each source can only push out
  what came by itself while it has more than any other, and which ones are kept is decided by a keyed hash of their
  addresses: to come again, or first, or late, helps nobody, and nobody can choose a key that stays.
"""

from __future__ import annotations

import hashlib
import heapq
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from assay.core.errors import RecordRefused
from assay.core.hashing import Digest
from assay.core.keys import Address
from assay.core.reach import Reach, usable
from assay.core.record import MAX_LIFE, MAX_SKEW, Mark, ProviderRecord

MOST: Final = 100_000
"""Providers that are kept."""
MEAN_BYTES: Final = 2048
"""Of the records' canonical form: so much there is room for, on average."""
PINNED_SECONDS: Final = 30 * 86_400
"""For so long we remember a provider that we have dealt with and that has no record."""
CONTRADICTED: Final[Digest] = b""
"""In place of a digest: there were two."""


@dataclass(slots=True)
class Entry:
    """What is known of one provider."""

    sequence: int
    digest: Digest
    until: int
    """See `Mark`."""
    rank: int
    """Keyed hash of the address: the highest ones, times their size, go first."""
    source: str
    """Whose share of the book it is in."""
    reach: Reach
    """How near the nearest source was that told it."""
    record: ProviderRecord | None = None
    """None: it has expired, or nobody answers there, or it was contradicted."""
    heard: float = 0.0
    """When it came last, in Unix seconds."""
    pinned: bool = False
    version: int = 0
    size: int = 0
    """Bytes of the record."""


class RecordBook:
    """Mutable; not for several threads. Time is handed in, in Unix seconds."""

    def __init__(self, *, salt: bytes, most: int = MOST, marks: Iterable[Mark] = ()) -> None:
        """`salt`: secret and random, decides which strangers are kept. `marks`: from an earlier life."""
        self._salt: Final = salt
        self._most: Final = most
        self._entries: Final[dict[Address, Entry]] = {}
        self._pinned = 0
        self._empty: Final[dict[Address, None]] = {}
        """Neither pinned nor with a record: these go first."""
        self._heaps: Final[dict[str, list[tuple[int, Address]]]] = {}
        """Of each source's strangers, the highest rank first; entries that have moved are passed over."""
        self._shares: Final = Counter[str]()
        """Bytes of the records of strangers, by source."""
        self._bytes = 0
        self._alive = 0
        self._log: list[tuple[int, Address]] = []
        self._dirty: Final[dict[Address, None]] = {}
        self.version = 0
        """Rises whenever a record comes, changes or goes."""
        for mark in marks:
            if len(self._entries) < most:
                entry = Entry(mark.sequence, mark.digest, mark.until, self._rank(mark.provider), "", Reach.PUBLIC)
                self._entries[mark.provider] = entry
                self._empty[mark.provider] = None
                if mark.pinned:
                    self.pin(mark.provider)

    def __len__(self) -> int:
        """Providers with a record."""
        return self._alive

    def put(self, record: ProviderRecord, now: float, source: str, reach: Reach = Reach.MACHINE) -> bool:
        """Take a record from a source that is so near; True if it is new, False if it was here.

        Raises:
            InvalidSignature: another key signed it.
            RecordRefused: by `reason`: `expired`, `future`, `older` (a newer one was seen), `contradiction` (another
                one has its number), `unreachable` (no endpoint that a source so far away can tell), `full` (its
                source has used up its share).
        """
        name, entry = record.provider, self._entries.get(record.provider)
        if entry is not None and record.sequence < entry.sequence:
            raise RecordRefused("older", f"a newer record of {name} was seen")
        digest = record.digest
        if entry is not None and entry.record is not None and digest == entry.digest:
            entry.heard = now
            self._nearer(name, entry, source, reach)
            return False
        record.check(now)
        if entry is not None and record.sequence == entry.sequence and digest != entry.digest:
            self._clear(name, entry)
            entry.digest = CONTRADICTED
            self._dirty[name] = None
            raise RecordRefused("contradiction", f"{name} signed two records under one number")
        if usable(record, reach) is None:
            raise RecordRefused("unreachable", f"no endpoint of {name} can be used here")
        self._write(record, digest, now, source, reach)
        while len(self._entries) > self._most or self._bytes > self._most * MEAN_BYTES:
            if not self._make_room():
                break
        if name not in self._entries:
            raise RecordRefused("full", f"the book has no room for more of {source}")
        return True

    def get(self, provider: Address, now: float) -> Entry | None:
        """What is known of a provider whose record is alive."""
        entry = self._entries.get(provider)
        return entry if entry is not None and entry.record is not None and entry.record.expires > now else None

    def entries(self, now: float) -> list[tuple[ProviderRecord, Entry]]:
        """All records that are alive."""
        return [
            (entry.record, entry)
            for entry in self._entries.values()
            if entry.record is not None and entry.record.expires > now
        ]

    def changes(self, since: int, most: int, room: int, now: float) -> tuple[Sequence[ProviderRecord], int]:
        """Up to `most` records, and as many bytes of them as there is `room` for (one record at least), that came after
        version `since` and are alive, in their order; and the version to go on from."""
        found: list[ProviderRecord] = []
        place = bisect_right(self._log, (since, "~"))
        while place < len(self._log) and len(found) < most:
            version, name = self._log[place]
            entry = self._entries.get(name)
            if entry is not None and entry.version == version and entry.record and entry.record.expires > now:
                room -= entry.size
                if found and room < 0:
                    break
                found.append(entry.record)
            since, place = version, place + 1
        return found, since

    def pin(self, provider: Address) -> None:
        """We have dealt with this provider: it stays, whoever else comes. So may half of the book."""
        entry = self._entries.get(provider)
        if entry is None or entry.pinned or 2 * self._pinned >= self._most:
            return
        self._leave_share(provider, entry)
        entry.pinned = True
        if entry.record is not None:
            self._join_share(provider, entry)
        self._pinned += 1
        self._dirty[provider] = None

    def gone(self, provider: Address, source: str | None = None) -> None:
        """Nobody answers for this record any more, as its source says (None: whichever that is)."""
        entry = self._entries.get(provider)
        if entry is not None and entry.record is not None and source in (None, entry.source):
            self._clear(provider, entry)

    def expire(self, now: float) -> None:
        """Let go of records that have expired, and later of their marks."""
        for name, entry in list(self._entries.items()):
            if entry.record is not None and entry.record.expires <= now:
                self._clear(name, entry)
            if entry.record is None and entry.until + entry.pinned * PINNED_SECONDS <= now:
                self._drop(name, entry)

    def marks(self) -> list[Mark]:
        """Marks that have changed since they were last asked for, to be kept for the next life."""
        known = ((name, self._entries.get(name)) for name in self._dirty)
        found = [Mark(n, e.sequence, e.digest, e.until, e.pinned) for n, e in known if e is not None]
        self._dirty.clear()
        return found

    def _write(self, record: ProviderRecord, digest: Digest, now: float, source: str, reach: Reach) -> None:
        name, until = record.provider, record.issued + MAX_LIFE + MAX_SKEW
        entry = self._entries.get(name)
        if entry is None:
            entry = self._entries[name] = Entry(0, digest, until, self._rank(name), source, reach)
        elif entry.record is None:
            self._empty.pop(name, None)
            entry.source = source
        self._leave_share(name, entry)
        entry.sequence, entry.digest, entry.record, entry.heard = record.sequence, digest, record, now
        entry.size, entry.reach, entry.until = record.size, reach, max(entry.until, until)
        self._join_share(name, entry)
        self._nearer(name, entry, source, reach)
        self.version += 1
        entry.version = self.version
        self._log.append((self.version, name))
        if len(self._log) > 2 * len(self._entries) + 1024:
            held = ((version, each, self._entries.get(each)) for version, each in self._log)
            self._log = [(version, each) for version, each, e in held if e is not None and e.version == version]
        self._dirty[name] = None

    def _nearer(self, name: Address, entry: Entry, source: str, reach: Reach) -> None:
        """A record that several sources tell is in the share of the one with the least."""
        entry.reach = max(entry.reach, reach)
        if source != entry.source and self._shares[source] < self._shares[entry.source]:
            self._leave_share(name, entry)
            entry.source = source
            self._join_share(name, entry)

    def _make_room(self) -> bool:
        """Give up one stranger; False if there is none."""
        if self._empty:
            name = next(iter(self._empty))
            self._drop(name, self._entries[name])
            return True
        source = max(self._shares, key=lambda each: self._shares[each], default="")
        heap = self._heaps.get(source, [])
        while heap:
            key, name = heapq.heappop(heap)
            if self._in_heap(key, name, source):
                self._drop(name, self._entries[name])
                return True
        return False

    def _in_heap(self, key: int, name: Address, source: str) -> bool:
        """This item of a source's heap stands for a stranger as it is now."""
        entry = self._entries.get(name)
        here = entry is not None and entry.record is not None and not entry.pinned and entry.source == source
        return here and entry is not None and key == -entry.rank * entry.size

    def _clear(self, name: Address, entry: Entry) -> None:
        """Without its record; the mark stays."""
        if entry.record is None:
            return
        self._leave_share(name, entry)
        entry.record = None
        if not entry.pinned:
            self._empty[name] = None
        self.version += 1

    def _drop(self, name: Address, entry: Entry) -> None:
        self._leave_share(name, entry)
        self._empty.pop(name, None)
        self._dirty.pop(name, None)
        self._pinned -= entry.pinned
        del self._entries[name]
        self.version += 1

    def _join_share(self, name: Address, entry: Entry) -> None:
        """Count a record that has come."""
        self._bytes += entry.size
        self._alive += 1
        if entry.pinned:
            return
        self._shares[entry.source] += entry.size
        heap = self._heaps.setdefault(entry.source, [])
        heapq.heappush(heap, (-entry.rank * entry.size, name))
        if len(heap) > 2 * len(self._entries) + 64:
            heap[:] = {item for item in heap if self._in_heap(*item, entry.source)}
            heapq.heapify(heap)

    def _leave_share(self, name: Address, entry: Entry) -> None:
        """Count a record no more, or forget that there is none."""
        if entry.record is None:
            self._empty.pop(name, None)
            return
        self._bytes -= entry.size
        self._alive -= 1
        if not entry.pinned:
            self._shares[entry.source] -= entry.size

    def _rank(self, provider: Address) -> int:
        digest = hashlib.blake2b(bytes.fromhex(provider[2:]), digest_size=7, key=self._salt).digest()
        return int.from_bytes(digest)
