"""Runs an application under uvicorn: a port of its own, an announced address, an end that leaves nobody hanging."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import h11
import uvicorn
from starlette.types import ASGIApp
from typing_extensions import override
from uvicorn.protocols.http.h11_impl import H11Protocol

from assay.core.errors import ConfigError, MachineError

GRACE_SECONDS: Final = 10.0
"""How long answers under way may go on after a signal to stop."""
_FAREWELL_SECONDS: Final = 15
"""After that: for hanging up, signing, and writing the last events."""
_KEEP_ALIVE_SECONDS: Final = 30
"""Idle connections are kept longer than our own clients use them."""
HEAD_SECONDS: Final = 15.0
"""For the whole head of a request, from the connection or its first byte on: who dribbles holds no connection."""
REST_SECONDS: Final = 5.0
"""For the rest of a body that was answered before it was whole, so that its sender gets to read the answer."""
_HEADER_BYTES: Final = 65_536
_DESCRIPTORS: Final = 16_384
"""Files and connections that a server wants to have open at once: an answer that a gateway passes on takes two."""

Drain = Callable[[float], Awaitable[None]]
"""Lets answers finish for so many seconds, then ends them."""


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one.

    Raises:
        MachineError: the port is taken.
        ConfigError: the port is forbidden, or the host is none of this machine's addresses.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(f"{host!r} is no address of this machine ({error})", "use 127.0.0.1 or 0.0.0.0") from error
    try:
        if sys.platform != "win32":  # there, this would let two programs share a port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(2048)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise MachineError(
                f"port {port} on {host} is in use",
                f"stop the program that uses it, or choose another with --port {port + 1}",
            ) from error
        if error.errno == errno.EACCES:
            raise ConfigError(f"port {port} needs rights that you do not have", "choose one over 1023") from error
        raise ConfigError(f"cannot listen on {host} port {port} ({error.strerror})", "use 127.0.0.1") from error
    sock.setblocking(False)
    return sock


def url_of(sock: socket.socket, *, tls: bool = False) -> str:
    """The address at which a listening socket is reached from this machine."""
    scheme = "https" if tls else "http"
    host, port = sock.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        host = "127.0.0.1"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def announce(program: str, url: str, *, as_json: bool, **facts: str) -> None:
    """One line on standard output when the address answers; with `as_json` for programs that started this one."""
    line = json.dumps({"program": program, "url": url, **facts}) if as_json else f"{program} answers at {url}"
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class Server(uvicorn.Server):
    """uvicorn's server, with answers ended in order before connections are."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        drain: Drain | None = None,
        grace: float = GRACE_SECONDS,
        started: Callable[[], None] = lambda: None,
        certificate: Path | None = None,
    ) -> None:
        """`drain` is called when the server is told to stop; `started` once it listens. `certificate`: PEM of one and
        its key, to serve HTTPS."""
        config = uvicorn.Config(
            app,
            http=_Punctual,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            h11_max_incomplete_event_size=_HEADER_BYTES,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=int(grace) + _FAREWELL_SECONDS,
            ssl_certfile=certificate,
        )
        super().__init__(config)
        self._drain: Final = drain
        self._grace: Final = grace
        self._on_start: Final = started

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        if self.started:
            self._on_start()

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, let answers end, then stop."""
        ending = asyncio.ensure_future(self._end_answers())
        await super().shutdown(sockets)
        await asyncio.wait([ending], timeout=_FAREWELL_SECONDS)
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=1.0)
        if self.force_exit:  # uvicorn leaves it out then, and what the application opened stays open
            await self.lifespan.shutdown()
        # uvicorn would raise the signals again and end the process before our callers have closed what they opened.
        self._captured_signals.clear()

    async def _end_answers(self) -> None:
        """Let answers end; told to stop a second time, hang up at once."""
        if self._drain is None:
            return
        draining = asyncio.ensure_future(self._drain(self._grace))
        while not draining.done() and not self.force_exit:
            await asyncio.wait([draining], timeout=0.1)
        if not draining.done():
            await self._drain(0)
        await draining


class _Punctual(H11Protocol):
    """Of uvicorn, which alone would wait for ever for the first head on a connection, for the rest of a later one, and
    for the rest of a body that nobody reads any more."""

    _late: asyncio.TimerHandle | None = None
    _seconds: float | None = None
    """After which what is waited for now is late; None: nothing is."""

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._watch()

    @override
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    @override
    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._watch()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._wait(None)

    def _watch(self) -> None:
        if self.conn.their_state is h11.IDLE:
            self._wait(HEAD_SECONDS)
        elif self.conn.their_state is h11.SEND_BODY and self.conn.our_state in (h11.DONE, h11.MUST_CLOSE):
            self._wait(REST_SECONDS)
        else:
            self._wait(None)

    def _wait(self, seconds: float | None) -> None:
        if seconds == self._seconds:
            return
        self._seconds = seconds
        if self._late is not None:
            self._late.cancel()
            self._late = None
        if seconds is not None and not self.transport.is_closing():
            self._late = self.loop.call_later(seconds, self.transport.close)


def allow_connections() -> None:
    """Raise this process's limit of open files as far as the system lets it: many give 1,024 to who does not ask."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def serve(
    app: ASGIApp,
    sock: socket.socket,
    *,
    drain: Drain | None = None,
    grace: float = GRACE_SECONDS,
    started: Callable[[], None] = lambda: None,
    certificate: Path | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, then return. A second SIGINT does not wait for answers."""
    # An engine's thread comes back from each decode and wants the interpreter: with Python's 5 ms it would wait for
    # the event loop for as long as a tenth of a token takes.
    sys.setswitchinterval(0.0005)
    allow_connections()
    Server(app, drain=drain, grace=grace, started=started, certificate=certificate).run(sockets=[sock])
