"""One answer's path from logits to steps: the part that every engine of ours shares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import numpy as np
from typing_extensions import override

from assay.core.completion import Prompt, Step, StepStop, TopLogprobs
from assay.core.errors import ContextOverflow, InvalidRequest
from assay.core.evidence import TOP_K, logits_leaf, top_leaf
from assay.core.ports import PromptReader
from assay.core.request import Request, SamplerSettings
from assay.core.sampler import draw, top_logprobs
from assay.engines.text import TextStream

Row = TypeVar("Row")
"""What an engine gives after a token: logits, in its own kind of numbers."""


@dataclass(frozen=True, slots=True)
class Picked:
    """A token that was chosen, before it is known what it adds to the text."""

    index: int
    """Output position, from 0."""
    token: int
    stop: StepStop | None
    """Why it is the last one; only a stop text shows later, in `Answering.finish`."""


class AnswerPath(ABC, Generic[Row]):
    """The state of one answer: feed it a row of logits, it gives the next step.

    `pick` is what the next decode waits for. `finish` may run in another thread beside it and beside the next `pick`,
    in the order of the tokens.

    Raises:
        ContextOverflow: at construction, if the prompt leaves no room for one token.
        InvalidRequest: at construction, if the prompt is empty: nothing predicts a first token.
    """

    def __init__(
        self, request: Request, prompt: Prompt, reader: PromptReader, *, context: int, logprobs: int | None = None
    ) -> None:
        """`context`: positions of one sequence. `logprobs`: how many alternatives each step shows (None: none)."""
        if not prompt.tokens:
            raise InvalidRequest("the prompt has no tokens", field="prompt", remedy="send some text")
        if len(prompt.tokens) >= context:
            raise ContextOverflow(len(prompt.tokens), context)
        room = context - len(prompt.tokens)
        self.limit: Final = min(request.max_tokens, room) if request.max_tokens else room
        self.tokens: list[int] = []
        self.request: Final = request
        self.seed: Final = request.seed
        self.logprobs: Final = logprobs
        self.tokenizer: Final = reader.tokenizer
        self._constraint = reader.constraint(request)
        self._text = TextStream(reader.tokenizer.piece, request.stop)
        for token in request.continues:  # shown before: what is shown next may complete what they began
            self._text.push(token)

    @property
    def sampler(self) -> SamplerSettings:
        """The settings by which tokens are chosen."""
        return self.request.sampler

    def step(self, row: Row) -> Step:
        """Choose the next token from logits, and say what it adds.

        Raises:
            EngineError: the logits are not finite.
        """
        return self.finish(row, self.pick(row))

    def pick(self, row: Row) -> Picked:
        """Choose the next token from logits.

        Raises:
            EngineError: the logits are not finite.
        """
        index = len(self.tokens)
        allowed = self._constraint.allowed() if self._constraint else None
        token = self.choose(row, index, allowed)
        self.tokens.append(token)
        if self._constraint:
            self._constraint.accept(token)
        ends = "stop" if self.tokenizer.is_eog(token) else "length" if index + 1 >= self.limit else None
        return Picked(index, token, ends)

    def finish(self, row: Row, picked: Picked) -> Step:
        """Say what a picked token adds: text, evidence, log-probabilities. `row`: as `pick` had it."""
        leaf, top = self.observe(row, picked)
        text = self._text.push(picked.token)
        stop = "stop" if self._text.stopped else picked.stop
        if stop:
            text += self._text.finish()
        return Step(picked.index, picked.token, text, leaf, top, stop)

    @abstractmethod
    def choose(self, row: Row, index: int, allowed: np.ndarray | None) -> int:
        """The token that logits, settings and seed give at output position `index`."""

    @abstractmethod
    def observe(self, row: Row, picked: Picked) -> tuple[bytes, TopLogprobs | None]:
        """The evidence leaf of a picked token, and its log-probabilities if they were asked for."""

    def shown(self, top: TopLogprobs, token: int, most: int) -> TopLogprobs:
        """The `most` best of `top`, and the bytes of all."""
        ids, piece = top.ids[:most], self.tokenizer.piece
        return TopLogprobs(top.chosen, ids, top.logprobs[:most], piece(token), tuple(map(piece, ids)))


class Answering(AnswerPath[np.ndarray]):
    """An answer from logits in float32 [n_vocab], with the sampler `gumbel/1`."""

    @override
    def choose(self, row: np.ndarray, index: int, allowed: np.ndarray | None) -> int:
        """See `AnswerPath.choose`."""
        return draw(row, self.sampler, self.seed, index, allowed)

    @override
    def observe(self, row: np.ndarray, picked: Picked) -> tuple[bytes, TopLogprobs | None]:
        """See `AnswerPath.observe`."""
        level = self.request.level
        if self.logprobs is None and level != "statistical":
            return (logits_leaf(row) if level == "pinned" else b""), None
        top = top_logprobs(row, picked.token, max(self.logprobs or 0, TOP_K if level == "statistical" else 0))
        leaf = top_leaf(top) if level == "statistical" else logits_leaf(row) if level == "pinned" else b""
        return leaf, None if self.logprobs is None else self.shown(top, picked.token, self.logprobs)
