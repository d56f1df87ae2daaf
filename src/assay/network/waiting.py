"""Time limits on waits, by the time in which this program could have noticed that they were over."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final

_TURNS: Final = 10
"""Parts of a limit."""


class WaitLimit:
    """`with limit:` around each of many waits, one at a time, is `asyncio.timeout(seconds)` without a timer for each.

    A part of the limit in which the event loop did not come round counts once, however long it took: what came while
    this program had other things to do is not late.

    Raises:
        TimeoutError: at the end of a wait that took longer, by a tenth at most; what was awaited is cancelled.
    """

    def __init__(self, seconds: float) -> None:
        """Made within an event loop."""
        self._part: Final = seconds / _TURNS
        self._loop: Final = asyncio.get_running_loop()
        self._task: asyncio.Task[object] | None = None
        """Who waits now."""
        self._left = 0
        """Parts of this wait's limit."""
        self._cancelling = 0
        self._late = False
        self._looking = False

    def __enter__(self) -> None:
        """A wait begins."""
        self._task = asyncio.current_task()
        assert self._task is not None
        self._cancelling = self._task.cancelling()
        self._left = _TURNS + self._looking  # a part that has begun is no whole one
        if not self._looking:
            self._looking = True
            self._loop.call_later(self._part, self._look)

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
        self._left -= 1
        self._looking = self._task is not None and self._left > 0
        if self._looking:
            self._loop.call_later(self._part, self._look)
        elif self._task is not None:
            self._late = True
            self._task.cancel()
