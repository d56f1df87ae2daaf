"""What happens in channels, block by block, from blocks that nothing takes back any more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from assay.chain.abi import words
from assay.chain.node import Entry, Node, NodeRefused
from assay.core.errors import ChainFailed
from assay.core.hashing import Digest
from assay.core.keys import Address, keccak256
from assay.core.request import MAX_AMOUNT

Kind: TypeAlias = Literal["Deposited", "Claimed", "WithdrawInitiated", "Withdrawn", "Settled"]
KINDS: Final[Mapping[Kind, str]] = {
    "Deposited": "bytes32,address,address,uint128",
    "Claimed": "bytes32,uint128",
    "WithdrawInitiated": "bytes32,uint128,uint256",
    "Withdrawn": "bytes32,uint128",
    "Settled": "address,address,address,uint128",
}
"""Types of each event's members; see `Channels.vy`."""
MAX_BLOCKS: Final = 2_000
"""That are asked for at once."""


@dataclass(frozen=True, slots=True)
class Event:
    """One that is in the chain."""

    kind: Kind
    block: int
    transaction: bytes
    index: int
    """In its block."""
    amount: int
    """Wei; of `Claimed`: in all."""
    channel: Digest = b""
    """32 bytes; empty in `Settled`."""
    payer: Address = ""
    receiver: Address = ""
    """Both in `Deposited`; `Settled` has the receiver."""
    token: Address = ""
    """In `Settled`."""
    at: int = 0
    """When a withdrawal began, Unix seconds."""


class Events:
    """Events of one kind, each once, in their order. `poll` looks once; iterating goes on until `close`, and waits out
    outages."""

    def __init__(
        self, node: Node, contract: Address, kind: Kind, first: int, *, confirmations: int, poll: float,
        wait: Callable[[float], object] | None = None,
    ) -> None:  # fmt: skip
        """`first`: the block to begin with. `confirmations`: blocks that have to follow one before it is read, so that
        reorganisations of that depth change nothing. `poll`: seconds between two looks."""
        self.next: int = first
        """The block up to which everything was told; keep it, and begin there after a restart."""
        self.trouble = ""
        """Why nothing is heard; empty: all is well."""
        self._node: Final = node
        self._contract: Final = contract
        self._kind: Final[Kind] = kind
        self._topic: Final = keccak256(f"{kind}({KINDS[kind]})".encode())
        self._confirmations: Final = confirmations
        self._poll: Final = poll
        self._stop: Final = threading.Event()
        self._wait: Final = wait or self._stop.wait
        self._most = MAX_BLOCKS

    def poll(self) -> list[Event]:
        """What has happened since the last time, in up to MAX_BLOCKS blocks; nothing is forgotten when it fails.

        Raises:
            ChainFailed: the node cannot be asked, or lies.
        """
        last = min(self._node.head().number - self._confirmations, self.next + self._most - 1)
        if last < self.next:
            return []
        self._node.head(last)  # a node that does not have it would tell of no events
        try:
            found = self._node.logs(self._contract, self._topic, self.next, last)
        except NodeRefused:  # most refuse long answers
            self._most = max(1, (last - self.next + 1) // 2)
            raise
        events = [_event(self._kind, each) for each in found]
        self._most = min(2 * self._most, MAX_BLOCKS)
        self.next = last + 1
        return events

    def __iter__(self) -> Iterator[Event]:
        while not self._stop.is_set():
            before = self.next
            found: list[Event] = []
            try:
                found = self.poll()
                self.trouble = ""
            except ChainFailed as error:
                self.trouble = str(error)
            yield from found
            if self.next < before + MAX_BLOCKS:
                self._wait(self._poll)

    def close(self) -> None:
        """Whoever iterates is done."""
        self._stop.set()


def _event(kind: Kind, entry: Entry) -> Event:
    wide = MAX_AMOUNT + 1
    own, data = entry.topics[1:], entry.data
    base = (kind, entry.block, entry.transaction, entry.index)
    what = f"an event {kind}"
    if len(own) != (3 if kind in ("Deposited", "Settled") else 1):
        raise ChainFailed(f"{what} cannot be read from the chain", "check the contract's address, or ask another node")
    if kind == "WithdrawInitiated":
        amount, at = words(data, wide, 1 << 63, what=what)
        return Event(*base, amount, own[0], at=at)
    (amount,) = words(data, wide, what=what)
    if kind == "Deposited":
        return Event(*base, amount, own[0], payer=_address(own[1], what), receiver=_address(own[2], what))
    if kind == "Settled":
        return Event(*base, amount, receiver=_address(own[0], what), token=_address(own[1], what))
    return Event(*base, amount, own[0])


def _address(topic: bytes, what: str) -> Address:
    return f"0x{words(topic, 1 << 160, what=what)[0]:040x}"
