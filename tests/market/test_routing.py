"""Whom the router asks: whom it knows, whom it tries, what probes and refusals do, and what lies win."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.market.test_matching import ASK, address, offer
from tests.tiny import tiny_request

from assay.core.errors import Busy, ModelNotFound, NoProvider
from assay.core.offer import Ask, Load, Offer, Price, Sort
from assay.core.request import Message
from assay.market.matching import Catalogue
from assay.market.reputation import trust
from assay.market.routing import ATTEMPTS, EXPLORE, NEWCOMERS, SHORTLIST, Router
from assay.market.steps import Heard, Probe, Send
from assay.market.work import WARM_SECONDS, Work, work_of

WORK = Work(300, 100)


def router_over(*offers: Offer, seed: int = 1) -> Router:
    """A buyer that knows nobody."""
    router = Router(np.random.default_rng(seed))
    router.use(Catalogue(offers))
    return router


def serve(router: Router, by: Offer, *, first: float = 1.0, rest: float = 2.0, now: float = 0.0) -> None:
    """A provider gives a good answer, so many seconds to its first token and from there to its end."""
    router.asked(by)
    router.first(by, WORK, first, now)
    router.wrote(by, WORK.output, rest, now)
    router.good(by, now)
    router.over(by)


def numbers(router: Router, ask: Ask = ASK, work: Work = WORK, now: float = 10.0) -> list[int]:
    """Numbers of the providers on the shortlist, in order."""
    return [int(each.offer.provider, 16) for each in router.shortlist(ask, work, now)]


def firsts(router: Router, ask: Ask = ASK, work: Work = WORK, now: float = 10.0, times: int = 300) -> Mapping[int, int]:
    """How often each provider comes first."""
    found: dict[int, int] = {}
    for _ in range(times):
        number = numbers(router, ask, work, now)[0]
        found[number] = found.get(number, 0) + 1
    return found


def travel(
    router: Router, *, said: Callable[[Offer], Load | None] = lambda _: Load(0, 4), ask: Ask = ASK, dead: int = 0
) -> tuple[list[list[int]], list[int]]:
    """Who is probed, and who is asked, where every answer fails. `dead`: does not reply to probes."""
    route = router.route(ask, WORK, 10.0)
    probed, sent = list[list[int]](), list[int]()
    step = next(route, None)
    while step is not None:
        heard = Heard(10.0)
        if isinstance(step, Probe):
            probed.append([int(each.provider, 16) for each in step.offers])
            heard = Heard(10.0, {each.url: said(each) for each in step.offers if each.provider != address(dead)})
        else:
            assert isinstance(step, Send)
            sent.append(int(step.offer.provider, 16))
        try:
            step = route.send(heard)
        except StopIteration:
            break
    return probed, sent


def test_without_history_the_cheapest_comes_first() -> None:
    """Whatever the dice say."""
    for seed in range(20):
        assert numbers(router_over(offer(1, price=3), offer(2, price=1), offer(3, price=2), seed=seed)) == [2, 3, 1]


def test_equal_newcomers_take_turns() -> None:
    """None is always first; who has an answer of ours under way comes after who has none."""
    offers = [offer(number) for number in range(1, 4)]
    found = firsts(router_over(*offers))
    assert set(found) == {1, 2, 3}
    router = router_over(*offers)
    router.asked(offers[0])
    assert set(firsts(router)) == {2, 3}


@pytest.mark.parametrize("sort", ["latency", "throughput", "balance"])
def test_who_was_fast_comes_first(sort: Sort) -> None:
    """By what was seen: the first token, the pace, or both; whatever it is called."""
    slow, fast = offer(1), offer(2)
    router = router_over(slow, fast)
    for now in range(5):
        serve(router, slow, first=2.0, rest=8.0, now=now)
        serve(router, fast, first=0.5, rest=2.0, now=now)
    assert firsts(router, replace(ASK, sort=sort)).get(2, 0) > 290


@pytest.mark.parametrize(
    ("sort", "first"), [("balance", 1), ("price", 1), ("latency", 2), ("throughput", 2)], ids=lambda each: str(each)
)
def test_half_the_time_is_worth_twice_the_price(sort: Sort, first: int) -> None:
    """Balanced, a provider that takes half as long may cost not quite twice as much; `price`, `latency` and
    `throughput` look at one thing only."""
    cheap, fast = offer(1, price=100), offer(2, price=300)
    router = router_over(cheap, fast)
    for now in range(8):
        serve(router, cheap, first=1.0, rest=4.0, now=now)
        serve(router, fast, first=0.5, rest=2.0, now=now)
    assert firsts(router, replace(ASK, sort=sort)).get(first, 0) > 270


def test_what_was_seen_lately_counts() -> None:
    """A fast machine that has become slow is passed over after a few answers."""
    turned, steady = offer(1), offer(2)
    router = router_over(turned, steady)
    for now in range(20):
        serve(router, turned, first=0.5, now=now)
        serve(router, steady, first=1.0, now=now)
    ask = replace(ASK, sort="latency")
    assert firsts(router, ask, now=20.0).get(1, 0) > 290
    for now in range(20, 24):
        serve(router, turned, first=4.0, now=now)
    assert firsts(router, ask, now=24.0).get(2, 0) > 250


def test_a_short_prompt_says_little_about_reading() -> None:
    """Who answered short prompts at once is not taken to be fast with long ones: who read a long one quickly is."""
    near, strong = offer(1), offer(2)
    router = router_over(near, strong)
    for now in range(6):
        for by, work, seconds in ((near, Work(5, 9), 0.1), (strong, Work(4000, 9), 1.0)):
            router.asked(by)
            router.first(by, work, seconds, now)
            router.good(by, now)
            router.over(by)
    assert firsts(router, replace(ASK, sort="latency"), Work(4000, 100)).get(2, 0) > 280


def test_newcomers_come_after_known_ones_but_for_a_bounded_share() -> None:
    """However cheap they are and many: keys made up by the thousand win a share EXPLORE of the first tries in all."""
    known = offer(1, price=5)
    router = router_over(known, *(offer(number) for number in range(2, 2000)))
    serve(router, known)
    times = 2000
    found = firsts(router, times=times)
    assert found[1] / times == pytest.approx(1 - EXPLORE, abs=0.015)
    assert max(count for number, count in found.items() if number != 1) < 10


@pytest.mark.parametrize("pause", [0.0, 400.0])
def test_an_eclipse_by_sybils_is_bounded(pause: float) -> None:
    """Nine keys in ten ask for nothing and give nothing. However slowly a buyer asks, so that nobody rests any more,
    each of them fails it once at most until all honest ones have been tried; then these come first."""
    honest = [offer(number, price=5) for number in range(1, 5)]
    router = router_over(*honest, *(offer(number, price=0) for number in range(5, 41)))
    failures, now = 0, 10.0
    for _ in range(60):
        now += pause
        for each in router.shortlist(ASK, WORK, now):
            router.asked(each.offer)
            if each.offer in honest:
                serve(router, each.offer, now=now)
                break
            router.failed(each.offer, now)
            router.over(each.offer, begun=False)
            failures += 1
    assert failures <= 36 + 10
    assert sum(firsts(router, now=now, times=1000).get(number, 0) for number in range(1, 5)) > 950


def test_a_newcomer_that_is_dearer_is_not_tried_first() -> None:
    """Finding out about providers costs the buyer no money; one that looks for speed pays what is fast."""
    known = offer(1, price=5)
    router = router_over(known, *(offer(number, price=6) for number in range(2, 50)))
    serve(router, known)
    assert firsts(router) == {1: 300}
    assert len(firsts(router, replace(ASK, sort="latency"), times=1000)) > 1


def test_long_prompts_go_to_known_providers() -> None:
    """Where much is at stake nothing is tried out."""
    known = offer(1)
    router = router_over(known, *(offer(number) for number in range(2, 50)))
    serve(router, known)
    assert firsts(router, work=Work(5000, 100), times=1000) == {1: 1000}


def test_the_shortlist_is_short_and_has_newcomers() -> None:
    """SHORTLIST offers of thousands; where many are known, NEWCOMERS of them are not."""
    offers = [offer(number) for number in range(1, 3000)]
    router = router_over(*offers)
    assert len(numbers(router)) == SHORTLIST
    for by in offers[:1000]:
        serve(router, by)
    found = numbers(router)
    assert len(set(found)) == SHORTLIST
    assert sum(number > 1000 for number in found) == NEWCOMERS


def test_who_rests_comes_last_and_is_still_there() -> None:
    """After a failure, or while it is full."""
    offers = [offer(number) for number in range(1, 5)]
    router = router_over(*offers)
    for _ in range(3):
        serve(router, offers[0])
    router.failed(offers[0], 10.0)
    router.busy(offers[1], 10.0, Busy("full", retry_after=5))
    assert set(numbers(router, now=10.0)[2:]) == {1, 2}
    assert set(numbers(router, now=16.0)[:1]) == {1}


def test_who_fails_often_loses_its_place() -> None:
    """Five failures after a good answer: it is a newcomer again, until some time has passed."""
    bad, good = offer(1), offer(2)
    router = router_over(bad, good)
    for by in (bad, good):
        serve(router, by)
    for _ in range(5):
        router.failed(bad, 0.0)
    assert firsts(router, now=40.0)[2] > 280
    assert firsts(router, now=1000.0)[1] > 50


def test_a_good_audit_record_is_worth_half_the_price() -> None:
    """Of newcomers and of known ones, and where only time counts as much time; the cheapest stays the cheapest."""
    cheap, dear = offer(1, price=10), offer(2, price=19)
    router = router_over(cheap, dear)
    assert numbers(router) == [1, 2]
    router.health.trust = {dear.provider: 0.99}
    assert numbers(router) == [2, 1]
    assert numbers(router, replace(ASK, sort="price")) == [1, 2]
    router.health.trust = {dear.provider: 0.5, cheap.provider: 0.01}
    assert numbers(router) == [1, 2]
    for now in range(8):
        serve(router, cheap, now=now)
        serve(router, dear, now=now)
    assert firsts(router).get(2, 0) < 60
    router.health.trust = {dear.provider: 0.99}
    assert firsts(router, replace(ASK, sort="latency")).get(2, 0) > 240


def test_a_new_key_begins_at_the_bottom() -> None:
    """Whose record is bad gains nothing by another name: it is behind all that passed a check, at the same price."""
    offers = [offer(number) for number in range(1, 5)]
    router = router_over(*offers)
    router.health.judged(
        [(address(n), "pinned", "holds", "exact", n) for n in (1, 2)] + [(address(3), "pinned", "fails", "exact", 1)],
        [],
    )
    router.health.trust = {name: float(of) for name, of in trust([], {}, {address(1): 1, address(2): 2}).items()}
    assert numbers(router) == [2, 1, 4]


def test_order_comes_before_all_that_is_known() -> None:
    """Named ones first, in their order, known or not, even if they rest."""
    offers = [offer(number) for number in range(1, 400)]
    router = router_over(*offers)
    for by in offers[:100]:
        serve(router, by)
    router.failed(offers[299], 10.0)
    ask = replace(ASK, order=("http://p300/", address(7)))
    assert numbers(router, ask)[:2] == [300, 7]
    assert travel(router, ask=ask)[1][:2] == [300, 7]


def test_three_are_probed_and_the_one_with_room_is_asked() -> None:
    """The full ones come after all others; nobody is probed twice."""
    router = router_over(*(offer(number, price=number) for number in range(1, 7)))
    full = {1, 2, 4}
    probed, sent = travel(router, said=lambda each: Load(4 if int(each.provider, 16) in full else 0, 4))
    assert probed == [[1, 2, 3], [4, 5, 6]]
    assert sent == [3, 5, 6, 1, 2, 4]


def test_of_those_with_room_the_idle_one_is_asked_first() -> None:
    """At the same price."""
    router = router_over(*(offer(number) for number in range(1, 4)))
    _, sent = travel(router, said=lambda each: Load(4 - int(each.provider, 16), 8))
    assert sent == [3, 2, 1]


def test_who_does_not_reply_is_asked_last_and_rests() -> None:
    """One that does not say how busy it is, is asked all the same."""
    router = router_over(*(offer(number, price=number) for number in range(1, 4)))
    _, sent = travel(router, said=lambda _: None, dead=1)
    assert sent == [2, 3, 1]
    assert router.health.at("http://p1").failures == 1


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_are_not_probed(count: int) -> None:
    """A question costs more there than it brings."""
    assert travel(router_over(*(offer(number) for number in range(count))))[0] == []


def test_who_has_just_had_room_is_not_probed() -> None:
    """It gave an answer a moment ago; later it is probed."""
    offers = [offer(number, price=number) for number in range(1, 5)]
    router = router_over(*offers)
    serve(router, offers[0], now=9.9)
    step = next(router.route(ASK, WORK, 10.0))
    assert isinstance(step, Send)
    assert step.offer == offers[0]
    assert isinstance(next(router.route(ASK, WORK, 20.0)), Probe)


def test_when_a_shortlist_has_failed_there_is_another_one() -> None:
    """Up to a bound; nobody is asked twice."""
    router = router_over(*(offer(number) for number in range(1000)))
    _, sent = travel(router)
    assert ATTEMPTS <= len(sent) < ATTEMPTS + SHORTLIST
    assert len(set(sent)) == len(sent)


def test_without_fallbacks_one_is_asked() -> None:
    """`allow_fallbacks: false`."""
    assert len(travel(router_over(*map(offer, range(9))), ask=replace(ASK, allow_fallbacks=False))[1]) == 1


def test_wishes_that_leave_nobody_are_named() -> None:
    """Before anything is sent."""
    router = router_over(offer(1, price=5))
    with pytest.raises(NoProvider, match="within `max_price`"):
        router.route(replace(ASK, max_price=Price(1, 1)), WORK, 0.0)
    with pytest.raises(ModelNotFound):
        router.route(replace(ASK, model="huge"), WORK, 0.0)


def test_a_conversation_goes_on_where_it_was() -> None:
    """A longer conversation with the same beginning is drawn to who served that, unless it is busy or long ago."""
    turn = tiny_request("what is there to say about this? " * 100)
    longer = replace(turn, messages=(*turn.messages, Message("assistant", "much"), Message("user", "go on")))
    one, other = offer(1), offer(2)
    router = router_over(one, other)
    for now in range(3):
        for by in (one, other):
            serve(router, by, first=0.5, now=now)
    router.first(one, work_of(turn), 0.6, 3.0)
    ask = replace(ASK, sort="latency")
    assert firsts(router, ask, work_of(longer)).get(1, 0) > 290
    assert firsts(router, ask, work_of(longer), now=4.0 + WARM_SECONDS).get(1, 0) < 280
    router.asked(one)
    assert firsts(router, ask, work_of(longer)).get(1, 0) < 200


def test_offers_come_and_go_and_history_stays() -> None:
    """A provider that comes back is known."""
    one, other = offer(1), offer(2)
    router = router_over(one, other)
    serve(router, one)
    router.use(Catalogue([other]))
    assert numbers(router) == [2]
    router.use(Catalogue([other, one]))
    assert numbers(router) == [1, 2]


def test_a_retry_after_without_end_is_bounded() -> None:
    """A provider decides how long it is left alone, up to five minutes."""
    router = router_over(offer(1))
    router.busy(offer(1), 0.0, Busy("full", retry_after=10**9))
    assert router.health.at("http://p1").resting == 300.0


EVENTS = st.lists(st.tuples(st.sampled_from(["good", "failed", "busy", "asked", "over", "gone"]), st.integers(1, 30)))


@settings(max_examples=60, deadline=None)
@given(EVENTS, st.sets(st.integers(1, 30), max_size=30), st.integers(0, 2**32))
def test_whatever_happened_the_shortlist_fits_and_loses_nobody_of_few(
    events: list[tuple[str, int]], ignored: set[int], seed: int
) -> None:
    """Up to SHORTLIST different offers, all of them among those that fit; of fewer, each one."""
    offers = {number: offer(number, price=number) for number in range(1, 31)}
    router = router_over(*offers.values(), seed=seed)
    for now, (what, number) in enumerate(events):
        by = offers[number]
        if what == "good":
            serve(router, by, now=now)
        elif what == "failed":
            router.failed(by, now)
        elif what == "busy":
            router.busy(by, now, Busy("full"))
        elif what == "asked":
            router.asked(by)
        elif what == "over":
            router.over(by)
        else:
            router.use(Catalogue([each for each in offers.values() if each is not by]))
    listed = {int(each.provider, 16) for pool in router.catalogue.pools.values() for each in pool.offers}
    fit = listed - ignored
    ask = replace(ASK, ignore=tuple(f"http://p{number}" for number in ignored))
    if not fit:
        with pytest.raises(NoProvider):
            router.shortlist(ask, WORK, 100.0)
        return
    found = numbers(router, ask, now=100.0)
    assert len(found) == len(set(found)) == min(len(fit), SHORTLIST)
    assert set(found) <= fit


def patience(router: Router, ask: Ask, waiting: Set[str] = frozenset()) -> float:
    """Of the first answer that is asked for; `waiting`: of the second one, while these are waited for."""
    route = router.route(ask, WORK, 10.0)
    step = next(route)
    if waiting:
        step = route.send(Heard(10.0, late=waiting))
    assert isinstance(step, Send)
    return step.patience


def test_a_second_one_is_asked_when_first_tokens_mostly_came_sooner() -> None:
    """As far as was seen of that provider, prompt and pool: sooner where the ask wants it, and never a third one."""
    one, other = offer(1), offer(2)
    router = router_over(one, other)
    for now in range(300):
        serve(router, one, first=1.0 if now % 10 else 1.5, now=now / 30)
    sooner, later = (patience(router, replace(ASK, hedge=hedge, order=(one.provider,))) for hedge in (True, None))
    assert 1.2 < sooner <= later < 2.0
    assert patience(router, replace(ASK, hedge=False)) == float("inf")
    assert patience(router, replace(ASK, hedge=True), {one.url}) == float("inf")
    for now in range(300):
        serve(router, one, first=1.0 if now % 10 else 4.0, now=now / 30)
    assert patience(router, replace(ASK, hedge=True, order=(one.provider,))) > 2 * sooner


def test_who_was_late_is_slow_for_a_while() -> None:
    """Nobody knows how late it would have been: what is known is that it was later than that."""
    late, other = offer(1), offer(2)
    router = router_over(late, other)
    for now in range(5):
        serve(router, late, first=0.5, now=now)
        serve(router, other, first=0.6, now=now)
    ask = replace(ASK, sort="latency")
    assert firsts(router, ask).get(1, 0) > 200
    router.late(late, WORK, 1.5, 10.0)
    assert firsts(router, ask).get(2, 0) > 290
    assert firsts(router, ask, now=1000.0).get(1, 0) > 100
