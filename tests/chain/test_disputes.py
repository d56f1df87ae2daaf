"""Whole disputes on the real contracts: the honest side wins every one of them, and no token is lost or created."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from benchmarks._dispute import bent, guide
from tests.chain.arena import Arena, Case, Fight
from tests.chain.courtroom import ADA, DEAD, DEPOSIT, EVE, INSURER, MOST_MOVES, PAYER, PROVIDER, WINDOW
from tests.chain.fighters import Calls, Forest, Honest, Liar, Side, Wild, forest, zero_leaf
from tests.chain.kit import PEOPLE, Clock, Town, anvil, embedded, town_of
from tests.engines.exact.dispute.kit import VARIANTS, Answer, LyingProver, answer, changed, plain_cells
from tests.engines.exact.dispute.test_game import targets

from assay.chain import referees
from assay.chain.contracts import REFEREES
from assay.core.hashing import Digest
from assay.core.keys import Key, keccak256
from assay.engines.exact.dispute.game import most_exchanges
from assay.engines.exact.dispute.moves import Challenge
from assay.engines.exact.dispute.plan import NumberTarget, Plan, Target, TokenTarget
from assay.engines.exact.dispute.reading import cell_digest
from assay.engines.exact.dispute.response import Response
from assay.engines.exact.dispute.shape import ENDS
from assay.engines.exact.dispute.sides import Challenger, Player, Prover, find_fault
from assay.engines.exact.record import CHUNK, both_parts

NAMES = list(VARIANTS)
BOND = 10**6

Fighters = tuple[Case, Side, Side, int]
"""What it is about, prover, challenger, and who is right: 2 the prover, 3 the challenger."""
Plot = Callable[[Arena, Answer, Random], Fighters]


def led(arena: Arena, one: Answer, dice: Random) -> Fighters:
    """An honest prover is led to any cell of any number, or of a token."""
    target = targets(one, dice)
    cell = dice.choice([None, dice.randrange(Plan(one.shape, target, one.rules).count)])
    case = arena.case(one.own, one.root, Challenge(target.position, isinstance(target, TokenTarget)))
    leader = guide(one.shape, target, cell, both=dice.choice([None, dice.randrange(1000)]))
    return case, Honest(case, Prover(one.own)), Honest(case, leader), 2


def led_astray(arena: Arena, one: Answer, dice: Random) -> Fighters:
    """An honest prover meets a challenger that names what it likes, numbers that are none among it."""
    drawn = dice.random() < 0.2
    first = one.own.prompt - 1 if drawn else 0
    case = arena.case(one.own, one.root, Challenge(dice.randrange(first, len(one.own.records)), drawn))
    return case, Honest(case, Prover(one.own)), Wild(case, dice), 2


def wrong_numbers(arena: Arena, one: Answer, dice: Random) -> Fighters:
    """A record with wrong numbers, and cells that lead to them, or do not."""
    position = dice.randrange(len(one.own.records))
    record, wrong = changed(one.own, position, dice)
    while not wrong:
        record, wrong = changed(one.own, position, dice)
    theirs = one.altered(position, record)
    strategy = dice.randrange(4)

    def change(plan: Plan) -> dict[int, bytes]:
        assert isinstance(plan.target, NumberTarget)
        last = {plan.count - 1: plan.sections[-1].encode([int(record[plan.target.index])])}
        if strategy < 2:
            return last if strategy else {}
        at = dice.randrange(plan.count)
        return {at: bent(plan, at, plain_cells(one.own, plan.target)[at], dice)} | last

    return found(arena, one, theirs, LyingProver(theirs, change, onwards=strategy == 3))


def wrong_token(arena: Arena, one: Answer, dice: Random) -> Fighters:
    """A token that was not to be drawn, over honest numbers."""
    own = one.own
    at = dice.randrange(own.prompt, len(own.tokens))
    tokens = [*own.tokens]
    tokens[at] = (tokens[at] + dice.randrange(1, 280)) % one.shape.head.rows
    theirs = one.other(tokens=tokens[: at + 1])

    def change(plan: Plan) -> dict[int, bytes]:
        index = dice.choice([plan.count - 1, dice.randrange(plan.count)])
        return {index: bent(plan, index, plain_cells(theirs, plan.target)[index], dice)}

    prover = dice.choice([Prover(theirs), LyingProver(theirs, change, onwards=True)])
    return found(arena, one, theirs, prover, mine=theirs)


def another_model(arena: Arena, one: Answer, dice: Random) -> Fighters:
    """All of it computed with other weights."""
    theirs = answer("llama", seed=5).own
    one = answer("llama")
    return found(arena, one, theirs, Prover(theirs), mine=one.other(tokens=theirs.tokens))


def found(arena: Arena, one: Answer, theirs: Response, prover: Player, mine: Response | None = None) -> Fighters:
    """An honest challenger finds what is wrong."""
    mine = mine or one.own
    challenge = find_fault(mine, theirs.leaves)
    assert challenge
    case = arena.case(theirs, one.root, challenge)
    return case, Honest(case, prover), Honest(case, Challenger(mine, challenge)), 3


def not_zeros(arena: Arena, one: Answer, dice: Random) -> Fighters:
    """Numbers where a record has none; all others are right, or there is one more that is wrong."""
    position = dice.randrange(one.own.prompt - 1, len(one.own.records))
    free = [i for i in range(one.shape.layout.chunks * CHUNK) if one.shape.place(i) is None]
    if not free:
        return wrong_numbers(arena, one, dice)
    record = one.own.records[position].copy()
    record[dice.choice(free)] = dice.choice([5, -1])
    if dice.random() < 0.3:
        record[dice.randrange(one.shape.layout.chunks * CHUNK)] ^= 1
    theirs = one.altered(position, record)
    case, _, challenger, right = found(arena, one, theirs, Prover(theirs))
    trees_ = theirs.levels(position)
    record_ = forest(trees_[0][0]), forest(trees_[1][0])
    draw = forest(Prover(theirs).expanded(TokenTarget(position))[2][0])
    cells = dice.choice([honest_cells(theirs), lambda _: draw])
    return case, Liar(case, record_, lambda i: theirs.chunk(position, i), cells, calls_of(theirs)), challenger, right


def other_sizes(arena: Arena, one: Answer, dice: Random) -> Fighters:
    """A record of more chunks than there are, or of fewer."""
    position = dice.randrange(len(one.own.records))
    theirs = one.other()
    honest = one.own.levels(position)
    record: list[Forest] = [forest(levels[0]) for levels in honest]
    for which in dice.choice([(0,), (1,), (0, 1)]):
        size = len(honest[which][0])
        new = dice.choice([size + 1, max(1, size - 1), 256, 257, 4096, 4097, 1 << 16, 1 << 23])
        new += new == size
        leaves = dict(enumerate(honest[which][0][:new]))
        record[which] = Forest(new, leaves, honest[which][0][0])
    leaves = list(theirs.leaves)
    leaves[position] = both_parts(record[0].root, record[1].root)
    vars(theirs)["leaves"] = leaves
    kept = len(honest[0][0])

    def chunk(place: int) -> bytes:
        part = place >= record[0].count
        place -= record[0].count * part
        return theirs.chunk(position, kept * part + (place if place < len(honest[part][0]) else 0))

    case, _, challenger, right = found(arena, one, theirs, Prover(theirs))
    return case, Liar(case, (record[0], record[1]), chunk, honest_cells(theirs), calls_of(theirs)), challenger, right


def other_cells(arena: Arena, one: Answer, dice: Random) -> Fighters:
    """Wrong numbers, and cells that are too few, too many, or those of something else."""
    position = dice.randrange(len(one.own.records))
    record = one.own.records[position].copy()
    start, size = one.shape.vector(*dice.choice([(layer, name) for layer, name in vectors_of(one)]))
    record[start + dice.randrange(size)] ^= 1
    theirs = one.altered(position, record)
    case, _, challenger, right = found(arena, one, theirs, Prover(theirs))
    honest = theirs.levels(position)
    prover = Prover(theirs)
    strategy = dice.randrange(5)

    def cells(target: Target | None) -> Forest:
        assert target
        leaves = prover.expanded(target)[2][0]
        if strategy == 0:
            return forest(leaves[dice.randrange(len(leaves)) :])
        if strategy == 1:
            return forest(leaves[: 1 + dice.randrange(len(leaves))])
        if strategy == 2:
            other = NumberTarget(position, start if target != NumberTarget(position, start) else start + 1)
            return forest(prover.expanded(other)[2][0])
        if strategy == 3:
            return forest([zero_leaf()])
        count = dice.choice([len(leaves) + 1, 1 << 16, 1 << 24, (1 << 32) - 1, 1 << 32])
        return Forest(count, dict(enumerate(leaves)), dice.choice([zero_leaf(), leaves[-1]]))

    record_ = forest(honest[0][0]), forest(honest[1][0])
    return case, Liar(case, record_, lambda i: theirs.chunk(position, i), cells, calls_of(theirs)), challenger, right


def vectors_of(one: Answer) -> list[tuple[int, Any]]:
    """All of a record."""
    from tests.engines.exact.dispute.test_steps import vectors

    return list(vectors(one.shape))


def honest_cells(own: Response) -> Callable[[Target | None], Forest]:
    """The cells that there are, of whatever is wrong."""
    prover = Prover(own)
    return lambda target: forest(prover.expanded(target)[2][0]) if target else forest([zero_leaf()])


def calls_of(own: Response) -> Calls:
    """What may convince some referee: the opening of the cell of that place, and of a number that is none."""
    prover = Prover(own)

    def calls(terms: referees.Terms, leaf: Digest, target: Target | None) -> list[tuple[str, bytes]]:
        step = referees.Step("Stream", referees.KINDS.index("number"), ENDS, 0)
        found = [referees.encode_judge(terms, leaf, step, own.parameters.numbers() + bytes(2))]
        draw = TokenTarget(terms.position) if terms.position >= own.prompt - 1 else None
        for each in filter(None, (target, draw)):
            plan, cells, _ = prover.expanded(each)
            index = min(terms.index, plan.count - 1)
            section, _ = plan.at(index)
            vector = plan.place()[1] if isinstance(each, NumberTarget) else ""
            step = referees.step_of(section, vector)
            found.append(referees.encode_judge(terms, cell_digest(cells[index]), step, prover.opening(each, index)))
            found.append(referees.encode_judge(terms, leaf, step, prover.opening(each, index)))
        return [(name, call) for call in found for name in REFEREES]

    return calls


PLOTS: tuple[Plot, ...] = (
    led, led_astray, wrong_numbers, wrong_token, not_zeros, other_sizes, other_cells, another_model,
)  # fmt: skip


class Books:
    """Where all tokens are."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.names = [each.address for each in PEOPLE] + [DEAD]
        self.vault = arena.vault().address
        self.before = self.now()

    def read(self, contract: Any, call: str, *args: Any) -> int:
        """A view's word."""
        from eth_abi import encode

        types = call[call.index("(") + 1 : -1]
        data = keccak256(call.encode())[:4] + (encode(types.split(","), args) if types else b"")
        return int.from_bytes(self.arena.town.web3.eth.call({"to": contract.address, "data": data}), "big")

    def now(self) -> dict[str, int]:
        """Credits and wallets together; bond, vault, and what the court holds besides."""
        room = self.arena
        held = {name: self.read(room.court, "credits(address)", name) for name in self.names}
        bond = self.read(room.court, "bonds(address)", PROVIDER.address)
        court = self.read(room.token, "balanceOf(address)", room.court.address)
        found = {name: each + self.read(room.token, "balanceOf(address)", name) for name, each in held.items()}
        found["vault"] = self.read(room.token, "balanceOf(address)", self.vault)
        found["bond"] = bond
        found["deposits"] = court - bond - sum(held.values())
        return found

    def check(self, ended: dict[str, int]) -> None:
        """Everybody has exactly what is due, and all of it is what it was."""
        now = self.now()
        assert {name: now[name] - self.before[name] for name in now if now[name] != self.before[name]} == {
            name: each for name, each in ended.items() if each
        }
        assert sum(now.values()) == sum(self.before.values())
        self.before = now


