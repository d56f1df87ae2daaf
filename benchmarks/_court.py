"""Gas of whole disputes over an answer of SmolLM2 135M, move by move, on the real contracts."""

from __future__ import annotations

from functools import cached_property
from typing import Final

from benchmarks._dispute import guide
from tests.chain.arena import Arena, Case, Fight
from tests.chain.fighters import Forest, Honest, Liar, Side, forest
from tests.chain.kit import Town
from typing_extensions import override

from assay.chain import referees
from assay.core import merkle
from assay.core.evidence import evidence_salt, salted
from assay.core.hashing import Digest
from assay.engines.exact.dispute.evidence import Evidence
from assay.engines.exact.dispute.moves import Challenge
from assay.engines.exact.dispute.plan import NumberTarget, Plan, Target
from assay.engines.exact.dispute.reading import cell_digest
from assay.engines.exact.dispute.response import OpeningReader, OwnReader, Response
from assay.engines.exact.dispute.shape import Shape
from assay.engines.exact.dispute.steps import step

CELLS: Final = 1 << 24
"""Of the longest dispute that contracts lead through in three exchanges of cells."""
LAYER: Final = 14
CELL: Final = 300
"""A product's."""


class Far(Response):
    """A response behind a prompt so long that attention has CELLS: each of its passes has the same record."""

    def __init__(self, own: Response) -> None:
        super().__init__(
            own.model, own.parameters.parameters, own.tokens, own.prompt, own.records, own.nonce, own.rules
        )
        self.parameters = own.parameters
        self.target: Final = farthest(own.shape)
        self._record = len(own.records) - 1
        self._passes: Final = Forest(self.target.position + 1, {}, own.leaves[self._record])

    @cached_property
    def _outputs(self) -> list[Digest]:
        return [merkle.leaf(each) for each in (self._passes.root, *self.leaves[self.own_prompt :])]

    @property
    def own_prompt(self) -> int:
        """Tokens of the real prompt."""
        return self.prompt

    @cached_property
    @override
    def evidence(self) -> Evidence:
        root = salted(merkle.root(self._outputs), evidence_salt(self.nonce))
        return Evidence(root, self.target.position + 1, len(self._outputs))

    @override
    def path(self, position: int) -> list[Digest]:
        outputs = self._outputs
        end = [*merkle.prove(outputs, 0), merkle.root(outputs), evidence_salt(self.nonce)]
        return [*self._passes.prove(position), self._passes.root, *end]

    @override
    def chunk(self, position: int, index: int) -> bytes:
        return super().chunk(self._record, index)

    @override
    def levels(self, position: int) -> tuple[list[list[Digest]], list[list[Digest]]]:
        return super().levels(self._record)


def farthest(shape: Shape) -> NumberTarget:
    """A number of attention with the most cells up to CELLS."""
    number = shape.vector(LAYER, "mixed")[0]
    low, high = 0, CELLS
    while low < high:
        middle = (low + high + 1) // 2
        fits = Plan(shape, NumberTarget(middle, number)).count <= CELLS
        low, high = (middle, high) if fits else (low, middle - 1)
    return NumberTarget(low, number)


def long_dispute(town: Town, own: Response, root: Digest) -> Fight:
    """One of CELLS, over a cell of a product. All others are alike, so that there need not be so many."""
    far = Far(own)
    target = far.target
    plan = Plan(far.shape, target, far.rules)
    section, _ = plan.at(CELL)
    assert section.kind == "product"
    cell = section.encode(step(OwnReader(plan, far, []), CELL))
    cells = Forest(plan.count, {CELL: cell_digest(cell)}, cell_digest(bytes(8)))

    def calls(terms: referees.Terms, leaf: Digest, _: Target | None) -> list[tuple[str, bytes]]:
        reader = OpeningReader(plan, far, [], [])
        reader.check_shape(section.layer)
        reader.show(cell)
        step(reader, CELL)
        found = referees.step_of(section, "mixed")
        return [(found.referee, referees.encode_judge(terms, leaf, found, reader.opening()))]

    arena = Arena(town)
    arena.bond(10**6)
    case = arena.case(far, root, Challenge(target.position))
    record = far.levels(target.position)
    prover = Liar(case, (forest(record[0][0]), forest(record[1][0])), lambda i: far.chunk(0, i), lambda _: cells, calls)
    return fought(arena, case, prover, Honest(case, guide(far.shape, target, CELL)))


def fought(arena: Arena, case: Case, prover: Side, challenger: Side) -> Fight:
    """The prover wins."""
    fight = arena.start(case)
    sides = prover, challenger
    while fight.turn < 2:
        moving, other = sides[fight.turn], sides[1 - fight.turn]
        (data,) = moving.answers(fight.state)
        fight.move(data)
        other.follow(data)
    assert fight.turn == 2
    return fight
