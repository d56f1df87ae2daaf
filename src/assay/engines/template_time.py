"""Dates for chat templates, the same on every machine: UTC, English names, no locale and no C library."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

MAX_TIME_S: Final = 253_402_300_799
"""The last second of the year 9999."""

_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


def strftime(form: str, now_s: int) -> str:
    """`form` with C's conversions (`%d %b %Y` and so on, `-` for no padding) of Unix time `now_s`.

    Raises:
        ValueError: a conversion that is not listed here, or a time before 1970 or after the year 9999.
    """
    if not 0 <= now_s <= MAX_TIME_S:
        raise ValueError(f"{now_s} is not a time from 1970 to 9999")
    now = datetime.fromtimestamp(now_s, UTC)
    day, month = _DAYS[now.weekday()], _MONTHS[now.month - 1]
    hour12 = now.hour % 12 or 12
    values: dict[str, str] = {
        "a": day[:3], "A": day, "b": month[:3], "h": month[:3], "B": month,
        "d": f"{now.day:02}", "e": f"{now.day:2}", "m": f"{now.month:02}",
        "y": f"{now.year % 100:02}", "Y": f"{now.year}",
        "j": f"{now.timetuple().tm_yday:03}", "u": f"{now.isoweekday()}", "w": f"{now.isoweekday() % 7}",
        "H": f"{now.hour:02}", "I": f"{hour12:02}", "M": f"{now.minute:02}", "S": f"{now.second:02}",
        "p": "AM" if now.hour < 12 else "PM", "f": "000000", "s": f"{now_s}", "Z": "UTC", "z": "+0000",
        "F": f"{now:%Y-%m-%d}", "T": f"{now:%H:%M:%S}", "R": f"{now:%H:%M}", "D": f"{now:%m/%d/%y}",
        "n": "\n", "t": "\t", "%": "%",
    }  # fmt: skip

    def convert(match: re.Match[str]) -> str:
        value = values.get(match[2])
        if value is None:
            raise ValueError(f"strftime_now does not know {match[0]!r}")
        return (value.lstrip("0 ") or "0") if match[1] and value.strip().isdigit() else value

    return re.sub(r"%([-#]?)(.?)", convert, form, flags=re.DOTALL)
