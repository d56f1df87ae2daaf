"""What the court's client makes of what a node says: hostile until it is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.chain.kit import Clock, key
from tests.chain.nodes import Wire, error, result

from assay.chain.abi import encoded
from assay.chain.addresses import Addresses
from assay.chain.client import ChainClient
from assay.chain.court import MOST_MOVE, CourtClient, Stake
from assay.chain.court_events import read_ended, read_moved, read_opened, read_slashed, tail, topic_of
from assay.chain.devnet import Devnet
from assay.chain.dispute import DISPUTE, Dispute
from assay.chain.ethereum import encode_abi
from assay.chain.node import MAX_CALLS, Entry
from assay.chain.outbox import Outbox, Pace
from assay.chain.provider import EmbeddedProvider
from assay.core.errors import ChainFailed, ConfigError, TransactionFailed
from assay.core.keys import keccak256

ADA = key(31)
STATE, MOVE = b"\1" * 448, b"\2" * 5000
HASH = b"\3" * 32
DAY = 86_400
DISPUTED = Dispute(7, 99 << 160 | 5, 6, 7, ADA.address, b"\4" * 32, keccak256(STATE))


def moving(number: int, state: bytes, move: bytes) -> bytes:
    """A call that moves."""
    return replace(DISPUTED, id=number).moving(state, move)


class Bench:
    """A court on a development chain, behind a wire."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.devnet = Devnet(None, clock=self.clock)
        self.devnet.fund(ADA.address)
        self.wire = Wire(EmbeddedProvider(self.devnet.chain))
        found = self.devnet.contracts
        where = Addresses(31_337, found.channels, found.token, found.vault, "", found.court)
        self.outbox = Outbox(None, self.wire, ADA, 31_337, confirmations=0, pace=Pace(poll=0.001))
        self.court = CourtClient(ChainClient(self.wire, where, ADA, self.outbox))

    def done(self, sent: Any) -> Any:
        """Wait until it is."""
        return self.outbox.wait(sent.name, 5)


@pytest.fixture
def bench() -> Iterator[Bench]:
    """One."""
    made = Bench()
    yield made
    made.outbox.close()
    made.devnet.close()


def test_a_bond_comes_and_goes(bench: Bench) -> None:
    """Bonded in parts, unbonded, and withdrawn when its time has come; what would be reverted says why."""
    court = bench.court
    before = court.client.token_balance(ADA.address)
    bench.done(court.bond(70, "one"))
    bench.done(court.bond(30, "two"))
    bench.done(court.unbond(40, "leave"))
    at = int(bench.devnet.chain.head.timestamp) + 21 * DAY
    assert court.stake(ADA.address) == Stake(100, 40, at, 0)
    with pytest.raises(TransactionFailed, match="too early"):
        bench.done(court.withdraw("too early"))
    with pytest.raises(TransactionFailed, match="more than is bonded"):
        bench.done(court.unbond(101, "too much"))
    bench.clock.now += 21 * DAY
    bench.done(court.withdraw("now"))
    assert court.stake(ADA.address) == Stake(60, 0, 0, 0)
    assert court.client.token_balance(ADA.address) == before - 60
    assert court.values().unbonding == 21 * DAY
    assert (court.count(), court.dispute(1), court.credit(ADA.address)) == (0, None, 0)


def test_no_court(bench: Bench) -> None:
    """Is told."""
    client = bench.court.client
    without = Addresses(31_337, client.addresses.channels, client.addresses.token)
    with pytest.raises(ConfigError, match="no court"):
        CourtClient(ChainClient(bench.wire, without, ADA, bench.outbox))


def say(bench: Bench, to: object, data: bytes) -> None:
    """What the node says that a transaction was."""
    found = {"hash": "0x" + HASH.hex(), "to": to, "input": "0x" + data.hex()}
    bench.wire.rules["eth_getTransactionByHash"] = lambda _: result(found)


def test_moves_are_read_out_of_transactions(bench: Bench) -> None:
    """Of the right dispute and state, however the arguments are laid out; what is cut off reads as zeros, as it does in
    the contract."""
    court = bench.court
    say(bench, court.where.upper().replace("X", "x"), moving(7, STATE, MOVE))
    assert court.moved(HASH, 7, STATE) == MOVE
    assert court.moved(HASH, 8, STATE) is None
    assert court.moved(HASH, 7, STATE[:-1]) is None
    words = [7, *range(5), 8 * 32 + 32 + 448, 8 * 32]  # the state behind the move
    head = b"".join(each.to_bytes(32, "big") for each in words)
    other = head + (3).to_bytes(32, "big") + bytes([9] * 3 + [0] * 445) + (448).to_bytes(32, "big") + STATE
    say(bench, court.where, moving(7, STATE, MOVE)[:4] + other)
    assert court.moved(HASH, 7, STATE) == bytes([9] * 3)
    say(bench, court.where, moving(7, STATE, MOVE)[:-4000])
    cut = court.moved(HASH, 7, STATE)
    assert cut is not None
    assert (len(cut), cut[-900:]) == (5000, bytes(900))
    assert cut == MOVE[: len(cut.rstrip(b"\0"))].ljust(5000, b"\0")


