"""What both sides of disputes do: follow those that are open, move in time, claim victory over silence, collect."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

from structlog.typing import FilteringBoundLogger

from assay.apps.disputes.seat import Seat, challenge_of, terms_of
from assay.apps.disputes.sending import done, free_name, has_failed
from assay.apps.disputes.workbench import Workbench
from assay.chain.court import CourtClient
from assay.chain.court_events import CHALLENGER, CHALLENGER_WINS, PROVER, PROVER_WINS
from assay.chain.dispute import Shown
from assay.chain.docket import Case, Docket, Ending
from assay.chain.game import read_state
from assay.core.bundle import Bundle
from assay.core.errors import AssayError
from assay.core.hashing import Digest
from assay.core.voucher import Terms

Find: TypeAlias = Callable[[Digest], Bundle | None]
"""A receipt by its digest, with what it covers; None: it is not here."""
Happened: TypeAlias = Literal["opened", "won", "lost", "void", "answered"]
"""`answered`: what was demanded is there."""
COLLECT_GAS: Final = 60_000


class Counts(Protocol):
    """Whoever counts what happens in disputes."""

    def dispute(self, side: int, what: str) -> None:
        """One was opened, or has ended: see `Happened`."""
        ...

    def slashed(self, side: int, wei: int) -> None:
        """So much was lost by a provider."""
        ...


@dataclass(frozen=True, slots=True)
class Means:
    """What a side needs."""

    court: CourtClient
    find: Find
    bench: Workbench
    log: FilteringBoundLogger
    counts: Counts
    channel: Callable[[Digest], Terms | None] = lambda _: None
    """Terms of a channel by its id, if they are known."""
    clock: Callable[[], float] = time.time
    """Unix seconds."""
    gas_worth: float = 1.0
    """Wei of the token for a wei of what gas is paid in; 0: gas costs nothing."""


class Stuck(AssayError):
    """A side cannot move now."""


class _Name(NamedTuple):
    receipt: Digest
    passes: int | None


class Party:
    """One key as one side of all its disputes. For one thread."""

    def __init__(self, means: Means, side: int) -> None:
        """`side`: PROVER or CHALLENGER."""
        self.court: Final = means.court
        self.docket: Final = Docket(means.court)
        self._means: Final = means
        self._log: Final = means.log
        self._side: Final = side
        self._outbox: Final = means.court.client.outbox
        self._seats: Final[dict[int, Seat]] = {}
        self._holder: _Name | None = None
        self._known: Final[set[int]] = set()
        self._told: Final[dict[int, str]] = {}
        """The last failure in each dispute, so that it is logged once."""

    def play(self, cases: list[Case], special: Callable[[Case], None]) -> None:
        """Do what is to be done in each, whatever happens in the others; `special` answers a demand.

        Raises:
            ChainFailed: the chain cannot be asked for the time.
        """
        now = self.now()
        for case in cases:
            number = case.dispute.id
            if number not in self._known:
                self._known.add(number)
                self._means.counts.dispute(self._side, "opened")
                self._say("dispute_opened", case)
            if case.trouble:
                self.fail(case, case.trouble)
            try:
                if case.complete and not self._is_ended_by_time(case, now):
                    if case.dispute.demanded:
                        special(case)
                    elif case.dispute.turn == self._side:
                        self._move(case, now)
            except AssayError as error:
                self._seats.pop(number, None)
                self.fail(case, error.message)
            except Exception as error:  # noqa: BLE001 - one dispute must not hold up the others
                self._seats.pop(number, None)
                self._log.exception("dispute_failed", dispute=number)
                self.fail(case, f"{type(error).__name__}: {error}")
        for ending in self._take_endings():
            self._report(ending)
        if not cases:
            self._holder = None
            self._means.bench.clear()

    def send(self, case: Case, name: str, make: Callable[[], bytes]) -> None:
        """Send a call of the court once under a name, as soon as the court would take it; once more, if it still would
        though that is done: then the chain has lost blocks that counted."""
        free = free_name(self._outbox, name, lost=True)
        if free is None:
            if why := has_failed(self._outbox, name):
                self.fail(case, why)
            return
        call = make()
        if why := self.court.refusal(call):
            if done(self._outbox, name) is None:
                self.fail(case, why)
            return
        self.court.send(call, free)
        self._say("dispute_sent", case, what=free)

    def fail(self, case: Case, why: str) -> None:
        """Tell once why nothing can be done."""
        if self._told.get(case.dispute.id) != why:
            self._told[case.dispute.id] = why
            self._say("dispute_trouble", case, reason=why)

    def now(self) -> int:
        """The time, Unix seconds: of the latest block, or of the next one, if it is long in coming."""
        return max(self.court.client.now(), int(self._means.clock()))

    def collect(self) -> None:
        """Have what this key is due paid, if that is worth the gas."""
        client = self.court.client
        due = self.court.credit(client.address)
        if due > COLLECT_GAS * client.gas_price() * self._means.gas_worth and not self._outbox.unfinished("collect/"):
            self.court.collect(self._outbox.new_name("collect/"))
            self._log.info("credit_collected", wei=str(due))

    def _is_ended_by_time(self, case: Case, now: int) -> bool:
        """Whether the dispute only has to be ended: the other side's time is over, or another one has settled it."""
        dispute = case.dispute
        silent = now > dispute.deadline and dispute.turn != self._side
        settled = self.court.is_slashed(dispute.receipt)
        if (silent or settled) and not self.court.refusal(dispute.timing_out()):  # by the chain's time
            self.send(case, f"dispute/{dispute.id}/{dispute.receipt.hex()[:16]}/end", dispute.timing_out)
        return silent or settled

    def _move(self, case: Case, now: int) -> None:
        dispute = case.dispute
        name = f"dispute/{dispute.id}/{dispute.moves}/{dispute.state.hex()[:16]}"

        def make() -> bytes:
            data = self._seat(case).move(case.history, lambda was, then: self._read(case, was, then, now))
            state = case.history[-1].state
            return (dispute.proving if read_state(state).stage == "step" else dispute.moving)(state, data)

        self.send(case, name, make)

    def _read(self, case: Case, was: Shown, then: Shown, now: int) -> bytes:
        """The prover's move; where the node cannot tell, half of the time is waited whether it can later."""
        found = self.court.moved(then.transaction, case.dispute.id, was.state)
        if found is None and now < case.dispute.deadline - case.dispute.window // 2:
            raise Stuck(
                "the provider's move went through another contract, and this node does not tell how",
                "name a node that answers debug_traceTransaction",
            )
        return found or b""

    def _seat(self, case: Case) -> Seat:
        dispute = case.dispute
        seat = self._seats.get(dispute.id)
        if seat is not None and seat.follows(case.history):
            return seat
        bundle = self._means.find(dispute.receipt)
        if bundle is None:
            raise Stuck("the disputed receipt is not kept here", "restore the database of receipts")
        bench = self._means.bench
        terms = terms_of(bundle, bench.shape, bench.root)
        challenge = challenge_of(terms, case.history[0])
        wanted = _Name(dispute.receipt, None if self._side == PROVER else challenge.position + 1)
        if wanted != self._holder:
            self._seats.clear()  # one response at a time
            self._holder = wanted
        seat = self._seats[dispute.id] = Seat(terms, challenge, bench.response(bundle, wanted.passes), self._side)
        return seat

    def _take_endings(self) -> list[Ending]:
        found = list(self.docket.endings)
        self.docket.endings.clear()
        return found

    def _report(self, ending: Ending) -> None:
        dispute, counts = ending.dispute, self._means.counts
        for each in (self._seats, self._told):
            each.pop(dispute.id, None)
        self._known.discard(dispute.id)
        winner = {PROVER_WINS: PROVER, CHALLENGER_WINS: CHALLENGER}.get(ending.turn)
        result: Happened = "void" if winner is None else "won" if winner == self._side else "lost"
        if dispute.demanded and winner == PROVER:
            result = "answered"
        counts.dispute(self._side, result)
        loss = 0 if ending.slashed is None else ending.slashed.bond + ending.slashed.held
        if loss:
            counts.slashed(self._side, loss)
        report = self._log.warning if result == "lost" else self._log.info
        report(
            "dispute_ended", dispute=dispute.id, receipt=dispute.receipt.hex(), outcome=result, slashed_wei=str(loss)
        )

    def _say(self, event: str, case: Case, **more: object) -> None:
        dispute = case.dispute
        facts: Mapping[str, object] = {
            "dispute": dispute.id, "receipt": dispute.receipt.hex(), "provider": dispute.provider,
            "challenger": dispute.challenger, "move": dispute.moves, "deadline": dispute.deadline,
        }  # fmt: skip
        bad = event == "dispute_trouble" or (event == "dispute_opened" and self._side == PROVER)
        report = self._log.warning if bad else self._log.info
        report(event, **facts, **more)
