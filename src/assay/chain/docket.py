"""The open disputes that concern a key, with all their states: read from blocks that count, each time anew.

Nothing is kept but what is quicker to remember than to ask again, so that restarts and reorganisations change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from assay.chain.court import CourtClient, Dispute
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
from assay.chain.events import MAX_BLOCKS
from assay.chain.node import Entry, Head, NodeRefused
from assay.core.errors import ChainFailed
from assay.core.keys import keccak256
from assay.core.receipt import Receipt

_STATES: Final = {PROVER_WINS: "provider won", CHALLENGER_WINS: "challenger won", VOID: "void"}
_EARLY: Final = 2 * 3600
"""Seconds by which a receipt may be dated ahead of the chain, and more."""


@dataclass(slots=True)
class Case:
    """An open dispute."""

    dispute: Dispute
    """As it is now, in blocks that may be taken back too."""
    history: list[Shown] = field(default_factory=list)
    """Its states in blocks that count, the first one first. Of a demand: one, empty."""
    next: int = 0
    """The block up to which events were read."""
    gone: int | None = None
    """The latest block when it was first seen to be over."""
    trouble: str = ""
    """Why not all is known."""

    @property
    def complete(self) -> bool:
        """All its states are known, and the present one is in a block that counts."""
        dispute, history = self.dispute, self.history
        if self.gone is not None or len(history) != dispute.moves + 1:
            return False
        return dispute.demanded or keccak256(history[-1].state) == dispute.state


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

    def look(self, known: Iterable[int] = ()) -> list[Case]:
        """The open disputes of the key, by their deadlines; `known`: numbers of those that it opened.

        Raises:
            ChainFailed: the chain cannot be asked which there are; nothing is lost.
        """
        head, last = self.heads()
        found = {number: self._court.dispute(number) for number in {*self._cases, *known}}
        missing = self._court.running(self._court.address) - sum(map(self._is_against_us, found.values()))
        number = self._court.count() if missing > 0 else 0
        while missing > 0 and number > 0:
            if number not in found:
                found[number] = dispute = self._court.dispute(number)
                missing -= self._is_against_us(dispute)
            number -= 1
        for number, dispute in found.items():
            self._note(number, dispute, head, last)
        for case in self._cases.values():
            case.trouble = ""
            try:
                self._read(case, last)
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

    def _is_against_us(self, dispute: Dispute | None) -> bool:
        return dispute is not None and dispute.provider == self._court.address

    def heads(self) -> tuple[Head, Head]:
        """The latest block, and the latest one that counts."""
        head = self._node.head()
        if self._court.confirmations == 0:
            return head, head
        return head, self._node.head(max(0, head.number - self._court.confirmations))

    def _note(self, number: int, dispute: Dispute | None, head: Head, last: Head) -> None:
        """What a number stands for now."""
        case = self._cases.get(number)
        if case is not None and (dispute is None or not _same(dispute, case.dispute)):
            case.gone = head.number if case.gone is None else case.gone
            if not self._close(case, last):
                return
            case = None
        if dispute is None or self._court.address not in (dispute.provider, dispute.challenger):
            return
        if case is None:
            case = self._cases[number] = Case(dispute)
        case.dispute, case.gone = dispute, None

    def _read(self, case: Case, last: Head) -> None:
        """Events that are not known yet."""
        dispute = case.dispute
        if not case.history:
            case.next = self._opened_after(dispute, last)
            case.history += [
                read_opened(each) for each in self.events("Opened", case.next, last, [_topic(dispute.id)])
            ][-1:]
            if not case.history:
                return
            case.next = case.history[0].block
        if len(case.history) <= dispute.moves:
            case.history += [read_moved(each) for each in self.events("Moved", case.next, last, [_topic(dispute.id)])]
            case.next = last.number + 1
        if len(case.history) > dispute.moves and not case.complete:
            case.history.clear()  # of blocks that were taken back: all anew at the next look

    def _close(self, case: Case, last: Head) -> bool:
        """Whether a dispute that is over is so in a block that counts, or was opened in one that was taken back."""
        first = case.history[0].block if case.history else self._opened_after(case.dispute, last)
        ended = self.events("Ended", min(first, last.number), last, [_topic(case.dispute.id)])
        if ended:
            slashed = self._court.happened("Slashed", ended[-1].block, ended[-1].block)
            mine = [each for each in slashed if each.transaction == ended[-1].transaction]
            loss = read_slashed(mine[0]) if mine else None
            self.endings.append(Ending(case.dispute, read_ended(ended[-1]), ended[-1].transaction, loss))
        elif case.gone is None or last.number < case.gone:
            return False
        del self._cases[case.dispute.id]
        return True

    def _opened_after(self, dispute: Dispute, last: Head) -> int:
        """A block before which it was not there: each move came within the window after the one before."""
        return self.block_at(dispute.deadline - (dispute.moves + 1) * dispute.window, last)

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
        number = int.from_bytes(entry.topics[1], "big")
        dispute = None if entry.topics[1] in ended else court.dispute(number)
        found.append({
            "id": number,
            "state": _STATES[ended[entry.topics[1]]] if entry.topics[1] in ended else "open",
            "turn": "" if dispute is None else ("provider", "challenger")[dispute.turn == CHALLENGER],
            "moves": None if dispute is None else dispute.moves,
            "deadline": None if dispute is None else dispute.deadline,
            "kind": "demand" if not read_opened(entry).state else "dispute",
            "provider": "0x" + entry.topics[2][12:].hex(),
            "challenger": "0x" + entry.data[12:32].hex(),
            "receipt": entry.topics[3].hex(),
        })  # fmt: skip
    return found


def _same(one: Dispute, other: Dispute) -> bool:
    """Whether a number still stands for the same dispute."""
    return (one.receipt, one.provider, one.challenger) == (other.receipt, other.provider, other.challenger)


def _topic(number: int) -> bytes:
    return number.to_bytes(32, "big")
