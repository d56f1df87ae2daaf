"""An engine that offers fewer assurance levels than it could honour."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from assay.core.completion import Prompt, Step
from assay.core.hashing import Digest
from assay.core.ports import Engine, PromptReader
from assay.core.profile import Profile
from assay.core.request import Level, Request


class Levelled:
    """Implements `Engine` by another one that could honour more levels than are offered."""

    def __init__(self, engine: Engine, levels: Sequence[Level]) -> None:
        self._engine = engine
        self._levels = tuple(level for level in engine.levels if level in levels)

    @property
    def model(self) -> str:
        """As the inner one's."""
        return self._engine.model

    @property
    def model_digest(self) -> Digest:
        """As the inner one's."""
        return self._engine.model_digest

    @property
    def profile(self) -> Profile:
        """As the inner one's."""
        return self._engine.profile

    @property
    def levels(self) -> tuple[Level, ...]:
        """Those that are offered."""
        return self._levels

    @property
    def reader(self) -> PromptReader:
        """As the inner one's."""
        return self._engine.reader

    def generate(self, request: Request, prompt: Prompt, *, top_logprobs: int | None = None) -> AsyncIterator[Step]:
        """As the inner one's."""
        return self._engine.generate(request, prompt, top_logprobs=top_logprobs)
