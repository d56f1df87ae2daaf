"""The node: what a program's owner sees and does without a terminal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import assay
from assay.apps.calculator import Question, calculate
from assay.apps.config import load_config
from assay.apps.doctor import all_checks
from assay.apps.funding import shown as shown_channel
from assay.apps.selling import Selling
from assay.apps.wallet import Wallet
from assay.apps.window.checkup import Checkup
from assay.apps.window.shelf import Shelf, shown
from assay.apps.window.shell import Entry, Shell, answer
from assay.apps.window.sources import Sources, Upkeep
from assay.core.errors import AssayError, EncodingError, InvalidRequest, NotFound
from assay.core.hashing import Digest
from assay.core.offer import Offer

ENTRY: Final = Entry("node", "/node")
MOST_CHANNELS: Final = 100
"""That the page lists, the latest of them."""
MOST_OFFERS: Final = 50
_T = TypeVar("_T")


class _Said(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Nothing(_Said):
    pass


class _Model(_Said):
    name: str = Field(min_length=1, max_length=64)


_NOTHING, _MODEL, _QUESTION = TypeAdapter(_Nothing), TypeAdapter(_Model), TypeAdapter(Question)
"""What is said to a control."""


def routes(shell: Shell, sources: Sources) -> list[Route]:
    """`GET /node`, and what its script asks for and does under `/window/owner/`."""

    async def node(request: Request) -> Response:
        return shell.render(request, "node", question=asdict(Question(price=1_000_000)))

    page = Route("/node", node, methods=["GET"])
    return [page, *(_Desk(sources, sources.upkeep).routes() if sources.upkeep else ())]


class _Desk:
    """The owner's; each of its handlers lets nobody else pass."""

    def __init__(self, sources: Sources, upkeep: Upkeep) -> None:
        self._sources: Final = sources
        self._upkeep: Final = upkeep
        self._shelf: Final = Shelf(upkeep.home)
        self._checkup: Final = Checkup(
            # Not the ports: this program holds one of them.
            lambda: [check for check in all_checks(upkeep.home, load_config()) if check[0] != "ports"]
        )
        self._since: Final = time.time()

    def routes(self) -> list[Route]:
        """What changes something is posted or deleted, as JSON."""
        return [
            Route("/window/owner/node", self.overview, methods=["GET"]),
            Route("/window/owner/models", self.models, methods=["GET"]),
            Route("/window/owner/models", self.fetch, methods=["POST"]),
            Route("/window/owner/fetching", self.cancel, methods=["DELETE"]),
            Route("/window/owner/models/{name}", self.remove, methods=["DELETE"]),
            Route("/window/owner/log", self.log, methods=["GET"]),
            Route("/window/owner/doctor", self.findings, methods=["GET"]),
            Route("/window/owner/doctor", self.look, methods=["POST"]),
            Route("/window/owner/economics", self.economics, methods=["POST"]),
            Route("/window/owner/sale", self.sell, methods=["POST"]),
            Route("/window/owner/sale", self.sell_as_configured, methods=["DELETE"]),
        ]

    async def overview(self, request: Request) -> Response:
        """What runs, how busy it is, and its money."""
        self._sources.owner.admit(request)
        load, pace, wallet = self._sources.load, self._sources.pace, self._sources.wallet
        earnings, selling = self._sources.earnings, self._sources.selling
        offers, problem = await self._offers()
        return answer(
            {
                "program": self._sources.kind,
                "version": assay.__version__,
                "address": self._upkeep.address,
                "since": self._since,
                "offers": [
                    {
                        "model": each.model,
                        "level": each.level,
                        "context": each.context,
                        "prompt_wei": str(each.price.prompt),
                        "output_wei": str(each.price.output),
                        "provider": each.provider,
                    }
                    for each in offers[:MOST_OFFERS]
                ],
                "offers_in_all": len(offers),
                "offers_problem": problem,
                "load": asdict(load()) if load else None,
                "places": self._sources.local.parallel if self._sources.local else None,
                "pace": pace() if pace else None,
                "money": await asyncio.to_thread(_money, wallet) if wallet else None,
                "earnings": await asyncio.to_thread(earnings) if earnings else None,
                "sale": _shown(selling) if selling else None,
                "settings": self._upkeep.settings,
            }
        )

    async def models(self, request: Request) -> Response:
        """What is on the disk, and what is being fetched."""
        self._sources.owner.admit(request)
        return await self._shelves()

    async def fetch(self, request: Request) -> Response:
        """Begin to fetch a model of the catalogue."""
        self._shelf.start(_checked(_MODEL, await self._sources.owner.heard(request)).name)
        return await self._shelves()

    async def cancel(self, request: Request) -> Response:
        """Stop fetching, or put away what became of it."""
        _checked(_NOTHING, await self._sources.owner.heard(request))
        self._shelf.cancel()
        return await self._shelves()

    async def remove(self, request: Request) -> Response:
        """Delete a model, or forget an added file."""
        _checked(_NOTHING, await self._sources.owner.heard(request))
        await asyncio.to_thread(self._shelf.remove, request.path_params["name"], await self._running())
        return await self._shelves()

    async def log(self, request: Request) -> Response:
        """The lines after the one of a number."""
        self._sources.owner.admit(request)
        given = request.query_params.get("after", "0")
        if not (given.isascii() and given.isdigit() and len(given) < 16):
            raise InvalidRequest("`after` is no number", field="after", remedy="send a number from 0")
        return answer({"lines": [asdict(line) for line in self._upkeep.recent.after(int(given))]})

    async def findings(self, request: Request) -> Response:
        """What the last look found, as far as it is."""
        self._sources.owner.admit(request)
        return answer(self._checkup.shown())

    async def look(self, request: Request) -> Response:
        """Look now."""
        _checked(_NOTHING, await self._sources.owner.heard(request))
        self._checkup.start()
        return answer(self._checkup.shown())

    async def economics(self, request: Request) -> Response:
        """Compute; nothing is changed."""
        question = _checked(_QUESTION, await self._sources.owner.heard(request))
        return answer(await asyncio.to_thread(calculate, question))

    async def sell(self, request: Request) -> Response:
        """Change what is sold: prices, places or hours, or several of them."""
        said, selling = await self._sources.owner.heard(request), self._selling()
        try:
            await selling.change(said)
        except EncodingError as error:
            raise InvalidRequest(error.message, remedy="correct it") from error
        return answer(_shown(selling))

    async def sell_as_configured(self, request: Request) -> Response:
        """Forget what was changed here."""
        _checked(_NOTHING, await self._sources.owner.heard(request))
        selling = self._selling()
        await selling.reset()
        return answer(_shown(selling))

    def _selling(self) -> Selling:
        if self._sources.selling is None:
            raise NotFound("this program answers with no model of its own", "look at a node or a provider")
        return self._sources.selling

    async def _offers(self) -> tuple[Sequence[Offer], str]:
        """What can be asked for, and why nothing can: a gateway's owner looks here just when nobody answers it."""
        try:
            return await self._sources.answers.models(), ""
        except AssayError as error:
            return (), str(error)

    async def _shelves(self) -> Response:
        listed = await asyncio.to_thread(self._shelf.listed, await self._running())
        return answer({**listed, "fetching": shown(self._shelf.fetching)})

    async def _running(self) -> Collection[Digest]:
        """Of the models that this machine answers with; a gateway's are elsewhere."""
        local = self._sources.local
        return {each.model_digest for each in local.engines.values()} if local else ()


def _money(wallet: Wallet) -> Mapping[str, object]:
    channels = wallet.channels()
    return {
        "budget_wei": str(wallet.budget.total),
        "bound_wei": str(sum(each.bound for each in channels)),
        **{f"{kind}_wei": str(wei) for kind, wei in wallet.sums().items()},
        "channels": [shown_channel(each) for each in channels[-MOST_CHANNELS:]],
        "channels_in_all": len(channels),
    }


def _shown(selling: Selling) -> Mapping[str, object]:
    return {**selling.now.to_json(), "kept": selling.kept, "clock": time.strftime("%H:%M %Z")}


def _checked(kind: TypeAdapter[_T], said: Mapping[str, object]) -> _T:
    """What was said, as a value.

    Raises:
        InvalidRequest: a member is missing, unknown or wrong; it is named.
    """
    try:
        return kind.validate_python(said)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))[:80] or "body"
        raise InvalidRequest(f"`{field}`: {first['msg']}", field=field, remedy="correct it") from error
