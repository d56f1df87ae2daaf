"""A playground for doubt: the owner chooses a cheat, a real provider plays it, and the check catches it. Or not."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from assay.apps.cheats import CHEATS
from assay.apps.doubting import MOST_QUESTION, Doubts, Trial
from assay.apps.window.shell import Entry, Shell, answer
from assay.apps.window.sources import Sources
from assay.core.errors import InvalidRequest, NotFound

ENTRY: Final = Entry("doubt", "/doubt")


@dataclass(frozen=True, slots=True)
class _Asked:
    cheat: str
    question: str


_ASKED: Final = TypeAdapter(_Asked)


def routes(shell: Shell, sources: Sources) -> list[Route]:
    """The page, and the owner's trial: `GET`, `POST` and `DELETE /window/doubt`."""

    def doubts() -> Doubts:
        if sources.doubts is None:
            raise NotFound("this program tries no cheats", "start it with `assay up` or `assay gateway`")
        return sources.doubts

    async def page(request: Request) -> Response:
        return shell.render(request, "doubt", most=MOST_QUESTION)

    async def state(request: Request) -> Response:
        sources.owner.admit(request)
        return _state(doubts())

    async def begin(request: Request) -> Response:
        try:
            asked = _ASKED.validate_python(await sources.owner.heard(request))
        except ValidationError as error:
            raise InvalidRequest("the body is no trial", remedy="send `cheat` and `question`, both strings") from error
        await doubts().begin(asked.cheat, asked.question)
        return _state(doubts(), status=202)

    async def end(request: Request) -> Response:
        await sources.owner.heard(request)
        await doubts().end()
        return _state(doubts())

    return [
        Route("/doubt", page, methods=["GET"]),
        Route("/window/doubt", state, methods=["GET"]),
        Route("/window/doubt", begin, methods=["POST"]),
        Route("/window/doubt", end, methods=["DELETE"]),
    ]


def _state(doubts: Doubts, *, status: int = 200) -> Response:
    cheats = [
        {"name": each.name, "does": each.does, "caught_by": each.caught_by, "engine": _engine(each.engines)}
        for each in CHEATS.values()
    ]
    trial = None if doubts.trial is None else _trial(doubts.trial)
    return answer({"cheats": cheats, "trial": trial}, status)


def _engine(engines: tuple[str, ...]) -> str:
    return "llama.cpp" if "llama.cpp" in engines else "exact"


def _trial(trial: Trial) -> dict[str, object]:
    return {
        "cheat": trial.cheat.name,
        "does": trial.cheat.does,
        "engine": trial.engine,
        "model": trial.model,
        "question": trial.question,
        "stage": trial.stage,
        "ending": trial.ending,
        "replies": [asdict(each) for each in trial.replies],
        "trouble": trial.trouble,
    }
