"""What comes next, by the exact engine, by llama.cpp and by the model in float64: logits in nats after each token."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from benchmarks._float_model import FloatModel

from assay.engines.exact.convert import convert
from assay.engines.exact.program import program_of
from assay.engines.exact.reference import LOGIT_FRACTION
from assay.engines.exact.runner import BATCH, Runner
from assay.engines.llama_model import LlamaModel
from assay.engines.llama_regime import N_BATCH, open_context

_THREADS: Final = os.cpu_count() or 1


class Engine(Protocol):
    """The calls that a voice makes."""

    def decode(
        self, tokens: Sequence[int], positions: Sequence[int], seq_ids: int, want_logits: Sequence[bool], /
    ) -> None:
        """Run the model over a batch."""
        ...

    def logits(self, index: int, /) -> np.ndarray:
        """Logits after the batch's token `index`."""
        ...


def _nothing(_start: int) -> None:
    """Positions that come again are overwritten."""


class Voice:
    """An engine that speaks for one sequence: logits in nats after each token."""

    def __init__(self, engine: Engine, batch: int, unit: float, forget: Callable[[int], object] = _nothing) -> None:
        """`unit`: nats that a logit of 1 stands for. `forget`: is told from which position on."""
        self._engine: Final = engine
        self._batch: Final = batch
        self._unit: Final = unit
        self._forget: Final = forget

    def after(self, tokens: Sequence[int], start: int = 0, *, last: bool = False) -> Iterator[np.ndarray]:
        """float64 [vocabulary] after each of the tokens (`last`: after the last one), which follow the `start` tokens
        that were read before; whatever came after those is forgotten."""
        self._forget(start)
        for at in range(0, len(tokens), self._batch):
            part = tokens[at : at + self._batch]
            wanted = [not last or at + index == len(tokens) - 1 for index in range(len(part))]
            self._engine.decode(part, range(start + at, start + at + len(part)), 0, wanted)
            for index in np.flatnonzero(wanted):
                yield self._engine.logits(int(index)).astype(np.float64) * self._unit


@contextmanager
def exact_voice(path: Path, positions: int) -> Iterator[Voice]:
    """The exact engine, for a sequence of up to `positions` tokens.

    Raises:
        ModelFileError: the file is damaged, or of an architecture or format that is not understood.
    """
    runner = Runner(program_of(convert(path)), sequences=1, positions=positions, batch=BATCH, threads=_THREADS)
    with closing(runner):
        yield Voice(runner, BATCH, 1 / (1 << LOGIT_FRACTION))


@contextmanager
def llama_voice(model: LlamaModel, positions: int) -> Iterator[Voice]:
    """llama.cpp in its usual configuration, reading a prompt: up to 512 tokens at once, without flash attention."""
    with open_context(
        model, "free", sequences=1, context=positions, threads=_THREADS, outputs=min(N_BATCH, positions)
    ) as context:
        yield Voice(context, N_BATCH, 1.0, lambda start: context.seq_rm(0, start))


def float_rows(model: FloatModel, tokens: Sequence[int]) -> Iterator[np.ndarray]:
    """float64 [vocabulary] after each of the tokens, in float64."""
    for rows in model.logits([tokens]):
        yield from rows


def log_probability(row: np.ndarray, token: int) -> float:
    """Logarithm of a token's probability by logits in nats."""
    top = row.max()
    return float(row[token] - top - np.log(np.exp(row - top).sum()))


def begin(model: LlamaModel) -> tuple[int, ...]:
    """What the model's texts begin with: its beginning-of-text token, if it wants one."""
    token = model.tokenizer.bos() if model.tokenizer.add_bos else None
    return () if token is None else (token,)
