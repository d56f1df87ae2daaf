"""A gateway that knows many providers by their signed records, and keeps many receipts: for tests and benchmarks."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from sqlalchemy import insert
from tests.apps.window.browser import TOKEN, in_thread
from tests.network.discovery.kit import endpoint
from tests.running import running
from tests.tiny import PROFILE, tiny_bundle, tiny_key, tiny_request
from typing_extensions import override

from assay.apps.discovering import Discoveries
from assay.apps.doubting import Doubts
from assay.apps.gateway import gateway_app
from assay.apps.logs import Recent
from assay.apps.metrics import DiscoveryMetrics, Metrics
from assay.apps.standing import Standing, Tell
from assay.apps.window.owner import Owner
from assay.apps.window.sources import Upkeep
from assay.apps.window.window import Window
from assay.core.hashing import Digest
from assay.core.keys import Address, Key
from assay.core.offer import Defaults, Offer, Price
from assay.core.reach import WAYS, Reach, Way
from assay.core.record import ProviderRecord, sign_record, url_by_key
from assay.core.request import Level
from assay.core.verdict import Outcome
from assay.journey import MarketAnswers
from assay.market.work import Work
from assay.network.http import HttpTransport, Patience
from assay.store.database import open_database, receipts, summaries, verdicts
from assay.store.receipts import ReceiptStore

MODELS: Final = ("smollm2-135m", "qwen3-0.6b", "llama-3.2-1b", "gemma-3-270m", "phi-4-mini")
REGIONS: Final = ("eu-west", "eu-north", "us-east", "ap-south", "")
LEVELS: Final[tuple[Level, ...]] = ("signed", "statistical", "pinned", "exact")
SOURCES: Final = ("lan", "registry", "peers", "https://directory.example")
OUTCOMES: Final[tuple[Outcome | None, ...]] = (None, None, None, "holds", "holds", "fails", "inconclusive")
RELAYS: Final = ("wss://relay-a.example:443", "wss://relay-b.example:443")
_BATCH: Final = 5000
_SPREAD: Final = 40 * 86_400
"""Seconds over which receipts came."""


@dataclass
class Crowd:
    """What is running."""

    url: str
    store: ReceiptStore
    market: MarketAnswers
    discoveries: Discoveries
    loop: asyncio.AbstractEventLoop


class Told(Standing):
    """What a chain would say."""

    def __init__(self, stakes: Mapping[Address, int]) -> None:
        self._told: Final = stakes

    @override
    def stakes(self) -> Mapping[Address, int]:
        """As they were told."""
        return self._told

    @override
    @asynccontextmanager
    async def running(self, tell: Tell) -> AsyncIterator[None]:
        """Tell once."""
        await tell(self._told, frozenset())
        yield


def offer(
    key: Key, model: str, level: Level, price: Price, *, region: str = "", digest: Digest = b"\x07" * 32
) -> Offer:
    """As a record carries it."""
    url = url_by_key(key.address)
    return Offer(
        key.address, url, model, digest, level, price, 4096, True, True, PROFILE.digest, "gumbel/1", region=region
    )


def record(key: Key, offers: Sequence[Offer], endpoints: Sequence[str], *, region: str = "") -> ProviderRecord:
    """Signed now, for an hour."""
    now = int(time.time())
    places = tuple(map(endpoint, endpoints))
    unsigned = ProviderRecord(key.address, 1, now, now + 3600, places, tuple(offers), 4, region, tls=b"\x05" * 32)
    return sign_record(unsigned, key)


def made_up(count: int) -> Iterator[tuple[ProviderRecord, str]]:
    """So many providers and their sources, the same ones each time."""
    dice = np.random.default_rng(20261126)
    for number in range(1, count + 1):
        key, region = tiny_key(number), REGIONS[int(dice.integers(len(REGIONS)))]
        price = Price(int(dice.integers(0, 50)), int(dice.integers(0, 200)))
        models = dice.choice(len(MODELS), int(dice.integers(1, 3)), replace=False)
        offers = [
            offer(key, MODELS[model], LEVELS[int(dice.integers(4))], price, region=region, digest=bytes([model] * 32))
            for model in models.tolist()
        ]
        ways = ("http://93.184.216.34:8100", RELAYS[number % 2], f"iroh://{number:064x}")
        way = ways[int(dice.choice(3, p=[0.7, 0.2, 0.1]))]
        yield record(key, offers, [way], region=region), SOURCES[int(dice.integers(len(SOURCES)))]


def fill(url: str, count: int, providers: Sequence[Address], *, contents: bool) -> None:
    """Put so many receipts into a database, with verdicts on some; `contents`: with whole bundles, as large as those of
    short answers."""
    engine, dice = open_database(url), np.random.default_rng(7)
    bundle = tiny_bundle(tiny_request("hello", max_tokens=8), tiny_key(), 1).encode() if contents else b""
    newest = int(time.time())
    with engine.begin() as connection:
        for begin in range(1, count + 1, _BATCH):
            rows = [
                _row(number, count, newest, providers, dice) for number in range(begin, min(begin + _BATCH, count + 1))
            ]
            connection.execute(insert(summaries), rows)
            kept = ("digest", "name", "provider", "kept")
            shared: Mapping[str, object] = {"bundle": bundle}
            connection.execute(
                insert(receipts),
                [
                    {**{name: row[name] for name in kept}, "call": row["name"], "sequence": row["id"], **shared}
                    for row in rows
                ],
            )
            same = ("provider", "level", "outcome")
            judged = [
                {**{name: row[name] for name in same}, "receipt": row["digest"], "basis": "test", "body": "{}"}
                for row in rows
                if row["outcome"]
            ]
            connection.execute(insert(verdicts), judged)
    engine.dispose()


def _row(
    number: int, count: int, newest: int, providers: Sequence[Address], dice: np.random.Generator
) -> dict[str, object]:
    return {
        "id": number,
        "kept": newest - (count - number) * _SPREAD // count,
        "name": f"{number:064x}",
        "digest": hashlib.sha256(b"%d" % number).hexdigest(),
        "provider": providers[int(dice.integers(len(providers)))],
        "model": bytes([int(dice.integers(len(MODELS)))] * 32).hex(),
        "level": LEVELS[int(dice.choice(4, p=[0.5, 0.3, 0.15, 0.05]))],
        "prompt": int(dice.integers(1, 2000)),
        "output": int(dice.integers(1, 500)),
        "amount": str(int(dice.integers(0, 10**6)) * 10 ** int(dice.integers(0, 13))).zfill(39),
        "outcome": OUTCOMES[int(dice.integers(len(OUTCOMES)))],
    }


def seen(market: MarketAnswers, offers: Sequence[Offer], now: float) -> None:
    """These have answered."""
    dice = np.random.default_rng(3)
    for each in offers:
        for _ in range(int(dice.integers(1, 6))):
            market.router.asked(each)
            market.router.first(each, Work(100, 100), float(dice.lognormal(-1, 0.6)), now)
            market.router.wrote(each, 100, float(dice.lognormal(1, 0.6)), now)
            market.router.good(each, now)
            market.router.over(each)


@contextmanager
def crowd(
    root: Path,
    records: Sequence[tuple[ProviderRecord, str]],
    *,
    receipts: int = 0,
    contents: bool = False,
    known: Mapping[str, Digest] | None = None,
    defaults: Defaults | None = None,
    ways: Sequence[Way] = WAYS,
    stakes: Mapping[Address, int] | None = None,
) -> Iterator[Crowd]:
    """The gateway, in a thread; each third provider has answered."""
    database = f"sqlite:///{root / 'crowd.db'}"
    if receipts:
        ReceiptStore(database).close()
        fill(database, receipts, [each.provider for each, _ in records], contents=contents)

    @asynccontextmanager
    async def servers() -> AsyncIterator[Crowd]:
        metrics, store = Metrics(), ReceiptStore(database)
        discoveries = Discoveries([], DiscoveryMetrics(metrics.registry))
        for each, source in records:
            discoveries.finder.heard(each.encode(), source, Reach.PUBLIC)
        transport = HttpTransport((), patience=Patience(connect=0.5), book=discoveries.book, ways=ways)
        market = MarketAnswers(transport, store, known=known, defaults=defaults)
        seen(market, [offer for each, _ in records[::3] for offer in each.offers], time.monotonic())
        upkeep = Upkeep(root / "home", tiny_key(50).address, {}, Recent())
        window = Window(Owner(TOKEN), loopback=True, upkeep=upkeep)
        app = gateway_app(
            market, store, close=transport.aclose, metrics=metrics, discoveries=discoveries, window=window, ways=ways,
            doubts=Doubts(),
            standing=None if stakes is None else Told(stakes),
        )  # fmt: skip
        async with running(app, drain=market.drain) as url:
            yield Crowd(url, store, market, discoveries, asyncio.get_running_loop())

    with in_thread(servers()) as found:
        yield found
