"""Failures of HTTP in plain words."""

from __future__ import annotations

import httpx
import pytest

from assay.network.failures import happened


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (httpx.ReadError(""), "the connection broke"),
        (httpx.RemoteProtocolError("Server disconnected"), "the connection broke (Server disconnected)"),
        (httpx.ConnectError("All attempts failed"), "no connection (All attempts failed)"),
        (httpx.ConnectTimeout(""), "no connection in time"),
        (httpx.ReadTimeout(""), "it went silent"),
        (httpx.InvalidURL("Invalid port"), "this is no address (Invalid port)"),
        (ValueError("not JSON"), "the reply cannot be used (not JSON)"),
    ],
)
def test_what_happened_is_said_without_the_name_of_a_class(error: Exception, said: str) -> None:
    """And without brackets around nothing."""
    assert happened(error) == said
