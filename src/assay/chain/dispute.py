"""An open dispute: what the court keeps one hash of, and the calls that have to say it again."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Final, TypeAlias

from assay.chain.abi import encoded
from assay.chain.ethereum import encode_abi
from assay.core.completion import STOP_REASONS
from assay.core.hashing import ZERO, Digest
from assay.core.keys import Address, keccak256
from assay.core.receipt import FIELDS, VERSION, Receipt
from assay.core.request import LEVELS

DISPUTE: Final = "(uint256,uint256,uint256,address,bytes32)"
"""Its type, as contracts take it."""
RECEIPT: Final = f"({','.join(kind for _, kind in FIELDS)})"
"""That of a receipt without its signature."""
MOVE: Final = ("uint256", DISPUTE, "bytes", "bytes")
PRODUCE: Final = ("uint256", DISPUTE, RECEIPT, "bytes")
_Values: TypeAlias = tuple[int, int, int, Address, Digest]


@dataclass(frozen=True, slots=True)
class Shown:
    """A state of a dispute, as an event told it."""

    state: bytes
    sides: int
    """See `Dispute`."""
    transaction: Digest
    """That brought it about."""
    block: int

    @property
    def turn(self) -> int:
        """Whose it is, or how the move ended the game."""
        return self.sides >> 232

    @property
    def deadline(self) -> int:
        """Unix seconds until which a move is in time."""
        return self.sides >> 160 & (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Dispute:
    """One at some moment, as events told it; see `Court.vy`."""

    id: int
    sides: int
    """Challenger, then from bit 160 deadline, 224 moves made, 232 turn."""
    terms: int
    """Provider, then from bit 160 window, and shares of what is slashed."""
    money: int
    """Deposit, then from bit 128 what the wronged gets at most."""
    wronged: Address
    receipt: Digest
    state: Digest
    """Keccak-256 of the game's state; zeros: data are demanded."""

    @property
    def values(self) -> _Values:
        """As contracts take it."""
        return self.sides, self.terms, self.money, self.wronged, self.receipt

    @property
    def digest(self) -> Digest:
        """What the court keeps."""
        return keccak256(encode_abi((DISPUTE, "bytes32"), (self.values, self.state)))

    @property
    def challenger(self) -> Address:
        """Who opened it."""
        return _address(self.sides)

    @property
    def provider(self) -> Address:
        """Who signed the receipt."""
        return _address(self.terms)

    @property
    def turn(self) -> int:
        """PROVER or CHALLENGER."""
        return self.sides >> 232

    @property
    def moves(self) -> int:
        """That were made."""
        return self.sides >> 224 & 0xFF

    @property
    def deadline(self) -> int:
        """Unix seconds until which a move is in time."""
        return self.sides >> 160 & (1 << 64) - 1

    @property
    def window(self) -> int:
        """Seconds for a move."""
        return self.terms >> 160 & (1 << 32) - 1

    @property
    def deposit(self) -> int:
        """The challenger's, wei."""
        return self.money & (1 << 128) - 1

    @property
    def demanded(self) -> bool:
        """It is not a game, but a demand for data."""
        return self.state == ZERO

    def after(self, shown: Shown) -> Dispute:
        """As an event told it."""
        state = keccak256(shown.state) if shown.state else ZERO
        return replace(self, sides=shown.sides, state=state)

    def moving(self, state: bytes, data: bytes) -> bytes:
        """A call that moves. `state`: the game's, as the last event told it."""
        return encoded("move", MOVE, self.id, self.values, state, data)

    def proving(self, state: bytes, data: bytes) -> bytes:
        """A call that makes the last move."""
        return encoded("prove", MOVE, self.id, self.values, state, data)

    def producing(self, receipt: Receipt, data: bytes) -> bytes:
        """A call that answers a demand. `data`: salt of the evidence, then 32 bytes for each pass."""
        return encoded("produce", PRODUCE, self.id, self.values, receipt_values(receipt), data)

    def timing_out(self) -> bytes:
        """A call that ends it where a side is silent, or where it is settled elsewhere."""
        return encoded("timeout", ("uint256", DISPUTE, "bytes32"), self.id, self.values, self.state)


def receipt_values(receipt: Receipt) -> tuple[Any, ...]:
    """A receipt as contracts take it, without its signature."""
    values = {field.name: getattr(receipt, field.name) for field in fields(receipt) if field.name != "signature"}
    values |= {"level": LEVELS.index(receipt.level), "stop": STOP_REASONS.index(receipt.stop)}
    return (VERSION, *values.values())


def _address(number: int) -> Address:
    return f"0x{number & (1 << 160) - 1:040x}"
