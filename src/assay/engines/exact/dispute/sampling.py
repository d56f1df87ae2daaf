"""The step of the sampler: whether another token should have been drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias


class Candidate(NamedTuple):
    """A token that could be drawn."""

    token: int
    logit: int
    """LOGIT_FRACTION fraction bits, 32 bits."""


Score: TypeAlias = Callable[[int, Candidate], int | None]
"""What a candidate has at an output position, counted from 0; None if it may not be drawn there."""


def greedy(_output: int, candidate: Candidate) -> int:
    """The score at temperature 0, everywhere: the logit."""
    return candidate.logit


@dataclass(frozen=True, slots=True)
class SampleStep:
    """The candidate with the largest score is drawn, the lowest token among equals."""

    score: Score = greedy

    def refutes(self, output: int, rival: Candidate, drawn: Candidate) -> bool:
        """Whether `rival` shows that `drawn` was not to be drawn."""
        mine, theirs = self.score(output, rival), self.score(output, drawn)
        if theirs is None or mine is None:
            return theirs is None
        return (mine, -rival.token) > (theirs, -drawn.token)