def test_transactions_that_make_no_sense(bench: Bench) -> None:
    """Are none of the court's, or say that the node is no good."""
    court = bench.court
    bench.wire.rules["debug_traceTransaction"] = lambda _: error("the method is not available", -32601)
    huge = (7).to_bytes(32, "big") + bytes(5 * 32) + (1 << 255).to_bytes(32, "big") * 2
    for data in (b"", b"\1\2\3", moving(7, STATE, MOVE)[:4], moving(7, STATE, MOVE)[:4] + huge, b"\0" * 200):
        say(bench, court.where, data)
        assert court.moved(HASH, 7, STATE) is None
        assert court.produced(HASH, 7) is None
    say(bench, None, moving(7, STATE, MOVE))
    assert court.moved(HASH, 7, STATE) is None
    say(bench, court.where, moving(7, STATE, bytes(MOST_MOVE + 1)))
    assert court.moved(HASH, 7, STATE) is None
    for wrong in (
        {"hash": "0x" + "00" * 32},
        {"to": "0x12"},
        {"to": 5},
        {"input": "0x1"},
        {"input": None},
        {"input": []},
    ):
        found = {"hash": "0x" + HASH.hex(), "to": court.where, "input": "0x"} | wrong
        bench.wire.rules["eth_getTransactionByHash"] = lambda _, found=found: result(found)
        with pytest.raises(ChainFailed):
            court.moved(HASH, 7, STATE)


def test_traces(bench: Bench) -> None:
    """Calls of the court are found within others, those that were taken back are not; endless ones are given up."""
    court = bench.court
    say(bench, ADA.address, b"")
    good = {"type": "CALL", "to": court.where, "input": "0x" + moving(7, STATE, MOVE).hex()}
    kinds = (good | {"type": "DELEGATECALL"}, good | {"error": "reverted"}, {"error": "reverted", "calls": [good]})
    for bad in kinds:
        tree = {"type": "CALL", "to": ADA.address, "input": "0x", "calls": [bad, {"type": "CREATE", "calls": []}]}
        bench.wire.rules["debug_traceTransaction"] = lambda _, tree=tree: result(tree)
        assert court.moved(HASH, 7, STATE) is None
    tree = {"type": "CALL", "to": ADA.address, "input": "0x", "calls": [{"type": "STATICCALL", "calls": [good]}]}
    bench.wire.rules["debug_traceTransaction"] = lambda _: result(tree)
    assert court.moved(HASH, 7, STATE) == MOVE
    for wrong in (None, [], "0x", {"calls": 5}, {"calls": "x"}, {"calls": [5]}, good | {"to": "x"}, good | {"input": 5},
                  {"calls": [{}] * (MAX_CALLS + 1)}):  # fmt: skip
        bench.wire.rules["debug_traceTransaction"] = lambda _, wrong=wrong: result(wrong)
        with pytest.raises(ChainFailed):
            court.moved(HASH, 7, STATE)


def entry(data: bytes, *topics: bytes) -> Entry:
    """An event."""
    return Entry("0x" + "1" * 40, topics, data, 1, bytes(32), HASH, 0)


def test_events() -> None:
    """Are read as they are, or refused."""
    number = (7).to_bytes(32, "big")
    opened = entry(encode_abi((DISPUTE, "bytes"), (DISPUTED.values, STATE)), topic_of("Opened"), number)
    dispute, shown = read_opened(opened)
    assert dispute == DISPUTED
    assert (shown.state, shown.turn, shown.deadline, shown.transaction) == (STATE, 0, 99, HASH)
    assert read_opened(entry(opened.data[:192] + bytes(32), *opened.topics))[0].demanded
    shown = read_moved(entry(encode_abi(("uint256", "bytes"), (3 << 232 | 9 << 224 | 98 << 160 | 5, STATE))))
    assert (shown.state, shown.turn, shown.deadline) == (STATE, 3, 98)
    after = dispute.after(shown)
    assert (after.turn, after.moves, after.deadline, after.receipt) == (3, 9, 98, DISPUTED.receipt)
    with pytest.raises(ChainFailed):
        read_opened(entry(opened.data, topic_of("Opened")))
    assert read_ended(entry((4).to_bytes(32, "big"))) == 4
    numbers = encode_abi(("uint256",) * 5, (1, 2, 3, 4, 5))
    who = bytes(12) + bytes.fromhex(ADA.address[2:])
    assert read_slashed(entry(numbers, topic_of("Slashed"), who, who, who)).insured == 5
    dice = Random(1)
    good = encode_abi(("uint256", "bytes"), (3, STATE))
    for read in (read_opened, read_moved, read_ended, read_slashed):
        for data in (b"", b"\1", good[:31], good[:64], b"\xff" * 96, b"\xff" * 512, dice.randbytes(512)):
            with pytest.raises(ChainFailed):
                read(entry(data, topic_of("Slashed")))
    with pytest.raises(ChainFailed):
        read_ended(entry((5).to_bytes(32, "big")))
    with pytest.raises(ChainFailed):
        read_slashed(entry(numbers, topic_of("Slashed"), who, who, b"\1" * 32))


def test_tails() -> None:
    """No offset and no length takes memory that was not asked for."""
    good = encoded("x", ("uint256", "bytes"), 1, b"abc")[4:]
    assert tail(good, 1, 3) == b"abc"
    assert tail(good, 1, 2) is None
    for at in (0, 31, 64, len(good), 1 << 40, (1 << 256) - 1):
        found = tail(at.to_bytes(32, "big") + bytes(64), 0, 10)
        assert found is None or len(found) <= 10
    assert tail(b"", 0, 10) is None


def test_files_are_not_needed(tmp_path: Path) -> None:
    """The development chain is there with its court, and again from its log, at once."""
    path = tmp_path / "devnet.sqlite3"
    devnet = Devnet(path, clock=Clock())
    contracts = devnet.contracts
    assert devnet.chain.code(contracts.court)
    assert devnet.chain.code(contracts.game)
    devnet.close()
    again = Devnet(path, clock=Clock())
    assert again.contracts == contracts
    again.close()
