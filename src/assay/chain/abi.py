"""Calls of contracts, and what they answer (Solidity's contract ABI, version 2)."""

from __future__ import annotations

from typing import Final

from assay.chain.ethereum import encode_abi
from assay.core.errors import ChainFailed
from assay.core.keys import keccak256
from assay.core.voucher import TERMS

CONFIG: Final = f"({','.join(kind for _, kind in TERMS)})"
"""The type of a channel's terms; their `values` are one."""
SAID: Final = 300
"""Characters of others' words that are passed on."""


def encoded(name: str, types: tuple[str, ...], *args: object) -> bytes:
    """A call: selector and arguments."""
    return keccak256(f"{name}({','.join(types)})".encode())[:4] + encode_abi(types, args)


def words(data: bytes, *limits: int, what: str) -> list[int]:
    """Numbers, each below its limit, and nothing else.

    Raises:
        ChainFailed: other data: a contract of another kind, or a lie.
    """
    found = [int.from_bytes(data[at : at + 32], "big") for at in range(0, len(data), 32)]
    if len(data) != 32 * len(limits) or any(n >= limit for n, limit in zip(found, limits, strict=True)):
        raise ChainFailed(f"{what} cannot be read from the chain", "check the contract's address, or ask another node")
    return found


def reason(data: bytes) -> str:
    """What a revert's data say: the text of Solidity's `Error(string)`, or the beginning in hexadecimal digits."""
    if data[:4].hex() == "08c379a0" and len(data) >= 68:
        text = data[68 : 68 + min(int.from_bytes(data[36:68], "big"), SAID)]
        return printable(text.decode(errors="replace"))
    return "0x" + data[:68].hex() if data else "no reason is given"


def printable(text: str) -> str:
    """The beginning of others' words, without what moves cursors."""
    return "".join(c if c.isprintable() else "?" for c in text[:SAID])
