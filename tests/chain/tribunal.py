"""Referees on a bare chain, and openings for them: honest ones, and such as no honest side makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
from pyrevm import EVM, AccountInfo
from tests.engines.exact.dispute.kit import NONCE, VARIANTS, answer
from tests.engines.exact.dispute.test_steps import vectors

from assay.chain import referees
from assay.chain.contracts import REFEREES, TABLES, artefact
from assay.chain.game import behind
from assay.core import tree16
from assay.core.errors import AssayError
from assay.core.hashing import Digest
from assay.engines.exact.dispute import trees
from assay.engines.exact.dispute.game import judge
from assay.engines.exact.dispute.plan import NumberTarget, Plan, Section, Target, TokenTarget
from assay.engines.exact.dispute.reading import Commitments, cell_digest
from assay.engines.exact.dispute.response import OpeningReader, OwnReader, Response, expand
from assay.engines.exact.dispute.shape import PRODUCTS
from assay.engines.exact.dispute.steps import step
from assay.engines.exact.parameters import Parameters
from assay.engines.exact.record import CHUNK

WHO = "0x" + "11" * 20
MOST_GAS = 16_000_000


class Bench:
    """A bare chain: tables, and contracts that are called."""

    def __init__(self) -> None:
        self._evm = EVM(spec_id="CANCUN")
        self._evm.insert_account_info(WHO, AccountInfo(balance=10**24))
        self._tables = {name: self._evm.deploy(WHO, artefact(name).code) for name in TABLES}
        self._at: dict[str, str] = {}

    def deploy(self, name: str, code: bytes, table: str | None) -> None:
        """A contract, which reads a table perhaps."""
        args = bytes.fromhex(self._tables[table][2:]).rjust(32, b"\0") if table else b""
        self._at[name] = self._evm.deploy(WHO, code + args)

    def call(self, name: str, data: bytes) -> tuple[bytes, int] | None:
        """What a contract returns, and the transaction's gas; None if it reverts. Nothing else may happen."""
        try:
            out = self._evm.message_call(WHO, self._at[name], calldata=data, gas=MOST_GAS)
        except RuntimeError as error:
            if str(error).startswith("Revert"):
                return None
            raise
        found: Any = self._evm.result
        return bytes(out), int(found.gas_used)


class Tribunal(Bench):
    """All referees."""

    def __init__(self) -> None:
        super().__init__()
        for name in REFEREES:
            self.deploy(name, artefact(name).code, referees.table_of(name))

    def gas(self, referee: str, data: bytes) -> int | None:
        """Of a whole transaction that calls `judge`, with zeros behind; None if it reverts."""
        found = self.call(referee, data + behind(data))
        return found and found[1]

    def accepts(self, case: Case) -> bool:
        """What the referee of a case says."""
        return self.gas(case.step.referee, case.data) is not None


@cache
def tribunal() -> Tribunal:
    """One for all tests."""
    return Tribunal()


def vector_of(plan: Plan) -> str:
    """What the target is in; empty for a token."""
    return plan.place()[1] if isinstance(plan.target, NumberTarget) else ""


@dataclass(frozen=True)
class Case:
    """A disputed cell and its opening."""

    plan: Plan
    roots: Commitments
    index: int
    leaf: Digest
    claimed: int | None
    opening: bytes

    @property
    def terms(self) -> referees.Terms:
        """As contracts take them."""
        rules, target, roots = self.plan.rules, self.plan.target, self.roots
        settings, layout = rules.settings, self.plan.shape.layout
        return referees.Terms(
            roots.parameters,
            roots.evidence.root,
            *roots.tokens,
            roots.evidence.prompt,
            roots.evidence.output,
            rules.seed,
            settings.temperature,
            settings.top_k,
            settings.top_p,
            settings.min_p,
            target.position,
            isinstance(target, TokenTarget),
            layout.kept_chunks,
            layout.chunks - layout.kept_chunks,
            roots.kept,
            roots.inputs,
            target.index if isinstance(target, NumberTarget) else 0,
            self.claimed or 0,
            self.plan.count,
            roots.cells,
            self.index,
        )

    @property
    def section(self) -> Section:
        """Of the cell."""
        return self.plan.at(self.index)[0]

    @property
    def step(self) -> referees.Step:
        """Who judges it."""
        return referees.step_of(self.section, vector_of(self.plan))

    @property
    def data(self) -> bytes:
        """Of the call."""
        return referees.encode_judge(self.terms, self.leaf, self.step, self.opening)

    def holds(self) -> bool:
        """What the referee in Python says."""
        try:
            judge(self.plan, self.roots, self.index, self.leaf, self.claimed, self.opening)
        except AssayError:
            return False
        return True


