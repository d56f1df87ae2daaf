"""The outbox: whatever node, chain and machine do, each transaction is in the chain once, or its failure is told."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.chain.kit import CHAIN_ID, PEOPLE, Town, address, anvil, embedded, key, town_of
from tests.chain.nodes import Wire, away, error, result
from tests.running import ROOT

from assay.chain.abi import encoded
from assay.chain.ethereum import Account
from assay.chain.outbox import Outbox, Pace
from assay.chain.outbox_file import KEPT, Wish, outbox_path
from assay.chain.transactions import Transaction
from assay.core.errors import (
    ChainFailed,
    EncodingError,
    InvalidRequest,
    NotFound,
    StoreError,
    TransactionFailed,
)
from assay.core.keys import Address

ADA, BOB = PEOPLE[5:7]
SOON = 20.0
QUICK = Pace(poll=0.01, again=0.05, stuck=0.1, lost=0.1, outage=0.05)


class Clock:
    """Seconds that tests let pass."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def town() -> Town:
    """A chain of the test's own."""
    return town_of(embedded())


@pytest.fixture
def wire(town: Town) -> Wire:
    """Between the outbox and the chain."""
    return Wire(town.web3.provider)


@pytest.fixture
def outbox(wire: Wire, tmp_path: Path) -> Iterator[Outbox]:
    """Ada's."""
    outbox = Outbox(tmp_path / "outbox", wire, ADA, CHAIN_ID, confirmations=0, pace=QUICK)
    yield outbox
    outbox.close()


def pay(town: Town, amount: int = 1) -> tuple[Address, bytes]:
    """A transfer to Bob."""
    return town.token.address.lower(), encoded("transfer", ("address", "uint256"), BOB.address, amount)


def steps(outbox: Outbox, name: str, state: str) -> None:
    """Until it has come so far."""
    for _ in range(100):
        if outbox.look(name).state == state:
            return
        outbox.step()
    raise AssertionError(f"{name} is {outbox.look(name).state}: {outbox.trouble}")


def run(args: list[Any]) -> subprocess.CompletedProcess[str]:
    """A process of its own, to its end."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    return subprocess.run(args, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT, env=environment)


def nonce(town: Town) -> int:
    """How many of Ada's are mined."""
    return town.web3.eth.get_transaction_count(address(ADA))


def test_a_transaction(town: Town, outbox: Outbox, wire: Wire) -> None:
    """Is mined, told with what it did, and the same when it is sent again under its name."""
    before = town.balance(BOB.address)
    sent = outbox.send("pay", *pay(town, 7))
    assert (sent.state, sent.nonce) == ("queued", None)
    mined = outbox.wait("pay", SOON)
    assert town.balance(BOB.address) == before + 7
    receipt: Any = town.web3.eth.get_transaction_receipt(mined.transaction)
    assert (mined.block, mined.gas_used, mined.ok) == (receipt["blockNumber"], receipt["gasUsed"], True)
    assert mined.paid == receipt["gasUsed"] * receipt["effectiveGasPrice"] > 0
    (log,) = mined.logs
    assert (log.address, log.block) == (town.token.address.lower(), mined.block)
    assert int.from_bytes(log.data, "big") == 7
    assert outbox.send("pay", *pay(town, 7)).state == "final"
    assert outbox.wait("pay", SOON) == mined
    assert len(wire.raws) == 1
    with pytest.raises(StoreError, match="name of its own"):
        outbox.send("pay", *pay(town, 8))
    with pytest.raises(NotFound, match="nobody"):
        outbox.wait("nobody", 1)


