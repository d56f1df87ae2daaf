"""A client of many streams at once that costs little: bytes are counted as they come, and parsed at the end."""

from __future__ import annotations

import asyncio
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from benchmarks._stream_programs import MODEL
from typing_extensions import override

_TOKEN: Final = b'"content":" word"'
_END: Final = b"data: [DONE]"
_SECONDS: Final = 900.0
"""After which a stream that has not ended has failed."""


@dataclass
class Stream(asyncio.Protocol):
    """One streamed answer."""

    request: bytes
    """Its head and its body."""
    over: asyncio.Future[None]
    data: bytearray = field(default_factory=bytearray)
    pieces: int = 0
    """In which it came."""
    tokens: int = 0
    asked: float = 0.0
    """When the connection for it was asked for, in seconds of the monotonic clock."""
    first: float = 0.0
    """When the first token came; 0 before."""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        assert isinstance(transport, asyncio.Transport)
        transport.write(self.request)

    @override
    def data_received(self, data: bytes) -> None:
        """Count tokens; one that is divided between two pieces is not seen."""
        self.data += data
        self.pieces += 1
        self.tokens += data.count(_TOKEN)
        if self.tokens and not self.first:
            self.first = time.monotonic()
        if _END in data and not self.over.done():
            self.over.set_result(None)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """A stream that is not over has failed."""
        if not self.over.done():
            self.over.set_result(None)

    @property
    def whole(self) -> bool:
        """It came to its end, without an error."""
        return self.data.startswith(b"HTTP/1.1 200") and _END in self.data and b'"error":' not in self.data

    @property
    def id(self) -> str:
        """The reply's: its receipt is found by it."""
        begin = self.data.index(b'data: {"id":"') + len(b'data: {"id":"')
        return self.data[begin : self.data.index(b'"', begin)].decode()


@dataclass(frozen=True)
class Round:
    """What many streams at once through one program cost it."""

    streams: list[Stream]
    most: int
    """Streams that had had a token and were not over, at once."""
    processor: float
    """Seconds of processor time of the program, from the first request to the last end."""
    between: float
    """The same, from when all had had a token until the first was over."""
    tokens_between: int
    memory: int
    """Bytes that the program holds while all are open."""


async def run(url: str, process: int, count: int, tokens: int, ramp: float) -> Round:
    """Open `count` streams of `tokens` tokens each over `ramp` seconds; `process`: the program's number."""
    loop, place = asyncio.get_running_loop(), urlsplit(url)
    body = {
        "model": MODEL, "messages": [{"role": "user", "content": "Go on."}], "max_tokens": tokens, "stream": True,
    }  # fmt: skip
    streams: list[Stream] = []
    before = processor(process)

    async def one(number: int) -> None:
        await asyncio.sleep(number * ramp / count)
        said = json.dumps(body | {"seed": number + 1}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {place.netloc}\r\ncontent-type: application/json\r\n"
        asked = f"{head}content-length: {len(said)}\r\nconnection: close\r\n\r\n".encode() + said
        stream = Stream(asked, loop.create_future())
        streams.append(stream)
        stream.asked = time.monotonic()
        transport, _ = await loop.create_connection(lambda: stream, place.hostname, place.port)
        async with asyncio.timeout(_SECONDS):
            await stream.over
        transport.close()

    asking = [asyncio.create_task(one(number)) for number in range(count)]
    most, memory, seen, begun, ended = 0, 0, 0, 0.0, 0.0
    while not all(task.done() for task in asking):
        await asyncio.sleep(0.05)
        under_way = sum(bool(stream.first) and not stream.over.done() for stream in streams)
        most = max(most, under_way)
        if under_way < count:
            continue
        ended, memory = processor(process), resident(process)
        if not begun:
            begun, seen = ended, sum(stream.tokens for stream in streams)
        seen_last = sum(stream.tokens for stream in streams)
    await asyncio.gather(*asking, return_exceptions=True)
    await asyncio.sleep(1.0)  # for what is done behind the last answers
    whole = processor(process) - before
    return Round(streams, most, whole, ended - begun, seen_last - seen if begun else 0, memory)


def processor(process: int) -> float:
    """Seconds of processor time that a process has had."""
    stat = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def resident(process: int) -> int:
    """Bytes of memory that a process holds."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
