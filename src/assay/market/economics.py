"""What makes cheating a loss: bond, hold-back and audit share, as docs/economics.md derives them.

A false answer saves g wei and is caught with probability q, and the provider is stopped D seconds later. Until then it
sells λ answers a second. A cheat that takes its chance for T seconds at that rate, and leaves, has over honest work at
most g · (1/q + λ·T) if it is not punished, and loses

    L(T) = (1−β) · (φ·S + P·λ·h(T)) + F        h(T) = max(0, min(T, W − detection) − unclaimed)

if it is. None gains if L(T) ≥ (1+m) · g · (1/q + λ·T) for all T up to D. Both sides are linear in T but where h begins
and ends to grow, so that two points decide: T = unclaimed, and T = D. All numbers are exact: wei and seconds are
integers, shares and rates fractions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil
from typing import Final

from assay.core.errors import InvalidRequest

LONGEST_HOLDBACK: Final = 30 * 86_400
"""Seconds: what `Vault.vy` takes as its window."""
_GRID: Final = 10**9
"""Audit shares are rounded up to a billionth."""
_NUMBERS: Final = (
    *("price", "saving", "rate", "detection", "dispute"),
    *("bond", "holdback", "unclaimed", "standing", "margin"),
)


def _shares(**values: Fraction) -> None:
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise InvalidRequest(f"{name} is not from 0 to 1", field=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """What the court takes, and whom it gives it to; the rest of what is taken is burned. Each from 0 to 1."""

    slashed: Fraction = Fraction(1, 2)
    """φ: of the bond. Held-back earnings are always taken whole."""
    challenger: Fraction = Fraction(1, 4)
    """Of what is taken."""
    wronged: Fraction = Fraction(1, 2)
    """Of what is taken: the payer's, up to the amount in the receipt."""

    def __post_init__(self) -> None:
        _shares(slashed=self.slashed, challenger=self.challenger, wronged=self.wronged)
        _shares(returned=self.returned)

    @property
    def returned(self) -> Fraction:
        """β: what a cheat gets back that challenges itself, and is its own payer.

        The amount in the receipt limits nothing: the cheat signs it.
        """
        return self.challenger + self.wronged


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """One provider, as those see it who buy from it and those who check it."""

    price: int
    """P, wei: what a request pays."""
    saving: int
    """g, wei: what a false answer to it saves, the dearest one that a cheat can choose."""
    rate: Fraction
    """λ, requests a second: the most that the provider sells under one bond."""
    audit: Fraction
    """Probability that a request which the cheat chooses is audited."""
    power: Fraction = Fraction(1)
    """Probability that an audit sees that its answer is false."""
    colluding: Fraction = Fraction(0)
    """Share of the auditors who never report this provider."""
    detection: int = 0
    """Seconds from a false answer until its dispute is opened, which stops what is held back from being released."""
    dispute: int = 0
    """Seconds from then until nobody buys any more: the longest dispute, unless buyers stop before."""
    bond: int = 0
    """S, wei, that is not leaving."""
    holdback: int = 0
    """W, seconds: the vault's window."""
    unclaimed: int | None = None
    """Seconds for which buyers put up with vouchers that are not claimed, at most; None: for ever, and nothing is sure
    to be in the vault."""
    standing: int = 0
    """F, wei: what being known is worth, that is, what a new key pays until it sells as much as the old one."""
    margin: Fraction = Fraction(1, 5)
    """m."""
    unbonding: int = 21 * 86_400
    """Seconds that a bond takes to leave, and in which nobody buys any more."""
    shares: Shares = Shares()

    def __post_init__(self) -> None:
        _shares(audit=self.audit, power=self.power, colluding=self.colluding)
        for name in _NUMBERS:
            if (getattr(self, name) or 0) < 0:
                raise InvalidRequest(f"{name} is below zero", field=name)
        if self.delay >= self.unbonding:
            raise InvalidRequest(
                f"a bond leaves in {self.unbonding} s, before a false answer is punished ({self.delay} s)",
                field="unbonding",
                remedy="audit sooner, or let bonds leave later",
            )
        if self.caught == 0 and self.saving > 0:
            raise InvalidRequest(
                "no false answer is ever caught", field="audit", remedy="audit, and pay some auditors who report"
            )

    @property
    def caught(self) -> Fraction:
        """q: probability that one false answer is caught."""
        return self.audit * self.power * (1 - self.colluding)

    @property
    def delay(self) -> int:
        """D: seconds from a false answer that is caught until nobody buys any more."""
        return self.detection + self.dispute

    @property
    def dash(self) -> int:
        """The longest T for which nothing is sure to be in the vault when it is emptied, seconds."""
        return self.delay if self.unclaimed is None else min(self.delay, self.unclaimed)

    def held(self, seconds: int) -> int:
        """h(`seconds`): of the earnings of so many seconds, how much is in the vault for sure when it is emptied."""
        if self.unclaimed is None:
            return 0
        return max(0, min(seconds, self.holdback - self.detection) - self.unclaimed)


