"""What all pages share: their frame, their language, and what browsers may do with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from assay.apps.window.assets import Assets
from assay.apps.window.texts import LANGUAGES, NAMES, RIGHT_TO_LEFT, preferred, said
from assay.network.openai.shape import encode

Kind: TypeAlias = Literal["node", "gateway", "provider"]
"""What serves the pages: `assay up`, `assay gateway`, or `assay serve`."""
LANGUAGE_COOKIE: Final = "assay-language"
SECURITY: Final = {
    # No inline script or style, nothing from elsewhere, no frames; markup reaches a page through DOMPurify only.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types dompurify"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A page in the list at the top: its address; its name is the text `shell.PAGE`."""

    page: str
    path: str


def answer(value: Mapping[str, object], status: int = 200) -> Response:
    """What a page's script asks for, as JSON that nobody keeps."""
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response(encode(value), status, headers, "application/json")


class Shell:
    """Renders pages; the template of a page is `templates/PAGE.html`, its script `static/PAGE.js`."""

    def __init__(self, kind: Kind, entries: Sequence[Entry]) -> None:
        """`entries`: the pages that there are, in the order of the list."""
        self._kind: Final = kind
        self._entries: Final = tuple(entries)
        self._assets: Final = Assets()
        self._templates: Final = Environment(
            loader=PackageLoader("assay.apps.window"),
            autoescape=select_autoescape(default=True),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def routes(self) -> list[Route]:
        """The files that pages load."""
        return [self._assets.route()]

    def render(self, request: Request, page: str, *, status: int = 200, **values: object) -> Response:
        """A page in the reader's language; `values` are those of its template."""
        asked = request.query_params.get("lang", "")
        language = preferred(
            asked, request.cookies.get(LANGUAGE_COOKIE, ""), request.headers.get("accept-language", "")
        )

        def t(key: str, **given: object) -> str:
            return said(language, key, **given)

        html = self._templates.get_template(f"{page}.html").render(
            t=t,
            file=self._assets.url,
            page=page,
            kind=self._kind,
            entries=self._entries,
            language=language,
            direction="rtl" if language in RIGHT_TO_LEFT else "ltr",
            languages=[(each, NAMES[each]) for each in LANGUAGES],
            **values,
        )
        response = HTMLResponse(html, status_code=status, headers=SECURITY)
        if asked == language:
            response.set_cookie(LANGUAGE_COOKIE, language, max_age=31_536_000, samesite="strict", httponly=True)
        return response
