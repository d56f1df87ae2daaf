"""Recomputing an answer by prefill: what a verifier runs. The judgement is in `verify`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np

from assay.core.errors import ContextOverflow, EngineError
from assay.core.hashing import Digest
from assay.core.profile import Profile
from assay.engines.llama_context import LlamaContext
from assay.engines.llama_model import LlamaModel
from assay.engines.llama_reader import LlamaReader
from assay.engines.llama_regime import Regime, open_context, profile_of

_SMALLEST_CONTEXT: Final = 512


class LlamaReplayer:
    """Prefills known tokens and gives the logits that predict them. Implements `Replayer`. One call at a time.

    Keeps its context between calls and, in the pinned regime, the prefix that a sequence shares with the one before.
    The context grows to the longest sequence seen, at most `context` positions. Close it before the model.
    """

    def __init__(
        self,
        model: LlamaModel,
        *,
        digest: Digest = bytes(32),
        regime: Regime = "pinned",
        context: int = 2048,
        threads: int = 1,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """`digest`: SHA-256 of the model file. `stopped` is asked before each micro-batch; True ends the replay."""
        self.model_digest: Final = digest
        self.profile: Final[Profile] = profile_of(model, regime, context=context, threads=threads)
        self.reader: Final = LlamaReader(model, limit=context)
        self._model: Final = model
        self._regime: Final[Regime] = regime
        self._limit: Final = context
        self._threads: Final = threads
        self._context: LlamaContext | None = None
        self._cached: list[int] = []
        self._turn = 0
        self._stopped: Final = stopped

    def rows(self, tokens: Sequence[int], first: int) -> Iterator[np.ndarray]:
        """Logits, float32 [n_vocab], that predict the tokens at positions first, first + 1, … of `tokens`.

        The row for position p is a function of `tokens[:p]`; the last token is not run. Memory is bounded by the rows
        of one micro-batch. A new call ends an unfinished one.

        Raises:
            ContextOverflow: there are more tokens than `context`.
            EngineError: `first` is not in 1 .. len(tokens), a token is not in the vocabulary, the library failed,
                or the replay was stopped.
        """
        if len(tokens) > self._limit:
            raise ContextOverflow(len(tokens), self._limit)
        if not 1 <= first <= len(tokens):
            raise EngineError(f"position {first} of {len(tokens)} tokens has no logits", "start between 1 and the end")
        if any(not 0 <= token < self._model.n_vocab for token in tokens):
            raise EngineError(f"the sequence has tokens outside the vocabulary of {self._model.n_vocab}")
        self._turn += 1
        return self._run(list(tokens[:-1]), first - 1, self._turn)

    def _run(self, tokens: list[int], want: int, turn: int) -> Iterator[np.ndarray]:
        if want >= len(tokens):
            return
        context = self._open(len(tokens))
        start = self._keep(context, tokens, want)
        while start < len(tokens):
            if turn != self._turn:
                raise EngineError("another replay began on this context", "finish one replay before the next")
            if self._stopped():
                raise EngineError("the replay was stopped", "start it again")
            chunk = tokens[start : start + self.profile.micro_batch]
            positions = np.arange(start, start + len(chunk))
            try:
                context.decode(chunk, positions, 0, positions >= want)
            except BaseException:
                self.close()  # what the cache holds is unknown
                raise
            self._cached += chunk
            rows = [context.logits(i) for i in range(max(want - start, 0), len(chunk))]
            start += len(chunk)
            yield from rows

    def _open(self, positions: int) -> LlamaContext:
        if self._context is None or self._context.n_ctx_seq < positions:
            self.close()
            self._context = open_context(
                self._model,
                self._regime,
                sequences=1,
                context=max(_SMALLEST_CONTEXT, 1 << (positions - 1).bit_length()),
                threads=self._threads,
                outputs=self.profile.micro_batch,
            )
        return self._context

    def _keep(self, context: LlamaContext, tokens: list[int], want: int) -> int:
        """Cut the cache back to what may be kept of it for `tokens`; returns how many positions that is."""
        kept = 0
        if self._regime == "pinned":
            limit = min(len(self._cached), want)  # the token whose row is wanted must run again
            while kept < limit and self._cached[kept] == tokens[kept]:
                kept += 1
        if not context.seq_rm(0, kept):
            context.clear()
            kept = 0
        del self._cached[kept:]
        return kept

    def close(self) -> None:
        """Free the context; the next call makes another. The model stays open."""
        self._cached.clear()
        if self._context is not None:
            self._context.close()
            self._context = None
