"""`assay gateway`: the consumer's OpenAI endpoint over many providers."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Annotated

import typer

from assay.apps.cli.console import JsonFlag, note, window_at
from assay.apps.cli.serve import ChainOption, HostOption, PortOption
from assay.core.errors import ConfigError


def gateway(
    provider: Annotated[
        list[str] | None,
        typer.Option(help="Address of a provider, http://HOST:PORT (repeat it for several); left out: those found."),
    ] = None,
    host: HostOption = None,
    port: PortOption = None,
    audit_token: Annotated[
        str,
        typer.Option(envvar="ASSAY_AUDIT_TOKEN", help="Lets validators elsewhere look at receipts."),
    ] = "",
    chain: ChainOption = None,
    budget: Annotated[int | None, typer.Option(min=0, help="Wei that may be spent in all.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Answer OpenAI clients by asking providers, and check and keep every receipt."""
    from assay.apps.config import load_config
    from assay.apps.logs import configure_logs, logger
    from assay.apps.wiring import (
        check_url,
        known_models,
        open_key,
        open_speller,
        open_store,
        override,
        store_url,
        tool_reader,
        ways_of,
    )

    given = {
        "providers": tuple(provider) if provider else None, "host": host, "port": port, "budget_wei": budget
    }  # fmt: skip
    config = override(override(load_config(), "chain", {"url": chain}), "gateway", given)
    settings = config.gateway
    for address in (*settings.providers, *config.network.peers, *config.network.directories, *settings.reports):
        check_url(address, "a provider")
    recent = configure_logs(config.log.level, config.log.format)

    from assay.apps.config import home
    from assay.apps.discovering import Discoveries, registry_folder, sources_of, uses_lan
    from assay.apps.doubting import Doubts
    from assay.apps.gateway import gateway_app
    from assay.apps.metrics import DiscoveryMetrics, Metrics
    from assay.apps.server import announce, bind, url_of
    from assay.apps.server import serve as run
    from assay.apps.window.courtroom import courtroom_of
    from assay.apps.window.sources import Upkeep
    from assay.apps.window.window import open_window
    from assay.core.offer import Defaults, Price
    from assay.journey import MarketAnswers
    from assay.network.discovery.book import MOST
    from assay.network.http import HttpTransport, Patience
    from assay.network.openai.accept import NO_CEILING
    from assay.store.marks import MarkStore

    log = logger("gateway")

    def tell(event: str, facts: Mapping[str, object]) -> None:
        log.info(event, **facts)

    ceilings = settings.max_prompt_price_wei, settings.max_output_price_wei
    with ExitStack() as stack:
        sock = stack.enter_context(bind(settings.host, settings.port))
        here = url_of(sock)
        store = open_store(config, "gateway")
        metrics, discoveries = Metrics(), None
        if settings.discover or (settings.discover is None and not settings.providers):
            counts = DiscoveryMetrics(metrics.registry)
            sources = sources_of(
                config.network,
                registry_folder(home()),
                lan=uses_lan(config.network, settings.host),
                dropped=counts.notices_dropped.inc,
            )
            marks = MarkStore(config.database_url or store_url(config, "gateway"), most=MOST)
            discoveries = Discoveries(sources, counts, marks)
        payer, _ = open_key(settings.key)
        window = open_window(home(), sock, Upkeep(home(), payer.address, settings.model_dump(mode="json"), recent))
        ways = ways_of(config.network)
        transport = HttpTransport(
            settings.providers,
            patience=Patience(silence=settings.timeout_seconds),
            book=None if discoveries is None else discoveries.book,
            ways=ways,
            iroh="n0" if config.network.iroh == "n0" else "direct",
            key=payer,
        )
        wallet = standing = reports = None
        if settings.reports:
            from assay.apps.reporting import Reports
            from assay.store.reports import ReportStore

            reports = Reports(settings.reports, ReportStore(config.database_url or store_url(config, "gateway")))
        if config.chain.url:
            from assay.apps.onchain import open_wallet
            from assay.apps.standing import open_standing

            others = tuple if reports is None else reports.reporters
            standing = stack.enter_context(open_standing(config, transport.offers, others))
            wallet = stack.enter_context(open_wallet(config, payer, transport, tell))
        if reports is not None and standing is None:
            raise ConfigError("reports count by stakes, and no court is known", "name it: see [chain] court")
        market = MarketAnswers(
            transport,
            store,
            known=known_models(),
            spell=stack.enter_context(open_speller()),
            defaults=Defaults(
                max_price=None
                if ceilings == (None, None)
                else Price(*(NO_CEILING if part is None else part for part in ceilings)),
                region=settings.region,
                min_stake=settings.min_stake_wei,
                ignore=settings.ignore,
                hedge=settings.hedge,
            ),
            payer=wallet,
            log=tell,
        )
        app = gateway_app(
            market,
            store,
            read_tools=tool_reader(),
            audit_token=audit_token,
            max_body=settings.max_body_bytes,
            parallel=settings.parallel,
            wallet=wallet,
            close=transport.aclose,
            metrics=metrics,
            discoveries=discoveries,
            standing=standing,
            reports=reports,
            window=window,
            court=courtroom_of(config, stack),
            doubts=Doubts(),
            ways=ways,
        )

        def started() -> None:
            announce("gateway", here, as_json=as_json)
            if not as_json:
                note(f"The window, in a browser: {window_at(window.address(here), here)}")

        run(app, sock, drain=market.drain, started=started)
