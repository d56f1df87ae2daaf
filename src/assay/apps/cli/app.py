"""The commands put together, and what happens to their errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import assay
from assay.apps.cli import (
    ask,
    bench,
    channels,
    chat,
    demo,
    devnet,
    directory,
    disputes,
    doctor,
    economics,
    gateway,
    identity,
    keys,
    models,
    providers,
    relay,
    serve,
    stake,
    trace,
    up,
    validate,
    verify,
    window,
)
from assay.apps.cli.console import err, is_text, out, plain, print_error
from assay.apps.cli.exits import ExitCode, exit_code, table
from assay.core.errors import AssayError, InvalidRequest

_ABOUT = "Ask machines you do not trust, and know what answered."

app = typer.Typer(
    name="assay",
    help=_ABOUT,
    epilog="[bold]Exit codes[/bold]\n\n" + table(),
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_TRY, _SHARE, _CHECK, _TOOLS = "Use it", "Run a part of the network", "Check answers", "Look after this machine"


def _command(group: str, name: str, function: object, example: str) -> None:
    assert callable(function)
    app.command(name, rich_help_panel=group, epilog=f"Example: [bold]{example}[/bold]")(function)


_command(_TRY, "demo", demo.demo, "assay demo --cheat temperature")
_command(_TRY, "up", up.up, "assay up --model smollm2-135m")
_command(_TRY, "chat", chat.chat, "assay chat --url http://127.0.0.1:8200/v1")
_command(_TRY, "window", window.window, "assay window --url http://127.0.0.1:8200")
_command(_TRY, "ask", ask.ask, 'assay ask "Why is the sky blue?" --receipt receipt.json')
_command(_SHARE, "serve", serve.serve, "assay serve --model smollm2-135m")
_command(_SHARE, "gateway", gateway.gateway, "assay gateway --provider http://127.0.0.1:8100")
_command(_SHARE, "directory", directory.directory, "assay directory --host 0.0.0.0")
_command(_SHARE, "relay", relay.relay, "assay relay --host 0.0.0.0 --certificate relay.pem")
_command(_SHARE, "providers", providers.providers, "assay providers --json")
_command(_SHARE, "validate", validate.validate, "assay validate --share 0.1")
_command(_CHECK, "verify", verify.verify, "assay verify receipt.json --json")
_command(_CHECK, "trace", trace.trace, "assay trace receipt.json --provider http://127.0.0.1:8100 -o answer.trace")
app.add_typer(channels.app, name="channels", rich_help_panel=_SHARE)
app.add_typer(stake.app, name="stake", rich_help_panel=_SHARE)
app.add_typer(identity.app, name="identity", rich_help_panel=_SHARE)
_command(_SHARE, "disputes", disputes.disputes, "assay disputes --chain http://127.0.0.1:8545")
app.add_typer(models.app, name="models", rich_help_panel=_TOOLS)
app.add_typer(keys.app, name="keys", rich_help_panel=_TOOLS)
_command(_TOOLS, "doctor", doctor.doctor, "assay doctor --json")
_command(_TOOLS, "devnet", devnet.devnet, "assay devnet --fund 0x4a62316623ad457f02cdc5d997ded67a383ec569")
_command(
    _TOOLS, "economics", economics.economics, "assay economics --price 1000000 --saving 0.6 --rate 0.5 --unclaimed 3600"
)
_command(_TOOLS, "bench", bench.bench, "assay bench perplexity notes.txt --model smollm2-135m --json")


def _print_version(wanted: bool) -> None:
    if wanted:
        out.print(f"assay {assay.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def run(args: Sequence[str] | None = None) -> int:
    """Run a command; its exit code (see `exits.py`)."""
    try:
        app(args=None if args is None else list(args), prog_name="assay")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except AssayError as error:
        if _debugging():
            raise
        print_error(error)
        return exit_code(error)
    except UnicodeEncodeError as error:
        if _debugging():
            raise
        if all(map(is_text, sys.argv if args is None else args)):
            return _bug(error)
        print_error(InvalidRequest("an argument is not text in UTF-8", remedy="set the terminal to UTF-8"))
        return ExitCode.BAD_INPUT
    except Exception as error:
        if _debugging():
            raise
        return _bug(error)
    return ExitCode.DONE


def _bug(error: Exception) -> ExitCode:
    err.print(f"[bold red]error:[/bold red] {plain(type(error).__name__)}: ", end="")
    err.print(plain(str(error)) or "no further words", markup=False, soft_wrap=True)
    err.print("  this should not happen: run again with ASSAY_DEBUG=1 to see where, and please report it")
    return ExitCode.BUG


def _debugging() -> bool:
    return os.environ.get("ASSAY_DEBUG", "") not in ("", "0")
