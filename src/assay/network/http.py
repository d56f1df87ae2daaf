"""Providers over HTTP: their offers, and answers that stream as server-sent events. Implements `Transport`.

A provider may be unreachable, slow, half-dead or lying: connections, headers, silence and sizes are all bounded, and
what breaks a bound or the protocol is ProviderFailed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import httpx

from assay.core.bundle import MAX_BUNDLE_BYTES, Bundle
from assay.core.completion import Step
from assay.core.consumer import HEADER, sign_body
from assay.core.encoding import MAX_IDS, b64
from assay.core.errors import AssayError, BindingMismatch, EncodingError, NotFound, PriceChanged, ProviderFailed
from assay.core.hashing import Digest
from assay.core.keys import Key
from assay.core.offer import Load, Offer
from assay.core.payment import Due
from assay.core.ports import Purse
from assay.core.reach import WAYS, Way
from assay.core.request import Request
from assay.core.sse import EventReader
from assay.core.voucher import Terms, Voucher
from assay.network.discovery.book import RecordBook
from assay.network.failures import happened
from assay.network.iroh import Servers
from assay.network.keyed import KeyedTransport
from assay.network.listing import Listing
from assay.network.replies import body, check_plain, get, read, within
from assay.network.waiting import WaitLimit
from assay.network.wire import (
    BUNDLE,
    MAX_EVENT,
    Asked,
    decode_error,
    decode_event,
    decode_load,
    encode_request,
    encode_voucher,
)

_MAX_REPLY: Final = 2**20
"""Bytes of an error, or of the reply to a voucher."""
_MAX_LOAD: Final = 4096
"""Bytes of a provider's load."""
_MAX_STREAM: Final = MAX_BUNDLE_BYTES + 32 * 2**20
"""Bytes of a whole answer, its receipt included."""
IN_FLIGHT: Final = 64
"""Tokens that a receipt may cover beyond those that had come when the provider had heard that we hang up, or when the
connection broke."""
_AHEAD: Final = 256
"""Steps that are kept for a consumer that is slower than its provider; then nothing more is read from the provider."""
_IDLE_SECONDS: Final = 15.0
"""Connections are kept that long; our servers keep them longer, so that none is used just as it closes."""
_RETRY_SECONDS: Final = 0.1
"""Between two attempts to fetch a receipt that is being signed."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for what, in seconds."""

    connect: float = 3.0
    reply: float = 15.0
    """For the reply's head: providers send it before they read the prompt."""
    token: float = 300.0
    """For the next token: a long prompt takes a small machine its time."""
    silence: float = 20.0
    """Without a token or a sign of life (providers send one every 5 s)."""
    farewell: float = 2.0
    """For the receipt after hanging up."""
    others: float = 0.5
    """For more offers when the first ones are there."""
    refresh: float = 10.0
    """Age at which offers are asked for again; meanwhile the old ones serve."""


