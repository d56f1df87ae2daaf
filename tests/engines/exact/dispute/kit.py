"""Small responses of every variant, and sides that lie."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from benchmarks._dispute import Watched
from gguf import GGMLQuantizationType as Kind
from tests.engines.exact.models import write_model

from assay.core.request import SamplerSettings
from assay.engines.exact.convert import convert
from assay.engines.exact.dispute.game import Terms, dispute
from assay.engines.exact.dispute.moves import MOST_BYTES, Outcome
from assay.engines.exact.dispute.plan import GREEDY, Plan, Rules, Target
from assay.engines.exact.dispute.response import OwnReader, Response, expand
from assay.engines.exact.dispute.shape import Shape
from assay.engines.exact.dispute.sides import Player, Prover, play
from assay.engines.exact.dispute.steps import step
from assay.engines.exact.parameters import Parameters
from assay.engines.exact.program import program_of
from assay.engines.exact.reference import Model
from assay.engines.exact.runner import Runner
from assay.engines.exact.sampling import draw

VARIANTS: dict[str, dict[str, Any]] = {
    "llama": {"layers": 2},
    "llama-tied-scaled": {"layers": 1, "tied": True, "factors": True, "kind": Kind.Q8_0},
    "llama-f16": {"layers": 1, "kind": Kind.F16},
    "llama-biased": {"layers": 1, "biases": True, "kind": Kind.Q5_1},
    "qwen2": {"layers": 1, "architecture": "qwen2", "kind": Kind.Q5_0},
    "qwen3": {"layers": 2, "architecture": "qwen3", "head_width": 32},
    "gemma3": {"layers": 2, "architecture": "gemma3", "head_width": 32, "kind": Kind.Q4_0, "tied": True, "window": 3},
    "wide": {"layers": 1, "width": 1280, "heads": 5, "kv_heads": 1, "head_width": 96, "feed": 1120},
    "wide-gemma3": {"layers": 1, "architecture": "gemma3", "width": 1056, "heads": 2, "feed": 64, "window": 40},
    "long": {"layers": 1, "heads": 2, "kv_heads": 1, "head_width": 512},
    "drawn": {"layers": 1},
}
"""Rows wider than one step, heads that straddle spans and chunks, and more positions than one step sees."""
SETTINGS = SamplerSettings(temperature=2_000_000, top_k=600, top_p=900_000, min_p=20_000)
"""Of "drawn", which has a large vocabulary, too."""
NONCE = bytes(range(32))


class Answer:
    """An answer of a small model, as the engine gives it."""

    def __init__(self, name: str, *, seed: int = 0) -> None:
        with tempfile.TemporaryDirectory() as folder:
            model = convert(write_model(Path(folder) / "model.gguf", seed=seed, **VARIANTS[name]))
        drawn = name == "drawn"
        model = with_vocabulary(model, 2300) if drawn else model
        parameters = Parameters(model)
        self.root = parameters.root
        self.shape = Shape.of(model)
        dice = Random(1)
        prompt = 34 if name == "long" else 4
        tokens = [dice.randrange(3, 280) for _ in range(prompt)]
        self.rules = Rules(SETTINGS, NONCE, prompt) if drawn else GREEDY
        self.tokens, records = run(model, tokens, prompt + 3, self.rules)
        self.own = Response(model, parameters, self.tokens, prompt, records, NONCE, self.rules)
        """The honest numbers."""

    def terms(self, theirs: Response | None = None) -> Terms:
        """Those of a receipt over a response, the honest one unless another is given."""
        theirs = theirs or self.own
        return Terms(self.shape, self.root, theirs.evidence, theirs.token_roots, *self.rules[:2])

    def altered(self, position: int, record: np.ndarray) -> Response:
        """The response with one record exchanged."""
        records = self.own.records.copy()
        records[position] = record
        return self.other(records=records)

    def other(self, *, records: np.ndarray | None = None, tokens: Sequence[int] | None = None) -> Response:
        """The response with other records, or another answer of at most as many tokens."""
        own = self.own
        tokens = own.tokens if tokens is None else tokens
        records = (own.records if records is None else records)[: len(tokens) - 1]
        other = Response(own.model, own.parameters.parameters, tokens, own.prompt, records, NONCE, own.rules)
        other.parameters = own.parameters
        return other


def with_vocabulary(model: Model, size: int) -> Model:
    """The model with more tokens, whose weights are others'."""
    dice = np.random.default_rng(2)
    head, rows = model.head, dice.integers(0, len(model.head.q), size)
    shuffled = replace(head, q=dice.permuted(head.q[rows], axis=1), scale=head.scale[rows], offset=head.offset[rows])
    return replace(model, head=shuffled, embedding=shuffled)


