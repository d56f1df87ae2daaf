"""Parties that mean harm: Sybils, a directory that lists them, and clients that waste what they can."""

from __future__ import annotations

import gzip
import itertools
import os
import random
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from http.client import HTTPConnection, HTTPException
from typing import Final

import httpx
from tests.e2e.bad_providers import Stranger, Talk

from assay.core.keys import Key
from assay.core.offer import Price
from assay.core.record import Endpoint, ProviderRecord, sign_record, url_by_key
from assay.network.discovery.pages import Page

ELSEWHERE: Final = "127.0.0.2"
"""Where attackers come from, so that requests are counted apart from others'."""
MOST_HELD: Final = 75.0
"""Seconds after which whoever attacks has to have been hung up on."""
_BOMB: Final = gzip.compress(bytes(50_000_000))


class Sybils:
    """Keys of one owner, nine for each honest provider, that offer what the honest ones do, for nothing."""

    def __init__(self, honest: Sequence[ProviderRecord], strangers: Sequence[Stranger], each: int = 9) -> None:
        """`strangers`: who answers for them, in turn."""
        self._honest: Final = list(honest)
        self._keys: Final = [Key.from_secret(os.urandom(32)) for _ in range(each * len(honest))]
        self._places: Final = [stranger.url.removeprefix("http://") for stranger in strangers]

    def __len__(self) -> int:
        return len(self._keys)

    def records(self) -> list[bytes]:
        """Signed now."""
        now, model = time.time(), self._honest[0]
        return [
            sign_record(
                replace(
                    model,
                    provider=key.address,
                    sequence=int(now * 1000),
                    issued=int(now),
                    expires=int(now) + 3600,
                    endpoints=(Endpoint("http", self._places[number % len(self._places)]),),
                    offers=tuple(
                        replace(
                            offer,
                            provider=key.address,
                            url=url_by_key(key.address),
                            price=Price(0, 0),
                            payment=None,
                        )
                        for offer in model.offers
                    ),
                    stake=None,
                    tls=bytes(32),
                ),
                key,
            ).encode()
            for number, key in enumerate(self._keys)
        ]

    def forged(self) -> list[bytes]:
        """Honest providers' records that lead to Sybils, under signatures that are for others."""
        place = Endpoint("http", self._places[0])
        return [
            replace(each, sequence=each.sequence + 1, endpoints=(place,), tls=bytes(32)).encode()
            for each in self._honest
        ]

    def replayed(self) -> list[bytes]:
        """Records that were good once."""
        return [each.encode() for each in self._honest]

    def hand_in(self, url: str) -> None:
        """At an honest directory, as fast as it takes them from one address."""
        host, _, port = url.removeprefix("http://").partition(":")
        for data in (*self.forged(), *self.replayed(), *self.records()):
            with suppress(OSError, HTTPException):
                client = HTTPConnection(host, int(port), timeout=10, source_address=(ELSEWHERE, 0))
                client.request("PUT", "/assay/v1/records", body=data)
                client.getresponse().read()
                client.close()


