"""Losses at rest: kept once, over restarts, each court's apart."""

from __future__ import annotations

from pathlib import Path

from assay.store.losses import Loss, LossStore

ONE = Loss(b"t" * 32, 3, "0x" + "1" * 40, 2**127)


def test_losses_outlive_the_program(tmp_path: Path) -> None:
    """Also what is told twice, as after a crash; and where to go on."""
    url = f"sqlite:///{tmp_path / 'gateway.db'}"
    store = LossStore(url, "1 0xa")
    assert store.load() == (frozenset(), None)
    store.keep([ONE], 10)
    store.keep([ONE, Loss(b"t" * 32, 4, "0x" + "2" * 40, 1)], 12)
    store.close()
    again, other = LossStore(url, "1 0xa"), LossStore(url, "1 0xb")
    assert again.load() == ({"0x" + "1" * 40, "0x" + "2" * 40}, 12)
    assert other.load() == (frozenset(), None)
    again.close()
    other.close()
