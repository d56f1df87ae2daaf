"""`assay serve`: a provider."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from assay.apps.cli.console import JsonFlag, note, window_at
from assay.core.errors import ConfigError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from assay.apps.config import Chain
    from assay.chain.client import ChainClient
    from assay.core.ports import Engine
    from assay.engines.models import ModelFile
    from assay.store.receipts import ReceiptStore

_DEVELOPERS = "For developers: test kit of dishonest providers"
HostOption = Annotated[str | None, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")]
PortOption = Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")]
ModelOption = Annotated[str | None, typer.Option(help="Name of a model, or a GGUF file.")]
ThreadsOption = Annotated[int | None, typer.Option(min=0, help="Threads that compute; 0 measures and chooses.")]
ParallelOption = Annotated[int | None, typer.Option(min=1, help="Answers at the same time; the next one is refused.")]
EngineOption = Annotated[
    str | None, typer.Option(help="llama.cpp, or exact: whole numbers, of which every operation can be checked.")
]
ChainOption = Annotated[
    str | None, typer.Option(help="Node of the chain on which answers are paid: `assay devnet`, or see [chain].")
]
ContextOption = Annotated[int | None, typer.Option(min=64, help="Positions of one answer, the prompt included.")]


def serve(
    model: ModelOption = None,
    host: HostOption = None,
    port: PortOption = None,
    threads: ThreadsOption = None,
    parallel: ParallelOption = None,
    context: ContextOption = None,
    engine: EngineOption = None,
    level: Annotated[
        list[str] | None,
        typer.Option(help="Level to offer (repeat it for several): signed, statistical, pinned, exact."),
    ] = None,
    url: Annotated[str | None, typer.Option(help="Where consumers reach this machine, if elsewhere.")] = None,
    key: Annotated[str | None, typer.Option(help="Name of the signing key (see `assay keys`).")] = None,
    upstream: Annotated[
        str | None, typer.Option(help="OpenAI server that computes the model (llama-server, vLLM, …); see docs.")
    ] = None,
    upstream_model: Annotated[str | None, typer.Option(help="That server's name for the model.")] = None,
    tls: Annotated[
        bool | None,
        typer.Option("--tls/--no-tls", help="Serve HTTPS with a certificate of its own, which the record names."),
    ] = None,
    relay: Annotated[
        list[str] | None,
        typer.Option(help="Be reached through this relay, wss://HOST (may be repeated); turns --tls on."),
    ] = None,
    iroh: Annotated[
        str | None,
        typer.Option(
            help="Be reached through iroh: direct, or n0, whose servers help through routers; turns --tls on."
        ),
    ] = None,
    chain: ChainOption = None,
    hours: Annotated[
        str | None, typer.Option(help="Of the day, in which answers are begun: 22:00-07:00. Empty: all.")
    ] = None,
    as_json: JsonFlag = False,
    cheat: Annotated[
        str, typer.Option(help="Be dishonest in this way.", rich_help_panel=_DEVELOPERS, show_default=False)
    ] = "",
    testing: Annotated[
        bool,
        typer.Option(
            "--i-am-testing-dishonesty",
            help="Needed with --cheat: receipts signed so are proof against the key.",
            rich_help_panel=_DEVELOPERS,
        ),
    ] = False,
) -> None:
    """Offer this machine's answers, each with a signed receipt. Options override config.toml."""
    from assay.apps.config import home, load_config
    from assay.apps.logs import configure_logs
    from assay.apps.wiring import (
        Capacity,
        find_model,
        open_cheat,
        open_engine,
        open_key,
        open_parts,
        open_proxy,
        open_selling,
        open_store,
        override,
        tool_reader,
    )
    from assay.core.receipt import attest

    if cheat and not testing:
        raise ConfigError(
            "--cheat signs false receipts", "add --i-am-testing-dishonesty, and use a key that nobody trusts"
        )
    given = {
        "model": model, "host": host, "port": port, "threads": threads, "parallel": parallel, "context": context,
        "engine": engine, "levels": tuple(level) if level else None, "url": url, "key": key,
        "upstream": upstream, "upstream_model": upstream_model, "tls": tls, "hours": hours,
    }  # fmt: skip
    config = override(load_config(), "network", {"relays": tuple(relay) if relay else None, "iroh": iroh})
    if config.network.relays or config.network.iroh != "off":
        given["tls"] = True
    config = override(override(config, "chain", {"url": chain}), "provider", given)
    settings = config.provider
    recent = configure_logs(config.log.level, config.log.format)
    signer, made = open_key(settings.key)
    if made:
        note(f"Made the key {settings.key} ({signer.address}).")
    if settings.upstream and settings.engine == "exact":
        raise ConfigError("an upstream server computes in its own way, not exactly", "leave out one of the two")
    found = find_model(settings.model)

    from assay.apps.door import Door
    from assay.apps.earnings import Earnings
    from assay.apps.levelled import Levelled
    from assay.apps.metrics import Metrics
    from assay.apps.onchain import level_prices, open_counter
    from assay.apps.provider import provider_app
    from assay.apps.publishing import open_publisher, stake_of
    from assay.apps.server import announce, bind, url_of
    from assay.apps.server import serve as run
    from assay.apps.serving import LocalAnswers
    from assay.apps.tracing import Traces, ending, tracer_of
    from assay.apps.window.courtroom import courtroom_of
    from assay.apps.window.sources import Upkeep
    from assay.apps.window.window import open_window
    from assay.market.sale import Hours, Sale

    with ExitStack() as stack:
        sock = stack.enter_context(bind(settings.host, settings.port))
        here = url_of(sock, tls=settings.tls)
        shown = settings.model_dump(mode="json", exclude={"upstream_api_key"})
        upkeep = Upkeep(home(), signer.address, shown, recent)
        window = open_window(home(), sock, upkeep, "provider")
        store = open_store(config, "provider", forgetful=bool(cheat))
        capacity = Capacity(threads=settings.threads, parallel=settings.parallel, context=settings.context)
        places, pen = settings.parallel, attest
        if cheat:
            offering, pen = stack.enter_context(open_cheat(cheat, found, capacity, settings.engine))
        elif settings.upstream:
            offering = proxy = stack.enter_context(open_proxy(found, capacity, settings))
            places = proxy.parallel
            note(proxy.traits.summary)
        else:
            offering = stack.enter_context(open_engine(found, capacity, settings.engine))
        offered = Levelled(offering, settings.levels)
        if not offered.levels:
            raise ConfigError(
                f"{found.name} can be offered at {', '.join(offering.levels)} here", "choose --level there"
            )
        opened = Hours.parse(settings.hours) if settings.hours else None
        traces, metrics, prices, till = Traces(tracer_of(offering)), Metrics(), level_prices(config), None
        deposits, least_deposit, stake, earnings = None, 1, None, None
        if config.chain.url:
            counter = stack.enter_context(
                open_counter(config, signer, prices, lambda reason: metrics.payments_refused.labels(reason).inc())
            )
            till, deposits, least_deposit = counter.till, counter.deposits, counter.least_deposit
            metrics.watch_money(counter.sums)
            earnings = Earnings(counter)
            stake = stake_of(counter.client.addresses)
            if counter.client.addresses.court and "exact" in offered.levels:
                stack.enter_context(_defended(counter.client, offering, found, store, metrics.registry, config.chain))
        local = LocalAnswers(
            [offered],
            signer,
            store,
            prices=prices,
            parallel=places,
            url=settings.url or here,
            till=till,
            attest=pen,
            parts=stack.enter_context(open_parts(config, "provider")),
        )
        selling = open_selling(config, local, Sale(prices, places, opened), settings.key)
        if selling.kept:
            note(f"Set in the window, whatever is configured: {', '.join(selling.kept)}.")
        publisher, certificate = stack.enter_context(
            open_publisher(config, signer, local.models, sock.getsockname()[:2], parallel=places, stake=stake)
        )

        def started() -> None:
            announce("provider", here, as_json=as_json, address=signer.address, model=found.name)
            if not as_json:
                note(f"Its window, in a browser: {window_at(window.address(here), here)}")

        run(
            provider_app(
                local,
                store,
                signer.address,
                read_tools=tool_reader(found),
                max_body=settings.max_body_bytes,
                traces=traces,
                till=till,
                metrics=metrics,
                deposits=deposits,
                least_deposit=least_deposit,
                publisher=publisher,
                door=Door(signer.address, settings.consumers, settings.requests_per_minute),
                window=window,
                court=courtroom_of(config, stack),
                earnings=earnings,
                selling=selling,
            ),
            sock,
            drain=ending(local.drain, traces),
            started=started,
            certificate=certificate,
        )


def _defended(
    client: ChainClient,
    engine: Engine,
    model: ModelFile,
    store: ReceiptStore,
    registry: CollectorRegistry,
    settings: Chain,
) -> AbstractContextManager[None]:
    """What defends a provider against disputes, where its engine is the exact one."""
    from assay.apps.disputes.watch import defended
    from assay.apps.onchain import gas_worth
    from assay.chain.court import CourtClient
    from assay.engines.exact.engine import ExactEngine

    if not isinstance(engine, ExactEngine):
        return nullcontext()
    return defended(
        CourtClient(client),
        engine,
        model,
        store,
        registry,
        interval=settings.look_seconds,
        gas_worth=gas_worth(settings),
    )
