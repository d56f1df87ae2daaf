"""`assay validate`: re-check a share of the receipts that a gateway keeps."""

from __future__ import annotations

import json
import sys
import threading
from contextlib import ExitStack, suppress
from typing import Annotated

import typer

from assay.apps.cli.console import JsonFlag
from assay.apps.cli.serve import HostOption, ModelOption, PortOption, ThreadsOption
from assay.core.errors import ConfigError


def validate(
    gateway: Annotated[
        str, typer.Option(help="Address of a gateway on another machine; left out: this machine's own database.")
    ] = "",
    audit_token: Annotated[
        str, typer.Option(envvar="ASSAY_AUDIT_TOKEN", help="The gateway's audit token; needed with --gateway.")
    ] = "",
    share: Annotated[float | None, typer.Option(min=0, max=1, help="Share of the receipts to check.")] = None,
    model: ModelOption = None,
    host: HostOption = None,
    port: PortOption = None,
    threads: ThreadsOption = None,
    interval: Annotated[int | None, typer.Option(min=1, help="Seconds between looks for new receipts.")] = None,
    provider: Annotated[
        list[str] | None,
        typer.Option(help="Address of a provider that serves traces (repeat it for several); others are recomputed."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Re-check a random share of a gateway's receipts; who is caught is asked no more. `--json`: one line a verdict."""
    if gateway and not (audit_token and gateway.startswith(("http://", "https://"))):
        raise ConfigError(
            "--gateway needs an address and the gateway's audit token",
            "write --gateway http://HOST:PORT and set ASSAY_AUDIT_TOKEN to the same secret on both sides",
        )
    from assay.apps.config import load_config
    from assay.apps.logs import configure_logs
    from assay.apps.wiring import find_model, open_store, override

    given = {
        "audit_share": share, "model": model, "host": host, "port": port, "threads": threads,
        "interval_seconds": interval, "providers": tuple(provider) if provider else None,
    }  # fmt: skip
    config = override(load_config(), "validator", given)
    settings = config.validator
    configure_logs(config.log.level, config.log.format)
    found = find_model(settings.model)

    from assay.apps.auditing import HttpDesk, StoreDesk
    from assay.apps.checking import open_checker
    from assay.apps.server import announce, bind, url_of
    from assay.apps.server import serve as run
    from assay.apps.traces import ProviderTraces
    from assay.apps.validator import Validator, validator_app
    from assay.core.bundle import Bundle
    from assay.core.verdict import Verdict
    from assay.verify.policy import pooled

    def told(_bundle: Bundle, verdict: Verdict) -> None:
        if as_json:
            with suppress(OSError):  # who reads along may leave; the verdicts are at the gateway
                sys.stdout.write(json.dumps({"verdict": verdict.to_json()}) + "\n")
                sys.stdout.flush()

    with ExitStack() as stack:
        sock = stack.enter_context(bind(settings.host, settings.port))
        here = url_of(sock)
        stopped = threading.Event()
        check = stack.enter_context(
            open_checker(
                found,
                threads=settings.threads,
                stopped=stopped.is_set,
                traces=ProviderTraces(settings.providers or config.gateway.providers),
            )
        )
        desk = HttpDesk(gateway, audit_token) if gateway else StoreDesk(open_store(config, "gateway"))
        validator = Validator(
            desk,
            check,
            share=settings.audit_share,
            pool=lambda verdicts, block: pooled(verdicts, block=block),
            told=told,
        )
        app = validator_app(validator, interval=settings.interval_seconds, stop_check=stopped.set)
        run(app, sock, started=lambda: announce("validator", here, as_json=as_json))
