"""The llama.cpp engine: a GGUF model behind the `Engine` port, with continuous batching and the seeded sampler."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from assay.core.completion import Prompt, Step
from assay.core.hashing import Digest
from assay.core.profile import Profile
from assay.core.request import Level, Request
from assay.engines.answering import Answering
from assay.engines.llama_context import KvType
from assay.engines.llama_model import LlamaModel
from assay.engines.llama_reader import LlamaReader
from assay.engines.llama_regime import Regime, file_refusal, not_pinned, open_context, probe, profile_of
from assay.engines.scheduler import Scheduler
from assay.engines.streaming import stream

_CHUNK: Final = 64
"""Most tokens of a prompt in one pass: what other answers wait for."""


def levels_of(model: LlamaModel, regime: Regime) -> tuple[Level, ...]:
    """What can be promised of a model in a regime: no level whose checks nobody could make."""
    if regime == "pinned":
        return ("signed", "statistical", "pinned")
    return ("signed",) if file_refusal(model) else ("signed", "statistical")


class LlamaEngine:
    """Serves one model to up to `parallel` consumers at once. Implements `Engine`.

    Raises:
        EngineError: llama.cpp cannot make the context, or the regime does not hold for this model.
    """

    def __init__(
        self,
        model: LlamaModel,
        *,
        name: str,
        digest: Digest,
        regime: Regime = "pinned",
        parallel: int = 4,
        context: int = 2048,
        threads: int = 1,
        kv_type: KvType = "f16",
        answering: type[Answering] = Answering,
    ) -> None:
        """`context`: positions of one sequence. `digest`: SHA-256 of the model file."""
        refusal = probe(model).refusal if regime == "pinned" else ""
        if refusal:
            raise not_pinned(model, refusal)
        self._answering: Final = answering
        self.model: Final = name
        self.model_digest: Final = digest
        self.reader: Final = LlamaReader(model, limit=context)
        self.profile: Final[Profile] = profile_of(model, regime, context=context, threads=threads, kv_type=kv_type)
        self.levels: Final[tuple[Level, ...]] = levels_of(model, regime)
        self._context: Final = open_context(
            model, regime, sequences=parallel, context=context, threads=threads, kv_type=kv_type
        )
        self._scheduler: Final = Scheduler(
            self._context,
            parallel=parallel,
            chunk=_CHUNK,
            reusable=regime == "pinned" and model.has_full_attention,
        )

    @property
    def active(self) -> int:
        """Answers under way."""
        return self._scheduler.active

    def generate(self, request: Request, prompt: Prompt, *, top_logprobs: int | None = None) -> AsyncIterator[Step]:
        """See `Engine.generate`."""

        def begin() -> Answering:
            return self._answering(request, prompt, self.reader, context=self.profile.context, logprobs=top_logprobs)

        return stream(self._scheduler, begin, prompt.tokens)

    def close(self) -> None:
        """Break off all answers and free the context (the model stays open)."""
        self._scheduler.close()
        self._context.close()
