"""Failures of HTTP in plain words."""

from __future__ import annotations

from typing import Final

import httpx

_HAPPENED: Final = (
    (httpx.ConnectTimeout, "no connection in time"),
    (httpx.ConnectError, "no connection"),
    (httpx.TimeoutException, "it went silent"),
    (httpx.TransportError, "the connection broke"),
    (httpx.InvalidURL, "this is no address"),
)
"""The narrower ones first."""


def happened(error: Exception) -> str:
    """What a failure means to who asked, with the library's own words where it has any: often it has none."""
    what = next((what for kind, what in _HAPPENED if isinstance(error, kind)), "the reply cannot be used")
    return f"{what} ({error})" if str(error) else what
