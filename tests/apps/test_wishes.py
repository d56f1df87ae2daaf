"""A gateway's and its clients' wishes: who is asked, and which wish is named when nobody meets them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tests.network.discovery.kit import record
from tests.running import provider, running
from tests.tiny import TinyEngine, TinyModel, tiny_key

from assay.apps.gateway import gateway_app
from assay.core.offer import Defaults
from assay.core.reach import Reach
from assay.core.request import Level
from assay.journey import MarketAnswers
from assay.network.discovery.book import RecordBook
from assay.network.http import HttpTransport
from assay.store.receipts import ReceiptStore

pytestmark = pytest.mark.anyio
WEST, EAST = tiny_key(1).address, tiny_key(2).address
LEVELS: Mapping[int, tuple[Level, ...]] = {1: ("signed",), 2: ("signed", "pinned")}


@dataclass
class Shop:
    """A gateway that has found two providers: one in `eu-west` at level `signed`, one in `us` at `pinned` too."""

    url: str
    market: MarketAnswers
    client: httpx.AsyncClient

    async def asked(self, **wishes: object) -> str:
        """Who answered, or why nobody did."""
        body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4, "assay": wishes}
        reply = (await self.client.post(f"{self.url}/v1/chat/completions", json=body)).json()
        return reply["assay"]["provider"] if "assay" in reply else reply["error"]["message"]


@asynccontextmanager
async def shop(root: Path, defaults: Defaults | None = None) -> AsyncIterator[Shop]:
    """One, with these wishes of its own."""
    async with AsyncExitStack() as stack:
        book = RecordBook(salt=b"s")
        for number, region in ((1, "eu-west"), (2, "us")):
            engine = TinyEngine(levels=LEVELS[number])
            one = await stack.enter_async_context(provider(root, engine, tiny_key(number)))
            now = time.time()
            told = record(number, issued=int(now), endpoints=(one.url,), region=region, levels=LEVELS[number], price=1)
            book.put(told, now, "test", Reach.MACHINE)
        store = ReceiptStore(f"sqlite:///{root / 'gateway.db'}")
        transport = HttpTransport((), book=book)
        market = MarketAnswers(transport, store, defaults=defaults)
        app = gateway_app(market, store, close=transport.aclose)
        url = await stack.enter_async_context(running(app, drain=market.drain))
        client = await stack.enter_async_context(httpx.AsyncClient(trust_env=False, timeout=20))
        yield Shop(url, market, client)


async def test_a_region_is_wished(tmp_path: Path) -> None:
    """By its name or the beginning of it; without a level, the strongest that is offered there is given."""
    async with shop(tmp_path) as here:
        assert await here.asked() == EAST
        assert await here.asked(region="eu") == WEST
        assert await here.asked(region="eu-west") == WEST
        assert await here.asked(region="us", level="signed") == EAST
        refused = await here.asked(region="ap", level="signed")
        assert "no provider offers 'tiny' in the `region` (there are eu-west, us)" in refused


async def test_a_stake_is_wished(tmp_path: Path) -> None:
    """What the chain says counts: nobody has anything to lose before it has said so."""
    async with shop(tmp_path) as here:
        assert "that has `min_stake` to lose" in await here.asked(min_stake=1)
        here.market.router.health.staked({WEST: 10**21, EAST: 5})
        assert await here.asked(min_stake=1) == EAST
        assert await here.asked(min_stake=6) == WEST
        assert await here.asked(min_stake=str(10**21)) == WEST
        assert "`min_stake`" in await here.asked(min_stake=str(2 * 10**21))


async def test_a_file_is_wished(tmp_path: Path) -> None:
    """Of those that are offered under the model's name."""
    async with shop(tmp_path) as here:
        assert await here.asked(model_digest=TinyModel().digest.hex()) == EAST
        assert "`model_digest`" in await here.asked(model_digest="11" * 32)


async def test_what_a_gateway_wishes_holds_for_who_says_nothing(tmp_path: Path) -> None:
    """Region and stake can be wished away; whom the gateway ignores is not asked, whoever wishes it."""
    defaults = Defaults(region="eu", min_stake=7, ignore=(EAST,))
    async with shop(tmp_path, defaults) as here:
        assert "`min_stake`" in await here.asked()
        assert await here.asked(min_stake=0) == WEST
        here.market.router.health.staked({WEST: 7})
        assert await here.asked() == WEST
        assert "`ignore`" in await here.asked(region="us", min_stake=0) or "`region`" in await here.asked(region="us")
        assert "`ignore`" in await here.asked(only=[EAST], region="", min_stake=0)
