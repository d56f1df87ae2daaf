"""A chain in this process, for one person, tests and demonstrations: the EVM of `pyrevm`, a block for each transaction.

Transactions are written to a log (SQLite) before anybody hears of them, and are run again at the start: nothing else
has to survive. Each runs in a fresh EVM over the state that is kept here, since `pyrevm`'s own journal remembers from
one transaction to the next what was touched, and charges too little gas.
"""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyrevm
from pyrevm import EVM, AccountInfo, BlockEnv, CfgEnv, Env

from assay.chain.transactions import Transaction
from assay.core.errors import InvalidRequest, StoreError
from assay.core.keys import Address, keccak256

GAS_LIMIT: Final = 30_000_000
"""Of a block, and so of a transaction."""
TIP: Final = 1_000_000_000
"""Wei for a unit of gas that wallets are told to offer; the base fee is 0."""
MOST_SECONDS: Final = 366 * 86_400
"""That may pass at once."""
SPEC: Final = "CANCUN"
"""Ethereum's rules as of March 2024, which all chains in use follow."""
_PADDING: Final = 33
"""Zeros that revm appends to code."""
_ACCOUNT: Final = re.compile(r"(0x[0-9a-f]{40}): Account \{ info")
_REST: Final = re.compile(r", storage: \{(.*?)\}, status: AccountStatus\(([^)]*)\)")
_SLOT: Final = re.compile(r"(\d+): StorageSlot \{ previous_or_original_value: (\d+), present_value: (\d+)")
_REVERT: Final = re.compile(r"Revert \{ gas_used: (\d+), output: 0x([0-9a-f]*) \}")
_HALT: Final = re.compile(r"Halt \{ reason: (.*), gas_used: (\d+) \}")


class ChainError(InvalidRequest):
    """The chain refuses a transaction or a question."""


