"""What running a stranger's chat template may cost, counted the same on every machine."""

from __future__ import annotations

import time
from typing import Final

from jinja2 import Undefined
from jinja2.exceptions import TemplateRuntimeError

MAX_CPU_S: Final = 5.0
"""CPU seconds of one rendering: the last resort, for what the fuel undercounts."""

_SPEND_EVERY: Final = 10_000


class OutOfFuel(Exception):
    """The template spends more steps, text or time than it may."""


class Refusal(Exception):
    """The template itself refused the messages, by `raise_exception`."""


class Fuel:
    """What one rendering may still spend; a unit is about a step or a character."""

    def __init__(self, units: int) -> None:
        self._left = units
        self._units = units
        self._calls = 0
        self._end_s = time.thread_time() + MAX_CPU_S

    def spend(self, units: int) -> None:
        """Take `units` away.

        Raises:
            OutOfFuel: not so many are left, or the CPU time is over.
        """
        self._left -= max(units, 1)
        self._calls += 1
        if self._left < 0:
            raise OutOfFuel(f"it takes more than {self._units} steps and characters")
        if (units > 1000 or self._calls % 16 == 0) and time.thread_time() > self._end_s:
            raise OutOfFuel(f"it takes more than {MAX_CPU_S:g} s of CPU time")

    def spend_on(self, value: object, *, indent: int = 0) -> None:
        """Spend what writing out all of `value` takes, with `indent` characters for every level.

        A list that holds a list twice, which holds a list twice, and so on, is small in memory and takes for ever to
        print or compare: here it runs out of fuel.

        Raises:
            OutOfFuel: not enough is left.
            TemplateRuntimeError: something inside is not plain data.
        """
        units, pending = 0, [(value, 0)]
        while pending:
            item, depth = pending.pop()
            units += 4 + depth * indent
            if isinstance(item, str):
                units += len(item)
            elif isinstance(item, (list, tuple, dict)):
                if isinstance(item, dict):
                    pending += [(inner, depth + 1) for inner in item.values()]
                pending += [(inner, depth + 1) for inner in item]
            elif not (item is None or isinstance(item, bool | int | float | Undefined)):
                raise TemplateRuntimeError(f"a {type(item).__name__} cannot be kept in a list or dict")
            if units > _SPEND_EVERY:
                self.spend(units)
                units = 0
        self.spend(units)