def gain(situation: Situation, seconds: int) -> Fraction:
    """g · (1/q + λ·T), wei; for T = D what a cheat saves on average until it is stopped."""
    if not situation.saving:
        return Fraction(0)
    return situation.saving * (1 / situation.caught + situation.rate * seconds)


def loss(situation: Situation, seconds: int) -> Fraction:
    """L(T): wei that it loses when it is punished, after what comes back to it."""
    shares = situation.shares
    taken = shares.slashed * situation.bond + situation.price * situation.rate * situation.held(seconds)
    return (1 - shares.returned) * taken + situation.standing


def best_cheat(situation: Situation) -> tuple[int, int]:
    """The most that a cheat may have over an honest provider, wei, rounded up, and its T in seconds.

    At most 0: nobody cheats. For T = D it is what a cheat that goes on until it is stopped has on average.
    """
    return max((ceil(gain(situation, seconds) - loss(situation, seconds)), seconds) for seconds in _points(situation))


def safe(situation: Situation) -> bool:
    """Cheating loses, with the margin."""
    return _missing(situation) <= 0


def least_bond(situation: Situation) -> int:
    """Wei, for the situation's other numbers.

    Raises:
        InvalidRequest: nothing of a bond is slashed, or all of it comes back.
    """
    missing = _missing(replace(situation, bond=0))
    if missing <= 0:
        return 0
    lost = (1 - situation.shares.returned) * situation.shares.slashed
    if lost == 0:
        raise InvalidRequest(
            "no bond is lost: nothing is slashed here, or all of it comes back to the cheat",
            field="bond",
            remedy="solve for audit-rate, with --standing",
        )
    return ceil(missing / lost)


def least_holdback(situation: Situation) -> int:
    """Seconds, for the situation's other numbers.

    Raises:
        InvalidRequest: no window suffices.
    """
    if safe(replace(situation, holdback=0)):
        return 0
    if situation.unclaimed is None:
        raise InvalidRequest(
            "nothing is sure to be held back where vouchers may stay unclaimed for ever",
            field="unclaimed",
            remedy="say for how long buyers put up with it: --unclaimed 3600",
        )
    each_second = (1 - situation.shares.returned) * situation.price * situation.rate
    seconds = ceil(_missing(replace(situation, holdback=0)) / each_second) if each_second else 0
    window = situation.detection + situation.unclaimed + seconds
    if window > LONGEST_HOLDBACK or not safe(replace(situation, holdback=window)):
        raise InvalidRequest(
            "no hold-back suffices: what is saved before much is in the vault, or each second, is more than it takes",
            field="holdback",
            remedy="raise the bond or the audit share, or stop cheats sooner",
        )
    return window


def least_audit(situation: Situation) -> Fraction:
    """Share of the requests, for the situation's other numbers; rounded up to a billionth.

    Raises:
        InvalidRequest: auditing everything does not suffice.
    """
    if not situation.saving:
        return Fraction(0)
    dearest = (1 + situation.margin) * situation.saving / replace(situation, audit=Fraction(1)).caught
    # What may be saved before it is caught: the loss, less what is saved afterwards.
    left = dearest - _missing(replace(situation, audit=Fraction(1)))
    if left < dearest:
        raise InvalidRequest(
            "auditing every request does not suffice",
            field="audit",
            remedy="raise bond or hold-back, or stop cheats sooner",
        )
    return Fraction(ceil(dearest / left * _GRID), _GRID)


def reward(situation: Situation) -> int:
    """Wei that a challenger gets from the bond, rounded down; what is held back may be nothing."""
    return int(situation.shares.challenger * situation.shares.slashed * situation.bond)


def least_cheating(situation: Situation, *, audit_cost: int, dispute_cost: int) -> Fraction | None:
    """The share of false answers below which rewards alone do not pay who audits at random; None: at no share do they.

    `audit_cost`, `dispute_cost`: wei for one audit; for a dispute that is won.
    """
    won = (reward(situation) - dispute_cost) * situation.power
    if audit_cost == 0:
        return Fraction(0) if won >= 0 else None
    return Fraction(audit_cost) / won if won >= audit_cost else None


def _points(situation: Situation) -> tuple[int, int]:
    """Where the loss is least beside the gain, seconds."""
    return situation.dash, situation.delay


def _missing(situation: Situation) -> Fraction:
    """Wei by which the loss falls short of the gain with its margin, where that is most; below 0 if it does not."""
    return max(
        (1 + situation.margin) * gain(situation, seconds) - loss(situation, seconds) for seconds in _points(situation)
    )
