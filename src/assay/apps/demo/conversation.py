"""Asking the questions through the gateway, and matching answers with what the validator finds."""

from __future__ import annotations

import queue
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from assay.apps.client import Answered, Client, Wish
from assay.apps.demo.money import Bill
from assay.apps.demo.network import Network, Provider
from assay.apps.demo.questions import Question
from assay.core.errors import AssayError, EngineError, NoProvider
from assay.core.request import LEVELS
from assay.core.verdict import Outcome
from assay.market.health import Record

_VERDICT_SECONDS: Final = 90.0
"""Longest wait for the next verdict when everything has been asked."""
_AGAIN: Final = 4
"""Most further questions to a cheat that was not caught yet."""
_REFUSED: Final = ("does not hold", "as the protocol says")
"""The gateway says this of receipts and streams of liars; anything else is a failure, which may be nobody's fault."""
_ADDRESS: Final = re.compile(r"0x[0-9a-f]{40}")


@dataclass(slots=True)
class Row:
    """One answer and what was found about it."""

    number: int
    """From 1."""
    question: Question
    provider: str
    """The provider's name in the demonstration."""
    tokens: int = 0
    rate: float = 0.0
    """Tokens per second."""
    seconds: float = 0.0
    cost: int = 0
    """Wei."""
    receipt: str = ""
    """The receipt's digest in hexadecimal; empty if the gateway refused it."""
    path: Path | None = None
    """The receipt's file."""
    outcome: Outcome | None = None
    """None until the check is made."""
    level: str = ""
    """At which the check was made."""
    reason: str = ""
    """Why it does not hold, or could not be checked."""
    check_seconds: float = 0.0

    @property
    def share(self) -> float:
        """What the check cost, as a share of generating."""
        return self.check_seconds / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, object]:
        """For scripts."""
        return {
            "number": self.number,
            "question": self.question.text,
            "language": self.question.language,
            "provider": self.provider,
            "level": self.level or self.question.level,
            "tokens": self.tokens,
            "tokens_per_second": round(self.rate, 1),
            "seconds": round(self.seconds, 3),
            "check_seconds": round(self.check_seconds, 3),
            "check_share": round(self.share, 3),
            "verdict": self.outcome,
            "reason": self.reason,
            "cost_wei": str(self.cost),
            "receipt": self.receipt,
            "file": str(self.path) if self.path else None,
        }


class Watcher(Protocol):
    """Sees what happens, and shows it."""

    def asking(self, number: int, question: Question, *, again: bool) -> None:
        """A question goes out."""
        ...

    def piece(self, text: str) -> None:
        """A piece of its answer came."""
        ...

    def answered(self, row: Row) -> None:
        """The answer has ended; its check is still to come if `row.outcome` is None."""
        ...

    def judged(self, row: Row) -> None:
        """The check of an answer is made."""
        ...

    def waiting(self, count: int) -> None:
        """So many checks are still to come."""
        ...


