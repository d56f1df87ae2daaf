"""What happened to a request on its way, stage by stage: for its buyer, and for who runs the gateway."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, get_args

from assay.core.encoding import Json

Stage: TypeAlias = Literal["match", "send", "first_token", "last_token", "attest", "check", "keep", "failed"]
"""`match`: offers were put in order, or in another one after some were asked how busy they are. `send`: one was asked.
`first_token`, `last_token`: they came. `attest`: the receipt came. `check`: it holds, as far as can be told without the
model. `keep`: it is in the database. `failed`: a provider was given up; a `send` may follow."""
STAGES: Final[tuple[Stage, ...]] = get_args(Stage)


@dataclass(frozen=True, slots=True)
class Mark:
    """A stage was reached."""

    stage: Stage
    at: int
    """Microseconds since the request was accepted."""
    note: str
    """Whom it concerns, how many, or why, in a few words; nothing that was said."""
    facts: Mapping[str, Json] = field(default_factory=dict)
    """The same for programs, and what explains it; see docs/routing.md."""


@dataclass(frozen=True, slots=True)
class Trace:
    """The way of one request."""

    marks: tuple[Mark, ...]

    def to_json(self) -> list[dict[str, object]]:
        """For people and scripts; not hashed."""
        return [
            {"stage": mark.stage, "at_us": mark.at, "note": mark.note, **({"facts": mark.facts} if mark.facts else {})}
            for mark in self.marks
        ]


class Diary:
    """A trace while it grows. `clock` gives seconds that only rise."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock: Final = clock
        self._started: Final = clock()
        self._marks: Final[list[Mark]] = []

    def mark(self, stage: Stage, note: str = "", **facts: Json) -> None:
        """A stage is reached now."""
        self._marks.append(Mark(stage, round((self._clock() - self._started) * 1e6), note, facts))

    @property
    def trace(self) -> Trace:
        """Up to now."""
        return Trace(tuple(self._marks))
