"""A directory as a web application: providers hand in their records, anybody reads them page by page.

It vouches for nothing: records are signed, and readers check them. So what it can do wrong is to leave some out, which
shows beside another directory. What others can do to it is to fill it up: records are kept by the rules of the record
book, where all that comes from one network has one share, and every address has its number of requests.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from assay.apps.discovering import Discoveries
from assay.apps.door import Rates
from assay.apps.failures import ERROR_HANDLERS
from assay.apps.limits import Limits
from assay.apps.metrics import DiscoveryMetrics, metrics_route
from assay.core.encoding import canonical
from assay.core.errors import RecordRefused
from assay.core.reach import Reach, network_of, reach_of
from assay.core.record import MAX_RECORD_BYTES, ProviderRecord
from assay.network.discovery.pages import MAX_PAGE, MAX_RECORDS, MEDIA_TYPE, Page

NETWORKS: Final = 256
"""Groups of networks, each with a share of the records."""


def directory_app(
    discoveries: Discoveries,
    metrics: DiscoveryMetrics,
    *,
    puts_per_minute: int,
    gets_per_minute: int,
    clock: Callable[[], float] = time.time,
) -> Starlette:
    """The application. `discoveries`: with other directories as sources, if it replicates. `clock`: Unix seconds."""
    book, epoch, salt = discoveries.book, secrets.token_hex(8), secrets.token_bytes(16)
    puts, gets = Rates(puts_per_minute), Rates(gets_per_minute)

    async def put(request: Request) -> Response:
        network, reach = _origin(request)
        puts.take(network)
        outcome = "malformed"
        try:
            record = ProviderRecord.decode(await request.body())
            outcome = "forged"
            outcome = "new" if book.put(record, clock(), f"network {_group(network, salt)}", reach) else "known"
        except RecordRefused as refusal:
            outcome = refusal.reason
            raise
        finally:
            metrics.records.labels("put", outcome).inc()
        return Response(status_code=204)

    async def get(request: Request) -> Response:
        gets.take(_origin(request)[0])
        told, _, version = request.query_params.get("since", "").partition("-")
        since = int(version) if told == epoch and version.isascii() and version.isdigit() and len(version) < 16 else 0
        records, cursor = book.changes(since, MAX_RECORDS, MAX_PAGE, clock())
        more = bool(book.changes(cursor, 1, MAX_PAGE, clock())[0])
        page = Page(f"{epoch}-{cursor}", more, [record.encode() for record in records])
        return Response(page.encode(), media_type=MEDIA_TYPE)

    async def health(_request: Request) -> Response:
        return Response(canonical({"providers": len(book)}), media_type="application/json")

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with discoveries.running():
            yield

    return Starlette(
        routes=[
            Route("/assay/v1/records", put, methods=["PUT"]),
            Route("/assay/v1/records", get, methods=["GET"]),
            Route("/health", health, methods=["GET"]),
            metrics_route(metrics.registry),
        ],
        exception_handlers=ERROR_HANDLERS,
        middleware=[Middleware(Limits, max_body=MAX_RECORD_BYTES)],
        lifespan=lifespan,
    )


def _origin(request: Request) -> tuple[str, Reach]:
    """The network that a request comes from, of the size that one customer gets, and how near it is."""
    host = "" if request.client is None else request.client.host
    return network_of(host), reach_of(host)


def _group(network: str, salt: bytes) -> int:
    """Which share of the book a network has: neighbours have one together."""
    wide = network.rpartition(".")[0] or ":".join(network.split(":")[:3])
    return int.from_bytes(hashlib.blake2b(wide.encode(), digest_size=2, key=salt).digest()) % NETWORKS
