"""A court, and people in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from eth_abi import encode
from tests.chain.kit import NOBODY, PEOPLE, Town, address
from vyper.cli.vyper_compile import compile_files

from assay.chain.contracts import artefact
from assay.chain.court_events import read_moved, read_opened, topic_of
from assay.chain.devnet import created
from assay.chain.dispute import Dispute
from assay.chain.ethereum import Contract, Web3
from assay.chain.node import Entry
from assay.core.completion import STOP_REASONS
from assay.core.hashing import ZERO
from assay.core.keys import Key, keccak256
from assay.core.receipt import VERSION, Receipt, sign
from assay.core.request import LEVELS

PROVIDER, ADA, EVE, PAYER, INSURER = PEOPLE[1:6]
DAY, HOUR = 86_400, 3600
DEPOSIT, FEE = 1000, 300
WINDOW, UNBONDING, AGE, COMMIT_AGE = HOUR, 21 * DAY, 7 * DAY, 60
MOST_MOVES = 20
VALUES: Final = (WINDOW, UNBONDING, AGE, DEPOSIT, FEE, 5000, 5000, 2500, COMMIT_AGE, int(INSURER.address, 16))
"""What `Params` begins with."""
HELD = 16_000
"""Window of the vaults, seconds."""
NONE = (NOBODY, NOBODY, NOBODY, NOBODY, NOBODY, 0, bytes(32))
"""No channel."""
DEAD = "0x000000000000000000000000000000000000dEaD"
PROVER_WINS, CHALLENGER_WINS, VOID = 2, 3, 4


@cache
def own(name: str) -> tuple[Any, Any]:
    """ABI and code of a contract of the tests."""
    (found,) = compile_files([Path(__file__).with_name(f"{name}.vy")], ["abi", "bytecode"]).values()
    return found["abi"], found["bytecode"]


def deploy_own(town: Town, name: str, *args: Any) -> Contract:
    """One of them on the chain."""
    abi, code = own(name)
    where = town.send(PEOPLE[0], town.web3.eth.contract(abi=abi, bytecode=code).constructor(*args))["contractAddress"]
    return town.web3.eth.contract(address=where, abi=abi)


def next_but_one(town: Town) -> Any:
    """Where the contract after the next one will be."""
    nonce = town.web3.eth.get_transaction_count(address(PEOPLE[0])) + 1
    return Web3.to_checksum_address(created(PEOPLE[0].address, nonce))


def exhibit(sticks: int) -> bytes:
    """A dispute about so many sticks."""
    return sticks.to_bytes(32, "big")


def board(sticks: int, turn: int) -> bytes:
    """The game's state."""
    return encode(["uint256", "uint256"], [sticks, turn])


def take(sticks: int) -> bytes:
    """A move."""
    return sticks.to_bytes(32, "big")


def as_tuple(receipt: Receipt) -> tuple[Any, ...]:
    """A receipt as the contract takes it, without its signature."""
    values = [getattr(receipt, field.name) for field in fields(receipt) if field.name != "signature"]
    values[0], values[1] = LEVELS.index(receipt.level), STOP_REASONS.index(receipt.stop)
    values[-3] = Web3.to_checksum_address(receipt.provider)
    return (VERSION, *values)


def as_struct(dispute: Dispute) -> tuple[Any, ...]:
    """A dispute as the contract takes it."""
    *numbers, wronged, receipt = dispute.values
    return (*numbers, Web3.to_checksum_address(wronged), receipt)


def entry_of(log: Any) -> Entry:
    """An event, as web3 has it."""
    topics = tuple(map(bytes, log["topics"]))
    where = log["blockNumber"], bytes(log["blockHash"]), bytes(log["transactionHash"]), log["logIndex"]
    return Entry(log["address"].lower(), topics, bytes(log["data"]), *where)


