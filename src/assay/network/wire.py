"""The native wire between gateway and provider: offers, steps, receipts and errors as JSON, alone or as SSE events.

What comes in was written by strangers: every member is checked, and what does not fit is ProviderFailed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from assay.core.bundle import Bundle
from assay.core.completion import STEP_STOPS, Step, TopLogprobs
from assay.core.encoding import Json, b64, canonical, check_bounds, unb64
from assay.core.errors import (
    AssayError,
    Busy,
    ContextOverflow,
    EncodingError,
    InvalidRequest,
    ModelNotFound,
    NotFound,
    PaymentRequired,
    PriceChanged,
    ProviderFailed,
)
from assay.core.keys import Address, parse_address
from assay.core.offer import Load, Offer, Price
from assay.core.payment import Due, Payment, Requirements
from assay.core.request import Request, decimal, natural, text
from assay.core.voucher import Terms, Voucher
from assay.network.openai.shape import error_object

MAX_OFFERS: Final = 256
"""Offers of one provider."""
MAX_TEXT: Final = 65_536
"""Characters that one step may show: a stop text that did not come true is released at once."""
MAX_EVENT: Final = 65_536
"""Bytes of an event that is no receipt."""
BUNDLE: Final = b'{"bundle":'
"""How the event with the receipt begins."""
MAX_TOP: Final = 20
"""Alternatives of one step."""
_ADVICE: Final = "ask another provider"
_JSON: Final = json.JSONEncoder(separators=(",", ":"))
_OVERFLOW: Final = re.compile(r"has ([0-9]{1,9}) tokens and the context holds ([0-9]{1,9})")
"""How ContextOverflow says it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a gateway asks of a provider."""

    request: Request
    top_logprobs: int | None = None
    payment: Payment | None = None
    price: Price | None = None
    """That the gateway reckons with: providers change theirs. None: whatever it is."""


def encode_request(asked: Asked) -> bytes:
    """The body of POST /assay/v1/answers."""
    more: dict[str, Json] = {} if asked.payment is None else {"payment": asked.payment.to_json()}
    if asked.price is not None:
        more["price"] = asked.price.to_json()
    return canonical({"request": asked.request.to_json(), "top_logprobs": asked.top_logprobs, **more})


def decode_request(body: bytes) -> Asked:
    """Inverse of `encode_request`.

    Raises:
        EncodingError: not this object.
    """
    value = _object(body, "the body")
    if set(value) - {"payment", "price"} != {"request", "top_logprobs"}:
        raise EncodingError("the body has the members request, top_logprobs and perhaps price and payment")
    top = value["top_logprobs"]
    if top is not None and not 0 <= natural(top, "top_logprobs") <= MAX_TOP:
        raise EncodingError(f"top_logprobs is at most {MAX_TOP}")
    request = Request.from_json(value["request"])
    _ = request.digest  # refuses what has no canonical encoding, such as lone surrogates
    payment = Payment.from_json(value["payment"]) if "payment" in value else None
    price = None
    if "price" in value:
        price = Price.from_json(value["price"])
        if value["price"] != price.to_json():
            raise EncodingError("the price has exactly the members prompt and output")
    return Asked(request, None if top is None else natural(top, "top_logprobs"), payment, price)


def encode_voucher(terms: Terms, voucher: Voucher) -> bytes:
    """The body of POST /assay/v1/vouchers."""
    return canonical({"terms": terms.to_json(), "voucher": voucher.to_json()})


def decode_voucher(body: bytes) -> tuple[Terms, Voucher]:
    """Inverse of `encode_voucher`.

    Raises:
        EncodingError: not this object.
    """
    value = _object(body, "the body")
    if set(value) != {"terms", "voucher"}:
        raise EncodingError("the body has exactly the members terms, voucher")
    return Terms.from_json(value["terms"]), Voucher.from_json(value["voucher"])


def encode_offers(provider: Address, offers: Sequence[Offer]) -> bytes:
    """The reply to GET /assay/v1/offers."""
    listed: list[Json] = [offer.to_json() for offer in offers]
    required = offers[0].payment if offers else None
    payment: dict[str, Json] = {} if required is None else {"payment": required.to_json()}
    return canonical({"provider": provider, "offers": listed, **payment})


def decode_offers(body: bytes, url: str) -> list[Offer]:
    """The offers of the provider that answers at `url`.

    Raises:
        ProviderFailed: not that reply.
    """
    try:
        value = _object(body, "the list of offers")
        provider = parse_address(text(value.get("provider"), "provider"), what="provider")
        listed = value.get("offers")
        if not isinstance(listed, list) or len(listed) > MAX_OFFERS:
            raise EncodingError(f"offers is no list of at most {MAX_OFFERS}")
        payment = Requirements.from_json(value["payment"]) if "payment" in value else None
        return [Offer.from_json(item, provider=provider, url=url, payment=payment) for item in listed]
    except EncodingError as error:
        raise ProviderFailed(
            f"{url} does not offer as the protocol says ({error.message})", "is it an Assay provider?"
        ) from error


def encode_load(load: Load) -> bytes:
    """The reply to GET /assay/v1/load."""
    return canonical({"running": load.running, "places": load.places})


def decode_load(body: bytes) -> Load:
    """Inverse of `encode_load`.

    Raises:
        ProviderFailed: not that reply.
    """
    try:
        value = _object(body, "the load")
        return Load(natural(value.get("running"), "running"), natural(value.get("places"), "places"))
    except EncodingError as error:
        raise ProviderFailed(f"the load is not as the protocol says ({error.message})", _ADVICE) from error


def step_event(step: Step) -> bytes:
    """One token as an SSE event."""
    event: dict[str, object] = {"i": step.index, "t": step.token, "x": step.text}
    if step.stop is not None:
        event["stop"] = step.stop
    if step.top is not None:
        event["top"] = {
            "chosen": step.top.chosen,
            "ids": step.top.ids,
            "logprobs": step.top.logprobs,
            "bytes": [b64(step.top.chosen_bytes), *map(b64, step.top.top_bytes)],
        }
    return _event(event)


def due_event(due: Due) -> bytes:
    """That the provider wants to be paid before it goes on, as an SSE event."""
    return _event({"due": str(due.amount), "prompt": due.prompt})


def bundle_event(bundle: Bundle) -> bytes:
    """The receipt as an SSE event: the last of a stream."""
    return b"data: " + BUNDLE + canonical(bundle.to_json()) + b"}\n\n"


def error_event(error: AssayError) -> bytes:
    """An error as an SSE event."""
    return _event(error_object(error))


def decode_event(data: bytes, index: int) -> Step | Due | Bundle | AssayError:
    """What an event says; `index` is the step that comes next. An error that the provider reports is returned: before
    the first step as what the provider calls it, later as ProviderFailed.

    Raises:
        ProviderFailed: it is none of these, or another step.
    """
    receipt = data.startswith(BUNDLE)
    try:
        if not receipt and len(data) > MAX_EVENT:
            raise EncodingError(f"an event has more than {MAX_EVENT} bytes and is no receipt")
        value = _object(data, "an event")
        if receipt:
            return Bundle.from_json(value["bundle"])
        if "error" in value:
            return _broken_off(value, begun=index > 0)
        if "due" in value:
            amount = decimal(text(value["due"], "due"), what="what is due")
            return Due(amount, natural(value.get("prompt"), "prompt"))
        return _step(value, index)
    except EncodingError as error:
        raise ProviderFailed(f"the provider does not stream as the protocol says ({error.message})", _ADVICE) from error


def decode_error(status: int, body: bytes, retry_after: str) -> AssayError:
    """The error behind an HTTP status other than 200."""
    value: Mapping[str, Json] = {}
    with suppress(EncodingError):
        value = _object(body, "the error")
    message = _message(value)
    said = f"the provider refused: {message}"
    match status:
        case 413:
            error: AssayError = InvalidRequest(said, remedy="send a smaller request")
        case 400:
            error = _refusal(said, value)
        case 402:
            error = PaymentRequired(said, _ADVICE, reason="refused")
        case 404:
            error = ModelNotFound(said, _ADVICE) if "model" in message else NotFound(said, _ADVICE)
        case 429:
            wait = int(retry_after) if retry_after.isascii() and retry_after.isdigit() and len(retry_after) < 5 else 1
            kind = PriceChanged if _code(value) == "price_changed" else Busy
            error = kind(said, retry_after=min(max(wait, 1), 60))
        case _:
            error = ProviderFailed(f"{said} (status {status})", _ADVICE)
    return error


def _broken_off(value: Mapping[str, Json], *, begun: bool) -> AssayError:
    error = value.get("error")
    kind = error.get("type") if isinstance(error, dict) else None
    said = f"the provider broke off: {_message(value)}"
    if kind == Busy.kind and not begun:
        return Busy(said)
    if kind == PaymentRequired.kind and not begun:
        return PaymentRequired(said, _ADVICE, reason="refused")
    if kind == InvalidRequest.kind and not begun:
        return _refusal(said, value)
    return ProviderFailed(said, _ADVICE)


def _refusal(said: str, value: Mapping[str, Json]) -> InvalidRequest:
    """Clients act on an overflow (they shorten the chat), so it stays one."""
    error, numbers = value.get("error"), _OVERFLOW.search(said)
    if numbers and isinstance(error, dict) and error.get("code") == "context_length_exceeded":
        return ContextOverflow(int(numbers[1]), int(numbers[2]))
    return InvalidRequest(said, field=_field(value))


def _event(value: Mapping[str, object]) -> bytes:
    return b"data: " + _JSON.encode(value).encode() + b"\n\n"


def _object(data: bytes, what: str) -> Mapping[str, Json]:
    check_bounds(data, what=what)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise EncodingError(f"{what} is not JSON ({str(error)[:100]})") from error
    if not isinstance(value, dict):
        raise EncodingError(f"{what} is not a JSON object")
    return value


def _message(value: Mapping[str, Json]) -> str:
    error = value.get("error")
    message = error.get("message") if isinstance(error, dict) else None
    return _printable(message[:1000]) if isinstance(message, str) else "no reason given"


def _code(value: Mapping[str, Json]) -> Json:
    error = value.get("error")
    return error.get("code") if isinstance(error, dict) else None


def _field(value: Mapping[str, Json]) -> str:
    error = value.get("error")
    field = error.get("param") if isinstance(error, dict) else None
    return _printable(field[:100]) if isinstance(field, str) else ""


def _printable(text: str) -> str:
    """A stranger's words without lone surrogates, which no output stream takes."""
    return text.encode("utf-8", "replace").decode()


