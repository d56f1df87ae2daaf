"""What a court has decided and is deciding, for everybody to read: all disputes of some time, whoever is a side.

Read from events, in few requests however many ask; blocks that may be taken back are read again. The newest come first:
earlier blocks are read bit by bit, look by look.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from assay.chain.court import DAY, CourtClient
from assay.chain.court_events import (
    CHALLENGER_WINS,
    PROVER_WINS,
    VOID,
    Happening,
    Slashing,
    read_ended,
    read_moved,
    read_opened,
    read_slashed,
)
from assay.chain.dispute import Dispute, Shown
from assay.chain.docket import Docket
from assay.chain.events import MAX_BLOCKS
from assay.chain.node import Entry, Head
from assay.core.errors import AssayError, ChainFailed, NotFound
from assay.core.hashing import Digest
from assay.core.keys import Address

PAST: Final = 60 * DAY
"""Seconds that are read back."""
MOST_CASES: Final = 2_000
"""That are kept, the newest ones."""
MOST_BLOCKS: Final = 20 * MAX_BLOCKS
"""That one look reads."""
FRESH: Final = 3.0
"""Seconds for which what was read is not read again, and for which one look reads earlier blocks."""
State: TypeAlias = Literal["open", "provider", "challenger", "void"]
"""Of a case: under way, or who has won it."""
Kind: TypeAlias = Literal["dispute", "demand", "equivocation"]
Place: TypeAlias = tuple[int, int]
"""A block, and an event's place in it."""
_STATES: Final[Mapping[int, State]] = {PROVER_WINS: "provider", CHALLENGER_WINS: "challenger", VOID: "void"}
_READ: Final[tuple[Happening, ...]] = ("Opened", "Moved", "Ended", "Slashed")


