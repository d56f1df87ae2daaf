"""`assay channels`: what a gateway has deposited, and how to take it back."""

from __future__ import annotations

from contextlib import closing, suppress
from typing import Annotated

import typer
from rich.table import Table

from assay.apps.cli.console import JsonFlag, note, out, plain, print_json
from assay.apps.cli.serve import ChainOption
from assay.core.errors import NotFound, StoreError

app = typer.Typer(help="A gateway's payment channels: list them, take money back.", no_args_is_help=True)


@app.command("list", epilog="Example: [bold]assay channels list --json[/bold]")
def list_channels(as_json: JsonFlag = False) -> None:
    """Show every channel: what was deposited, earned by the provider, signed, and is left; in wei."""
    from assay.apps.config import load_config
    from assay.apps.funding import shown
    from assay.apps.onchain import open_channels

    with closing(open_channels(load_config())) as store:
        found = [shown(channel) for channel in store.known()]
    if as_json:
        print_json({"channels": found})
        return
    table = Table(box=None, pad_edge=False)
    names = ("channel", "provider", "state", "deposited", "earned", "signed", "left")
    for name in names:
        table.add_column(name, overflow="fold")
    for channel in found:
        short = {**channel, "channel": str(channel["channel"])[:12]}
        table.add_row(*(plain(str(short[name])) for name in names))
    out.print(table)


@app.command("close", epilog="Example: [bold]assay channels close all --chain http://127.0.0.1:8545[/bold]")
def close_channels(
    name: Annotated[str, typer.Argument(help="A channel's id (or 8 digits of its beginning), a provider, or `all`.")],
    chain: ChainOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Take back what was not spent, in two steps: between them the provider has the channel's delay to claim. A gateway
    that runs does both; without one call this again when the delay is over."""
    import asyncio

    from assay.apps.config import load_config
    from assay.apps.funding import is_named, shown
    from assay.apps.onchain import open_channels, open_funding
    from assay.apps.wiring import open_key, override

    config = override(load_config(), "chain", {"url": chain})
    with closing(open_channels(config)) as store:
        named = [each for each in store.known() if name == "all" or is_named(each, name)]
        if not named:
            raise NotFound(f"no channel is called {name!r}", "see `assay channels list`")
        for channel in named:
            store.closing(channel.id, "closed by hand")
        if config.chain.url:
            with suppress(StoreError):  # a gateway runs: it does the rest
                key, _ = open_key(config.gateway.key)
                with open_funding(config, key, lambda event, facts: note(f"{event}: {facts}")) as (funding, own):
                    asyncio.run(funding.withdraw_all())
                    own.close()
        ids = {channel.id for channel in named}
        found = [shown(channel) for channel in store.known() if channel.id in ids]
    if as_json:
        print_json({"channels": found})
        return
    for channel in found:
        out.print(plain(f"{str(channel['channel'])[:12]} with {channel['provider']}: {channel['state']}"))
