"""Errors as HTTP responses, in OpenAI's shape."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from assay.apps.logs import logger
from assay.core.errors import AssayError, Busy, EngineError, StoreError
from assay.network.openai.shape import encode, error_object

_CODES: Final = {404: "unknown_path", 405: "method_not_allowed"}


INTERNAL: Final = EngineError("the server failed at this request", "its log says why: please report it")
"""What a client hears of a mistake of ours; the log has the traceback."""


def error_response(error: AssayError, more: Mapping[str, object] | None = None) -> Response:
    """The error with its status, and `more` members beside it; `Busy` says when to come again."""
    headers = {"retry-after": str(error.retry_after)} if isinstance(error, Busy) else {}
    return Response(encode(error_object(error) | dict(more or {})), error.status, headers, "application/json")


def cannot_keep(error: StoreError) -> Busy:
    """What consumers hear: where the database lies and why it failed is the operator's business, and in the log."""
    logger("provider").error("receipts_cannot_be_kept", reason=error.message, remedy=error.remedy)
    return Busy("receipts cannot be kept here now, so nothing is answered", retry_after=30)


async def _assay(_request: Request, error: Exception) -> Response:
    assert isinstance(error, AssayError)
    if isinstance(error, StoreError):  # its words tell where the database lies
        logger("server").error("database_failed", reason=error.message, remedy=error.remedy)
        error = Busy("the database here cannot be used now", retry_after=30)
    return error_response(error)


async def _http(request: Request, error: Exception) -> Response:
    """Unknown paths and methods."""
    assert isinstance(error, HTTPException)
    message = f"{error.detail}: {request.method} {request.url.path[:200]}"
    value = {
        "error": {
            "message": message,
            "type": "invalid_request_error",
            "param": None,
            "code": _CODES.get(error.status_code),
        }
    }
    return Response(encode(value), error.status_code, dict(error.headers or {}), "application/json")


async def _bug(_request: Request, _error: Exception) -> Response:
    return error_response(INTERNAL)


ERROR_HANDLERS: Final[Mapping[type[Exception], Callable[[Request, Exception], Awaitable[Response]]]] = {
    AssayError: _assay,
    HTTPException: _http,
    Exception: _bug,
}
"""For `Starlette(exception_handlers=...)`."""
