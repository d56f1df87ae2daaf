"""The court against a model in Python, with real signatures: whatever is done in whatever order, tokens add up."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from eth_abi import encode
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.chain.courtroom import (
    ADA,
    AGE,
    COMMIT_AGE,
    DAY,
    DEAD,
    DEPOSIT,
    EVE,
    FEE,
    HELD,
    INSURER,
    MOST_MOVES,
    NONE,
    PAYER,
    PROVIDER,
    UNBONDING,
    WINDOW,
    Courtroom,
    as_struct,
    as_tuple,
    board,
    take,
)  # fmt: skip
from tests.chain.kit import NOBODY, PEOPLE, Clock, address, config, embedded, runs, town_of

from assay.chain.dispute import Dispute
from assay.core.keys import Key, keccak256
from assay.core.receipt import Receipt, sign

MARGIN = 7 * DAY
PROVIDERS, CHALLENGERS = (PROVIDER, PEOPLE[7]), (ADA, EVE)
DATA = b"commitments"
ODDS = st.integers(0, 1)
AMOUNTS = st.integers(1, 999)
EVERYBODY = [each.address for each in PEOPLE] + [DEAD]


@dataclass
class Provider:
    """What the contracts should know of one."""

    key: Key
    bond: int = 0
    leaving: tuple[int, int] = (0, 0)
    vault: int = 0
    running: int = 0
    frozen: int = 0


@dataclass
class Case:
    """A dispute, or a demand (no sticks)."""

    number: int
    provider: Provider
    challenger: Key
    receipt: Receipt
    deposit: int
    wronged: int | None
    """What who paid gets at most; None: nobody is known to have paid."""
    deadline: int
    sticks: int = 0
    turn: int = 0
    moves: int = 0

    @property
    def dispute(self) -> Dispute:
        """What the court keeps one hash of."""
        sides = int(self.challenger.address, 16) | self.deadline << 160 | self.moves << 224 | self.turn << 232
        terms = int(self.provider.key.address, 16) | WINDOW << 160 | 5000 << 192 | 5000 << 208 | 2500 << 224
        payer = NOBODY if self.wronged is None else PAYER.address
        state = keccak256(board(self.sticks, self.turn)) if self.sticks else bytes(32)
        money = self.deposit | (self.wronged or 0) << 128
        return Dispute(self.number, sides, terms, money, payer, self.receipt.digest, state)

    @property
    def struct(self) -> tuple[int, tuple[Any, ...]]:
        """Its number, and what calls have to say of it."""
        return self.number, as_struct(self.dispute)


@dataclass
class Commitment:
    """Of a challenger, to a receipt."""

    who: Key
    receipt: Receipt
    salt: bytes
    since: int


@dataclass
class Model:
    """Of the court."""

    providers: list[Provider]
    credits: dict[str, int] = field(default_factory=lambda: dict.fromkeys(EVERYBODY, 0))
    cases: list[Case] = field(default_factory=list)
    slashed: set[bytes] = field(default_factory=set)
    answered: set[bytes] = field(default_factory=set)
    equivocated: set[tuple[str, int]] = field(default_factory=set)

    def of(self, receipt: Receipt) -> Provider:
        """Whose it is."""
        return next(each for each in self.providers if each.key.address == receipt.provider)

    def settled(self, case: Case) -> bool:
        """By another one."""
        return case.receipt.digest in self.slashed

    def slash(self, provider: Provider, challenger: Key, wronged: int | None) -> None:
        """Half of the bond and all that is held back: half to who paid, a quarter to who won, the rest burned."""
        lost = provider.bond // 2
        pot = lost + provider.vault
        parts = {"share": pot // 2, "reward": pot // 4}
        back = min(parts["share"], wronged or 0)
        provider.bond -= lost
        provider.vault = 0
        self.credits[PAYER.address] += back
        self.credits[INSURER.address] += parts["share"] - back
        self.credits[challenger.address] += parts["reward"]
        self.credits[DEAD] += pot - parts["share"] - parts["reward"]

    def end(self, case: Case, turn: int) -> None:
        """2: the provider was right; 3: the challenger was; 4: nobody, as if another one has settled it."""
        self.cases.remove(case)
        turn = 4 if self.settled(case) else turn
        winner = case.provider.key if turn == 2 else case.challenger
        self.credits[winner.address] += case.deposit
        if turn == 3:
            self.slashed.add(case.receipt.digest)
            self.slash(case.provider, case.challenger, case.wronged)
        case.provider.running -= 1
        if not case.provider.running:
            case.provider.frozen = 0


class CourtMachine(RuleBasedStateMachine):
    """Two providers, two challengers, one who paid."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.chain = embedded(clock=self.clock)
        self.room = Courtroom(town_of(self.chain))
        self.call = self.room.call
        self.model = Model([Provider(each) for each in PROVIDERS])
        self.receipts: list[Receipt] = []
        self.commitments: list[Commitment] = []
        self.count = 0
        self.vaults = [self.room.vault(each) for each in PROVIDERS]
        self.terms = self.room.town.terms(PAYER, PROVIDER, 1)
        self.channel = self.terms.channel(self.room.town.domain)

    @initialize(bond=AMOUNTS, earned=AMOUNTS)
    def begin(self, bond: int, earned: int) -> None:
        """One has a bond, the other only earnings; both have signed receipts."""
        self.bond(0, bond)
        self.earn(1, earned)
        for which, paid in ((0, 1), (0, 0), (1, 0)):
            self.issue(which, paid, 100)

    def read(self, contract: Any, call: str, *args: Any) -> list[int]:
        """A view's words, without web3, which takes ten times as long: `name(types)` and arguments."""
        types = call[call.index("(") + 1 : -1]
        data = keccak256(call.encode())[:4] + (encode(types.split(","), args) if types else b"")
        output = self.chain.call(NOBODY, contract.address.lower(), data).output
        return [int.from_bytes(output[i : i + 32], "big") for i in range(0, len(output), 32)]

    def balance(self, of: str) -> int:
        """Tokens."""
        return self.read(self.room.token, "balanceOf(address)", of)[0]

    def expect(self, who: Key, call: Any, ok: bool) -> bool:
        """The transaction holds, or not, as the model says."""
        assert self.room.town.post(who, call)["status"] == int(ok), self.room.town.why(who, call)
        return ok

    @property
    def now(self) -> int:
        """Of the next block."""
        return max(int(self.clock()), self.chain.head.timestamp)

    @rule(which=ODDS, amount=AMOUNTS)
    def bond(self, which: int, amount: int) -> None:
        """More at stake."""
        self.expect(PAYER, self.call.bond(address(PROVIDERS[which]), amount), True)
        self.model.providers[which].bond += amount

    @rule(which=ODDS, amount=st.integers(0, 999))
    def unbond(self, which: int, amount: int) -> None:
        """A provider wants to leave, or to stay."""
        provider = self.model.providers[which]
        if self.expect(provider.key, self.call.unbond(amount), amount <= provider.bond):
            provider.leaving = (amount, self.now + UNBONDING)

    @rule(which=ODDS)
    def withdraw(self, which: int) -> None:
        """And leaves, if it may."""
        provider = self.model.providers[which]
        amount, at = provider.leaving
        ok = amount > 0 and self.now >= at and not provider.running
        before = self.balance(provider.key.address)
        if self.expect(provider.key, self.call.withdraw(), ok):
            gone = min(amount, provider.bond)
            provider.bond -= gone
            provider.leaving = (0, 0)
            assert self.balance(provider.key.address) == before + gone

    @rule(which=ODDS, amount=AMOUNTS, early=ODDS)
    def leave(self, which: int, amount: int, early: int) -> None:
        """All of it in one go."""
        self.unbond(which, amount)
        self.clock.now += UNBONDING - early
        self.withdraw(which)

    @rule(which=ODDS, amount=AMOUNTS)
    def earn(self, which: int, amount: int) -> None:
        """A channel pays into a vault."""
        self.room.earn(amount, PROVIDERS[which])
        self.model.providers[which].vault += amount

    @rule(which=ODDS)
    def release(self, which: int) -> None:
        """A vault pays its provider: nothing while there are disputes."""
        provider, vault = self.model.providers[which], self.vaults[which]
        if not self.chain.code(vault.address.lower()):
            self.expect(EVE, self.room.vaults.functions.open(address(provider.key)), True)
        self.expect(EVE, vault.functions.collect(), True)
        self.clock.now += 2 * HELD
        before = self.balance(provider.key.address)
        ok = self.room.town.post(EVE, vault.functions.release())["status"]
        assert not (ok and self.now < provider.frozen)
        provider.vault -= self.balance(provider.key.address) - before

    @precondition(lambda self: len(self.receipts) < 8)
    @rule(which=ODDS, paid=ODDS, amount=AMOUNTS)
    def issue(self, which: int, paid: int, amount: int) -> None:
        """A receipt is signed, of an answer that somebody paid for or not."""
        channel = self.channel if paid else bytes(32)
        values = {"channel": channel, "amount": amount, "evidence": keccak256(DATA)}
        self.receipts.append(self.room.receipt(PROVIDERS[which], **values))

    @rule(which=st.integers(0, 7), who=ODDS)
    def commit(self, which: int, who: int) -> None:
        """A challenger means to doubt one."""
        receipt = self.receipts[which % len(self.receipts)]
        salt = self.room.commit(receipt, CHALLENGERS[who], wait=0)
        self.commitments.append(Commitment(CHALLENGERS[who], receipt, salt, self.now))
        del self.commitments[:-4]

    def doubt(self, which: int, thief: int, sticks: int) -> None:
        """Open a dispute, or demand data (no sticks), by a commitment that may be another's, too young or too old."""
        if not self.commitments:
            return
        found = self.commitments[which % len(self.commitments)]
        receipt, provider, now = found.receipt, self.model.of(found.receipt), self.now
        who = found.who if not thief else next(each for each in CHALLENGERS if each is not found.who)
        paid = bool(sticks) and receipt.channel == self.channel
        if sticks:
            terms = config(self.terms) if paid else NONE
            call = self.room.opening(receipt, found.salt, sticks=sticks, config=terms)
        else:
            call = self.room.demanding(receipt, found.salt)
        ok = (
            who is found.who
            and found.since + COMMIT_AGE <= now <= found.since + DAY
            and receipt.issued + AGE >= now
            and receipt.digest not in self.model.slashed
            and (bool(sticks) or receipt.digest not in self.model.answered)
            and (bool(sticks) or not any(c.receipt.digest == receipt.digest and not c.sticks for c in self.model.cases))
            and provider.bond + provider.vault > 0
        )
        if not self.expect(who, call, ok):
            return
        self.commitments.remove(found)
        self.count += 1
        wronged = receipt.amount if paid else None
        deposit = DEPOSIT if sticks else FEE
        self.model.cases.append(Case(self.count, provider, who, receipt, deposit, wronged, now + WINDOW, sticks))
        provider.running += 1
        provider.frozen = max(provider.frozen, now + MOST_MOVES * WINDOW + MARGIN)

    @rule(which=st.integers(0, 3), thief=st.sampled_from([0, 0, 0, 1]), sticks=st.integers(1, 6))
    def open(self, which: int, thief: int, sticks: int) -> None:
        """A dispute."""
        self.doubt(which, thief, sticks)

    @rule(which=st.integers(0, 3), thief=st.sampled_from([0, 0, 0, 1]))
    def demand(self, which: int, thief: int) -> None:
        """Of data."""
        self.doubt(which, thief, 0)

    @rule(receipt=st.integers(0, 7), who=ODDS, sticks=st.integers(0, 6))
    def doubt_properly(self, receipt: int, who: int, sticks: int) -> None:
        """With a commitment that is old enough."""
        self.commit(receipt, who)
        self.clock.now += COMMIT_AGE
        self.doubt(len(self.commitments) - 1, 0, sticks)

    def case(self, which: int) -> Case | None:
        """One that is open."""
        return self.model.cases[which % len(self.model.cases)] if self.model.cases else None

    @rule(which=st.integers(0, 5), wrong=st.sampled_from([0, 0, 0, 1]), count=st.integers(0, 4))
    def move(self, which: int, wrong: int, count: int) -> None:
        """By the side whose turn it is, or by the other one."""
        if (case := self.case(which)) is not None:
            self.step(case, wrong, count)

    @rule(which=st.integers(0, 5), counts=st.lists(st.integers(0, 3), min_size=2, max_size=8))
    def play(self, which: int, counts: list[int]) -> None:
        """Several moves in turn, in time or not."""
        if (case := self.case(which)) is not None:
            for count in counts:
                if case in self.model.cases:
                    self.step(case, 0, count)

    @rule(sticks=st.integers(1, 6), which=st.integers(0, 7))
    def tarry(self, sticks: int, which: int) -> None:
        """Both sides pass until the last move, which may end it."""
        begun = self.count
        self.doubt_properly(which, 0, sticks)
        for turn in range(MOST_MOVES):
            if self.count > begun and self.model.cases and (case := self.model.cases[-1]).number == self.count:
                self.clock.now += WINDOW
                self.step(case, 0, 0 if turn < MOST_MOVES - 1 else min(3, case.sticks))

    def step(self, case: Case, wrong: int, count: int) -> None:
        """A move, which may be none."""
        sides = (case.provider.key, case.challenger)
        ok = not wrong and case.sticks > 0 and self.now <= case.deadline and count <= min(3, case.sticks)
        call = self.call.move(*case.struct, board(case.sticks, case.turn), take(count))
        if not self.expect(sides[case.turn ^ wrong], call, ok):
            return
        case.sticks -= count
        case.moves += 1
        if not case.sticks:
            self.model.end(case, 2 + case.turn)
        elif case.moves == MOST_MOVES:
            self.model.end(case, 4)
        else:
            case.turn ^= 1
            case.deadline = self.now + WINDOW

    @rule(which=st.integers(0, 5), wrong=st.sampled_from([0, 0, 0, 1]))
    def prove(self, which: int, wrong: int) -> None:
        """The last move, by the prover or the other side."""
        if (case := self.case(which)) is None:
            return
        sides = (case.provider.key, case.challenger)
        ok = not wrong and case.sticks == 1 and case.turn == 0 and self.now <= case.deadline
        if self.expect(sides[case.turn ^ wrong], self.call.prove(*case.struct, board(case.sticks, case.turn), b""), ok):
            self.model.end(case, 2)

    @rule(which=st.integers(0, 5), bit=st.integers(0, 5 * 256 - 1))
    def misrepresent(self, which: int, bit: int) -> None:
        """Say something else of a dispute, which is refused."""
        if (case := self.case(which)) is None:
            return
        number, struct = case.struct
        words = bytearray(encode(["(uint256,uint256,uint256,address,bytes32)"], [struct]))
        words[bit // 8] ^= 1 << bit % 8
        call = self.call.timeout(number, struct, case.dispute.state)._encode_transaction_data()
        data = bytes.fromhex(call[2:])
        changed = data[:36] + bytes(words) + data[36 + len(words) :]
        where = self.room.court.address.lower()
        assert not self.chain.call(EVE.address, where, changed).ok

    @rule(which=st.integers(0, 5), wrong=st.sampled_from([0, 0, 1]))
    def produce(self, which: int, wrong: int) -> None:
        """The data, or others."""
        if (case := self.case(which)) is None:
            return
        ok = not wrong and not case.sticks and not self.model.settled(case) and self.now <= case.deadline
        data = DATA[wrong:]
        if self.expect(EVE, self.call.produce(*case.struct, as_tuple(case.receipt), data), ok):
            self.model.answered.add(case.receipt.digest)
            self.model.end(case, 2)

    @rule(which=st.integers(0, 5))
    def timeout(self, which: int) -> None:
        """Somebody says that time is up."""
        if (case := self.case(which)) is not None:
            self.give_up(case)

    def give_up(self, case: Case) -> None:
        """End it, if it may be ended."""
        settled = self.model.settled(case)
        call = self.call.timeout(*case.struct, case.dispute.state)
        if self.expect(EVE, call, settled or self.now > case.deadline):
            self.model.end(case, 3 - case.turn)

    @rule(which=st.integers(0, 7), who=ODDS)
    def contradict(self, which: int, who: int) -> None:
        """Two receipts under one number."""
        one = self.receipts[which % len(self.receipts)]
        provider = self.model.of(one)
        other = sign(replace(one, amount=one.amount + 1), provider.key)
        name = (one.provider, one.sequence)
        ok = name not in self.model.equivocated and provider.bond + provider.vault > 0
        call = self.call.equivocate(as_tuple(one), one.signature, as_tuple(other), other.signature)
        dear = provider.bond >= DEPOSIT
        if self.expect(CHALLENGERS[who], call, ok):
            if dear:
                self.model.equivocated.add(name)
            self.model.slash(provider, CHALLENGERS[who], None)

    @rule(who=st.sampled_from(EVERYBODY))
    def collect(self, who: str) -> None:
        """Somebody is paid."""
        due, before = self.model.credits[who], self.balance(who)
        if self.expect(EVE, self.call.collect(self.checked(who)), due > 0):
            self.model.credits[who] = 0
            assert self.balance(who) == before + due

    def checked(self, who: str) -> str:
        """An address as web3 wants it."""
        return self.room.town.web3.to_checksum_address(who)

    @rule(seconds=st.sampled_from([1, COMMIT_AGE, WINDOW // 2, WINDOW, WINDOW + 1, HELD, DAY, UNBONDING]))
    def wait(self, seconds: int) -> None:
        """Time passes."""
        self.clock.now += seconds

    @invariant()
    def the_contract_is_the_model(self) -> None:
        """Each provider's numbers, and what everybody is due."""
        court = self.room.court
        for provider, vault in zip(self.model.providers, self.vaults, strict=True):
            who = provider.key.address
            assert self.read(court, "bonds(address)", who) == [provider.bond]
            assert tuple(self.read(court, "leaving(address)", who)) == provider.leaving
            assert self.read(court, "running(address)", who) == [provider.running]
            assert self.balance(vault.address) == provider.vault
            if self.chain.code(vault.address.lower()):
                assert self.read(vault, "frozenUntil()") == [provider.frozen]
        for who, due in self.model.credits.items():
            assert self.read(court, "credits(address)", who) == [due]
        assert self.read(court, "count()") == [self.count]
        kept = dict.fromkeys(range(1, self.count + 1), bytes(32)) | {
            c.number: c.dispute.digest for c in self.model.cases
        }
        for number, digest in kept.items():
            assert self.read(court, "disputes(uint256)", number) == [int.from_bytes(digest, "big")]

    @invariant()
    def tokens_in_are_tokens_owed(self) -> None:
        """The court holds bonds, deposits and credits; nothing is made or lost."""
        held = self.balance(self.room.court.address)
        bonds = sum(each.bond for each in self.model.providers)
        assert held == bonds + sum(self.model.credits.values()) + sum(each.deposit for each in self.model.cases)
        everywhere = [self.room.court.address, *(each.address for each in self.vaults), *EVERYBODY]
        assert sum(self.balance(each) for each in everywhere) == self.read(self.room.token, "totalSupply()")[0]

    def teardown(self) -> None:
        """Every dispute ends, by itself: then nothing is frozen, and the court owes bonds and credits only."""
        if self.receipts:
            self.clock.now += WINDOW + 1
            while self.model.cases:
                self.give_up(self.model.cases[0])
            self.the_contract_is_the_model()
            assert not any(each.running or each.frozen for each in self.model.providers)
            for who, due in list(self.model.credits.items()):
                if due:
                    self.collect(who)
            self.tokens_in_are_tokens_owed()
            assert self.balance(self.room.court.address) == sum(each.bond for each in self.model.providers)
        self.chain.close()


class TestCourt(CourtMachine.TestCase):
    """A few runs."""

    settings = runs(6, 25)


@pytest.mark.slow
class TestCourtLong(CourtMachine.TestCase):
    """Many, long ones."""

    settings = runs(256, 50)
