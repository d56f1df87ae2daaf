"""A provider makes itself known: its record is signed, renewed in time and at once when its offers change, and told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from assay.apps.config import Config, home
from assay.apps.discovering import registry_folder, uses_lan
from assay.apps.keyfile import key_path
from assay.apps.logs import logger
from assay.chain.addresses import Addresses
from assay.core.errors import AssayError, ConfigError, EncodingError
from assay.core.hashing import ZERO, Digest
from assay.core.keys import Key
from assay.core.offer import Offer
from assay.core.reach import EVERYWHERE, Reach, reach_of
from assay.core.record import (
    MAX_ENDPOINTS,
    MAX_RECORD_OFFERS,
    Endpoint,
    EndpointKind,
    ProviderRecord,
    Stake,
    next_sequence,
    sign_record,
    url_by_key,
)
from assay.network.discovery.directory import Directory
from assay.network.discovery.registry import Registry
from assay.network.iroh import IrohDoor, Servers, installed, node_of
from assay.network.relay.berth import Berth

LIFE_SECONDS: Final = 3600
"""A record's; it is renewed when a third of that is over."""
TICK_SECONDS: Final = 1.0
"""Between two looks at what is offered."""
MOST_NODES: Final = 2
"""Addresses of a provider's iroh node that its record names."""
RETRY_SECONDS: Final = 30.0
"""Until a record is told again to who could not be told."""

Tell = Callable[[ProviderRecord], Awaitable[None]]
"""Tells a record somewhere; raises AssayError where that fails."""


@dataclass(frozen=True, slots=True)
class Station:
    """What a provider says of itself beside its offers."""

    endpoints: tuple[Endpoint, ...]
    parallel: int
    region: str = ""
    stake: Stake | None = None
    tls: Digest = ZERO


