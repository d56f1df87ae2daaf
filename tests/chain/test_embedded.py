"""The chain in this process: it keeps what it said, refuses what a node refuses, and answers as one."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.chain.kit import CHAIN_ID, NOBODY, PEOPLE, RICH, Clock, Town, address, anvil, embedded, town_of
from web3.exceptions import ContractLogicError, Web3RPCError

from assay.chain.embedded import ChainError, EmbeddedChain
from assay.chain.ethereum import Account, Web3
from assay.chain.provider import EmbeddedProvider
from assay.chain.rpc import ChainRpc, RpcError
from assay.chain.transactions import MAX_TRANSACTION, Transaction
from assay.core.errors import EncodingError, StoreError
from assay.core.keys import Key

ADA, BOB = PEOPLE[1:3]


def signed(who: Key, **other: Any) -> bytes:
    """A payment."""
    base = {"chainId": CHAIN_ID, "nonce": 0, "gas": 50_000, "maxFeePerGas": 10**9, "maxPriorityFeePerGas": 10**9,
            "to": address(BOB), "value": 7, "data": b""}  # fmt: skip
    return bytes(Account.from_key(who.secret).sign_transaction({**base, **other}).raw_transaction)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Of a log."""
    return tmp_path / "chain.sqlite3"


def test_it_goes_on_where_it_was(file: Path) -> None:
    """After a restart: balances, contracts, events, times and hashes are the same."""
    clock = Clock()
    chain = embedded(file, clock)
    town = town_of(chain)
    terms = town.terms(ADA, BOB)
    town.deposit(ADA, terms, 1000)
    chain.pass_time(100_000)
    clock.now += 50
    town.send(BOB, town.channels.functions.claim([town.claim_of(ADA, terms, 300)]))
    blocks = [chain.block(number) for number in range(chain.head.number + 1)]
    chain.close()
    again = embedded(file, clock)
    assert [again.block(number) for number in range(again.head.number + 1)] == blocks
    other = Town(Web3(EmbeddedProvider(again)))
    channels = other.web3.eth.contract(address=town.channels.address, abi=town.channels.abi)
    assert channels.functions.channels(terms.channel(town.domain)).call() == [1000, 300]
    assert again.head.timestamp >= 100_000 + 1_800_000_050
    clock.now += 10
    again.send(signed(PEOPLE[5], nonce=again.nonce(PEOPLE[5].address)))
    assert again.head.timestamp == 100_000 + 1_800_000_060  # time that was let pass is not given back
    again.close()


def test_a_log_of_another_chain(file: Path) -> None:
    """Is not taken for this one's; nor is a file that is none."""
    embedded(file).close()
    with pytest.raises(StoreError, match="another chain"):
        EmbeddedChain(file, chain_id=5, balances={}, clock=Clock())
    file.write_bytes(b"no database" * 100)
    with pytest.raises(StoreError, match="cannot be used"):
        embedded(file)


