"""Limits on waits behave as `asyncio.timeout` around each would, where the program has time."""

from __future__ import annotations

import asyncio
import time

import pytest

from assay.network import waiting as waiting_module
from assay.network.waiting import WaitLimit

pytestmark = pytest.mark.anyio


async def test_short_waits() -> None:
    """Many waits that together take longer than the limit are none too long."""
    limit = WaitLimit(0.1)
    for _ in range(12):
        with limit:
            await asyncio.sleep(0.02)


async def test_long_wait() -> None:
    """A wait over the limit is cancelled when the limit is over, also after short ones and after a pause; the next one
    has all of its time again."""
    loop, limit = asyncio.get_running_loop(), WaitLimit(0.1)
    for pause in (0.0, 0.05, 0.15):
        with limit:
            await asyncio.sleep(0.01)
        await asyncio.sleep(pause)
        begun = loop.time()
        with pytest.raises(TimeoutError):
            with limit:
                await asyncio.sleep(10)
        assert 0.1 <= loop.time() - begun < 2
        with limit:
            await asyncio.sleep(0.06)


async def test_outside_a_wait() -> None:
    """What takes long outside a wait is nothing to the limit."""
    limit = WaitLimit(0.02)
    with limit:
        await asyncio.sleep(0)
    await asyncio.sleep(0.1)


async def test_a_program_that_has_no_time() -> None:
    """What came while the event loop was held up is not late, though it is seen after the limit."""
    loop = asyncio.get_running_loop()
    came = loop.create_future()

    async def bring() -> None:
        await asyncio.sleep(0.02)
        for _ in range(5):  # as many turns of the event loop as HTTP takes
            await asyncio.sleep(0)
        came.set_result(None)

    bringing = asyncio.create_task(bring())
    loop.call_later(0.01, time.sleep, 0.4)
    with WaitLimit(0.2):
        await came
    await bringing


async def test_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is cancelled by others while it waits is cancelled, and not late; also where both happen at once."""
    monkeypatch.setattr(waiting_module, "_TURNS", 1)
    for seconds in (10.0, 0.0):
        limit = WaitLimit(seconds)

        async def wait(limit: WaitLimit = limit) -> None:
            with limit:
                await asyncio.sleep(10)

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_error_within() -> None:
    """Any other error passes."""
    limit = WaitLimit(10)
    with pytest.raises(KeyError), limit:
        raise KeyError
