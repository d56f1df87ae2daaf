"""`assay disputes`: what the court has before it."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from assay.apps.cli.console import JsonFlag, out, plain, print_json
from assay.apps.cli.serve import ChainOption


def disputes(
    days: Annotated[int, typer.Option(min=1, max=365, help="How far back those are shown that have ended.")] = 7,
    address: Annotated[str, typer.Option(help="Only those in which this address is a side.")] = "",
    chain: ChainOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List disputes on the chain: who against whom, whose move it is, and until when; or how they ended."""
    from assay.apps.config import load_config
    from assay.apps.onchain import open_court
    from assay.apps.wiring import override
    from assay.chain.docket import overview

    config = override(load_config(), "chain", {"url": chain})
    with open_court(config) as court:
        found = [
            each
            for each in overview(court, days * 86_400)
            if not address or address.lower() in (each["provider"], each["challenger"])
        ]
    if as_json:
        print_json({"disputes": found})
        return
    table = Table(box=None, pad_edge=False)
    names = ("id", "kind", "state", "turn", "moves", "deadline", "provider", "challenger", "receipt")
    for name in names:
        table.add_column(name, overflow="fold")
    for each in found:
        short = {**each, "receipt": str(each["receipt"])[:12]}
        table.add_row(*(plain(str(short[name])) for name in names))
    out.print(table)
