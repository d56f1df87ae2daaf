"""`assay bench`: the measurements behind every number that the project states."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from assay.apps.cli.console import JsonFlag, note, out, plain, print_json


def bench(
    name: Annotated[str, typer.Argument(help="Which benchmark; left out: list them; `all`: every one.")] = "",
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Texts to measure on, for `perplexity`; left out: those that come with the repository."),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", help="Name or GGUF file, for `perplexity` and `task`; left out: smollm2-135m.")
    ] = "",
    as_json: JsonFlag = False,
) -> None:
    """Measure, and print each figure beside its bar. Needs a clone of the repository."""
    from assay.apps.figures import measure, names

    if not name:
        known = names()
        if as_json:
            print_json({"benchmarks": list(known)})
        else:
            out.print("\n".join(known))
        return
    result = measure(name, note, files=files or (), model=model)
    if as_json:
        print_json(result)
        return
    table = Table(box=None, pad_edge=False)
    for column in ("figure", "value", "bar", "n", ""):
        table.add_column(column, overflow="fold")
    figures = result["figures"]
    assert isinstance(figures, list)
    for figure in figures:
        table.add_row(*_row(figure))
    out.print(table)


def _row(figure: Mapping[str, object]) -> tuple[Text, ...]:
    value, limit, holds = figure["value"], figure["limit"], figure["holds"]
    shown = f"{value:.4g}" if isinstance(value, float) else str(value)
    mark = Text("" if holds is None else "holds" if holds else "misses", style="green" if holds else "bold red")
    return (
        Text(plain(str(figure["name"]))),
        Text(f"{shown} {figure['unit']}"),
        Text("" if limit is None else str(limit)),
        Text(str(figure["n"])),
        mark,
    )
