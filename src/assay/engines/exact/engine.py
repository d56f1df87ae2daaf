"""The exact engine: a GGUF model in whole numbers behind the `Engine` port, with continuous batching."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterator
from typing import Final

import numpy as np
from typing_extensions import override

from assay.core.bundle import Bundle
from assay.core.completion import Prompt, Step, TopLogprobs
from assay.core.errors import NotFound
from assay.core.hashing import Digest
from assay.core.request import Level, Request
from assay.engines.answering import AnswerPath, Picked
from assay.engines.exact.audit import header_of
from assay.engines.exact.auditor import profile_of, response_of
from assay.engines.exact.decoder import ExactDecoder, Row
from assay.engines.exact.kernels.sampling import draw
from assay.engines.exact.program import Program
from assay.engines.exact.runner import BATCH, Runner
from assay.engines.exact.sampling import top_logprobs
from assay.engines.exact.tracing import HONEST, Alteration, trace
from assay.engines.llama_reader import LlamaReader
from assay.engines.scheduler import Scheduler
from assay.engines.streaming import stream

EXACT_LEVELS: Final[tuple[Level, ...]] = ("signed", "exact")
"""What the exact engine can honour."""


class ExactAnswering(AnswerPath[Row]):
    """An answer from logits in whole numbers, with the sampler `gumbel/2`."""

    @override
    def choose(self, row: Row, index: int, allowed: np.ndarray | None) -> int:
        """See `AnswerPath.choose`."""
        return draw(row.logits, self.sampler, self.seed, index, allowed)

    @override
    def observe(self, row: Row, picked: Picked) -> tuple[bytes, TopLogprobs | None]:
        """See `AnswerPath.observe`."""
        leaf = row.leaf(picked.index) if self.request.level == "exact" else b""
        if self.logprobs is None:
            return leaf, None
        return leaf, self.shown(top_logprobs(row.logits, picked.token, self.logprobs), picked.token, self.logprobs)


class ExactEngine:
    """Serves one model to up to `parallel` consumers at once. Implements `Engine`."""

    def __init__(
        self,
        program: Program,
        reader: LlamaReader,
        *,
        name: str,
        digest: Digest,
        parallel: int = 4,
        context: int = 2048,
        threads: int = 1,
        answering: type[AnswerPath[Row]] = ExactAnswering,
        alter: Alteration = HONEST,
    ) -> None:
        """`context`: positions of one sequence. `digest`: SHA-256 of the model file. `alter`: see `ExactDecoder`."""
        self.model: Final = name
        self.model_digest: Final = digest
        self.reader: Final = reader
        self.profile: Final = profile_of(program, context)
        self.levels: Final = EXACT_LEVELS
        runner = Runner(program, sequences=parallel, positions=context, batch=max(BATCH, parallel), threads=threads)
        self._answering: Final = answering
        self.program: Final = program
        self.alter: Final = alter
        self._decoder: Final = ExactDecoder(runner, sequences=parallel, alter=alter)
        self._scheduler: Final = Scheduler(self._decoder, parallel=parallel, chunk=BATCH, reusable=True)

    @property
    def active(self) -> int:
        """Answers under way."""
        return self._scheduler.active

    def generate(self, request: Request, prompt: Prompt, *, top_logprobs: int | None = None) -> AsyncIterator[Step]:
        """See `Engine.generate`."""
        return stream(
            self._scheduler,
            lambda: self._answering(request, prompt, self.reader, context=self.profile.context, logprobs=top_logprobs),
            prompt.tokens,
        )

    def trace(
        self, bundle: Bundle, positions: Collection[int] | None = None, *, stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[bytes]:
        """See `Tracer.trace`."""
        if bundle.receipt.level != "exact" or not bundle.tokens:
            raise NotFound("only answers at level 'exact' have a trace", "ask for that level")
        if bundle.receipt.model != self.model_digest or bundle.profile.build != self.profile.build:
            raise NotFound("the answer is of another model than this engine runs")
        prompt = self.reader.render(bundle.request)
        response = response_of(bundle, prompt, None)
        header = header_of(self.program, response)
        asked = range(response.passes) if positions is None else positions
        header.plan(asked)
        return trace(self.program, header, response.tokens, asked, stopped=stopped, alter=self.alter)

    def close(self) -> None:
        """Break off all answers and end the threads."""
        self._scheduler.close()
        self._decoder.close()
