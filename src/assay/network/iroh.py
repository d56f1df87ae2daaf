"""Links over iroh: QUIC to a provider's node, whose name is its key; through routers with the help of others' servers.

The package is optional (`pip install 'assay[iroh]'`). Two of its habits are answered here: it copies bytes one by one
in Python, and a connection dies of many small writes that nobody reads.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import anyio
from typing_extensions import override

from assay.core.errors import ProviderFailed
from assay.core.hashing import digest
from assay.core.keys import Key
from assay.core.reach import Reach
from assay.core.record import Endpoint
from assay.network.links import PART, Link, bridge
from assay.network.resolve import resolve

if TYPE_CHECKING:
    import iroh

Servers: TypeAlias = Literal["direct", "n0"]
"""Whose servers help nodes to find and reach each other: nobody's, or those of iroh's makers."""
ALPN: Final = b"assay/1"
MOST: Final = 64
"""Links of one provider at a time."""
BUFFER: Final = 2**20
"""Bytes of a link that wait to be read, and that wait to be sent, at most."""
COALESCE_SECONDS: Final = 0.02
"""Between two writes of a link: what comes meanwhile goes together."""
_OPENING_SECONDS: Final = 10.0
_CLOSE_SECONDS: Final = 0.5


def installed() -> bool:
    """The package is there."""
    return find_spec("iroh") is not None


def node_of(key: Key) -> str:
    """The name of a provider's node: 64 hexadecimal digits."""
    import iroh

    return iroh.SecretKey.from_bytes(_secret(key)).public().to_bytes().hex()


class IrohLink(Link):
    """One QUIC connection with one stream. For one event loop."""

    def __init__(self, connection: iroh.Connection, stream: iroh.BiStream) -> None:
        self._connection: Final = connection
        self._incoming: Final = stream.recv()
        self._outgoing: Final = stream.send()
        self._read: Final = bytearray()
        self._unsent: Final = bytearray()
        self._changed: Final = asyncio.Condition()
        self._over = False
        self._broken = False
        self._writing = False
        self._tasks: Final = [asyncio.create_task(self._drain()), asyncio.create_task(self._flush())]

    @property
    @override
    def ended(self) -> bool:
        """See `Link`."""
        return self._over or self._broken

    @override
    async def receive(self, max_bytes: int = PART) -> bytes:
        """See `Link`."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._read or self._over)
            if not self._read:
                raise anyio.EndOfStream
            part = bytes(self._read[:max_bytes])
            del self._read[:max_bytes]
            self._changed.notify_all()
            return part

    @override
    async def send(self, item: bytes) -> None:
        """See `Link`."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._broken or len(self._unsent) < BUFFER)
            if self._broken:
                raise anyio.BrokenResourceError
            self._unsent.extend(item)
            self._changed.notify_all()

    @override
    async def send_eof(self) -> None:
        """See `Link`."""
        await self.aclose()

    @override
    async def aclose(self) -> None:
        """See `Link`."""
        try:
            with suppress(TimeoutError, _failure()):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    async with self._changed:
                        await self._changed.wait_for(lambda: self._broken or not (self._unsent or self._writing))
                    if not self._broken:
                        await self._outgoing.finish()
                        await self._outgoing.stopped()  # all of it has arrived
        finally:
            self._broken = self._over = True
            for task in self._tasks:
                task.cancel()
            self._connection.close(0, b"")

    async def _drain(self) -> None:
        """Read on, whether or not somebody reads here, and no more than there is room for."""
        with suppress(_failure()):
            while part := await self._incoming.read(PART):
                async with self._changed:
                    self._read.extend(part)
                    self._changed.notify_all()
                    await self._changed.wait_for(lambda: len(self._read) < BUFFER)
        async with self._changed:
            self._over = True
            self._changed.notify_all()

    async def _flush(self) -> None:
        """Send what is there; what comes within COALESCE_SECONDS after that goes together."""
        with suppress(_failure()):
            while True:
                async with self._changed:
                    await self._changed.wait_for(lambda: self._unsent)
                    part = bytes(self._unsent)
                    self._unsent.clear()
                    self._writing = True
                await self._outgoing.write_all(part)
                async with self._changed:
                    self._writing = False
                    self._changed.notify_all()
                await asyncio.sleep(COALESCE_SECONDS)
        async with self._changed:
            self._broken = True
            self._changed.notify_all()