def test_what_no_node_would_take(town: Town, outbox: Outbox) -> None:
    """Is refused at once, and nothing is kept."""
    to, data = pay(town)
    for wrong in ("0x12", to.upper(), ""):
        with pytest.raises(EncodingError):
            outbox.send("pay", wrong, data)
    for name, size, gas in (
        ("", 4, None),
        ("n" * 201, 4, None),
        ("pay", 120_001, None),
        ("pay", 4, 21_000),
        ("pay", 4, 30_000_001),
    ):
        with pytest.raises(InvalidRequest):
            outbox.send(name, to, b"\1" * size, gas)
    assert outbox.unfinished() == []


def test_many_threads(town: Town, outbox: Outbox) -> None:
    """Nonces have no gaps, and each transaction its own, in the order in which they were kept."""
    before, first = town.balance(BOB.address), nonce(town)
    outbox.start()

    def some(who: int) -> None:
        for n in range(10):
            outbox.send(f"{who}/{n}", *pay(town, 1))
            outbox.send(f"{who}/{n}", *pay(town, 1))

    threads = [threading.Thread(target=some, args=(who,)) for who in range(5)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    for who in range(5):
        for n in range(10):
            outbox.wait(f"{who}/{n}", SOON)
    assert nonce(town) == first + 50
    assert town.balance(BOB.address) == before + 50
    assert {outbox.look(f"{who}/{n}").nonce for who in range(5) for n in range(10)} == set(range(first, first + 50))


def test_all_or_none_without_a_gap(town: Town, outbox: Outbox) -> None:
    """Several that belong together have neighbouring nonces, and one that is no good keeps all back."""
    with pytest.raises(InvalidRequest):
        outbox.send_all([Wish("a", *pay(town)), Wish("b", *pay(town), gas=5)])
    assert outbox.unfinished() == []
    outbox.send_all([Wish("a", *pay(town)), Wish("b", *pay(town, 2))])
    outbox.wait("b", SOON)
    first, second = outbox.look("a").nonce, outbox.look("b").nonce
    assert first is not None
    assert second == first + 1


def test_what_would_be_reverted(town: Town, outbox: Outbox, wire: Wire) -> None:
    """Costs nothing, is told with the contract's reason, and does not keep others back."""
    outbox.send("bad", town.channels.address.lower(), encoded("multicall", ("bytes[]",), [encoded("nothing", ())]))
    outbox.send("dear", *pay(town, 10**30))
    outbox.send("good", *pay(town))
    before = nonce(town)
    outbox.wait("good", SOON)
    for name in ("bad", "dear"):
        with pytest.raises(TransactionFailed):
            outbox.wait(name, SOON)
    assert nonce(town) == before + 1
    assert len(wire.raws) == 1


def test_what_is_reverted(town: Town, outbox: Outbox) -> None:
    """Costs gas, since it was to be sent unasked; why it failed is told."""
    to, data = (
        town.channels.address.lower(),
        encoded("claimCompact", ("address", "address", "uint40", "bytes"), BOB.address, BOB.address, 900, b"1"),
    )
    outbox.send("bad", to, data, 200_000)
    with pytest.raises(TransactionFailed, match="entries") as failed:
        outbox.wait("bad", SOON)
    assert failed.value.name == "bad"
    assert outbox.look("bad").state == "final"
    outbox.send("short", *pay(town), 30_000)
    with pytest.raises(TransactionFailed, match="used up its 30000 gas"):
        outbox.wait("short", SOON)


def test_one_that_needs_another(town: Town, outbox: Outbox, wire: Wire) -> None:
    """Waits until that is mined: it would be reverted before, and this is not the last word."""
    wire.rules["eth_sendRawTransaction"] = lambda _: result("0x")
    token, pair = town.token.address.lower(), (ADA.address, BOB.address)
    outbox.send("approve", token, encoded("approve", ("address", "uint256"), ADA.address, 5))
    outbox.send("take", token, encoded("transferFrom", ("address", "address", "uint256"), *pair, 5))
    for _ in range(10):
        outbox.step()
    assert outbox.look("approve").state == "pending"
    assert outbox.look("take").state == "queued"
    wire.rules.clear()
    assert outbox.wait("take", SOON).ok


# ---- a machine that fails


def test_it_is_kept_before_it_is_broadcast(town: Town, outbox: Outbox, wire: Wire, tmp_path: Path) -> None:
    """After a crash at the broadcast another outbox goes on with the very same bytes."""
    wire.rules["eth_sendRawTransaction"] = away
    outbox.send("pay", *pay(town, 5))
    with pytest.raises(ChainFailed, match="connection refused"):
        outbox.step()
    outbox.close()
    wire.rules.clear()
    before = town.balance(BOB.address)
    again = Outbox(tmp_path / "outbox", wire, ADA, CHAIN_ID, confirmations=0, pace=QUICK)
    assert again.wait("pay", SOON).ok
    assert town.balance(BOB.address) == before + 5
    assert len(set(wire.raws)) == 1
    again.close()


def test_an_answer_that_is_lost(town: Town, outbox: Outbox, wire: Wire) -> None:
    """The transaction was broadcast, and mined once."""

    def lost(params: Sequence[object]) -> Any:
        wire.provider.make_request("eth_sendRawTransaction", params)
        raise TimeoutError("no answer")

    wire.rules["eth_sendRawTransaction"] = lost
    before = town.balance(BOB.address)
    outbox.send("pay", *pay(town, 5))
    assert outbox.wait("pay", SOON).ok
    assert town.balance(BOB.address) == before + 5


@pytest.mark.parametrize(
    "said", ["already known", "AlreadyKnown", "known transaction: 0x12", "nonce too low: next nonce 5"]
)
def test_what_nodes_say_to_what_they_have(town: Town, outbox: Outbox, wire: Wire, said: str) -> None:
    """Is no failure."""

    def known(params: Sequence[object]) -> Any:
        wire.provider.make_request("eth_sendRawTransaction", params)
        return error(said)

    wire.rules["eth_sendRawTransaction"] = known
    outbox.send("pay", *pay(town))
    assert outbox.wait("pay", SOON).ok
    assert outbox.trouble == ""


@pytest.mark.parametrize(
    "said",
    [
        "replacement transaction underpriced",
        "transaction underpriced: tip needed",
        "max fee per gas less than block base fee",
    ],
)
def test_a_node_that_wants_more(town: Town, outbox: Outbox, wire: Wire, said: str) -> None:
    """Is given more, an eighth at a time, with the same nonce."""

    def dear(params: Sequence[object]) -> Any:
        return error(said) if Transaction.decode(bytes.fromhex(str(params[0])[2:])).most < 2 * 10**9 else None

    wire.rules["eth_sendRawTransaction"] = dear
    outbox.send("pay", *pay(town))
    assert outbox.wait("pay", SOON).ok
    tried = [Transaction.decode(raw) for raw in wire.raws]
    assert len({each.nonce for each in tried}) == 1
    steps = [after.most * 8 >= before.most * 9 and after.tip * 8 >= before.tip * 9 for before, after in pairwise(tried)]
    assert steps
    assert all(steps)


def test_no_ether(town: Town, wire: Wire) -> None:
    """Is told with the address that needs some; once it has some, what was to be sent is sent."""
    poor = key(4711)
    outbox = Outbox(None, wire, poor, CHAIN_ID, confirmations=0, pace=QUICK)
    outbox.send("approve", town.token.address.lower(), encoded("approve", ("address", "uint256"), BOB.address, 1))
    with pytest.raises(ChainFailed, match=f"funds.*gas is paid by {poor.address}"):
        outbox.wait("approve", 0.5)
    town.web3.eth.send_raw_transaction(
        Account.from_key(PEOPLE[0].secret)
        .sign_transaction({
            "nonce": town.web3.eth.get_transaction_count(address(PEOPLE[0])), "to": address(poor), "value": 10**18,
            "gas": 21_000, "gasPrice": 10**9, "chainId": CHAIN_ID,
        })
        .raw_transaction
    )  # fmt: skip
    assert outbox.wait("approve", SOON).ok
    outbox.close()


def test_outages(town: Town, outbox: Outbox, wire: Wire) -> None:
    """Are waited out; meanwhile what is wrong is told to whoever waits."""
    outbox.start()
    wire.rules["*"] = away
    outbox.send("pay", *pay(town))
    with pytest.raises(ChainFailed, match=r"not final after 0.3 s .*connection refused.*wait on"):
        outbox.wait("pay", 0.3)
    wire.rules.clear()
    assert outbox.wait("pay", SOON).ok


LIES = {
    "no object": lambda _: [],
    "no result": lambda _: {},
    "null": lambda _: result(None),
    "a number": lambda _: result(7),
    "a list": lambda _: result([1, 2]),
    "text": lambda _: result("ada"),
    "an empty text": lambda _: result("0x"),
    "a giant number": lambda _: result("0x" + "f" * 65),
    "a negative number": lambda _: result("0x-1"),
    "an underscore": lambda _: result("0x1_0"),
    "an object": lambda _: result({"number": "0x1"}),
    "an error that is none": lambda _: {"error": "no"},
    "an error of errors": lambda _: {"error": {"code": "x", "message": {"a": ["\x1b[2J"]}, "data": 5}},
    "a block of another kind": lambda _: result({"number": 1, "hash": "0x12", "timestamp": None, "baseFeePerGas": []}),
}


@pytest.mark.parametrize(
    "method",
    [
        "eth_chainId",
        "eth_getBlockByNumber",
        "eth_getTransactionCount",
        "eth_maxPriorityFeePerGas",
        "eth_estimateGas",
        "eth_getTransactionReceipt",
    ],
)
@pytest.mark.parametrize("lie", LIES)
def test_a_node_that_lies(town: Town, wire: Wire, lie: str, method: str) -> None:
    """Is found out with an error that can be read, and no harm is done: told the truth again, all goes on."""
    outbox = Outbox(None, wire, ADA, CHAIN_ID, confirmations=0, pace=QUICK)
    wire.rules[method] = LIES[lie]
    outbox.send("pay", *pay(town))
    before = town.balance(BOB.address)
    for _ in range(2):
        outbox._try_step()
    assert "\x1b" not in outbox.trouble
    wire.rules.clear()
    assert outbox.wait("pay", SOON).ok
    assert town.balance(BOB.address) == before + 1
    outbox.close()


def test_a_receipt_of_something_else(town: Town, outbox: Outbox, wire: Wire) -> None:
    """Or with another's events is not believed."""
    outbox.send("pay", *pay(town))
    outbox.step()
    own = Transaction.decode(wire.raws[-1]).hash
    true = dict(town.web3.provider.make_request("eth_getTransactionReceipt", ["0x" + own.hex()])["result"])  # type: ignore[arg-type]
    for change in (
        {"transactionHash": "0x" + "1" * 64}, {"blockHash": "0x" + "1" * 64}, {"blockNumber": "0x1"}, {"status": "0x2"},
        {"gasUsed": "0xffffffffffff"}, {"logs": None}, {"logs": true["logs"] * 20_000}, {"logs": [7]},
        {"logs": [{**true["logs"][0], "topics": ["0x12"]}]},
        {"logs": [{**true["logs"][0], "data": "0x" + "00" * 70_000}]},
        {"logs": [{**true["logs"][0], "removed": True}]}, {"logs": [{**true["logs"][0], "address": "0x12"}]},
    ):  # fmt: skip
        wire.rules["eth_getTransactionReceipt"] = lambda _, change=change: result({**true, **change})
        with pytest.raises(ChainFailed, match="ask another node"):
            outbox.step()
    wire.rules.clear()
    assert outbox.wait("pay", SOON).ok


def test_a_node_of_another_chain(town: Town, outbox: Outbox, wire: Wire) -> None:
    """Gets nothing; also after an outage, when another one may answer."""
    wire.rules["eth_chainId"] = lambda _: result("0x1")
    outbox.send("pay", *pay(town))
    with pytest.raises(ChainFailed, match="is on chain 1, not 31337"):
        outbox.step()
    wire.rules.clear()
    outbox.wait("pay", SOON)
    sent = len(wire.raws)
    outbox.send("more", *pay(town))
    wire.rules["*"] = away
    with pytest.raises(ChainFailed):
        outbox.step()
    wire.rules = {"eth_chainId": lambda _: result("0x1")}
    with pytest.raises(ChainFailed, match="is on chain 1"):
        outbox.step()
    assert len(wire.raws) == sent


@pytest.mark.parametrize("most", [1, 10**30])
def test_fees_that_a_node_makes_up(town: Town, wire: Wire, most: int) -> None:
    """Or wants to see raised for ever, are not paid: what is signed stays under a limit, the tip far under it."""
    outbox = Outbox(None, wire, ADA, CHAIN_ID, confirmations=0, pace=QUICK, max_fee=5 * 10**9)
    block = town.web3.provider.make_request("eth_getBlockByNumber", ["latest", False])["result"]  # type: ignore[arg-type]
    wire.rules["eth_maxPriorityFeePerGas"] = lambda _: result(hex(most))
    wire.rules["eth_getBlockByNumber"] = lambda _: result({**block, "baseFeePerGas": hex(most)})
    wire.rules["eth_sendRawTransaction"] = lambda _: error("transaction underpriced")
    outbox.send("pay", *pay(town))
    for _ in range(400):
        outbox._try_step()
    tried = [Transaction.decode(raw) for raw in wire.raws]
    assert max(each.tip for each in tried) <= 5 * 10**8
    assert max(each.most for each in tried) <= 5 * 10**9
    assert "allow more, or wait" in outbox.trouble
    outbox.close()


# ---- time


def test_one_that_waits_is_sent_again_and_then_with_more(town: Town, wire: Wire) -> None:
    """By a clock that nobody sets: first as it was, then with higher fees, always with one nonce."""
    clock = Clock()
    outbox = Outbox(None, wire, ADA, CHAIN_ID, confirmations=0, clock=clock, pace=Pace(again=10, stuck=25))
    wire.rules["eth_sendRawTransaction"] = lambda _: result("0x")
    outbox.send("pay", *pay(town))
    for _ in range(61):
        outbox.step()
        clock.now += 1
    tried = [Transaction.decode(raw) for raw in wire.raws]
    assert [each.most for each in tried] == sorted(each.most for each in tried)
    assert [wire.raws.count(raw) for raw in dict.fromkeys(wire.raws)] == [3, 3, 2]
    assert len({each.nonce for each in tried}) == 1
    wire.rules.clear()
    wire.provider.make_request("eth_sendRawTransaction", ["0x" + tried[0].raw.hex()])
    outbox.step()
    assert outbox.result("pay").transaction == tried[0].hash  # type: ignore[union-attr]
    outbox.close()


def test_somebody_else_with_the_key(town: Town, outbox: Outbox, wire: Wire) -> None:
    """Whose transaction took the nonce: that ours failed is told, and what follows gets nonces of its own."""
    wire.rules["eth_sendRawTransaction"] = lambda _: result("0x")
    outbox.send("ours", *pay(town))
    outbox.step()
    town.send(ADA, town.token.functions.transfer(address(BOB), 3))
    wire.rules.clear()
    with pytest.raises(TransactionFailed, match="another program"):
        outbox.wait("ours", SOON)
    assert outbox.send("next", *pay(town)).name == "next"
    assert outbox.wait("next", SOON).ok


def test_a_node_that_is_behind(town: Town, outbox: Outbox, wire: Wire) -> None:
    """Knows of no receipt and of an older nonce now and then; nothing is sent twice, and nothing fails for it."""
    outbox.start()
    turns = {"n": 0}

    def behind(_params: Sequence[object]) -> Any:
        turns["n"] += 1
        return result(None) if turns["n"] % 2 else None

    def older(params: Sequence[object]) -> Any:
        turns["n"] += 1
        return result(hex(max(0, nonce(town) - 2))) if turns["n"] % 3 else None

    wire.rules["eth_getTransactionReceipt"] = behind
    wire.rules["eth_getTransactionCount"] = older
    before = town.balance(BOB.address)
    for n in range(8):
        outbox.send(f"{n}", *pay(town))
    for n in range(8):
        assert outbox.wait(f"{n}", SOON).ok
    assert town.balance(BOB.address) == before + 8


@pytest.mark.parametrize("seed", range(12))
def test_everything_at_once(town: Town, wire: Wire, tmp_path: Path, seed: int) -> None:
    """A node that fails, loses answers, is behind and wants more, under programs that are killed: each pays once."""
    dice, pace = Random(seed), replace(QUICK, lost=1000)

    def chaos(method: str) -> Callable[[Sequence[object]], Any]:
        def rule(params: Sequence[object]) -> Any:
            what = dice.random()
            if what < 0.1:
                return away(params)
            if what < 0.2:
                wire.provider.make_request(method, params)
                raise TimeoutError("no answer")
            lies = {
                "eth_getTransactionReceipt": result(None),
                "eth_getTransactionCount": result(hex(max(0, nonce(town) - dice.randrange(3)))),
                "eth_sendRawTransaction": error(dice.choice(["underpriced", "already known", "nonce too low"])),
                "eth_estimateGas": error("rate limit", -32005),
            }
            return lies.get(method) if what < 0.4 else None

        return rule

    methods = ("eth_blockNumber", "eth_getBlockByNumber", "eth_getTransactionReceipt", "eth_getTransactionCount")
    for method in (*methods, "eth_sendRawTransaction", "eth_estimateGas", "eth_maxPriorityFeePerGas", "eth_chainId"):
        wire.rules[method] = chaos(method)
    before, first = town.balance(BOB.address), nonce(town)
    for life in range(8):
        outbox = Outbox(tmp_path / "outbox", wire, ADA, CHAIN_ID, confirmations=0, pace=pace)
        for n in range(life + 2):
            outbox.send(f"{n}", *pay(town, 10**n))
        for _ in range(dice.randrange(12)):
            outbox._try_step()
        outbox.close()
    outbox = Outbox(tmp_path / "outbox", wire, ADA, CHAIN_ID, confirmations=0, pace=pace)
    for n in range(9):
        assert outbox.wait(f"{n}", 60).ok
    assert town.balance(BOB.address) == before + 111_111_111
    assert nonce(town) == first + 9
    outbox.close()


# ---- the file


def test_one_process_for_a_key(town: Town, tmp_path: Path, wire: Wire) -> None:
    """Another one is refused while the first lives, even one that was not closed properly."""
    path = outbox_path(tmp_path / "new", CHAIN_ID, ADA.address)
    first = Outbox(path, wire, ADA, CHAIN_ID)
    code = (
        "import sys; from pathlib import Path\n"
        "from assay.chain.outbox_file import OutboxFile\n"
        "try: OutboxFile(Path(sys.argv[1]), 31337, sys.argv[2])\n"
        "except Exception as error: print(error)\n"
        "else: print('open'); import os, signal; os.kill(os.getpid(), signal.SIGKILL)\n"
    )

    def other() -> str:
        return run([sys.executable, "-c", code, path, ADA.address]).stdout

    assert "another process sends with this key: stop it" in other()
    with pytest.raises(StoreError, match="another process"):
        Outbox(path, wire, ADA, CHAIN_ID)
    first.close()
    assert other().startswith("open") or other() == ""
    Outbox(path, wire, ADA, CHAIN_ID).close()


def test_an_outbox_of_another_key_or_chain(town: Town, tmp_path: Path, wire: Wire) -> None:
    """Is not sent from; nor is a file that is no outbox."""
    Outbox(tmp_path / "outbox", wire, ADA, CHAIN_ID).close()
    for who, chain in ((BOB, CHAIN_ID), (ADA, 1)):
        with pytest.raises(StoreError, match="another key, chain or version"):
            Outbox(tmp_path / "outbox", wire, who, chain)
    (tmp_path / "text").write_text("not a database, but long enough to be taken for one" * 100)
    with pytest.raises(StoreError, match="not a database"):
        Outbox(tmp_path / "text", wire, ADA, CHAIN_ID)
    with pytest.raises(StoreError, match="check disk"):
        Outbox(tmp_path / "text" / "below", wire, ADA, CHAIN_ID)


def test_old_ones_are_kept_slim(town: Town, outbox: Outbox, tmp_path: Path) -> None:
    """Of each its name and outcome, so that it is not sent again; of those of long ago no more than that."""
    number = KEPT + 20
    first = town.balance(BOB.address)
    outbox.start()
    for n in range(number):
        outbox.send(f"{n}", *pay(town), 60_000)
    outbox.wait(f"{number - 1}", 60)
    assert outbox.send("0", *pay(town), 60_000).state == "final"
    old, new = outbox.wait("0", 1), outbox.wait(f"{number - 1}", 1)
    assert (len(old.logs), len(new.logs)) == (0, 1)
    assert old.paid == new.paid > 0
    assert town.balance(BOB.address) == first + number
    assert outbox._file._db.execute("SELECT count(*) FROM attempts").fetchone()[0] <= KEPT + 1
    with pytest.raises(StoreError, match="name of its own"):
        outbox.send("0", *pay(town, 2), 60_000)


# ---- processes that are killed, reorganisations, and full pools, on a real node

_PROCESS = """
import sys
from pathlib import Path
from tests.chain.kit import CHAIN_ID, PEOPLE
from tests.chain.nodes import Wire, kill
from tests.chain.test_outbox import QUICK
from assay.chain.node import HttpProvider
from assay.chain.outbox import Outbox
from assay.chain.abi import encoded
path, url, token, when = sys.argv[1:]
wire = Wire(HttpProvider(url))
count = 0
def rule(params):
    global count
    count += 1
    if when == f"before {count}":
        kill(params)
    if when == f"after {count}":
        wire.provider.make_request("eth_sendRawTransaction", params)
        kill(params)
wire.rules["eth_sendRawTransaction"] = rule
outbox = Outbox(Path(path), wire, PEOPLE[5], CHAIN_ID, confirmations=0, pace=QUICK)
for n in range(5):
    outbox.send(f"{n}", token, encoded("transfer", ("address", "uint256"), PEOPLE[6].address, 10**n))
for n in range(5):
    outbox.wait(f"{n}", 30)
print("done")
"""


@pytest.fixture(scope="module")
def real() -> Iterator[Town]:
    """A real node."""
    with anvil() as web3:
        yield Town(web3)


@pytest.mark.slow
def test_kill_9_at_every_broadcast(real: Town, tmp_path: Path) -> None:
    """Before it, and between it and its answer: the next process goes on, and everything is paid once."""
    before = real.balance(BOB.address)
    url = real.web3.provider.endpoint_uri  # type: ignore[union-attr]
    outcomes = []
    for when in ("before 1", "after 1", "after 2", "before 2", "never"):
        ended = run([sys.executable, "-c", _PROCESS, tmp_path / "outbox", url, real.token.address.lower(), when])
        outcomes.append(ended.stdout.strip() or ended.returncode)
    assert outcomes[:3] == [-9, -9, -9]
    assert outcomes[-1] == "done", ended.stderr
    assert real.balance(BOB.address) == before + 11_111


@pytest.mark.slow
@pytest.mark.parametrize("how", ["reorg", "revert"])
def test_a_reorganisation(real: Town, how: str) -> None:
    """Takes back a block before it is final: what was in it is sent again, and mined once."""
    wire = Wire(real.web3.provider)
    outbox = Outbox(None, wire, ADA, CHAIN_ID, confirmations=3, pace=QUICK)
    ask, before = real.web3.provider.make_request, real.balance(BOB.address)
    kept = ask("evm_snapshot", [])["result"]  # type: ignore[arg-type]
    outbox.send("one", *pay(real, 3))
    outbox.send("two", *pay(real, 4))
    steps(outbox, "two", "mined")
    assert real.balance(BOB.address) == before + 7
    if how == "reorg":
        assert "error" not in ask("anvil_reorg", [2, []])  # type: ignore[arg-type]
    else:
        assert ask("evm_revert", [kept])["result"] is True  # type: ignore[arg-type]
    assert real.balance(BOB.address) == before
    for _ in range(20):
        outbox.step()
    assert {outbox.look(each).state for each in ("one", "two")} == {"mined"}
    assert real.balance(BOB.address) == before + 7
    for _ in range(3):
        ask("evm_mine", [])  # type: ignore[arg-type]
    assert outbox.wait("two", SOON).block >= outbox.wait("one", SOON).block
    assert real.balance(BOB.address) == before + 7
    outbox.close()


@pytest.mark.slow
def test_a_reorganisation_of_what_was_final(real: Town) -> None:
    """What the chain has lost is sent again before anything else, with the nonce that it had."""
    outbox = Outbox(None, real.web3.provider, ADA, CHAIN_ID, confirmations=0, pace=QUICK)
    ask, before = real.web3.provider.make_request, real.balance(BOB.address)
    kept = ask("evm_snapshot", [])["result"]  # type: ignore[arg-type]
    outbox.send("one", *pay(real, 3))
    first = outbox.wait("one", SOON)
    assert ask("evm_revert", [kept])["result"] is True  # type: ignore[arg-type]
    outbox.send("two", *pay(real, 4))
    assert outbox.wait("two", SOON).ok
    assert outbox.wait("one", SOON).transaction == first.transaction
    assert real.balance(BOB.address) == before + 7
    outbox.close()


@pytest.mark.slow
def test_one_that_is_stuck(real: Town) -> None:
    """The base fee rises over what was offered: offered more, it is mined, once."""
    wire = Wire(real.web3.provider)
    outbox = Outbox(None, wire, ADA, CHAIN_ID, confirmations=0, pace=QUICK)
    ask, before = real.web3.provider.make_request, real.balance(BOB.address)
    ask("evm_setAutomine", [False])  # type: ignore[arg-type]
    try:
        outbox.send("pay", *pay(real, 5))
        outbox.send("more", *pay(real, 6))
        steps(outbox, "more", "pending")
        ask("anvil_setNextBlockBaseFeePerGas", [hex(20 * 10**9)])  # type: ignore[arg-type]
        for _ in range(40):
            ask("evm_mine", [])  # type: ignore[arg-type]
            outbox.step()
            if outbox.look("more").state == "final":
                break
        mined = outbox.wait("more", 1)
    finally:
        ask("evm_setAutomine", [True])  # type: ignore[arg-type]
        ask("anvil_setNextBlockBaseFeePerGas", ["0x0"])  # type: ignore[arg-type]
        ask("evm_mine", [])  # type: ignore[arg-type]
    assert real.balance(BOB.address) == before + 11
    assert mined.paid > mined.gas_used * 10**9
    tried = [Transaction.decode(raw) for raw in dict.fromkeys(wire.raws)]
    assert len({each.nonce for each in tried}) == 2
    assert len(tried) > 2
    outbox.close()
