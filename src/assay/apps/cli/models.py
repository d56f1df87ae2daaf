"""`assay models`: the model files on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from assay.apps.cli.console import JsonFlag, note, out, plain, print_json

if TYPE_CHECKING:
    from assay.engines.models import ModelFile

app = typer.Typer(no_args_is_help=True, help="List, fetch, add and remove model files.")

Known = Annotated[str, typer.Argument(help="The model's name.", show_default=False)]


@app.command("list", epilog="Example: [bold]assay models list --json[/bold]")
def show(as_json: JsonFlag = False) -> None:
    """List the models on this machine and those that can be fetched."""
    from assay.apps.config import home
    from assay.engines.models import CATALOGUE, list_models

    here = list_models(home())
    missing = [name for name in CATALOGUE if name not in {model.name for model in here}]
    if as_json:
        print_json({"installed": [_as_json(model) for model in here], "available": missing})
        return
    table = Table(box=None, pad_edge=False)
    for column in ("model", "size", "SHA-256"):
        table.add_column(column, overflow="fold")
    table.add_column("file", overflow="fold", style="dim")
    for model in here:
        table.add_row(Text(model.name), _size(model.size), model.sha256.hex()[:16] + "…", Text(plain(str(model.path))))
    for name in missing:
        table.add_row(Text(name, style="dim"), _size(CATALOGUE[name].size), "", f"assay models pull {name}")
    out.print(table)


@app.command(epilog="Example: [bold]assay models pull smollm2-135m[/bold]")
def pull(name: Known, as_json: JsonFlag = False) -> None:
    """Fetch a model of the catalogue and check its digest; does nothing if it is here already."""
    from assay.apps.config import home
    from assay.apps.progress import progress_bar
    from assay.engines.models import pull as fetch

    with progress_bar(name) as report:
        model = fetch(name, home(), report=report)
    _tell(model, as_json)


@app.command(epilog="Example: [bold]assay models add ~/Downloads/qwen.gguf --name qwen[/bold]")
def add(
    file: Annotated[Path, typer.Argument(help="A GGUF file; it stays where it is.", show_default=False)],
    name: Annotated[str, typer.Option(help="What to call it; the file's own name if left out.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Give a GGUF file of your own a name."""
    from assay.apps.config import home
    from assay.engines.models import add as remember

    _tell(remember(file, name or file.stem, home()), as_json)


@app.command(epilog="Example: [bold]assay models rm qwen[/bold]")
def rm(name: Known) -> None:
    """Delete a fetched model, or forget the name of an added file (the file stays)."""
    from assay.apps.config import home
    from assay.engines.models import remove

    remove(name, home())
    note(f"{name} is gone.")


def _tell(model: ModelFile, as_json: bool) -> None:
    if as_json:
        print_json(_as_json(model))
    else:
        out.print(Text(f"{model.name}  {model.path}"), soft_wrap=True)
        out.print(Text(f"SHA-256 {model.sha256.hex()}", style="dim"), soft_wrap=True)


def _as_json(model: ModelFile) -> dict[str, object]:
    return {"name": model.name, "path": str(model.path), "sha256": model.sha256.hex(), "size": model.size}


def _size(count: int) -> str:
    return f"{count / 1e6:.0f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"
