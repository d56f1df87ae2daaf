"""Marks of records outlive the process, and do not fill the disk."""

from __future__ import annotations

from pathlib import Path

from assay.core.record import Mark
from assay.store.marks import MarkStore


def mark(number: int, *, sequence: int = 1, until: int = 1000, pinned: bool = False) -> Mark:
    """Of a made-up provider."""
    return Mark(f"0x{number:040x}", sequence, bytes([number % 256]) * 32, until, pinned)


def open_store(root: Path, most: int = 100) -> MarkStore:
    """A store in a folder."""
    return MarkStore(f"sqlite:///{root / 'x.db'}", most=most)


def test_marks_come_back(tmp_path: Path) -> None:
    """After the process has ended; the last one of a provider counts, also one that says there were two."""
    store = open_store(tmp_path)
    store.keep([mark(1), mark(2)], 0)
    store.keep([mark(2, sequence=2**52, pinned=True), Mark(mark(3).provider, 7, b"", 1000, False)], 0)
    store.close()
    store = open_store(tmp_path)
    first, *others = store.load()
    assert first == mark(2, sequence=2**52, pinned=True)
    assert set(others) == {mark(1), Mark(mark(3).provider, 7, b"", 1000, False)}
    store.close()


def test_marks_end(tmp_path: Path) -> None:
    """When their time is over, unless they are pinned; and over `most` those that end first, pinned ones last."""
    store = open_store(tmp_path, most=600)
    store.keep([mark(1, until=10), mark(2, until=10, pinned=True), *(mark(n, until=n) for n in range(100, 800))], 50)
    kept = store.load()
    assert len(kept) == 600
    assert kept[0] == mark(2, until=10, pinned=True)
    assert {each.until for each in kept[1:]} == set(range(201, 800))
    store.keep([], 500)
    assert {each.until for each in store.load()[1:]} == set(range(500, 800))
    store.close()
