"""The demonstration's chain: who has how much, what is disputed, and a clock that need not be waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from assay.chain.abi import encoded, words
from assay.chain.court import CourtClient
from assay.chain.court_events import (
    CHALLENGER_WINS,
    PROVER,
    PROVER_WINS,
    Happening,
    Slashing,
    read_ended,
    read_moved,
    read_slashed,
    topic_of,
)
from assay.chain.game import read_state
from assay.chain.node import Entry
from assay.core.errors import AssayError
from assay.core.keys import Address

TEST: Final = 10**18
"""Wei of a test token."""
SILENT_SECONDS: Final = 20.0
"""So long nobody moves before the chain's clock is moved past the deadline, if it is the provider's turn."""
_MOST_SECONDS: Final = 240.0
"""Longest wait for a dispute."""
_POLL: Final = 0.5
_DEAD: Final = "0x000000000000000000000000000000000000dead"
_ANY: Final = 1 << 256
_EVENTS: Final[tuple[Happening, ...]] = ("Opened", "Moved", "Slashed", "Ended")


@dataclass(slots=True)
class Story:
    """A dispute, as events told it."""

    number: int
    provider: Address
    receipt: str
    turn: int = PROVER
    moves: list[str] = field(default_factory=list)
    """What was wanted each time."""
    outcome: str = ""
    """`slashed`, `upheld` or `void`; empty while it is open."""
    slashing: Slashing | None = None


@dataclass(frozen=True, slots=True)
class Bill:
    """What a demonstration did to everybody's money."""

    before: Mapping[str, int]
    """Wei, by who has it; see `Money.purses`."""
    after: Mapping[str, int]
    supply: int
    """Wei of all tokens there are."""
    transactions: int
    """Of deposits, claims, payments."""
    gas: int
    """That those used."""
    stories: Sequence[Story]

    @property
    def adds_up(self) -> bool:
        """No token was lost or made."""
        return sum(self.before.values()) == sum(self.after.values()) == self.supply

    def to_json(self) -> dict[str, object]:
        """For scripts."""
        return {
            "before_wei": {name: str(amount) for name, amount in self.before.items()},
            "after_wei": {name: str(amount) for name, amount in self.after.items()},
            "supply_wei": str(self.supply),
            "adds_up": self.adds_up,
            "transactions": self.transactions,
            "gas": self.gas,
            "disputes": [_story(each) for each in self.stories],
        }


