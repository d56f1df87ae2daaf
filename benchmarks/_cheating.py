"""Rational cheats, event by event: a provider's books over a bond, a vault, channels and a court.

Nothing here knows the inequality. A cheat does what is best for it: it is its own challenger and its own payer, it
leaves vouchers unclaimed as long as buyers put up with it, and it knows that a dispute has been opened. Against the
honest side also: only the first dispute is brought, and the rest of the bond comes back.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Final, Literal, TypeAlias

from assay.market.economics import Situation

Kind: TypeAlias = Literal["request", "claim", "opened", "slashed", "leaves", "left"]
FOREVER: Final = math.inf


@dataclass(frozen=True, slots=True)
class Strategy:
    """How a provider cheats."""

    name: str
    share: float = 1.0
    """Of its answers that are false, once it has begun."""
    pace: float = 1.0
    """Share of the highest rate at which it takes requests."""
    begins: float = 0.0
    """Seconds of honest work before, in delays."""
    ends: float = FOREVER
    """Seconds until it takes its bond away, in delays."""
    dashes: bool = False
    """It takes it away just before its first claim would be due."""
    own_dispute: bool = True
    """It fires a dispute of its own first, and gets the challenger's and the wronged payer's share."""
    late_claims: bool = True
    """It leaves vouchers unclaimed as long as buyers put up with it."""
    lives: int = 1
    """After a slash it begins again with a new key and a new bond, so often in all."""


HONEST: Final = Strategy("honest", share=0.0, ends=5.0)
STRATEGIES: Final = (
    Strategy("always", own_dispute=False, late_claims=False),
    Strategy("self_challenging"),
    Strategy("partial", share=0.3),
    Strategy("slow", pace=0.02),
    Strategy("bursty", begins=3.0, ends=4.0),
    Strategy("hit_and_run", ends=1.0),
    Strategy("hit_and_wait", ends=2.0),
    Strategy("dash", dashes=True),
    Strategy("sybil", lives=3),
)
"""`bursty` cheats only in the last delay before it leaves, `hit_and_run` only in its first."""


class Provider:
    """One key's life. Money is wei and moves between accounts; time is seconds."""

    def __init__(self, situation: Situation, strategy: Strategy, random: Random, books: Counter[str]) -> None:
        self._of: Final = situation
        self._does: Final = strategy
        self._random: Final = random
        self._books: Final = books
        self._rate: Final = float(situation.rate) * strategy.pace
        self._odds: Final = float(situation.audit), float(situation.colluding), float(situation.power)
        self._events: list[tuple[float, int, Kind]] = []
        self._number: Final = count()
        self._vault: list[tuple[float, int]] = []
        self._claimed_at = 0.0
        self._slashed_at = FOREVER
        self._sells = True

    def live(self) -> None:
        """From the bond's deposit to its return, or what is left of it."""
        delay = max(self._of.delay, 1)
        self._pay("cheat", "bond", self._of.bond)
        self._at(self._random.expovariate(self._rate), "request")
        ends = self._of.dash if self._does.dashes else self._does.ends * delay
        if ends < FOREVER:
            self._at(ends, "leaves")
        if self._does.late_claims and self._of.unclaimed:
            self._at(self._of.unclaimed, "claim")
        begins = self._does.begins * delay
        act: dict[Kind, Callable[[float], None]] = {
            "request": lambda now: self._request(now, now >= begins),
            "claim": self._claim,
            "opened": self._opened,
            "slashed": lambda _: self._slashed(),
            "leaves": self._leaves,
            "left": lambda _: self._left(),
        }
        while self._events:
            now, _, kind = heapq.heappop(self._events)
            act[kind](now)

    def _request(self, now: float, cheats: bool) -> None:
        if not self._sells:
            return
        self._at(now + self._random.expovariate(self._rate), "request")
        self._books["answers"] += 1
        self._pay("buyers", "channels", self._of.price)
        if not self._does.late_claims:
            self._claim(now)
        if not cheats or self._random.random() >= self._does.share:
            return
        self._books["false answers"] += 1
        audit, colluding, power = self._odds
        audited = self._random.random() < audit
        if audited and self._random.random() >= colluding and self._random.random() < power:
            self._at(now + self._of.detection, "opened")

    def _claim(self, now: float) -> None:
        """What channels owe goes to the vault. Nobody can make one claim who does not sell."""
        if not self._sells:
            return
        amount = self._books["channels"]
        self._pay("channels", "vault", amount)
        self._vault.append((now + self._of.holdback, amount))
        self._claimed_at = now
        if self._does.late_claims and self._of.unclaimed:
            self._at(self._next_claim(now), "claim")

    def _next_claim(self, now: float) -> float:
        """As late as possible; so that as much as possible is unclaimed when the slash comes, if it is in sight."""
        assert self._of.unclaimed is not None
        latest = self._claimed_at + self._of.unclaimed
        best = self._slashed_at - self._of.unclaimed
        return best if now < best < latest else latest

    def _opened(self, now: float) -> None:
        """The vault is frozen; what is ripe has been taken out before."""
        if self._slashed_at < FOREVER:
            return
        ripe = sum(amount for until, amount in self._vault if until <= now)
        self._pay("vault", "cheat", ripe)
        self._slashed_at = now + self._of.dispute
        self._at(self._slashed_at, "slashed")
        if self._does.late_claims and self._of.unclaimed:
            self._events = [event for event in self._events if event[2] != "claim"]
            heapq.heapify(self._events)
            self._at(self._next_claim(now), "claim")

    def _slashed(self) -> None:
        shares = self._of.shares
        bond = int(self._books["bond"] * shares.slashed)
        self._pay("bond", "pot", bond)
        self._pay("vault", "pot", self._books["vault"])
        pot = self._books["pot"]
        mine = self._does.own_dispute
        self._pay("pot", "cheat" if mine else "auditors", int(pot * shares.challenger))
        self._pay("pot", "cheat" if mine else "buyers", int(pot * shares.wronged))
        self._pay("pot", "burned", self._books["pot"])
        self._books["slashes"] += 1
        self._end()

    def _leaves(self, now: float) -> None:
        """It asks for its bond, and nobody buys any more."""
        self._sells = False
        self._at(now + self._of.unbonding, "left")

    def _left(self) -> None:
        if self._slashed_at == FOREVER:  # else it has to wait for the dispute's end
            self._end()

    def _end(self) -> None:
        """What is left of the bond, of earnings and vouchers is its own."""
        self._events.clear()
        for account in ("bond", "channels", "vault"):
            self._pay(account, "cheat", self._books[account])

    def _at(self, when: float, kind: Kind) -> None:
        heapq.heappush(self._events, (when, next(self._number), kind))

    def _pay(self, giver: str, taker: str, amount: int) -> None:
        assert amount >= 0
        self._books[giver] -= amount
        self._books[taker] += amount


def profit(situation: Situation, strategy: Strategy, random: Random) -> int:
    """Wei that one cheat has over an honest provider with as many answers."""
    books: Counter[str] = Counter()
    for _ in range(strategy.lives):
        slashes = books["slashes"]
        Provider(situation, strategy, random, books).live()
        if books["slashes"] == slashes:
            break
    accounts = ("cheat", "buyers", "auditors", "burned")
    assert sum(books[account] for account in accounts) == 0, "money was made or lost"
    assert not any(books[account] for account in ("bond", "vault", "channels", "pot"))
    return books["cheat"] - situation.price * books["answers"] + situation.saving * books["false answers"]


def average(profits: list[int]) -> tuple[float, float]:
    """Mean, and half the width of its 99 % confidence interval."""
    mean = sum(profits) / len(profits)
    spread = math.sqrt(sum((each - mean) ** 2 for each in profits) / (len(profits) - 1))
    return mean, 2.576 * spread / math.sqrt(len(profits))