def slash(books: Books, wronged: int | None, deposit: int = DEPOSIT) -> dict[str, int]:
    """What changes when ADA wins, seen from before she paid the deposit."""
    bond, held = books.before["bond"] // 2, books.before["vault"]
    pot = bond + held
    share, reward = pot // 2, pot // 4
    back = min(share, wronged or 0)
    return {
        "bond": -bond, "vault": -held, ADA.address: reward, PAYER.address: back, INSURER.address: share - back,
        DEAD: pot - share - reward,
    }  # fmt: skip


class Referee:
    """Lets two sides fight, with all that may happen beside, and checks that the right one wins."""

    def __init__(self, arena: Arena, clock: Clock, dice: Random) -> None:
        self.arena, self.clock, self.dice = arena, clock, dice
        self.seen = Counter[str]()

    def fight(self, plot: Plot, one: Answer) -> None:
        """One dispute from its opening to its end; whoever is wrong may fall silent, or move late."""
        arena, dice = self.arena, self.dice
        arena.bond(dice.randrange(1, 5000))
        if dice.random() < 0.5:
            arena.earn(dice.randrange(1, 5000))
        arena.channel = arena.town.terms(PAYER, PROVIDER, 1) if dice.random() < 0.5 else None
        books = Books(arena)
        case, prover, challenger, right = plot(arena, one, dice)
        fight = arena.start(case)
        self.seen[plot.__name__] += 1
        wrong = 1 if right == 2 else 0
        silent = dice.choice([None, None, dice.randrange(9)])
        sides = prover, challenger
        while fight.turn < 2:
            moving, other = sides[fight.turn], sides[1 - fight.turn]
            if dice.random() < 0.1:
                self.meddle(fight)
            if fight.turn == wrong and silent is not None and fight.moves // 2 >= silent:
                self.silence(fight, moving, True)
                break
            if dice.random() < 0.1:
                self.clock.now += WINDOW  # the last second
                assert not self.timeout(fight)
            state, mover = fight.raw, fight.mover
            for data in moving.answers(fight.state):
                if fight.tries(data):
                    self.again(fight, mover, data, state)
                    other.follow(data)
                    break
                assert sides.index(moving) == wrong, "the honest side's move was refused"
            else:
                assert sides.index(moving) == wrong, "the honest side gave up"
                self.silence(fight, moving, False)
                break
        assert fight.turn == right, (plot.__name__, fight.turn)
        assert fight.moves <= MOST_MOVES - 3
        assert fight.exchanges <= most_exchanges(fight.chunks, fight.cells)
        self.seen["won by the prover" if right == 2 else "won by the challenger"] += 1
        if right == 2:
            books.check({PROVIDER.address: DEPOSIT, ADA.address: -DEPOSIT})
        else:
            books.check(slash(books, case.receipt.amount if arena.channel else None))

    def timeout(self, fight: Fight) -> bool:
        """Whether anybody can end it."""
        return bool(self.arena.town.post(EVE, fight.ending())["status"])

    def silence(self, fight: Fight, moving: Side, late: bool) -> None:
        """The time runs out; a move comes after all, and is refused."""
        self.clock.now += WINDOW + 1
        if late:
            self.seen["late"] += 1
            for data in moving.answers(fight.state):
                assert not fight.tries(data)
        self.seen["silence"] += 1
        assert self.timeout(fight)
        assert not self.timeout(fight)
        fight.turn = 3 - fight.turn

    def meddle(self, fight: Fight) -> None:
        """Others move, or the other side; somebody says that time is over."""
        self.seen["meddled"] += 1
        assert not self.timeout(fight)
        data = bytes(2048)
        for who in (EVE, fight.people[1 - fight.turn]):
            assert not fight.tries(data, who)
        assert not fight.tries(data, fight.mover, bytes(448))

    def again(self, fight: Fight, mover: Key, data: bytes, state: bytes) -> None:
        """The same move again: sent twice, or by the other side, over the old state or the new one."""
        if self.dice.random() < 0.1:
            self.seen["again"] += 1
            for who in fight.people:
                assert not fight.tries(data, who, state)
            if fight.turn < 2 and fight.mover is not mover:
                assert not fight.tries(data, mover)