def test_what_cannot_be_kept_has_not_happened(file: Path) -> None:
    """A log that cannot be written: the sender hears of it, and nothing changes."""
    chain = embedded(file)
    lock = sqlite3.connect(file, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    chain._log.execute("PRAGMA busy_timeout = 10")
    with pytest.raises(StoreError, match="cannot be written"):
        chain.send(signed(ADA))
    lock.execute("ROLLBACK")
    assert (chain.nonce(ADA.address), chain.head.number) == (0, 0)
    chain.send(signed(ADA))
    assert chain.balance(BOB.address) == RICH + 7
    chain.close()


SENDER = """
import sys
from pathlib import Path
from tests.chain.kit import PEOPLE, embedded
from tests.chain.test_embedded import signed
chain = embedded(Path(sys.argv[1]))
for nonce in range(10_000):
    chain.send(signed(PEOPLE[1], nonce=nonce))
    print(nonce, flush=True)
"""


def test_kill_dash_nine(file: Path) -> None:
    """Whatever was acknowledged is there afterwards."""
    with subprocess.Popen([sys.executable, "-c", SENDER, str(file)], stdout=subprocess.PIPE, text=True) as sender:
        assert sender.stdout is not None
        last = next(int(line) for line in sender.stdout if int(line) == 25)
        os.kill(sender.pid, signal.SIGKILL)
        rest = sender.stdout.read().split()
    last = int(rest[-1]) if rest else last
    chain = embedded(file)
    assert chain.nonce(ADA.address) in (last + 1, last + 2)
    assert chain.balance(BOB.address) == RICH + 7 * chain.nonce(ADA.address)
    chain.close()


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"nonce": 1}, "nonce too high"),
        ({"chainId": 1}, "for chain 1"),
        ({"value": RICH}, "insufficient funds"),
        ({"gas": 30_000_001}, "gas"),
        ({"gas": 20_999}, "intrinsic gas too low"),
    ],
)
def test_refused_transactions(other: dict[str, Any], why: str) -> None:
    """As a node refuses them; a refused one changes nothing."""
    chain = embedded()
    with pytest.raises(ChainError, match=why):
        chain.send(signed(ADA, **other))
    assert chain.head.number == 0
    name = chain.send(signed(ADA))
    assert chain.send(signed(ADA)) == name  # is here already
    with pytest.raises(ChainError, match="nonce too low"):
        chain.send(signed(ADA, value=8))


def code(runtime: str) -> str:
    """Of a contract, in hexadecimal, with the code that deploys it: CODECOPY and RETURN."""
    return f"0x60{len(runtime) // 2:02x}600c60003960{len(runtime) // 2:02x}6000f3{runtime}"


def deployed(chain: EmbeddedChain, runtime: str, nonce: int = 0) -> str:
    """A contract's address."""
    name = chain.send(signed(ADA, nonce=nonce, to=b"", data=code(runtime), value=0, gas=1_000_000))
    block = chain.place(name)
    assert block is not None
    assert block.outcome is not None
    assert block.outcome.contract is not None
    return block.outcome.contract


def test_estimates_end() -> None:
    """Also of code that wants more gas than it uses, up to nearly all of a block's, or more than there is."""
    chain = embedded()
    rpc = ChainRpc(chain)
    for nonce, least in enumerate((100_000, 25_000_000, 29_000_000)):
        greedy = deployed(chain, f"5a63{least:08x}10600f5760006000fd5b00", nonce)  # revert if GAS < least
        found = int(str(rpc.answer("eth_estimateGas", [{"from": ADA.address, "to": greedy}])), 16)
        assert least < found <= least * 1.1 + 50_000
    never = deployed(chain, "60006000fd", 3)
    with pytest.raises(RpcError, match="reverted"):
        rpc.answer("eth_estimateGas", [{"to": never}])


def test_answers_are_bounded() -> None:
    """However much is asked for at once."""
    chain = embedded()
    rpc = ChainRpc(chain)
    for rewards in ("x" * 1_000_000, [1] * 101, 5):
        with pytest.raises(RpcError, match="percentiles"):
            rpc.answer("eth_feeHistory", ["0x400", "latest", rewards])
    loud = deployed(chain, "620f42406000a000")  # LOG0 of a million bytes
    for nonce in range(1, 6):
        chain.send(signed(ADA, nonce=nonce, to=Web3.to_checksum_address(loud), value=0, gas=20_000_000))
    with pytest.raises(RpcError, match="fewer blocks"):
        rpc.answer("eth_getLogs", [{"fromBlock": "0x0"}])
    assert len(rpc.answer("eth_getLogs", [{"fromBlock": "0x2", "toBlock": "0x3"}])) == 2  # type: ignore[arg-type]
    wide = deployed(chain, "622dc6c06000f3", 6)  # RETURN of three million bytes
    with pytest.raises(RpcError, match="gives back more"):
        rpc.answer("eth_call", [{"to": wide}])


