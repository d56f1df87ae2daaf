"""The least bond, hold-back and audit share, and that they are the least."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from assay.core.errors import InvalidRequest
from assay.market.economics import (
    LONGEST_HOLDBACK,
    Shares,
    Situation,
    best_cheat,
    gain,
    least_audit,
    least_bond,
    least_cheating,
    least_holdback,
    loss,
    reward,
    safe,
)

HALF, TENTH = Fraction(1, 2), Fraction(1, 10)
PLAIN = Situation(price=1000, saving=600, rate=HALF, audit=TENTH, margin=Fraction(0))


def shares(low: int = 0) -> st.SearchStrategy[Fraction]:
    """From `low` percent to 1."""
    return st.integers(low, 100).map(lambda n: Fraction(n, 100))


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    """Any, in which something is audited and something of a bond is lost."""
    challenger, wronged = draw(shares()), draw(shares())
    assume(challenger + wronged < 1)
    price = draw(st.integers(0, 10**24))
    return Situation(
        price=price,
        saving=draw(st.integers(0, price)),
        rate=Fraction(draw(st.integers(0, 10_000)), 100),
        audit=draw(shares(1)),
        power=draw(shares(1)),
        colluding=draw(st.integers(0, 99)) * Fraction(1, 100),
        detection=draw(st.integers(0, 86_400)),
        dispute=draw(st.integers(0, 86_400)),
        bond=draw(st.integers(0, 10**30)),
        holdback=draw(st.integers(0, LONGEST_HOLDBACK)),
        unclaimed=draw(st.none() | st.integers(0, 86_400)),
        standing=draw(st.integers(0, 10**24)),
        margin=draw(shares()),
        shares=Shares(slashed=draw(shares(1)), challenger=challenger, wronged=wronged),
    )


def test_luck() -> None:
    """Stopped at once: ten false answers of 600 wei against an eighth of the bond."""
    assert least_bond(PLAIN) == 10 * 600 * 8
    assert best_cheat(replace(PLAIN, bond=48_000)) == (0, 0)
    assert best_cheat(replace(PLAIN, bond=40_000)) == (1000, 0)


def test_speed() -> None:
    """Each second of delay adds the rate's savings, less what is surely taken from the vault."""
    slow = replace(PLAIN, detection=100, dispute=300)
    assert least_bond(slow) == (10 * 600 + 200 * 600) * 8
    held = replace(slow, holdback=3600, unclaimed=40)
    assert least_bond(held) == (10 * 600 + 200 * 600) * 8 - 180 * 1000 * 2


@pytest.mark.parametrize(
    ("holdback", "unclaimed", "held"), [(3600, None, 0), (3600, 0, 400), (350, 0, 250), (350, 250, 0), (50, 0, 0)]
)
def test_what_is_surely_held(holdback: int, unclaimed: int | None, held: int) -> None:
    """At most the delay's; the vault's window less the time to the dispute; less what may be unclaimed."""
    situation = replace(PLAIN, detection=100, dispute=300, holdback=holdback, unclaimed=unclaimed)
    assert situation.held(situation.delay) == held


def test_holdback_cannot_stand_for_the_bond() -> None:
    """However much a provider loses that is stopped: a dash before its first claim leaves nothing in the vault."""
    dear = replace(PLAIN, saving=100, detection=86_400, unclaimed=60, holdback=LONGEST_HOLDBACK)
    assert loss(dear, dear.delay) > gain(dear, dear.delay)
    assert not safe(dear)
    assert best_cheat(dear) == (100 * (10 + 30), 60)
    with pytest.raises(InvalidRequest, match="before much is in the vault"):
        least_holdback(dear)
    assert least_bond(dear) == 100 * (10 + 30) * 8


def test_shares_come_back() -> None:
    """A cheat that is challenger and payer gets both shares: three quarters at the start."""
    assert Shares().returned == Fraction(3, 4)
    kinder = replace(PLAIN, shares=Shares(wronged=Fraction(0)))
    assert least_bond(PLAIN) == 3 * least_bond(kinder)


def test_colluding_auditors_and_weak_audits() -> None:
    """Both thin out what is caught."""
    assert replace(PLAIN, colluding=HALF, power=HALF).caught == Fraction(1, 40)
    assert least_bond(replace(PLAIN, colluding=HALF, power=HALF)) == 4 * least_bond(PLAIN)


