"""`assay devnet`: a chain for development."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path
from typing import Annotated

import typer

from assay.apps.cli.console import JsonFlag, note

_HOST, _PORT = "127.0.0.1", 8545


def devnet(
    host: Annotated[str, typer.Option(help="Address to listen on; keep it to this machine.")] = _HOST,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = _PORT,
    fund: Annotated[
        list[str] | None, typer.Option(help="Give this address ether and test tokens (repeat it for several).")
    ] = None,
    log: Annotated[
        Path | None, typer.Option(help="File of its transactions; left out: devnet.sqlite3 in the data folder.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run a chain with Assay's contracts on it, for tests and demonstrations. It survives restarts and kill -9."""
    import time
    from dataclasses import asdict

    from assay.apps.config import load_config
    from assay.apps.devnet import devnet_app
    from assay.apps.logs import configure_logs
    from assay.apps.server import announce, bind, url_of
    from assay.apps.server import serve as run
    from assay.chain.devnet import Devnet

    config = load_config()
    configure_logs(config.log.level, config.log.format)
    path = log or config.data / "devnet.sqlite3"
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        sock = stack.enter_context(bind(host, port))
        chain = stack.enter_context(closing(Devnet(path, clock=time.time)))
        for address in fund or ():
            chain.fund(address)
            note(f"{address} has ether and tokens")
        here, facts = url_of(sock), asdict(chain.contracts)
        run(devnet_app(chain), sock, started=lambda: announce("devnet", here, as_json=as_json, **facts))
