"""The referees: which contract judges which step of a dispute, and how it is called.

A dispute ends with one small cell, and with an opening of all that it follows from (docs/dispute.md). A referee's
`judge` returns if the cell follows, and reverts otherwise. What is said here of sections is said of `dispute/plan.py`,
whose words these are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple, Protocol

from assay.chain.contracts import REFEREES
from assay.chain.game import word
from assay.core.hashing import Digest
from assay.core.keys import keccak256

KINDS: Final = (
    "embedded", "product", "peak", "square", "inverse", "top", "scale", "normed", "added", "biased", "kept", "query",
    "key", "value", "score", "best", "weight", "low", "mix", "quotient", "join_low", "join_peak", "join_scale",
    "joined", "gated", "gated_peak", "gated_scale", "activated", "logit", "likeliest", "deficit", "count", "share",
    "total", "mass", "race", "number",
)  # fmt: skip
"""A contract knows a kind by its place here, as `plan.vy` has it."""
USES: Final = (
    "", "query", "key", "value", "output", "gate", "up", "down", "head", "attention_norm", "feed_norm", "query_norm",
    "key_norm", "attention_after", "feed_after", "norm",
)  # fmt: skip
"""Likewise: the product or the normalisation that a section is part of."""
_TABLES: Final = {
    "Stream": "Powers", "Norms": "Powers", "Heads": "Sine", "Softmax": "Powers", "Feed": "Sigmoid", "Draws": "Powers",
}  # fmt: skip
_HEADS: Final = ("biased", "query", "joined", "number")
_TYPES: Final = ("bytes32",) * 4 + ("uint256",) * 2 + ("bytes32",) + ("uint256",) * 5 + ("bool",) + (
    "uint256", "uint256", "bytes32", "bytes32", "uint256", "int256", "uint256", "bytes32", "uint256",
)  # fmt: skip
_SELECTOR: Final = keccak256(f"judge(({','.join(_TYPES)}),bytes32,uint256,int256,uint256)".encode())[:4]


class Terms(NamedTuple):
    """What a step is judged by: the receipt, the challenged record, the target, and the cells."""

    parameters: Digest
    """Root of the model."""
    evidence: Digest
    """Of the receipt, as are the next four."""
    prompt_tokens: Digest
    output: Digest
    prompt_count: int
    output_count: int
    seed: bytes
    """Of the draws, 32 bytes; then their settings."""
    temperature: int
    top_k: int
    top_p: int
    min_p: int
    position: int
    """Of the challenged pass."""
    token: bool
    """Whether the token behind it is disputed, and no number."""
    kept_count: int
    """Chunks of both parts of its record, and their roots."""
    inputs_count: int
    kept: Digest
    inputs: Digest
    target: int
    """The disputed number's place in the record; 0 of a token."""
    claimed: int
    """What was committed to there; 0 of a token."""
    count: int
    """Of the cells, and their root."""
    cells: Digest
    index: int
    """Of the disputed cell."""


class Section(Protocol):
    """The cells of one kind, layer and use."""

    @property
    def kind(self) -> str:
        """One of KINDS."""
        ...

    @property
    def layer(self) -> int:
        """Or -1."""
        ...

    @property
    def use(self) -> str:
        """One of USES."""
        ...


class Step(NamedTuple):
    """Who judges the cells of a section, and what it has to be told."""

    referee: str
    """One of REFEREES."""
    kind: int
    layer: int
    use: int


def step_of(section: Section, vector: str) -> Step:
    """`vector`: of a record, that the target is in; empty for a token.

    Raises:
        ValueError: there is no such kind or use.
    """
    return Step(_referee(section.kind, vector), KINDS.index(section.kind), section.layer, USES.index(section.use))


def table_of(referee: str) -> str | None:
    """Of which table (`contracts.TABLES`) a referee's constructor wants the address."""
    return _TABLES.get(referee)


def encode(values: Iterable[Digest | int]) -> bytes:
    """As contracts take them, a word each.

    Raises:
        OverflowError: a number does not fit.
    """
    return b"".join(value if isinstance(value, bytes) else word(value) for value in values)


def encode_judge(terms: Terms, leaf: Digest, step: Step, opening: bytes) -> bytes:
    """The data of a call of `judge`, with the opening behind the arguments; behind that stands what `game.behind` says.

    `leaf`: digest of the disputed cell.

    Raises:
        OverflowError: a number does not fit.
    """
    assert step.referee in REFEREES
    return _SELECTOR + encode((*terms, leaf, *step[1:])) + opening


def _referee(kind: str, vector: str) -> str:
    if kind == "product":
        return "Products"
    if vector == "":
        return "Draws"
    if vector in ("keys", "values"):
        return "Heads"
    if vector == "mixed":
        return "Heads" if kind in _HEADS else "Softmax"
    if vector == "gated":
        return "Feed"
    return "Stream" if kind in ("embedded", "added", "number") else "Norms"
