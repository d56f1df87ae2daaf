"""Traces over HTTP, for auditors: read block by block, bounded in time and size, since whoever serves is a stranger."""

from __future__ import annotations

import time
from collections.abc import Collection, Generator, Iterator
from dataclasses import dataclass
from typing import Final

import httpx

from assay.core.encoding import b64
from assay.core.errors import AssayError, ProviderFailed
from assay.core.request import Request
from assay.network.failures import happened
from assay.network.positions import spell_positions
from assay.network.wire import decode_error, decode_offers

_MAX_REPLY: Final = 2**20
"""Bytes of a list of offers or of an error."""
_PASS_BYTES: Final = 64 * 2**20
"""A pass of the largest models takes less."""
_OFFERS_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class TracePatience:
    """How long to wait for what, in seconds."""

    connect: float = 3.0
    silence: float = 120.0
    """Without a byte: before the first, a provider computes the whole answer once."""
    whole: float = 1800.0


def fetch_trace(
    url: str,
    request: Request,
    passes: int,
    positions: Collection[int] | None = None,
    *,
    patience: TracePatience | None = None,
) -> Generator[bytes, None, None]:
    """The trace of a request's answer, which took so many passes, from the provider at `url`.

    Nothing is asked before the first block is taken; to stop taking them hangs up.

    Raises:
        AssayError: while blocks are taken: what the provider says, or ProviderFailed if it cannot be reached, goes
            silent, takes too long or sends without end.
    """
    limits = patience or TracePatience()
    query = "" if positions is None else f"?positions={spell_positions(positions)}"
    path = f"{url.rstrip('/')}/assay/v1/bundles/{b64(request.name)}/trace{query}"
    until, room = time.monotonic() + limits.whole, _MAX_REPLY + passes * _PASS_BYTES
    wait = httpx.Timeout(limits.silence, connect=limits.connect)
    try:
        with httpx.Client(timeout=wait, trust_env=False) as client, client.stream("GET", path) as reply:
            if reply.status_code != 200:
                body = b"".join(_up_to(_MAX_REPLY, until, url, reply))
                raise decode_error(reply.status_code, body, reply.headers.get("retry-after", ""))
            yield from _up_to(room, until, url, reply)
    except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL) as error:
        raise ProviderFailed(
            f"{url} gives no trace: {happened(error)}", "check the address, or do without a trace"
        ) from error


def provider_at(url: str) -> str:
    """The address (`0x…`) of the provider at a URL.

    Raises:
        ProviderFailed: none answers there as the protocol says.
    """
    limits = TracePatience()
    try:
        wait = httpx.Timeout(_OFFERS_SECONDS, connect=limits.connect)
        path, until = f"{url.rstrip('/')}/assay/v1/offers", time.monotonic() + _OFFERS_SECONDS
        with httpx.Client(timeout=wait, trust_env=False) as client, client.stream("GET", path) as reply:
            body = b"".join(_up_to(_MAX_REPLY, until, url, reply))
        offers = decode_offers(body, url)
    except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL) as error:
        raise ProviderFailed(f"{url} cannot be reached: {happened(error)}", "check the address") from error
    except AssayError as error:
        raise ProviderFailed(f"{url} is no provider ({error.message})", "check the address") from error
    if not offers:
        raise ProviderFailed(f"{url} offers nothing", "ask another provider")
    return offers[0].provider


def _up_to(most: int, until: float, url: str, reply: httpx.Response) -> Iterator[bytes]:
    size = 0
    for block in reply.iter_bytes():
        size += len(block)
        if size > most or time.monotonic() > until:
            raise ProviderFailed(f"{url} sends without end", "ask another provider, or do without a trace")
        yield block