def run(count: int, seed: int, first: int = 0) -> Counter[str]:
    """So many disputes, one plot after the other."""
    clock, dice = Clock(), Random(seed)
    chain = embedded(clock=clock)
    referee = Referee(Arena(town_of(chain)), clock, dice)
    try:
        for n in range(first, first + count):
            referee.fight(PLOTS[n % len(PLOTS)], answer(dice.choice(NAMES)))
    finally:
        chain.close()
    return referee.seen


def test_some_disputes() -> None:
    """Of each plot a few, and all that may happen beside."""
    seen = run(24, 1)
    assert set(seen) >= {plot.__name__ for plot in PLOTS} | {"meddled", "again", "silence", "late"}


@pytest.mark.parametrize(
    "seed", [pytest.param(n, marks=pytest.mark.slow if n < 2 else pytest.mark.long) for n in range(20)]
)
def test_a_thousand_disputes(seed: int) -> None:
    """The honest side wins all of them."""
    run(50, 1000 + seed, 50 * seed)


def fought(fight: Fight, prover: Side, challenger: Side) -> int:
    """Both move as long as somebody has a move that is taken; whoever has none loses. Who won."""
    sides = prover, challenger
    while fight.turn < 2:
        moving, other = sides[fight.turn], sides[1 - fight.turn]
        taken = next((data for data in moving.answers(fight.state) if fight.tries(data)), None)
        if taken is None:
            fight.arena.town.pass_time(WINDOW + 1)
            fight.arena.town.send(EVE, fight.ending())
            return 3 - fight.turn
        other.follow(taken)
    return fight.turn