def _step(value: Mapping[str, Json], index: int) -> Step:
    token, shown, stop = natural(value.get("t"), "t"), text(value.get("x"), "x"), value.get("stop")
    if natural(value.get("i"), "i") != index:
        raise EncodingError(f"step {index} was due, and another one came")
    if token >= 2**32 or len(shown) > MAX_TEXT:
        raise EncodingError("a step's token or text is too large")
    if stop is not None and stop not in STEP_STOPS:
        raise EncodingError("a step's stop reason is none of stop, length, failed")
    return Step(index, token, shown, b"", _top(value["top"]) if "top" in value else None, stop)


def _top(value: Json) -> TopLogprobs:
    if not isinstance(value, dict):
        raise EncodingError("top is not an object")
    ids, logprobs, spelled = value.get("ids"), value.get("logprobs"), value.get("bytes")
    if not isinstance(ids, list) or not isinstance(logprobs, list) or not isinstance(spelled, list):
        raise EncodingError("top has the lists ids, logprobs and bytes")
    if not (len(ids) == len(logprobs) <= MAX_TOP and len(spelled) in (1, 1 + len(ids))):
        raise EncodingError(f"top's lists do not fit each other, or have over {MAX_TOP} entries")
    chosen, *others = (unb64(text(item, "bytes"), size=None, what="bytes") for item in spelled)
    return TopLogprobs(
        chosen=_logprob(value.get("chosen")),
        ids=tuple(natural(item, "id") for item in ids),
        logprobs=tuple(_logprob(item) for item in logprobs),
        chosen_bytes=chosen,
        top_bytes=tuple(others),
    )


def _logprob(value: object) -> float:
    # Integers are compared before they become floats: a large one has no float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not value <= 1e30:
        raise EncodingError("a log-probability is not a number")
    return float(max(value, -1e30))
