"""How far an address carries: what a stranger tells must not lead into this machine or its neighbourhood."""

from __future__ import annotations

import ipaddress
from enum import IntEnum
from typing import Final

from assay.core.record import Endpoint, ProviderRecord

EVERYWHERE: Final = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
"""To listen on these is to listen on every address of this machine."""
_LOCAL_NAMES: Final = (".localhost", ".local", ".internal", ".home.arpa")


class Reach(IntEnum):
    """From where an address can be used; of two the higher one is nearer."""

    PUBLIC = 0
    """From anywhere."""
    NEIGHBOURHOOD = 1
    """From the same local network, or another one that is not the internet."""
    MACHINE = 2
    """From the same machine."""


def reach_of(host: str) -> Reach:
    """Of a name or number. A name is public here: what it stands for is looked at when it is connected to."""
    if host == "localhost" or host.endswith(_LOCAL_NAMES[0]):
        return Reach.MACHINE
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return Reach.NEIGHBOURHOOD if host.endswith(_LOCAL_NAMES) else Reach.PUBLIC
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_loopback or address.is_unspecified:
        return Reach.MACHINE
    return Reach.PUBLIC if address.is_global else Reach.NEIGHBOURHOOD


def usable(record: ProviderRecord, reach: Reach) -> Endpoint | None:
    """The endpoint by which the provider is asked if the record came from so near; None if there is none."""
    for endpoint in record.endpoints:
        if endpoint.kind in ("http", "https") and reach_of(endpoint.host) <= reach:
            return endpoint
    return None
