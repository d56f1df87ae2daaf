"""The open disputes that concern a key, with all their states: read from blocks that count, each time anew.

Nothing is kept but what is quicker to remember than to ask again, so that restarts and reorganisations change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from assay.chain.court import DAY, CourtClient
from assay.chain.court_events import (
    CHALLENGER,
    CHALLENGER_WINS,
    PROVER_WINS,
    VOID,
    Happening,
    Shown,
    Slashing,
    read_ended,
    read_moved,
    read_opened,
    read_slashed,
)
from assay.chain.dispute import Dispute
from assay.chain.events import MAX_BLOCKS
from assay.chain.node import Entry, Head, NodeRefused
from assay.core.errors import ChainFailed
from assay.core.hashing import Digest
from assay.core.keys import Address
from assay.core.receipt import Receipt

_STATES: Final = {PROVER_WINS: "provider won", CHALLENGER_WINS: "challenger won", VOID: "void"}
_OLDEST: Final = 60 * DAY
"""Seconds for which one can be open while somebody cares: a vault is frozen no longer."""
_EARLY: Final = 2 * 3600
"""Seconds by which a receipt may be dated ahead of the chain, and more."""


@dataclass(slots=True)
class Case:
    """An open dispute."""

    dispute: Dispute
    """As it is now, in blocks that may be taken back too."""
    first: Shown
    """Its first state, which may be in such a block."""
    kept: Digest
    """What the court keeps of it now."""
    next: int
    """The block up to which events were read."""
    history: list[Shown] = field(default_factory=list)
    """Its states in blocks that count, the first one first. Of a demand: one, empty."""
    gone: int | None = None
    """The latest block when it was first seen to be over."""
    trouble: str = ""
    """Why not all is known."""

    @property
    def complete(self) -> bool:
        """All its states are known, and the present one is in a block that counts."""
        known = len(self.history) == self.dispute.moves + 1 and self.dispute.digest == self.kept
        return self.gone is None and known


@dataclass(frozen=True, slots=True)
class Ending:
    """A dispute that was open, and is no more."""

    dispute: Dispute
    turn: int
    """How it ended: see `court_events.PROVER_WINS`."""
    transaction: bytes
    slashed: Slashing | None


class Docket:
    """Follows the disputes in which a key is a side."""

    def __init__(self, court: CourtClient) -> None:
        """`court`: the key's view."""
        self._court: Final = court
        self._node: Final = court.node
        self._cases: Final[dict[int, Case]] = {}
        self.endings: Final[list[Ending]] = []
        """Of disputes that were open at an earlier look: for the caller to take away."""
        self.unread: Final[set[int]] = set()
        """Numbers of disputes that are open, and whose beginning cannot be read."""

    def look(self, known: Iterable[int] = ()) -> list[Case]:
        """The open disputes of the key, by their deadlines; `known`: numbers of those that it opened.

        Raises:
            ChainFailed: the chain cannot be asked which there are; nothing is lost.
        """
        own = self._court.address
        running = self._court.running(own)
        head, last = self.heads()
        self.unread.clear()
        for number in {*self._cases, *known}:
            self._note(number, self._court.dispute(number), head, last)
        missing = running - sum(each.gone is None and each.dispute.provider == own for each in self._cases.values())
        if missing > 0:
            for dispute, _ in self._openings([None, _indexed(own)], head):
                kept = None if dispute.id in self._cases else self._court.dispute(dispute.id)
                if kept is not None:
                    self._note(dispute.id, kept, head, last)
                    missing -= 1
                    if missing == 0:
                        break
        for case in self._cases.values():
            case.trouble = ""
            try:
                self._read(case, head, last)
            except ChainFailed as error:  # one dispute must not hold up the others
                case.trouble = error.message
        return sorted(self._cases.values(), key=lambda case: case.dispute.deadline)

    def produced(self, receipt: Receipt) -> bytes | None:
        """What was produced for a demand, whoever made it; None: nothing, or this node cannot tell.

        Raises:
            ChainFailed: the chain cannot be asked.
        """
        _, last = self.heads()
        first = self.block_at(receipt.issued - _EARLY, last)
        for opened in self.events("Opened", first, last, [None, None, receipt.digest]):
            for ended in self.events("Ended", opened.block, last, opened.topics[1:2]):
                if read_ended(ended) == PROVER_WINS:
                    number = int.from_bytes(ended.topics[1], "big")
                    if (found := self._court.produced(ended.transaction, number)) is not None:
                        return found
        return None

    def heads(self) -> tuple[Head, Head]:
        """The latest block, and the latest one that counts."""
        head = self._node.head()
        if self._court.confirmations == 0:
            return head, head
        return head, self._node.head(max(0, head.number - self._court.confirmations))

    def _openings(self, indexed: Sequence[bytes | None], head: Head) -> Iterator[tuple[Dispute, Shown]]:
        """What was opened, the latest first, as far back as anybody may care; `indexed`: see `Node.logs`."""
        stop = head
        while True:
            first = max(0, stop.number - MAX_BLOCKS + 1)
            for entry in reversed(self.events("Opened", first, stop, indexed)):
                try:
                    yield read_opened(entry)
                except ChainFailed:
                    self.unread.add(int.from_bytes(entry.topics[1], "big"))
            if first == 0:
                return
            stop = self._node.head(first - 1)
            if stop.timestamp < head.timestamp - _OLDEST:
                return

    def _note(self, number: int, kept: Digest | None, head: Head, last: Head) -> None:
        """What a number stands for now."""
        case = self._cases.get(number)
        if kept is None or (case is not None and case.history):
            found = None
        else:  # what is in no block that counts may be another one by now
            found = next(self._openings([_topic(number)], head), None)
            if found is None:
                self.unread.add(number)
                return
        over = kept is None or (found is not None and case is not None and not _same(found[0], case.dispute))
        if case is not None and over:
            case.gone = head.number if case.gone is None else case.gone
            if not self._close(case, last):
                return
            case = None
        if kept is None:
            return
        if found is not None and self._court.address in (found[0].provider, found[0].challenger):
            case = self._cases[number] = Case(*found, kept, found[1].block)
        if case is not None:
            case.kept, case.gone = kept, None

    def _read(self, case: Case, head: Head, last: Head) -> None:
        """Events that are not known yet."""
        if case.complete or case.gone is not None:
            return
        moved = self.events("Moved", case.next, head, [_topic(case.dispute.id)])
        states = [*(case.history or [case.first]), *map(read_moved, moved)]
        case.history = [each for each in states if each.block <= last.number]
        case.next = last.number + 1 if case.history else case.first.block
        case.dispute = case.dispute.after(states[-1])
        if case.dispute.digest != case.kept:  # blocks were taken back, or one has come meanwhile: anew at the next look
            case.history = []

    def _close(self, case: Case, last: Head) -> bool:
        """Whether a dispute that is over is so in a block that counts, or was opened in one that was taken back."""
        ended = self.events("Ended", min(case.first.block, last.number), last, [_topic(case.dispute.id)])
        if ended:
            slashed = self._court.happened("Slashed", ended[-1].block, ended[-1].block)
            mine = [each for each in slashed if each.transaction == ended[-1].transaction]
            loss = read_slashed(mine[0]) if mine else None
            self.endings.append(Ending(case.dispute, read_ended(ended[-1]), ended[-1].transaction, loss))
        elif case.gone is None or last.number < case.gone:
            return False
        del self._cases[case.dispute.id]
        return True

    def events(self, what: Happening, first: int, last: Head, indexed: Sequence[bytes | None]) -> list[Entry]:
        """Of blocks `first` to `last`, asked for in pieces that the node likes; `indexed`: see `Node.logs`."""
        found: list[Entry] = []
        at, most = first, MAX_BLOCKS
        while at <= last.number:
            stop = min(at + most - 1, last.number)
            try:
                found += self._court.happened(what, at, stop, indexed)
            except NodeRefused:  # most refuse to look through many blocks
                if most == 1:
                    raise
                most = max(1, most // 4)
                continue
            at = stop + 1
        return found

    def block_at(self, time: int, last: Head) -> int:
        """The first block that is not earlier than a time, or the last one: several may be of one second."""
        low, high = 0, last.number
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self._node.head(middle).timestamp >= time else (middle + 1, high)
        return low


def overview(court: CourtClient, seconds: int) -> list[dict[str, object]]:
    """The disputes that were opened in the last so many seconds, and what became of them; for people and scripts.

    Raises:
        ChainFailed: the chain cannot be asked.
    """
    docket = Docket(court)
    _, last = docket.heads()
    first = docket.block_at(last.timestamp - seconds, last)
    ended = {each.topics[1]: read_ended(each) for each in docket.events("Ended", first, last, [])}
    found: list[dict[str, object]] = []
    for entry in docket.events("Opened", first, last, []):
        dispute, begun = read_opened(entry)
        how = ended.get(entry.topics[1])
        for moved in docket.events("Moved", entry.block, last, [entry.topics[1]]) if how is None else ():
            dispute = dispute.after(read_moved(moved))
        found.append({
            "id": dispute.id,
            "state": "open" if how is None else _STATES[how],
            "turn": ("provider", "challenger")[dispute.turn == CHALLENGER] if how is None else "",
            "moves": dispute.moves if how is None else None,
            "deadline": dispute.deadline if how is None else None,
            "kind": "dispute" if begun.state else "demand",
            "provider": dispute.provider,
            "challenger": dispute.challenger,
            "receipt": dispute.receipt.hex(),
        })  # fmt: skip
    return found


def _same(one: Dispute, other: Dispute) -> bool:
    """Whether a number still stands for the same dispute."""
    return (one.receipt, one.provider, one.challenger) == (other.receipt, other.provider, other.challenger)


def _topic(number: int) -> bytes:
    return number.to_bytes(32, "big")


def _indexed(who: Address) -> bytes:
    return bytes.fromhex(who[2:]).rjust(32, b"\0")
