"""Registration files: what is written is read again, and nothing else is believed."""

from __future__ import annotations

import base64
import json

import pytest

from assay.core.errors import EncodingError
from assay.core.registration import MAX_FILE, provider_in, registration_uri

ADA = "0x" + "ad" * 20


def uri(value: object) -> str:
    """Whatever somebody writes there."""
    return "data:application/json;base64," + base64.b64encode(json.dumps(value).encode()).decode()


def test_it_names_its_provider() -> None:
    """With and without a number in a registry."""
    for agent in (None, ("eip155:1:0x" + "8004" * 10, 22)):
        written = registration_uri(ADA, name="a", description="b", url="", agent=agent, x402=True)
        assert provider_in(written) == ADA
    with pytest.raises(EncodingError):
        registration_uri(ADA, name="a", description="b" * MAX_FILE, url="", agent=None, x402=True)


@pytest.mark.parametrize(
    "wrong", [[], 5, {}, {"services": 5}, {"services": [{"name": "Assay", "endpoint": "assay://0x12"}]}], ids=str
)
def test_what_is_none(wrong: object) -> None:
    """Is refused."""
    with pytest.raises(EncodingError):
        provider_in(uri(wrong))


def test_what_says_nothing_of_us() -> None:
    """Names nobody, and nothing is fetched."""
    others = [5, {"name": "A2A", "endpoint": "assay://x"}, {"name": "Assay", "endpoint": 5}]
    for other in ("https://example.com/agent.json", "ipfs://x", "", uri({"services": []}), uri({"services": others})):
        assert provider_in(other) is None
    for torn in (
        "data:application/json;base64,####",
        uri("x")[:-3] + "!",
        "data:application/json;base64," + base64.b64encode(b"[" * 9999).decode(),
    ):
        with pytest.raises(EncodingError):
            provider_in(torn)
