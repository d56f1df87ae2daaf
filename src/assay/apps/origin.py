"""Whose page asks, where a browser does."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request

from assay.core.errors import Forbidden

_OURS: Final = ("same-origin", "none")
"""`Sec-Fetch-Site` of a page of this program, and of what a person types or a program other than a browser sends."""


def check_origin(request: Request) -> None:
    """Refuse what a page of another site asks: it could make this program answer, and pay, for whoever looks at it.

    Browsers send posts of some types across origins without asking first, and say in `Sec-Fetch-Site` (Fetch Metadata)
    and `Origin` (Fetch, section 3.2) whose page it is; other programs send neither.

    Raises:
        Forbidden: it is another site's.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    foreign = origin is not None and urlsplit(origin).netloc != request.headers.get("host")
    if foreign or (site is not None and site not in _OURS):
        raise Forbidden("a page of another site asks", "open the window's own address")
