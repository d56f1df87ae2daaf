"""Replies over HTTP, read with bounds on time and size; HTTP's failures become ProviderFailed."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

import httpx

from assay.core.errors import ProviderFailed
from assay.core.reach import Reach, reach_of
from assay.network.failures import happened
from assay.network.waiting import WaitLimit
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


async def body_and_reach(asked: AbstractAsyncContextManager[httpx.Response], limit: int) -> tuple[bytes, Reach]:
    """The body of a good reply, and how near the machine is that it came from, by the address that was connected to."""
    async with asked as response:
        stream = response.extensions.get("network_stream")
        address = None if stream is None else stream.get_extra_info("server_addr")
        reach = reach_of(address[0]) if isinstance(address, tuple) else Reach.PUBLIC
        data = await read(response, limit)
        if response.status_code != 200:
            raise decode_error(response.status_code, data, response.headers.get("retry-after", ""))
        return data, reach


async def read(response: httpx.Response, limit: int) -> bytes:
    """The body of a reply, at most `limit` bytes.

    Raises:
        ProviderFailed: it is larger, or compressed.
    """
    check_plain(response)
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > limit:
            raise ProviderFailed(f"the reply is larger than {limit} bytes", "is it an Assay provider?")
    return bytes(body)


def check_plain(response: httpx.Response) -> None:
    """Refuse what is compressed, which nobody asked for: a few bytes of it can stand for gigabytes.

    Raises:
        ProviderFailed: it is.
    """
    if response.headers.get("content-encoding", "identity") != "identity":
        raise ProviderFailed("the reply is compressed, which was not asked for", "is it an Assay provider?")


async def within(seconds: float, work: Awaitable[_T], late: str) -> _T:
    """Await `work`, with HTTP's failures and lateness as ProviderFailed."""
    try:
        with WaitLimit(seconds):
            return await work
    except TimeoutError as error:
        raise ProviderFailed(f"{late} (waited {seconds:g} s)", "ask another provider") from error
    except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, ValueError) as error:
        raise ProviderFailed(f"{late}: {happened(error)}", "check the address, or ask another provider") from error
