"""A real gateway among providers that are away, half-dead or lying."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.conftest import Network
from tests.e2e.kit import MODEL, SAY, Place, Program, bundles, check_error, events
from tests.running import free_port

from assay.core.encoding import b64
from assay.core.receipt import Receipt
from assay.engines.models import CATALOGUE

pytestmark = [pytest.mark.e2e, pytest.mark.model]

ASK: dict[str, Any] = {"model": MODEL, "messages": SAY, "max_tokens": 3}
OFFERS = json.dumps(
    {
        "provider": "0x" + "ab" * 20,
        "offers": [
            {
                "model": MODEL, "model_digest": b64(CATALOGUE[MODEL].sha256), "level": "pinned",
                "price": {"prompt": "0", "output": "0"}, "context": 2048, "chat": True, "tools": False,
            }
        ],
    }
).encode()  # fmt: skip
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
TOKEN = b'data: {"i":0,"t":284,"x":"lie"}\n\n'

Talk = Callable[[socket.socket, bytes], None]
"""What is done with a connection after its request's head."""


def _reply(sock: socket.socket, body: bytes, status: str = "200 OK") -> None:
    head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    sock.sendall(head.encode() + body)


def _answering(*parts: bytes, hold: float = 0.0, again: bool = False) -> Talk:
    """Offers in order; every answer is `parts`, then silence, or the last part without end."""

    def talk(sock: socket.socket, head: bytes) -> None:
        if b"/assay/v1/offers" in head:
            _reply(sock, OFFERS)
            return
        if b"POST" not in head:
            _reply(sock, b"{}", "404 Not Found")
            return
        for part in parts:
            sock.sendall(part)
        while again:
            sock.sendall(parts[-1] * 100)
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


def _dribbling(sock: socket.socket, head: bytes) -> None:
    if b"/assay/v1/offers" in head:
        _reply(sock, OFFERS)
        return
    sock.sendall(b"HTTP/1.1 200 OK\r\nx: ")
    while True:
        sock.sendall(b"x")
        time.sleep(0.1)


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
    "the same token again": _answering(STREAM, TOKEN, TOKEN),
    "a receipt that is none": _answering(STREAM, TOKEN, b'data: {"bundle": {}}\n\n'),
    "an endless line": _answering(STREAM, b"data: " + b"x" * 65_536, again=True),
    "a bomb": _answering(
        STREAM.replace(b"connection", b"content-encoding: gzip\r\nconnection"), gzip.compress(bytes(50_000_000))
    ),
    "a head that dribbles": _dribbling,
    "endless comments": _answering(STREAM, b": still there\n\n", again=True),
}


@contextmanager
def listening(talk: Talk) -> Iterator[str]:
    """A provider that behaves so; gives its address."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve(sock: socket.socket) -> None:
        with sock, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += sock.recv(65_536) or b"\r\n\r\n"
            talk(sock, head)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    finally:
        server.close()


@contextmanager
def gateway(place: Place, *providers: str) -> Iterator[Program]:
    """A gateway that waits two seconds for a word of a provider."""
    named = [part for url in providers for part in ("--provider", url)]
    args = ("gateway", "--port", "0", "--json", *named)
    with place.running("gateway", *args, ASSAY_GATEWAY_TIMEOUT_SECONDS="2") as program:
        yield program
        assert "Traceback" not in program.log
        assert httpx.get(f"{program.url}/health").json()["active"] == 0


@pytest.mark.slow
def test_an_honest_one_among_bad_ones(network: Network, tmp_path: Path) -> None:
    """Buyers are served in spite of all of them: at the latest when each one has failed once, every answer comes, and
    until then failures are said in order."""
    with ExitStack() as stack:
        urls = [stack.enter_context(listening(talk)) for talk in BAD.values()]
        urls += [f"http://127.0.0.1:{free_port()}", network.providers[0].url]
        front = stack.enter_context(gateway(Place(tmp_path), *urls))
        http = stack.enter_context(front.http)
        started = time.monotonic()
        statuses = []
        while statuses[-3:] != [200] * 3:
            assert len(statuses) < 2 * len(BAD), statuses
            reply = http.post("/v1/chat/completions", json=ASK)
            statuses.append(reply.status_code)
            if reply.status_code != 200:
                check_error(reply, 424)
        assert time.monotonic() - started < 60
        receipt = Receipt.from_json(reply.json()["assay"]["receipts"][0])
        assert receipt.provider == network.providers[0].facts["address"]
        assert bundles(front.url, reply.json()["id"])[0].receipt == receipt


def test_the_first_answer_does_not_wait_for_the_half_dead(network: Network, tmp_path: Path) -> None:
    """A provider that accepts connections and says nothing costs the first buyer a moment, not its whole patience."""
    with listening(_mute) as mute, gateway(Place(tmp_path), mute, network.providers[0].url) as front:
        started = time.monotonic()
        assert httpx.post(f"{front.url}/v1/chat/completions", json=ASK, timeout=60).status_code == 200
        assert time.monotonic() - started < 5


@pytest.mark.slow
@pytest.mark.parametrize("kind", BAD)
def test_each_bad_one_alone(tmp_path: Path, kind: str) -> None:
    """With nobody else, the buyer hears in good time what is wrong, streamed or not, and what to do."""
    with listening(BAD[kind]) as url, gateway(Place(tmp_path), url) as front, front.http as http:
        for stream in (False, True):
            started = time.monotonic()
            with http.stream("POST", "/v1/chat/completions", json={**ASK, "stream": stream}) as reply:
                if reply.status_code == 200:
                    error = list(events(reply))[-1]["error"]
                else:
                    reply.read()
                    check_error(reply, 424)
                    error = reply.json()["error"]
            assert error["type"] == "provider_error"
            assert time.monotonic() - started < 30