class IrohDialler:
    """A consumer's node, made when it is first used. Close it with `aclose`."""

    def __init__(self, servers: Servers = "direct") -> None:
        self._servers: Final[Servers] = servers
        self._node: asyncio.Task[iroh.Endpoint] | None = None

    async def dial(self, endpoint: Endpoint, reach: Reach) -> Link:
        """A link to a provider. `reach`: how near the source of its record was.

        Raises:
            OSError: it cannot be reached.
            ProviderFailed: it would have to be looked up at servers that are not asked, or its place is too near.
        """
        import iroh

        name, places = endpoint.address.partition("@")[0], list[str]()
        if endpoint.place:
            host = await resolve(endpoint.host, endpoint.port, reach)
            places.append(f"[{host}]:{endpoint.port}" if ":" in host else f"{host}:{endpoint.port}")
        elif self._servers == "direct":
            raise ProviderFailed("the provider's iroh node has to be looked up", 'set iroh = "n0" in [network]')
        if self._node is None:
            self._node = asyncio.create_task(_bind(self._servers))
        try:
            node = await asyncio.shield(self._node)
            address = iroh.EndpointAddr(iroh.EndpointId.from_bytes(bytes.fromhex(name)), None, places)
            connection = await node.connect(address, ALPN)
            try:
                return IrohLink(connection, await connection.open_bi())
            except BaseException:
                connection.close(0, b"")
                raise
        except iroh.IrohError as error:
            if self._node.done() and self._node.exception() is not None:
                self._node = None
            raise ConnectionError(f"the iroh node {name} cannot be reached ({error.message()})") from error

    async def aclose(self) -> None:
        """Close all its links."""
        if self._node is not None:
            with suppress(_failure()):
                await (await self._node).close()


class IrohDoor:
    """A provider's node, which leads to the provider's own HTTPS."""

    def __init__(
        self,
        key: Key,
        local: tuple[str, int],
        bind: str,
        servers: Servers = "direct",
        *,
        failed: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        """`local`: host and port of the HTTPS. `bind`: `host:port`, of UDP. `failed`: is told why there is no node."""
        self._key: Final = key
        self._local: Final = local
        self._bind: Final = bind
        self._servers: Final[Servers] = servers
        self._failed: Final = failed
        self._links: Final[set[asyncio.Task[None]]] = set()

    async def run(self) -> None:
        """Let consumers in, until it is cancelled."""
        try:
            node = await _bind(self._servers, self._bind, _secret(self._key))
        except _failure() as error:
            self._failed(f"there is no iroh node at {self._bind} ({error})")
            return
        try:
            while (incoming := await node.accept_next()) is not None:
                if len(self._links) >= MOST:
                    await incoming.refuse()
                    continue
                task = asyncio.create_task(self._serve(incoming))
                self._links.add(task)
                task.add_done_callback(self._links.discard)
        finally:
            for task in self._links:
                task.cancel()
            await asyncio.gather(*self._links, return_exceptions=True)
            await node.close()

    async def _serve(self, incoming: iroh.Incoming) -> None:
        with suppress(_failure(), OSError):  # TimeoutError is one
            async with asyncio.timeout(_OPENING_SECONDS):
                connection = await (await incoming.accept()).connect()
                try:
                    stream = await connection.accept_bi()
                except BaseException:
                    connection.close(1, b"slow")
                    raise
            connection.set_max_concurrent_bi_streams(0)
            connection.set_max_concurrent_uni_streams(0)
            await bridge(IrohLink(connection, stream), *self._local)


async def _bind(servers: Servers, bind: str | None = None, secret: bytes | None = None) -> iroh.Endpoint:
    import iroh
    from iroh import iroh_ffi

    setattr(iroh_ffi._UniffiRustBufferBuilder, "write", _write)  # noqa: B010 - a method is replaced
    alone = servers == "direct"
    return await iroh.Endpoint.bind(
        iroh.EndpointOptions(
            preset=iroh.preset_minimal() if alone else iroh.preset_n0(),
            relay_mode=iroh.RelayMode.disabled() if alone else None,
            bind_addr=bind,
            secret_key=secret,
            alpns=[ALPN],
        )
    )


def _secret(key: Key) -> bytes:
    """A key of its own for the node, which only the provider's key gives."""
    return digest("assay/iroh/1", key.secret)


def _failure() -> type[Exception]:
    import iroh

    return iroh.IrohError


def _write(builder: iroh.iroh_ffi._UniffiRustBufferBuilder, value: bytes) -> None:
    """As it was, but all bytes at once: 42 MB/s instead of 1.7."""
    with builder._reserve(len(value)):
        at = ctypes.addressof(builder.rbuf.data.contents) + builder.rbuf.len
        ctypes.memmove(at, bytes(value), len(value))
