"""A provider and a gateway that pays it, over HTTP, with real contracts on a chain within the process."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from tests.running import running
from tests.tiny import EOG, TinyEngine, tiny_key

from assay.apps.funding import Budget, Funding
from assay.apps.gateway import gateway_app
from assay.apps.provider import Pace, provider_app
from assay.apps.serving import LocalAnswers
from assay.apps.till import Till, TillPace
from assay.apps.wallet import Wallet
from assay.apps.window.window import Window
from assay.chain.addresses import Addresses
from assay.chain.client import ChainClient
from assay.chain.devnet import CHAIN_ID, Devnet
from assay.chain.outbox import Outbox
from assay.chain.outbox import Pace as OutboxPace
from assay.chain.provider import EmbeddedProvider
from assay.core.keys import Key
from assay.core.offer import Price
from assay.core.payment import Requirements, pay_for
from assay.core.ports import Engine
from assay.core.receipt import Receipt
from assay.core.request import LEVELS, Request
from assay.core.voucher import Terms, Voucher, sign_voucher
from assay.journey import MarketAnswers
from assay.network.http import HttpTransport, Patience
from assay.network.wire import Asked, encode_request, encode_voucher
from assay.store.channels import Channel, ChannelStore
from assay.store.receipts import ReceiptStore
from assay.store.tabs import TabStore

PROVIDER, GATEWAY = tiny_key(1), tiny_key(50)
PRICE = Price(1, 2)
CREDIT = 500
QUICK = Patience(connect=1.0, reply=3.0, token=5.0, silence=3.0, farewell=1.0, refresh=0.2)
PACE = TillPace(grace=0.5, refresh=0.1)
HELLO = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 16}


def endless(delay: float = 0.0) -> TinyEngine:
    """An engine whose answers are as long as they may be."""
    engine = TinyEngine(delay=delay)
    engine.numbers._bias[EOG] = -1e9
    return engine


@dataclass
class Bank:
    """The chain."""

    devnet: Devnet
    now: list[float] = field(default_factory=lambda: [1_800_000_000.0])

    @classmethod
    def new(cls) -> Bank:
        """With contracts on it."""
        now = [1_800_000_000.0]
        return cls(Devnet(None, clock=lambda: now[0]), now)

    @property
    def addresses(self) -> Addresses:
        there = self.devnet.contracts
        return Addresses(CHAIN_ID, there.channels, there.token)

    def client(self, key: Key, path: Path | None = None) -> ChainClient:
        """Somebody's, with money."""
        self.devnet.fund(key.address)
        provider = EmbeddedProvider(self.devnet.chain)
        outbox = Outbox(path, provider, key, CHAIN_ID, confirmations=0, pace=OutboxPace(poll=0.02))
        return ChainClient(provider, self.addresses, key, outbox)

    def requirements(self, key: Key = PROVIDER, credit: int = CREDIT) -> Requirements:
        """How a provider is paid, without a vault."""
        there = self.devnet.contracts
        return Requirements(CHAIN_ID, there.channels, there.token, key.address, key.address, 900, credit)

    def pass_time(self, seconds: int) -> None:
        """Let time pass on the chain."""
        self.now[0] += seconds
        EmbeddedProvider(self.devnet.chain).make_request("evm_mine", [])  # type: ignore[arg-type]


@dataclass
class Provider:
    """One that is paid."""

    url: str
    till: Till
    tabs: TabStore
    store: ReceiptStore
    refused: list[str]


@asynccontextmanager
async def paid_provider(
    root: Path,
    bank: Bank,
    engine: Engine | None = None,
    *,
    key: Key = PROVIDER,
    credit: int = CREDIT,
    price: Price = PRICE,
    pace: TillPace = PACE,
    kind: type[LocalAnswers] = LocalAnswers,
    client: Any = None,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Provider]:
    """A provider over one engine."""
    url = f"sqlite:///{root / (key.address + '.db')}"
    refused: list[str] = []
    store, tabs = ReceiptStore(url), TabStore(url)
    till = Till(
        bank.requirements(key, credit), client or bank.client(key), tabs, pace=pace, refused=refused.append, clock=clock
    )
    local = kind([engine or TinyEngine()], key, store, prices=dict.fromkeys(LEVELS, price), till=till, parallel=8)
    app = provider_app(local, store, key.address, pace=Pace(sign_of_life=0.5), till=till)
    async with running(app, drain=local.drain) as here:
        yield Provider(here, till, tabs, store, refused)


@dataclass
class Gateway:
    """One that pays."""

    url: str
    market: MarketAnswers
    wallet: Wallet
    funding: Funding
    channels: ChannelStore
    store: ReceiptStore
    client: ChainClient
    http: httpx.AsyncClient
    events: list[tuple[str, Mapping[str, object]]]

    async def ask(self, **members: object) -> httpx.Response:
        """A chat completion in one piece."""
        return await self.http.post(f"{self.url}/v1/chat/completions", json=HELLO | members)

    @property
    def channel(self) -> Channel:
        """The only one."""
        (found,) = self.channels.known()
        return found

    def happened(self, event: str) -> list[Mapping[str, object]]:
        """What the log says of an event."""
        return [facts for name, facts in self.events if name == event]


