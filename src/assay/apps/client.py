"""A small client of the OpenAI surface for terminals: what `ask`, `chat` and the demo speak to a node or gateway.

Whoever answers is a stranger: lines, pieces and errors are bounded, and anything unexpected is `ProviderFailed`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final, Self

import httpx

from assay.core.bundle import MAX_BUNDLE_BYTES, Bundle
from assay.core.errors import (
    AssayError,
    Busy,
    EncodingError,
    InvalidRequest,
    ModelNotFound,
    NoProvider,
    NotFound,
    ProviderFailed,
)
from assay.core.hashing import ZERO
from assay.core.offer import Price
from assay.core.receipt import Receipt
from assay.core.request import decimal
from assay.core.sse import EventReader
from assay.network.failures import happened

MAX_REPLY: Final = 2**20
"""Bytes of one event, or of a reply that is no receipt."""
_ERROR_BYTES: Final = 65_536
_CONNECT_SECONDS: Final = 5.0
_SILENCE_SECONDS: Final = 120.0
"""Longest wait for the next byte: a long prompt on a small machine takes its time."""
_CODES: Final[Mapping[str, type[AssayError]]] = {"no_provider": NoProvider, "model_not_found": ModelNotFound}
_KINDS: Final[Mapping[int, type[AssayError]]] = {400: InvalidRequest, 404: NotFound, 413: InvalidRequest, 429: Busy}


@dataclass(frozen=True, slots=True)
class Wish:
    """One question and how it should be answered."""

    model: str
    messages: Sequence[Mapping[str, str]]
    """Role and content each."""
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    level: str | None = None
    """The strongest level offered, if None."""
    only: Sequence[str] = ()
    """Consider only these providers (address or URL)."""
    ignore: Sequence[str] = ()
    """Never consider these."""
    region: str | None = None
    min_stake: int | None = None
    """Wei that the provider has to lose."""

    def body(self) -> dict[str, object]:
        """The body of a streaming chat completion."""
        stake = None if self.min_stake is None else str(self.min_stake)  # JSON's numbers are too small
        said = {"level": self.level, "region": self.region, "min_stake": stake}
        named = {"only": list(self.only), "ignore": list(self.ignore)}
        assay: dict[str, object] = {name: value for name, value in said.items() if value is not None}
        assay |= {name: providers for name, providers in named.items() if providers}
        body: dict[str, object] = {
            "model": self.model,
            "messages": [dict(message) for message in self.messages],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        for name in ("max_tokens", "temperature", "top_p", "seed"):
            value = getattr(self, name)
            if value is not None:
                body[name] = value
        return body | ({"assay": assay} if assay else {})


@dataclass(frozen=True, slots=True)
class Answered:
    """What is known when an answer has ended."""

    completion: str
    """The answer's name in the OpenAI API."""
    text: str
    finish: str
    tokens: int
    """Output tokens; 0 if the server did not say."""
    provider: str
    level: str
    receipts: tuple[Receipt, ...]
    first_s: float
    """Seconds to the first piece of text."""
    seconds: float
    """Seconds in all."""

    @property
    def rate(self) -> float:
        """Tokens per second after the first piece."""
        decoding = self.seconds - self.first_s
        return (self.tokens - 1) / decoding if self.tokens > 1 and decoding > 0 else 0.0