def test_only_the_latest_state_is_there() -> None:
    """A question about an earlier one is refused, not answered with another."""
    chain = embedded()
    chain.send(signed(ADA))
    rpc = ChainRpc(chain)
    for at in ("latest", "pending", "0x1"):
        assert rpc.answer("eth_getBalance", [BOB.address, at]) == hex(RICH + 7)
    for method, params in (("eth_getBalance", [BOB.address]), ("eth_call", [{}]), ("eth_getCode", [BOB.address])):
        with pytest.raises(RpcError, match="only the latest"):
            rpc.answer(method, [*params, "0x0"])


def test_a_contract_that_ends_as_it_begins() -> None:
    """SELFDESTRUCT in the transaction that makes it leaves nothing behind (EIP-6780)."""
    chain = embedded()
    name = chain.send(signed(ADA, to=b"", data="0x600160005533ff", value=9, gas=1_000_000))  # SSTORE, SELFDESTRUCT
    block = chain.place(name)
    assert block is not None
    assert block.outcome is not None
    assert block.outcome.ok
    where = block.outcome.contract or ""
    assert (chain.code(where), chain.storage(where, 0), chain.balance(where)) == (b"", 0, 0)


def test_what_is_looked_at_is_not_kept() -> None:
    """Accounts that a transaction asks for and that are empty cost the next ones nothing."""
    chain = embedded()
    curious = deployed(chain, "73" + "ab" * 20 + "3100")  # BALANCE of somebody
    before = len(chain._accounts)
    chain.send(signed(ADA, nonce=1, to=Web3.to_checksum_address(curious), value=0))
    assert len(chain._accounts) == before


def test_two_programs_with_one_log(file: Path) -> None:
    """The second one is told what is wrong, and nothing of the first one is lost."""
    one, two = embedded(file), embedded(file)
    one.send(signed(ADA))
    with pytest.raises(StoreError, match="another program"):
        two.send(signed(BOB))
    one.send(signed(ADA, nonce=1))
    one.close()
    two.close()
    again = embedded(file)
    assert again.nonce(ADA.address) == 2
    again.close()


def test_threads_see_whole_blocks() -> None:
    """While one sends, others ask for receipts and balances: never an error, never half a payment."""
    chain = embedded()
    rpc, done = ChainRpc(chain), threading.Event()
    names = [Transaction.decode(signed(ADA, nonce=n, to=address(BOB))).hash for n in range(60)]
    wrong: list[object] = []

    def ask() -> None:
        while not done.is_set():
            for name in names:
                receipt = rpc.answer("eth_getTransactionReceipt", ["0x" + name.hex()])
                if receipt is not None and chain.balance(BOB.address) < RICH + 7 * (names.index(name) + 1):
                    wrong.append(receipt)

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for thread in asking:
        thread.start()
    for nonce in range(60):
        chain.send(signed(ADA, nonce=nonce))
    done.set()
    for thread in asking:
        thread.join()
    assert not wrong


def test_legacy_transactions() -> None:
    """Of wallets that know no other."""
    chain = embedded()
    fields = {"chainId": CHAIN_ID, "nonce": 0, "gas": 21_000, "gasPrice": 10**9, "to": address(BOB), "value": 5}
    chain.send(bytes(Account.from_key(ADA.secret).sign_transaction(fields).raw_transaction))
    assert chain.balance(BOB.address) == RICH + 5
    assert chain.balance(ADA.address) == RICH - 5 - 21_000 * 10**9


@settings(deadline=None)
@given(st.binary(max_size=300), st.integers(0, 200), st.integers(0, 7))
def test_noise_is_no_transaction(noise: bytes, at: int, bit: int) -> None:
    """Neither is a transaction with another bit; it is then somebody else's, or nobody's."""
    honest = signed(ADA)
    changed = bytearray(honest)
    changed[at % len(changed)] ^= 1 << bit
    for raw in (noise, bytes(changed), honest[:-1], b"", bytes(MAX_TRANSACTION + 1)):
        try:
            assert Transaction.decode(raw).sender != ADA.address
        except EncodingError:
            continue


