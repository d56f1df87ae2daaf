"""`assay chat`: a conversation in the terminal, with a receipt under every answer."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.text import Text

from assay.apps.cli.console import err, note, out, plain, print_error, spoken
from assay.apps.cli.talk import UrlOption, default_url, describe, judge, pick_model, save
from assay.core.errors import AssayError, InvalidRequest

if TYPE_CHECKING:
    from assay.apps.client import Client
    from assay.core.bundle import Bundle

_HELP: Final = """/new          forget the conversation
/level LEVEL  signed, statistical, pinned or exact
/model NAME   another model
/save FILE    write the last answer's receipt
/check        check the last answer by recomputing it here
/quit         leave (or Ctrl-D)
Ctrl-C stops an answer; what was delivered still has a receipt."""


def chat(
    url: UrlOption = "",
    model: Annotated[str, typer.Option(help="Which model; the first one offered if left out.")] = "",
    level: Annotated[str, typer.Option(help="Assurance: signed, statistical, pinned or exact.")] = "",
    system: Annotated[str, typer.Option(help="What the model is told first.")] = "",
    max_tokens: Annotated[int, typer.Option(min=0, help="Most tokens of an answer; 0: no limit.")] = 512,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="0 takes the likeliest words.")] = 0.7,
) -> None:
    """Chat with a node (`assay up`) or through a gateway. Ctrl-C stops the answer, Ctrl-D leaves."""
    from assay.apps.client import Client

    with Client(url or default_url()) as client:
        talk = _Talk(
            client,
            pick_model(client, spoken(model, "the model's name")),
            level,
            spoken(system, "--system"),
            max_tokens,
            temperature,
        )
        note(f"{talk.model} at {client.url}. /help lists the commands, Ctrl-D leaves.")
        _read_lines(talk.hear)


class _Talk:
    """One conversation."""

    def __init__(
        self, client: Client, model: str, level: str, system: str, max_tokens: int, temperature: float
    ) -> None:
        self.model = model
        self._client: Final = client
        self._level = level
        self._start: Final = [{"role": "system", "content": system}] if system else []
        self._messages = list(self._start)
        self._max_tokens: Final = max_tokens
        self._temperature: Final = temperature
        self._last: list[Bundle] = []

    def hear(self, line: str) -> bool:
        """Act on a line; False when the person wants to leave."""
        line = spoken(line, "the line")
        word, _, rest = line.partition(" ")
        rest = rest.strip()
        match word:
            case "":
                pass
            case "/quit" | "/exit":
                return False
            case "/help" | "/?":
                note(_HELP)
            case "/new":
                self._messages = list(self._start)
                note("A new conversation.")
            case "/level":
                self._level = rest
                note(f"Level: {rest or 'the strongest offered'}.")
            case "/model":
                self.model = rest or self.model
                note(f"Model: {self.model}.")
            case "/save":
                self._save(rest or "receipt.json")
            case "/check":
                self._check()
            case _ if word.startswith("/"):
                note(f"There is no command {word}; /help lists them.")
            case _:
                self._answer(line)
        return True

    def _answer(self, line: str) -> None:
        from assay.apps.client import Wish

        messages = [*self._messages, {"role": "user", "content": line}]
        wish = Wish(
            model=self.model,
            messages=messages,
            max_tokens=self._max_tokens or None,
            temperature=self._temperature,
            level=self._level or None,
        )
        text: list[str] = []
        stopped = False
        with self._client.ask(wish) as stream:
            try:
                for piece in stream:
                    text.append(piece)
                    out.out(plain(piece), end="", highlight=False)
                    sys.stdout.flush()
            except KeyboardInterrupt:
                stopped = True
        out.print()
        self._last = []
        if stopped:
            self._last = self._client.settled(stream.completion)
            err.print(Text("stopped", style="yellow"))
        elif stream.answered is not None:
            if stream.answered.receipts:
                self._last = self._client.parts(stream.answered)
            err.print(describe(stream.answered))
        for part in self._last:
            err.print(judge(part, wish))
        if text:
            self._messages = [*messages, {"role": "assistant", "content": "".join(text)}]

    def _save(self, name: str) -> None:
        path = Path(name).expanduser()
        save(self._known(), path)
        note(f"Receipt in {path}: check it anywhere with `assay verify {path}`")

    def _check(self) -> None:
        from assay.apps.checking import check_here, check_linked
        from assay.apps.cli.verdicts import lines

        with err.status("Recomputing the answer…"):
            parts = self._known()
            verdicts = check_linked([check_here(part) for part in parts], parts)
        for verdict in verdicts:
            err.print(lines(verdict))

    def _known(self) -> list[Bundle]:
        if not self._last:
            raise InvalidRequest("there is no answer with a receipt yet", remedy="ask something first")
        return self._last


def _read_lines(hear: Callable[[str], bool]) -> None:
    """Read lines until the end; an interrupted line starts afresh, and an error ends the answer, not the program."""
    with suppress(ImportError):
        import readline  # noqa: F401 - gives input() editing and history
    people = sys.stdin.isatty()
    while True:
        try:
            line = input("› " if people else "")
            if not hear(line.strip()):
                return
        except EOFError:
            if people:
                out.print()
            return
        except KeyboardInterrupt:
            out.print()
            note("Ctrl-D leaves.")
        except AssayError as error:
            print_error(error)
