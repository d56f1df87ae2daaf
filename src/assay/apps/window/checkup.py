"""What `assay doctor` finds, looked at while the program runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from assay.apps.doctor import Check, Symptom, run_checks
from assay.core.errors import AssayError


class Checkup:
    """One look at a time; its findings stay until the next one."""

    def __init__(
        self, checks: Callable[[], Sequence[tuple[str, Check]]], clock: Callable[[], float] = time.time
    ) -> None:
        """`checks`: what there is to look at, asked anew each time. `clock`: Unix seconds."""
        self._checks: Final = checks
        self._clock: Final = clock
        self._looking: asyncio.Task[None] | None = None
        self._found: list[Symptom] = []
        self._at: float | None = None

    @property
    def running(self) -> bool:
        """It looks now."""
        return self._looking is not None and not self._looking.done()

    def start(self) -> None:
        """Look, in a thread; nothing if that is being done. Takes processor time for some seconds."""
        if not self.running:
            self._found = []
            self._at = self._clock()
            self._looking = asyncio.create_task(asyncio.to_thread(self._look))

    def shown(self) -> Mapping[str, object]:
        """For the page."""
        found = [symptom.to_json() for symptom in list(self._found)]
        return {"running": self.running, "at": self._at, "findings": found}

    def _look(self) -> None:
        try:
            checks = self._checks()
        except AssayError as error:
            self._found.append(Symptom("settings", "bad", error.message, error.remedy))
            return
        for symptom in run_checks(checks):
            self._found.append(symptom)