JUNK: list[Any] = [None, [], {}, "", "0x", "0xzz", "x", -1, 2**70, "0x" + "f" * 70, True, 1.5, {"to": 5}, ["0x0"] * 3]


def test_junk_is_answered_with_errors() -> None:
    """Every method, with too few, too many and absurd arguments."""
    chain = embedded()
    rpc = ChainRpc(chain)
    methods = [*rpc._methods, "eth_mining", "", "x" * 1000]
    for method in methods:
        for first in JUNK:
            for params in ([], [first], [first, first], [first] * 5):
                with suppress(RpcError):
                    rpc.answer(method, params)
    assert rpc.answer("eth_blockNumber", []) == hex(chain.head.number)
    rpc.answer("eth_sendRawTransaction", ["0x" + signed(ADA).hex()])
    assert chain.nonce(ADA.address) == 1


@pytest.fixture(scope="module", params=["embedded", pytest.param("anvil", marks=pytest.mark.slow)])
def web3(request: pytest.FixtureRequest) -> Iterator[Web3]:
    """Either chain."""
    if request.param == "anvil":
        with anvil() as found:
            yield found
    else:
        yield Web3(EmbeddedProvider(embedded()))


def test_web3_is_at_home(web3: Web3) -> None:
    """Calls, estimates, events by block and topic, reasons of failures, blocks and transactions."""
    town = Town(web3)
    terms = town.terms(ADA, BOB, 3)
    receipt = town.deposit(ADA, terms, 1000)
    assert receipt["gasUsed"] > 60_000
    (event,) = town.channels.events.Deposited().get_logs(
        from_block=receipt["blockNumber"], argument_filters={"receiver": address(BOB)}
    )
    assert (event["args"]["amount"], event["transactionHash"]) == (1000, receipt["transactionHash"])
    assert not town.channels.events.Deposited().get_logs(from_block=0, argument_filters={"receiver": NOBODY})
    block = web3.eth.get_block(receipt["blockNumber"])
    assert web3.eth.get_block(block["hash"])["number"] == receipt["blockNumber"]
    assert receipt["transactionHash"] in block["transactions"]
    assert web3.eth.get_transaction(receipt["transactionHash"])["from"] == address(ADA)
    claim = town.channels.functions.claim([town.claim_of(ADA, terms, 10)])
    with pytest.raises(ContractLogicError, match="not the receiver's"):
        claim.estimate_gas({"from": address(ADA)})
    estimate = claim.estimate_gas({"from": address(BOB)})
    used = town.send(BOB, claim, estimate)["gasUsed"]
    assert used <= estimate <= used * 1.1
    assert web3.eth.get_code(town.channels.address)
    assert web3.eth.get_code(NOBODY) == b""
    with pytest.raises(Web3RPCError, match="nonce"):
        web3.eth.send_raw_transaction(signed(ADA, nonce=0))
    town.pass_time(1000)
    assert web3.eth.get_block("latest")["timestamp"] >= block["timestamp"] + 1000


@pytest.mark.slow
def test_gas_is_that_of_a_real_node() -> None:
    """The same transactions cost the same to the last unit, and leave the same behind."""
    with anvil() as real:
        towns = [Town(real), town_of(embedded())]
        spent = []
        for town in towns:
            terms = town.terms(ADA, BOB, 9)
            gas = [town.deposit(ADA, terms, amount)["gasUsed"] for amount in (1000, 500)]
            calls = [
                (BOB, town.channels.functions.claim([town.claim_of(ADA, terms, 100)])),
                (BOB, town.channels.functions.claim([town.claim_of(ADA, terms, 100)])),  # fails
                (BOB, town.channels.functions.settle(address(BOB), town.token.address)),
                (BOB, town.channels.functions.settle(address(BOB), town.token.address)),
                (ADA, town.token.functions.transfer(address(BOB), town.balance(ADA.address))),
            ]
            gas += [town.post(who, call)["gasUsed"] for who, call in calls]
            spent.append((gas, town.web3.eth.get_balance(address(ADA)), town.web3.eth.get_code(town.token.address)))
        assert spent[0] == spent[1]
