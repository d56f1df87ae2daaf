"""Whose window it is: the owner's token, and what other sites in a browser may not do.

The token is a file that only the owner's account reads. Pages keep it in the tab's session storage and send it in a
header, never in a cookie, so that no other site can send it (no CSRF).
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import re
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from assay.apps.failures import error_response
from assay.apps.origin import check_origin
from assay.core.encoding import Json
from assay.core.errors import BodyTooLarge, ConfigError, Forbidden, InvalidRequest

MOST_SAID: Final = 16_384
"""Bytes of what an owner's control sends."""
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_LOCAL: Final = frozenset({"localhost", "localhost."})


class Owner:
    """Knows the token, and admits who has it."""

    def __init__(self, token: str) -> None:
        self.token: Final = token

    @classmethod
    def of(cls, path: Path, write: Callable[[Path, str], None]) -> Owner:
        """The owner whose token is kept at `path`; a new one, written by `write`, if nothing is.

        Raises:
            ConfigError: the file cannot be read or written, or holds something else.
        """
        try:
            text = _read_or_write(path, write)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the token {path} cannot be read ({error})", "delete it: another is made") from error
        if not _TOKEN.fullmatch(text):
            raise ConfigError(f"{path} holds no token", "delete it: another is made")
        return cls(text)

    def address(self, url: str) -> str:
        """Where the owner opens the pages at `url`: what follows the # never leaves the browser."""
        return f"{url}/#owner={self.token}"

    def admit(self, request: Request) -> None:
        """Let the owner pass.

        Raises:
            Forbidden: no token or another one, or a page of another site asks.
        """
        given = request.headers.get("authorization", "").removeprefix("Bearer ").encode("latin-1")
        if not hmac.compare_digest(given, self.token.encode()):
            raise Forbidden(
                "this is the owner's", "open the address that the program printed when it started: it holds the token"
            )
        check_origin(request)

    async def heard(self, request: Request) -> dict[str, Json]:
        """Let the owner change something, and give what the request says: a JSON object, which no form can send.

        Raises:
            Forbidden: see `admit`.
            InvalidRequest: the body is no JSON object, is not called one, or is too large.
        """
        self.admit(request)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise InvalidRequest("only JSON is taken here", remedy="send `Content-Type: application/json`")
        body = await request.body()
        if len(body) > MOST_SAID:
            raise BodyTooLarge(MOST_SAID)
        try:
            value: Json = json.loads(body)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise InvalidRequest("the body is no JSON object", remedy="send one, such as {}")
        return value


def _read_or_write(path: Path, write: Callable[[Path, str], None]) -> str:
    with suppress(FileNotFoundError):
        return path.read_text(encoding="ascii").strip()
    text = secrets.token_urlsafe(32)
    try:
        write(path, text + "\n")
    except ConfigError:
        if not path.exists():
            raise
        return path.read_text(encoding="ascii").strip()  # another program of this home was quicker
    return text


class Hosts:
    """ASGI middleware of a program that listens on loopback: refuses requests for names that are not this machine's, of
    some paths or all.

    A site can make its own name lead to 127.0.0.1 once its page is loaded (DNS rebinding); for a browser, the program
    would then be a part of that site.
    """

    def __init__(self, app: ASGIApp, *, paths: Sequence[str] = ("/",)) -> None:
        """`paths`: how those begin for which that holds. Consumers of a provider reach it under other names, through
        relays."""
        self._app: Final = app
        self._paths: Final = tuple(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve or refuse one request."""
        if scope["type"] == "http" and scope["path"].startswith(self._paths) and not _of_this_machine(scope):
            error = Forbidden("this name is not this machine's", "ask by http://127.0.0.1 or http://localhost")
            await error_response(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _of_this_machine(scope: Scope) -> bool:
    """Whether the name asked for is an address in numbers or localhost; programs that name none are no browsers."""
    names = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
    return all(_is_local(name) for name in names)


def _is_local(host: str) -> bool:
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name.lower() in _LOCAL:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
