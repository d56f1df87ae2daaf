"""The playground for doubt with real processes and the real model."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from tests.e2e.test_demo import children

from assay.apps.doubting import Doubts, Trial

pytestmark = [pytest.mark.e2e, pytest.mark.model]


@pytest.mark.parametrize(
    "cheat",
    [
        pytest.param("edited-token", marks=pytest.mark.long),
        pytest.param("cancelled-early", marks=pytest.mark.long),
        pytest.param("accumulator", marks=pytest.mark.slow),
    ],
)
def test_a_cheat_is_caught(model_path: Path, cheat: str) -> None:
    """By the check, by the gateway, and on the exact engine: each with a reason; nothing of it is left."""
    before = children(os.getpid())

    async def trial() -> Trial:
        doubts = Doubts()
        await doubts.begin(cheat, "Why is the sky blue?")
        assert doubts.trial is not None
        await doubts.over()
        return doubts.trial

    found = asyncio.run(trial())
    assert found.ending in ("caught", "refused"), found
    assert found.replies[-1].reasons
    assert children(os.getpid()) == before
