"""How the demonstration looks in a terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Final, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from assay.apps.cli.console import plain
from assay.apps.cli.verdicts import STYLES, WORDS
from assay.apps.demo.conversation import Conversation, Row
from assay.apps.demo.money import TEST, Bill, Story
from assay.apps.demo.network import Provider
from assay.apps.demo.questions import Question

_TELLING: Final = 16
"""Tokens of an answer from which on the share of its check tells something."""


class Screen:
    """Implements `Watcher`: questions, streaming answers, verdicts as they come."""

    def __init__(self, console: Console, total: int) -> None:
        self._console: Final = console
        self._total: Final = total
        self._waited = False

    def asking(self, number: int, question: Question, *, again: bool) -> None:
        """See `Watcher`."""
        count = "once more" if again else f"{number}/{self._total}"
        about = f"{question.language}, level {question.level}, temperature {question.temperature:g}"
        self._console.print(f"\n[bold cyan]{count}[/] [dim]{about}[/]")
        self._console.print(Text(question.text, style="bold"))

    def piece(self, text: str) -> None:
        """See `Watcher`."""
        self._console.out(plain(text), end="", highlight=False)
        self._console.file.flush()

    def answered(self, row: Row) -> None:
        """See `Watcher`."""
        self._console.print()
        if row.outcome is not None:
            self.judged(row)
            return
        said = f"  {row.provider}: {row.tokens} tokens, {row.rate:.0f} tokens/s; the validator looks at it"
        self._console.print(Text(said, style="dim"))

    def judged(self, row: Row) -> None:
        """See `Watcher`."""
        self._console.print(_verdict_line(row))

    def waiting(self, count: int) -> None:
        """See `Watcher`."""
        if not self._waited:
            self._console.print(f"\n[dim]Waiting for {count} more {'check' if count == 1 else 'checks'}…[/]")
        self._waited = True


class Notes:
    """Implements `Watcher` for scripts: one line an event, on standard error."""

    def __init__(self, console: Console, total: int) -> None:
        self._console: Final = console
        self._total: Final = total

    def asking(self, number: int, question: Question, *, again: bool) -> None:
        """See `Watcher`."""
        count = "again" if again else f"{number}/{self._total}"
        self._console.print(Text(f"{count} {question.language}, {question.level}", style="dim"))

    def piece(self, text: str) -> None:
        """See `Watcher`."""

    def answered(self, row: Row) -> None:
        """See `Watcher`."""
        if row.outcome is not None:
            self.judged(row)

    def judged(self, row: Row) -> None:
        """See `Watcher`."""
        self._console.print(_verdict_line(row))

    def waiting(self, count: int) -> None:
        """See `Watcher`."""


def report(console: Console, talk: Conversation, *, serving: bool) -> None:
    """The rows, the cheats, and what to try next. `serving`: the network goes on."""
    console.print()
    console.print(_table(talk.rows))
    cheats = talk.network.dishonest
    honest = [row for row in talk.rows if row.provider not in {cheat.name for cheat in cheats}]
    alarms = sum(row.outcome == "fails" for row in honest)
    hold = sum(row.outcome == "holds" for row in honest)
    console.print(f"\nHonest providers: {hold} of {len(honest)} answers hold, {alarms} false alarms.")
    for cheat in cheats:
        _expose(console, talk, cheat)
    _next_steps(console, talk, serving=serving)


def offer_window(console: Console, address: str) -> None:
    """Where the network that goes on is looked at."""
    console.print("\n[bold]The network goes on.[/] Look at it, and ask it more, in a browser until Ctrl-C:")
    console.print(Text(f"  {address}", style="bold"), soft_wrap=True)


def tell_money(console: Console, talk: Conversation, bill: Bill) -> None:
    """Disputes, and who had how much before and after."""
    names = {provider.address: provider.name for provider in talk.network.providers}
    for story in bill.stories:
        who = names.get(story.provider, story.provider[:10])
        console.print(Text(f"dispute {story.number} over {who}'s receipt {story.receipt[:12]}…: {_told(story)}"))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("test tokens")
    for name in ("before", "after", "change"):
        table.add_column(name, justify="right")
    rows = {name: (bill.before.get(name, 0), amount) for name, amount in bill.after.items()}
    for name, (before, after) in rows.items():
        table.add_row(name, _tokens(before), _tokens(after), _tokens(after - before, sign="+"))
    total = [sum(amounts) for amounts in zip(*rows.values(), strict=True)]
    table.add_row("[bold]all[/]", _tokens(total[0]), _tokens(total[1]), _tokens(total[1] - total[0], sign="+"))
    console.print()
    console.print(table)
    paid = [row for row in talk.rows if row.cost]
    cost = sum(row.cost for row in paid)
    console.print(
        f"\n{len(paid)} answers cost {_tokens(cost)} test tokens. Paying for them took {bill.transactions} "
        f"transactions and {bill.gas:,} gas, most of it once a channel: `assay bench chain` has it for 1,000 answers.",
        soft_wrap=True,
    )


def _told(story: Story) -> str:
    if story.outcome != "slashed" or story.slashing is None:
        return f"{story.outcome or 'not over yet'} after {len(story.moves)} moves"
    loss = story.slashing
    burned = loss.bond + loss.held - loss.compensation - loss.insured - loss.reward
    return (
        f"slashed after {len(story.moves)} moves. {_tokens(loss.bond)} of its bond and {_tokens(loss.held)} held back: "
        f"{_tokens(loss.compensation)} to the buyer, {_tokens(loss.insured)} to the insurance pool, "
        f"{_tokens(loss.reward)} to the validator, {_tokens(burned)} burned"
    )


def _tokens(wei: int, *, sign: Literal["", "+"] = "") -> str:
    """In whole tokens, six digits after the point."""
    return f"{Decimal(wei) / TEST:{sign},.6f}"


def _expose(console: Console, talk: Conversation, cheat: Provider) -> None:
    """What a cheat did, and what became of it."""
    caught = talk.caught(cheat)
    what = f"[bold]{escape(cheat.name)}[/] cheated ({escape(cheat.cheat)}): it {escape(cheat.does)}."
    if caught is not None:
        how = " by the gateway, which took no receipt for it" if cheat.caught_by == "promise" else ""
        console.print(f"{what} [bold green]Caught[/] at answer {caught.number}{how}:")
        console.print(Text(f"  {plain(caught.reason)}"))
    elif talk.demoted(cheat):
        unclear = [row for row in talk.rows if row.provider == cheat.name and row.outcome == "inconclusive"]
        console.print(
            f"{what} [bold yellow]Cannot be checked here[/] ({len(unclear)} answers), so nobody is blamed; but "
            "from now on it is asked after those that can be checked:"
        )
        console.print(Text(f"  {plain(unclear[0].reason)}"))
    else:
        count = sum(row.provider == cheat.name for row in talk.rows)
        console.print(f"{what} [bold red]Not caught[/] in {count} answers.")


def _table(rows: Sequence[Row]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for name, right in (
        ("#", True), ("provider", False), ("level", False), ("tokens", True), ("tok/s", True), ("cost", True),
        ("check", True), ("share", True), ("verdict", False), ("reason", False),
    ):  # fmt: skip
        table.add_column(name, justify="right" if right else "left", overflow="fold", no_wrap=name != "reason")
    for row in rows:
        checked = row.outcome is not None and row.check_seconds > 0
        table.add_row(
            str(row.number),
            row.provider,
            row.level or row.question.level,
            str(row.tokens) if row.tokens else "",
            f"{row.rate:.0f}" if row.rate else "",
            f"{Decimal(row.cost) / TEST:.4f}" if row.cost else "",
            f"{row.check_seconds:.2f}s" if checked else "",
            f"{row.share:.0%}" if checked and row.seconds and row.tokens >= _TELLING else "",
            _word(row),
            Text(plain(row.reason)),
        )
    return table


def _word(row: Row) -> Text:
    if row.outcome is None:
        return Text("no verdict yet", style="yellow")
    words = {"holds": "holds", "fails": "fails", "inconclusive": "unclear"}
    return Text(words[row.outcome], style=STYLES[row.outcome])


def _verdict_line(row: Row) -> Text:
    outcome = row.outcome or "inconclusive"
    line = Text.assemble("  ", (f"answer {row.number} of {row.provider} {WORDS[outcome]}", STYLES[outcome]))
    if row.check_seconds:
        share = f", {row.share:.0%} of generating it" if row.tokens >= _TELLING else ""
        line.append(f" (checked in {row.check_seconds:.2f} s{share})", style="dim")
    if row.reason:
        line.append(f": {plain(row.reason)}")
    return line


def _next_steps(console: Console, talk: Conversation, *, serving: bool) -> None:
    cheat = talk.network.dishonest[0]
    good = next((row.path for row in talk.rows if row.outcome == "holds" and row.path), None)
    bad = next((row.path for row in talk.rows if row.outcome == "fails" and row.path), None)
    other = "temperature" if cheat.cheat != "temperature" else "other-model"
    steps: list[tuple[str, str]] = []
    if good is not None:
        steps.append(("check an answer yourself, offline, in another process", f"verify {_short(good)}"))
    if bad is not None:
        steps.append(("see how the cheat gave itself away", f"verify {_short(bad)}"))
    if not serving:
        steps.append(("see all of it in a browser: chat, receipts, and the dispute move by move", "demo --serve"))
    steps += [
        ("let it cheat otherwise (--cheats lists the ways)", f"demo --cheat {other}"),
        ("run a node of your own, then chat with it", "up"),
    ]
    program = _program()
    console.print("\n[bold]Try next[/]")
    for why, command in steps:
        console.print(Text.assemble((f"  {why}:\n", "dim"), (f"    {program} {command}", "bold")), soft_wrap=True)


def _program() -> str:
    """How this program is called from a shell here."""
    if shutil.which("assay"):
        return "assay"
    script = Path(sys.argv[0])
    return _short(script.absolute()) if script.stem == "assay" else f"{sys.executable} -m assay.apps.cli"


def _short(path: Path) -> str:
    """The path as one would type it here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
