"""Whom a provider serves, and how often: consumers by their keys, strangers by the networks that they come from."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from assay.apps.failures import error_response
from assay.core.consumer import HEADER, consumer_of
from assay.core.errors import AssayError, Busy, Forbidden
from assay.core.keys import Address
from assay.core.payment import Payment
from assay.core.reach import network_of

_REMEMBERED: Final = 10_000
"""Those whose requests are counted."""
_OPENAI: Final = "/v1/"
"""Where clients ask that sign nothing."""


class Rates:
    """How often each may ask: so many times a minute, saved up for a minute at most."""

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds that only rise."""
        self._per_minute: Final = per_minute
        self._clock: Final = clock
        self._left: Final[OrderedDict[str, tuple[float, float]]] = OrderedDict()
        """Requests that are left, and when that was."""

    def take(self, who: str) -> None:
        """One request of a key or a network.

        Raises:
            Busy: it has none left.
        """
        now = self._clock()
        left, at = self._left.pop(who, (float(self._per_minute), now))
        left = min(left + (now - at) * self._per_minute / 60, self._per_minute)
        self._left[who] = (max(left - 1, 0.0), now) if left >= 1 else (left, now)
        if len(self._left) > _REMEMBERED:
            self._left.popitem(last=False)
        if left < 1:
            raise Busy(f"{who} has asked too often", retry_after=60 // self._per_minute + 1)


class Door:
    """Lets requests for answers in, or not.

    Anybody makes as many keys as they like, so a key has a count of its own only if it is listed or pays; all others
    share that of the network that they come from.
    """

    def __init__(self, provider: Address, consumers: Collection[Address] = (), per_minute: int = 0) -> None:
        """`consumers`: keys that are served, and nobody else; empty: everybody. `per_minute`: requests; 0: no limit."""
        self._provider: Final = provider
        self._consumers: Final = frozenset(consumers)
        self._rates: Final = Rates(per_minute) if per_minute else None

    def admit(self, request: Request, body: bytes = b"", payment: Payment | None = None) -> None:
        """Check a request for an answer; `body` and `payment` as they came on the native wire.

        Raises:
            Forbidden: its consumer is not served.
            Busy: its consumer has asked too often.
            EncodingError, InvalidSignature: what should be its consumer's signature is none.
        """
        if not self._consumers and self._rates is None:
            return
        header = request.headers.get(HEADER)
        consumer = None if header is None else consumer_of(header, self._provider, body)
        if self._consumers and consumer not in self._consumers:
            who = consumer or "a request that is not signed"
            raise Forbidden(
                f"only some consumers are served here, and {who} is none of them",
                "ask another provider, or have the key of your gateway listed as one of `consumers`",
            )
        if self._rates is not None:
            known = self._consumers or (payment is not None and payment.terms.payer_authorizer == consumer)
            host = "" if request.client is None else request.client.host
            self._rates.take(consumer if consumer and known else network_of(host))

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """The same application, with requests of OpenAI's clients checked."""

        async def checked(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http" and scope["method"] == "POST" and scope["path"].startswith(_OPENAI):
                try:
                    self.admit(Request(scope))
                except AssayError as error:
                    await error_response(error)(scope, receive, send)
                    return
            await app(scope, receive, send)

        return checked
