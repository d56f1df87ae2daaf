"""Disputes as `contracts/Game.vy` plays them: the bytes of states, of what opens a dispute, and of its last move."""

from __future__ import annotations

from itertools import pairwise
from typing import Final, NamedTuple

from assay.chain.contracts import REFEREES
from assay.core.encoding import canonical
from assay.core.errors import EncodingError
from assay.core.hashing import Digest
from assay.core.profile import Profile
from assay.core.request import Opening

PADDING: Final = bytes(512)
"""Zeros behind a prover's move, which the contract reads in pieces of constant size; behind the first one, twice."""
FILLING: Final = bytes(32)
"""Zeros behind a challenger's, of which the contract reads words."""
_WORD: Final = 32
_LONGEST: Final = 4128
"""Bytes of the longest piece that a referee reads at once; it drops what is too much."""
STAGES: Final = (
    "tops", "branch", "nodes", "names", "chunks", "entry", "cells", "cell nodes", "cell names", "step",
)  # fmt: skip
"""What is wanted; the contract knows a stage by its place here."""
UNNAMED: Final = 2**40 - 1
_OFF: Final = 2**40 - 2


class Descent(NamedTuple):
    """Where a descent in a tree is."""

    node: Digest
    """That is known."""
    count: int
    level: int
    """Of the node; `index`: its place in it."""
    index: int
    below: int
    """Level of the nodes under it that were shown."""
    named: int
    """The one of them that differs."""

    @property
    def on(self) -> bool:
        """Whether there is a descent in the tree."""
        return self.named != _OFF

    @property
    def first(self) -> int:
        """The first of the nodes that were shown."""
        return self.index << 4 * (self.level - self.below)


class State(NamedTuple):
    """What the contract hands from move to move."""

    stage: str
    """One of STAGES: what is wanted."""
    facts: Digest
    """Over all that both sides agree on."""
    one: Descent
    """In keys and values, then in the cells."""
    other: Descent
    """In the inputs of products."""


def read_state(data: bytes) -> State:
    """A state as events carry it.

    Raises:
        EncodingError: it is none.
    """
    if len(data) != 6 * 32:
        raise EncodingError("a state of a dispute has 6 words")
    stage, facts, one, place, other, other_place = (data[i : i + 32] for i in range(0, len(data), 32))
    if int.from_bytes(stage, "big") >= len(STAGES):
        raise EncodingError("the state of a dispute is unknown")
    return State(STAGES[stage[31]], facts, _descent(one, place), _descent(other, other_place))


def _descent(node: Digest, place: bytes) -> Descent:
    below, level, named, index, count = (
        int.from_bytes(place[start:stop], "big") for start, stop in pairwise((0, 16, 17, 22, 27, 32))
    )
    return Descent(node, count, level, index, below, named)


def exhibit(position: int, *, token: bool, parameters: Digest, opening: Opening, profile: Profile) -> bytes:
    """What a dispute is opened with: the pass that is wrong, or that the token behind it is.

    `parameters`: the model's root, of which `profile.build` has the digits. `opening`: of the request.
    `profile`: under the semantics that the contract judges, or it refuses.
    """
    head = '{"build":"' + profile.build + '"'
    rest = canonical(profile.to_json())[len(head) :]
    at = rest.index(b',"regime":')
    return b"".join(
        [word(position), word(token), parameters, opening.body, opening.seed, opening.rules, rest, word(at)]
    )


def step_move(referee: str, call: bytes, siblings: bytes) -> bytes:
    """The last move: what one of REFEREES is called with, what is beside the disputed cell, and which of them it is."""
    beside = siblings + PADDING
    return b"".join([call, beside, behind(call + beside), word(REFEREES.index(referee) | len(call) << 8)])


def behind(call: bytes) -> bytes:
    """Zeros that have to stand behind a call of a referee, which reads whole words, and pieces of up to _LONGEST."""
    return bytes(max(_WORD, _LONGEST - len(call)))


def word(number: int) -> bytes:
    """A number as contracts take it, 32 bytes.

    Raises:
        OverflowError: it does not fit.
    """
    return int(number).to_bytes(32, "big", signed=number < 0)