@asynccontextmanager
async def paying_gateway(
    root: Path,
    bank: Bank,
    *urls: str,
    key: Key = GATEWAY,
    budget: Budget | None = None,
    name: str = "gateway",
    transport: Callable[..., HttpTransport] = HttpTransport,
    window: Window | None = None,
) -> AsyncIterator[Gateway]:
    """A gateway over the providers at `urls`."""
    database = f"sqlite:///{root / name}.db"
    store, channels, events = ReceiptStore(database), ChannelStore(database), []
    client = bank.client(key, root / f"{name}.outbox")
    there = transport(urls, patience=QUICK)

    def log(event: str, facts: Mapping[str, object]) -> None:
        events.append((event, facts))

    funding = Funding(client, channels, budget or Budget(10**6, 10**5, 10**4), log=log)
    wallet = Wallet(key, funding, channels, there, log=log)
    market = MarketAnswers(there, store, payer=wallet, log=log)

    async def close() -> None:
        await there.aclose()
        client.outbox.close()

    app = gateway_app(market, store, wallet=wallet, close=close, window=window)
    async with running(app, drain=market.drain) as url, httpx.AsyncClient(trust_env=False, timeout=20) as http:
        yield Gateway(url, market, wallet, funding, channels, store, client, http, events)


async def soon(found: Callable[[], Any], seconds: float = 5.0) -> Any:
    """What `found` gives as soon as it is something; fails after so many seconds."""
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, "it did not come about in time"
        await asyncio.sleep(0.02)
    return value


async def paid_up(here: Gateway, there: Provider) -> None:
    """Both sides agree, to the last wei, on what is owed and paid."""

    def agreed() -> bool:
        channel = here.channel
        kept = there.tabs.find(channel.id)
        assert kept is not None
        return kept.owed == channel.earned == channel.signed == channel.accepted == _amount(kept.voucher)

    await soon(agreed)


def _amount(voucher: Voucher | None) -> int:
    return 0 if voucher is None else voucher.amount


def claim(client: ChainClient, terms: Terms, voucher: Voucher) -> int:
    """Claim a voucher for all it allows; what the chain says is claimed then."""
    for sent in client.claim([(terms, voucher, voucher.amount)], client.outbox.new_name("claim ")):
        client.outbox.wait(sent.name, 5)
    return client.channel_state(voucher.channel).claimed


@dataclass
class Payer:
    """Somebody with a channel and a pen, who may sign and send what he likes."""

    bank: Bank
    there: Provider
    http: httpx.AsyncClient
    terms: Terms
    client: ChainClient
    key: Key = GATEWAY

    @property
    def domain(self) -> bytes:
        return self.client.domain

    @property
    def channel(self) -> bytes:
        return self.terms.channel(self.domain)

    def voucher(self, amount: int, **other: Any) -> Voucher:
        """Of the channel, or with another `key`, `domain` or `channel`."""
        values = {"key": self.key, "domain": self.domain, "channel": self.channel} | other
        return sign_voucher(values["key"], values["domain"], values["channel"], amount)

    async def pay(self, voucher: Voucher, terms: Terms | None = None) -> httpx.Response:
        """Hand in a voucher."""
        body = encode_voucher(terms or self.terms, voucher)
        return await self.http.post(f"{self.there.url}/assay/v1/vouchers", content=body)

    async def ask(
        self, request: Request, voucher: Voucher | None = None, *, pay: bool = False, **other: Any
    ) -> list[dict[str, Any]]:
        """The events of an answer; `pay`: what is due is paid. An error instead of a stream is the only event."""
        values = {"key": self.key, "terms": self.terms, "domain": self.domain} | other
        terms = values["terms"]
        payment = pay_for(values["key"], terms, terms.channel(values["domain"]), request.digest, voucher)
        body = encode_request(Asked(request, payment=None if other.get("unpaid") else payment))
        found: list[dict[str, Any]] = []
        async with self.http.stream("POST", f"{self.there.url}/assay/v1/answers", content=body) as reply:
            if reply.status_code != 200:
                return [json.loads(await reply.aread()) | {"status": reply.status_code}]
            async for line in reply.aiter_lines():
                if line.startswith("data: "):
                    found.append(json.loads(line[6:]))
                    if pay and "due" in found[-1]:
                        assert (await self.pay(self.voucher(int(found[-1]["due"])))).status_code == 204
        return found


@asynccontextmanager
async def payer(bank: Bank, there: Provider, deposit: int = 10_000, *, key: Key = GATEWAY) -> AsyncIterator[Payer]:
    """With so much in a channel."""
    client, required = bank.client(key), there.till.requirements
    terms = Terms(
        key.address, key.address, required.receiver, required.authorizer, required.token, 900, bytes(31) + b"\1"
    )
    if deposit:
        client.approve_and_deposit(terms, deposit, "deposit")
        client.outbox.wait("deposit/deposit", 5)
    async with httpx.AsyncClient(trust_env=False, timeout=20) as http:
        yield Payer(bank, there, http, terms, client, key)


def tokens(events: list[dict[str, Any]]) -> int:
    """How many came."""
    return sum("t" in event for event in events)


def receipt_of(events: list[dict[str, Any]]) -> Receipt:
    """The last event's."""
    return Receipt.from_json(events[-1]["bundle"]["receipt"])
