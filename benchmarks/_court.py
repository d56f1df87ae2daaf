"""Gas of whole disputes over an answer of SmolLM2 135M, move by move, on the real contracts."""

from __future__ import annotations

from functools import cached_property
from typing import Final

from benchmarks._dispute import MODEL, answer_of, guide
from tests.chain.arena import Arena, Case, Fight
from tests.chain.courtroom import EVE, PROVIDER
from tests.chain.fighters import Forest, Honest, Liar, Side, forest
from tests.chain.kit import Town, address
from tests.engines.exact.dispute.meter import Counted, Meter
from typing_extensions import override

from assay.apps.wiring import find_model
from assay.chain import referees
from assay.chain.embedded import MOST_SECONDS
from assay.core import merkle
from assay.core.evidence import evidence_salt, salted
from assay.core.hashing import Digest
from assay.engines.exact.convert import convert
from assay.engines.exact.dispute.catalogue import Catalogue
from assay.engines.exact.dispute.evidence import Evidence
from assay.engines.exact.dispute.moves import Challenge
from assay.engines.exact.dispute.plan import NumberTarget, Plan, Target
from assay.engines.exact.dispute.reading import cell_digest
from assay.engines.exact.dispute.response import OpeningReader, OwnReader, Response
from assay.engines.exact.dispute.shape import Shape
from assay.engines.exact.dispute.sides import Prover
from assay.engines.exact.dispute.steps import step

CELLS: Final = 1 << 24
"""Of the longest dispute that contracts lead through in three exchanges of cells."""
OPERATIONS: Final = 1 << 24
BASE: Final = 21_000
"""Gas of a transaction that does nothing."""
NOW: Final = 2_000_000_000
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
        return [merkle.leaf(each) for each in (self._passes.root, *self.leaves[self.prompt :])]

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


def small_answer() -> Response:
    """An answer of SmolLM2's."""
    return answer_of(convert(find_model(MODEL).path))


def disputes(town: Town, own: Response) -> dict[str, int]:
    """Gas of the two disputes and of each of their transactions, by what was done; the most, where it is done again.

    By the rules of EIP-7623 as well: a transaction then takes at least 10 gas for a zero byte and 40 for another one.
    `bare` is without what bytes of transactions cost (4 and 16): deadlines among them are of a real node's own seconds.
    """
    while (left := NOW - town.web3.eth.get_block("latest")["timestamp"]) > 0:
        town.pass_time(min(left, MOST_SECONDS))
    root, found = own.parameters.parameters.root, dict[str, int]()
    for name, fight in (("operations", real_dispute(town, own, root)), ("cells", long_dispute(town, own, root))):
        found[f"dispute.{name}"] = sum(gas for _, gas, _ in fight.gas)
        found[f"dispute.{name}.prague"] = sum(max(gas, least) for _, gas, least in fight.gas)
        found[f"dispute.{name}.bare"] = sum(gas - (least - BASE) * 2 // 5 for _, gas, least in fight.gas)
        for what, gas, _ in fight.gas:
            key = f"dispute.{name}.{what.replace(' ', '_')}"
            found[key] = max(gas, found.get(key, 0))
    return found


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
    case = arena.case(far, root, Challenge(target.position), issued=NOW)
    record = far.levels(target.position)
    prover = Liar(case, (forest(record[0][0]), forest(record[1][0])), lambda i: far.chunk(0, i), lambda _: cells, calls)
    return fought(arena, case, prover, Honest(case, guide(far.shape, target, CELL)))


def real_dispute(town: Town, own: Response, root: Digest) -> Fight:
    """Of the records that there are, over the first input that takes OPERATIONS to compute; to a cell of a product."""
    position = len(own.records) - 1
    layers = range(len(own.shape.layers))
    inputs = (Plan(own.shape, NumberTarget(position, own.shape.vector(n, "input")[0]), own.rules) for n in layers)
    plan = next(plan for plan in inputs if operations(plan, own.evidence) >= OPERATIONS)
    section = [each for each in plan.sections if each.kind == "product"][-1]
    arena = Arena(town)
    arena.bond(10**6)
    case = arena.case(own, root, Challenge(position), issued=NOW)
    prover = Honest(case, Prover(own))
    return fought(arena, case, prover, Honest(case, guide(own.shape, plan.target, section.start + CELL)))


def operations(plan: Plan, evidence: Evidence) -> int:
    """All that computing the cells of a plan takes, where no two are shared."""
    catalogue, total = Catalogue(plan.shape), 0
    for section in plan.sections:
        Counted.operations = 0
        step(Meter(plan, catalogue, evidence), section.start)
        total += Counted.operations * (section.stop - section.start)
    return total


def fought(arena: Arena, case: Case, prover: Side, challenger: Side) -> Fight:
    """The prover wins. Its vault is there, and it is not the court's first dispute."""
    arena.town.send(EVE, arena.vaults.functions.open(address(PROVIDER)))
    arena.start(case)
    fight = arena.start(case)
    sides = prover, challenger
    while fight.turn < 2:
        moving, other = sides[fight.turn], sides[1 - fight.turn]
        (data,) = moving.answers(fight.state)
        fight.move(data)
        other.follow(data)
    assert fight.turn == 2
    return fight
