"""What a trace is of, and which of its passes are served in which form."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, fields
from typing import Final, NamedTuple

from assay.core.encoding import MAX_IDS, Json, b64, canonical, parse_canonical, unb64
from assay.core.errors import EncodingError, TraceMismatch
from assay.core.hashing import Digest
from assay.core.request import natural, text
from assay.engines.exact.record import RecordLayout

MAX_HEADER: Final = 65_536
"""Bytes of an encoded header."""
MAX_SIZE: Final = 1 << 32
"""Of anything that a header counts."""
_SIZES: Final = ("body", "head", *(field.name for field in fields(RecordLayout)))
_MEMBERS: Final = tuple(sorted(("evidence", "output", "prompt", "public", *_SIZES)))


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
    layout: RecordLayout
    body: int
    """Accumulators of all layers."""
    head: int
    """Tokens of the vocabulary."""
    public: bool = False
    """The audit's random numbers follow from the accumulators, which have to be hashed for that: then everybody's audit
    is the same. Otherwise the auditor draws them, and tells nobody."""

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
        sizes: dict[str, Json] = {"body": self.body, "head": self.head, **asdict(self.layout)}
        return canonical(
            {
                **sizes,
                "evidence": b64(self.evidence),
                "prompt": self.prompt,
                "output": self.output,
                "public": self.public,
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
        sizes = {name: _between(value[name], 1, MAX_SIZE, name) for name in _SIZES}
        public = value["public"]
        if not isinstance(public, bool):
            raise EncodingError("a trace is public, or it is not")
        return cls(
            unb64(text(value["evidence"], "evidence"), size=32, what="evidence"),
            _between(value["prompt"], 1, MAX_IDS, "prompt"),
            _between(value["output"], 1, MAX_IDS, "output"),
            RecordLayout(**{field.name: sizes[field.name] for field in fields(RecordLayout)}),
            sizes["body"],
            sizes["head"],
            public,
        )

    def require(self, other: TraceHeader) -> None:
        """Check that a served header is this one, public or not.

        Raises:
            TraceMismatch: it is that of another response or model.
        """
        names = [field.name for field in fields(self) if field.name != "public"]
        wrong = [name for name in names if getattr(self, name) != getattr(other, name)]
        if wrong:
            raise TraceMismatch(f"the trace is of another response or model ({', '.join(wrong)})")


def _between(value: Json, least: int, most: int, what: str) -> int:
    number = natural(value, what)
    if not least <= number <= most:
        raise EncodingError(f"{what} is {least} to {most}, not {number}")
    return number
