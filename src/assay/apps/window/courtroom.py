"""What the pages of the court are made from: its history, what its transactions said, and the model in question.

One question at a time goes to the chain, whoever asks; what the node's words are is the operator's business.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

from assay.apps.config import Config
from assay.apps.disputes.places import Number, Operation, Places, Programs
from assay.apps.logs import logger
from assay.chain.account import Accounts, Opening, Step
from assay.chain.court import CourtClient
from assay.chain.game import read_state
from assay.chain.history import Case, History, Seen
from assay.core.bundle import Bundle
from assay.core.errors import AssayError, Busy, ChainFailed, EncodingError, InvalidRequest
from assay.core.hashing import Digest
from assay.store.receipts import ReceiptStore

if TYPE_CHECKING:
    from assay.apps.disputes.workbench import Workbench
    from assay.engines.exact.program import Program

Trouble: TypeAlias = Literal["", "away", "settings"]
"""Why the chain tells nothing: it is away, or the settings name no court. Empty: it does."""
_MOST_WAITING: Final = 8
"""Who asks for a case beside these is sent away."""
_COMPUTE_SECONDS: Final = 120.0
"""Longest time for computing one number again."""


class OpenBench(Protocol):
    """Opens a place where answers of a model are computed again, until `stopped`."""

    def __call__(self, model: Digest, *, stopped: Callable[[], bool]) -> AbstractContextManager[Workbench]:
        """Raises an AssayError where this machine cannot."""
        ...


@dataclass(frozen=True, slots=True)
class Point:
    """What a dispute has come down to, as far as it has."""

    opening: Opening
    model: Digest
    """The model file's."""
    entry: int | None = None
    """Place of the number in the record; None: a token is disputed, or no number was named yet."""
    committed: int | None = None
    """That number, as the receipt commits to it."""
    number: Number | None = None
    """What it is, where this machine has converted the model."""
    chunks: tuple[int, int] | None = None
    """Of the record's two parts, 256 numbers each."""
    cells: int | None = None
    """Small operations that lead to it."""
    cell: int | None = None
    """The one that was named."""
    operation: Operation | None = None
    """What that is, where it is known."""


@dataclass(frozen=True, slots=True)
class Hearing:
    """A case, told."""

    case: Case
    steps: tuple[Step, ...] = ()
    point: Point | None = None
    trouble: Trouble = ""