class Streamed:
    """An answer under way: iterate over the pieces of its text; afterwards `answered` tells the rest."""

    def __init__(self, reply: httpx.Response, started: float) -> None:
        self.completion: str = ""
        """The answer's name, as soon as the first event has come."""
        self.answered: Answered | None = None
        """Set when the stream has ended as it should."""
        self._reply: Final = reply
        self._started: Final = started

    def __iter__(self) -> Iterator[str]:
        text: list[str] = []
        finish, provider, level, tokens, first = "", "", "", 0, 0.0
        receipts: tuple[Receipt, ...] = ()
        for event in _events(self._reply):
            _raise_error(event.get("error"), 424)
            self.completion = self.completion or _text(event.get("id"))
            for choice in _maps(event.get("choices")):
                piece = _text(_map(choice.get("delta")).get("content"))
                finish = _text(choice.get("finish_reason")) or finish
                if piece:
                    first = first or time.monotonic() - self._started
                    text.append(piece)
                    yield piece
            count = _map(event.get("usage")).get("completion_tokens")
            tokens = count if isinstance(count, int) else tokens
            if proof := _map(event.get("assay")):
                provider, level = _text(proof.get("provider")), _text(proof.get("level"))
                receipts = _receipts(proof.get("receipts"))
        seconds = time.monotonic() - self._started
        self.answered = Answered(
            self.completion, "".join(text), finish, tokens, provider, level, receipts, first or seconds, seconds
        )


