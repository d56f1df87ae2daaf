"""Signed transactions: what somebody sends to a chain, decoded and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from assay.chain.ethereum import Account, rlp
from assay.core.errors import EncodingError
from assay.core.keys import HALF_ORDER, Address, keccak256

MAX_TRANSACTION: Final = 128 * 1024
"""Bytes; as Ethereum's nodes have it."""
MAX_CODE: Final = 49_152
"""Bytes of code that deploys a contract (EIP-3860)."""
_DYNAMIC: Final = 2
"""The type of EIP-1559's transactions."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """One that was signed."""

    raw: bytes
    hash: bytes
    """32 bytes."""
    kind: int
    """2 (EIP-1559), or 0."""
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
    signature: tuple[int, int, int]
    """v, r and s as they were sent."""

    @property
    def least_gas(self) -> int:
        """What it takes before anything runs (Yellow Paper, 6.2; EIP-2028, EIP-3860)."""
        zeros = self.data.count(0)
        own = 21_000 + 4 * zeros + 16 * (len(self.data) - zeros)
        return own if self.to else own + 32_000 + 2 * -(-len(self.data) // 32)

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
                chain, nonce, tip, most, gas, to, value, data, access, *signature = rlp.decode(raw[1:])
                if access:
                    raise EncodingError("transactions with access lists are not known here")
                chain_id = _number(chain)
            elif raw[0] >= 0xC0:
                nonce, most, gas, to, value, data, *signature = rlp.decode(raw)
                tip, chain_id = most, (_number(signature[0]) - 35) // 2
            else:
                raise EncodingError("transactions are of type 2 or legacy ones")
            if len(to) not in (0, 20) or not isinstance(data, bytes) or len(signature) != 3:
                raise EncodingError("a transaction goes to 20 bytes, or to nobody, and has one signature")
        except EncodingError:
            raise
        except Exception as error:  # three libraries raise what they like
            raise EncodingError("this is no signed transaction") from error
        v, r, s = map(_number, signature)
        if s > HALF_ORDER:
            raise EncodingError("the signature's s is in the upper half (EIP-2)")
        if not to and len(data) > MAX_CODE:
            raise EncodingError(f"code that deploys a contract has at most {MAX_CODE} bytes (EIP-3860)")
        target, kind = ("0x" + bytes(to).hex() if to else None), (2 if raw[0] == _DYNAMIC else 0)
        spent = _number(gas), _number(most), _number(tip)
        return cls(
            raw, keccak256(raw), kind, sender, chain_id, _number(nonce), target, _number(value), data, *spent, (v, r, s)
        )


def _number(data: object) -> int:
    if not isinstance(data, bytes) or len(data) > 32 or data[:1] == b"\0":
        raise EncodingError("a transaction's number has up to 32 bytes, none of them a leading zero")
    return int.from_bytes(data, "big")
