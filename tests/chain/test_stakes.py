"""What is read of stakes and slashings: as the chain has it, bounded, each slashing once, nothing lost in an outage."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.chain.nodes import error
from tests.chain.test_court_client import ADA, Bench
from tests.tiny import tiny_bundle, tiny_request

from assay.chain import stakes
from assay.chain.stakes import StakeReader
from assay.core.errors import ChainFailed

NOBODY = "0x" + "12" * 20


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A court on a development chain."""
    made = Bench()
    yield made
    made.outbox.close()
    made.devnet.close()


def contradict(bench: Bench, sequence: int = 7) -> None:
    """ADA shows two of its own receipts under one number."""
    one, other = (tiny_bundle(tiny_request(word, max_tokens=2), ADA, sequence).receipt for word in ("this", "that"))
    bench.done(bench.court.equivocate(one, other, f"equivocate/{sequence}"))


def test_stakes_follow_the_chain(bench: Bench) -> None:
    """What is bonded counts, what is leaving does not; changes are noticed, and who is not offered is forgotten."""
    reader = StakeReader(bench.court)
    reader.look([ADA.address, NOBODY])
    assert reader.stakes == {ADA.address: 0, NOBODY: 0}
    bench.done(bench.court.bond(100, "one"))
    reader.look([ADA.address, NOBODY])
    assert reader.stakes == {ADA.address: 100, NOBODY: 0}
    bench.done(bench.court.unbond(40, "leave"))
    reader.look([ADA.address])
    assert reader.stakes == {ADA.address: 60}
    contradict(bench)
    reader.look([ADA.address])
    assert reader.stakes == {ADA.address: 10}


def test_what_has_not_changed_is_not_asked_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """And of many only so many at a look; after a long absence all are asked anew."""
    monkeypatch.setattr(stakes, "MOST_READ", 2)
    reader, asked = StakeReader(bench.court), list[str]()
    real = bench.court.at_stake
    monkeypatch.setattr(bench.court, "at_stake", lambda who: (asked.append(who), real(who))[1])
    offered = [f"0x{number:040x}" for number in range(5)]
    for _ in range(5):
        reader.look(offered)
    assert asked == offered
    monkeypatch.setattr(stakes, "MOST_BLOCKS", -1)
    reader.look(offered)
    assert asked == [*offered, *offered[:2]]


def test_slashings_are_read_once(bench: Bench) -> None:
    """From the block that was given, or from the past."""
    bench.done(bench.court.bond(100, "one"))
    reader = StakeReader(bench.court)
    contradict(bench)
    [(entry, loss)], block = reader.slashed(None)
    assert (loss.provider, loss.bond, entry.block) == (ADA.address, 50, block - 1)
    assert reader.slashed(block) == ([], block)
    contradict(bench, 8)
    [(_, loss)], _ = reader.slashed(block)
    assert loss.bond == 25
    assert len(reader.slashed(0)[0]) == 2


def test_long_chains_are_read_in_pieces(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Block by block, if it must be: each slashing is in one of them."""
    monkeypatch.setattr(stakes, "MOST_BLOCKS", 1)
    bench.done(bench.court.bond(100, "one"))
    contradict(bench)
    reader, block, found = StakeReader(bench.court), 0, 0
    while block <= bench.devnet.chain.head.number:
        losses, after = reader.slashed(block)
        assert after == block + 1
        block, found = after, found + len(losses)
    assert found == 1


def test_an_outage_loses_nothing(bench: Bench) -> None:
    """What was changed while the chain could not be asked is known afterwards."""
    bench.done(bench.court.bond(100, "one"))
    reader = StakeReader(bench.court)
    reader.look([ADA.address])
    bench.done(bench.court.bond(5, "two"))
    bench.wire.rules["eth_getLogs"] = lambda _: error("away")
    with pytest.raises(ChainFailed):
        reader.look([ADA.address])
    assert reader.stakes == {ADA.address: 100}
    del bench.wire.rules["eth_getLogs"]
    reader.look([ADA.address])
    assert reader.stakes == {ADA.address: 105}
