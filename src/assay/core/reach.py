"""How far an address carries: what a stranger tells must not lead into this machine or its neighbourhood."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Final, Literal, TypeAlias, get_args

from assay.core.hashing import ZERO
from assay.core.record import Endpoint, EndpointKind, ProviderRecord

EVERYWHERE: Final = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
"""To listen on these is to listen on every address of this machine."""
Way: TypeAlias = Literal["direct", "relay", "iroh"]
"""How a provider is connected to."""
WAYS: Final[tuple[Way, ...]] = get_args(Way)
_KINDS: Final[dict[Way, tuple[EndpointKind, ...]]] = {
    "direct": ("http", "https"),
    "relay": ("relay",),
    "iroh": ("iroh",),
}
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


def usable(record: ProviderRecord, reach: Reach, ways: Sequence[Way] = WAYS) -> Endpoint | None:
    """The endpoint by which the provider is asked first, see `all_usable`; None if there is none."""
    return next(all_usable(record, reach, ways), None)


def all_usable(record: ProviderRecord, reach: Reach, ways: Sequence[Way] = WAYS) -> Iterator[Endpoint]:
    """The endpoints by which the provider can be asked if the record came from so near, the favourite first.

    `ways`: those that may be taken, in that order. Through others' hands only with a certificate to compare.
    """
    for way in ways:
        for endpoint in record.endpoints:
            sure = way == "direct" or record.tls != ZERO
            if endpoint.kind in _KINDS[way] and sure and reach_of(endpoint.host) <= reach:
                yield endpoint


def network_of(host: str) -> str:
    """The network of the size that one customer gets, of an address in numbers: itself, or its /64 in IPv6."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
