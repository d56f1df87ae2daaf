"""Nine keys in ten belong to one attacker: the book keeps whom we know, and whom to ask is still an honest one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import pytest
from tests.market.test_routing import serve
from tests.network.discovery.kit import NOW, record
from tests.tiny import tiny_key

from assay.core.errors import RecordRefused
from assay.core.keys import Address
from assay.core.offer import Ask
from assay.core.record import ProviderRecord
from assay.market.matching import Catalogue
from assay.market.routing import Router
from assay.market.work import Work
from assay.network.discovery.book import RecordBook

HONEST, SYBILS, PLACES = 10, 400, 100
ASK, WORK = Ask("tiny", "pinned"), Work(300, 100)
WASTED = 0.04
"""Sybils that are tried for a request, on average, where enough honest providers are known."""
NAMES = {tiny_key(number).address for number in range(1, HONEST + 1)}


def sybils(round_: int, count: int = SYBILS) -> Iterator[ProviderRecord]:
    """Fresh keys each round, cheaper than all others."""
    return (record(1000 + SYBILS * round_ + number, price=0) for number in range(count))


def put(book: RecordBook, item: ProviderRecord, source: str) -> None:
    """Tell the book; it need not have room."""
    with suppress(RecordRefused):
        book.put(item, NOW, source)


def asked(router: Router, book: RecordBook, now: float) -> tuple[Address, int]:
    """Who answers, and how many Sybils were tried before: these never do."""
    router.use(Catalogue([offer for item, _ in book.entries(NOW) for offer in item.offers]))
    for tried, each in enumerate(router.shortlist(ASK, WORK, now)):
        if each.offer.provider in NAMES:
            serve(router, each.offer, now=now)
            book.pin(each.offer.provider)
            return each.offer.provider, tried
        router.asked(each.offer)
        router.failed(each.offer, now)
        router.over(each.offer, begun=False)
    return "", len(router.shortlist(ASK, WORK, now))


@pytest.mark.parametrize("sources", [("directory", "directory"), ("directory", "another")])
def test_an_eclipse_does_not_part_us_from_whom_we_know(sources: tuple[str, str]) -> None:
    """Sybils come by the thousand, with fresh keys all the time, from the same directory or one of their own: every
    provider that has served us stays in the book, and nearly every request is answered by one of them at once."""
    book, router = RecordBook(salt=bytes(16), most=PLACES), Router(np.random.default_rng(1))
    for number in range(1, HONEST + 1):
        put(book, record(number, price=5), sources[0])
    for item, _ in book.entries(NOW):
        serve(router, item.offers[-1])
        book.pin(item.provider)
    tries = []
    for round_ in range(10):
        for item in sybils(round_):
            put(book, item, sources[1])
        held = {item.provider for item, _ in book.entries(NOW)}
        assert held >= NAMES
        assert len(held - NAMES) >= 0.9 * len(held)
        for _ in range(100):
            name, tried = asked(router, book, 200.0 + 100 * round_)
            assert name in NAMES
            tries.append(tried)
    assert sum(tries) / len(tries) < WASTED


def test_an_eclipse_at_the_start_costs_each_sybil_once() -> None:
    """A gateway that knows nobody, and finds nine Sybils for each honest provider, gets its first answers after each
    Sybil that came before has failed once; honest ones are asked first from then on."""
    book, router = RecordBook(salt=bytes(16), most=PLACES), Router(np.random.default_rng(1))
    for number in range(1, HONEST + 1):
        put(book, record(number, price=5), "directory")
    for item in sybils(0, 9 * HONEST):
        put(book, item, "directory")
    answers = [asked(router, book, 1000.0 * turn) for turn in range(200)]
    empty = [name for name, _ in answers if not name]
    assert len(empty) < 10
    assert all(name in NAMES for name, _ in answers[len(empty) :])
    assert sum(tried for _, tried in answers) < 9 * HONEST + 200 * WASTED
