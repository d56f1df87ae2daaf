"""`assay window`: where the owner opens the pages of a program that runs."""

from __future__ import annotations

from pathlib import Path

from assay.apps.cli.console import JsonFlag, out, print_json
from assay.apps.cli.talk import UrlOption, default_url
from assay.core.errors import NotFound


def window(url: UrlOption = "", as_json: JsonFlag = False) -> None:
    """Print the address at which the owner of a running node, provider or gateway opens its pages in a browser."""
    from assay.apps.client import Client
    from assay.apps.config import home
    from assay.apps.window.owner import Owner
    from assay.apps.window.window import token_path

    with Client(url or default_url(), verify=False) as client:  # nothing is sent that is to be kept
        owner = Owner.of(token_path(home()), _none)
        if not client.has_window():  # the token is not sent to find out: something else could listen there
            raise NotFound(f"{client.url} has no pages", "name a node (`assay up`), a provider or a gateway with --url")
        address = owner.address(client.url)
    if as_json:
        print_json({"url": client.url, "window": address})
    else:
        out.print(address, markup=False, soft_wrap=True)


def _none(path: Path, _text: str) -> None:
    raise NotFound(f"there is no owner's token at {path}", "start `assay up`, `serve` or `gateway` here: they make it")