@dataclass(frozen=True)
class Side:
    """A prover that has expanded the cells of a target, and may have changed some before it committed to them."""

    own: Response
    plan: Plan
    cells: list[bytes]
    levels: list[list[Digest]]

    def exchanged(self, changes: dict[int, bytes]) -> Side:
        """With other cells."""
        cells, levels = list(self.cells), [list(level) for level in self.levels]
        for index, cell in changes.items():
            cells[index] = cell
            levels[0][index] = cell_digest(cell)
            for lower, upper in pairwise(levels):
                index //= tree16.FAN
                upper[index] = tree16.parents(lower[index * tree16.FAN : (index + 1) * tree16.FAN])[0]
        return replace(self, cells=cells, levels=levels)

    def case(self, index: int) -> Case:
        """A cell, opened as `sides.Prover` does; as far as the step can be taken, if it cannot."""
        plan, own = self.plan, self.own
        reader = OpeningReader(plan, own, self.cells, self.levels)
        try:
            reader.check_shape(plan.at(index)[0].layer)
            reader.show(self.cells[index])
            step(reader, index)
            reader.claimed(index)
        except AssayError:
            pass
        target = plan.target
        kept, inputs = (trees.root_of(levels) for levels in own.levels(target.position))
        parameters, cells = own.parameters.parameters.root, trees.root_of(self.levels)
        roots = Commitments(parameters, own.evidence, own.token_roots, target.position, kept, inputs, cells)
        claimed = int(own.records[target]) if isinstance(target, NumberTarget) else None
        return Case(plan, roots, index, self.levels[0][index], claimed, reader.opening())


@cache
def side(name: str, target: Target) -> Side:
    """The honest one of a variant."""
    return side_of(answer(name).own, target)


def side_of(own: Response, target: Target) -> Side:
    """The honest one of a response."""
    plan = Plan(own.shape, target, own.rules)
    cells = expand(plan, own)
    return Side(own, plan, cells, trees.levels_of([cell_digest(cell) for cell in cells]))


