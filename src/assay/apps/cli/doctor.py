"""`assay doctor`: is this machine fit, and what to do where it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich.table import Table
from rich.text import Text

from assay.apps.cli.console import JsonFlag, err, out, plain, print_json
from assay.apps.cli.exits import ExitCode

if TYPE_CHECKING:
    from assay.apps.doctor import Symptom

_MARKS = {"well": ("ok", "green"), "note": ("note", "yellow"), "bad": ("bad", "bold red")}


def doctor(as_json: JsonFlag = False) -> None:
    """Check machine, engine, speed, disk, ports, key and models; say what to do about what is not well."""
    from assay.apps.config import home, load_config
    from assay.apps.doctor import all_checks, run_checks

    found: list[Symptom] = []
    with (err if as_json else out).status("Looking at this machine…"):
        for symptom in run_checks(all_checks(home(), load_config())):
            found.append(symptom)
            if not as_json:
                out.print(_row(symptom))
    fit = all(symptom.health != "bad" for symptom in found)
    if as_json:
        print_json({"fit": fit, "findings": [symptom.to_json() for symptom in found]})
    else:
        out.print("\nThis machine is fit." if fit else "\nThis machine needs attention: see the lines marked bad.")
    raise typer.Exit(ExitCode.DONE if fit else ExitCode.FAILED_CHECK)


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
