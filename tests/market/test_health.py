"""What a buyer remembers, and what verdicts do to the next choice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.market.test_matching import ASK, address, offer

from assay.core.errors import Busy, NoProvider
from assay.core.offer import Ask, Offer
from assay.core.request import LEVELS, Level
from assay.market.health import DOUBT, LONGEST_REST, REST_SECONDS, Health, Machine, Record, audit_share
from assay.market.matching import Catalogue
from assay.market.routing import Router
from assay.market.work import Work


def chosen(ask: Ask, *offers: Offer, health: Health, now: float = 0.0) -> list[int]:
    """Numbers of the providers on the shortlist, in order."""
    router = Router(np.random.default_rng(1), health)
    router.use(Catalogue(offers))
    return [int(each.offer.provider, 16) for each in router.shortlist(ask, Work(100, 100), now)]


def test_proof_of_cheating_leaves_a_provider_out_even_if_it_is_named() -> None:
    """One receipt that is proof is enough."""
    health = Health()
    health.judged([(address(1), "pinned", "fails", "exact", 1), (address(1), "pinned", "holds", "exact", 99)], [])
    assert chosen(ASK, offer(1), offer(2, price=9), health=health) == [2]
    with pytest.raises(NoProvider, match="caught cheating"):
        chosen(Ask("tiny", "pinned", only=(address(1),)), offer(1), offer(2), health=health)


def test_a_history_that_failed_is_proof_enough() -> None:
    """Statistical checks of several answers together decide; nobody is slashed, but the next choice is another."""
    health = Health()
    health.judged(
        [(address(1), "statistical", "fails", "history", 1), (address(1), "statistical", "holds", "test", 7)], []
    )
    assert chosen(ASK, offer(1), offer(2, price=9), health=health) == [2]


def test_two_receipts_under_one_number_are_proof() -> None:
    """Contradictions count like failed pinned checks."""
    health = Health()
    health.judged([], [address(2)])
    assert chosen(ASK, offer(1), offer(2), health=health) == [1]


@pytest.mark.parametrize("level", LEVELS)
def test_a_failure_that_no_noise_explains_is_proof_at_any_level(level: Level) -> None:
    """A statistical receipt whose prompt, stop or signature is wrong is no bad luck."""
    health = Health()
    health.judged([(address(1), level, "fails", "exact", 1), (address(1), level, "holds", "test", 99)], [])
    assert chosen(Ask("tiny", level), offer(1, level=level), offer(2, level=level), health=health) == [2]


@pytest.mark.parametrize("level", ["statistical", "pinned"])
def test_one_statistical_failure_is_a_doubt_at_any_level(level: Level) -> None:
    """Also where a pinned receipt of another machine was checked up to noise."""
    health = Health()
    health.judged([(address(1), level, "fails", "test", 1), (address(1), level, "inconclusive", "test", 20)], [])
    assert (health.of_provider[address(1)].doubts, health.of_provider[address(1)].checked) == (1, 21)
    assert not health.of_provider[address(1)].dishonest


@pytest.mark.parametrize(
    ("doubts", "checked", "out"),
    [
        (0, 0, False),
        (1, 1, False),
        (1, 50, False),
        (2, 2, True),
        (2, 100, False),
        (4, 10, True),
        (8, 100, True),
        (15, 1000, False),
        (40, 1000, True),
        (400, 10_000, True),
        (10_000, 1_000_000, False),
        (1_000_000, 1_000_000, True),
    ],
)
def test_statistical_doubts_count_only_when_they_are_too_many(doubts: int, checked: int, out: bool) -> None:
    """An honest provider fails one check in a hundred at most; only what that hardly explains leaves it out."""
    assert Record(doubts=doubts, checked=checked).dishonest is out


def test_an_honest_provider_is_not_left_out_by_looking_often() -> None:
    """One failure in a hundred, looked at after each of 1,000 checks: at most one provider in a thousand is ever out.

    The chance that the likelihood ratio ever crosses is computed exactly, over all paths that did not cross before.
    """
    alive, out = {0: 1.0}, 0.0
    for checked in range(1, 1001):
        after: dict[int, float] = {}
        for doubts, chance in alive.items():
            for more, rate in ((0, 0.99), (1, 0.01)):
                after[doubts + more] = after.get(doubts + more, 0.0) + chance * rate
        crossed = [doubts for doubts in after if Record(doubts=doubts, checked=checked).dishonest]
        out += sum(after.pop(doubts) for doubts in crossed)
        alive = after
    assert 0 < out <= DOUBT


def test_checks_that_could_not_decide_blame_nobody() -> None:
    """Inconclusive verdicts leave nobody out."""
    health = Health()
    health.judged(
        [
            (address(1), "statistical", "inconclusive", "exact", 50),
            (address(1), "pinned", "inconclusive", "exact", 50),
        ],
        [],
    )
    assert chosen(ASK, offer(1), health=health) == [1]


@pytest.mark.parametrize(
    ("held", "unclear", "basis", "order"),
    [
        (0, 2, "exact", [1, 2]),
        (0, 3, "exact", [2, 1]),
        (3, 3, "exact", [1, 2]),
        (3, 4, "exact", [2, 1]),
        (0, 9, "none", [1, 2]),
    ],
)
def test_who_cannot_be_checked_is_asked_after_those_who_can(
    held: int, unclear: int, basis: str, order: list[int]
) -> None:
    """To claim a machine that nobody here has is no free pass; that we lack the model is our own fault."""
    health = Health()
    health.judged(
        [(address(1), "pinned", "holds", "exact", held), (address(1), "pinned", "inconclusive", basis, unclear)], []
    )
    assert chosen(ASK, offer(1), offer(2, price=5), health=health) == order
    assert chosen(ASK, offer(1), health=health) == [1]
    statistical = [offer(1, level="statistical"), offer(2, level="statistical", price=5)]
    assert chosen(Ask("tiny", "statistical"), *statistical, health=health) == [1, 2]


def test_an_impostors_failures_stick_to_its_url() -> None:
    """Who claims another's address elsewhere spoils only its own place."""
    health = Health()
    health.failed("http://p2", now=0.0, badly=True)
    impostor = replace(offer(1, price=0), url="http://p2")
    router = Router(np.random.default_rng(1), health)
    router.use(Catalogue([impostor, offer(1)]))
    found = router.shortlist(ASK, Work(100, 100), 1.0)
    assert [each.offer.url for each in found] == ["http://p1", "http://p2"]


