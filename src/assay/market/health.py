"""What a buyer remembers of its providers: failures and load by machine, verdicts by key.

An impostor under another URL spoils nobody's name: failures and load stick to the machine. Receipts are signed, so
verdicts stick to the key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import exp, log
from typing import Final, NamedTuple

import numpy as np

from assay.core.errors import Busy
from assay.core.keys import Address
from assay.core.request import Level
from assay.market.rows import Rows

FALSE_ALARM: Final = 0.01
"""Bound on how often a statistical check of an honest answer fails."""
DOUBT: Final = 0.001
"""Bound on the chance that statistical failures ever leave an honest provider out, however often one looks."""
_CHEATS: Final = (0.03, 0.1, 0.3, 0.9)
"""Rates of failure that the evidence against a provider is betted on, in equal parts."""
UNCHECKABLE: Final = 3
"""Checks that could not be made, before a provider is asked after others for it."""
REST_SECONDS: Final = 2.0
"""After the first failure; doubles with each one that follows."""
LONGEST_REST: Final = 300.0
_STAKES_KEPT: Final = 8
"""Wishes for which those are remembered that have enough at stake."""
_MACHINE: Final = np.dtype(
    [("resting", "f8"), ("active", "i4"), ("waiting", "i4"), ("asked", "i4"), ("failures", "i4")]
)


@dataclass(frozen=True, slots=True)
class Record:
    """What checks of one provider's answers found."""

    caught: int = 0
    """Times that leave no doubt: a pinned check or a whole history failed, two receipts have one number, or a court was
    convinced."""
    doubts: int = 0
    """Statistical checks that failed."""
    checked: int = 0
    """Statistical checks made."""
    held: Mapping[str, int] = field(default_factory=dict)
    """Checks that held, by level."""
    inconclusive: Mapping[str, int] = field(default_factory=dict)
    """Checks that its profile did not allow, by level."""

    @property
    def passed(self) -> int:
        """Checks that held, at all levels."""
        return sum(self.held.values())

    def uncheckable(self, level: Level) -> bool:
        """Most checks at this level could not be made: it claims a machine that nobody here can recompute. It may be
        honest, so it is only asked after those that can be checked."""
        count = self.inconclusive.get(level, 0)
        return count >= UNCHECKABLE and self.held.get(level, 0) < count

    @property
    def dishonest(self) -> bool:
        """There is proof, or too many doubts to be bad luck."""
        return self.caught > 0 or _unlikely(self.doubts, self.checked)


class Machine(NamedTuple):
    """What is known of one machine from dealing with it."""

    resting: float = 0.0
    """It is asked after others before this time (on the clock that `now` comes from)."""
    active: int = 0
    """Answers under way there for us."""
    waiting: int = 0
    """Of these, the ones whose first token has not come."""
    asked: int = 0
    """Answers that we asked for."""
    failures: int = 0
    """Failed answers since the last good one."""


