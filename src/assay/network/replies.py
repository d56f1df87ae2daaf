"""Replies over HTTP, read with bounds on time and size; HTTP's failures become ProviderFailed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

import httpx

from assay.core.errors import ProviderFailed
from assay.network.wire import decode_error

_T = TypeVar("_T")


async def get(client: httpx.AsyncClient, url: str, limit: int) -> bytes:
    """The body at `url`; errors as the provider says."""
    return await body(client.stream("GET", url), limit)


async def body(asked: AbstractAsyncContextManager[httpx.Response], limit: int, *, status: int = 200) -> bytes:
    """The body of the reply to a request; an error as the provider says where it has another status."""
    async with asked as response:
        data = await read(response, limit)
        if response.status_code != status:
            raise decode_error(response.status_code, data, response.headers.get("retry-after", ""))
        return data


async def read(response: httpx.Response, limit: int) -> bytes:
    """The body of a reply, at most `limit` bytes.

    Raises:
        ProviderFailed: it is larger.
    """
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > limit:
            raise ProviderFailed(f"the reply is larger than {limit} bytes", "is it an Assay provider?")
    return bytes(body)


async def within(seconds: float, work: Awaitable[_T], late: str) -> _T:
    """Await `work`, with HTTP's failures and lateness as ProviderFailed."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError as error:
        raise ProviderFailed(f"{late} (waited {seconds:g} s)", "ask another provider") from error
    except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, ValueError) as error:
        raise ProviderFailed(
            f"{late} ({type(error).__name__}: {error})", "check the address, or ask another provider"
        ) from error
