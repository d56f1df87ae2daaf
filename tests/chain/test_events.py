"""Events of channels: each once, in order, whatever chain and node do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest
from tests.chain.kit import CHAIN_ID, PEOPLE, Town, anvil, embedded, town_of
from tests.chain.nodes import Wire, away, error, result

from assay.chain.events import MAX_BLOCKS, Event, Events, Kind
from assay.chain.node import Node
from assay.core.errors import ChainFailed

ADA, BOB = PEOPLE[5:7]


class Bench:
    """Deposits, and who hears of them."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.wire = Wire(town.web3.provider)
        self.first = town.web3.eth.block_number + 1
        self.salt = town.web3.eth.block_number * 1000

    def events(self, confirmations: int = 0, kind: Kind = "Deposited", first: int | None = None) -> Events:
        """From now on."""
        return Events(
            Node(self.wire, CHAIN_ID), self.town.channels.address.lower(), kind, first or self.first,
            confirmations=confirmations, poll=0.01,
        )  # fmt: skip

    def deposit(self, amount: int) -> None:
        """One more."""
        self.salt += 1
        self.town.deposit(ADA, self.town.terms(ADA, BOB, self.salt), amount)


@pytest.fixture
def bench() -> Bench:
    """A chain of the test's own."""
    town = town_of(embedded())
    assert town.channels
    return Bench(town)


def amounts(events: list[Event]) -> list[int]:
    """Of events."""
    return [each.amount for each in events]


def test_each_once(bench: Bench) -> None:
    """In order, also by another who begins where this one stopped."""
    events = bench.events()
    assert events.poll() == []
    bench.deposit(1)
    bench.deposit(2)
    assert amounts(events.poll()) == [1, 2]
    assert events.poll() == []
    bench.deposit(3)
    assert amounts(bench.events(first=events.next).poll()) == [3]
    assert amounts(events.poll()) == [3]


def test_confirmations(bench: Bench) -> None:
    """What is not deep enough is not told yet."""
    events = bench.events(confirmations=2)
    bench.deposit(1)
    bench.deposit(2)
    assert events.poll() == []
    bench.deposit(3)
    assert amounts(events.poll()) == [1]
    bench.deposit(4)
    assert amounts(events.poll()) == [2]


def test_a_thread_that_listens(bench: Bench) -> None:
    """Hears all, through outages, until it is closed."""
    events, heard = bench.events(), []
    thread = threading.Thread(target=lambda: [heard.append(each.amount) for each in events])
    thread.start()
    bench.deposit(1)
    _until(lambda: heard == [1])
    bench.wire.rules["*"] = away
    _until(lambda: "connection refused" in events.trouble)
    bench.deposit(2)
    bench.wire.rules.clear()
    bench.deposit(3)
    _until(lambda: heard == [1, 2, 3])
    assert events.trouble == ""
    events.close()
    thread.join(5)
    assert not thread.is_alive()


def test_a_node_that_gives_few_at_once(bench: Bench) -> None:
    """Is asked for fewer blocks, until it answers; nothing is left out."""
    for n in range(12):
        bench.deposit(n + 1)
    events = bench.events()

    def few(params: Sequence[Any]) -> Any:
        blocks = int(params[0]["toBlock"], 16) - int(params[0]["fromBlock"], 16) + 1
        return error("query returned more than 3 results") if blocks > 3 else None

    bench.wire.rules["eth_getLogs"] = few
    heard: list[int] = []
    for _ in range(30):
        with suppress(ChainFailed):
            heard += amounts(events.poll())
    assert heard == list(range(1, 13))


def test_a_node_that_is_behind(bench: Bench) -> None:
    """And does not have the blocks that it is asked about, is not taken for one that says that nothing happened."""
    bench.deposit(1)
    events = bench.events()
    bench.wire.rules["eth_getLogs"] = lambda _: result([])

    def behind(params: Sequence[Any]) -> Any:
        return None if params[0] == "latest" else result(None)

    bench.wire.rules["eth_getBlockByNumber"] = behind
    with pytest.raises(ChainFailed, match="does not have a block"):
        events.poll()
    bench.wire.rules.clear()
    assert amounts(events.poll()) == [1]


def test_events_of_another_shape(bench: Bench) -> None:
    """Are refused: members too large, too few or too many."""
    bench.deposit(1)
    events = bench.events()
    topic = "0x" + events._topic.hex()
    (log,) = bench.wire.provider.make_request(
        "eth_getLogs", [{"topics": [topic], "fromBlock": hex(bench.first), "toBlock": hex(bench.first)}]
    )["result"]
    for change in (
        {"data": "0x"}, {"data": "0x" + "0" * 128}, {"data": "0x" + "f" * 64}, {"topics": log["topics"][:3]},
        {"topics": [*log["topics"][:2], "0x" + "f" * 64, log["topics"][3]]},
    ):  # fmt: skip
        bench.wire.rules["eth_getLogs"] = lambda _, change=change: result([{**log, **change}])
        with pytest.raises(ChainFailed, match="cannot be read"):
            events.poll()
    assert events.next == bench.first


def test_a_long_time_without_events(bench: Bench) -> None:
    """Is passed over in steps."""
    bench.town.deposit(ADA, bench.town.terms(ADA, BOB, 1), 5)
    number = 2 * MAX_BLOCKS + 10
    for _ in range(number):
        bench.town.web3.provider.make_request("evm_mine", [])
    events, heard, polls = bench.events(), [], 0
    while events.next <= bench.town.web3.eth.block_number:
        heard += amounts(events.poll())
        polls += 1
    assert (heard, polls) == ([5], 3)


@pytest.fixture(scope="module")
def real() -> Iterator[Town]:
    """A real node."""
    with anvil() as web3:
        yield Town(web3)


@pytest.mark.slow
def test_a_reorganisation(real: Town) -> None:
    """Of less than the confirmations: what was taken back is never told, and what came instead is."""
    assert real.channels
    bench, ask = Bench(real), real.web3.provider.make_request
    events = bench.events(confirmations=3)
    kept: Any = ask("evm_snapshot", [])
    bench.deposit(1)
    bench.deposit(2)
    assert events.poll() == []
    assert ask("evm_revert", [kept["result"]])["result"] is True
    bench.deposit(3)
    for _ in range(3):
        ask("evm_mine", [])
    assert amounts(events.poll()) == [3]


def _until(holds: Any) -> None:
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)
