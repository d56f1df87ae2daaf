"""A consumer's way to a provider through a relay."""

from __future__ import annotations

from assay.core.keys import Address
from assay.core.reach import Reach
from assay.core.record import Endpoint
from assay.network.links import Link
from assay.network.relay.wire import WebSocketLink, open_socket, provider_path
from assay.network.resolve import resolve


async def dial_relay(endpoint: Endpoint, provider: Address, reach: Reach) -> Link:
    """A link to a provider. `reach`: how near the source of its record was.

    Raises:
        OSError: the relay cannot be reached, or the provider is not there.
        ProviderFailed, httpx.ConnectError: see `resolve`.
    """
    host = await resolve(endpoint.host, endpoint.port, reach)
    return WebSocketLink(await open_socket(endpoint, provider_path(provider), host))
