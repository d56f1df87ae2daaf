"""`assay doctor`: is this machine fit, and what to do where it is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer
from rich.table import Table
from rich.text import Text

from assay.apps.cli.console import JsonFlag, err, out, plain, print_json
from assay.apps.cli.exits import ExitCode

if TYPE_CHECKING:
    from assay.apps.doctor import Check, Symptom

_MARKS = {"well": ("ok", "green"), "note": ("note", "yellow"), "bad": ("bad", "bold red")}


def doctor(as_json: JsonFlag = False) -> None:
    """Check machine, engine, speed, disk, ports, key and models; say what to do about what is not well."""
    from assay.apps.doctor import run_checks

    found: list[Symptom] = []
    with (err if as_json else out).status("Looking at this machine…"):
        for symptom in run_checks(_checks()):
            found.append(symptom)
            if not as_json:
                out.print(_row(symptom))
    fit = all(symptom.health != "bad" for symptom in found)
    if as_json:
        print_json({"fit": fit, "findings": [symptom.to_json() for symptom in found]})
    else:
        out.print("\nThis machine is fit." if fit else "\nThis machine needs attention: see the lines marked bad.")
    raise typer.Exit(ExitCode.DONE if fit else ExitCode.FAILED_CHECK)


def _checks() -> Sequence[tuple[str, Check]]:
    """Everything that is looked at, in the order in which it is told."""
    from assay.apps import doctor as look
    from assay.apps.config import home, load_config
    from assay.apps.keyfile import key_path

    root, config = home(), load_config()
    ports = {
        "up": (config.node.host, config.node.port),
        "serve": (config.provider.host, config.provider.port),
        "gateway": (config.gateway.host, config.gateway.port),
        "validate": (config.validator.host, config.validator.port),
    }
    models = (config.node.model, config.provider.model, config.validator.model)
    return (
        ("machine", look.check_machine),
        ("engine", look.check_engine),
        ("models", lambda: look.check_models(root, models)),
        ("speed", lambda: look.check_speed(root, config.node.model)),
        ("exact", lambda: look.check_exact(root, config.node.model)),
        ("disk", lambda: look.check_disk(root)),
        ("ports", lambda: look.check_ports(ports)),
        ("key", lambda: look.check_key(key_path(root, config.provider.key))),
        ("key", lambda: look.check_key(key_path(root, config.node.key))),
    )


def _row(symptom: Symptom) -> Table:
    word, style = _MARKS[symptom.health]
    row = Table.grid(padding=(0, 1))
    row.add_column(width=4)
    row.add_column(width=10)
    row.add_column(overflow="fold")
    detail = Text(plain(symptom.detail))
    if symptom.remedy:
        detail.append(f"\n→ {plain(symptom.remedy)}", style="bold")
    row.add_row(Text(word, style=style), Text(symptom.check), detail)
    return row