def run(model: Model, tokens: Sequence[int], count: int, rules: Rules = GREEDY) -> tuple[list[int], np.ndarray]:
    """An answer up to `count` tokens, and the records of all tokens but the last one."""
    tokens, records = list(tokens), list[np.ndarray]()
    runner = Runner(program_of(model), sequences=1, positions=count, batch=4, threads=1)
    try:
        while len(records) < count - 1:
            part = tokens[len(records) : len(records) + 4]
            runner.decode(part, range(len(records), len(records) + len(part)), 0, True)
            records += [runner.record(n).copy() for n in range(len(part))]
            if len(records) == len(tokens):
                logits = runner.logits(len(part) - 1)
                tokens.append(draw(logits, rules.settings, rules.seed, len(tokens) - rules.prompt))
    finally:
        runner.close()
    return tokens, np.array(records)


@cache
def answer(name: str, *, seed: int = 0) -> Answer:
    """The answer of a variant, computed once."""
    return Answer(name, seed=seed)


def rerun(plan: Plan, own: Response, changes: dict[int, bytes], *, onwards: bool) -> list[bytes]:
    """All cells with some changed; those after them follow from them, or are as they were."""
    plain = plain_cells(own, plan.target)
    first = min(changes, default=plan.count) if onwards else plan.count
    cells = [changes.get(index, cell) for index, cell in enumerate(plain[: first + 1])]
    reader = OwnReader(plan, own, cells)
    for section in plan.sections:
        for index in range(max(section.start, len(cells)), section.stop):
            try:
                cells.append(changes[index] if index in changes else section.encode(step(reader, index)))
            except Exception:  # noqa: BLE001 - no number follows from the lie: keep what was there
                cells.append(plain[index])
    return cells


@lru_cache(maxsize=4)
def plain_cells(own: Response, target: Target) -> list[bytes]:
    """All cells of a target; the last few are kept."""
    return expand(Plan(own.shape, target, own.rules), own)


class LyingProver(Prover):
    """Changes cells before it commits to them."""

    def __init__(self, own: Response, change: Callable[[Plan], dict[int, bytes]], *, onwards: bool = False) -> None:
        super().__init__(own)
        self._change = change
        self._onwards = onwards

    def cells(self, plan: Plan) -> list[bytes]:
        return rerun(plan, self.own, self._change(plan), onwards=self._onwards)


def settle(terms: Terms, prover: Player, challenger: Player) -> Outcome:
    """Play, and check the bounds."""
    watched = Watched(prover)
    outcome = play(dispute(terms), watched, challenger)
    assert watched.most <= MOST_BYTES
    assert outcome.exchanges <= 8
    return outcome


def changed(own: Response, position: int, dice: Random) -> tuple[np.ndarray, list[int]]:
    """A record with some numbers wrong, by one or by a lot; and which."""
    record = own.records[position].copy()
    indices = [index for index in range(len(record)) if own.shape.place(index)]
    wrong = sorted(dice.choice(indices) for _ in range(dice.choice([1, 1, 2, 5])))
    for index in wrong:
        record[index] ^= dice.choice([1, 2, 1 << dice.randrange(15)])
    return record, [index for index in wrong if record[index] != own.records[position, index]]
