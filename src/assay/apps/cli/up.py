"""`assay up`: one node for one person, offline if need be."""

from __future__ import annotations

from contextlib import ExitStack

from rich.text import Text

from assay.apps.cli.console import JsonFlag, err, note, window_at
from assay.apps.cli.serve import (
    ContextOption,
    EngineOption,
    HostOption,
    ModelOption,
    ParallelOption,
    PortOption,
    ThreadsOption,
)


def up(
    model: ModelOption = None,
    host: HostOption = None,
    port: PortOption = None,
    threads: ThreadsOption = None,
    parallel: ParallelOption = None,
    context: ContextOption = None,
    engine: EngineOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Run a local model with an OpenAI API on this machine; works offline once the model is here."""
    from assay.apps.config import home, load_config
    from assay.apps.logs import configure_logs
    from assay.apps.wiring import (
        Capacity,
        find_model,
        open_engine,
        open_key,
        open_parts,
        open_selling,
        open_store,
        override,
        tool_reader,
    )

    given = {
        "model": model, "host": host, "port": port, "threads": threads, "parallel": parallel, "context": context,
        "engine": engine,
    }  # fmt: skip
    config = override(load_config(), "node", given)
    settings = config.node
    recent = configure_logs("warning" if config.log.level == "info" else config.log.level, config.log.format)
    signer, made = open_key(settings.key)
    if made:
        note(f"Made the key {settings.key} ({signer.address}).")
    found = find_model(settings.model)

    from assay.apps.doubting import Doubts
    from assay.apps.provider import provider_app
    from assay.apps.server import announce, bind, url_of
    from assay.apps.server import serve as run
    from assay.apps.serving import LocalAnswers
    from assay.apps.tracing import Traces, ending, tracer_of
    from assay.apps.window.auditing import Audits
    from assay.apps.window.courtroom import courtroom_of
    from assay.apps.window.sources import Upkeep
    from assay.apps.window.window import open_window
    from assay.market.sale import Sale

    with ExitStack() as stack:
        sock = stack.enter_context(bind(settings.host, settings.port))
        here = url_of(sock)
        upkeep = Upkeep(home(), signer.address, settings.model_dump(mode="json"), recent)
        window = open_window(home(), sock, upkeep)
        store = open_store(config, "node")
        with err.status(f"Loading {found.name}…"):
            capacity = Capacity(threads=settings.threads, parallel=settings.parallel, context=settings.context)
            running = stack.enter_context(open_engine(found, capacity, settings.engine))
        parts = stack.enter_context(open_parts(config, "node"))
        local = LocalAnswers([running], signer, store, parallel=settings.parallel, url=here, parts=parts)
        selling = open_selling(config, local, Sale({}, settings.parallel), settings.key, priced=False)

        def started() -> None:
            announce("node", here, as_json=as_json, address=signer.address, model=found.name)
            if not as_json:
                _tell(here, found.name, window_at(window.address(here), here), default=port is None)

        tools = tool_reader(found)
        traces = Traces(tracer_of(running))
        app = provider_app(
            local,
            store,
            signer.address,
            read_tools=tools,
            max_body=settings.max_body_bytes,
            traces=traces,
            window=window,
            audits=Audits(models=[found]),
            court=courtroom_of(config, stack),
            doubts=Doubts(),
            selling=selling,
        )
        run(app, sock, drain=ending(local.drain, traces), grace=1.0, started=started)


def _tell(url: str, model: str, window: str, *, default: bool) -> None:
    chat = "assay chat" if default else f"assay chat --url {url}/v1"
    text = Text("\n")
    for what, how in (
        ("the window, in a browser", window),
        ("chat in another terminal", chat),
        ("any OpenAI client", f'OpenAI(base_url="{url}/v1", api_key="-")'),
        ("the model", model),
        ("stop", "Ctrl-C"),
    ):
        text.append(f"  {what:<26}", style="dim")
        text.append(f"{how}\n", style="bold")
    err.print(text, soft_wrap=True)
