"""The court as Python sees it: bonds, disputes and what was moved in them, and transactions that go through the outbox.

What a transaction would be refused for, the outbox finds out before it costs anything. Everything blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from assay.chain.abi import CONFIG, encoded, words
from assay.chain.client import NOBODY, ChainClient
from assay.chain.court_events import MOST_STATE, Happening, tail, topic_of
from assay.chain.dispute import MOVE, PRODUCE, RECEIPT, receipt_values
from assay.chain.node import Entry, NodeRefused
from assay.chain.outbox_file import Sent, Wish
from assay.core.errors import ConfigError
from assay.core.hashing import ZERO, Digest
from assay.core.keys import Address, keccak256
from assay.core.receipt import FIELDS, Receipt
from assay.core.request import MAX_AMOUNT
from assay.core.voucher import Terms

MOST_MOVE: Final = 40_960
MOST_TOKENS: Final = 4_000
"""Of an answer whose passes' commitments can be demanded."""
MOST_DATA: Final = 32 * MOST_TOKENS + 1024
DAY: Final = 86_400
_NO_CHANNEL: Final = (NOBODY, NOBODY, NOBODY, NOBODY, NOBODY, 0, ZERO)
_WIDE: Final = 1 << 256
_MOVE: Final = keccak256(f"move({','.join(MOVE)})".encode())[:4]
_PRODUCE: Final = keccak256(f"produce({','.join(PRODUCE)})".encode())[:4]
_BEHIND: Final = 6
"""Words of a call's number and dispute, behind which the other arguments stand."""
_WHAT: Final = "the court"


class Values(NamedTuple):
    """What `Params` says now; seconds, wei, and shares in ten-thousandths."""

    window: int
    """For a move."""
    unbonding: int
    age: int
    """Of receipts that can be disputed, at most."""
    deposit: int
    fee: int
    """Deposit of who demands data, for every 256 tokens begun."""
    slashed: int
    """Share of the bond that is lost."""
    wronged: int
    """Share of that for who paid, at most."""
    challenger: int
    commit_age: int
    insurance: int
    """The pool's address as a number."""