class Health:
    """Mutable; time is handed in, in seconds on a clock that only rises."""

    def __init__(self) -> None:
        self.machines: Final = Rows(_MACHINE)
        """Columns as in `Machine`, by URL."""
        self.of_provider: Mapping[Address, Record] = {}
        self._inconclusive: Mapping[Address, Record] = {}
        self.dishonest: frozenset[Address] = frozenset()
        """Providers that are never asked."""
        self.trust: Mapping[Address, float] = {}
        """From 0 to 1, of those of whom something good is known (`market/reputation.py`)."""
        self._stakes: Mapping[Address, int] = {}
        self._staked: dict[int, frozenset[Address]] = {}

    def at(self, url: str) -> Machine:
        """What is known of the machine at this URL."""
        row = self.machines.find(url)
        return Machine() if row is None else Machine(*(self.machines[name][row].item() for name in Machine._fields))

    def asked(self, url: str) -> None:
        """An answer begins at a provider."""
        row = self.machines.at(url)
        self.machines["asked"][row] += 1
        self.machines["active"][row] += 1
        self.machines["waiting"][row] += 1

    def began(self, url: str) -> None:
        """Its first token has come, or it is known that none will."""
        row = self.machines.at(url)
        self.machines["waiting"][row] = max(self.machines["waiting"][row] - 1, 0)

    def over(self, url: str) -> None:
        """An answer that was begun has ended, well or not."""
        row = self.machines.at(url)
        self.machines["active"][row] = max(self.machines["active"][row] - 1, 0)

    def good(self, url: str) -> None:
        """An answer came whole, with its receipt."""
        row = self.machines.at(url)
        self.machines["failures"][row] = 0
        self.machines["resting"][row] = 0.0

    def failed(self, url: str, now: float, *, badly: bool = False) -> None:
        """An answer failed; `badly`: the provider lied, and rests as long as any."""
        row = self.machines.at(url)
        failures = int(self.machines["failures"][row])
        rest = LONGEST_REST if badly else min(REST_SECONDS * 2 ** min(failures, 16), LONGEST_REST)
        self.machines["failures"][row] = failures + 1
        self.machines["resting"][row] = now + rest

    def busy(self, url: str, now: float, reason: Busy) -> None:
        """The provider is full: no failure, but others are asked first for as long as it says."""
        self.rest(url, now + min(reason.retry_after, LONGEST_REST))

    def rest(self, url: str, until: float) -> None:
        """Others are asked first until then."""
        row = self.machines.at(url)
        self.machines["resting"][row] = max(self.machines["resting"][row], until)

    def judged(
        self, verdicts: Iterable[tuple[Address, Level, str, str, int]], contradictions: Iterable[Address]
    ) -> None:
        """All verdicts up to now, and who signed one number twice or lost a dispute.

        Verdicts are counted by provider, level, outcome and basis (`core/verdict.py`). A failure that no noise explains
        and one of a whole history are proof, at any level; that of one answer's statistics is a doubt, at any level.
        """
        fresh: dict[Address, Record] = {}
        for provider, level, outcome, basis, count in verdicts:
            record = fresh.get(provider, Record())
            if basis == "test":
                doubts = count if outcome == "fails" else 0
                record = replace(record, doubts=record.doubts + doubts, checked=record.checked + count)
            elif outcome == "fails":
                record = replace(record, caught=record.caught + count)
            if basis != "none" and level != "signed":
                if outcome == "holds":
                    record = replace(record, held=_more(record.held, level, count))
                elif outcome == "inconclusive":
                    record = replace(record, inconclusive=_more(record.inconclusive, level, count))
            fresh[provider] = record
        for provider in contradictions:
            record = fresh.get(provider, Record())
            fresh[provider] = replace(record, caught=record.caught + 1)
        self.of_provider = fresh
        self._inconclusive = {provider: record for provider, record in fresh.items() if record.inconclusive}
        self.dishonest = frozenset(provider for provider, record in fresh.items() if record.dishonest)

    def staked(self, stakes: Mapping[Address, int]) -> None:
        """What providers have to lose, wei, as far as the chain has told."""
        self._stakes = stakes
        self._staked.clear()

    def at_stake(self, least: int | None) -> frozenset[Address] | None:
        """Providers that have so much to lose, wei; who is not known has nothing. None: nothing is wished."""
        if not least:
            return None
        if least not in self._staked:
            if len(self._staked) == _STAKES_KEPT:
                self._staked.clear()
            self._staked[least] = frozenset(name for name, stake in self._stakes.items() if stake >= least)
        return self._staked[least]

    def unclear(self, level: Level) -> frozenset[Address]:
        """Providers most of whose answers at this level cannot be checked here."""
        return frozenset(name for name, record in self._inconclusive.items() if record.uncheckable(level))


def audit_share(passed: int, least: float) -> float:
    """Share of a provider's answers to check: all of a new key's, and after n checks that it passed 1/(n + 1), down to
    `least`.

    About the chance that the next one is false, as far as n that held tell: 1/(n + 2) by the rule of succession.
    """
    return max(least, 1 / (1 + passed))


def _more(counts: Mapping[str, int], level: Level, count: int) -> Mapping[str, int]:
    return {**counts, level: counts.get(level, 0) + count}


def _unlikely(doubts: int, checked: int, false_alarm: float = FALSE_ALARM) -> bool:
    """So many failures are evidence against honesty: a likelihood ratio of at least 1 / DOUBT.

    Over honest checks, each failing with probability `false_alarm` at most whatever came before, the ratio is a test
    supermartingale, also as a mixture over several rates: that it *ever* reaches 1 / DOUBT has probability DOUBT at
    most (Ville 1939), so one may look again after each check.
    """
    logs = [
        doubts * log(rate / false_alarm) + (checked - doubts) * log((1 - rate) / (1 - false_alarm)) for rate in _CHEATS
    ]
    peak = max(logs)
    return peak + log(sum(exp(each - peak) for each in logs) / len(logs)) >= -log(DOUBT)
