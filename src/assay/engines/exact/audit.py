"""The audit of a response: every product tested, everything else computed again, for a fraction of what it cost.

The auditor reads the accumulators of every pass that the receipt commits to. Between two products everything is a
function of them, and is recomputed; each product is tested with Freivalds' method against one W^T r for the whole
response, with numbers r that follow from the receipt. So is each token's draw. There is no tolerance, and no secret.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from assay.core.errors import AuditMismatch, ReplayMismatch
from assay.core.evidence import evidence_root
from assay.core.hashing import Digest
from assay.core.ports import Constraint
from assay.core.request import SamplerSettings
from assay.engines.exact.challenge import REPETITIONS, challenge
from assay.engines.exact.decoder import ExactDecoder
from assay.engines.exact.kernels.layers import FRACTION, PRODUCTS
from assay.engines.exact.kernels.sampling import draw
from assay.engines.exact.parameters import MATRICES
from assay.engines.exact.program import Program
from assay.engines.exact.runner import Runner
from assay.engines.exact.trace_header import TraceHeader
from assay.engines.exact.trace_stream import KeptPass, Pass, TraceReader, WholePass

BATCH: Final = 16
"""Passes that are tested at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class Response:
    """What an audit is of."""

    tokens: Sequence[int]
    """Of prompt and output."""
    prompt: int
    """How many are the prompt's."""
    evidence: Digest
    """Of the receipt."""
    nonce: bytes
    sampler: SamplerSettings
    seed: Digest
    constraint: Constraint | None = None
    """A fresh one, if a grammar masks tokens."""

    @property
    def output(self) -> int:
        """Tokens of the output."""
        return len(self.tokens) - self.prompt

    @property
    def passes(self) -> int:
        """Tokens that went through the model: all but the last."""
        return len(self.tokens) - 1


def header_of(program: Program, response: Response) -> TraceHeader:
    """The header of a response's trace."""
    return TraceHeader(response.evidence, response.prompt, response.output, program.layout)


def audit(
    program: Program,
    response: Response,
    blocks: Iterable[bytes],
    *,
    positions: Collection[int] | None = None,
    repetitions: int = REPETITIONS,
    threads: int = 1,
    stopped: Callable[[], bool] = lambda: False,
) -> int:
    """Check the passes at `positions` (None: all) of a response whose trace arrives in `blocks`; how many were checked.

    Memory is bounded by a few passes, whatever arrives.

    Raises:
        EncodingError: what arrived is no trace, or ended early.
        TraceMismatch: it is not what the receipt commits to.
        AuditMismatch: an operation of a pass is wrong; it is named.
        ReplayMismatch: a token is not the one that logits, settings and seed give.
    """
    header = header_of(program, response)
    plan = header.plan(range(response.passes) if positions is None else positions)
    reader = TraceReader(header, plan, response.nonce)
    checker = _Checker(program, response, repetitions=repetitions, threads=threads)
    try:
        for block in blocks:
            for each in reader.feed(block):
                checker.take(each)
            if stopped():
                break
        reader.finish()
        checker.flush()
        return checker.checked
    finally:
        checker.close()


def replay(
    program: Program,
    response: Response,
    *,
    threads: int = 1,
    stopped: Callable[[], bool] = lambda: False,
) -> int:
    """Check a response without its trace, by computing all of it again in batches; how many passes were checked.

    Raises:
        ReplayMismatch: a token is not the one that model, settings and seed give, or the accumulators are not those
            that the receipt commits to.
    """
    runner = Runner(program, sequences=1, positions=len(response.tokens), batch=BATCH, threads=threads)
    decoder = ExactDecoder(runner, sequences=1)
    draws = _Draws(response)
    leaves: list[Digest] = []
    try:
        for start in range(0, response.passes, BATCH):
            if stopped():
                return start
            tokens = response.tokens[start : min(start + BATCH, response.passes)]
            wanted = [start + n >= response.prompt - 1 for n in range(len(tokens))]
            decoder.decode(tokens, range(start, start + len(tokens)), 0, wanted)
            for n, want in enumerate(wanted):
                if want:
                    row = decoder.logits(n)
                    leaves.append(row.leaf(len(leaves)))
                    draws.check(start + n, row.logits)
    finally:
        decoder.close()
    if evidence_root(leaves, response.nonce) != response.evidence:
        raise ReplayMismatch(
            "every token could be the model's, but the accumulators that the receipt commits to are not: something "
            "else computed them"
        )
    return response.passes


class _Draws:
    """Checks output tokens, in their order."""

    def __init__(self, response: Response) -> None:
        self._response: Final = response
        self._accepted = 0

    def check(self, position: int, logits: np.ndarray) -> None:
        """Whether the token after the one at `position` is the one that its logits give."""
        response, index = self._response, position - response_start(self._response)
        constraint = response.constraint
        allowed = None
        if constraint is not None:
            for token in response.tokens[response.prompt + self._accepted : response.prompt + index]:
                constraint.accept(token)
            self._accepted = index
            allowed = constraint.allowed()
        expected = draw(logits, response.sampler, response.seed, index, allowed)
        actual = response.tokens[position + 1]
        if expected != actual:
            raise ReplayMismatch(
                f"token {index} is {actual} and model and seed give {expected}",
                step=index,
                expected=expected,
                actual=actual,
            )


def response_start(response: Response) -> int:
    """The position whose pass gives the first output token."""
    return response.prompt - 1


class _Checker:
    """Takes passes by position and tests them in batches."""

    def __init__(self, program: Program, response: Response, *, repetitions: int, threads: int) -> None:
        self.checked = 0
        self._response: Final = response
        self._layers: Final = program.shape.layers
        self._draws: Final = _Draws(response)
        self._test: Final = challenge(program, response.evidence, batch=BATCH, repetitions=repetitions)
        self._runner: Final = Runner(program, sequences=1, positions=len(response.tokens), batch=BATCH, threads=threads)
        self._waiting: Final[list[Pass]] = []

    def take(self, found: Pass) -> None:
        """One more pass; positions rise."""
        if self._waiting and type(found) is not type(self._waiting[0]):
            self.flush()
        self._waiting.append(found)
        if len(self._waiting) == BATCH:
            self.flush()

    def flush(self) -> None:
        """Check what waits."""
        whole = [each for each in self._waiting if isinstance(each, WholePass)]
        kept = [each for each in self._waiting if isinstance(each, KeptPass)]
        self._waiting.clear()
        if kept:
            self._runner.remember([each.position for each in kept], [each.body for each in kept])
        if not whole:
            return
        failed = self._runner.test(
            [self._response.tokens[each.position] for each in whole],
            [each.position for each in whole],
            [each.body for each in whole],
            {n: each.head for n, each in enumerate(whole) if each.head is not None},
            self._test,
        )
        for n, each in enumerate(whole):
            if failed[n] >= 0:
                raise self._mismatch(each.position, int(failed[n]))
            if each.head is not None:
                self._draws.check(each.position, self._runner.logits(n))
            self.checked += 1

    def close(self) -> None:
        """End the threads."""
        self._runner.close()

    def _mismatch(self, position: int, failed: int) -> AuditMismatch:
        layer, kind = divmod(failed, PRODUCTS + 1)
        if layer == self._layers:
            return AuditMismatch("the head's product is wrong", position=position, layer=None, operation="head")
        operation = "input" if kind == FRACTION else MATRICES[kind]
        what = "the committed fraction bits are wrong" if kind == FRACTION else f"the {operation} product is wrong"
        return AuditMismatch(what, position=position, layer=layer, operation=operation)
