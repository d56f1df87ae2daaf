"""Which offers are tried, in which order, and what is said when none is left."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.core.errors import Busy, ModelNotFound, NoProvider
from assay.core.offer import Ask, Offer, Price
from assay.core.profile import SamplerKind
from assay.core.request import LEVELS, Level
from assay.market.health import LONGEST_REST, REST_SECONDS, Health
from assay.market.matching import DOUBT, Record, Records, choose
from assay.market.pricing import amount_due, blended, within


def address(number: int) -> str:
    """Of provider `number`."""
    return f"0x{number:040x}"


def offer(
    number: int, *, level: Level = "pinned", price: int = 1, model: str = "tiny", sampler: SamplerKind = "gumbel/1"
) -> Offer:
    """By provider `number`."""
    costs = Price(price, price)
    url = f"http://p{number}"
    return Offer(address(number), url, model, bytes(32), level, costs, 2048, True, True, bytes(32), sampler)


ASK = Ask("tiny", "pinned")


def chosen(ask: Ask, *offers: Offer, records: Records | None = None, now: float = 0.0) -> list[int]:
    """Numbers of the providers to try, in order."""
    return [int(o.provider, 16) for o in choose(ask, offers, records=records, now=now).offers]


def test_the_cheapest_comes_first() -> None:
    """By the blended price of three prompt tokens and one output token."""
    assert chosen(ASK, offer(1, price=3), offer(2, price=1), offer(3, price=2)) == [2, 3, 1]
    assert blended(Price(2, 5)) == 11


def test_order_comes_before_price() -> None:
    """Named providers first, by address or URL, in the order named; then the others."""
    ask = Ask("tiny", "pinned", order=("http://p3/", address(1)))
    assert chosen(ask, offer(1, price=9), offer(2), offer(3, price=5)) == [3, 1, 2]


def test_only_and_ignore_leave_out() -> None:
    """Addresses in any case, URLs with or without a slash."""
    offers = [offer(10), offer(11), offer(12)]
    assert chosen(Ask("tiny", "pinned", only=(address(11).upper().replace("0X", "0x"),)), *offers) == [11]
    assert chosen(Ask("tiny", "pinned", ignore=("http://p11", address(12))), *offers) == [10]


def test_without_fallbacks_there_is_one_offer() -> None:
    """`allow_fallbacks: false` tries nobody else."""
    assert chosen(Ask("tiny", "pinned", allow_fallbacks=False), offer(1), offer(2)) == [1]


def test_who_failed_lately_is_asked_last_until_it_has_rested() -> None:
    """Resting providers are still asked when there is nobody else."""
    records = Records(of_url={"http://p1": Record(failures=1, resting_until=10.0)})
    assert chosen(ASK, offer(1), offer(2, price=5), records=records, now=9.0) == [2, 1]
    assert chosen(ASK, offer(1), offer(2, price=5), records=records, now=11.0) == [1, 2]


def test_equal_offers_take_turns() -> None:
    """Among equals: fewer answers of ours under way, then asked less often."""
    records = Records(
        of_url={"http://p1": Record(active=1), "http://p2": Record(asked=5), "http://p3": Record(asked=2)}
    )
    assert chosen(ASK, offer(1), offer(2), offer(3), records=records) == [3, 2, 1]


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (
            Ask("tiny", "signed"),
            r"no provider offers 'tiny' at level 'signed' \(offered: pinned\): start one with `assay",
        ),
        (Ask("tiny", "pinned", only=("x",)), "among those in `only`: name others"),
        (Ask("tiny", "pinned", ignore=("http://p1", "http://p2")), "not in `ignore`: take one out"),
        (Ask("tiny", "pinned", max_price=Price(9, 0)), r"within `max_price` \(the cheapest left asks 1 wei"),
    ],
)
def test_the_wish_that_leaves_nobody_is_named(ask: Ask, said: str) -> None:
    """With what to do about it."""
    with pytest.raises(NoProvider, match=said):
        choose(ask, [offer(1), offer(2, price=3)])


def test_an_unknown_model_is_not_found() -> None:
    """With what there is."""
    with pytest.raises(ModelNotFound, match=r"'huge' \(offered: other, tiny\)"):
        choose(Ask("huge", "pinned"), [offer(1), offer(2, model="other")])
    with pytest.raises(ModelNotFound, match="offered: none"):
        choose(ASK, [])


def test_proof_of_cheating_leaves_a_provider_out_even_if_it_is_named() -> None:
    """One receipt that is proof is enough."""
    health = Health()
    health.judged([(address(1), "pinned", "fails", "exact", 1), (address(1), "pinned", "holds", "exact", 99)], [])
    assert chosen(ASK, offer(1), offer(2, price=9), records=health.records) == [2]
    with pytest.raises(NoProvider, match="caught cheating"):
        choose(Ask("tiny", "pinned", only=(address(1),)), [offer(1), offer(2)], records=health.records)


def test_a_history_that_failed_is_proof_enough() -> None:
    """Statistical checks of several answers together decide; nobody is slashed, but the next choice is another."""
    health = Health()
    health.judged(
        [(address(1), "statistical", "fails", "history", 1), (address(1), "statistical", "holds", "test", 7)], []
    )
    assert chosen(ASK, offer(1), offer(2, price=9), records=health.records) == [2]


def test_two_receipts_under_one_number_are_proof() -> None:
    """Contradictions count like failed pinned checks."""
    health = Health()
    health.judged([], [address(2)])
    assert chosen(ASK, offer(1), offer(2), records=health.records) == [1]


@pytest.mark.parametrize("level", LEVELS)
def test_a_failure_that_no_noise_explains_is_proof_at_any_level(level: Level) -> None:
    """A statistical receipt whose prompt, stop or signature is wrong is no bad luck."""
    health = Health()
    health.judged([(address(1), level, "fails", "exact", 1), (address(1), level, "holds", "test", 99)], [])
    assert chosen(Ask("tiny", level), offer(1, level=level), offer(2, level=level), records=health.records) == [2]


@pytest.mark.parametrize("level", ["statistical", "pinned"])
def test_one_statistical_failure_is_a_doubt_at_any_level(level: Level) -> None:
    """Also where a pinned receipt of another machine was checked up to noise."""
    health = Health()
    health.judged([(address(1), level, "fails", "test", 1), (address(1), level, "inconclusive", "test", 20)], [])
    assert (health.records.of_provider[address(1)].doubts, health.records.of_provider[address(1)].checked) == (1, 21)
    assert not health.records.of_provider[address(1)].dishonest


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
    assert chosen(ASK, offer(1), records=health.records) == [1]


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
    assert chosen(ASK, offer(1), offer(2, price=5), records=health.records) == order
    assert chosen(ASK, offer(1), records=health.records) == [1]
    statistical = [offer(1, level="statistical"), offer(2, level="statistical", price=5)]
    assert chosen(Ask("tiny", "statistical"), *statistical, records=health.records) == [1, 2]


def test_who_wants_fresh_draws_gets_no_foreign_sampler() -> None:
    """`seeded`: only samplers whose draws follow from the request's nonce."""
    offers = [offer(1, sampler="foreign"), offer(2, price=5)]
    assert chosen(ASK, *offers) == [1, 2]
    assert chosen(Ask("tiny", "pinned", seeded=True), *offers) == [2]
    with pytest.raises(NoProvider, match="seeded by the request"):
        choose(Ask("tiny", "pinned", seeded=True), offers[:1])


