"""Pages of long lists: where one ends, the next one goes on, whatever has come or gone meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from typing import Final, TypeAlias, TypeVar, cast

from starlette.requests import Request

from assay.core.encoding import b64, unb64
from assay.core.errors import EncodingError, InvalidRequest

MOST: Final = 200
"""Rows of a page."""
_USUAL: Final = 25
_MOST_TEXT: Final = 300
_MOST_CURSOR: Final = 600
Value: TypeAlias = int | float | str | None
"""What rows are sorted by; None comes last, whichever way."""
T = TypeVar("T")


def text_of(request: Request, name: str) -> str:
    """A text in the query; empty where it is left out.

    Raises:
        InvalidRequest: it is too long.
    """
    found = request.query_params.get(name, "").strip()
    if len(found) > _MOST_TEXT:
        raise InvalidRequest(f"`{name}` has over {_MOST_TEXT} characters", field=name, remedy="shorten it")
    return found


def one_of(request: Request, name: str, known: Collection[str], usual: str = "") -> str:
    """One of some words in the query; `usual` where it is left out.

    Raises:
        InvalidRequest: it is another word.
    """
    found = request.query_params.get(name, "") or usual
    if found and found not in known:
        raise InvalidRequest(f"`{name}` is unknown", field=name, remedy=f"choose one of {', '.join(sorted(known))}")
    return found


def limit_of(request: Request) -> int:
    """How many rows are wanted.

    Raises:
        InvalidRequest: it is no number from 1 to MOST.
    """
    found = request.query_params.get("limit", str(_USUAL))
    if not (found.isascii() and found.isdigit() and len(found) < 5 and 1 <= int(found) <= MOST):
        raise InvalidRequest("`limit` is out of range", field="limit", remedy=f"choose a number from 1 to {MOST}")
    return int(found)


def cursor(value: Value, name: str | int) -> str:
    """Says where a page ended: the last row's value and its name."""
    return b64(json.dumps([value, name]).encode())


def read_cursor(request: Request) -> tuple[Value, str | int] | None:
    """Where the page before ended; None: this is the first one.

    Raises:
        InvalidRequest: it is no cursor.
    """
    given = request.query_params.get("after", "")
    if not given:
        return None
    try:
        if len(given) > _MOST_CURSOR:
            raise ValueError
        value, name = json.loads(unb64(given, size=None, what="after"))
    except (EncodingError, ValueError, TypeError, RecursionError) as error:
        raise _no_cursor() from error
    if isinstance(value, bool) or not isinstance(value, int | float | str | None) or not isinstance(name, int | str):
        raise _no_cursor()
    return value, name


def sorted_by(rows: Sequence[T], value: Callable[[T], Value], name: Callable[[T], str], *, descending: bool) -> list[T]:
    """By their values, equal ones by their names; those without a value last."""
    with_one = sorted((row for row in rows if value(row) is not None), key=name)
    with_one.sort(key=lambda row: cast("float", value(row)), reverse=descending)
    return [*with_one, *sorted((row for row in rows if value(row) is None), key=name)]


def start(
    rows: Sequence[T],
    value: Callable[[T], Value],
    name: Callable[[T], str],
    after: tuple[Value, str | int] | None,
    *,
    descending: bool,
) -> int:
    """Where a page begins in rows that `sorted_by` has sorted.

    Raises:
        InvalidRequest: the cursor is of a list that is sorted by something else.
    """
    if after is None:
        return 0
    last, last_name = after

    def comes_after(row: T) -> bool:
        here = value(row)
        if here == last:
            return name(row) > str(last_name)
        if here is None or last is None:
            return here is None
        return (here < last) if descending else (here > last)  # type: ignore[operator]

    try:
        low, high = 0, len(rows)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if comes_after(rows[middle]) else (middle + 1, high)
    except TypeError as error:
        raise _no_cursor() from error
    return low


def _no_cursor() -> InvalidRequest:
    return InvalidRequest("`after` is no place in this list", field="after", remedy="begin with the first page")
