"""Which offers are tried, in which order, and what is said when none is left."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.core.errors import ModelNotFound, NoProvider
from assay.core.offer import Ask, Defaults, Offer, Price
from assay.core.profile import SamplerKind
from assay.core.request import LEVELS, Level
from assay.market.matching import Catalogue, Sifted, choose
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


def chosen(ask: Ask, *offers: Offer) -> list[int]:
    """Numbers of the providers to try, in order."""
    return [int(o.provider, 16) for o in choose(ask, offers).offers]


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


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (
            Ask("tiny", "signed"),
            r"no provider offers 'tiny' at level 'signed' \(offered: pinned\): start one with `assay",
        ),
        (Ask("tiny", "pinned", only=("x",)), "among those in `only`: name others"),
        (Ask("tiny", "pinned", ignore=("http://p1", "http://p2")), "not in `ignore`: take one out"),
        (
            Ask("tiny", "pinned", region="us"),
            r"in the `region` \(there are some that do not say, eu-west\): name another",
        ),
        (Ask("tiny", "pinned", model_digest=b"x" * 32), r"with the file of `model_digest`: see GET /v1/models"),
        (Ask("tiny", "pinned", max_price=Price(9, 0)), r"within `max_price` \(the cheapest left asks 1 wei"),
    ],
)
def test_the_wish_that_leaves_nobody_is_named(ask: Ask, said: str) -> None:
    """With what to do about it."""
    with pytest.raises(NoProvider, match=said):
        choose(ask, [replace(offer(1), region="eu-west"), offer(2, price=3)])


@pytest.mark.parametrize(
    ("region", "found"),
    [("eu", [1, 2]), ("eu-west", [2]), ("e", []), ("eu-", []), ("", [1, 2, 3, 4]), (None, [1, 2, 3, 4])],
)
def test_a_region_takes_in_those_within_it(region: str | None, found: list[int]) -> None:
    """Whole words of its name count; who does not say is nowhere."""
    offers = [replace(offer(n), region=where) for n, where in enumerate(("eu", "eu-west", "europa", ""), 1)]
    ask = Ask("tiny", "pinned", region=region)
    if not found:
        with pytest.raises(NoProvider, match="`region`"):
            choose(ask, offers)
    else:
        assert chosen(ask, *offers) == found


def test_one_file_of_several_under_a_name() -> None:
    """`model_digest` leaves the others out."""
    offers = [offer(1), replace(offer(2), model_digest=b"m" * 32)]
    assert chosen(Ask("tiny", "pinned", model_digest=b"m" * 32), *offers) == [2]


def test_defaults_are_wished_where_an_ask_does_not_say() -> None:
    """What it says counts, empty and nought too; what is ignored is ignored for all."""
    defaults = Defaults(Price(1, 1), "eu", 10, ("x",))
    assert defaults.fill(ASK) == replace(ASK, max_price=Price(1, 1), region="eu", min_stake=10, ignore=("x",))
    own = replace(ASK, max_price=Price(9, 9), region="", min_stake=0, ignore=("y",))
    assert defaults.fill(own) == replace(own, ignore=("y", "x"))


def test_what_each_wish_leaves_is_told() -> None:
    """In their order, with some of those whom it left out; up to the one that leaves nobody."""
    pool = Catalogue([offer(number, price=number) for number in range(1, 8)]).pool(ASK)
    ask = replace(ASK, ignore=(address(7),), max_price=Price(2, 2))
    assert pool.sifted(ASK) == ()
    assert pool.sifted(ask) == (
        Sifted("ignore", address(7), 6, (address(7),)),
        Sifted("max_price", "2/2", 2, tuple(map(address, range(3, 7)))),
    )
    nobody = pool.sifted(replace(ask, region="mars"), frozenset({address(1)}))
    assert [(step.wish, step.left) for step in nobody] == [("ignore", 6), ("dishonest", 5), ("region", 0)]


def test_an_unknown_model_is_not_found() -> None:
    """With what there is."""
    with pytest.raises(ModelNotFound, match=r"'huge' \(offered: other, tiny\)"):
        choose(Ask("huge", "pinned"), [offer(1), offer(2, model="other")])
    with pytest.raises(ModelNotFound, match="offered: none"):
        choose(ASK, [])


def test_who_wants_fresh_draws_gets_no_foreign_sampler() -> None:
    """`seeded`: only samplers whose draws follow from the request's nonce."""
    offers = [offer(1, sampler="foreign"), offer(2, price=5)]
    assert chosen(ASK, *offers) == [1, 2]
    assert chosen(Ask("tiny", "pinned", seeded=True), *offers) == [2]
    with pytest.raises(NoProvider, match="seeded by the request"):
        choose(Ask("tiny", "pinned", seeded=True), offers[:1])


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
