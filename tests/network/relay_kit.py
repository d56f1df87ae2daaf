"""Relays, honest and other ones, and a provider behind one, within the test's own event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry
from tests.network.discovery.kit import until
from tests.network.test_keyed import KEY, book, certificate, https, known
from tests.tiny import TinyEngine

from assay.apps.config import Relay as Settings
from assay.apps.metrics import RelayMetrics
from assay.apps.publishing import relay_endpoint
from assay.apps.relay import Relay
from assay.apps.server import bind, url_of
from assay.core.keys import Key
from assay.network.http import HttpTransport, Patience
from assay.network.relay.berth import SPARE, Berth

CALM = Patience(connect=5, reply=10, token=10, silence=10, farewell=0.5)


@asynccontextmanager
async def relay(settings: Settings | None = None, port: int = 0) -> AsyncIterator[tuple[str, Relay]]:
    """A running relay; its address."""
    with bind("127.0.0.1", port) as sock:
        url = url_of(sock).replace("http", "ws")
        service = Relay(settings or Settings(), RelayMetrics(CollectorRegistry()))
        async with service.running(sock):
            yield url, service


@asynccontextmanager
async def berth(
    url: str, there: str, *, key: Key = KEY, failed: Callable[[str], None] = lambda _reason: None
) -> AsyncIterator[None]:
    """Links that wait at the relay `url` for the provider at `there`."""
    task = asyncio.create_task(Berth(relay_endpoint(url), key, ("127.0.0.1", port_of(there)), failed=failed).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def port_of(url: str) -> int:
    """The port of an address."""
    return int(url.rpartition(":")[2])


def waiting(service: Relay) -> int:
    """Links that wait at a relay."""
    return sum(len(each.waiting) for each in service._berths.values())


@asynccontextmanager
async def reaching(url: str, tls: bytes) -> AsyncIterator[HttpTransport]:
    """A transport that knows a provider by a relay and its certificate's digest only."""
    transport = HttpTransport((), patience=CALM, book=book(known(url, tls=tls)))
    try:
        yield transport
    finally:
        await transport.aclose()


@asynccontextmanager
async def behind(root: Path, service: Relay, url: str, engine: TinyEngine) -> AsyncIterator[HttpTransport]:
    """A transport that reaches a provider through the relay `url`, and nowhere else."""
    mine = certificate(root, "mine")
    async with https(root, mine, engine) as there, berth(url, there), reaching(url, mine.digest) as transport:
        await until(lambda: waiting(service) == SPARE)
        yield transport
