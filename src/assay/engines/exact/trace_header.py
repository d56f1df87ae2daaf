"""What a trace is of, and which of its passes are served in which form."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Final, NamedTuple

from assay.core.encoding import MAX_IDS, Json, b64, canonical, parse_canonical, unb64
from assay.core.errors import EncodingError, TraceMismatch
from assay.core.hashing import Digest
from assay.core.request import natural, text
from assay.engines.exact.layout import Layout, Rows

MAX_HEADER: Final = 65_536
"""Bytes of an encoded header."""
MAX_LAYERS: Final = 1024
MAX_ROWS: Final = 1 << 24
"""Rows of one matrix."""
_MEMBERS: Final = ("body", "evidence", "head", "layers", "output", "prompt")


class Planned(NamedTuple):
    """One pass of a stream."""

    position: int
    whole: bool
    """Whether it is audited; of others only keys and values are sent."""


@dataclass(frozen=True, slots=True)
class TraceHeader:
    """One response, and the shape of the model that gave it."""

    evidence: Digest
    """Of its receipt."""
    prompt: int
    """Tokens of the prompt, at least 1."""
    output: int
    """Tokens of the answer, at least 1."""
    layout: Layout

    @property
    def passes(self) -> int:
        """Tokens that went through the model: all but the last one of the answer."""
        return self.prompt + self.output - 1

    def has_head(self, position: int) -> bool:
        """Whether logits were wanted behind the token at this position."""
        return position >= self.prompt - 1

    def plan(self, audited: Collection[int]) -> tuple[Planned, ...]:
        """The passes that an audit of these positions needs: they, and what is kept of all before the last of them.

        Raises:
            EncodingError: none, or one that is not there.
        """
        if not audited or not all(0 <= position < self.passes for position in audited):
            raise EncodingError(f"the positions to be audited are not some of 0 to {self.passes - 1}")
        chosen = frozenset(audited)
        return tuple(Planned(position, position in chosen) for position in range(max(chosen) + 1))

    def encode(self) -> bytes:
        """Canonical JSON."""
        return canonical(
            {
                "evidence": b64(self.evidence),
                "prompt": self.prompt,
                "output": self.output,
                "body": self.layout.body,
                "head": self.layout.head,
                "layers": [list(rows) for rows in self.layout.layers],
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> TraceHeader:
        """Inverse of `encode`.

        Raises:
            EncodingError: not canonical, other members, or numbers that are out of range or contradict each other.
        """
        value = parse_canonical(data, what="the trace's header")
        if not isinstance(value, dict) or sorted(value) != list(_MEMBERS):
            raise EncodingError(f"the trace's header has exactly the members {', '.join(_MEMBERS)}")
        layers: Json = value["layers"]
        if not isinstance(layers, list) or not 0 < len(layers) <= MAX_LAYERS:
            raise EncodingError(f"a model has 1 to {MAX_LAYERS} layers")
        layout = Layout(tuple(_rows(item) for item in layers), _between(value["head"], 1, MAX_ROWS, "head"))
        header = cls(
            unb64(text(value["evidence"], "evidence"), size=32, what="evidence"),
            _between(value["prompt"], 1, MAX_IDS, "prompt"),
            _between(value["output"], 1, MAX_IDS, "output"),
            layout,
        )
        if natural(value["body"], "body") != layout.body:
            raise EncodingError("the trace's body is not what its layers add up to")
        return header

    def require(self, other: TraceHeader) -> None:
        """Check that a served header is this one.

        Raises:
            TraceMismatch: it is that of another response or model.
        """
        wrong = [field.name for field in fields(self) if getattr(self, field.name) != getattr(other, field.name)]
        if wrong:
            raise TraceMismatch(f"the trace is of another response or model ({', '.join(wrong)})")


def _rows(value: Json) -> Rows:
    if not isinstance(value, list) or len(value) != len(Rows._fields):
        raise EncodingError(f"a layer has {len(Rows._fields)} products")
    return Rows(*(_between(item, 1, MAX_ROWS, "rows") for item in value))


def _between(value: Json, least: int, most: int, what: str) -> int:
    number = natural(value, what)
    if not least <= number <= most:
        raise EncodingError(f"{what} is {least} to {most}, not {number}")
    return number
