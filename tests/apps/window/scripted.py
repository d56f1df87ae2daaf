"""An engine that says what a test wrote, word for word: what pages must bear."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

from tests.tiny import EOG, MODEL, PROFILE, TinyEngine
from typing_extensions import override

from assay.core.completion import Prompt, Step
from assay.core.request import Request

Script: TypeAlias = Callable[[str], Sequence[str]]
"""The pieces of the answer to a question; may raise what an engine may raise."""
_LETTER = 32
"""A token like any other: receipts cover tokens, not the words that a stranger shows for them."""


class ScriptedEngine(TinyEngine):
    """Implements `Engine` at level `signed`. `delay` seconds pass before every piece."""

    def __init__(self, script: Script, *, model: str = MODEL, delay: float = 0.0) -> None:
        super().__init__(model=model, levels=("signed",), profile=replace(PROFILE, context=2**22), delay=delay)
        self._script = script

    @override
    async def generate(
        self, request: Request, prompt: Prompt, *, top_logprobs: int | None = None
    ) -> AsyncIterator[Step]:
        """See `Engine.generate`."""
        pieces = self._script(request.messages[-1].content)
        for index, piece in enumerate(pieces):
            await asyncio.sleep(self.delay)
            yield Step(index, _LETTER, piece, b"")
        yield Step(len(pieces), EOG, "", b"", stop="stop")