@dataclass(frozen=True, slots=True)
class Case:
    """One dispute, or two receipts under one number, as far as it has gone."""

    name: str
    """The dispute's number; of a contradiction, the transaction and the event's place in its block."""
    kind: Kind
    provider: Address
    challenger: Address
    begun: Entry
    """The event with which it begins."""
    receipt: Digest | None = None
    dispute: Dispute | None = None
    """As it is now; None: a contradiction, which is decided at once."""
    shown: tuple[Shown, ...] = ()
    """Its states, the first one first."""
    moved: tuple[Entry, ...] = ()
    """The events that told all of them but the first."""
    ended: Entry | None = None
    state: State = "open"
    slashing: Slashing | None = None

    @property
    def place(self) -> Place:
        """Where it begins."""
        return self.begun.block, self.begun.index

    @property
    def at(self) -> int | None:
        """When it was opened, Unix seconds; None: only the block tells."""
        return None if self.dispute is None else self.shown[0].deadline - self.dispute.window

    def concerns(self, who: str) -> bool:
        """Whether it is over a receipt, or an address is a side of it: in lower case, of the receipt the beginning."""
        receipt = "" if self.receipt is None else self.receipt.hex()
        return who in (self.provider, self.challenger) or receipt.startswith(who.removeprefix("0x"))


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a court."""

    cases: tuple[Case, ...] = ()
    """The newest first."""
    head: Head | None = None
    """The latest block; None: nothing was read yet."""
    back: int = 0
    """The first block that was read."""
    whole: bool = False
    """Whether that is as far back as is wanted."""
    trouble: AssayError | None = None
    """Why nothing newer is known."""


@dataclass(slots=True)
class _File:
    """Events of one dispute."""

    opened: Entry | None = None
    moved: list[Entry] = field(default_factory=list)
    ended: Entry | None = None
    slashed: Entry | None = None

    def last(self) -> int:
        """The block of its last event."""
        return max(each.block for each in (self.opened, *self.moved, self.ended) if each is not None)

    def cut(self, block: int) -> None:
        """Forget what happened from a block on."""
        self.moved = [each for each in self.moved if each.block < block]
        if self.ended is not None and self.ended.block >= block:
            self.ended = self.slashed = None
        if self.opened is not None and self.opened.block >= block:
            self.opened = None

    @property
    def empty(self) -> bool:
        """Nothing is known of it."""
        return self.opened is None and self.ended is None and not self.moved


class History:
    """For use from several threads: one at a time asks the chain."""

    def __init__(self, court: Callable[[], CourtClient], *, clock: Callable[[], float] = time.monotonic) -> None:
        """`court`: gives it, or raises an AssayError; asked again until there is one. `clock`: seconds."""
        self.seen = Seen()
        """What the last look found."""
        self._open: Final = court
        self._clock: Final = clock
        self._court: CourtClient | None = None
        self._lock: Final = threading.Lock()
        self._looked = float("-inf")
        self._forget()

    def court(self) -> CourtClient:
        """The one that is read.

        Raises:
            AssayError: there is none, or its chain cannot be asked.
        """
        if self._court is None:
            self._court = self._open()
        return self._court

    def look(self) -> Seen:
        """Read what is new, unless that was done just now. Nothing is raised: see `Seen.trouble`."""
        with self._lock:
            if self._clock() - self._looked >= FRESH:
                head, trouble = self.seen.head, None
                try:
                    head = self._read(self.court())
                except AssayError as error:
                    trouble = error
                self.seen = Seen(self._newest(), head, self._back, self._whole, trouble)
                self._looked = self._clock()
            return self.seen

    def case(self, name: str) -> Case:
        """One of those that the last look found.

        Raises:
            NotFound: there is none of this name.
        """
        found = next((case for case in self.seen.cases if case.name == name), None)
        if found is None:
            raise NotFound("the court has no such case, or it is older than what is read", "see the list of its cases")
        return found

    def _newest(self) -> tuple[Case, ...]:
        """Cases, the newest first; those that are too many are forgotten."""
        cases = sorted(self._cases.values(), key=lambda case: case.place, reverse=True)
        for case in cases[MOST_CASES:]:
            del self._cases[case.name]
            if case.dispute is not None:
                del self._files[case.dispute.id]
        if self._whole:  # nobody will read how those began
            self._files = {number: file for number, file in self._files.items() if file.opened is not None}
        return tuple(cases[:MOST_CASES])

    def _forget(self) -> None:
        self._files: dict[int, _File] = {}
        self._cases: dict[str, Case] = {}
        self._next: int | None = None
        """The block to go on with."""
        self._mark: Head | None = None
        """The one before, by whose hash it is seen whether the chain is still the same."""
        self._back = 0
        self._whole = False

    def _read(self, court: CourtClient) -> Head:
        docket, node = Docket(court), court.node
        head, last = docket.heads()
        if self._mark is not None and (
            head.number < self._mark.number or node.head(self._mark.number).hash != self._mark.hash
        ):
            self._forget()  # more was taken back than should be, or it is another chain
        if self._next is None:
            self._next = self._back = last.number + 1
        first = self._next
        stop = head if head.number < first + MOST_BLOCKS else node.head(first + MOST_BLOCKS - 1)
        found = self._events(docket, first, stop)
        settled = min(stop.number, last.number)
        mark = last if settled == last.number else stop
        self._cut(first)
        self._file(found)
        self._next, self._mark = settled + 1, mark
        until = self._clock() + FRESH
        while not self._whole:
            before = max(0, self._back - MAX_BLOCKS)
            start = node.head(before)
            self._file(self._events(docket, before, Head(self._back - 1, b"", 0, 0)))
            self._back = before
            late = start.timestamp < head.timestamp - PAST
            self._whole = late or before == 0 or len(self._cases) >= MOST_CASES
            if self._clock() >= until:
                break
        return head

    @staticmethod
    def _events(docket: Docket, first: int, stop: Head) -> list[tuple[Happening, Entry]]:
        return [(what, each) for what in _READ for each in docket.events(what, first, stop, [])]

    def _cut(self, block: int) -> None:
        """Forget what happened from a block on."""
        for number, file in [each for each in self._files.items() if each[1].last() >= block]:
            file.cut(block)
            if file.empty:
                del self._files[number]
            self._tell(number)
        for name, case in list(self._cases.items()):
            if case.dispute is None and case.begun.block >= block:
                del self._cases[name]

    def _file(self, events: Sequence[tuple[Happening, Entry]]) -> None:
        """Take in what has happened in some blocks, all of it."""
        slashed = [each for what, each in events if what == "Slashed"]
        touched = set[int]()
        for what, each in events:
            if what == "Slashed":
                continue
            number = int.from_bytes(each.topics[1], "big") if len(each.topics) > 1 else 0
            file = self._files.setdefault(number, _File())
            touched.add(number)
            if what == "Opened":
                file.opened = each
            elif what == "Moved":
                file.moved = sorted([*file.moved, each], key=lambda entry: (entry.block, entry.index))
            else:
                file.ended, file.slashed = each, _take(slashed, each)
        for number in touched:
            self._tell(number)
        for each in slashed:  # by no dispute: two receipts under one number
            try:
                loss = read_slashed(each)
            except ChainFailed:
                continue
            name = f"{each.transaction.hex()}-{each.index}"
            self._cases[name] = Case(
                name, "equivocation", loss.provider, loss.challenger, each, state="challenger", slashing=loss
            )

    def _tell(self, number: int) -> None:
        """Make a case of the events of a dispute: of those from its beginning on."""
        name, file = str(number), self._files.get(number)
        self._cases.pop(name, None)
        if file is None or file.opened is None:
            return
        try:
            dispute, first = read_opened(file.opened)
            shown = [first, *map(read_moved, file.moved)]
            state: State = "open" if file.ended is None else _STATES.get(read_ended(file.ended), "void")
            loss = None if file.slashed is None else read_slashed(file.slashed)
        except ChainFailed:  # no event of this court
            return
        self._cases[name] = Case(
            name,
            "dispute" if first.state else "demand",
            dispute.provider,
            dispute.challenger,
            file.opened,
            dispute.receipt,
            dispute.after(shown[-1]),
            tuple(shown),
            tuple(file.moved),
            file.ended,
            state,
            loss,
        )


def _take(slashed: list[Entry], ended: Entry) -> Entry | None:
    """Out of all slashings the one with which a dispute ended: the last one before, in the same transaction."""
    if int.from_bytes(ended.data, "big") != CHALLENGER_WINS:
        return None
    own = [each for each in slashed if each.transaction == ended.transaction and each.index < ended.index]
    if not own:
        return None
    slashed.remove(own[-1])
    return own[-1]
