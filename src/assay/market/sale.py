"""What a provider sells: its prices, how many answers at a time, and at which hours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from assay.core.encoding import Json
from assay.core.errors import EncodingError
from assay.core.offer import Price
from assay.core.request import LEVELS, Level, natural, text

DAY: Final = 24 * 60
"""Minutes."""
_LEVELS: Final[Mapping[str, Level]] = {level: level for level in LEVELS}
_HOURS: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")


@dataclass(frozen=True, slots=True)
class Hours:
    """Of each day, by the clock on the wall: minutes after midnight, from `begin` on and before `end`, which is the
    next day's where it is the smaller one."""

    begin: int
    end: int

    @classmethod
    def parse(cls, written: str) -> Hours:
        """Such as `22:00-07:00`.

        Raises:
            EncodingError: not two times of day, or twice the same.
        """
        found = _HOURS.fullmatch(written)
        if found is None or found[1] + found[2] == found[3] + found[4]:
            raise EncodingError(f"{written[:40]!r} are no hours of a day, such as 22:00-07:00")
        hour, minute, last_hour, last_minute = map(int, found.groups())
        return cls(60 * hour + minute, 60 * last_hour + last_minute)

    def __str__(self) -> str:
        return "-".join(f"{each // 60:02}:{each % 60:02}" for each in (self.begin, self.end))

    def have(self, minute: int) -> bool:
        """Whether that minute of a day is one of them."""
        return (minute - self.begin) % DAY < (self.end - self.begin) % DAY


@dataclass(frozen=True, slots=True)
class Sale:
    """What is sold from now on."""

    prices: Mapping[Level, Price]
    """A level that is missing is free."""
    places: int
    """Answers at a time."""
    hours: Hours | None = None
    """None: at all."""

    def places_at(self, minute: int) -> int:
        """Answers at a time in that minute of a day."""
        return self.places if self.hours is None or self.hours.have(minute) else 0

    def to_json(self) -> dict[str, Json]:
        """As it is kept."""
        return {
            "prices": {level: price.to_json() for level, price in self.prices.items()},
            "places": self.places,
            "hours": None if self.hours is None else str(self.hours),
        }

    @classmethod
    def from_json(cls, value: Json) -> Sale:
        """Inverse of `to_json`.

        Raises:
            EncodingError: a member is missing, unknown or out of range.
        """
        if not isinstance(value, dict) or set(value) != {"prices", "places", "hours"}:
            raise EncodingError("it has exactly the members prices, places and hours")
        prices, hours = value["prices"], value["hours"]
        if not isinstance(prices, dict):
            raise EncodingError("prices are no object")
        return cls(
            {_level(level): Price.from_json(price) for level, price in prices.items()},
            natural(value["places"], "places"),
            None if hours is None else Hours.parse(text(hours, "hours")),
        )


def _level(name: str) -> Level:
    level = _LEVELS.get(name)
    if level is None:
        raise EncodingError(f"{name[:40]!r} is no level")
    return level