class Courtroom:
    """All contracts, and a provider with a bond and earnings."""

    def __init__(
        self,
        town: Town,
        token: Contract | None = None,
        values: Sequence[int] = VALUES,
        game: Contract | None = None,
    ) -> None:
        self.town = town
        self.token = token or town.token
        self.game = game or deploy_own(town, "Nim")
        self.params = town.deploy("Params", values)
        channels = town.channels.address
        self.vaults = town.deploy("Vault", self.token.address, next_but_one(town), HELD)
        args = (self.token.address, self.vaults.address, self.params.address, self.game.address, channels)
        self.court = town.deploy("Court", *args)
        self.call = self.court.functions
        self.salt = self.sequence = 0
        if token is None:
            for each in PEOPLE:
                town.send(each, town.token.functions.approve(self.court.address, 2**256 - 1))

    @property
    def now(self) -> int:
        """Of the latest block."""
        return self.town.web3.eth.get_block("latest")["timestamp"]

    def vault(self, who: Key = PROVIDER) -> Contract:
        """A provider's, whether it is there or not."""
        where = self.vaults.functions.vaultOf(address(who)).call()
        return self.town.web3.eth.contract(address=where, abi=artefact("Vault").abi)

    def earn(self, amount: int, who: Key = PROVIDER) -> None:
        """A channel pays."""
        self.town.send(PAYER, self.token.functions.transfer(self.vault(who).address, amount))

    def bond(self, amount: int, who: Key = PROVIDER) -> None:
        """By anybody."""
        self.town.send(PAYER, self.call.bond(address(who), amount))

    def receipt(self, who: Key = PROVIDER, **other: Any) -> Receipt:
        """A new one of the provider's."""
        self.sequence += 1
        values: dict[str, Any] = {
            "level": "exact", "stop": "length", "prompt_count": 10, "output_count": 20, "channel": bytes(32),
            "amount": 700, "provider": who.address, "sequence": self.sequence, "issued": self.now,
        }  # fmt: skip
        names = ("request", "model", "profile", "prompt_text", "prompt_tokens", "output", "evidence")
        values |= {name: keccak256(name.encode()) for name in names}
        return sign(Receipt(**{**values, **other}), who)

    def commit(self, receipt: Receipt, who: Key = ADA, *, wait: int = COMMIT_AGE) -> bytes:
        """A commitment of somebody's, old enough; its salt."""
        self.salt += 1
        salt = self.salt.to_bytes(32, "big")
        self.town.send(who, self.call.commit(commitment(receipt, who, salt)))
        if wait:
            self.town.pass_time(wait)
        return salt

    def opening(self, receipt: Receipt, salt: bytes, *, sticks: int = 5, config: tuple[Any, ...] = NONE) -> Any:
        """The call."""
        return self.call.open(as_tuple(receipt), receipt.signature, exhibit(sticks), salt, config)

    def open(self, receipt: Receipt, who: Key = ADA, *, sticks: int = 5, config: tuple[Any, ...] = NONE) -> int:
        """A dispute; its number."""
        self.town.send(who, self.opening(receipt, self.commit(receipt, who), sticks=sticks, config=config))
        return self.call.count().call()

    def demanding(self, receipt: Receipt, salt: bytes) -> Any:
        """The call."""
        return self.call.demand(as_tuple(receipt), receipt.signature, salt)

    def demand(self, receipt: Receipt, who: Key = ADA) -> int:
        """A demand; its number."""
        self.town.send(who, self.demanding(receipt, self.commit(receipt, who)))
        return self.call.count().call()

    def lose(self, receipt: Receipt, who: Key = ADA, **other: Any) -> int:
        """The provider is silent, and so slashed."""
        number = self.open(receipt, who, **other)
        self.town.pass_time(WINDOW + 1)
        self.town.send(EVE, self.timeout(number))
        return number

    def dispute(self, number: int) -> Dispute:
        """As events told it last; of a number that there is not: one of zeros."""
        found = Dispute(number, 0, 0, 0, NOBODY, ZERO, ZERO)
        for log in self.town.web3.eth.get_logs(
            {"address": self.court.address, "topics": [None, f"0x{number:064x}"], "fromBlock": 0}
        ):
            entry = entry_of(log)
            if entry.topics[0] == topic_of("Opened"):
                found, _ = read_opened(entry)
            elif entry.topics[0] == topic_of("Moved"):
                found = found.after(read_moved(entry))
        return found

    def move(self, number: int, state: bytes, data: bytes) -> Any:
        """The call."""
        return self.call.move(number, as_struct(self.dispute(number)), state, data)

    def prove(self, number: int, state: bytes, data: bytes) -> Any:
        """The call."""
        return self.call.prove(number, as_struct(self.dispute(number)), state, data)

    def produce(self, number: int, receipt: Receipt, data: bytes) -> Any:
        """The call."""
        return self.call.produce(number, as_struct(self.dispute(number)), as_tuple(receipt), data)

    def timeout(self, number: int) -> Any:
        """The call."""
        dispute = self.dispute(number)
        return self.call.timeout(number, as_struct(dispute), dispute.state)

    def credit(self, who: Key | str) -> int:
        """What somebody is due."""
        return self.call.credits(address(who) if isinstance(who, Key) else who).call()

    def balance(self, of: str) -> int:
        """Tokens."""
        return self.token.functions.balanceOf(Web3.to_checksum_address(of)).call()

    def refused(self, who: Key, call: Any, why: str) -> None:
        """The call fails for this reason, and so does its transaction."""
        assert why in self.town.why(who, call)
        assert self.town.post(who, call)["status"] == 0


def commitment(receipt: Receipt, who: Key, salt: bytes) -> bytes:
    """What `commit` is told."""
    return keccak256(receipt.digest + bytes(12) + bytes.fromhex(who.address[2:]) + salt)


def resigned(receipt: Receipt, who: Key, **other: Any) -> Receipt:
    """Another one, signed by somebody."""
    return sign(replace(receipt, **other), who)