class HttpTransport:
    """Reaches the providers at `urls`, and those in a `book` by their keys. Close it with `aclose`."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        patience: Patience | None = None,
        book: RecordBook | None = None,
        ways: Sequence[Way] = WAYS,
        iroh: Servers = "direct",
        key: Key | None = None,
    ) -> None:
        """`ways`: how those in the book are reached, see `usable`. `iroh`: see `Servers`. `key`: signs requests."""
        self._key: Final = key
        self._patience: Final = patience or Patience()
        wait = httpx.Timeout(self._patience.reply, connect=self._patience.connect)
        # One for each answer under way, and a few for questions: whoever asks for answers limits these.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=_IDLE_SECONDS)
        self._client: Final = httpx.AsyncClient(
            timeout=wait,
            transport=KeyedTransport(lambda provider: self._listing.places(provider), limits=limits, iroh=iroh),
            headers={"accept-encoding": "identity"},
            trust_env=False,
        )
        self._listing: Final = Listing(urls, book, self._client, self._patience, ways=ways)

    async def offers(self) -> Sequence[Offer]:
        """See `Listing.offers`.

        Raises:
            ProviderFailed: not one provider replies, and none was found.
        """
        return await self._listing.offers()

    async def load(self, offer: Offer) -> Load:
        """How busy a provider says it is.

        Raises:
            NotFound: it does not say.
            ProviderFailed: it cannot be reached, or says nonsense.
        """
        url = f"{offer.url}/assay/v1/load"
        return decode_load(await within(self._patience.connect, get(self._client, url, _MAX_LOAD), url))

    async def send(
        self, offer: Offer, request: Request, *, top_logprobs: int | None = None, purse: Purse | None = None
    ) -> HttpAnswer:
        """Start an answer; returns when the provider has taken the request on.

        Raises:
            Busy, InvalidRequest, NotFound, PaymentRequired: as the provider says.
            ProviderFailed: it cannot be reached, or does not keep to the protocol.
        """
        payment = None if purse is None else purse.payment
        content = encode_request(Asked(request, top_logprobs, payment, offer.price))
        signed = {} if self._key is None else {HEADER: sign_body(self._key, offer.provider, content)}
        outgoing = self._client.build_request(
            "POST",
            f"{offer.url}/assay/v1/answers",
            content=content,
            headers={"content-type": "application/json", "accept": "text/event-stream", **signed},
            timeout=httpx.Timeout(None, connect=self._patience.connect, write=self._patience.reply),
        )
        response = await within(
            self._patience.reply, self._client.send(outgoing, stream=True), f"{offer.url} does not reply"
        )
        try:
            if response.status_code != 200:
                said = await within(self._patience.reply, read(response, _MAX_REPLY), f"{offer.url} does not reply")
                refusal = decode_error(response.status_code, said, response.headers.get("retry-after", ""))
                if isinstance(refusal, PriceChanged):
                    await self._listing.look_again(offer)
                raise refusal
            check_plain(response)
        except BaseException:
            await response.aclose()
            raise
        return HttpAnswer(self._client, self._patience, offer, request, response, purse)

    async def pay(self, url: str, terms: Terms, voucher: Voucher) -> None:
        """Hand a voucher to the provider at `url`; it is on its disk when this returns.

        Raises:
            PaymentRequired, Busy: it does not take it, or not now.
            ProviderFailed: it cannot be reached, or does not keep to the protocol.
        """
        asked = self._client.stream("POST", f"{url}/assay/v1/vouchers", content=encode_voucher(terms, voucher))
        await within(self._patience.reply, body(asked, _MAX_REPLY, status=204), f"{url} does not reply")

    async def bundle(self, url: str, name: Digest) -> Bundle:
        """The receipt that the provider at `url` keeps for the request with this name.

        Raises:
            NotFound: it has none.
            ProviderFailed: it cannot be reached, or gives something else.
        """
        return await _bundle(self._client, self._patience, url, b64(name))

    async def aclose(self) -> None:
        """Close all connections."""
        await self._listing.aclose()
        await self._client.aclose()


class HttpAnswer:
    """Implements `Answer`: one answer under way at a provider. A task reads the stream to its end, the receipt."""

    earlier: Sequence[Bundle] = ()

    def __init__(
        self,
        client: httpx.AsyncClient,
        patience: Patience,
        offer: Offer,
        request: Request,
        response: httpx.Response,
        purse: Purse | None,
    ) -> None:
        self._client: Final = client
        self._patience: Final = patience
        self._offer: Final = offer
        self._name: Final = b64(request.name)
        self._response: Final = response
        self._purse: Final = purse
        self._received: list[int] = []
        self._wanted: int | None = None
        """Tokens that had come when the provider had heard that we hang up; None: all that come on the connection."""
        self._most: Final = min(request.max_tokens or offer.context, offer.context, MAX_IDS)
        """Tokens that the answer may have."""
        self._ended = False
        """The last step has come, or word that there will be none."""
        self._queue: asyncio.Queue[Step | None] = asyncio.Queue()
        self._room: Final = asyncio.Semaphore(_AHEAD)
        self._failure: AssayError | None = None
        self._bundle: Bundle | None = None
        self._deadline = time.monotonic() + patience.token
        self._closed = False
        self._reading: Final = asyncio.create_task(self._read())
        self._reading.add_done_callback(lambda _: self._queue.put_nowait(None))

    async def steps(self) -> AsyncIterator[Step]:
        """The tokens as they come.

        Raises:
            ProviderFailed: the provider broke off, went silent or left the protocol.
            Busy, InvalidRequest: before the first token, if the provider says so.
        """
        while not self._closed and (step := await self._queue.get()) is not None:
            if self._closed:
                return
            self._room.release()
            yield step
        if self._failure is not None and not self._closed:
            raise self._failure

    async def close(self) -> None:
        """Hang up: ask the provider to stop, so that its receipt still comes on this stream."""
        if self._closed or self._reading.done():
            self._closed = True
            return
        self._closed = True
        held_up = self._room.locked()
        self._queue.put_nowait(None)
        self._room.release()  # steps are read on, to the receipt, and no longer kept
        self._deadline = time.monotonic() + self._patience.farewell
        with suppress(httpx.HTTPError, TimeoutError):
            async with asyncio.timeout(self._patience.farewell):
                reply = await self._client.delete(f"{self._offer.url}/assay/v1/answers/{self._name}")
                if reply.status_code != 204:  # it cannot tell which answer is meant: the closed connection does
                    self._reading.cancel()
        # Until it has heard of it, a provider goes on, and a fast one makes hundreds of tokens. Where a slow consumer
        # had made us stop reading, all that came meanwhile is still in the connection.
        self._wanted = None if held_up else len(self._received)

    async def bundle(self) -> Bundle:
        """The receipt from the end of the stream, or, if that broke, as the provider kept it.

        Raises:
            ProviderFailed: there is none to be had.
            BindingMismatch: it is for other tokens than those that came, or for more than can have been on their way.
        """
        if not self._reading.done():
            await self.close()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._patience.farewell):
                    await asyncio.shield(self._reading)
            self._reading.cancel()
            await asyncio.wait([self._reading])
        bundle = self._bundle or await self._fetch()
        # Fetched, it may also cover tokens that were on their way when the connection broke.
        covered = bundle.tokens if self._bundle else bundle.tokens[: len(self._received)]
        if covered != tuple(self._received):
            raise BindingMismatch("output", f"the receipt by {self._offer.url} is for other tokens than it sent")
        wanted = len(self._received) if self._wanted is None else self._wanted
        if len(bundle.tokens) > wanted + IN_FLIGHT:
            raise BindingMismatch(
                "count",
                f"the receipt by {self._offer.url} is for {len(bundle.tokens)} tokens, and was stopped after {wanted}",
            )
        return bundle

    async def _read(self) -> None:
        """Read the stream to its end; failures are kept for who waits."""
        try:
            await self._read_events()
        except AssayError as error:
            self._failure = error
        except (httpx.HTTPError, httpx.StreamError) as error:
            self._failure = ProviderFailed(f"{self._offer.url}: {happened(error)}", "ask again")
        except TimeoutError:
            self._failure = ProviderFailed(f"{self._offer.url} went silent", "ask another provider")
        finally:
            await self._response.aclose()

    async def _read_events(self) -> None:
        reader, size = EventReader(MAX_EVENT, large=BUNDLE, max_large=MAX_BUNDLE_BYTES), 0
        failure: AssayError | None = None
        # Raw: it is not compressed (see `send`).
        chunks, silence = self._response.aiter_raw(), WaitLimit(self._patience.silence)
        while True:
            with silence:
                chunk = await anext(chunks, None)
            if chunk is None:
                raise failure or ProviderFailed(f"{self._offer.url} broke off in mid-answer", "ask again")
            size += len(chunk)
            if size > _MAX_STREAM:
                raise ProviderFailed(f"{self._offer.url} sends without end", "ask another provider")
            for data in reader.feed(chunk):
                if len(data) > MAX_EVENT:  # streams under way must not wait while a large receipt is read
                    event = await asyncio.to_thread(decode_event, data, len(self._received))
                else:
                    event = decode_event(data, len(self._received))
                if isinstance(event, Step):
                    await self._take(event)
                elif isinstance(event, Due):
                    if self._purse is None:
                        raise ProviderFailed(f"{self._offer.url} wants to be paid for what is free", "ask another one")
                    self._purse.due(event, len(self._received))
                elif isinstance(event, Bundle):
                    self._bundle = event
                    await self._finish(chunks)
                    if failure is not None:
                        raise failure
                    return
                else:
                    failure, self._ended = event, True
            if time.monotonic() > self._deadline:
                raise TimeoutError

    async def _take(self, step: Step) -> None:
        """Keep a step for the consumer; waits while it has enough to do."""
        if self._ended or step.index >= self._most:
            raise ProviderFailed(
                f"{self._offer.url} sent more than the answer can have ({self._most} tokens, none after the last)",
                "ask another provider",
            )
        if self._purse is not None and not self._received:
            self._purse.begun()
        self._ended = step.stop is not None
        self._received.append(step.token)
        if not self._closed:
            await self._room.acquire()
            self._queue.put_nowait(step)
        if not self._closed:
            self._deadline = time.monotonic() + self._patience.token

    async def _finish(self, chunks: AsyncIterator[bytes]) -> None:
        """Read the end of the reply, so that the connection can be used again."""
        with suppress(TimeoutError, httpx.HTTPError):
            async with asyncio.timeout(self._patience.farewell):
                if await anext(chunks, None) is not None:
                    raise ProviderFailed(f"{self._offer.url} sent more after its receipt", "ask another provider")

    async def _fetch(self) -> Bundle:
        """The provider signs what it had sent when the connection broke; that takes it a moment."""
        until = time.monotonic() + self._patience.farewell
        while True:
            try:
                return await _bundle(self._client, self._patience, self._offer.url, self._name)
            except NotFound as error:
                if time.monotonic() > until:
                    raise ProviderFailed(
                        f"{self._offer.url} has no receipt for what it sent", "ask another provider"
                    ) from error
            await asyncio.sleep(_RETRY_SECONDS)


async def _bundle(client: httpx.AsyncClient, patience: Patience, url: str, name: str) -> Bundle:
    """The receipt that a provider keeps under a request's name."""
    asked = get(client, f"{url}/assay/v1/bundles/{name}", MAX_BUNDLE_BYTES)
    try:
        return Bundle.decode(await within(patience.farewell, asked, f"{url} does not reply"))
    except EncodingError as error:
        raise ProviderFailed(f"{url} gave no receipt but something else", "ask another provider") from error