@pytest.mark.slow
def test_on_a_real_node() -> None:
    """One of each plot on anvil."""
    dice = Random(5)
    with anvil() as web3:
        arena = Arena(Town(web3))
        arena.bond(BOND)
        for plot in PLOTS:
            books = Books(arena)
            case, prover, challenger, right = plot(arena, answer("llama"), dice)
            assert fought(arena.start(case), prover, challenger) == right, plot.__name__
            books.check({PROVIDER.address: DEPOSIT, ADA.address: -DEPOSIT} if right == 2 else slash(books, None))


def test_an_accomplice() -> None:
    """A cheat has a friend dispute its receipt and fall silent: that dispute it wins, and the honest one it loses. The
    other way round, the friend's is void once the receipt is known to be wrong."""
    chain = embedded()
    arena, one = Arena(town_of(chain)), answer("llama")
    arena.bond(BOND)
    for first in (True, False):
        case, prover, challenger, _ = wrong_numbers(arena, one, Random(3))
        friend = arena.start(case, EVE)
        fight = None if first else arena.start(case)
        (data,) = prover.answers(friend.state)
        friend.move(data)
        if fight is None:
            arena.town.pass_time(WINDOW + 1)
            arena.town.send(EVE, friend.ending())
            assert not arena.call.slashed(case.receipt.digest).call()
            fight = arena.start(case)
        assert fought(fight, Honest(case, Prover(case.theirs)), challenger) == 3
        assert arena.call.slashed(case.receipt.digest).call()
        if not first:
            before = arena.credit(EVE)
            assert not friend.tries(bytes(8))
            arena.town.send(ADA, friend.ending())
            assert arena.credit(EVE) == before + DEPOSIT
    chain.close()
