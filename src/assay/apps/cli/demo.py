"""`assay demo`: a small network on loopback answers questions and is paid; providers that cheat are caught."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.apps.cli.console import JsonFlag, err, out, print_json
from assay.apps.cli.exits import ExitCode
from assay.core.errors import ConfigError

if TYPE_CHECKING:
    from assay.apps.demo.network import Network

_LOOK = 1.0
"""Seconds between two looks whether the network still runs."""
_KEPT = 5
"""Older demonstrations are deleted."""
_SETTLING = 30.0
"""Longest wait, in seconds, for providers to be paid."""


def demo(
    cheat: Annotated[str, typer.Option(help="How the dishonest provider cheats; see --cheats.")] = "other-model",
    cheats: Annotated[bool, typer.Option("--cheats", help="List the ways to cheat, and end.")] = False,
    model: Annotated[str, typer.Option(help="Name of a model, or a GGUF file.")] = "smollm2-135m",
    questions: Annotated[Path | None, typer.Option(help="Another list of questions (JSON).")] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Where receipts and logs go. Default: ASSAY_HOME/demo; a folder a run.")
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Keep the network running afterwards, and open to a browser, until Ctrl-C.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Run a small network on this machine, ask and pay it, check every answer; tell who cheated, and slash it."""
    from assay.apps.cheats import CHEATS

    if cheats:
        _list(as_json)
        return
    if cheat not in CHEATS and not cheat.startswith("swap:"):
        raise ConfigError(f"nobody knows how to cheat by {cheat[:80]!r}", "choose one of `assay demo --cheats`")
    if cheat.startswith("swap:") and not Path(cheat[5:]).is_file():
        raise ConfigError(f"{cheat[5:]} is not a file", "name a GGUF file: --cheat swap:FILE")
    if cheat in CHEATS and "llama.cpp" not in CHEATS[cheat].engines:
        raise ConfigError(f"{cheat} is played here anyway, by another provider", "choose another of --cheats")

    from assay.apps.client import Client
    from assay.apps.config import Chain, Config
    from assay.apps.demo.conversation import Conversation, summary
    from assay.apps.demo.money import Money
    from assay.apps.demo.network import running
    from assay.apps.demo.questions import load_questions
    from assay.apps.demo.screen import Notes, Screen, offer_window, report, tell_money
    from assay.apps.exact import program_for
    from assay.apps.onchain import open_court
    from assay.apps.wiring import find_model

    started = time.monotonic()
    asked = load_questions(questions)
    found = find_model(model)
    place = _folder(folder)
    console = err if as_json else out
    watcher = Notes(console, len(asked)) if as_json else Screen(console, len(asked))
    console.print(
        f"[bold]Assay demo[/]: {found.name}, five providers and a chain on this machine; two of the five cheat."
    )
    program_for(found)  # once, where it is seen, rather than in each process

    def say(line: str) -> None:
        console.print(f"[dim]{line}[/]")

    with (
        running(found, cheat, place, lambda line: say(f"{line}…")) as network,
        Client(network.gateway) as client,
        open_court(Config(chain=Chain(url=network.chain))) as court,
    ):
        sellers = {each.name: each.address for each in network.providers}
        money = Money(court, {"buyer": network.buyer} | sellers | {"validator": network.validator})
        before = money.purses()
        talk = Conversation(network, client, watcher, place / "receipts", client.models()[0])
        talk.ask_all(asked)
        guilty = {cheat.address for cheat in network.dishonest if cheat.engine == "exact" and talk.caught(cheat)}
        console.print("\n[bold]On the chain[/]")
        money.settled(_SETTLING)
        if guilty:
            money.follow(len(guilty), say, network.check_alive)
        say("the chain's clock is moved forward until what is held back is free")
        money.forward(money.held)
        money.settled(_SETTLING)
        bill = money.bill(before)
        seconds = time.monotonic() - started
        result = summary(talk, bill, seconds)
        if serve:
            result["window"] = network.window
        if as_json:
            print_json(result)
        else:
            tell_money(console, talk, bill)
            report(console, talk, serving=serve)
            console.print(f"\n[dim]{seconds:.0f} s; receipts and logs in {place}[/]", soft_wrap=True)
        if serve:
            offer_window(console, network.window)
            _stay(network)
    found_out = all(talk.caught(cheat) is not None or talk.demoted(cheat) for cheat in network.dishonest)
    slashed = {story.provider for story in bill.stories if story.outcome == "slashed"}
    good = found_out and not result["false_alarms"] and slashed == guilty and bill.adds_up
    raise typer.Exit(ExitCode.DONE if good else ExitCode.FAILED_CHECK)


def _stay(network: Network) -> None:
    """Until Ctrl-C.

    Raises:
        EngineError: a process of the network has died.
    """
    with suppress(KeyboardInterrupt):
        while True:
            network.check_alive()
            time.sleep(_LOOK)


def _list(as_json: bool) -> None:
    from assay.apps.cheats import CHEATS

    known = {cheat.name: cheat.does for cheat in CHEATS.values()}
    known["swap:FILE"] = "serves the GGUF in FILE under the model's name and digest"
    if as_json:
        print_json({"cheats": known})
        return
    for name, does in known.items():
        out.print(f"[bold]{name:<18}[/] {does}")


def _folder(chosen: Path | None) -> Path:
    """The folder of this run; of earlier ones under ASSAY_HOME the last few stay.

    Raises:
        ConfigError: it cannot be made.
    """
    from assay.apps.config import home

    # Never an earlier run's folder: its gateway's database remembers the cheat, and would not ask it again.
    root = chosen or home() / "demo"
    place = root / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    if chosen is None and root.is_dir():
        runs = sorted(path for path in root.iterdir() if path.is_dir() and path.name[:1].isdigit())
        for old in runs[: -_KEPT + 1]:
            with suppress(OSError):
                shutil.rmtree(old)
    try:
        (place / "receipts").mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"{place} cannot be made ({error.strerror})", "name another folder with --out") from error
    return place.absolute()