@dataclass(slots=True)
class Conversation:
    """Everything asked so far."""

    network: Network
    client: Client
    watcher: Watcher
    folder: Path
    """For the receipts."""
    model: str
    rows: list[Row] = field(default_factory=list)

    def ask_all(self, questions: Sequence[Question]) -> None:
        """Ask everything, wait for the checks; if nothing stands against a cheat so far, ask it more.

        Raises:
            EngineError: a process of the network has died.
        """
        for question in questions:
            self._ask(question)
        self._wait()
        for cheat in self.network.dishonest:
            strict = "exact" if cheat.engine == "exact" else "pinned"
            again = [question for question in questions if question.level == strict] or list(questions)
            for turn in range(_AGAIN):
                if self.caught(cheat) or self.demoted(cheat):
                    break
                self._ask(again[turn % len(again)], only=[cheat.address])
                self._wait()

    def caught(self, cheat: Provider) -> Row | None:
        """The first answer of a cheat that did not hold."""
        return next((row for row in self.rows if row.provider == cheat.name and row.outcome == "fails"), None)

    def demoted(self, cheat: Provider) -> bool:
        """A cheat claims what cannot be recomputed here, and the gateway asks it last for that."""
        found = Counter((row.level, row.outcome) for row in self.rows if row.provider == cheat.name and row.receipt)
        return cheat.caught_by == "ranking" and any(
            Record(held={level: found[level, "holds"]}, inconclusive={level: found[level, "inconclusive"]}).uncheckable(
                level
            )
            for level in LEVELS
        )

    def _ask(self, question: Question, only: Sequence[str] = ()) -> None:
        number = len(self.rows) + 1
        self.watcher.asking(number, question, again=bool(only))
        wish = Wish(
            model=self.model,
            messages=[{"role": "user", "content": question.text}],
            max_tokens=question.max_tokens,
            temperature=question.temperature,
            top_p=question.top_p,
            level=question.level,
            only=only,
        )
        started = time.monotonic()
        try:
            with self.client.ask(wish) as stream:
                for piece in stream:
                    self.watcher.piece(piece)
            assert stream.answered is not None  # a stream without an end has raised
            row = self._keep(number, question, stream.answered)
        except NoProvider as error:
            row = Row(number, question, "nobody", outcome="inconclusive", reason=error.message)
        except EngineError:  # the network itself is broken
            raise
        except AssayError as error:
            row = self._refused(number, question, error, time.monotonic() - started, only)
        self.rows.append(row)
        self.watcher.answered(row)
        self._collect()
        self.network.check_alive()

    def _keep(self, number: int, question: Question, answered: Answered) -> Row:
        receipt = answered.receipts[0]
        name = self.network.name(receipt.provider)
        path = self.folder / f"{number:02}-{name}.json"
        path.write_bytes(b"".join(part.encode() for part in self.client.parts(answered)))
        return Row(
            number,
            question,
            name,
            answered.tokens,
            answered.rate,
            answered.seconds,
            self.client.cost(answered, self.model) or 0,
            receipt.digest.hex(),
            path,
        )

    def _refused(
        self, number: int, question: Question, error: AssayError, seconds: float, only: Sequence[str] = ()
    ) -> Row:
        """The gateway would not take what a provider gave; its message names the provider."""
        said = str(error)
        known = {provider.address: provider.name for provider in self.network.providers}
        named = next((known[found] for found in (*_ADDRESS.findall(said), *only) if found in known), "nobody")
        outcome: Outcome = "fails" if named != "nobody" and any(words in said for words in _REFUSED) else "inconclusive"
        return Row(number, question, named, seconds=seconds, outcome=outcome, level="signed", reason=said)

    def _collect(self) -> None:
        """Take in the verdicts that have come."""
        while True:
            try:
                self._judge(self.network.verdicts.get_nowait())
            except queue.Empty:
                return

    def _wait(self) -> None:
        """Until every receipt has its verdict."""
        until = time.monotonic() + _VERDICT_SECONDS
        while (open_rows := [row for row in self.rows if row.outcome is None]) and time.monotonic() < until:
            self.watcher.waiting(len(open_rows))
            try:
                self._judge(self.network.verdicts.get(timeout=0.25))
                until = time.monotonic() + _VERDICT_SECONDS
            except queue.Empty:
                self.network.check_alive()

    def _judge(self, verdict: Mapping[str, object]) -> None:
        row = next((row for row in self.rows if row.receipt == verdict.get("receipt")), None)
        if row is None or row.outcome is not None:
            return
        outcome, reasons, seconds = verdict.get("outcome"), verdict.get("reasons"), verdict.get("seconds")
        row.outcome = outcome if outcome in ("holds", "fails") else "inconclusive"
        row.reason = str(reasons[0]) if isinstance(reasons, list) and reasons else ""
        row.level = str(verdict.get("level"))
        row.check_seconds = float(seconds) if isinstance(seconds, int | float) else 0.0
        self.watcher.judged(row)


def summary(talk: Conversation, bill: Bill, seconds: float) -> dict[str, object]:
    """The whole demonstration as one JSON object."""
    rows, cheats = talk.rows, talk.network.dishonest
    ours = [row for row in rows if row.provider not in {cheat.name for cheat in cheats}]
    return {
        "requests": len(rows),
        "verified": sum(row.outcome == "holds" for row in rows),
        "false_alarms": sum(row.outcome == "fails" for row in ours),
        "inconclusive": sum(row.outcome not in ("holds", "fails") for row in rows),
        "cheats": [_told(talk, cheat) for cheat in cheats],
        "providers": [{"name": it.name, "address": it.address, "cheat": it.cheat} for it in talk.network.providers],
        "receipts": _files(rows, "holds"),
        "exhibits": _files(rows, "fails"),
        "answers": [row.to_json() for row in rows],
        "chain": bill.to_json(),
        "seconds": round(seconds, 1),
    }


def _told(talk: Conversation, cheat: Provider) -> dict[str, object]:
    caught, theirs = talk.caught(cheat), [row for row in talk.rows if row.provider == cheat.name]
    unclear = next((row for row in theirs if row.outcome == "inconclusive"), None)
    return {
        "kind": cheat.cheat,
        "does": cheat.does,
        "provider": cheat.address,
        "name": cheat.name,
        "caught": caught is not None,
        "caught_by": cheat.caught_by,
        "asked_last": talk.demoted(cheat),
        "reason": caught.reason if caught else unclear.reason if unclear else "",
        "answers": len(theirs),
    }


def _files(rows: Sequence[Row], outcome: Outcome) -> list[str]:
    return [str(row.path) for row in rows if row.outcome == outcome and row.path]
