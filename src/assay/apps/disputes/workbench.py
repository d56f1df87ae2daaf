"""Answers computed again for disputes: one at a time, beside everything else that a machine does."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import numpy as np

from assay.core.bundle import Bundle
from assay.core.completion import Prompt, output_digest
from assay.core.errors import BindingMismatch, EngineError
from assay.core.hashing import Digest
from assay.core.request import Request
from assay.engines.exact.convert import convert
from assay.engines.exact.dispute.moves import Challenge
from assay.engines.exact.dispute.plan import Rules
from assay.engines.exact.dispute.response import Response
from assay.engines.exact.dispute.shape import Shape
from assay.engines.exact.parameters import Parameters
from assay.engines.exact.program import Program
from assay.engines.exact.record import record_root, record_roots
from assay.engines.exact.reference import Model
from assay.engines.exact.runner import BATCH, Runner
from assay.engines.exact.sampling import draw
from assay.engines.exact.tracing import HONEST, Alteration


class Reads(Protocol):
    """Renders requests."""

    def render(self, request: Request) -> Prompt:
        """The prompt's tokens."""
        ...


class _Loaded(NamedTuple):
    model: Model
    parameters: Parameters


class _Pass(NamedTuple):
    position: int
    record: np.ndarray
    logits: np.ndarray | None


