"""The canonical encoding of every value: JSON by RFC 8785 (JCS), restricted to what has one reading everywhere.

Only objects with string keys, arrays, strings without lone surrogates, booleans, null and integers within
±(2^53 - 1) are encoded. Floating-point numbers are refused: a value that is hashed or signed carries scaled
integers (see `micros`). Bytes travel as base64url without padding.
"""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np
import rfc8785

from assay.core.errors import EncodingError

Json: TypeAlias = "bool | int | str | Sequence[Json] | Mapping[str, Json] | None"
"""What has a canonical encoding."""

MAX_INTEGER: Final = 2**53 - 1
"""Largest integer that every JSON reader keeps exactly (RFC 7493, section 2.2)."""
MAX_DEPTH: Final = 64
"""Deepest nesting of arrays and objects."""
MAX_VALUES: Final = 2**18
"""Most values in one document: a parsed value takes up to 40 times the bytes that spell it."""
MAX_BRACKETS: Final = 1000
"""Text with fewer opening brackets is parsed without a look at its nesting."""
MAX_IDS: Final = 2**20
"""Most token ids in one list; no context is longer."""
MICRO: Final = 1_000_000
"""Scale of sampler settings: temperature 0.7 is 700_000."""
_OPENING: Final = np.frombuffer(b"[{", dtype=np.uint8)
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


def canonical(value: Json) -> bytes:
    """The one encoding of `value`.

    Raises:
        EncodingError: a float, a too large integer, a lone surrogate, a type that JSON does not have, or nesting
            deeper than MAX_DEPTH.
    """
    _check(value, depth=0, floats=False)
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise EncodingError(f"the value has no canonical encoding ({error})") from error


def parse_canonical(data: bytes, *, what: str) -> Json:
    """Read `data`, refusing every spelling but the canonical one.

    Raises:
        EncodingError: not JSON, not the canonical bytes of the value that it spells, or over MAX_VALUES values.
    """
    check_bounds(data, what=what)
    try:
        value: Json = json.loads(data, parse_float=_refuse_float, parse_constant=_refuse_float)
        spelled = canonical(value)
    except (ValueError, RecursionError) as error:
        raise EncodingError(f"{what} is not canonical JSON ({error})") from error
    if spelled != data:
        raise EncodingError(f"{what} is valid JSON, but not the canonical bytes of its value")
    return value


def check_bounds(data: bytes, *, what: str) -> None:
    """Refuse JSON text from outside that would take far more memory or stack than its bytes, before it is parsed.

    Raises:
        EncodingError: over MAX_VALUES values, or nested too deeply (see `check_depth`).
    """
    if len(data) > MAX_VALUES and _values(data) > MAX_VALUES:
        raise EncodingError(f"{what} holds more than {MAX_VALUES} values")
    check_depth(data, what=what)


def check_depth(data: bytes, *, what: str) -> None:
    """Refuse JSON text from outside that nests too deeply for `json.loads`; other mistakes are left to it.

    Where a library has raised the interpreter's recursion limit (py_ecc does, when imported), CPython 3.11 parses deep
    arrays until the stack overflows and the process dies. Text of up to MAX_BRACKETS brackets cannot do that.

    Raises:
        EncodingError: deeper than MAX_DEPTH, and more than MAX_BRACKETS opening brackets in all.
    """
    if data.count(b"[") + data.count(b"{") <= MAX_BRACKETS:
        return
    brackets = np.frombuffer(_STRING.sub(b"", data).translate(None, _NO_BRACKETS), dtype=np.uint8)
    depth = np.cumsum(np.where(np.isin(brackets, _OPENING), 1, -1))
    if depth.size and int(depth.max()) > MAX_DEPTH:
        raise EncodingError(f"{what} is nested too deeply")


def canonical_text(value: object) -> str:
    """Any JSON value, floating-point numbers included, as the text that RFC 8785 gives it.

    Values from outside whose numbers are not ours to scale (JSON schemas, tool definitions) are carried as this text.

    Raises:
        EncodingError: not a JSON value, a lone surrogate, NaN or infinity, or nested too deeply.
    """
    _check(value, depth=0, floats=True)
    try:
        return rfc8785.dumps(value).decode()  # pyrefly: ignore[bad-argument-type]
    except (ValueError, RecursionError, TypeError) as error:
        raise EncodingError(f"the value is not plain JSON ({error})") from error


def micros(value: float | int, *, what: str) -> int:
    """`value` in millionths, rounded half to even, as sampler settings are carried.

    Raises:
        EncodingError: not finite, or over MAX_INTEGER millionths.
    """
    try:
        scaled = round(value * MICRO)
    except (OverflowError, ValueError) as error:  # infinity, NaN
        raise EncodingError(f"{what} is not a finite number") from error
    if abs(scaled) > MAX_INTEGER:
        raise EncodingError(f"{what} is out of range")
    return scaled


def b64(data: bytes) -> str:
    """base64url without padding (RFC 4648, section 5)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def unb64(text: str, *, size: int | None, what: str) -> bytes:
    """Inverse of `b64`.

    Raises:
        EncodingError: padding, stray bits, other characters, or a length other than `size` bytes (None: any).
    """
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError as error:
        raise EncodingError(f"{what} is not base64url") from error
    if b64(data) != text:
        raise EncodingError(f"{what} is not canonical base64url")
    if size is not None and len(data) != size:
        raise EncodingError(f"{what} has {len(data)} bytes, not {size}")
    return data


def pack_ids(ids: Sequence[int]) -> bytes:
    """Token ids as consecutive unsigned 32-bit big-endian integers.

    Raises:
        EncodingError: an id does not fit.
    """
    try:
        return struct.pack(f">{len(ids)}I", *ids)
    except struct.error as error:
        raise EncodingError("a token id is not an unsigned 32-bit integer") from error


def unpack_ids(data: bytes, *, what: str) -> tuple[int, ...]:
    """Inverse of `pack_ids`.

    Raises:
        EncodingError: not a whole number of ids, or more than MAX_IDS.
    """
    if len(data) % 4:
        raise EncodingError(f"{what} is not a list of 32-bit token ids")
    if len(data) > 4 * MAX_IDS:
        raise EncodingError(f"{what} has more than {MAX_IDS} token ids")
    return struct.unpack(f">{len(data) // 4}I", data)


def _refuse_float(text: str) -> Json:
    raise EncodingError(f"the number {text[:40]} is not an integer")


def _values(data: bytes) -> int:
    """About how many values JSON text spells: in little memory, so that a giant is refused before it is parsed."""
    strings = (data.count(b'"') - data.count(b'\\"')) // 2  # from half of the strings to all of them
    if strings > 2 * MAX_VALUES:  # each value brings two at most, its key and itself
        return strings
    return sum(map(_STRING.sub(b"", data).count, (b",", b"[", b"{")))


def _check(value: object, *, depth: int, floats: bool) -> None:
    if depth > MAX_DEPTH:
        raise EncodingError("the value is nested too deeply")
    if isinstance(value, bool) or value is None or isinstance(value, str) or (floats and isinstance(value, float)):
        return
    if isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise EncodingError("an integer is larger than 2^53 - 1")  # unprinted: str() of a huge one fails
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise EncodingError("an object's key is not a string")
            _check(item, depth=depth + 1, floats=floats)
    elif isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        for item in value:
            _check(item, depth=depth + 1, floats=floats)
    else:
        raise EncodingError(f"{type(value).__name__} has no canonical encoding")
