"""The reader of server-sent events, against strangers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.core.errors import ProviderFailed
from assay.core.sse import DONE, KEEP_ALIVE, EventReader, read_events

STREAM = (
    b'data: {"a":1}\n\n: comment\n\ndata:x\r\ndata: y\r\n\r\nevent: e\nid: 1\nretry: 5\ndata: z\rdata\r\rdata:  two\n\n'
)
EVENTS = [b'{"a":1}', b"x\ny", b"z\n", b" two"]


@settings(deadline=None)
@given(st.lists(st.integers(0, len(STREAM)), max_size=40))
def test_any_cut_gives_the_same_events(cuts: list[int]) -> None:
    """However the bytes arrive, the events are those of the standard: three line ends, comments, several data lines."""
    edges = [0, *sorted(cuts), len(STREAM)]
    reader = EventReader()
    events = [event for start, end in pairwise(edges) for event in reader.feed(STREAM[start:end])]
    assert events == EVENTS
    assert reader.empty


def test_byte_order_mark() -> None:
    """A byte order mark before the first line is skipped."""
    assert EventReader().feed(b"\xef\xbb\xbfdata: 1\n\n") == [b"1"]


@pytest.mark.parametrize(
    "garbage",
    [
        b"<html>\n",
        b"HTTP/1.1 200 OK\r\n",
        b"\x00\xff\n",
        b"{}\n",
        b" data: 1\n",
        b"x" * 2000,
        b"data: " + b"x" * 2000 + b"\n",
    ],
)
def test_garbage(garbage: bytes) -> None:
    """What is no event, or too large for one, is the provider's failure."""
    with pytest.raises(ProviderFailed):
        EventReader(max_event=1000).feed(garbage)


def test_endless_events() -> None:
    """Neither an endless line nor endless lines of one event fill the memory."""
    for piece in (b"data", b"data:\n", b"data: x\n"):
        reader = EventReader(max_event=1000)
        with pytest.raises(ProviderFailed, match="larger than 1000 bytes"):
            _ = [reader.feed(piece) for _ in range(10_000)]


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_an_event_that_begins_as_agreed_may_be_larger(size: int) -> None:
    """However it is cut; others, and lines that only later say so, keep to the small limit."""
    agreed, other = b'data: {"bundle":' + b"x" * 5000 + b"\n\n", b"data: " + b"x" * 5000 + b'{"bundle":\n\n'

    def read(stream: bytes, most: int) -> list[bytes]:
        reader = EventReader(1000, large=b'{"bundle":', max_large=most)
        return [event for at in range(0, len(stream), size) for event in reader.feed(stream[at : at + size])]

    assert read(agreed, 6000) == [agreed[6:-2]]
    for stream, most in ((agreed, 4000), (other, 6000), (b"data: x\n" + agreed, 6000)):
        with pytest.raises(ProviderFailed, match="larger than"):
            read(stream, most)


def test_limit_is_for_one_event() -> None:
    """Many events within the limit may be as long together as they like."""
    reader = EventReader(max_event=1000)
    assert sum(len(reader.feed(b"data: " + b"x" * 900 + b"\n\n")) for _ in range(100)) == 100


async def _chunks(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


@pytest.mark.anyio
async def test_read_events() -> None:
    """A stream ends at [DONE], whatever follows, or with its last whole event."""
    assert [e async for e in read_events(_chunks(KEEP_ALIVE, b"data: 1\n\n", DONE + b"data: 2\n\n"))] == [b"1"]
    assert [e async for e in read_events(_chunks(b"data: 1\n\n"))] == [b"1"]


@pytest.mark.anyio
@pytest.mark.parametrize("rest", [b"data: 2", b"data: 2\n", b"dat"])
async def test_cut_stream(rest: bytes) -> None:
    """A stream that ends within an event was cut off."""
    with pytest.raises(ProviderFailed, match="cut off"):
        _ = [event async for event in read_events(_chunks(b"data: 1\n\n", rest))]
