"""Server-sent events: what is written, and a bounded reader for what strangers send (WHATWG HTML, section 9.2)."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import Final

from assay.core.errors import ProviderFailed

DONE: Final = b"data: [DONE]\n\n"
"""OpenAI's end of a stream."""
KEEP_ALIVE: Final = b": still working\n\n"
"""A comment: clients skip it, proxies see that the connection lives."""
MAX_EVENT: Final = 16 * 2**20
"""Bytes of one event's data, all its lines together."""
_LINE_COST: Final = 64
"""What a line counts beside its bytes, so that empty ones cannot fill the memory."""
_FIELDS: Final = frozenset({b"data", b"event", b"id", b"retry"})


class EventReader:
    """Cuts a byte stream into the data of events. Memory stays below twice the largest event that is allowed.

    Other fields than `data` are skipped, as are comments; a line that is neither is not this protocol.
    """

    def __init__(self, max_event: int = MAX_EVENT, *, large: bytes = b"", max_large: int = 0) -> None:
        """An event has at most `max_event` bytes, or `max_large` if its data begins with `large`."""
        self._max = max_event
        self._large = large
        self._max_large = max_large
        self._line = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._started = False
        self._after_return = False

    @property
    def empty(self) -> bool:
        """No event has begun that is not ended: the stream may end here."""
        return not self._line and not self._data

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of every event that `chunk` completes.

        Raises:
            ProviderFailed: an event larger than the limit, or a line that no event has.
        """
        if self._after_return and chunk:
            chunk = chunk.removeprefix(b"\n")  # the other half of \r\n
            self._after_return = False
        if b"\n" not in chunk and b"\r" not in chunk:
            self._keep(chunk)
            return []
        self._after_return = chunk.endswith(b"\r")
        lines = (bytes(self._line) + chunk).splitlines(keepends=True)
        self._line.clear()
        if not lines[-1].endswith((b"\n", b"\r")):
            self._keep(lines.pop())
        events: list[bytes] = []
        for line in lines:
            event = self._read(line.rstrip(b"\r\n"))
            if event is not None:
                events.append(event)
        return events

    def _keep(self, part: bytes) -> None:
        self._line += part
        self._check(self._line, len(self._line) + self._size)

    def _read(self, line: bytes) -> bytes | None:
        if not self._started:
            self._started = True
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            if not self._data:
                return None
            event = b"\n".join(self._data)
            self._data.clear()
            self._size = 0
            return event
        name, colon, value = line.partition(b":")
        if not name and colon:
            return None
        if name not in _FIELDS:
            raise ProviderFailed(
                f"the stream has a line that is no event ({line[:40]!r})",
                "check that the address is an Assay or OpenAI server",
            )
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._size += len(value) + _LINE_COST
            self._check(line, self._size)
        return None

    def _check(self, line: bytes | bytearray, size: int) -> None:
        """Refuse an event, of which `line` is the line at hand, that has `size` bytes by now."""
        if size <= self._max:
            return
        begins = (
            self._data[0] if self._data else bytes(line[: len(self._large) + 6]).removeprefix(b"data:").lstrip(b" ")
        )
        most = self._max_large if self._large and begins.startswith(self._large) else self._max
        if size > most:
            raise ProviderFailed(f"the stream has an event larger than {most} bytes", "ask another provider")


async def read_events(chunks: AsyncIterable[bytes], *, max_event: int = MAX_EVENT) -> AsyncIterator[bytes]:
    """The data of each event up to `[DONE]` or the end of the stream.

    Raises:
        ProviderFailed: the stream is not events, an event is too large, or it ends within one.
    """
    reader = EventReader(max_event)
    async for chunk in chunks:
        for data in reader.feed(chunk):
            if data == b"[DONE]":
                return
            yield data
    if not reader.empty:
        raise ProviderFailed("the stream was cut off within an event", "ask again, or ask another provider")
