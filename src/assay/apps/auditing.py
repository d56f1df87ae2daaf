"""Where a validator finds receipts and leaves verdicts: a gateway's database, or its desk over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Final, Protocol

import httpx

from assay.core.bundle import MAX_BUNDLE_BYTES, Bundle
from assay.core.encoding import b64, unb64
from assay.core.errors import EncodingError, NotFound, ProviderFailed
from assay.core.hashing import Digest
from assay.core.keys import Address, parse_address
from assay.core.request import natural
from assay.core.verdict import Verdict
from assay.network.failures import happened
from assay.store.receipts import ReceiptStore, Unaudited

_LIST_BYTES: Final = 2**20
_MOST: Final = 1000


class Desk(Protocol):
    """What a validator needs of a gateway."""

    async def unaudited(self, after: int) -> Sequence[Unaudited]:
        """Receipts with row numbers over `after` that have no verdict, in order; not all at once."""
        ...

    async def contradictions(self) -> Sequence[tuple[Digest, Digest]]:
        """Digests of receipts that contradict each other, as long as the later one has no verdict; not all at once."""
        ...

    async def disproven(self, since: int) -> Sequence[Digest]:
        """Digests of receipts that came after a time (Unix seconds) and that exact checks found wrong, oldest first."""
        ...

    async def contradicted(self) -> Sequence[tuple[Digest, Digest]]:
        """As `contradictions`, but those with verdicts too."""
        ...

    async def bundle(self, digest: Digest) -> Bundle:
        """The receipt with this digest.

        Raises:
            NotFound: it is gone.
            EncodingError: what is kept under it is no receipt that can be read here.
        """
        ...

    async def tested(self, provider: Address) -> int:
        """Verdicts on a provider so far that rest on statistics."""
        ...

    async def passed(self, provider: Address) -> int:
        """Verdicts on a provider so far whose answers were computed again, with nothing wrong found."""
        ...

    async def judge(self, verdict: Verdict) -> None:
        """Leave a verdict."""
        ...


class StoreDesk:
    """Implements `Desk` over a database."""

    def __init__(self, store: ReceiptStore) -> None:
        self._store: Final = store

    async def unaudited(self, after: int) -> Sequence[Unaudited]:
        """See `Desk`."""
        return await asyncio.to_thread(self._store.unaudited, _MOST, after=after)

    async def contradictions(self) -> Sequence[tuple[Digest, Digest]]:
        """See `Desk`."""
        return await asyncio.to_thread(self._store.contradicting, _MOST)

    async def disproven(self, since: int) -> Sequence[Digest]:
        """See `Desk`."""
        return await asyncio.to_thread(self._store.disproven, _MOST, since=since)

    async def contradicted(self) -> Sequence[tuple[Digest, Digest]]:
        """See `Desk`."""
        return await asyncio.to_thread(self._store.contradicted, _MOST)

    async def bundle(self, digest: Digest) -> Bundle:
        """See `Desk`."""
        return await asyncio.to_thread(self._store.get, digest)

    async def tested(self, provider: Address) -> int:
        """See `Desk`."""
        return await asyncio.to_thread(self._store.tested, provider)

    async def passed(self, provider: Address) -> int:
        """See `Desk`."""
        return await asyncio.to_thread(self._store.passed, provider)

    async def judge(self, verdict: Verdict) -> None:
        """See `Desk`."""
        await asyncio.to_thread(self._store.judge, verdict)


class HttpDesk:
    """Implements `Desk` over a gateway's HTTP API.

    Every method raises ProviderFailed if the gateway cannot be reached, or answers something else, and EncodingError if
    the gateway cannot read what it has, or was sent.
    """

    def __init__(self, url: str, token: str) -> None:
        self._url: Final = url.rstrip("/")
        self._client: Final = httpx.AsyncClient(
            headers={"authorization": f"Bearer {token}"}, timeout=30.0, trust_env=False
        )

    async def unaudited(self, after: int) -> Sequence[Unaudited]:
        """See `Desk`."""
        body = await self._ask("GET", f"/assay/v1/unaudited?after={after}", _LIST_BYTES)
        try:
            return [
                Unaudited(
                    natural(item["row"], "row"),
                    unb64(item["digest"], size=32, what="a digest"),
                    parse_address(item["provider"], what="provider"),
                )
                for item in json.loads(body)["receipts"]
            ]
        except (ValueError, TypeError, KeyError, RecursionError, EncodingError) as error:
            raise ProviderFailed(f"{self._url} does not list receipts", "is it an Assay gateway?") from error

    async def contradictions(self) -> Sequence[tuple[Digest, Digest]]:
        """See `Desk`."""
        return await self._pairs("/assay/v1/contradictions")

    async def contradicted(self) -> Sequence[tuple[Digest, Digest]]:
        """See `Desk`."""
        return await self._pairs("/assay/v1/contradictions?all=1")

    async def disproven(self, since: int) -> Sequence[Digest]:
        """See `Desk`."""
        body = await self._ask("GET", f"/assay/v1/disproven?since={since}", _LIST_BYTES)
        try:
            return [unb64(item, size=32, what="a digest") for item in json.loads(body)["receipts"]]
        except (ValueError, TypeError, KeyError, RecursionError, EncodingError) as error:
            raise ProviderFailed(f"{self._url} does not list receipts", "is it an Assay gateway?") from error

    async def _pairs(self, path: str) -> Sequence[tuple[Digest, Digest]]:
        body = await self._ask("GET", path, _LIST_BYTES)
        try:
            return [
                (unb64(item["one"], size=32, what="a digest"), unb64(item["other"], size=32, what="a digest"))
                for item in json.loads(body)["contradictions"]
            ]
        except (ValueError, TypeError, KeyError, RecursionError, EncodingError) as error:
            raise ProviderFailed(f"{self._url} does not list contradictions", "is it an Assay gateway?") from error

    async def bundle(self, digest: Digest) -> Bundle:
        """See `Desk`."""
        return Bundle.decode(await self._ask("GET", f"/assay/v1/receipts/{b64(digest)}", MAX_BUNDLE_BYTES))

    async def tested(self, provider: Address) -> int:
        """See `Desk`."""
        return await self._count(provider, "tested")

    async def passed(self, provider: Address) -> int:
        """See `Desk`."""
        return await self._count(provider, "passed")

    async def _count(self, provider: Address, what: str) -> int:
        body = await self._ask("GET", f"/assay/v1/verdicts/{provider}", _LIST_BYTES)
        try:
            return natural(json.loads(body)[what], what)
        except (ValueError, TypeError, KeyError, RecursionError, EncodingError) as error:
            raise ProviderFailed(f"{self._url} does not count verdicts", "is it an Assay gateway?") from error

    async def judge(self, verdict: Verdict) -> None:
        """See `Desk`."""
        await self._ask("POST", "/assay/v1/verdicts", _LIST_BYTES, json.dumps(verdict.to_json()).encode())

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _ask(self, method: str, path: str, limit: int, body: bytes | None = None) -> bytes:
        try:
            async with self._client.stream(method, self._url + path, content=body) as response:
                data = bytearray()
                async for chunk in response.aiter_bytes():
                    data += chunk
                    if len(data) > limit:
                        raise ProviderFailed(f"{self._url} sends too much", "is it an Assay gateway?")
                return self._checked(response.status_code, bytes(data))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ProviderFailed(
                f"the gateway at {self._url} cannot be reached: {happened(error)}",
                "start it, or check the address",
            ) from error

    def _checked(self, status: int, data: bytes) -> bytes:
        if status == 404:
            raise NotFound(f"{self._url} has no such receipt, or no desk for this token", "check the audit token")
        if status == 400:
            raise EncodingError(f"{self._url} cannot use this: {data[:300].decode(errors='replace')}")
        if status not in (200, 204):
            raise ProviderFailed(f"{self._url} answered with status {status}", "see the gateway's log")
        return data
