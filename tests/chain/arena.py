"""Disputes on the real contracts, over answers of small models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.chain.courtroom import ADA, COMMIT_AGE, NONE, PROVIDER, Courtroom, as_struct, as_tuple, commitment, entry_of
from tests.chain.kit import Town, config

from assay.chain.contracts import REFEREES
from assay.chain.court_events import read_ended, read_moved, read_opened, topic_of
from assay.chain.ethereum import Contract
from assay.chain.game import State, exhibit, read_state
from assay.chain.referees import table_of
from assay.core.hashing import Digest
from assay.core.keys import Key
from assay.core.profile import Profile
from assay.core.receipt import Receipt
from assay.core.request import Opening
from assay.core.voucher import Terms
from assay.engines.exact.dispute import game
from assay.engines.exact.dispute.moves import Challenge
from assay.engines.exact.dispute.response import Response

BODY = bytes(31) + b"\7"
"""Digest of a request's bytes, which nobody looks at here."""
GAS = 25_000_000


def referees_on(town: Town) -> list[Any]:
    """Addresses of all referees, and of the tables that they read."""
    tables: dict[str, Any] = {}
    for name in filter(None, map(table_of, REFEREES)):
        tables[name] = tables.get(name) or town.deploy(name).address
    return [town.deploy(name, *filter(None, [tables.get(table_of(name) or "")])).address for name in REFEREES]


def game_on(town: Town) -> Contract:
    """The game, with all referees."""
    return town.deploy("Game", referees_on(town))


@dataclass(frozen=True)
class Case:
    """What a dispute is about."""

    theirs: Response
    """What the receipt commits to."""
    root: Digest
    """Of the model that the receipt names."""
    challenge: Challenge
    receipt: Receipt

    @property
    def terms(self) -> game.Terms:
        """Of the game in Python."""
        own = self.theirs
        return game.Terms(own.shape, self.root, own.evidence, own.token_roots, *own.rules[:2])

    @property
    def exhibit(self) -> bytes:
        """What it is opened with."""
        where, root = self.challenge, self.root
        return exhibit(
            where.position,
            token=where.token,
            parameters=root,
            opening=opening_of(self.theirs),
            profile=profile_of(root),
        )


def opening_of(own: Response) -> Opening:
    """Of the request."""
    rules = own.rules.settings
    numbers = (rules.temperature, rules.top_k, rules.top_p, rules.min_p)
    return Opening(BODY, own.rules.seed, b"".join(each.to_bytes(8, "big") for each in numbers) + b"\0")


def profile_of(root: Digest) -> Profile:
    """Of the exact engine with that model."""
    return Profile(
        "assay", root.hex(), "exact/1", "", "i16", False, 4, 0, 64, "gumbel/2", "1", "none",
    )  # fmt: skip


class Arena(Courtroom):
    """A court with the real game."""

    def __init__(self, town: Town) -> None:
        super().__init__(town, game=game_on(town))
        self.channel: Terms | None = None
        """Whose payer is known of the receipts to come."""

    def case(self, own: Response, root: Digest, challenge: Challenge, **other: Any) -> Case:
        """A receipt over a response of a model, and what is said to be wrong with it."""
        values = {
            "request": opening_of(own).digest,
            "profile": profile_of(root).digest,
            "prompt_tokens": own.token_roots.prompt,
            "output": own.token_roots.output,
            "evidence": own.evidence.root,
            "prompt_count": own.evidence.prompt,
            "output_count": own.evidence.output,
            "channel": self.channel.channel(self.town.domain) if self.channel else bytes(32),
        }
        return Case(own, root, challenge, self.receipt(**{**values, **other}))

    def start(self, case: Case, who: Key = ADA) -> Fight:
        """Open a dispute."""
        self.salt += 1
        salt = self.salt.to_bytes(32, "big")
        announced = self.town.send(who, self.call.commit(commitment(case.receipt, who, salt)))
        self.town.pass_time(COMMIT_AGE)
        terms = config(self.channel) if self.channel else NONE
        call = self.call.open(as_tuple(case.receipt), case.receipt.signature, case.exhibit, salt, terms)
        done = self.town.send(who, call, GAS)
        fight = Fight(self, who, done["logs"][-1])
        fight.spend("commit", announced)
        fight.spend("open", done)
        return fight


class Fight:
    """One dispute."""

    def __init__(self, arena: Arena, challenger: Key, opened: Any) -> None:
        self.arena = arena
        self.dispute, shown = read_opened(entry_of(opened))
        self.number, self.raw = self.dispute.id, shown.state
        self.people = (PROVIDER, challenger)
        self.turn = 0
        self.moves = self.exchanges = 0
        self.chunks = self.cells = 1
        """Of the larger part of the record, and up to the target, as the prover says."""
        self.gas: list[tuple[str, int, int]] = []
        """What was done, gas, and what EIP-7623 takes at least for its bytes."""

    @property
    def state(self) -> State:
        """The game's."""
        return read_state(self.raw)

    @property
    def mover(self) -> Key:
        """Whose turn it is."""
        return self.people[self.turn]

    def spend(self, what: str, done: Any) -> None:
        """Note a transaction."""
        data = bytes(self.arena.town.web3.eth.get_transaction(done["transactionHash"])["input"])
        self.gas.append((what, done["gasUsed"], 21_000 + 40 * len(data) - 30 * data.count(0)))

    def moving(self, data: bytes, state: bytes | None = None) -> Any:
        """The call."""
        call = self.arena.call
        make = call.prove if self.turn < 2 and self.state.stage == "step" else call.move
        return make(self.number, as_struct(self.dispute), self.raw if state is None else state, data)

    def ending(self) -> Any:
        """The call that says that time is over."""
        return self.arena.call.timeout(self.number, as_struct(self.dispute), self.dispute.state)

    def tries(self, data: bytes, who: Key | None = None, state: bytes | None = None) -> bool:
        """Whether the court takes a move."""
        who = who or self.mover
        done = self.arena.town.post(who, self.moving(data, state), GAS)
        if not done["status"]:
            return False
        self.spend(self.state.stage, done)
        for entry in map(entry_of, done["logs"]):
            if entry.topics[0] == topic_of("Moved"):
                shown = read_moved(entry)
                self.dispute = self.dispute.after(shown)
                self.turn, self.raw = shown.turn, shown.state
            elif entry.topics[0] == topic_of("Ended"):
                self.turn = read_ended(entry)
        self.moves += 1
        self.exchanges += who is self.people[0]
        if self.turn < 2 and self.state.stage == "branch":
            self.chunks = max(self.state.one.count, self.state.other.count)
        if self.turn < 2 and self.state.stage == "cell names":
            self.cells = self.state.one.count
        return True

    def move(self, data: bytes) -> None:
        """It takes this one."""
        call, mover = self.moving(data), self.mover
        assert self.tries(data), self.arena.town.why(mover, call)
