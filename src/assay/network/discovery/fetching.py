"""A record, asked for where its provider answers."""

from __future__ import annotations

import ssl
from typing import Final

import httpx

from assay.core.reach import Reach
from assay.core.record import MAX_RECORD_BYTES
from assay.network.replies import body_and_reach, within

FETCH_SECONDS: Final = 5.0
"""For a whole reply."""


def record_client() -> httpx.AsyncClient:
    """A client to fetch records with. Whoever shows whichever certificate: records vouch for themselves, and nothing
    that is asked here is secret."""
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE
    return httpx.AsyncClient(
        verify=anybody,
        timeout=httpx.Timeout(FETCH_SECONDS),
        headers={"accept-encoding": "identity"},
        limits=httpx.Limits(max_connections=64, max_keepalive_connections=8, keepalive_expiry=15),
        trust_env=False,
    )


async def fetch_record(client: httpx.AsyncClient, url: str) -> tuple[bytes, Reach]:
    """What is said to be the record of the provider at `url`, and how near that is.

    Raises:
        ProviderFailed: it cannot be had: no reply in time, an error, or more than a record can be.
    """
    asked = client.stream("GET", f"{url}/assay/v1/record")
    return await within(FETCH_SECONDS, body_and_reach(asked, MAX_RECORD_BYTES), f"{url} does not tell its record")