def test_only_what_the_chain_says_is_at_stake() -> None:
    """Who is not known has nothing; the next news replaces all that was known."""
    health = Health()
    ask, offers = replace(ASK, min_stake=10), (offer(1), offer(2))
    with pytest.raises(NoProvider, match=r"that has `min_stake` to lose: lower it"):
        chosen(ask, *offers, health=health)
    health.staked({address(1): 9, address(2): 10})
    assert chosen(ask, *offers, health=health) == [2]
    assert chosen(replace(ASK, min_stake=0), *offers, health=health) == [1, 2]
    health.staked({address(1): 11})
    assert chosen(ask, *offers, health=health) == [1]


def test_rests_double_and_end_with_a_good_answer() -> None:
    """Two seconds, four, eight … up to the longest; a good answer forgets them."""
    health, rests = Health(), []
    for _ in range(12):
        health.failed("u", now=100.0)
        rests.append(health.at("u").resting - 100.0)
    assert rests[:3] == [REST_SECONDS, 2 * REST_SECONDS, 4 * REST_SECONDS]
    assert rests[-1] == LONGEST_REST
    health.good("u")
    health.failed("u", now=100.0)
    assert health.at("u").resting == 100.0 + REST_SECONDS


def test_a_full_provider_rests_as_long_as_it_says_without_a_failure() -> None:
    """429 is no failure."""
    health = Health()
    health.busy("u", 100.0, Busy("full", retry_after=3))
    assert health.at("u") == Machine(resting=103.0)


def test_answers_under_way_are_counted() -> None:
    """Up when asked, down when over, never under nothing."""
    health = Health()
    health.asked("u")
    health.asked("u")
    health.over("u")
    assert (health.at("u").active, health.at("u").asked) == (1, 2)
    health.over("u")
    health.over("u")
    assert health.at("u").active == 0


def test_the_audit_share_falls_with_what_was_passed() -> None:
    """All of a new key's answers, half after one, and never less than the least."""
    assert [audit_share(passed, 0.1) for passed in (0, 1, 3, 9, 10, 10**6)] == [1, 0.5, 0.25, 0.1, 0.1, 0.1]
    assert audit_share(0, 0.0) == 1
