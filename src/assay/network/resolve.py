"""Addresses of the names in strangers' records: a name can stand for any machine, as its owner likes."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

import httpx

from assay.core.errors import ProviderFailed
from assay.core.reach import Reach, reach_of


async def resolve(host: str, port: int, reach: Reach) -> str:
    """An address of a host that is no nearer than `reach`.

    Raises:
        ProviderFailed: it has none but nearer ones.
        httpx.ConnectError: it is not known.
    """
    if reach_of(host) <= reach and _is_number(host):
        return host
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpx.ConnectError(f"{host} is not known ({error})") from error
    for _, _, _, _, (address, *_) in found:
        if isinstance(address, str) and reach_of(address) <= reach:
            return address
    raise ProviderFailed(f"{host} leads into a network that its record's source cannot know", "ask another provider")


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