@cache
def targets(name: str) -> tuple[Target, ...]:
    """Some of every vector, of the first and the last number of it, at two positions; and tokens."""
    own = answer(name).own
    found: list[Target] = []
    last = len(own.records) - 1
    for position in (1, last):
        for layer, vector in vectors(own.shape):
            start, size = own.shape.vector(layer, vector)
            found += [NumberTarget(position, start + at) for at in (0, size // 3, size - 1)]
    return (*found, TokenTarget(own.prompt - 1), TokenTarget(last))


@cache
def plans(name: str) -> tuple[Plan, ...]:
    """Those of the targets."""
    return tuple(Plan(answer(name).shape, target, answer(name).rules) for target in targets(name))


@cache
def sections(name: str, kind: str) -> tuple[tuple[Side, Section], ...]:
    """All of a kind that the targets of a variant have."""
    return tuple(
        (side(name, plan.target), section) for plan in plans(name) for section in plan.sections if section.kind == kind
    )


@cache
def variants(kind: str) -> tuple[str, ...]:
    """That have it."""
    return tuple(name for name in VARIANTS if sections(name, kind))


def honest(kind: str, dice: Random) -> tuple[str, Side, int]:
    """A variant, its prover, and a cell of some section of a kind."""
    name = dice.choice(variants(kind))
    found, section = dice.choice(sections(name, kind))
    return name, found, dice.choice([section.start, section.stop - 1, dice.randrange(section.start, section.stop)])


class Reads(OwnReader):
    """Notes what a step reads."""

    def __init__(self, found: Side) -> None:
        super().__init__(found.plan, found.own, found.cells)
        self.of_cells: list[int] = []
        self.of_chunks: list[tuple[int, int]] = []

    def raw_cells(self, section: Section, i: int, count: int) -> Sequence[bytes]:
        self.of_cells += range(section.start + i, section.start + i + count)
        return super().raw_cells(section, i, count)

    def raw_chunks(self, position: int, first: int, count: int) -> Sequence[bytes]:
        self.of_chunks += [(position, index) for index in range(first, first + count)]
        return super().raw_chunks(position, first, count)


def forged(kind: str, dice: Random) -> Case:
    """An opening in which all is bound to what is committed to, and that is absurd: a prover and a challenger that both
    lie could lead there. The cell follows from it, or is wrong by a little."""
    name, found, index = honest(kind, dice)
    if dice.random() < 0.3:
        found = replace(found, own=evil(name, dice.randrange(4)))
    reads = Reads(found)
    _try(reads, index)
    chosen = dice.sample(sorted(set(reads.of_cells)), min(len(set(reads.of_cells)), dice.choice([0, 1, 1, 2, 5, 40])))
    found = found.exchanged({at: _spoiled(found.plan, at, found.cells[at], dice) for at in chosen})
    if reads.of_chunks and (dice.random() < 0.5 or not chosen):
        found = replace(found, own=_other_records(found.own, reads.of_chunks, dice))
    follows = _try(OwnReader(found.plan, found.own, found.cells), index)
    if follows is None:
        return found.case(index)
    if dice.random() < 0.4:
        follows = _spoiled(found.plan, index, follows, dice)
    return found.exchanged({index: follows}).case(index)


def _try(reader: OwnReader, index: int) -> bytes | None:
    """The cell that follows, if one does."""
    try:
        return reader.plan.at(index)[0].encode(step(reader, index))
    except AssayError:
        return None


def absurd(width: int, dice: Random) -> int:
    """A number of so many bytes: small, large, one bit, or at an end of the range."""
    most = (1 << (8 * width - 1)) - 1
    number = dice.choice(
        [0, 1, dice.randrange(64), dice.randrange(most), most - dice.randrange(2), 1 << dice.randrange(8 * width - 1)]
    )
    return dice.choice([number, -number, -number - 1])


def _spoiled(plan: Plan, index: int, cell: bytes, dice: Random) -> bytes:
    """A cell with one number, some or all of them changed."""
    section = plan.at(index)[0]
    numbers = list(section.decode(cell))
    for at in dice.sample(range(len(numbers)), dice.choice([1, 1, min(3, len(numbers)), len(numbers)])):
        near = numbers[at] + dice.choice([-1, 1])
        wild = absurd(section.width, dice)
        numbers[at] = near if dice.random() < 0.3 and abs(near) < 1 << (8 * section.width - 1) else wild
    return section.encode(numbers)


def _other_records(own: Response, chunks: Sequence[tuple[int, int]], dice: Random) -> Response:
    """A response with other numbers in some chunks."""
    records = own.records.copy()
    for position, index in dice.sample(chunks, min(len(chunks), dice.choice([1, 2, 4]))):
        for _ in range(dice.choice([1, 3, 40, 256])):
            records[position, index * CHUNK + dice.randrange(CHUNK)] = absurd(2, dice)
    other = Response(own.model, own.parameters.parameters, own.tokens, own.prompt, records, NONCE, own.rules)
    other.parameters = own.parameters  # type: ignore[misc]
    return other


@cache
def evil(name: str, seed: int) -> Response:
    """The response of a variant, as if it were of a model of the same sizes, but with absurd numbers."""
    own, dice = answer(name).own, Random(seed)
    rng = np.random.default_rng(seed)

    def numbers(like: np.ndarray | None) -> np.ndarray | None:
        if like is None:
            return None
        info, out = np.iinfo(like.dtype), like.copy().reshape(-1)
        for at in rng.integers(0, len(out), max(4, len(out) // 3)):
            number = dice.choice([info.max, info.min, dice.getrandbits(dice.randrange(1, info.bits))])
            out[at] = number if info.min == 0 else max(number, info.min)
        return out.reshape(like.shape)

    def fraction() -> int:
        return dice.choice([dice.randrange(-70, 70), dice.randrange(-(2**15), 2**15), 0])

    def matrix(like: Any) -> Any:
        return replace(
            like, q=numbers(like.q), scale=numbers(like.scale), offset=numbers(like.offset), fraction=fraction()
        )

    def gain(like: Any) -> Any:
        return like and replace(like, weight=numbers(like.weight), fraction=fraction())

    def layer(like: Any) -> Any:
        gains = ("attention_norm", "feed_norm", "query_norm", "key_norm", "attention_after", "feed_after")
        return replace(
            like,
            **{name: matrix(getattr(like, name)) for name in PRODUCTS},
            **{name: gain(getattr(like, name)) for name in gains},
            **{name: numbers(getattr(like, name)) for name in ("query_bias", "key_bias", "value_bias", "turns")},
        )

    model = own.model
    head = matrix(model.head)
    other = replace(
        model,
        head=head,
        embedding=head if model.embedding is model.head else matrix(model.embedding),
        layers=[layer(each) for each in model.layers],
        norm=gain(model.norm),
        epsilon=absurd(8, dice),
        score_scale=absurd(8, dice),
        embedding_scale=abs(absurd(4, dice)) if model.embedding_scale else 0,
        halves=dice.random() < 0.5,
    )
    return Response(other, Parameters(other), own.tokens, own.prompt, own.records, NONCE, own.rules)