@dataclass(slots=True)
class _Account:
    balance: int = 0
    nonce: int = 0
    code: bytes = b""
    storage: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Log:
    """An event of a contract."""

    address: Address
    topics: tuple[bytes, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of running something."""

    ok: bool
    output: bytes
    """What was returned, or the reason of a revert (ABI-encoded)."""
    reason: str
    """Why it ended, if not by a revert."""
    gas: int
    """Used, refunds taken off."""
    logs: tuple[Log, ...]
    contract: Address | None
    """That was deployed."""


@dataclass(frozen=True, slots=True)
class Block:
    """A block has one transaction, or none (time has passed)."""

    number: int
    timestamp: int
    parent: bytes
    transaction: Transaction | None
    outcome: Outcome | None
    hash: bytes
    """32 bytes; not what other nodes would compute."""

    @classmethod
    def after(
        cls, before: Block | None, timestamp: int, transaction: Transaction | None, outcome: Outcome | None
    ) -> Block:
        """The next one; the first one's number is 0."""
        number, parent = (before.number + 1, before.hash) if before else (0, bytes(32))
        own = transaction.hash if transaction else bytes(32)
        name = keccak256(parent + own + number.to_bytes(8, "big") + timestamp.to_bytes(8, "big"))
        return cls(number, timestamp, parent, transaction, outcome, name)


@dataclass(frozen=True, slots=True)
class _Step:
    """A block that is to be, and the accounts that it changes."""

    block: Block
    changes: Mapping[Address, _Account | None]


class EmbeddedChain:
    """For use from several threads."""

    def __init__(
        self, path: Path | None, *, chain_id: int, balances: Mapping[Address, int], clock: Callable[[], float]
    ) -> None:
        """`path`: the log's file; None: in memory only. `balances`: wei that addresses have at the beginning.

        Raises:
            StoreError: the log cannot be read, or is of a chain with another beginning.
        """
        self.chain_id: Final = chain_id
        self._clock: Final = clock
        self._ahead = 0
        self._lock: Final = threading.RLock()
        self._accounts: Final = {address: _Account(balance) for address, balance in balances.items()}
        self._blocks: Final = [Block.after(None, 0, None, None)]
        self._names: Final = {self._blocks[0].hash: 0}
        self._places: Final[dict[bytes, int]] = {}
        begin = json.dumps({"chain_id": chain_id, "balances": {k: str(v) for k, v in sorted(balances.items())}})
        try:
            self._log: Final = sqlite3.connect(path or ":memory:", check_same_thread=False, isolation_level=None)
            self._log.execute("PRAGMA journal_mode=WAL")
            self._log.execute("PRAGMA synchronous=FULL")
            self._log.execute("CREATE TABLE IF NOT EXISTS beginning (text TEXT NOT NULL)")
            self._log.execute(
                "CREATE TABLE IF NOT EXISTS blocks (number INTEGER PRIMARY KEY, timestamp INTEGER NOT NULL, raw BLOB)"
            )
            kept = self._log.execute("SELECT text FROM beginning").fetchone()
            if kept is None:
                self._log.execute("INSERT INTO beginning VALUES (?)", (begin,))
            elif kept[0] != begin:
                raise StoreError(f"{path} is the log of another chain", "choose another folder")
            for timestamp, raw in self._log.execute("SELECT timestamp, raw FROM blocks ORDER BY number").fetchall():
                self._take_over(self._next(timestamp, None if raw is None else Transaction.decode(raw)))
            self._ahead = max(0, self.head.timestamp - int(clock()))  # what had been let pass
        except sqlite3.Error as error:
            raise StoreError(
                f"the chain's log {path} cannot be used ({error})", "free disk space, or move it"
            ) from error

    def send(self, raw: bytes) -> bytes:
        """Run a signed transaction in a block of its own; its hash. One that is here already is not run again.

        Raises:
            EncodingError: this is no transaction.
            ChainError: it is of another chain, out of order, or its sender cannot pay for it.
            StoreError: it cannot be kept; it has not happened.
        """
        transaction = Transaction.decode(raw)
        with self._lock:
            if transaction.hash not in self._places:
                self._admit(transaction)
                self._keep(transaction)
            return transaction.hash

    def pass_time(self, seconds: int) -> None:
        """Let time pass, and make a block without a transaction.

        Raises:
            ChainError: not 0 to MOST_SECONDS.
            StoreError: it cannot be kept.
        """
        if not 0 <= seconds <= MOST_SECONDS:
            raise ChainError(f"0 to {MOST_SECONDS} seconds can pass at once")
        with self._lock:
            self._ahead += seconds
            try:
                self._keep(None)
            except StoreError:
                self._ahead -= seconds
                raise

    def call(self, sender: Address, to: Address | None, data: bytes, value: int = 0, gas: int = GAS_LIMIT) -> Outcome:
        """What a call would do now; nothing is changed."""
        with self._lock:
            evm = self._evm(self.head.number + 1, self._now())
            caller = self._accounts.get(sender, _Account())
            evm.insert_account_info(sender, _info(max(caller.balance, value), caller.nonce, caller.code))
            return _run(evm, sender, to, data, value, gas)

    @property
    def head(self) -> Block:
        """The latest block."""
        return self._blocks[-1]

    def block(self, number: int) -> Block | None:
        """By its number; None: there is none."""
        return self._blocks[number] if 0 <= number < len(self._blocks) else None

    def named(self, name: bytes) -> Block | None:
        """By its hash."""
        with self._lock:
            return self._blocks[self._names[name]] if name in self._names else None

    def place(self, transaction: bytes) -> Block | None:
        """The block that a transaction, by its hash, is in."""
        with self._lock:
            return self._blocks[self._places[transaction]] if transaction in self._places else None

    def balance(self, address: Address) -> int:
        """Wei."""
        return self._of(address).balance

    def nonce(self, address: Address) -> int:
        """Of the next transaction."""
        return self._of(address).nonce

    def code(self, address: Address) -> bytes:
        """Of a contract."""
        return self._of(address).code

    def storage(self, address: Address, slot: int) -> int:
        """A word of a contract."""
        return self._of(address).storage.get(slot, 0)

    def close(self) -> None:
        """The log's file is free."""
        self._log.close()

    def _of(self, address: Address) -> _Account:
        with self._lock:
            return self._accounts.get(address) or _Account()

    def _now(self) -> int:
        return max(int(self._clock()) + self._ahead, self.head.timestamp)

    def _admit(self, transaction: Transaction) -> None:
        sender = self._of(transaction.sender)
        if transaction.chain_id != self.chain_id:
            raise ChainError(f"the transaction is for chain {transaction.chain_id}, and this is {self.chain_id}")
        if transaction.nonce != sender.nonce:
            order = "nonce too low" if transaction.nonce < sender.nonce else "nonce too high"
            raise ChainError(f"{order}: {transaction.nonce}, and {sender.nonce} is next")
        if transaction.gas < transaction.least_gas:
            raise ChainError(f"intrinsic gas too low: {transaction.gas}, and {transaction.least_gas} is the least")
        if transaction.gas > GAS_LIMIT:
            raise ChainError(f"the transaction may take {transaction.gas} gas, and a block has {GAS_LIMIT}")
        if transaction.tip > transaction.most:
            raise ChainError("the transaction's tip is more than what it pays at most")
        if sender.balance < transaction.value + transaction.gas * transaction.most:
            raise ChainError(f"insufficient funds: {transaction.sender} has {sender.balance} wei")

    def _keep(self, transaction: Transaction | None) -> None:
        """Run first, then write down, then believe: so that nothing is written that cannot be run again."""
        step = self._next(self._now(), transaction)
        block = step.block
        try:
            self._log.execute(
                "INSERT INTO blocks VALUES (?, ?, ?)",
                (block.number, block.timestamp, transaction.raw if transaction else None),
            )
        except sqlite3.IntegrityError as error:
            raise StoreError("another program writes this chain's log", "let each chain have its own") from error
        except sqlite3.Error as error:
            raise StoreError(f"the chain's log cannot be written ({error})", "free disk space") from error
        self._take_over(step)

    def _next(self, timestamp: int, transaction: Transaction | None) -> _Step:
        """What the next block will be; nothing is changed."""
        if transaction is None:
            return _Step(Block.after(self.head, timestamp, None, None), {})
        evm = self._evm(self.head.number + 1, timestamp)
        outcome = _run(evm, transaction.sender, transaction.to, transaction.data, transaction.value, transaction.gas)
        block = Block.after(self.head, timestamp, transaction, outcome)
        return _Step(block, _changes(evm) if outcome.ok else {})

    def _take_over(self, step: _Step) -> None:
        block, sent = step.block, step.block.transaction
        for address, change in step.changes.items():
            if change is None:
                self._accounts.pop(address, None)
                continue
            account = self._accounts.get(address)
            if account is None:
                if not (change.balance or change.nonce or change.code or change.storage):
                    continue  # it was looked at
                account = self._accounts.setdefault(address, _Account())
            account.balance, account.nonce = change.balance, change.nonce
            account.code = account.code or change.code
            for slot, value in change.storage.items():
                if value:
                    account.storage[slot] = value
                else:
                    account.storage.pop(slot, None)
        if sent is not None and block.outcome is not None:
            sender = self._accounts.setdefault(sent.sender, _Account())
            sender.nonce = sent.nonce + 1
            sender.balance -= block.outcome.gas * sent.tip
        self._blocks.append(block)
        self._names[block.hash] = block.number
        if sent is not None:
            self._places[sent.hash] = block.number

    def _evm(self, number: int, timestamp: int) -> EVM:
        """One that knows the state, and has touched nothing yet."""
        block = BlockEnv(number=number, timestamp=timestamp, gas_limit=GAS_LIMIT, basefee=0)
        evm = EVM(env=Env(cfg=CfgEnv(chain_id=self.chain_id), block=block), gas_limit=GAS_LIMIT, spec_id=SPEC)
        for address, account in self._accounts.items():
            evm.insert_account_info(address, _info(account.balance, account.nonce, account.code))
            for slot, value in account.storage.items():
                # It loads the account, whose further slots would then be changes of this transaction: forgotten again.
                before = evm.snapshot()
                evm.insert_account_storage(address, slot, value)
                evm.revert(before)
        return evm


def _changes(evm: EVM) -> dict[Address, _Account | None]:
    """Whatever a transaction touched, as it is afterwards (storage: the slots that were touched); None: destroyed."""
    found: dict[Address, _Account | None] = {
        name.lower(): _Account(info.balance, info.nonce, (info.code or b"")[:-_PADDING])
        for name, info in evm.journal_state.items()
    }
    text = evm.journal_str
    heads = list(_ACCOUNT.finditer(text))
    for head, following in zip(heads, [*heads[1:], None], strict=True):
        rest = _REST.search(text, head.end(), following.start() if following else len(text))
        account = found.get(head[1])
        if rest is None or account is None:
            continue
        if "SelfDestructed" in rest[2]:
            found[head[1]] = None
        account.storage.update((int(slot), int(value)) for slot, _, value in _SLOT.findall(rest[1]))
    return found


def _info(balance: int, nonce: int, code: bytes) -> AccountInfo:
    make: Any = AccountInfo  # its type does not know of the balance
    return make(balance, nonce, None, code or None)


def _run(evm: EVM, sender: Address, to: Address | None, data: bytes, value: int, gas: int) -> Outcome:
    contract, output = None, b""
    try:
        if to is None:
            contract = str(evm.deploy(sender, data, value, gas)).lower()
        else:
            output = bytes(evm.message_call(sender, to, data, value, gas))
    except RuntimeError as error:
        if revert := _REVERT.search(str(error)):
            return Outcome(False, bytes.fromhex(revert[2]), "", int(revert[1]), (), None)
        halt = _HALT.search(str(error))
        return Outcome(False, b"", halt[1] if halt else str(error), int(halt[2]) if halt else gas, (), None)
    found: Any = evm.result
    logs = tuple(_log(each) for each in found.logs)
    return Outcome(True, output, "", found.gas_used, logs, contract)


def _log(found: pyrevm.Log) -> Log:
    topics = tuple(bytes.fromhex(topic[2:]) for topic in found.topics)
    return Log(found.address.lower(), topics, bytes(found.data[1]))
