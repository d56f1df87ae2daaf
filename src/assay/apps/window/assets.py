"""Files that pages load, kept in memory, compressed, under a path that changes with their content."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from assay.apps.window.texts import LANGUAGES, texts_of

TYPES: Final = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
}
_PLAIN: Final = {"X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin"}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file."""

    kind: str
    data: bytes
    packed: bytes
    """The same by gzip."""


class Assets:
    """All files of the pages: `static/`, `vendor/` and the texts, as they are in the package."""

    def __init__(self) -> None:
        self._known: Final = {name: _asset(name, data) for name, data in _files().items()}
        state = hashlib.sha256()
        for name in sorted(self._known):
            state.update(name.encode() + b"\0" + self._known[name].data + b"\0")
        self._folder: Final = f"/window/files/{state.hexdigest()[:16]}"

    def url(self, name: str) -> str:
        """Where a page finds a file.

        Raises:
            KeyError: there is none of this name.
        """
        if name not in self._known:
            raise KeyError(name)
        return f"{self._folder}/{name}"

    def route(self) -> Route:
        """Serves them. A path with another digest, of a page that was loaded before an update, gives today's file."""
        return Route("/window/files/{digest}/{name:path}", self.serve, methods=["GET"])

    async def serve(self, request: Request) -> Response:
        """One file."""
        asset = self._known.get(request.path_params["name"])
        if asset is None:
            return Response(status_code=404, headers=_PLAIN)
        kept = request.url.path.startswith(self._folder + "/")
        headers = {
            **_PLAIN,
            "Cache-Control": "public, max-age=31536000, immutable" if kept else "no-store",
            "Vary": "Accept-Encoding",
        }
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(asset.packed, media_type=asset.kind, headers={**headers, "Content-Encoding": "gzip"})
        return Response(asset.data, media_type=asset.kind, headers=headers)


def _files() -> Mapping[str, bytes]:
    root = files("assay.apps.window")
    found = {f"texts/{language}.json": json.dumps(texts_of(language)).encode() for language in LANGUAGES}
    for folder in ("static", "static/proof", "vendor"):
        found |= {f"{folder}/{item.name}": item.read_bytes() for item in (root / folder).iterdir() if _served(item)}
    return found


def _served(item: Traversable) -> bool:
    return item.is_file() and item.name.rpartition(".")[2] in {kind[1:] for kind in TYPES} and item.name not in _OURS


_OURS: Final = {"package.json", "package-lock.json", "digests.json"}
"""Of the folder `vendor`, beside what pages load."""


def _asset(name: str, data: bytes) -> Asset:
    return Asset(TYPES["." + name.rpartition(".")[2]], data, gzip.compress(data, mtime=0))
