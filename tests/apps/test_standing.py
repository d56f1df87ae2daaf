"""What a chain says of providers decides whom a gateway asks, now and after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.chain.nodes import error
from tests.chain.test_court_client import ADA, Bench
from tests.chain.test_stakes import contradict
from tests.network.discovery.kit import until
from tests.tiny import TinyEngine, tiny_key

from assay.apps.config import Config
from assay.apps.serving import LocalAnswers
from assay.apps.standing import Standing, open_standing
from assay.core.errors import NoProvider, ProviderFailed
from assay.core.offer import Ask, Offer
from assay.journey import MarketAnswers
from assay.market.reputation import WHOLE
from assay.market.work import Work
from assay.network.memory import MemoryTransport
from assay.store.losses import LossStore
from assay.store.receipts import ReceiptStore

pytestmark = pytest.mark.anyio
OTHER = tiny_key(2)
ASK = Ask("tiny", "pinned")


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A court on a development chain."""
    made = Bench()
    yield made
    made.outbox.close()
    made.devnet.close()


@asynccontextmanager
async def market(root: Path, bench: Bench) -> AsyncIterator[MarketAnswers]:
    """Of two providers, ADA and another one, with what the court says of them."""
    url, stores = f"sqlite:///{root / 'gateway.db'}", [ReceiptStore(f"sqlite:///{root / name}.db") for name in "ab"]
    providers = {
        f"memory://{key.address}": LocalAnswers([TinyEngine()], key, kept)
        for key, kept in zip((ADA, OTHER), stores, strict=True)
    }
    store = ReceiptStore(url)
    made = MarketAnswers(MemoryTransport(providers), store)
    standing = Standing(bench.court, LossStore(url, "here"), made.models, interval=0.05, tick=0.01)
    await made.choosing.strongest(ASK)
    async with standing.running(made.told):
        yield made
    for each in (store, *stores):
        each.close()


def asked(here: MarketAnswers, ask: Ask = ASK) -> set[str]:
    """Who would be, or why nobody."""
    try:
        return {each.offer.provider for each in here.router.shortlist(ask, Work(100, 100), 0.0)}
    except NoProvider as nobody:
        return {nobody.message}


async def test_a_bond_is_seen(tmp_path: Path, bench: Bench) -> None:
    """When it comes, and when it begins to leave."""
    wish = replace(ASK, min_stake=60)
    async with market(tmp_path, bench) as here:
        assert asked(here, wish) == {"no provider offers 'tiny' that has `min_stake` to lose"}
        bench.done(bench.court.bond(100, "bond"))
        await until(lambda: asked(here, wish) == {ADA.address})
        bench.done(bench.court.unbond(41, "leave"))
        await until(lambda: ADA.address not in asked(here, wish))
        assert asked(here) == {ADA.address, OTHER.address}


async def test_stakes_of_others_are_read_too(tmp_path: Path, bench: Bench) -> None:
    """Of reporters, where nobody offers anything."""

    async def nothing() -> list[Offer]:
        raise ProviderFailed("nobody is there")

    async def told(_stakes: Mapping[str, int], _losers: frozenset[str]) -> None:
        return

    bench.done(bench.court.bond(7, "bond"))
    losses = LossStore(f"sqlite:///{tmp_path / 'gateway.db'}", "here")
    standing = Standing(bench.court, losses, nothing, others=lambda: [ADA.address], interval=60, tick=0.01)
    async with standing.running(told):
        await until(lambda: standing.stakes() == {ADA.address: 7})


async def test_who_lost_a_dispute_is_asked_no_more(tmp_path: Path, bench: Bench) -> None:
    """Over a restart too, while the chain is away: what was read is kept."""
    bench.done(bench.court.bond(2 * WHOLE, "bond"))
    async with market(tmp_path, bench) as here:
        await until(lambda: asked(here, replace(ASK, min_stake=1)) == {ADA.address})
        assert asked(here) == {ADA.address, OTHER.address}
        contradict(bench)
        await until(lambda: asked(here) == {OTHER.address})
        assert asked(here, replace(ASK, only=(ADA.address,))) == {
            "no provider offers 'tiny' that was not caught cheating"
        }
    bench.wire.rules["eth_getBlockByNumber"] = lambda _: error("away")
    with capture_logs() as logs:
        async with market(tmp_path, bench) as here:
            assert asked(here) == {OTHER.address}
            await until(lambda: any(each["event"] == "stakes_unknown" for each in logs))
            await asyncio.sleep(0.2)
    assert len([each for each in logs if each["event"] == "stakes_unknown"]) == 1


async def test_who_had_next_to_nothing_to_lose_has_lost_nothing(tmp_path: Path, bench: Bench) -> None:
    """Who does not look at the chain does not defend itself: anybody could bond a few wei for it, and wait."""
    bench.done(bench.court.bond(2 * WHOLE - 2, "a little"))
    contradict(bench)
    bench.done(bench.court.bond(3 * WHOLE, "more"))
    async with market(tmp_path, bench) as here:
        await until(lambda: asked(here, replace(ASK, min_stake=WHOLE)) == {ADA.address})
        assert asked(here) == {ADA.address, OTHER.address}
        contradict(bench, 8)
        await until(lambda: asked(here) == {OTHER.address})


def test_without_a_court_nothing_is_read() -> None:
    """Nor is anything asked."""
    with open_standing(Config(), _nobody) as found:
        assert found is None


async def _nobody() -> list[object]:
    raise AssertionError("nobody is asked")