class Money:
    """Reads the chain of a demonstration, and moves its clock."""

    def __init__(self, court: CourtClient, people: Mapping[str, Address]) -> None:
        """`people`: whose money is counted, by name."""
        self._court: Final = court
        self._client: Final = court.client
        self._node: Final = court.node
        self._people: Final = dict(people)
        self.stories: Final[dict[int, Story]] = {}
        self._read = 0
        self._loss: Final[dict[bytes, Slashing]] = {}
        """By the transaction that ended a dispute so."""

    def purses(self) -> dict[str, int]:
        """Wei of each: in the wallet, bonded, held back in the vault, due from the court; then what is in channels,
        insures buyers, or is burned. Together it is all there is."""
        found = {name: self._all_of(address) for name, address in self._people.items()}
        found["in channels"] = self._client.token_balance(self._client.addresses.channels)
        found["insurance pool"] = self._court.credit(f"0x{self._court.values().insurance:040x}")
        found["burned"] = self._court.credit(_DEAD) + self._client.token_balance(_DEAD)
        return found

    def supply(self) -> int:
        """Wei of all tokens there are."""
        return self._number(self._client.addresses.token, "totalSupply")

    def gas(self) -> tuple[int, int]:
        """Transactions to channels and vaults, and the gas that they used."""
        count = used = 0
        for number in range(1, self._node.head().number + 1):
            block = self._node.ask("eth_getBlockByNumber", hex(number), False)
            hashes = block.get("transactions") if isinstance(block, dict) else None
            for name in hashes if isinstance(hashes, list) else ():
                found = self._node.ask("eth_getTransactionReceipt", name)
                if isinstance(found, dict) and found.get("to") and str(found["to"]).lower() != self._court.where:
                    count, used = count + 1, used + int(str(found["gasUsed"]), 16)
        return count, used

    def forward(self, seconds: int) -> None:
        """Move the chain's clock."""
        self._node.ask("evm_increaseTime", hex(seconds))
        self._node.ask("evm_mine")

    @property
    def held(self) -> int:
        """Seconds that earnings are held back, at most."""
        window = self._number(self._client.addresses.vault, "WINDOW")
        return window + window // 16 + 1

    def bill(self, before: Mapping[str, int]) -> Bill:
        """What has become of it."""
        return Bill(before, self.purses(), self.supply(), *self.gas(), list(self.stories.values()))

    def settled(self, seconds: float) -> None:
        """Wait until nothing is claimed any more, or so long."""
        end, last, since = time.monotonic() + seconds, -1, time.monotonic()
        while time.monotonic() < end and time.monotonic() - since < 4:
            number = self._node.head().number
            if number != last:
                last, since = number, time.monotonic()
            time.sleep(_POLL)

    def follow(self, wanted: int, say: Callable[[str], None], alive: Callable[[], None]) -> None:
        """Watch until so many disputes and all that are open have ended, moving the clock where somebody keeps silent;
        `say` is told what happens, `alive` raises if a process has ended."""
        values = self._court.values()
        end, moved = time.monotonic() + _MOST_SECONDS, time.monotonic()
        say("the validator announces a dispute without saying over what; the chain's clock moves on by a minute")
        while time.monotonic() < end and (
            len(self.stories) < wanted or not all(s.outcome for s in self.stories.values())
        ):
            alive()
            if self._look(say):
                moved = time.monotonic()
            waiting = [story.turn for story in self.stories.values() if not story.outcome]
            silent = time.monotonic() - moved
            if not self.stories and silent > 5:
                self.forward(values.commit_age + 1)
                moved = time.monotonic()
            elif silent > SILENT_SECONDS and waiting and set(waiting) == {PROVER}:
                say(f"{self._silence()}; the clock moves past its deadline")
                self.forward(values.window + 1)
                moved = time.monotonic()
            time.sleep(_POLL)

    def _silence(self) -> str:
        """Why the provider does not move."""
        story = next(story for story in self.stories.values() if not story.outcome)
        if story.moves[-1:] == ["step"]:
            return f"{len(story.moves)} moves led to one operation, and no contract takes the provider's number for it"
        return "the provider makes no move"

    def _look(self, say: Callable[[str], None]) -> bool:
        """Take in what has happened; whether anything has."""
        head = self._node.head().number
        if head < self._read:
            return False
        found = [each for name in _EVENTS for each in self._court.happened(name, self._read, head)]
        found.sort(key=lambda each: (each.block, each.index))
        for entry in found:
            self._tell(entry, say)
        self._read = head + 1
        return bool(found)

    def _tell(self, entry: Entry, say: Callable[[str], None]) -> None:
        what = next(name for name in _EVENTS if entry.topics[0] == topic_of(name))
        if what == "Slashed":
            loss = read_slashed(entry)
            self._loss[entry.transaction] = loss
            return
        number = int.from_bytes(entry.topics[1], "big")
        if what == "Opened":
            self.stories[number] = Story(number, "0x" + entry.topics[2][12:].hex(), entry.topics[3].hex())
            say(f"dispute {number} is open over receipt {entry.topics[3].hex()[:12]}…")
            return
        story = self.stories[number]
        if what == "Moved":
            shown = read_moved(entry)
            story.moves.append(_named(shown.state))
            story.turn = shown.turn
            return
        story.outcome = {CHALLENGER_WINS: "slashed", PROVER_WINS: "upheld"}.get(read_ended(entry), "void")
        story.slashing = self._loss.get(entry.transaction)

    def _all_of(self, who: Address) -> int:
        vault = self._client.token_balance(self._client.vault_of(who))
        return self._client.token_balance(who) + self._court.stake(who).bond + vault + self._court.credit(who)

    def _number(self, where: Address, name: str) -> int:
        """What a contract says of itself."""
        return words(self._node.call(where, encoded(name, ())), _ANY, what=f"the answer of {name}")[0]


def _story(story: Story) -> dict[str, object]:
    found: dict[str, object] = {
        "provider": story.provider, "receipt": story.receipt, "moves": len(story.moves), "outcome": story.outcome
    }  # fmt: skip
    if story.slashing is not None:
        loss = story.slashing
        found |= {
            "bond_wei": str(loss.bond), "held_back_wei": str(loss.held), "compensation_wei": str(loss.compensation),
            "reward_wei": str(loss.reward), "insured_wei": str(loss.insured),
        }  # fmt: skip
    return found


def _named(state: bytes) -> str:
    try:
        return read_state(state).stage
    except AssayError:
        return "?"
