"""The audit of a response: every product tested, everything else computed again, for a fraction of what it cost.

The auditor is given the accumulators of every pass. Between two products everything is a function of them, and is
computed again: so are the pass's record, which has to be the one that the receipt commits to, and the token's draw.
The products of a pass are tested with Freivalds' method, together. The numbers r are the auditor's secret, and W^T r
serves every response until one fails; or they follow from receipt and accumulators (a public trace), and everybody's
audit is the same. There is no tolerance.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from assay.core.errors import AuditMismatch, EncodingError, ReplayMismatch, VerificationError
from assay.core.evidence import evidence_root
from assay.core.hashing import Digest
from assay.core.ports import Constraint
from assay.core.request import SamplerSettings
from assay.engines.exact.challenge import REPETITIONS, challenge, public_seed
from assay.engines.exact.chunks import decode_chunks
from assay.engines.exact.decoder import ExactDecoder
from assay.engines.exact.kernels.products import multiply
from assay.engines.exact.kernels.sampling import draw
from assay.engines.exact.kernels.state import PRODUCTS, Test
from assay.engines.exact.parameters import MATRICES
from assay.engines.exact.program import Program
from assay.engines.exact.record import CHUNK, chunk_digests, first_difference
from assay.engines.exact.runner import BATCH, Runner
from assay.engines.exact.trace_header import TraceHeader
from assay.engines.exact.trace_stream import Found, KeptPasses, TraceReader, WholePass


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


class Examiner:
    """Checks responses of one model, one at a time; its memory and its secret serve all of them."""

    def __init__(self, program: Program, *, threads: int = 1, stopped: Callable[[], bool] = lambda: False) -> None:
        """`threads`: how many compute together. `stopped` is asked now and then; True ends a check early."""
        self._program: Final = program
        self._threads: Final = threads
        self._stopped: Final = stopped
        self._runner: Runner | None = None
        self._positions = 0
        self._secret: Test | None = None
        """What products are tested with, until a response fails: then somebody may have learnt something."""

    def audit(
        self,
        response: Response,
        blocks: Iterable[bytes],
        *,
        positions: Collection[int] | None = None,
        whole: bool = False,
    ) -> int:
        """Check the passes at `positions` (None: all) of a response, its trace coming in `blocks`; how many were.

        `whole`: the trace has every pass, so that every pass is checked. Memory is bounded by a few passes, whatever
        comes.

        Raises:
            EncodingError: what came is no trace, or ended early.
            TraceMismatch: it is not what the receipt commits to.
            AuditMismatch: an operation of a pass is wrong; it is named.
            ReplayMismatch: a token is not the one that logits, settings and seed give.
        """
        header = header_of(self._program, response)
        plan = header.plan(range(response.passes) if positions is None or whole else positions)
        reader = TraceReader(header, plan, response.nonce)
        checker: _Checker | None = None
        try:
            for block in blocks:
                for each in reader.feed(block):
                    if checker is None:
                        test = self._test(response, reader.accumulators)
                        checker = _Checker(self._program, response, test, self._runner_for(response))
                    checker.take(each)
                if self._stopped():
                    break
            reader.finish()
            if checker is None:
                return 0
            checker.flush()
            return checker.checked
        except VerificationError:
            self._secret = None
            raise

    def replay(self, response: Response) -> int:
        """Check a response without its trace, by computing all of it again in batches; how many passes were checked.

        Raises:
            ReplayMismatch: a token is not the one that model, settings and seed give, or the activations are not those
                that the receipt commits to.
        """
        decoder = ExactDecoder(self._runner_for(response), sequences=1)
        draws = _Draws(response)
        leaves: list[Digest] = []
        for start in range(0, response.passes, BATCH):
            if self._stopped():
                return start
            tokens = response.tokens[start : min(start + BATCH, response.passes)]
            wanted = [start + n >= response.prompt - 1 for n in range(len(tokens))]
            decoder.decode(tokens, range(start, start + len(tokens)), 0, wanted)
            for n, want in enumerate(wanted):
                if want:
                    row = decoder.logits(n)
                    leaves.append(row.leaf(len(leaves)))
                    draws.check(start + n, row.logits)
        if evidence_root(leaves, response.nonce) != response.evidence:
            raise ReplayMismatch(
                "every token could be the model's, but the activations that the receipt commits to are not: something "
                "else computed them"
            )
        return response.passes

    def close(self) -> None:
        """End the threads."""
        if self._runner is not None:
            self._runner.close()

    def _test(self, response: Response, public: Sequence[Digest] | None) -> Test:
        if public is not None:
            seed = public_seed(response.evidence, public)
            return challenge(self._program, seed, batch=BATCH, repetitions=REPETITIONS)
        if self._secret is None:
            self._secret = challenge(self._program, secrets.token_bytes(32), batch=BATCH, repetitions=1)
        return self._secret

    def _runner_for(self, response: Response) -> Runner:
        """One with room for a response, with which the memory of longer ones before it is used again."""
        needed = len(response.tokens)
        if self._runner is None or needed > self._positions:
            self.close()
            self._positions = max(needed, 2 * self._positions)
            self._runner = Runner(
                self._program,
                sequences=1,
                positions=self._positions,
                batch=BATCH,
                threads=self._threads,
                filled=True,
            )
        return self._runner


class _Draws:
    """Checks output tokens, in their order."""

    def __init__(self, response: Response) -> None:
        self._response: Final = response
        self._accepted = 0

    def check(self, position: int, logits: np.ndarray) -> None:
        """Whether the token after the one at `position` is the one that its logits give."""
        response, index = self._response, position - (self._response.prompt - 1)
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


class _Checker:
    """Takes passes by position and tests them in batches."""

    def __init__(self, program: Program, response: Response, test: Test, runner: Runner) -> None:
        """`test`: what products are tested with."""
        self.checked = 0
        self._test: Final = test
        self._response: Final = response
        self._program: Final = program
        self._layout: Final = program.layout
        self._draws: Final = _Draws(response)
        self._runner: Final = runner
        self._whole: Final[list[WholePass]] = []

    def take(self, found: Found) -> None:
        """One more pass, or more; positions rise. What is kept of one does not matter to earlier ones that wait."""
        if isinstance(found, KeptPasses):
            self._runner.remember(found.positions, found.kept)
            return
        self._whole.append(found)
        if len(self._whole) == BATCH:
            self.flush()

    def flush(self) -> None:
        """Check what waits."""
        whole = self._whole.copy()
        self._whole.clear()
        if not whole:
            return
        passed = self._runner.test(
            [self._response.tokens[each.position] for each in whole],
            [each.position for each in whole],
            [each.body for each in whole],
            {n: each.head for n, each in enumerate(whole) if each.head is not None},
            self._test,
        )
        digests = chunk_digests(self._runner.records[: len(whole)].reshape(-1, CHUNK)).reshape(len(whole), -1, 32)
        for n, each in enumerate(whole):
            if not passed[n]:
                raise self._wrong_product(each, n)
            self._compare(each, digests[n])
            if each.head is not None:
                self._draws.check(each.position, self._runner.logits(n))
            self.checked += 1

    def _compare(self, found: WholePass, digests: np.ndarray) -> None:
        """Whether the record is the one that was committed to."""
        if not np.array_equal(digests, found.digests):
            places = list(first_difference(self._layout, digests, found.digests))
            layer, vector = places[0]
            among = ", ".join(name for _, name in places)
            raise AuditMismatch(
                f"the activations ({among}) are not those that were committed to",
                position=found.position,
                layer=layer,
                operation=vector,
            )

    def _wrong_product(self, found: WholePass, n: int) -> AuditMismatch:
        """Name the first wrong product of a pass and its first wrong row, by computing them for this one token."""
        plan, layers, record = self._program.plan, self._layout.layers, self._runner.record(n)
        body = decode_chunks(found.body).reshape(layers, -1)
        for index, packed in enumerate(self._program.products):
            layer, kind = divmod(index, PRODUCTS)
            if layer < layers:
                given, operation = body[layer, plan.offsets[kind] :], MATRICES[kind]
            elif found.head is not None:
                given, operation = decode_chunks(found.head), "head"
            else:
                break
            start = plan.inputs[kind] + layer * plan.inputs_step
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
        raise EncodingError("chunks of accumulators are not filled up with zeros")