class Client:
    """Speaks to one node or gateway. Use it as a context manager."""

    def __init__(self, base_url: str, *, verify: bool = True) -> None:
        """`base_url`: as OpenAI clients take it, with or without `/v1` at the end. `verify`: that an HTTPS server's
        certificate is one that the world knows, as providers' own are not."""
        self.url: Final = base_url.rstrip("/").removesuffix("/v1")
        try:
            self._http: Final = httpx.Client(
                base_url=self.url,
                timeout=httpx.Timeout(_SILENCE_SECONDS, connect=_CONNECT_SECONDS),
                trust_env=False,
                verify=verify,
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise InvalidRequest(f"{base_url!r} is no address ({error})", remedy="write http://HOST:PORT") from error

    def models(self) -> list[str]:
        """Names of the models that can be asked for, as `/v1/models` gives them."""
        listed = _maps(self._get("/v1/models").get("data"))
        return [name for name in (_text(item.get("id")) for item in listed) if name]

    def cost(self, answered: Answered, model: str) -> int | None:
        """What an answer costs, wei, by its receipts and the prices that are listed; None: they are not."""
        total = 0
        for receipt in answered.receipts:
            price = Price(0, 0) if receipt.channel == ZERO else self._price(model, receipt)
            if price is None:
                return None
            # Without a channel the amount is this answer's own; with one, that of all answers until then.
            own = receipt.amount if receipt.channel == ZERO else 0
            total += own + price.of(receipt.prompt_count, receipt.output_count)
        return total

    def _price(self, model: str, receipt: Receipt) -> Price | None:
        for listed in _maps(self._get("/v1/models").get("data")):
            for offer in _maps(_map(listed.get("assay")).get("offers")) if listed.get("id") == model else ():
                price = _map(offer.get("price"))
                prompt, output = _text(price.get("prompt")), _text(price.get("completion"))
                if (offer.get("provider"), offer.get("level")) == (receipt.provider, receipt.level):
                    with suppress(EncodingError):
                        return Price(decimal(prompt, what="a price"), decimal(output, what="a price"))
        return None

    def health(self) -> Mapping[str, object]:
        """What `/health` tells."""
        return self._get("/health")

    def has_window(self) -> bool:
        """Whether there are pages for people."""
        with self._failures(), self._http.stream("GET", "/node") as reply:
            return reply.status_code == 200

    @contextmanager
    def ask(self, wish: Wish) -> Iterator[Streamed]:
        """Start an answer; leaving the block hangs up.

        Raises:
            ProviderFailed: nobody answers at the address, or not as the protocol says.
            InvalidRequest, NotFound, Busy: as the server says.
        """
        with self._failures(), self._http.stream("POST", "/v1/chat/completions", json=wish.body(), headers={
            "accept": "text/event-stream"
        }) as reply:  # fmt: skip
            if reply.status_code != 200:
                _raise_error(_json(_read(reply, _ERROR_BYTES)).get("error"), reply.status_code)
                raise ProviderFailed(f"{self.url} answered with status {reply.status_code}", "is it an Assay server?")
            yield Streamed(reply, time.monotonic())

    def parts(self, answered: Answered) -> list[Bundle]:
        """What the receipts of an answer cover: one bundle, or several where other providers went on. Parts whose
        receipts came later are among them.

        Raises:
            NotFound: the server does not know it.
            ProviderFailed: what came is no receipt file, or another one.
        """
        found = self.bundles(answered.completion)
        if not set(answered.receipts) <= {bundle.receipt for bundle in found}:
            raise ProviderFailed(f"{self.url} gave another receipt than it had announced", "ask another gateway")
        return found

    def bundles(self, name: str) -> list[Bundle]:
        """The receipt files under a completion's id."""
        with self._failures(), self._http.stream("GET", f"/receipts/{name}") as reply:
            data = _read(reply, MAX_BUNDLE_BYTES)
            if reply.status_code != 200:
                _raise_error(_json(data).get("error"), reply.status_code)
        return _bundles(data)

    def settled(self, completion: str, *, patience: float = 3.0) -> list[Bundle]:
        """The receipts of an answer that was just hung up: they are signed a moment later. Empty if none came."""
        until = time.monotonic() + patience
        while completion and time.monotonic() < until:
            try:
                return self.bundles(completion)
            except NotFound:
                time.sleep(0.1)
        return []

    def close(self) -> None:
        """Hang up."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _get(self, path: str) -> Mapping[str, object]:
        with self._failures(), self._http.stream("GET", path) as reply:
            data = _read(reply, MAX_REPLY)
            if reply.status_code != 200:
                _raise_error(_json(data).get("error"), reply.status_code)
        return _json(data)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError as error:
            raise ProviderFailed(
                f"nobody answers at {self.url}", "start a node with `assay up`, or name another with --url"
            ) from error
        except httpx.TimeoutException as error:
            raise ProviderFailed(f"{self.url} went silent", "try again, or ask another provider") from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise ProviderFailed(f"{self.url}: {happened(error)}", "try again") from error


def _events(reply: httpx.Response) -> Iterator[Mapping[str, object]]:
    """The JSON objects of an SSE stream, up to `[DONE]`; a stream that ends before it was cut."""
    reader = EventReader(MAX_REPLY)
    for chunk in reply.iter_bytes():
        for data in reader.feed(chunk):
            if data == b"[DONE]":
                return
            yield _json(data)
    raise ProviderFailed("the answer was cut off before its end", "ask again")


def _bundles(data: bytes) -> list[Bundle]:
    try:
        return [Bundle.decode(line) for line in data.splitlines(keepends=True)]
    except EncodingError as error:
        raise ProviderFailed(f"what came is no receipt file ({error.message})", "ask another server") from error


def _read(reply: httpx.Response, limit: int) -> bytes:
    data = bytearray()
    for chunk in reply.iter_bytes():
        data += chunk
        if len(data) > limit:
            raise ProviderFailed(f"the reply is larger than {limit} bytes", "ask another server")
    return bytes(data)


def _raise_error(error: object, status: int) -> None:
    """Raise what an OpenAI-shaped error object says; nothing if there is none."""
    if error is None:
        return
    message = _text(_map(error).get("message"))[:2000] or "the server gave no reason"
    code = _text(_map(error).get("code"))
    raise (_CODES.get(code) or _KINDS.get(status, ProviderFailed))(message)


def _json(data: bytes) -> Mapping[str, object]:
    try:
        return _map(json.loads(data))
    except (ValueError, RecursionError) as error:
        raise ProviderFailed("the server sent something that is not JSON", "is it an Assay server?") from error


def _receipts(value: object) -> tuple[Receipt, ...]:
    try:
        return tuple(Receipt.from_json(item) for item in _maps(value))  # pyrefly: ignore[bad-argument-type]
    except EncodingError as error:
        raise ProviderFailed(f"the receipt is malformed ({error.message})", "ask another server") from error


def _map(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _maps(value: object) -> list[Mapping[str, object]]:
    return [_map(item) for item in value] if isinstance(value, list) else []


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