class Courtroom:
    """For use from one event loop."""

    def __init__(self, history: History, programs: Programs, bench: OpenBench) -> None:
        """`programs`: converted models of this machine; `bench`: computes with them."""
        self._history: Final = history
        self._accounts: Final = Accounts()
        self._places: Final = Places(programs)
        self._bench: Final = bench
        self._one: Final = asyncio.Lock()
        self._computing: Final = asyncio.Lock()
        self._learning: asyncio.Task[None] | None = None
        self._waiting = 0
        self._reason = ""

    async def seen(self) -> tuple[Seen, Trouble]:
        """All cases. While somebody else waits for the chain, what is known by now."""
        if not self._one.locked() or self._history.seen.head is None:
            async with self._one:
                await asyncio.to_thread(self._history.look)
        seen = self._history.seen
        return seen, self._trouble(seen.trouble)

    async def hear(self, name: str) -> Hearing:
        """One case with all its transactions. What stands where in its model is learnt in the background, for the next
        time.

        Raises:
            NotFound: there is none of this name.
            Busy: too many ask.
        """
        if self._waiting >= _MOST_WAITING:
            raise Busy("many ask for cases now", retry_after=5)
        self._waiting += 1
        try:
            async with self._one:
                found = await asyncio.to_thread(self._hear, name)
        finally:
            self._waiting -= 1
        if found.point is not None:
            self._learn(found.point.model)
        return found

    async def compute(self, name: str, store: ReceiptStore) -> tuple[int, int, Bundle]:
        """The disputed number, or token, as it is in the receipt and as it follows from the request; and the receipt
        with what it covers, which has to be kept here. It takes seconds, and all of a processor.

        Raises:
            NotFound: there is no such case, or its receipt or model is not here.
            InvalidRequest: it has not come down to a number yet, or never will.
            Busy: another one is computed.
            AssayError: it cannot be computed.
        """
        if self._computing.locked():
            raise Busy("another number is computed now", retry_after=10, remedy="try again")
        async with self._computing:
            hearing = await self.hear(name)
            point, receipt = hearing.point, hearing.case.receipt
            if point is None or receipt is None or (point.committed is None and not point.opening.token):
                raise InvalidRequest("no number is disputed in this case yet", remedy="wait until it has come to one")
            return await asyncio.to_thread(self._compute, point, receipt, store)

    def _learn(self, model: Digest) -> None:
        if not self._places.knows(model) and (self._learning is None or self._learning.done()):
            self._learning = asyncio.create_task(asyncio.to_thread(self._places.learn, model))

    def _hear(self, name: str) -> Hearing:
        seen = self._history.look()
        case = self._history.case(name)
        try:
            steps = tuple(self._accounts.of(self._history.court(), case))
        except ChainFailed as error:
            return Hearing(case, trouble=self._trouble(error))
        return Hearing(case, steps, self._point(case, steps), self._trouble(seen.trouble))

    def _point(self, case: Case, steps: tuple[Step, ...]) -> Point | None:
        told = [step.told for step in steps]
        opening = next((each.opening for each in told if each.opening is not None), None)
        if opening is None or opening.position is None:
            return None
        model = opening.receipt["model"]
        assert isinstance(model, bytes)
        entry, committed = next(((each.entry, each.committed) for each in told if each.entry is not None), (None, None))
        cells = next((each.cells for each in told if each.cells is not None), None)
        cell = _cell(case)
        operation = None
        if cells is not None and cell is not None:
            operation = self._places.operation(model, opening.position, entry, opening.rules, cells, cell)
        number = None if entry is None else self._places.number(model, entry)
        chunks = next((each.chunks for each in told if each.chunks is not None), None)
        return Point(opening, model, entry, committed, number, chunks, cells, cell, operation)

    def _compute(self, point: Point, receipt: Digest, store: ReceiptStore) -> tuple[int, int, Bundle]:
        bundle, until = store.get(receipt), time.monotonic() + _COMPUTE_SECONDS
        position = point.opening.position
        assert position is not None
        with self._bench(bundle.receipt.model, stopped=lambda: time.monotonic() > until) as bench:
            follows = bench.follows(bundle, position, point.entry)
        if point.committed is not None:
            return point.committed, follows, bundle
        return bundle.tokens[position + 1 - bundle.receipt.prompt_count], follows, bundle

    def _trouble(self, error: AssayError | None) -> Trouble:
        """Told to the operator once: the words may hold the node's address, with a secret in it."""
        reason = "" if error is None else error.message
        if error is not None and reason != self._reason:
            logger("window").warning("court_unread", reason=reason, remedy=error.remedy)
        self._reason = reason
        return "" if error is None else "away" if isinstance(error, ChainFailed) else "settings"


def _cell(case: Case) -> int | None:
    """The cell that was named in the end."""
    if not case.shown or not case.shown[-1].state:
        return None
    try:
        state = read_state(case.shown[-1].state)
    except EncodingError:
        return None
    return state.one.named if state.stage == "step" else None


def courtroom_of(config: Config, stack: ExitStack) -> Courtroom | None:
    """Of the chain that is configured, which is asked when somebody looks; None: there is none. `stack`: closes it."""
    if not config.chain.url:
        return None

    def programs(model: Digest) -> Program | None:
        from assay.apps.exact import kept_program

        return kept_program(model)

    def bench(model: Digest, *, stopped: Callable[[], bool]) -> AbstractContextManager[Workbench]:
        from assay.apps.exact import open_bench

        return open_bench(model, stopped=stopped)

    def court() -> CourtClient:
        from assay.apps.onchain import open_court

        return stack.enter_context(open_court(config))

    return Courtroom(History(court), programs, bench)
