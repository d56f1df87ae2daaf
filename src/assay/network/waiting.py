"""Time limits on many short waits."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final


class WaitLimit:
    """`with limit:` around each of many waits, one at a time, is `asyncio.timeout(seconds)` without a timer for each:
    one that has run out looks whether the wait is still the same.

    Raises:
        TimeoutError: at the end of a wait that took longer; what was awaited is cancelled.
    """

    def __init__(self, seconds: float) -> None:
        """Made within an event loop."""
        self._seconds: Final = seconds
        self._loop: Final = asyncio.get_running_loop()
        self._task: asyncio.Task[object] | None = None
        """Who waits now."""
        self._until = 0.0
        self._cancelling = 0
        self._late = False
        self._looking = False

    def __enter__(self) -> None:
        """A wait begins."""
        self._task = asyncio.current_task()
        assert self._task is not None
        self._cancelling = self._task.cancelling()
        self._until = self._loop.time() + self._seconds
        if not self._looking:
            self._looking = True
            self._loop.call_at(self._until, self._look)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """A wait ends."""
        task, self._task = self._task, None
        if self._late:
            self._late = False
            assert task is not None
            if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
                raise TimeoutError from error

    def _look(self) -> None:
        self._looking = self._task is not None and self._loop.time() < self._until
        if self._looking:
            self._loop.call_at(self._until, self._look)
        elif self._task is not None:
            self._late = True
            self._task.cancel()
