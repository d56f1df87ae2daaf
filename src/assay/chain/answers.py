"""Pieces of what a node answers, checked."""

from __future__ import annotations

from collections.abc import Mapping

from assay.core.errors import ChainFailed, EncodingError
from assay.core.keys import Address, parse_address


def members(value: object, what: str) -> Mapping[str, object]:
    """An object.

    Raises:
        ChainFailed: it is none; `what` it should be.
    """
    if not isinstance(value, Mapping):
        raise ChainFailed(f"the node does not have {what}, or gives none", "ask another node")
    return value


def number(value: object, what: str, limit: int = 1 << 256) -> int:
    """A number below a limit.

    Raises:
        ChainFailed: it is none.
    """
    try:
        if isinstance(value, str) and value.startswith("0x") and 2 < len(value) <= 66:
            found = int(value[2:], 16)
            if "_" not in value and 0 <= found < limit:
                return found
    except ValueError:
        pass
    raise ChainFailed(f"the node's answer is not {what}", "ask another node")


def octets(value: object, what: str, size: int | None = None) -> bytes:
    """Bytes, of a size if there is one.

    Raises:
        ChainFailed: they are none.
    """
    try:
        if isinstance(value, str) and value.startswith("0x"):
            found = bytes.fromhex(value[2:])
            if 2 * len(found) + 2 == len(value) and size in (None, len(found)):
                return found
    except ValueError:
        pass
    raise ChainFailed(f"the node's answer is not {what}", "ask another node")


def address(value: object) -> Address | None:
    """An address, or None for null.

    Raises:
        ChainFailed: it is none.
    """
    if value is None:
        return None
    try:
        return parse_address(value.lower() if isinstance(value, str) else "", what="an address")
    except EncodingError as error:
        raise ChainFailed("the node's answer is not an address", "ask another node") from error
