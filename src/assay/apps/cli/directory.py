"""`assay directory`: a service that keeps providers' records for anybody."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

import typer

from assay.apps.cli.console import JsonFlag
from assay.apps.cli.serve import HostOption, PortOption


def directory(
    host: HostOption = None,
    port: PortOption = None,
    replicate: Annotated[
        list[str] | None,
        typer.Option(help="Address of another directory, whose records are taken over (repeat it for several)."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Keep providers' signed records: they hand them in, gateways read them. It cannot forge, only leave out."""
    from prometheus_client import CollectorRegistry

    from assay.apps.config import load_config
    from assay.apps.directory import directory_app
    from assay.apps.discovering import Discoveries
    from assay.apps.logs import configure_logs
    from assay.apps.metrics import DiscoveryMetrics
    from assay.apps.server import announce, bind, url_of
    from assay.apps.server import serve as run
    from assay.apps.wiring import check_url, override, store_url
    from assay.network.discovery.directory import Directory
    from assay.store.marks import MarkStore

    given = {"host": host, "port": port, "replicate": tuple(replicate) if replicate else None}
    config = override(load_config(), "directory", given)
    settings = config.directory
    for address in settings.replicate:
        check_url(address, "a directory")
    configure_logs(config.log.level, config.log.format)
    with ExitStack() as stack:
        sock = stack.enter_context(bind(settings.host, settings.port))
        metrics = DiscoveryMetrics(CollectorRegistry())
        store = MarkStore(config.database_url or store_url(config, "directory"), most=settings.max_records)
        others = [Directory(address) for address in settings.replicate]
        app = directory_app(
            Discoveries(others, metrics, store, most=settings.max_records),
            metrics,
            puts_per_minute=settings.puts_per_minute,
            gets_per_minute=settings.gets_per_minute,
        )
        run(app, sock, started=lambda: announce("directory", url_of(sock), as_json=as_json))