def test_standing() -> None:
    """Where nothing is slashed, only what a name is worth can be lost."""
    known = replace(PLAIN, shares=Shares(slashed=Fraction(0)), standing=60_000)
    assert least_audit(known) == Fraction(1, 100)
    with pytest.raises(InvalidRequest, match="no bond is lost"):
        least_bond(replace(known, standing=0))


def test_challengers() -> None:
    """An eighth of the bond; audits at random are paid for by it from that share of false answers on."""
    situation = replace(PLAIN, bond=80_000, power=HALF)
    assert reward(situation) == 10_000
    assert least_cheating(situation, audit_cost=90, dispute_cost=1000) == Fraction(90, 4500)
    assert least_cheating(situation, audit_cost=5000, dispute_cost=1000) is None
    assert least_cheating(situation, audit_cost=0, dispute_cost=1000) == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"audit": Fraction(0)}, "no false answer is ever caught"),
        ({"colluding": Fraction(1)}, "no false answer is ever caught"),
        ({"audit": Fraction(2)}, "audit is not from 0 to 1"),
        ({"power": Fraction(-1)}, "power is not from 0 to 1"),
        ({"bond": -1}, "bond is below zero"),
        ({"unclaimed": -1}, "unclaimed is below zero"),
        ({"detection": 30 * 86_400}, "before a false answer is punished"),
    ],
)
def test_impossible_situations(change: dict[str, Fraction], said: str) -> None:
    """They are refused by name."""
    with pytest.raises(InvalidRequest, match=said):
        replace(PLAIN, **change)
    with pytest.raises(InvalidRequest, match="returned is not from 0 to 1"):
        Shares(challenger=Fraction(3, 4), wronged=HALF)


@given(situations())
def test_the_least_bond(situation: Situation) -> None:
    """With it cheating loses, for however long; with one wei less it does not."""
    bond = least_bond(situation)
    enough = replace(situation, bond=bond)
    assert safe(enough)
    assert best_cheat(enough)[0] <= 0
    for tenths in range(11):
        seconds = situation.delay * tenths // 10
        assert loss(enough, seconds) >= (1 + situation.margin) * gain(situation, seconds)
    assert bond == 0 or not safe(replace(situation, bond=bond - 1))


@given(situations())
def test_the_least_holdback(situation: Situation) -> None:
    """With it cheating loses, and with one second less it does not; where there is none, the longest is not enough."""
    try:
        seconds = least_holdback(situation)
    except InvalidRequest:
        assert not safe(replace(situation, holdback=LONGEST_HOLDBACK))
        return
    assert safe(replace(situation, holdback=seconds))
    assert seconds == 0 or not safe(replace(situation, holdback=seconds - 1))


@given(situations())
def test_the_least_audit_share(situation: Situation) -> None:
    """With it cheating loses, with a billionth less it does not; where there is none, auditing all is not enough."""
    try:
        share = least_audit(situation)
    except InvalidRequest:
        assert not safe(replace(situation, audit=Fraction(1)))
        return
    less = share - Fraction(1, 10**9)
    assert share == 0 or safe(replace(situation, audit=share))
    assert less <= 0 or not safe(replace(situation, audit=less))


@given(situations(), st.integers(1, 8), st.integers(0, 40), st.integers(0, 40), st.integers(0, 60))
def test_no_cheat_that_leaves_gains(situation: Situation, rate: int, delay: int, window: int, unclaimed: int) -> None:
    """Whenever it leaves, the chance of being caught by then outweighs what it has saved: exactly, with whole answers.

    Until the delay is over nobody can stop it; later it is stopped if one of the answers before the delay was caught.
    """
    situation = replace(
        situation,
        rate=Fraction(rate),
        detection=0,
        dispute=delay,
        holdback=window,
        unclaimed=unclaimed,
        standing=0,
        margin=Fraction(0),
    )
    enough = replace(situation, bond=least_bond(situation))
    missed = 1 - enough.caught
    for seconds in range(1, delay + 4):
        free = rate * min(seconds, delay)
        more = (1 - missed ** (rate * seconds - free)) / enough.caught
        caught = 1 - missed ** (rate * seconds)
        assert enough.saving * (free + more) <= caught * loss(enough, min(seconds, delay))
