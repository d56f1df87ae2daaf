"""Events of the court, decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from assay.chain.abi import words
from assay.chain.dispute import DISPUTE, Dispute, Shown
from assay.chain.node import Entry
from assay.core.errors import ChainFailed
from assay.core.hashing import ZERO
from assay.core.keys import Address, keccak256

PROVER, CHALLENGER, PROVER_WINS, CHALLENGER_WINS, VOID = range(5)
"""Whose turn it is in a dispute, or how it has ended."""
MOST_STATE: Final = 2048
"""Bytes."""
Happening: TypeAlias = Literal["Opened", "Moved", "Ended", "Slashed", "Staked"]
HAPPENINGS: Final[dict[Happening, str]] = {
    "Opened": f"uint256,address,bytes32,{DISPUTE},bytes",
    "Moved": "uint256,uint256,bytes",
    "Ended": "uint256,uint256",
    "Slashed": "address,address,address,uint256,uint256,uint256,uint256,uint256",
    "Staked": "address,uint256,uint256",
}
"""Types of each event's members; see `Court.vy`."""


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


def read_opened(entry: Entry) -> tuple[Dispute, Shown]:
    """An event `Opened`: the dispute, and its first state; empty: data are demanded.

    Raises:
        ChainFailed: it is none.
    """
    what = "an event Opened"
    wide = 1 << 256
    sides, terms, money, *_ = words(entry.data[: 5 * 32], 1 << 224, wide, wide, 1 << 160, wide, what=what)
    (number,) = words(b"".join(entry.topics[1:2]), wide, what=what)
    shown = Shown(_eventtail(entry, 5), sides, entry.transaction, entry.block)
    wronged, receipt = f"0x{entry.data[108:128].hex()}", entry.data[128:160]
    return Dispute(number, sides, terms, money, wronged, receipt, ZERO).after(shown), shown


def read_moved(entry: Entry) -> Shown:
    """An event `Moved`.

    Raises:
        ChainFailed: it is none.
    """
    (sides,) = words(entry.data[:32], VOID << 232, what="an event Moved")
    return Shown(_eventtail(entry, 1), sides, entry.transaction, entry.block)


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
