"""Receipts: checked in the reader's browser, shown with what the program knows of them, and audited for its owner."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from typing import Final

import segno
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from assay.apps.openai_api import call_name
from assay.apps.window.auditing import Audits
from assay.apps.window.shell import Entry, Shell, answer
from assay.apps.window.sources import Sources
from assay.core.bundle import MAX_BUNDLE_BYTES, Bundle
from assay.core.chain import newest
from assay.core.encoding import b64
from assay.core.errors import AssayError, InvalidRequest, NotFound
from assay.core.hashing import Digest
from assay.core.spelling import Spell

ENTRY: Final = Entry("receipt", "/receipt")
MOST_VERDICTS: Final = 16
"""Verdicts on one receipt that are told, the newest."""
MOST_TRACES: Final = 64
"""Requests of one call whose traces are told, the newest."""


class _Wanted(BaseModel):
    """Which receipt is to be audited."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    """The reply's id."""
    receipt: str
    """The receipt's digest in hexadecimal."""


def routes(shell: Shell, sources: Sources) -> list[Route]:
    """`GET /receipt`, `GET /receipt/{name}`, what they ask for, and the owner's audits."""
    page = _Receipts(shell, sources)
    return [
        Route("/receipt", page.page, methods=["GET"]),
        Route("/receipt/{name}", page.page, methods=["GET"]),
        Route("/window/receipt/{name}", page.known, methods=["GET"]),
        Route("/window/receipt/{name}/qr.svg", page.code, methods=["GET"]),
        *(_Desk(sources, sources.audits).routes() if sources.audits else ()),
    ]


class _Receipts:
    """The handlers."""

    def __init__(self, shell: Shell, sources: Sources) -> None:
        self._shell: Final = shell
        self._sources: Final = sources

    async def page(self, request: Request) -> Response:
        return self._shell.render(request, "receipt", name=request.path_params.get("name", ""))

    async def known(self, request: Request) -> Response:
        """What is known here under a name; nothing is no error, since pages ask for receipts of others as well."""
        try:
            name = call_name(request.path_params["name"])
        except NotFound:
            return answer({"receipts": [], "traces": []})
        found = await self._sources.bundles.find(name)
        told = await asyncio.to_thread(_told, found, self._sources)
        traces = await asyncio.to_thread(self._sources.store.traces, name)
        return await asyncio.to_thread(answer, {"receipts": told, "traces": traces[-MOST_TRACES:]})

    async def code(self, request: Request) -> Response:
        """The permanent link of a receipt that is kept here, as a QR code."""
        name = call_name(request.path_params["name"])
        if not await self._sources.bundles.find(name):
            raise NotFound("no receipt has this name", "it is kept once its answer has ended")
        picture = await asyncio.to_thread(_drawn, f"{request.base_url}receipt/{b64(name)}")
        headers = {"Content-Security-Policy": "default-src 'none'", "X-Content-Type-Options": "nosniff"}
        return Response(picture, media_type="image/svg+xml", headers=headers | {"Cache-Control": "no-store"})


def _drawn(link: str) -> bytes:
    picture = io.BytesIO()
    segno.make(link, error="m").save(picture, kind="svg", scale=4, border=4, dark="#000", light="#fff")
    return picture.getvalue()


class _Desk:
    """The owner's audits; each of its handlers lets nobody else pass."""

    def __init__(self, sources: Sources, audits: Audits) -> None:
        self._sources: Final = sources
        self._audits: Final = audits

    def routes(self) -> list[Route]:
        """What changes something is posted or deleted, as JSON."""
        return [
            Route("/window/owner/audits", self.look, methods=["GET"]),
            Route("/window/owner/audits", self.start, methods=["POST"]),
            Route("/window/owner/audits", self.stop, methods=["DELETE"]),
        ]

    async def look(self, request: Request) -> Response:
        self._sources.owner.admit(request)
        return answer(self._audits.look() or {})

    async def start(self, request: Request) -> Response:
        try:
            wanted = _Wanted.model_validate(await self._sources.owner.heard(request))
        except ValidationError as error:
            raise InvalidRequest("which receipt?", remedy="send its `name` and its `receipt`'s digest") from error
        for bundle in await self._sources.bundles.find(call_name(wanted.name)):
            if bundle.receipt.digest.hex() == wanted.receipt:
                return answer(self._audits.start(bundle), 202)
        raise NotFound("no receipt here has this name and digest", "audits are made of receipts that are kept here")

    async def stop(self, request: Request) -> Response:
        if await self._sources.owner.heard(request):
            raise InvalidRequest("nothing is said to stop an audit", remedy="send {}")
        self._audits.stop()
        return answer(self._audits.look() or {})


def _told(found: Sequence[Bundle], sources: Sources) -> list[dict[str, object]]:
    """Bundles with their text, verdicts and vouchers, as long as all together are no larger than one may be.

    `shown`: it is one that `/receipts/{name}` gives.
    """
    shown = newest(found)
    told: list[dict[str, object]] = []
    left = MAX_BUNDLE_BYTES
    for bundle in [*shown, *(each for each in found if each not in shown)]:
        file = bundle.encode()
        left -= len(file)
        if left < 0:
            break
        digest = bundle.receipt.digest
        told.append(
            {
                "digest": digest.hex(),
                "shown": bundle in shown,
                "file": file.decode(),
                "text": _text(bundle, sources.spell),
                "verdicts": sources.store.verdicts_on(digest)[-MOST_VERDICTS:],
                "voucher": _voucher(digest, sources),
            }
        )
    return told


def _text(bundle: Bundle, spell: Spell | None) -> str | None:
    """What the answer says up to this part's end; None where its vocabulary is not here, or lacks its tokens."""
    if spell is None:
        return None
    request = bundle.request
    try:
        texts = spell(bundle.receipt.model, (*request.continues, *bundle.tokens), request.stop)
    except AssayError:
        return None
    return None if texts is None else texts[1]


def _voucher(digest: Digest, sources: Sources) -> str | None:
    """Wei, in decimal: it may pass 2^53."""
    amount = sources.wallet and sources.wallet.voucher_for(digest)
    return None if amount is None else str(amount)
