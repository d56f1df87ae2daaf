"""What reports of others can move, and what they cannot: Sybils, liars, new names."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from assay.market.reputation import NEWCOMER, WHOLE, Recheck, Report, trust

RECHECKS: list[Recheck] = ["holds", "not made"]
ADDRESSES = st.integers(1, 6).map(lambda number: f"0x{number:040x}")
REPORTS = st.lists(
    st.builds(
        Report,
        reporter=ADDRESSES,
        provider=st.integers(101, 104).map(lambda number: f"0x{number:040x}"),
        receipt=st.integers(0, 9).map(lambda number: bytes([number]) * 32),
        good=st.booleans(),
        recheck=st.sampled_from(RECHECKS),
    ),
    max_size=40,
)
STAKES = st.dictionaries(ADDRESSES, st.integers(0, 10**19))


def report(number: int, *, reporter: str = "r", provider: str = "p", good: bool = True) -> Report:
    """On receipt `number`, checked again."""
    return Report(reporter, provider, number.to_bytes(32, "big"), good, "holds")


def of(reports: list[Report], stakes: dict[str, int], provider: str = "p") -> Fraction:
    """The trust in one provider."""
    return trust(reports, stakes).get(provider, Fraction(0))


@given(REPORTS, STAKES, st.randoms())
def test_everybody_computes_the_same(reports: list[Report], stakes: dict[str, int], dice: object) -> None:
    """In any order, and however often a thing is said; all is from 0 to 1."""
    again = reports + reports[:3]
    dice.shuffle(again)  # type: ignore[attr-defined]
    found = trust(reports, stakes)
    assert trust(again, stakes) == found
    assert all(0 <= each < 1 for each in found.values())


@given(REPORTS, STAKES, REPORTS)
def test_reports_without_a_stake_move_nothing(
    reports: list[Report], stakes: dict[str, int], others: list[Report]
) -> None:
    """However many keys say it."""
    unstaked = [replace(each, reporter="0x" + "9" * 39 + each.reporter[-1]) for each in others]
    before, after = trust(reports, stakes), trust(reports + unstaked, stakes)
    assert {name: value for name, value in after.items() if value} == {name: v for name, v in before.items() if v}


@given(st.lists(st.integers(0, 10**18), min_size=1, max_size=12), st.integers(1, 50))
def test_dividing_a_stake_over_many_keys_wins_nothing(stakes: list[int], each: int) -> None:
    """All that several keys can lend is what they have at stake together."""
    keys = {f"k{number}": stake for number, stake in enumerate(stakes)}
    reports = [report(100 * n + i, reporter=key) for n, key in enumerate(keys) for i in range(each)]
    total = sum(stakes)
    assert of(reports, keys) <= Fraction(total, total + NEWCOMER)


def test_one_stake_is_not_lent_to_many_providers_in_full() -> None:
    """A reporter that praises a thousand keys lends each a thousandth of its stake."""
    stakes = {"r": 10 * WHOLE}
    alone = of([report(number) for number in range(10)], stakes)
    crowd = [report(number, provider=f"p{other}") for number in range(10) for other in range(1000)]
    assert alone == Fraction(1, 2)
    assert of(crowd, stakes, "p7") < Fraction(1, 900)


@given(REPORTS, STAKES)
def test_a_false_answer_that_was_checked_costs_more_than_a_good_one_brings(
    reports: list[Report], stakes: dict[str, int]
) -> None:
    """One more bad verdict never raises trust, and one by somebody new with a stake lowers it."""
    found = trust(reports, stakes)
    for provider, value in found.items():
        bad = report(99, reporter="new", provider=provider, good=False)
        after = of([*reports, bad], {**stakes, "new": WHOLE}, provider)
        assert after < value or value == 0


def test_own_checks_need_no_stake() -> None:
    """They count whole, and others' bad verdicts against them."""
    assert trust([], {}, {"p": 10, "q": 0}) == {"p": Fraction(1, 2)}
    bad = report(1, good=False)
    assert trust([bad], {}, {"p": 10})["p"] == Fraction(1, 2)
    assert trust([bad], {"r": WHOLE}, {"p": 10})["p"] == Fraction(10, 120)


def test_who_lies_is_not_heard() -> None:
    """Evidence that does not hold here, or two verdicts on one receipt: all that the reporter says is left out."""
    good = [report(number) for number in range(10)]
    stakes = {"r": 100 * WHOLE}
    assert of(good, stakes) == Fraction(1, 2)
    assert of([*good, replace(report(11, provider="q", good=False), recheck="fails")], stakes) == 0
    assert of([*good, report(3, good=False)], stakes) == 0


def test_nobody_praises_itself() -> None:
    """Whatever it has at stake."""
    assert of([report(number, reporter="p") for number in range(10)], {"p": 100 * WHOLE}) == 0


def test_evidence_that_was_not_checked_counts_a_tenth() -> None:
    """Until it is."""
    reports = [replace(report(number), recheck="not made") for number in range(100)]
    assert of(reports, {"r": 100 * WHOLE}) == Fraction(1, 2)
    assert of([report(number) for number in range(100)], {"r": 100 * WHOLE}) == Fraction(10, 11)


def test_a_new_name_is_worth_no_more_than_a_bad_one_ever_was() -> None:
    """Whitewashing brings nothing that it did not have: it begins at 0."""
    stakes = {"r": 100 * WHOLE}
    bad = of([*(report(number) for number in range(50)), report(99, good=False)], stakes)
    assert of([], stakes, "new") == 0 <= bad < Fraction(1, 2)
