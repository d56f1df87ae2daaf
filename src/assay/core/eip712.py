"""EIP-712 hashing of flat structs: what a wallet or a contract computes over a receipt or a voucher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Literal, TypeAlias

from assay.core.errors import EncodingError
from assay.core.keys import keccak256, parse_address

Kind: TypeAlias = Literal[
    "bytes32", "address", "uint8", "uint16", "uint32", "uint40", "uint64", "uint128", "uint256", "string"
]
"""The atomic types in use."""
Fields: TypeAlias = tuple[tuple[str, Kind], ...]
"""A struct's members in order: (name, type)."""


@cache
def type_hash(name: str, fields: Fields) -> bytes:
    """keccak256 of the struct's signature, as `encodeType` of EIP-712 spells it."""
    return keccak256(f"{name}({','.join(f'{kind} {member}' for member, kind in fields)})".encode())


def struct_hash(name: str, fields: Fields, values: Mapping[str, bytes | int | str]) -> bytes:
    """`hashStruct` of EIP-712 for a struct of atomic members.

    Raises:
        EncodingError: a value does not fit its type.
    """
    return keccak256(type_hash(name, fields) + b"".join(_word(member, kind, values[member]) for member, kind in fields))


@cache
def domain_separator(name: str, version: str, chain_id: int | None = None, contract: str | None = None) -> bytes:
    """The `EIP712Domain` hash; members that are None are left out, as the standard says."""
    fields: list[tuple[str, Kind]] = [("name", "string"), ("version", "string")]
    values: dict[str, bytes | int | str] = {"name": name, "version": version}
    if chain_id is not None:
        fields.append(("chainId", "uint256"))
        values["chainId"] = chain_id
    if contract is not None:
        fields.append(("verifyingContract", "address"))
        values["verifyingContract"] = contract
    return struct_hash("EIP712Domain", tuple(fields), values)


def signing_digest(domain: bytes, struct: bytes) -> bytes:
    """The 32 bytes that are signed: keccak256(0x1901 ‖ domain ‖ struct)."""
    return keccak256(b"\x19\x01" + domain + struct)


def typed_data_types(name: str, fields: Fields, domain: Sequence[str]) -> dict[str, list[dict[str, str]]]:
    """The `types` object that wallets want in `eth_signTypedData_v4`."""
    kinds = {"name": "string", "version": "string", "chainId": "uint256", "verifyingContract": "address"}
    return {
        "EIP712Domain": [{"name": member, "type": kinds[member]} for member in domain],
        name: [{"name": member, "type": kind} for member, kind in fields],
    }


def _word(member: str, kind: Kind, value: bytes | int | str) -> bytes:
    if isinstance(value, str):
        if kind == "address":
            return bytes(12) + bytes.fromhex(parse_address(value, what=member)[2:])
        if kind == "string":
            return keccak256(value.encode(errors="surrogatepass"))
    elif isinstance(value, bytes):
        if kind == "bytes32" and len(value) == 32:
            return value
    elif kind.startswith("uint") and not isinstance(value, bool) and 0 <= value < 1 << int(kind[4:]):
        return value.to_bytes(32, "big")
    raise EncodingError(f"{member} is not a {kind}")
