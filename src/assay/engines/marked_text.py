"""Strings that remember which of their characters a chat template wrote itself.

Only what provably comes from the template is marked; an operation that is not known here gives an ordinary string.
So a lost mark makes markup inert, never a user's words active (positive tainting: Halfond, Orso and Manolios,
"WASP", IEEE TSE 34(1), 2008).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import SupportsIndex, TypeAlias

from typing_extensions import override

Spans: TypeAlias = tuple[tuple[int, int], ...]
"""Half-open ranges of characters: in order, not empty, apart from each other."""


class MarkedText(str):
    """A string with the ranges that the template wrote. Equal to, and hashed like, the plain string."""

    __slots__ = ("spans",)
    spans: Spans

    def __new__(cls, text: str, spans: Spans) -> MarkedText:
        """`text` with its marks; `spans` must lie inside it."""
        made = super().__new__(cls, text)
        made.spans = spans
        return made

    @override
    def __getitem__(self, key: SupportsIndex | slice) -> str:
        if isinstance(key, slice) and key.step in (None, 1):
            start, stop, _ = key.indices(len(self))
            return cut(self, start, stop)
        return super().__getitem__(key)


def marked(text: str) -> MarkedText:
    """`text`, all of it written by the template."""
    return MarkedText(text, ((0, len(text)),) if text else ())


def joined(parts: Iterable[str], separator: str = "") -> str:
    """`separator.join(parts)` with the marks of all of them."""
    parts = list(parts)
    if separator:
        parts = [piece for part in parts for piece in (separator, part)][1:]
    spans: list[tuple[int, int]] = []
    offset = 0
    for part in parts:
        if isinstance(part, MarkedText):
            for start, stop in part.spans:
                if spans and spans[-1][1] == offset + start:
                    spans[-1] = (spans[-1][0], offset + stop)
                else:
                    spans.append((offset + start, offset + stop))
        offset += len(part)
    text = "".join(parts)
    return MarkedText(text, tuple(spans)) if spans else text


def cut(text: str, start: int, stop: int) -> str:
    """`text[start:stop]` with its marks, for 0 <= start, stop <= len(text)."""
    plain = str.__getitem__(text, slice(start, stop))
    if not isinstance(text, MarkedText) or not plain:
        return plain
    inside = ((max(a, start) - start, min(b, stop) - start) for a, b in text.spans if a < stop and b > start)
    spans = tuple(inside)
    return MarkedText(plain, spans) if spans else plain


def stripped(text: str, chars: str | None = None, *, left: bool = True, right: bool = True) -> str:
    """`text.strip(chars)`, or of one side only, with its marks."""
    start = len(text) - len(text.lstrip(chars)) if left else 0
    stop = len(text.rstrip(chars)) if right else len(text)
    return cut(text, start, max(start, stop))


def repeated(text: str, times: int) -> str:
    """`text * times`, marked where all of `text` is."""
    plain = str(text) * times
    return marked(plain) if _spans(text) == ((0, len(text)),) else plain


def replaced(text: str, old: str, new: str, count: int = -1) -> str:
    """`text.replace(old, new, count)` with the marks of `text` and `new`."""
    if not old or not (_spans(text) or _spans(new)):
        return text.replace(old, new, count)
    parts: list[str] = []
    start = 0
    while count and (at := text.find(old, start)) >= 0:
        parts += (cut(text, start, at), new)
        start = at + len(old)
        count -= 1
    return joined((*parts, cut(text, start, len(text))))


def runs(text: str) -> list[tuple[str, bool]]:
    """`text` in order as (piece, whether the template wrote it); neighbours differ, no piece is empty."""
    found: list[tuple[str, bool]] = []
    last = 0
    for start, stop in _spans(text):
        if start > last:
            found.append((str.__getitem__(text, slice(last, start)), False))
        found.append((str.__getitem__(text, slice(start, stop)), True))
        last = stop
    if last < len(text):
        found.append((str.__getitem__(text, slice(last, None)), False))
    return found


def _spans(text: str) -> Spans:
    return text.spans if isinstance(text, MarkedText) else ()