def demand_fee(values: Values, receipt: Receipt) -> int:
    """The deposit of who demands a receipt's data, wei: for every 256 tokens begun."""
    return values.fee * (1 + (receipt.prompt_count + receipt.output_count) // 256)


@dataclass(frozen=True, slots=True)
class Stake:
    """What a provider has to lose, and when it may leave; wei and Unix seconds."""

    bond: int
    leaving: int
    leaving_at: int
    """0: nothing is leaving."""
    running: int
    """Disputes that are open against it."""


class CourtClient:
    """One key's view of the court. For use from several threads."""

    def __init__(self, client: ChainClient) -> None:
        """`client`: of that key.

        Raises:
            ConfigError: no court is known there.
        """
        if not client.addresses.court:
            raise ConfigError("no court is known on this chain", "name its address: see [chain] court")
        self.client: Final = client
        self.address: Final = client.address
        self.node: Final = client.node
        self.where: Final = client.addresses.court
        self._params: Address = ""

    @property
    def confirmations(self) -> int:
        """Blocks that have to follow one before what is in it counts."""
        return self.client.outbox.confirmations

    def values(self) -> Values:
        """For disputes that are opened now.

        Raises:
            ChainFailed: the chain cannot be asked, or there is no court at the address.
        """
        if not self._params:
            self._params = f"0x{self._read('PARAMS', (), 1 << 160)[0]:040x}"
        return Values(*words(self.node.call(self._params, encoded("all", ())), *[_WIDE] * 10, what="the values"))

    def stake(self, provider: Address) -> Stake:
        """Of a provider, now."""
        (bond,) = self._read("bonds", ("address",), MAX_AMOUNT + 1, of=provider)
        leaving, at = self._read("leaving", ("address",), _WIDE, 1 << 63, of=provider)
        return Stake(bond, leaving, at, self.running(provider))

    def at_stake(self, provider: Address) -> int:
        """Of a provider's bond what is not leaving, wei, now."""
        (bond,) = self._read("bonds", ("address",), MAX_AMOUNT + 1, of=provider)
        leaving, _ = self._read("leaving", ("address",), _WIDE, 1 << 63, of=provider)
        return max(0, bond - leaving)

    def running(self, provider: Address) -> int:
        """Disputes that are open against a provider."""
        return self._read("running", ("address",), 1 << 63, of=provider)[0]

    def credit(self, who: Address) -> int:
        """What `collect` would pay somebody, wei."""
        return self._read("credits", ("address",), _WIDE, of=who)[0]

    def is_slashed(self, receipt: Digest) -> bool:
        """Whether a dispute over the receipt was won."""
        return self._read("slashed", ("bytes32",), 2, of=receipt)[0] == 1

    def is_answered(self, receipt: Digest) -> bool:
        """Whether what its passes are committed to was produced."""
        return self._read("answered", ("bytes32",), 2, of=receipt)[0] == 1

    def committed_at(self, name: Digest) -> int:
        """When somebody announced that, Unix seconds; 0: never, or it has been used."""
        return self._read("commitments", ("bytes32",), 1 << 63, of=name)[0]

    def has_equivocated(self, provider: Address, sequence: int) -> bool:
        """Whether two receipts under that number were shown."""
        data = encoded("equivocated", ("address", "uint64"), provider, sequence)
        return words(self.node.call(self.where, data), 2, what=_WHAT)[0] == 1

    def count(self) -> int:
        """Disputes so far: the last one's number."""
        return self._read("count", (), 1 << 63)[0]

    def dispute(self, number: int) -> Digest | None:
        """What the court keeps of an open one: see `Dispute.digest`. None: it has ended, or never was."""
        found = self.node.call(self.where, encoded("disputes", ("uint256",), number))
        words(found, _WIDE, what=_WHAT)
        return None if found == ZERO else found

    def bond(self, amount: int, name: str) -> Sent:
        """Add tokens of this key to its bond."""
        return self.pay(encoded("bond", ("address", "uint128"), self.address, amount), amount, name)

    def unbond(self, amount: int, name: str) -> Sent:
        """Begin to take back so much."""
        return self.send(encoded("unbond", ("uint256",), amount), name)

    def withdraw(self, name: str) -> Sent:
        """Take it back, once the wait is over."""
        return self.send(encoded("withdraw", ()), name)

    def collect(self, name: str) -> Sent:
        """Have this key paid what it is due."""
        return self.send(encoded("collect", ("address",), self.address), name)

    def commit(self, what: Digest, name: str) -> Sent:
        """Announce a dispute: see `commitment`."""
        return self.send(encoded("commit", ("bytes32",), what), name)

    def send(self, data: bytes, name: str) -> Sent:
        """A call, such as those of `Dispute`."""
        return self.client.outbox.send(name, self.where, data)

    def pay(self, data: bytes, amount: int, name: str) -> Sent:
        """A call that takes tokens of this key, such as `opening` and `demanding`."""
        approval = encoded("approve", ("address", "uint256"), self.where, amount)
        return self.client.outbox.send_all(
            [Wish(f"{name}/approve", self.client.addresses.token, approval), Wish(name, self.where, data)]
        )[-1]

    def refusal(self, data: bytes) -> str:
        """Why the court would refuse a call of this key now; empty: it would not.

        Raises:
            ChainFailed: the node cannot be asked.
        """
        try:
            self.node.call(self.where, data, sender=self.address)
        except NodeRefused as error:
            if not error.reverted:
                raise
            return error.why
        return ""

    def equivocate(self, one: Receipt, other: Receipt, name: str) -> Sent:
        """Show two receipts under one number."""
        types = (RECEIPT, "bytes", RECEIPT, "bytes")
        values = (receipt_values(one), one.signature, receipt_values(other), other.signature)
        return self.send(encoded("equivocate", types, *values), name)

    def happened(
        self, what: Happening, first: int, last: int, indexed: Sequence[bytes | None] = ()
    ) -> tuple[Entry, ...]:
        """Events of the court in blocks `first` to `last`, in their order."""
        return self.node.logs(self.where, topic_of(what), first, last, indexed)

    def moved(self, transaction: Digest, number: int, state: bytes) -> bytes | None:
        """What was moved in a state of a dispute, by the transaction that moved; None: this node cannot tell.

        Raises:
            ChainFailed: the node cannot be asked.
        """
        for call in self.said(transaction, _MOVE):
            if call[:32] == number.to_bytes(32, "big") and tail(call, _BEHIND, MOST_STATE) == state:
                return tail(call, _BEHIND + 1, MOST_MOVE)
        return None

    def produced(self, transaction: Digest, number: int) -> bytes | None:
        """What a transaction produced for a demand; None: this node cannot tell.

        Raises:
            ChainFailed: the node cannot be asked.
        """
        for call in self.said(transaction, _PRODUCE):
            if call[:32] == number.to_bytes(32, "big"):
                return tail(call, _BEHIND + len(FIELDS), MOST_DATA)
        return None

    def said(self, transaction: Digest, selector: bytes) -> list[bytes]:
        """Arguments of the calls of one method that a transaction made: itself, or through another contract. Nothing,
        where this node cannot tell.

        Raises:
            ChainFailed: the node cannot be asked.
        """
        found = self.node.transaction(transaction)
        if found is None:
            return []
        to, data = found
        if to == self.where:
            calls = [data]
        else:
            try:
                calls = self.node.calls(transaction, self.where)
            except NodeRefused:
                return []
        return [call[4:] for call in calls if call[:4] == selector]

    def _read(self, name: str, types: tuple[str, ...], *limits: int, of: Address | Digest = "") -> list[int]:
        data = encoded(name, types, *([of] if types else []))
        return words(self.node.call(self.where, data), *limits, what=_WHAT)


def opening(receipt: Receipt, exhibit: bytes, salt: Digest, channel: Terms | None) -> bytes:
    """A call that disputes a receipt, for a deposit. `exhibit`: see `game.exhibit`. `channel`: whose payer is to be
    compensated."""
    types = (RECEIPT, "bytes", "bytes", "bytes32", CONFIG)
    terms = _NO_CHANNEL if channel is None else channel.values()
    return encoded("open", types, receipt_values(receipt), receipt.signature, exhibit, salt, terms)


def demanding(receipt: Receipt, salt: Digest) -> bytes:
    """A call that demands what the passes of an answer are committed to, for a fee."""
    return encoded("demand", (RECEIPT, "bytes", "bytes32"), receipt_values(receipt), receipt.signature, salt)


def commitment(receipt: Digest, challenger: Address, salt: Digest) -> Digest:
    """What `commit` is told."""
    return keccak256(receipt + bytes(12) + bytes.fromhex(challenger[2:]) + salt)
