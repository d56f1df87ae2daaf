"""The audit of a response: every product tested, everything else computed again, for a fraction of what it cost.

The auditor is given the accumulators of every pass. Between two products everything is a function of them, and is
computed again: so are the pass's record, which has to be the one that the receipt commits to, and the token's draw.
Each product is tested with Freivalds' method against one W^T r for the whole response. The numbers r are the auditor's
secret; or they follow from receipt and accumulators (a public trace), and everybody's audit is the same. There is no
tolerance.
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
from assay.engines.exact.challenge import REPETITIONS, challenge, groups_of, public_seed
from assay.engines.exact.chunks import decode_chunks
from assay.engines.exact.decoder import ExactDecoder
from assay.engines.exact.kernels.products import multiply
from assay.engines.exact.kernels.sampling import draw
from assay.engines.exact.kernels.state import DOWN, GATE, GROUPS, OUTPUT, QUERY, Test
from assay.engines.exact.parameters import MATRICES
from assay.engines.exact.program import Program
from assay.engines.exact.record import CHUNK, chunk_digests, first_difference
from assay.engines.exact.runner import Runner
from assay.engines.exact.trace_header import TraceHeader
from assay.engines.exact.trace_stream import KeptPass, Pass, TraceReader, WholePass

BATCH: Final = 16
"""Passes that are tested at a time."""
_FIRST: Final = (QUERY, OUTPUT, GATE, DOWN)
"""The first product of each group of a layer."""


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


def header_of(program: Program, response: Response, *, public: bool = False) -> TraceHeader:
    """The header of a response's trace."""
    return TraceHeader(
        response.evidence, response.prompt, response.output, program.layout, program.body, program.vocabulary, public
    )


def audit(
    program: Program,
    response: Response,
    blocks: Iterable[bytes],
    *,
    secret: bytes,
    positions: Collection[int] | None = None,
    whole: bool = False,
    threads: int = 1,
    stopped: Callable[[], bool] = lambda: False,
) -> int:
    """Check the passes at `positions` (None: all) of a response whose trace arrives in `blocks`; how many were checked.

    `secret`: 32 bytes that whoever made the trace could not know; of a public trace it does not matter. `whole`: the
    trace has every pass, so that every pass is checked. Memory is bounded by a few passes, whatever arrives.

    Raises:
        EncodingError: what arrived is no trace, or ended early.
        TraceMismatch: it is not what the receipt commits to.
        AuditMismatch: an operation of a pass is wrong; it is named.
        ReplayMismatch: a token is not the one that logits, settings and seed give.
    """
    header = header_of(program, response)
    plan = header.plan(range(response.passes) if positions is None or whole else positions)
    checker = _Checker(program, response, threads=threads)
    reader = TraceReader(header, plan, response.nonce)
    try:
        for block in blocks:
            for each in reader.feed(block):
                if checker.test is None:
                    public = reader.accumulators
                    seed = secret if public is None else public_seed(response.evidence, public)
                    checker.test = challenge(
                        program, seed, batch=BATCH, repetitions=1 if public is None else REPETITIONS
                    )
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
            "every token could be the model's, but the activations that the receipt commits to are not: something else "
            "computed them"
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

    def __init__(self, program: Program, response: Response, *, threads: int) -> None:
        self.checked = 0
        self.test: Test | None = None
        """What products are tested with; needed before the first pass."""
        self._response: Final = response
        self._program: Final = program
        self._layout: Final = program.layout
        self._draws: Final = _Draws(response)
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
            self._runner.remember([each.position for each in kept], [each.kept for each in kept])
        if not whole or self.test is None:
            return
        failed = self._runner.test(
            [self._response.tokens[each.position] for each in whole],
            [each.position for each in whole],
            [each.body for each in whole],
            {n: each.head for n, each in enumerate(whole) if each.head is not None},
            self.test,
        )
        for n, each in enumerate(whole):
            if failed[n] >= 0:
                raise self._wrong_product(each, n, int(failed[n]))
            self._compare(each, chunk_digests(self._runner.record(n).reshape(-1, CHUNK)))
            if each.head is not None:
                self._draws.check(each.position, self._runner.logits(n))
            self.checked += 1

    def close(self) -> None:
        """End the threads."""
        self._runner.close()

    def _compare(self, found: WholePass, digests: np.ndarray) -> None:
        """Whether the record is the one that was committed to."""
        places = list(first_difference(self._layout, digests, found.digests))
        if places:
            layer, vector = places[0]
            among = ", ".join(name for _, name in places)
            raise AuditMismatch(
                f"the activations ({among}) are not those that were committed to",
                position=found.position,
                layer=layer,
                operation=vector,
            )

    def _wrong_product(self, found: WholePass, n: int, group: int) -> AuditMismatch:
        """Name the product and its first wrong row, by computing the products of the group for this one token."""
        plan, layers = self._program.plan, self._layout.layers
        layer, number = divmod(group, GROUPS)
        record = self._runner.record(n)
        for place, packed in enumerate(groups_of(self._program)[group]):
            if layer == layers:
                start, operation = plan.inputs[QUERY] + layers * plan.inputs_step, "head"
                given = None if found.head is None else decode_chunks(found.head)
            else:
                kind = _FIRST[number] + place
                start, operation = plan.inputs[kind] + layer * plan.inputs_step, MATRICES[kind]
                given = decode_chunks(found.body).reshape(layers, -1)[layer, plan.offsets[kind] :]
            assert given is not None
            right = np.empty((1, packed.rows), np.int64)
            multiply(packed, np.ascontiguousarray(record[None, start : start + packed.columns]), right)
            wrong = np.flatnonzero(right[0] != given[: packed.rows])
            if wrong.size:
                return AuditMismatch(
                    f"row {wrong[0]} of the {operation} product is not what weights and activations give",
                    position=found.position,
                    layer=None if layer == layers else layer,
                    operation=operation,
                )
        raise AssertionError("Freivalds' test refuses only what is wrong")
