"""The simulation of rational cheats agrees with what is computed, and sees a bond that is too small."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from random import Random

import pytest
from benchmarks._cheating import HONEST, STRATEGIES, Strategy, average, profit
from benchmarks.economics import SITUATIONS, kinder_bond, measure

from assay.market.economics import Situation, best_cheat, least_bond

RUNS = 1500
NAMED = {strategy.name: strategy for strategy in STRATEGIES}
AT_ONCE = Situation(price=1000, saving=600, rate=Fraction(1), audit=Fraction(1, 4), bond=4000, margin=Fraction(0))


def interval(situation: Situation, strategy: Strategy, runs: int = RUNS) -> tuple[float, float]:
    """Of the mean profit, wei."""
    random = Random(7)
    mean, width = average([profit(situation, strategy, random) for _ in range(runs)])
    return mean - width, mean + width


@pytest.mark.parametrize(
    "situation",
    [
        AT_ONCE,
        replace(AT_ONCE, detection=20, dispute=10),
        replace(AT_ONCE, power=Fraction(1, 2), colluding=Fraction(1, 2)),
        replace(SITUATIONS["nothing_held"], bond=30_000),
    ],
)
def test_simulated_is_computed(situation: Situation) -> None:
    """Where nothing is held back, a cheat that goes on until it is slashed has what the calculator says."""
    low, high = interval(situation, NAMED["self_challenging"])
    assert low < best_cheat(situation)[0] < high
    assert high - low < 0.2 * situation.price / situation.caught


def test_held_back_earnings_are_lost() -> None:
    """They go with the bond, less what comes back: no cheat has more than is computed."""
    situation = replace(AT_ONCE, detection=20, dispute=10, holdback=3600, unclaimed=5)
    assert best_cheat(situation)[0] < best_cheat(replace(situation, unclaimed=None))[0]
    assert interval(situation, NAMED["self_challenging"])[1] < best_cheat(situation)[0]


def test_honest_providers() -> None:
    """They have no profit over themselves, and are not slashed."""
    assert interval(AT_ONCE, HONEST, 20) == (0, 0)


def test_a_bond_too_small() -> None:
    """Without one every cheat gains; with that of the kinder inequality, one does."""
    for strategy in STRATEGIES:
        assert interval(replace(AT_ONCE, detection=30, bond=0), strategy, 200)[0] > 0
    situation = SITUATIONS["dashing"]
    assert kinder_bond(situation) < least_bond(situation)
    assert interval(replace(situation, bond=kinder_bond(situation)), NAMED["dash"], 200)[0] > 0


@pytest.mark.slow
def test_all_bars() -> None:
    """Of the benchmark hold."""
    figures = list(measure(lambda _: None, runs=1000))
    assert [figure.name for figure in figures if figure.holds is False] == []
    assert len({figure.name for figure in figures}) == len(figures)
