"""The chat: the page that a newcomer sees first. It talks to the OpenAI surface beside it, as any client does."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from assay.apps.window.shell import Entry, Shell
from assay.apps.window.sources import Sources

ENTRY: Final = Entry("chat", "/")


def routes(shell: Shell, sources: Sources) -> list[Route]:
    """`GET /`."""
    del sources

    async def chat(request: Request) -> Response:
        return shell.render(request, "chat")

    return [Route("/", chat, methods=["GET"])]
