"""Records of made-up providers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.tiny import PROFILE, TinyModel, tiny_key

from assay.core.keys import Key
from assay.core.offer import Offer, Price
from assay.core.record import Endpoint, ProviderRecord, sign_record, url_by_key
from assay.core.request import Level

NOW = 1_790_000_000
LEVELS: tuple[Level, ...] = ("signed", "statistical", "pinned")


def record(
    number: int | Key = 1,
    *,
    sequence: int = 1,
    issued: int = NOW,
    life: int = 3600,
    endpoints: tuple[str, ...] = ("http://93.184.216.34:8100",),
    price: int = 1,
    tls: bytes = bytes(32),
    signer: Key | None = None,
    levels: tuple[Level, ...] = LEVELS,
    region: str = "",
) -> ProviderRecord:
    """A signed record of the provider with this number or key."""
    key = tiny_key(number) if isinstance(number, int) else number
    offers = tuple(
        Offer(
            key.address,
            url_by_key(key.address),
            "tiny",
            TinyModel().digest,
            level,
            Price(price, 2 * price),
            2048,
            True,
            True,
            PROFILE.digest,
            "gumbel/1",
            region=region,
        )
        for level in levels
    )
    unsigned = ProviderRecord(
        key.address, sequence, issued, issued + life, tuple(map(endpoint, endpoints)), offers, 4, region, tls=tls
    )
    return sign_record(unsigned, signer or key)


def endpoint(url: str) -> Endpoint:
    """What stands in a record for an address."""
    kind, _, address = url.partition("://")
    match kind:
        case "ws" | "wss":
            return Endpoint("relay", url)
        case "iroh" | "https":
            return Endpoint(kind, address)
        case _:
            return Endpoint("http", address)


async def until(holds: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - what is looked at knows of no event loop
            await asyncio.sleep(0.01)
