"""A side of one dispute: replays all moves so far, and gives the next one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from assay.apps.disputes.table import Table, challenge_in
from assay.chain.court_events import CHALLENGER, PROVER
from assay.chain.dispute import Shown
from assay.chain.game import read_state
from assay.core.bundle import Bundle
from assay.core.errors import BindingMismatch
from assay.core.hashing import Digest
from assay.engines.exact.dispute.game import Terms
from assay.engines.exact.dispute.moves import Challenge
from assay.engines.exact.dispute.response import Response
from assay.engines.exact.dispute.shape import Shape
from assay.engines.exact.dispute.sides import Challenger, Player, Prover

Read = Callable[[Shown, Shown], bytes]
"""What was moved between two states; empty: nobody can tell."""


class Seat:
    """Own moves follow from the states alone, so they are the same after every restart."""

    def __init__(self, terms: Terms, challenge: Challenge, own: Response, side: int) -> None:
        """`side`: PROVER or CHALLENGER; `own`: its response."""
        self._side: Final = side
        self._own: Final = own
        self._table: Final = Table(terms, challenge)
        self._player: Final[Player] = Prover(own) if side == PROVER else Challenger(own, challenge)
        self._states: Final[list[bytes]] = []
        """Those out of which a move has been taken in, or made."""
        self._last = b""
        """The move out of the last of them, if it was this side's."""

    def follows(self, history: Sequence[Shown]) -> bool:
        """Whether what this side has seen is how the dispute went."""
        return len(self._states) <= len(history) and all(
            mine == shown.state for mine, shown in zip(self._states, history, strict=False)
        )

    def move(self, history: Sequence[Shown], read: Read) -> bytes:
        """The next move in a dispute in which it is this side's turn. `read` is asked for the prover's moves.

        Raises:
            EncodingError: there is nothing left to say, or an event makes no sense.
        """
        for n in range(len(self._states), len(history)):
            shown = history[n]
            state = read_state(shown.state)
            if shown.turn == self._side:
                self._last = self._table.answer(self._player, state)
            elif self._side == CHALLENGER:
                self._table.follow(read(shown, history[n + 1]))
            else:
                self._table.overhear(state, read_state(history[n + 1].state), self._own)
            self._states.append(shown.state)
        return self._last


def terms_of(bundle: Bundle, shape: Shape, root: Digest) -> Terms:
    """Those of a dispute over a receipt. `shape`, `root`: of the model.

    Raises:
        BindingMismatch: no dispute over it is possible: see `Terms.of`.
        EncodingError: the request's rules are none.
    """
    return Terms.of(bundle.receipt, bundle.request.opening, shape, root)


def challenge_of(terms: Terms, first: Shown) -> Challenge:
    """What a dispute began with.

    Raises:
        BindingMismatch: it is not over this receipt.
        EncodingError: the event makes no sense.
    """
    found = challenge_in(terms, read_state(first.state))
    if found is None:
        raise BindingMismatch("dispute", "the dispute is not over what the receipt says")
    return found
