"""Providers on sockets that do what they like: away, half-dead or lying."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from tests.e2e.kit import MODEL

from assay.core.offer import Offer, Price
from assay.engines.models import CATALOGUE
from assay.network.wire import encode_offers

PROVIDER = "0x" + "ab" * 20
_DIGEST = CATALOGUE[MODEL].sha256
_OFFER = Offer(PROVIDER, "", MODEL, _DIGEST, "pinned", Price(0, 0), 2048, True, False, bytes(32), "gumbel/1")
OFFERS = encode_offers(PROVIDER, [_OFFER])
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
TOKEN = b'data: {"i":0,"t":284,"x":"lie"}\n\n'
QUIET = b'data: {"i":0,"t":284,"x":""}\n\n'

Talk = Callable[[socket.socket, bytes], None]
"""What is done with a connection after its request's head."""


def _reply(sock: socket.socket, body: bytes, status: str = "200 OK") -> None:
    head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    sock.sendall(head.encode() + body)


def _answering(*parts: bytes, hold: float = 0.0, again: float | None = None) -> Talk:
    """Offers in order; every answer is `parts`, then silence, or the last part without end, with so many seconds
    between."""

    def talk(sock: socket.socket, head: bytes) -> None:
        if b"/assay/v1/offers" in head:
            _reply(sock, OFFERS)
            return
        if b"POST" not in head:
            _reply(sock, b"{}", "404 Not Found")
            return
        for part in parts:
            sock.sendall(part)
        while again is not None:
            sock.sendall(parts[-1])
            time.sleep(again)
        time.sleep(hold)

    return talk


def _mute(sock: socket.socket, _head: bytes) -> None:
    time.sleep(30)


def _broken(sock: socket.socket, _head: bytes) -> None:
    _reply(sock, b"<html>oops</html>", "500 Internal Server Error")


def _boundless(sock: socket.socket, _head: bytes) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
    while True:
        sock.sendall(b"[" * 65_536)


def _liar(sock: socket.socket, head: bytes) -> None:
    if b"/assay/v1/offers" in head:
        _reply(sock, OFFERS.replace(b'"pinned"', b'"absolute"'))


BAD: dict[str, Talk] = {
    "mute": _mute,
    "broken": _broken,
    "boundless offers": _boundless,
    "lying offers": _liar,
    "hangs up": _answering(),
    "error 500": _answering(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n"),
    "no HTTP": _answering(b"hello\r\n\r\n"),
    "no events": _answering(STREAM, b"<html>" * 100),
    "silent": _answering(STREAM, hold=30),
    "one token, then gone": _answering(STREAM, TOKEN),
    "one token, then silent": _answering(STREAM, TOKEN, hold=30),
    "one token that shows nothing, then gone": _answering(STREAM, QUIET),
    "the same token again": _answering(STREAM, TOKEN, TOKEN),
    "a receipt that is none": _answering(STREAM, TOKEN, b'data: {"bundle": {}}\n\n'),
    "an endless line": _answering(STREAM, b"data: " + b"x" * 65_536, again=0),
    "a bomb": _answering(
        STREAM.replace(b"connection", b"content-encoding: gzip\r\nconnection"), gzip.compress(bytes(50_000_000))
    ),
    "a head that dribbles": _answering(b"HTTP/1.1 200 OK\r\nx: ", b"x", again=0.1),
    "endless comments": _answering(STREAM, b": still there\n\n" * 100, again=0),
}
UNASKED = frozenset(("mute", "broken", "boundless offers", "lying offers"))
"""Those from whom nobody gets any offers."""


@dataclass
class Stranger:
    """A provider on a socket."""

    url: str
    asked: int = 0
    """Answers that were asked of it."""


@contextmanager
def listening(talk: Talk) -> Iterator[Stranger]:
    """A provider that behaves so."""
    server = socket.create_server(("127.0.0.1", 0))
    stranger = Stranger(f"http://127.0.0.1:{server.getsockname()[1]}")

    def serve(sock: socket.socket) -> None:
        with sock, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += sock.recv(65_536) or b"\r\n\r\n"
            stranger.asked += head.startswith(b"POST /assay/v1/answers ")
            talk(sock, head)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield stranger
    finally:
        server.close()
