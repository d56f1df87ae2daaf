"""How a provider stands in an ERC-8004 registry of identities: its registration file, as a `data:` URI.

Source: https://eips.ethereum.org/EIPS/eip-8004 (draft), "Agent Registration File".
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Final

from assay.core.encoding import Json, canonical
from assay.core.errors import EncodingError
from assay.core.keys import Address, parse_address

TYPE: Final = "https://eips.ethereum.org/EIPS/eip-8004#registration-v1"
MAX_FILE: Final = 16_384
"""Bytes of a file that is read."""
SERVICE: Final = "Assay"
"""The service whose endpoint is `assay://` and the provider's address."""
_DATA: Final = "data:application/json;base64,"
_SCHEME: Final = "assay://"


def registration_uri(
    provider: Address, *, name: str, description: str, url: str, agent: tuple[str, int] | None, x402: bool
) -> str:
    """The file of a provider. `url`: where it answers OpenAI's clients, or nothing. `agent`: the registry, as
    `eip155:CHAIN:ADDRESS`, and the number there, once it has one. `x402`: whether it takes deposits by signature."""
    services: list[Json] = [{"name": SERVICE, "endpoint": _SCHEME + provider, "version": "1"}]
    if url:
        services.append({"name": "OpenAI", "endpoint": f"{url.rstrip('/')}/v1", "version": "v1"})
    known: list[Json] = [] if agent is None else [{"agentRegistry": agent[0], "agentId": agent[1]}]
    file = canonical({
        "type": TYPE, "name": name, "description": description, "image": "", "services": services,
        "x402Support": x402, "active": True, "registrations": known, "supportedTrust": ["crypto-economic"],
    })  # fmt: skip
    if len(file) > MAX_FILE:
        raise EncodingError(f"a registration has at most {MAX_FILE} bytes", "shorten the description")
    return _DATA + base64.b64encode(file).decode()


def provider_in(uri: str) -> Address | None:
    """The provider that a registration names; None: it is no `data:` URI, or names none. Nothing is fetched.

    Raises:
        EncodingError: what is in the URI is no registration.
    """
    if not uri.startswith(_DATA):
        return None
    try:
        file = base64.b64decode(uri[len(_DATA) :][: 2 * MAX_FILE], validate=True)
        found = json.loads(file)
    except (binascii.Error, ValueError, RecursionError) as error:
        raise EncodingError("a registration is not JSON in base64") from error
    services = found.get("services") if isinstance(found, dict) else None
    if not isinstance(services, list):
        raise EncodingError("a registration has a list of services")
    for each in services:
        endpoint = each.get("endpoint") if isinstance(each, dict) and each.get("name") == SERVICE else None
        if isinstance(endpoint, str) and endpoint.startswith(_SCHEME):
            return parse_address(endpoint.removeprefix(_SCHEME), what="the provider of a registration")
    return None
