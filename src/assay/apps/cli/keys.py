"""`assay keys`: the key that signs a provider's receipts."""

from __future__ import annotations

from typing import Annotated

import typer

from assay.apps.cli.console import JsonFlag, note, out, print_json
from assay.apps.keyfile import key_path, load_key, new_key

app = typer.Typer(no_args_is_help=True, help="Make and show the key that signs receipts.")

Name = Annotated[str, typer.Argument(help="The key's name under ASSAY_HOME/keys.")]


@app.command(epilog="Example: [bold]assay keys new[/bold]")
def new(
    name: Name = "provider",
    force: Annotated[bool, typer.Option("--force", help="Replace the key of that name, which is then lost.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Make a key in a private file and print its address."""
    from assay.apps.config import home

    path = key_path(home(), name)
    _show(new_key(path, force=force).address, str(path), as_json)
    if not as_json:
        note("Keep a copy of that file in a safe place: it is the only way to sign as this address.")


@app.command(epilog="Example: [bold]assay keys show --json[/bold]")
def show(name: Name = "provider", as_json: JsonFlag = False) -> None:
    """Print a key's address (never the secret)."""
    from assay.apps.config import home

    path = key_path(home(), name)
    _show(load_key(path).address, str(path), as_json)


def _show(address: str, path: str, as_json: bool) -> None:
    if as_json:
        print_json({"address": address, "path": path})
    else:
        out.print(f"{address}  [dim]{path}[/dim]", soft_wrap=True)