def test_an_impostors_failures_stick_to_its_url() -> None:
    """Who claims another's address elsewhere spoils only its own place."""
    health = Health()
    health.failed("http://p2", now=0.0, badly=True)
    impostor = replace(offer(1, price=0), url="http://p2")
    found = choose(ASK, [impostor, offer(1)], records=health.records, now=1.0)
    assert [o.url for o in found.offers] == ["http://p1", "http://p2"]


def test_rests_double_and_end_with_a_good_answer() -> None:
    """Two seconds, four, eight … up to the longest; a good answer forgets them."""
    health, rests = Health(), []
    for _ in range(12):
        health.failed("u", now=100.0)
        rests.append(health.records.of_url["u"].resting_until - 100.0)
    assert rests[:3] == [REST_SECONDS, 2 * REST_SECONDS, 4 * REST_SECONDS]
    assert rests[-1] == LONGEST_REST
    health.good("u")
    health.failed("u", now=100.0)
    assert health.records.of_url["u"].resting_until == 100.0 + REST_SECONDS


def test_a_full_provider_rests_as_long_as_it_says_without_a_failure() -> None:
    """429 is no failure."""
    health = Health()
    health.busy("u", 100.0, Busy("full", retry_after=3))
    assert health.records.of_url["u"] == Record(resting_until=103.0)


def test_answers_under_way_are_counted() -> None:
    """Up when asked, down when over, never under nothing."""
    health = Health()
    health.asked("u")
    health.asked("u")
    health.over("u")
    assert (health.records.of_url["u"].active, health.records.of_url["u"].asked) == (1, 2)
    health.over("u")
    health.over("u")
    assert health.records.of_url["u"].active == 0


def test_amounts() -> None:
    """Nothing is due for an answer without a token."""
    assert amount_due(Price(2, 3), 10, 4) == 32
    assert amount_due(Price(2, 3), 10, 0) == 0
    assert within(Price(1, 2), Price(1, 2))
    assert within(Price(1, 2), None)
    assert not within(Price(2, 0), Price(1, 9))


offers_ = st.lists(
    st.builds(offer, st.integers(1, 6), level=st.sampled_from(LEVELS), price=st.integers(0, 5)), max_size=12
)


@given(offers_, st.sampled_from(LEVELS), st.none() | st.builds(Price, st.integers(0, 5), st.integers(0, 5)))
def test_whatever_is_chosen_fits_and_nothing_that_fits_is_lost(
    offers: list[Offer], level: Level, ceiling: Price | None
) -> None:
    """A match is exactly the offers that fit, cheapest first."""
    fit = [o for o in offers if o.level == level and within(o.price, ceiling)]
    try:
        found = choose(Ask("tiny", level, max_price=ceiling), offers).offers
    except (NoProvider, ModelNotFound):
        assert fit == []
    else:
        assert sorted(map(id, found)) == sorted(map(id, fit))
        assert [blended(o.price) for o in found] == sorted(blended(o.price) for o in fit)
