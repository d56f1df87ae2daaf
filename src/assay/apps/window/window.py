"""All pages together, as routes of the program that serves them."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path
from typing import Final

from starlette.middleware import Middleware
from starlette.responses import RedirectResponse
from starlette.routing import Route

from assay.apps.keyfile import write_private
from assay.apps.window import chat, court, doubt, network, node, receipt
from assay.apps.window.owner import Hosts, Owner
from assay.apps.window.shell import Kind, Shell
from assay.apps.window.sources import Sources, Upkeep

PAGES: Final = (chat, receipt, network, court, doubt, node)
"""In the order of the list at the top; each has an ENTRY, and `routes(shell, sources)`."""
PROVIDER_PAGES: Final = (node, receipt, court)
"""Of who sells: what others asked is theirs, so there is no list of receipts."""


class Window:
    """For `provider_app` and `gateway_app`."""

    def __init__(self, owner: Owner, *, loopback: bool, upkeep: Upkeep | None = None, kind: Kind = "node") -> None:
        """`loopback`: the program listens there only. `upkeep`: what the owner looks after. `kind`: a provider's."""
        self.owner: Final = owner
        self.kind: Final = kind
        self.upkeep: Final = upkeep
        self._loopback: Final = loopback

    def routes(self, sources: Sources) -> list[Route]:
        """Of pages, what they ask for, and the files that they load."""
        pages = PROVIDER_PAGES if sources.kind == "provider" else PAGES
        shell = Shell(sources.kind, [page.ENTRY for page in pages])
        found = [*shell.routes(), *(route for page in pages for route in page.routes(shell, sources))]
        if all(route.path != "/" for route in found):
            found.append(Route("/", RedirectResponse(pages[0].ENTRY.path)))
        return found

    def middleware(self) -> list[Middleware]:
        """What stands before the whole application."""
        if not self._loopback:
            return []
        if self.kind != "provider":
            return [Middleware(Hosts)]
        return [Middleware(Hosts, paths=["/window/", *(page.ENTRY.path for page in PROVIDER_PAGES)])]

    def address(self, url: str) -> str:
        """Where the owner opens it."""
        return self.owner.address(url)


def open_window(home: Path, sock: socket.socket, upkeep: Upkeep | None = None, kind: Kind = "node") -> Window:
    """The window of a program that listens on `sock`; its owner is who reads files under `home`.

    Raises:
        ConfigError: the owner's token cannot be kept.
    """
    owner = Owner.of(token_path(home), lambda path, text: write_private(path, text, force=False))
    return Window(owner, loopback=ipaddress.ip_address(sock.getsockname()[0]).is_loopback, upkeep=upkeep, kind=kind)


def token_path(home: Path) -> Path:
    """Where the owner's token is kept under ASSAY_HOME."""
    return home / "window-token"