class Workbench:
    """Of one model. What takes memory is loaded when it is needed, until `clear`. For one thread at a time."""

    def __init__(
        self,
        path: Path,
        digest: Digest,
        program: Program,
        reader: Reads,
        *,
        threads: int = 1,
        alter: Alteration = HONEST,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """`path`, `digest`: of the model file. `alter`: what a dishonest provider makes of its records."""
        self.digest: Final = digest
        self.program: Final = program
        self._path: Final = path
        self._reader: Final = reader
        self._threads: Final = threads
        self._alter: Final = alter
        self._stopped: Final = stopped
        self._loaded: _Loaded | None = None
        self._last: tuple[Digest, int, Response] | None = None

    @property
    def root(self) -> Digest:
        """Of the model's parameters."""
        return self.program.root

    @property
    def shape(self) -> Shape:
        """Of the model."""
        return Shape.of(self._load().model)

    def clear(self) -> None:
        """Let go of what takes memory."""
        self._loaded = self._last = None

    def response(self, bundle: Bundle, passes: int | None = None) -> Response:
        """An answer's records, the first so many or all; the same one is not computed twice in a row.

        Raises:
            BindingMismatch: the answer is another model's, or to another prompt.
            EngineError: `stopped` said so, or a token is not in the vocabulary.
        """
        tokens, prompt = self._tokens(bundle)
        count = len(tokens) - 1 if passes is None else passes
        name = bundle.receipt.digest
        if self._last is not None and self._last[:2] == (name, count):
            return self._last[2]
        self._last = None
        records = self._room(count)
        for each in self._run(tokens[:count], len(tokens)):
            records[each.position] = each.record
        return self._keep(name, bundle, tokens, prompt, records, count)

    def leaves(self, bundle: Bundle) -> list[Digest]:
        """What the passes of an answer are committed to.

        Raises:
            BindingMismatch, EngineError: see `response`.
        """
        tokens, _ = self._tokens(bundle)
        return [record_root(self.program.layout, each.record) for each in self._run(tokens[:-1], len(tokens))]

    def fault(self, bundle: Bundle, leaves: Sequence[Digest]) -> Challenge | None:
        """The first thing that is wrong with an answer whose passes are committed to so; None: nothing is.

        A token that is not in the vocabulary has no pass; it is not the one that was to be drawn, so that nobody gets
        there.

        Raises:
            BindingMismatch, EngineError: see `response`.
        """
        tokens, prompt = self._tokens(bundle)
        request = bundle.request
        known = next((n for n, token in enumerate(tokens) if not 0 <= token < self.program.vocabulary), len(tokens))
        for each in self._run(tokens[: min(known, len(tokens) - 1)], len(tokens), first_logits=prompt - 1):
            at = each.position
            if record_roots(self.program.layout, each.record[None])[0] != leaves[at]:
                return Challenge(at)
            if each.logits is not None:
                drawn = draw(each.logits, request.sampler, request.seed, at + 1 - prompt)
                if drawn != tokens[at + 1]:
                    return Challenge(at, token=True)
        return None

    def follows(self, bundle: Bundle, position: int, entry: int | None) -> int:
        """The number in a place of a pass's record, as it follows from the request; without a place, the token that is
        to be drawn behind the pass.

        Raises:
            BindingMismatch, EngineError: see `response`; or the answer has no such pass or number.
        """
        tokens, prompt = self._tokens(bundle)
        if not (prompt - 1 if entry is None else 0) <= position < len(tokens) - 1:
            raise BindingMismatch("position", "the answer has no such pass")
        if entry is not None and not 0 <= entry < self.program.layout.empty(1).shape[1]:
            raise BindingMismatch("position", "the record of a pass has no such number")
        wanted = position if entry is None else None
        *_, last = self._run(tokens[: position + 1], len(tokens), first_logits=wanted)
        if entry is not None:
            return int(last.record[entry])
        assert last.logits is not None
        return draw(last.logits, bundle.request.sampler, bundle.request.seed, position + 1 - prompt)

    def _tokens(self, bundle: Bundle) -> tuple[tuple[int, ...], int]:
        """Those of prompt and answer, and how many are the prompt's."""
        receipt, nonce = bundle.receipt, bundle.request.nonce
        if receipt.model != self.digest or bundle.profile.build != self.root.hex():
            raise BindingMismatch("model", "the answer is of another model than this machine computes")
        prompt = self._reader.render(bundle.request)
        tokens = (*prompt.tokens, *bundle.tokens)
        counts = len(prompt.tokens), len(bundle.tokens)
        if (receipt.prompt_tokens, receipt.output) != (prompt.token_digest(nonce), output_digest(nonce, bundle.tokens)):
            raise BindingMismatch("tokens", "the receipt is over another prompt or answer, which no chain can judge")
        if (receipt.prompt_count, receipt.output_count) != counts or receipt.profile != bundle.profile.digest:
            raise BindingMismatch("counts", "the receipt contradicts itself in what no chain can judge")
        return tokens, counts[0]

    def _load(self) -> _Loaded:
        if self._loaded is None:
            model = convert(self._path)
            self._loaded = _Loaded(model, Parameters(model))
        return self._loaded

    def _room(self, count: int) -> np.ndarray:
        """For so many records, in a file without a name: they may be many gigabytes."""
        size = self.program.layout.empty(1).shape[1]
        with tempfile.TemporaryFile() as file:
            return np.memmap(file, np.int16, "w+", shape=(count, size))

    def _keep(
        self, name: Digest, bundle: Bundle, tokens: Sequence[int], prompt: int, records: np.ndarray, count: int
    ) -> Response:
        model, parameters = self._load()
        request = bundle.request
        rules = Rules(request.sampler, request.seed, prompt)
        made = Response(model, parameters, tokens, prompt, records, request.nonce, rules)
        self._last = name, count, made
        return made

    def _run(self, tokens: Sequence[int], room: int, first_logits: int | None = None) -> Iterator[_Pass]:
        """The pass of each token; good until the next batch."""
        runner = Runner(self.program, sequences=1, positions=room, batch=BATCH, threads=self._threads)
        try:
            for start, stop in pairwise([*range(0, len(tokens), BATCH), len(tokens)]):
                if self._stopped():
                    raise EngineError("computing an answer again was broken off", "it begins anew with the next start")
                wanted = [first_logits is not None and at >= first_logits for at in range(start, stop)]
                runner.decode(tokens[start:stop], range(start, stop), 0, wanted)
                for n, want in enumerate(wanted):
                    at = start + n
                    record = self._alter.record(self.program, at, runner.record(n))
                    yield _Pass(at, record, runner.logits(n) if want else None)
        finally:
            runner.close()
