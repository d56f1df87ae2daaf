"""Events of the court, decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from assay.chain.abi import words
from assay.chain.node import Entry
from assay.core.errors import ChainFailed
from assay.core.hashing import Digest
from assay.core.keys import Address, keccak256

PROVER, CHALLENGER, PROVER_WINS, CHALLENGER_WINS, VOID = range(5)
"""Whose turn it is in a dispute, or how it has ended."""
MOST_STATE: Final = 2048
"""Bytes."""
Happening: TypeAlias = Literal["Opened", "Moved", "Ended", "Slashed", "Staked"]
HAPPENINGS: Final[dict[Happening, str]] = {
    "Opened": "uint256,address,bytes32,address,uint256,bytes",
    "Moved": "uint256,uint256,uint256,bytes",
    "Ended": "uint256,uint256",
    "Slashed": "address,address,address,uint256,uint256,uint256,uint256,uint256",
    "Staked": "address,uint256,uint256",
}
"""Types of each event's members; see `Court.vy`."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A state of a dispute, as an event told it."""

    state: bytes
    turn: int
    deadline: int
    transaction: Digest
    """That brought it about."""
    block: int


@dataclass(frozen=True, slots=True)
class Slashing:
    """What a provider lost, wei."""

    provider: Address
    challenger: Address
    wronged: Address
    bond: int
    held: int
    """Of its vault."""
    compensation: int
    reward: int
    insured: int


def topic_of(what: Happening) -> bytes:
    """The first topic of an event."""
    return keccak256(f"{what}({HAPPENINGS[what]})".encode())


def read_opened(entry: Entry) -> Shown:
    """An event `Opened`.

    Raises:
        ChainFailed: it is none.
    """
    _, deadline = words(entry.data[:64], 1 << 160, 1 << 64, what="an event Opened")
    return Shown(_eventtail(entry, 2), PROVER, deadline, entry.transaction, entry.block)


def read_moved(entry: Entry) -> Shown:
    """An event `Moved`.

    Raises:
        ChainFailed: it is none.
    """
    turn, deadline = words(entry.data[:64], VOID, 1 << 64, what="an event Moved")
    return Shown(_eventtail(entry, 2), turn, deadline, entry.transaction, entry.block)


def read_ended(entry: Entry) -> int:
    """How a dispute ended.

    Raises:
        ChainFailed: it is no event `Ended`.
    """
    return words(entry.data, VOID + 1, what="an event Ended")[0]


def read_slashed(entry: Entry) -> Slashing:
    """An event `Slashed`.

    Raises:
        ChainFailed: it is none.
    """
    what = "an event Slashed"
    who = [f"0x{words(topic, 1 << 160, what=what)[0]:040x}" for topic in entry.topics[1:]]
    if len(who) != 3:
        raise ChainFailed(f"{what} cannot be read from the chain", "check the court's address, or ask another node")
    provider, challenger, wronged = who
    bond, held, compensation, reward, insured = words(entry.data, *[1 << 256] * 5, what=what)
    return Slashing(provider, challenger, wronged, bond, held, compensation, reward, insured)


def _eventtail(entry: Entry, place: int) -> bytes:
    found = tail(entry.data, place, MOST_STATE)
    if found is None:
        raise ChainFailed("an event of the court cannot be read", "check its address, or ask another node")
    return found


def tail(data: bytes, place: int, most: int) -> bytes | None:
    """The bytes that the word at `place` of ABI-encoded arguments points to, with zeros behind the end as the EVM reads
    them; None: there are none."""
    at = int.from_bytes(data[32 * place : 32 * place + 32], "big")
    size = int.from_bytes(data[at : at + 32], "big")
    if 32 * place + 32 > len(data) or at + 32 > len(data) or size > most:
        return None
    return data[at + 32 : at + 32 + size].ljust(size, b"\0")