def directory(sybils: Sybils) -> Talk:
    """A directory that says something else each time: Sybils, forgeries, replays, garbage, bombs, or nothing."""

    def page(records: Sequence[bytes], *, more: bool = False) -> bytes:
        return _reply(Page("x-1", more, records).encode())

    def dribble(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nx: ")
        while True:
            sock.sendall(b"x")
            time.sleep(0.5)

    def endless(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
        while True:
            sock.sendall(b"{" * 65_536)

    ways: Sequence[Callable[[socket.socket], object]] = [
        lambda sock: sock.sendall(page(sybils.records())),
        lambda sock: sock.sendall(page(sybils.forged())),
        lambda sock: sock.sendall(page(sybils.replayed())),
        lambda sock: sock.sendall(page([b"[" * 60_000, b"{}", b"\xff" * 100])),
        lambda sock: sock.sendall(_reply(os.urandom(4096))),
        lambda sock: sock.sendall(_reply(_BOMB, "content-encoding: gzip\r\n")),
        lambda sock: sock.sendall(page(sybils.records(), more=True)),
        dribble,
        endless,
        lambda sock: sock.sendall(page(sybils.records())[:2000]),
        lambda _sock: time.sleep(30),
    ]
    turns = itertools.cycle(ways)

    def talk(sock: socket.socket, head: bytes) -> None:
        if head.startswith(b"GET /assay/v1/records"):
            next(turns)(sock)
        else:
            sock.sendall(_reply(b"{}"))

    return talk


class Attackers:
    """Clients that hold connections, bodies and attention, at random targets; several at once, until told to stop."""

    def __init__(self, targets: Mapping[str, str], ask: bytes) -> None:
        """`targets`: addresses by name. `ask`: the body of a good request to the gateway, which `deaf` ones make and do
        not listen to."""
        self.done: Final = Counter[str]()
        """By kind."""
        self.held: Final = Counter[str]()
        """Those that were not hung up on in time, by kind and target."""
        self._targets: Final = targets
        self._ask: Final = ask
        self._over: Final = threading.Event()
        self.kinds: Final[dict[str, Callable[[str], socket.socket | None]]] = {
            "silent": _connected,
            "head that dribbles": lambda url: _sent(url, b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx: "),
            "body that dribbles": lambda url: _sent(
                url, b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n{"
            ),
            "garbage": lambda url: _sent(url, os.urandom(5000) + b"\r\n\r\n"),
            "endless head": lambda url: _sent(url, b"GET / HTTP/1.1\r\nx: " + b"x" * 1_000_000),
            "large body": lambda url: _sent(
                url,
                b"PUT /assay/v1/records HTTP/1.1\r\nhost: x\r\ncontent-length: 900000000\r\n\r\n" + bytes(8_000_000),
            ),
            "bomb": lambda url: _sent(
                url,
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n"
                % len(_BOMB)
                + _BOMB,
            ),
        }

    def run(self, seed: int) -> None:
        """One of them."""
        dice, kinds = random.Random(seed), list(self.kinds)
        while not self._over.is_set():
            kind = dice.choice([*kinds, "deaf"])
            if kind == "deaf":
                self._deaf(dice.uniform(5, 40))
            else:
                self.attack(kind, dice.choice(list(self._targets)))
            self.done[kind] += 1
            self._over.wait(0.2)

    def attack(self, kind: str, target: str) -> None:
        """Once, as long as one is let."""
        sock = self.kinds[kind](self._targets[target])
        if sock is not None and self._hold(sock, dribble="dribbles" in kind):
            self.held[f"{kind} at {target}"] += 1

    def stop(self) -> None:
        """All of them end soon."""
        self._over.set()

    def _hold(self, sock: socket.socket, *, dribble: bool) -> bool:
        """Stay as long as one may; True: longer than one may be let."""
        end = time.monotonic() + MOST_HELD
        with sock, suppress(OSError):
            sock.settimeout(1.0)
            while time.monotonic() < end:
                if self._over.is_set():
                    return False
                try:
                    if not sock.recv(65_536):
                        return False
                except TimeoutError:
                    if dribble:
                        sock.sendall(b"x")
            return True
        return False

    def _deaf(self, seconds: float) -> None:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        sock = _sent(self._targets["gateway"], head + b"content-length: %d\r\n\r\n" % len(self._ask) + self._ask)
        if sock is not None:
            with sock:
                self._over.wait(seconds)


def record_of(url: str) -> ProviderRecord:
    """A provider's record, as it tells it itself."""
    return ProviderRecord.decode(httpx.get(f"{url}/assay/v1/record", timeout=20, verify=False).content)


def _reply(body: bytes, more: str = "") -> bytes:
    head = f"HTTP/1.1 200 OK\r\n{more}content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return head.encode() + body


def _connected(url: str) -> socket.socket | None:
    """A connection from elsewhere, None where nobody listens now."""
    scheme, _, place = url.partition("://")
    host, _, port = place.partition(":")
    with suppress(OSError):
        sock = socket.create_connection((host, int(port)), timeout=5, source_address=(ELSEWHERE, 0))
        if scheme != "https":
            return sock
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context.wrap_socket(sock)
    return None


def _sent(url: str, data: bytes) -> socket.socket | None:
    sock = _connected(url)
    if sock is not None:
        with suppress(OSError):
            sock.sendall(data)
    return sock