class Publisher:
    """Keeps one provider's record."""

    def __init__(
        self,
        key: Key,
        offers: Callable[[], Awaitable[Sequence[Offer]]],
        station: Callable[[], Station],
        tell: Sequence[Tell] = (),
        ends: Sequence[Callable[[], Awaitable[None]]] = (),
        doors: Sequence[Callable[[], Awaitable[None]]] = (),
        *,
        life: int = LIFE_SECONDS,
        tick: float = TICK_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`station` is asked again and again, as addresses change. `tell`: where to; `ends` take back what can be, at
        the end; `doors` let consumers in by other ways than the provider's own socket, until they are cancelled.
        `life`, `tick`: seconds. `clock`: Unix seconds.
        """
        self._doors: Final = doors
        self._key: Final = key
        self._offers: Final = offers
        self._station: Final = station
        self._ends: Final = ends
        self._life: Final = life
        self._tick: Final = tick
        self._clock: Final = clock
        self._record: ProviderRecord | None = None
        self._tell: Final = tell

    async def record(self) -> ProviderRecord:
        """The one that holds now."""
        now, held, station, url = self._clock(), self._record, self._station(), url_by_key(self._key.address)
        listed = (await self._offers())[:MAX_RECORD_OFFERS]
        offers = tuple(replace(offer, url=url, region=station.region) for offer in listed)
        if (
            held is not None
            and (held.offers, held.endpoints) == (offers, station.endpoints)
            and held.issued <= now < held.issued + self._life / 3
        ):
            return held
        unsigned = ProviderRecord(
            provider=self._key.address,
            sequence=next_sequence(0 if held is None else held.sequence, now),
            issued=int(now),
            expires=int(now) + self._life,
            endpoints=station.endpoints,
            offers=offers,
            parallel=station.parallel,
            region=station.region,
            stake=station.stake,
            tls=station.tls,
        )
        self._record = sign_record(unsigned, self._key)
        return self._record

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the record, tell it, and keep the doors open, until the end of the block."""
        await self.record()  # what cannot stand in one shows at the start
        tasks = [asyncio.ensure_future(door()) for door in self._doors]
        tasks += [asyncio.create_task(self._keep_told(tell)) for tell in self._tell]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for end in self._ends:
                await end()

    async def _keep_told(self, tell: Tell) -> None:
        """One place, whatever becomes of the others."""
        told, again = None, 0.0
        while True:
            record = await self.record()
            if record is not told and self._clock() >= again:
                try:
                    await tell(record)
                    told = record
                except AssayError as error:
                    again = self._clock() + RETRY_SECONDS
                    logger("provider").warning("record_not_told", reason=error.message, remedy=error.remedy)
            await asyncio.sleep(self._tick)


@contextmanager
def open_publisher(
    config: Config,
    key: Key,
    offers: Callable[[], Awaitable[Sequence[Offer]]],
    listens: tuple[str, int],
    *,
    parallel: int,
    stake: Stake | None = None,
) -> Iterator[tuple[Publisher, Path | None]]:
    """What makes a provider known that listens at this address and port, and the certificate that it serves with.

    Raises:
        ConfigError: its address cannot stand in a record, or its certificate cannot be used.
    """
    settings, (host, port) = config.provider, listens
    certificate = None
    if settings.tls:
        from assay.apps.certificate import certificate_of

        certificate = certificate_of(key.address, tls_path(home(), settings.key), now=time.time())
    relays, iroh = [relay_endpoint(url) for url in config.network.relays], config.network.iroh
    tls = certificate.digest if certificate else ZERO

    def station() -> Station:
        nodes = [] if iroh == "off" else iroh_endpoints(key, host, port, iroh)
        endpoints = _reached(endpoints_of(settings.url, host, port, tls=settings.tls), [*relays, *nodes])
        return Station(endpoints, parallel, config.network.region, stake, tls)

    station()  # says now what is wrong with the settings
    registry = Registry(registry_folder(home()))

    async def list_here(record: ProviderRecord) -> None:
        await asyncio.to_thread(registry.publish, record)

    async def hand_in(directory: Directory, record: ProviderRecord) -> None:
        await directory.publish(record.encode())

    tell: list[Tell] = [list_here, *(partial(hand_in, Directory(url)) for url in config.network.directories)]
    ends: list[Callable[[], Awaitable[None]]] = []
    if uses_lan(config.network, host):
        from assay.network.discovery.lan import Notice

        notice = Notice(
            port, lambda: [each for each in _hosts(host) if reach_of(each) < Reach.MACHINE], tls=settings.tls
        )
        tell.append(notice.publish)
        ends.append(notice.close)
    try:
        local = nearest(host), port
        doors = [Berth(each, key, local, failed=_way_failed).run for each in relays]
        if iroh != "off":
            doors.append(IrohDoor(key, local, f"{_bracketed(host)}:{port}", iroh, failed=_way_failed).run)
        yield Publisher(key, offers, station, tell, ends, doors), None if certificate is None else certificate.path
    finally:
        registry.withdraw(key.address)


def stake_of(addresses: Addresses) -> Stake | None:
    """Where a provider's bond can be looked up on a chain with these contracts."""
    return Stake(addresses.chain_id, addresses.court) if addresses.court else None


def tls_path(home: Path, name: str) -> Path:
    """Where the certificate of the provider with the key of this name lives."""
    return key_path(home, name).with_suffix(".tls.pem")


def endpoints_of(url: str, host: str, port: int, *, tls: bool) -> tuple[Endpoint, ...]:
    """How a provider is reached: at `url`, if one is set, else where it listens (in numbers).

    Raises:
        ConfigError: `url` is more than scheme, host and port, which is all that a record can say.
    """
    if not url:
        kind: EndpointKind = "https" if tls else "http"
        return tuple(Endpoint(kind, f"{_bracketed(each)}:{port}") for each in _hosts(host)[:MAX_ENDPOINTS])
    scheme, place = _parts(url, {"https": 443, "http": 80})
    return (Endpoint("https" if scheme == "https" else "http", place),)


def relay_endpoint(url: str) -> Endpoint:
    """How a provider is reached that waits at the relay with this address.

    Raises:
        ConfigError: it is more than scheme, host and port.
    """
    scheme, place = _parts(url, {"wss": 443, "ws": 80})
    return Endpoint("relay", f"{scheme}://{place}")


def iroh_endpoints(key: Key, host: str, port: int, servers: Servers) -> list[Endpoint]:
    """How a provider's iroh node is reached that listens, over UDP, at this address and port.

    Raises:
        ConfigError: iroh is not installed.
    """
    if not installed():
        raise ConfigError("iroh is not installed", "run `pip install 'assay[iroh]'`")
    node = node_of(key)
    if servers == "n0":
        return [Endpoint("iroh", node)]
    return [Endpoint("iroh", f"{node}@{_bracketed(each)}:{port}") for each in _hosts(host)[:MOST_NODES]]


def _parts(url: str, schemes: Mapping[str, int]) -> tuple[str, str]:
    """Scheme and `host:port` of an address with one of these schemes, which have these ports if it names none.

    Raises:
        ConfigError: it cannot stand in a record.
    """
    try:
        parts = urlsplit(url.rstrip("/"))
        if parts.scheme not in schemes or parts.path or parts.query or parts.username:
            raise EncodingError("it has more or other parts")
        place = f"{_bracketed(parts.hostname or '')}:{parts.port or schemes[parts.scheme]}"
        Endpoint("http", place)
    except (EncodingError, ValueError) as error:
        raise ConfigError(
            f"{url[:200]!r} cannot stand in a record ({error})",
            f"write {next(iter(schemes))}://HOST:PORT, without a path",
        ) from error
    return parts.scheme, place


def addresses() -> list[str]:
    """This machine's own, in numbers, those first that reach farthest; none that are good for this machine only."""
    import ifaddr

    found: list[str] = []
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            if isinstance(ip.ip, str):
                found.append(ip.ip)
            elif not ip.ip[0].startswith("fe80"):  # those need the name of an interface
                found.append(ip.ip[0])
    return sorted((each for each in dict.fromkeys(found) if reach_of(each) < Reach.MACHINE), key=reach_of)


def nearest(host: str) -> str:
    """Where a program of this machine that listens on `host` is reached from it."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound


def _hosts(host: str) -> list[str]:
    """Where a program is reached that listens on `host`, in numbers."""
    if host not in EVERYWHERE:
        return [host]
    return [each for each in addresses() if ":" in host or ":" not in each] or ["127.0.0.1"]


def _reached(own: Sequence[Endpoint], more: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
    """All ways in, as many as there is room for."""
    return (*own[: MAX_ENDPOINTS - len(more)], *more)


def _way_failed(reason: str) -> None:
    logger("provider").warning("way_failed", reason=reason)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
