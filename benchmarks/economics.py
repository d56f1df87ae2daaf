"""Whether the bond of `assay economics` is enough against rational cheats, and no more than enough."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from math import ceil
from random import Random
from typing import Final

from benchmarks._cheating import HONEST, STRATEGIES, Strategy, average, profit

from assay.apps.figures import Figure, Say
from assay.market.economics import Situation, best_cheat, gain, least_bond

RUNS: Final = 2000
"""Lives of each cheat."""
SEED: Final = 20261126
PRICE: Final = 1000
_PATIENT: Final = Situation(
    price=PRICE,
    saving=600,
    rate=Fraction(1, 100),
    audit=Fraction(1, 10),
    detection=100,
    dispute=200,
    holdback=3600,
    unclaimed=60,
)
SITUATIONS: Final = {
    # Few requests until it is stopped: luck decides. Many: speed does.
    "patient": _PATIENT,
    "busy": replace(_PATIENT, rate=Fraction(1, 20), audit=Fraction(1, 5)),
    "colluding": replace(_PATIENT, colluding=Fraction(1, 2)),
    "unsure": replace(_PATIENT, power=Fraction(3, 4), saving=900),
    "dashing": replace(_PATIENT, rate=Fraction(1, 2), saving=200, unclaimed=150),
    "nothing_held": replace(_PATIENT, unclaimed=None, holdback=0),
}


def measure(say: Say, *, runs: int = RUNS) -> Iterator[Figure]:
    """Profits over honest work, in prices of a request, with 99 % confidence intervals.

    At the bond that is computed none may be above zero; at half of it, and by the kinder inequality, one has to be.
    """
    for name, situation in SITUATIONS.items():
        say(name)
        bond = least_bond(situation)
        yield Figure(f"{name}.bond", bond / PRICE, "prices", None, None, 1)
        mean, _ = _average(replace(situation, bond=bond), HONEST, runs // 20)
        yield Figure(f"{name}.honest", mean, "prices", 0, mean == 0, runs // 20)
        for strategy in STRATEGIES:
            mean, width = _average(replace(situation, bond=bond), strategy, runs)
            yield Figure(f"{name}.{strategy.name}", mean, "prices", None, None, runs)
            yield Figure(f"{name}.{strategy.name}.at_most", mean + width, "prices", 0, mean + width <= 0, runs)
        yield from _best(f"{name}.half_the_bond", replace(situation, bond=bond // 2), runs)
        kind = replace(situation, bond=kinder_bond(situation))
        yield Figure(f"{name}.kinder.bond", kind.bond / PRICE, "prices", None, None, 1)
        yield from _best(f"{name}.kinder", kind, runs)


def kinder_bond(situation: Situation) -> int:
    """Wei by φ(1−β)·S + H ≥ (1+m)·g·(1/q + λ·D), where β is the challenger's share, and H all that the window holds.

    What docs/economics.md says is too kind.
    """
    shares = situation.shares
    held = situation.price * situation.rate * situation.holdback
    missing = (1 + situation.margin) * gain(situation, situation.delay) - held
    return max(0, ceil(missing / (shares.slashed * (1 - shares.challenger))))


def _best(name: str, situation: Situation, runs: int) -> Iterator[Figure]:
    """Where the bond is too small: the profit of the cheat that is sure to have most, and what is computed for it."""
    found = [(*_average(situation, strategy, runs), strategy.name) for strategy in STRATEGIES if strategy.lives == 1]
    mean, width, strategy = max(found, key=lambda each: each[0] - each[1])
    yield Figure(f"{name}.{strategy}", mean, "prices", None, None, runs)
    yield Figure(f"{name}.{strategy}.at_least", mean - width, "prices", 0, mean - width > 0, runs)
    yield Figure(f"{name}.computed", best_cheat(situation)[0] / PRICE, "prices", None, None, 1)


def _average(situation: Situation, strategy: Strategy, runs: int) -> tuple[float, float]:
    random = Random(f"{SEED} {strategy.name}")
    mean, width = average([profit(situation, strategy, random) for _ in range(runs)])
    return mean / PRICE, width / PRICE
