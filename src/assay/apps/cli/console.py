"""What commands print: people's lines through rich, scripts' JSON as it is, and nothing that steers a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.text import Text

from assay.core.errors import AssayError, InvalidRequest

out: Final = Console(highlight=False)
"""Results."""
err: Final = Console(stderr=True, highlight=False)
"""Progress, remarks and errors, so that results can be piped."""

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text for people.")]
"""The flag of every command that a script would read."""

_CONTROLS: Final = {code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}


def plain(text: str) -> str:
    """`text` without control characters: words from strangers must not move the cursor or set the window's title."""
    return text.translate(_CONTROLS)


def print_json(value: Mapping[str, object] | Sequence[Mapping[str, object]]) -> None:
    """One JSON object (or list of them) on standard output, nothing else beside it."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")
    sys.stdout.flush()


def print_error(error: AssayError) -> None:
    """What is wrong on one line, and what to do about it on the next."""
    err.print(Text.assemble(("error: ", "bold red"), plain(error.message)), soft_wrap=True)
    if error.remedy:
        err.print(Text.assemble(("  try: ", "bold"), plain(error.remedy)), soft_wrap=True)


def note(text: str) -> None:
    """A remark for people, on standard error."""
    err.print(Text(plain(text), style="dim"), soft_wrap=True)


def window_at(address: str, url: str) -> str:
    """Where the window is: the owner's address for who reads along; for a file of a log, which others may read, how to
    see it."""
    return address if err.file.isatty() else f"`assay window --url {url}` says where"


def survive_any_encoding() -> None:
    """Let a terminal that lacks a character show `?` in its place instead of ending the program, and what is no text
    come in as Python lets it into arguments: half surrogate pairs, which `spoken` refuses."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    reconfigure = getattr(sys.stdin, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="surrogateescape")


def spoken(text: str, what: str) -> str:
    """`text`, which came from a terminal, if it is text.

    Raises:
        InvalidRequest: its bytes were not those of the terminal's encoding; `what` names it.
    """
    if not is_text(text):
        raise InvalidRequest(f"{what} is not text in UTF-8", remedy="set the terminal to UTF-8, or convert the input")
    return text


def is_text(text: str) -> bool:
    """There are no half surrogate pairs in it, as which Python lets in bytes that are no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
