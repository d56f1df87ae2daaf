"""What providers offer now: those whose addresses we were given are asked, those that were found have told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Final

import httpx

from assay.core.errors import AssayError, ProviderFailed
from assay.core.offer import Offer
from assay.core.reach import WAYS, Way, all_usable, usable
from assay.core.record import BY_KEY, MAX_RECORD_BYTES, ProviderRecord
from assay.network.discovery.book import RecordBook
from assay.network.keyed import Place
from assay.network.replies import get, within
from assay.network.wire import decode_offers

if TYPE_CHECKING:
    from assay.network.http import Patience

_MAX_REPLY: Final = 2**20
"""Bytes of a list of offers."""
_FOUND_SECONDS: Final = 1.0
"""Age at which the offers of those that were found are put together again, if any have changed."""
_OLD_SECONDS: Final = 60.0
"""Age at which offers do not serve until others have come: nobody has asked for so long."""
MOST_PLACES: Final = 3
"""Of one provider that are tried for one request."""
_FIRST_SECONDS: Final = 3.0
"""How long somebody waits for the first provider to be found, once after the start."""


class Listing:
    """Offers of the providers at some addresses, and of those in a record book. Close it with `aclose`."""

    def __init__(
        self,
        urls: Sequence[str],
        book: RecordBook | None,
        client: httpx.AsyncClient,
        patience: Patience,
        *,
        ways: Sequence[Way] = WAYS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`ways`: how providers that were found are reached, see `usable`. `clock`: Unix seconds, for the records."""
        self._ways: Final = ways
        self._urls: Final = tuple(url.rstrip("/") for url in urls)
        self._book: Final = book
        self._client: Final = client
        self._patience: Final = patience
        self._clock: Final = clock
        self._offers: dict[str, list[Offer]] = {}
        self._silent: dict[str, str] = {}
        self._asked = float("-inf")
        self._heard: Final = asyncio.Event()
        self._asking: asyncio.Task[None] | None = None
        self._found: list[Offer] = []
        self._found_at = float("-inf")
        self._found_version = -1
        self._begun = time.monotonic()

    async def offers(self) -> Sequence[Offer]:
        """What providers offer, at most `refresh` seconds and one round old; who does not reply offers nothing. A
        provider whose address we were given is asked there. The same object is given again while nothing has changed.

        Raises:
            ProviderFailed: there is nobody.
        """
        given = await self._given()
        if not given:
            await self._first_found()
        found = self._of_the_book()
        if not given:
            if not found and len(self._silent) == len(self._urls):
                reasons = "; ".join(self._silent.values()) or "none is known"
                raise ProviderFailed(f"no provider can be reached ({reasons})", "start one with `assay serve`")
            return found
        known = {offer.provider for offer in given}
        return [*given, *(offer for offer in found if offer.provider not in known)]

    def places(self, provider: str) -> Sequence[Place]:
        """Where a provider that was found answers, the favourite first; none: nowhere that may be taken.

        Who prefers to go through others' hands does not want to be seen, and is not led to the provider itself when a
        relay fails.
        """
        entry = None if self._book is None else self._book.get(provider, self._clock())
        if entry is None or entry.record is None:
            return ()
        record, reach = entry.record, entry.reach
        found = list(islice(all_usable(record, reach, self._ways), MOST_PLACES))
        hidden = bool(found) and not found[0].direct
        return [Place(each, record.tls, reach) for each in found if not (hidden and each.direct)]

    async def look_again(self, offer: Offer) -> None:
        """A provider's price is another one by now: have its offers told anew before anybody is asked next."""
        if not offer.url.startswith(BY_KEY):
            self._asked = float("-inf")
            return
        entry = None if self._book is None else self._book.get(offer.provider, self._clock())
        if self._book is None or entry is None:
            return
        url = f"{offer.url}/assay/v1/record"
        with suppress(AssayError):
            data = await within(self._patience.connect, get(self._client, url, MAX_RECORD_BYTES), url)
            self._book.put(ProviderRecord.decode(data), self._clock(), entry.source, entry.reach)
            self._found_at = float("-inf")

    async def aclose(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()
            with suppress(asyncio.CancelledError):
                await self._asking

    async def _first_found(self) -> None:
        until = self._begun + _FIRST_SECONDS
        # The book knows of no event loop.
        while self._book is not None and not len(self._book) and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    def _of_the_book(self) -> list[Offer]:
        if self._book is None:
            return []
        now = time.monotonic()
        if (self._book.version != self._found_version and now - self._found_at > _FOUND_SECONDS) or not self._found:
            self._found_at, self._found_version = now, self._book.version
            alive = self._book.entries(self._clock())
            reached = (record for record, entry in alive if usable(record, entry.reach, self._ways))
            self._found = [offer for record in reached for offer in record.offers]
        return self._found

    async def _given(self) -> list[Offer]:
        if not self._urls:
            return []
        age = time.monotonic() - self._asked
        if age > self._patience.refresh and self._asking is None:
            self._asking = asyncio.create_task(self._refresh())
        if self._asking is not None and (age > _OLD_SECONDS or not any(self._offers.values())):
            # Until all have replied, or one has and the others had a moment: who is half-dead holds nobody up.
            heard = asyncio.create_task(self._heard.wait())
            await asyncio.wait({self._asking, heard}, return_when=asyncio.FIRST_COMPLETED)
            heard.cancel()
            if self._asking is not None:
                await asyncio.wait({self._asking}, timeout=self._patience.others)
        return [offer for url in self._urls for offer in self._offers.get(url, ())]

    async def _refresh(self) -> None:
        self._heard.clear()
        try:
            await asyncio.gather(*(self._ask(url) for url in self._urls))
            self._asked = time.monotonic()
        finally:
            self._asking = None

    async def _ask(self, url: str) -> None:
        try:
            listed = await within(self._patience.reply, get(self._client, f"{url}/assay/v1/offers", _MAX_REPLY), url)
            self._offers[url] = decode_offers(listed, url)
            self._silent.pop(url, None)
            self._heard.set()
        except AssayError as error:
            self._offers[url] = []
            self._silent[url] = error.message if url in error.message else f"{url}: {error.message}"
