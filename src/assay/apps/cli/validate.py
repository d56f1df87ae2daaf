"""`assay validate`: re-check a share of the receipts that a gateway keeps."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import TYPE_CHECKING, Annotated

import typer

from assay.apps.cli.console import JsonFlag, note
from assay.apps.cli.serve import ChainOption, HostOption, ModelOption, PortOption, ThreadsOption
from assay.core.errors import ConfigError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from assay.apps.auditing import Desk
    from assay.apps.config import Config
    from assay.apps.disputes.watch import Disputes
    from assay.apps.reporting import Reporter
    from assay.core.hashing import Digest
    from assay.core.voucher import Terms
    from assay.engines.models import ModelFile


def validate(
    gateway: Annotated[
        str, typer.Option(help="Address of a gateway on another machine; left out: this machine's own database.")
    ] = "",
    audit_token: Annotated[
        str, typer.Option(envvar="ASSAY_AUDIT_TOKEN", help="The gateway's audit token; needed with --gateway.")
    ] = "",
    share: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of the receipts to check, at least: new providers' are checked more."),
    ] = None,
    model: ModelOption = None,
    host: HostOption = None,
    port: PortOption = None,
    threads: ThreadsOption = None,
    interval: Annotated[int | None, typer.Option(min=1, help="Seconds between looks for new receipts.")] = None,
    provider: Annotated[
        list[str] | None,
        typer.Option(help="Address of a provider that serves traces (repeat it for several); others are recomputed."),
    ] = None,
    chain: ChainOption = None,
    dispute: Annotated[
        bool | None,
        typer.Option(
            "--dispute/--no-dispute", help="Dispute receipts that are proven wrong on the chain, for rewards."
        ),
    ] = None,
    report: Annotated[
        bool | None, typer.Option("--report/--no-report", help="Sign verdicts, and show them to whoever asks.")
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
        "interval_seconds": interval, "providers": tuple(provider) if provider else None, "dispute": dispute,
        "report": report,
    }  # fmt: skip
    config = override(override(load_config(), "chain", {"url": chain}), "validator", given)
    settings = config.validator
    configure_logs(config.log.level, config.log.format)
    found = find_model(settings.model)

    from assay.apps.auditing import HttpDesk, StoreDesk
    from assay.apps.checking import open_checker
    from assay.apps.metrics import CheckMetrics
    from assay.apps.server import announce, bind, url_of
    from assay.apps.server import serve as run
    from assay.apps.traces import ProviderTraces
    from assay.apps.validator import Validator, validator_app
    from assay.core.bundle import Bundle
    from assay.core.verdict import Verdict
    from assay.verify.policy import pooled

    reporter = _reporter(settings.key) if settings.report else None

    def told(bundle: Bundle, verdict: Verdict) -> None:
        if reporter is not None:
            reporter.told(bundle, verdict)
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
        metrics = CheckMetrics()
        beside = []
        if settings.dispute:
            disputes = stack.enter_context(_disputing(config, found, desk, metrics.registry, stopped.is_set))
            beside.append(disputes.run)
        validator = Validator(
            desk,
            check,
            share=settings.audit_share,
            pool=lambda verdicts, block: pooled(verdicts, block=block),
            told=told,
            metrics=metrics,
        )
        app = validator_app(
            validator, interval=settings.interval_seconds, stop_check=stopped.set, beside=beside,
            routes=() if reporter is None else [reporter.route()],
        )  # fmt: skip
        run(app, sock, started=lambda: announce("validator", here, as_json=as_json))


def _reporter(name: str) -> Reporter:
    from assay.apps.reporting import Reporter
    from assay.apps.wiring import open_key

    key, made = open_key(name)
    if made:
        note(f"Made the key {name} ({key.address}).")
    return Reporter(key)


@contextmanager
def _disputing(
    config: Config, model: ModelFile, desk: Desk, registry: CollectorRegistry, stopped: Callable[[], bool]
) -> Iterator[Disputes]:
    """What disputes on the chain that is configured."""
    from assay.apps.auditing import StoreDesk
    from assay.apps.disputes.watch import Disputes
    from assay.apps.disputes.workbench import Workbench
    from assay.apps.exact import program_for
    from assay.apps.onchain import dispute_limits, gas_worth, open_channels, open_court
    from assay.apps.traces import ProviderTraces
    from assay.apps.wiring import open_key
    from assay.engines.llama_model import LlamaModel
    from assay.engines.llama_reader import LlamaReader

    settings = config.validator
    key, made = open_key(settings.key)
    if made:
        note(f"Made the key {settings.key} ({key.address}).")
    with ExitStack() as stack:
        limits, court = dispute_limits(config), stack.enter_context(open_court(config, key))
        vocabulary = stack.enter_context(LlamaModel(model.path, vocab_only=True))
        store = stack.enter_context(closing(open_channels(config))) if isinstance(desk, StoreDesk) else None

        def channel(name: Digest) -> Terms | None:
            return next((each.terms for each in store.known() if each.id == name), None) if store else None

        bench = Workbench(
            model.path, model.sha256, program_for(model), LlamaReader(vocabulary), threads=settings.threads or 1,
            stopped=stopped,
        )  # fmt: skip
        yield Disputes(
            desk, court, key, bench, ProviderTraces(settings.providers or config.gateway.providers), limits, registry,
            interval=settings.interval_seconds, gas_worth=gas_worth(config.chain), channel=channel,
        )  # fmt: skip
