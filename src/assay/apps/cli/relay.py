"""`assay relay`: a service through which providers are reached that take no connections."""

from __future__ import annotations

from typing import Annotated

import typer

from assay.apps.cli.console import JsonFlag
from assay.apps.cli.serve import HostOption, PortOption


def relay(
    host: HostOption = None,
    port: PortOption = None,
    certificate: Annotated[
        str | None, typer.Option(help="PEM file of a certificate and its key: be reached as wss://.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Pass connections on to providers behind routers: they wait here, and nothing that passes can be read."""
    from prometheus_client import CollectorRegistry

    from assay.apps.config import load_config
    from assay.apps.logs import configure_logs
    from assay.apps.metrics import RelayMetrics
    from assay.apps.relay import Relay, run_relay
    from assay.apps.server import announce, bind, url_of
    from assay.apps.wiring import override

    given = {"host": host, "port": port, "certificate": certificate}
    config = override(load_config(), "relay", given)
    settings = config.relay
    configure_logs(config.log.level, config.log.format)
    with bind(settings.host, settings.port) as sock:
        url = url_of(sock, tls=bool(settings.certificate)).replace("http", "ws", 1)
        service = Relay(settings, RelayMetrics(CollectorRegistry()))
        run_relay(service, sock, settings.certificate, started=lambda: announce("relay", url, as_json=as_json))
