"""What commands show while they fetch, convert or compile something."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from assay.engines.fetching import Report


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Say on standard error what is being waited for; on a terminal only as long as that takes."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status(escape(text)):
            yield
    else:
        console.print(escape(text), highlight=False, soft_wrap=True)
        yield


@contextmanager
def progress_bar(title: str) -> Iterator[Report]:
    """Bars on standard error, one per stage; without a terminal, nothing but their last state."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, console=console) as progress:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(f"{title}: {stage}", total=total)
            progress.update(tasks[stage], completed=done)

        yield report
