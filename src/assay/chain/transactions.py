"""Signed transactions: what somebody sends to a chain, decoded and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from assay.chain.ethereum import Account, rlp
from assay.core.errors import EncodingError
from assay.core.keys import Address, keccak256

MAX_TRANSACTION: Final = 128 * 1024
"""Bytes; as Ethereum's nodes have it."""
_DYNAMIC: Final = 2
"""The type of EIP-1559's transactions."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """One that was signed."""

    raw: bytes
    sender: Address
    chain_id: int
    nonce: int
    to: Address | None
    """None: a contract is deployed."""
    value: int
    """Wei."""
    data: bytes
    gas: int
    """The most that it may take."""
    most: int
    """Wei for each unit of gas, at most."""
    tip: int
    """Of them, what is beyond the block's base fee."""

    @property
    def hash(self) -> bytes:
        """32 bytes."""
        return keccak256(self.raw)

    @classmethod
    def decode(cls, raw: bytes) -> Transaction:
        """From the bytes that wallets send: of type 2 (EIP-1559), or a legacy one with a chain id (EIP-155).

        Raises:
            EncodingError: anything else, or a signature that fits no key.
        """
        if not 0 < len(raw) <= MAX_TRANSACTION:
            raise EncodingError(f"a transaction has 1 to {MAX_TRANSACTION} bytes")
        try:
            sender = str(Account.recover_transaction(raw)).lower()
            if raw[0] == _DYNAMIC:
                chain, nonce, tip, most, gas, to, value, data, access, *_ = rlp.decode(raw[1:])
                if access:
                    raise EncodingError("transactions with access lists are not known here")
                chain_id = _number(chain)
            elif raw[0] >= 0xC0:
                nonce, most, gas, to, value, data, v, *_ = rlp.decode(raw)
                tip, chain_id = most, (_number(v) - 35) // 2
            else:
                raise EncodingError("transactions are of type 2 or legacy ones")
            if len(to) not in (0, 20) or not isinstance(data, bytes):
                raise EncodingError("a transaction goes to 20 bytes, or to nobody")
        except EncodingError:
            raise
        except Exception as error:  # three libraries raise what they like
            raise EncodingError("this is no signed transaction") from error
        numbers = [_number(part) for part in (nonce, value, gas, most, tip)]
        target = "0x" + bytes(to).hex() if to else None
        return cls(raw, sender, chain_id, numbers[0], target, numbers[1], data, *numbers[2:])


def _number(data: object) -> int:
    if not isinstance(data, bytes) or len(data) > 32 or data[:1] == b"\0":
        raise EncodingError("a transaction's number has up to 32 bytes, none of them a leading zero")
    return int.from_bytes(data, "big")
