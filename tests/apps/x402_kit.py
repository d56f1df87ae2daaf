"""A client of x402 by hand, and a provider that it pays, on a chain within the process."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from tests.apps.paying_kit import HELLO, PACE, PRICE, PROVIDER, Bank
from tests.running import running
from tests.tiny import TinyEngine, tiny_key

from assay.apps.provider import provider_app
from assay.apps.serving import LocalAnswers
from assay.apps.till import Till
from assay.chain.addresses import Addresses
from assay.chain.client import ChainClient
from assay.chain.deposits import Deposits
from assay.chain.provider import EmbeddedProvider
from assay.core.deposit import RECEIVE, Authorization, TokenDomain
from assay.core.eip712 import signing_digest, struct_hash
from assay.core.hashing import Digest
from assay.core.keys import Address, Key
from assay.core.ports import Engine
from assay.core.request import LEVELS
from assay.core.voucher import TERMS, Terms, Voucher, channels_domain, sign_voucher
from assay.store.receipts import ReceiptStore
from assay.store.tabs import TabStore

PAYER = tiny_key(60)
Payload = dict[str, Any]
Change = Callable[[Payload], object]


def authorize(
    key: Key,
    token: TokenDomain,
    collector: Address,
    channel: Digest,
    amount: int,
    *,
    salt: int = 1,
    before: int = 2**63,
) -> Authorization:
    """A deposit that a payer has signed."""
    bare = Authorization(amount, 0, before, salt.to_bytes(32, "big"), bytes(65))
    members = {"from": key.address, "to": collector, "value": amount, "validAfter": 0, "validBefore": before}
    struct = struct_hash("ReceiveWithAuthorization", RECEIVE, {**members, "nonce": bare.nonce(channel)})
    return Authorization(amount, 0, before, bare.salt, key.sign(signing_digest(token.separator, struct)))


@dataclass
class Seller:
    """A provider that is paid by x402."""

    url: str
    bank: Bank
    client: ChainClient
    deposits: Deposits
    store: ReceiptStore
    tabs: TabStore
    http: httpx.AsyncClient

    def funds(self, channel: Digest) -> int:
        """In the channel."""
        return self.client.channel_state(channel).balance


@asynccontextmanager
async def seller(
    root: Path,
    bank: Bank,
    *,
    engine: Engine | None = None,
    credit: int = 0,
    parallel: int = 8,
    client: ChainClient | None = None,
    deposits: Any = None,
    **options: Any,
) -> AsyncIterator[Seller]:
    """Over one engine."""
    url = f"sqlite:///{root / 'seller.db'}"
    store, tabs, there = ReceiptStore(url), TabStore(url), client or client_of(bank, PROVIDER)
    own = Deposits(there)
    till = Till(bank.requirements(credit=credit), there, tabs, pace=PACE)
    prices = dict.fromkeys(LEVELS, PRICE)
    local = LocalAnswers([engine or TinyEngine()], PROVIDER, store, prices=prices, till=till, parallel=parallel)
    app = provider_app(local, store, PROVIDER.address, till=till, deposits=deposits or own, **options)
    async with running(app, drain=local.drain) as here, httpx.AsyncClient(trust_env=False, timeout=20) as http:
        yield Seller(here, bank, there, own, store, tabs, http)


def client_of(bank: Bank, key: Key) -> ChainClient:
    """With a collector."""
    there, client = bank.devnet.contracts, bank.client(key)
    known = Addresses(client.addresses.chain_id, there.channels, there.token, collector=there.collector)
    return ChainClient(EmbeddedProvider(bank.devnet.chain), known, key, client.outbox)


@dataclass
class Buyer:
    """Keeps what a client of x402 keeps: what was charged, and what is in its channel."""

    there: Seller
    key: Key = PAYER
    charged: int = 0
    balance: int = 0
    deposits: int = 0
    told: list[Payload] = field(default_factory=list)

    @property
    def domain(self) -> bytes:
        return channels_domain(self.there.client.addresses.chain_id, self.there.client.addresses.channels)

    @property
    def terms(self) -> Terms:
        own, they = self.key.address, PROVIDER.address
        return Terms(own, own, they, they, self.there.client.addresses.token, 900, bytes(32))

    @property
    def channel(self) -> Digest:
        return self.terms.channel(self.domain)

    async def wanted(self, **body: object) -> Payload:
        """What is wanted for a request."""
        reply = await self.post(body)
        assert reply.status_code == 402, reply.text
        return required(reply)

    async def post(self, body: dict[str, object], header: str | None = None) -> httpx.Response:
        """A chat completion."""
        heads = {} if header is None else {"payment-signature": header}
        return await self.there.http.post(f"{self.there.url}/v1/chat/completions", json=HELLO | body, headers=heads)

    def payload(self, accepts: Payload, *, deposit: int | None = None, voucher: Voucher | None = None) -> Payload:
        """What pays it; deposits ten times the price where the channel does not hold enough."""
        total = self.charged + int(accepts["amount"])
        signed = voucher or sign_voucher(self.key, self.domain, self.channel, total)
        terms = dict(zip([name for name, _ in TERMS], self.terms.values(), strict=True))
        inner: Payload = {
            "type": "voucher",
            "channelConfig": {**terms, "salt": "0x" + self.terms.salt.hex()},
            "voucher": {
                "channelId": "0x" + signed.channel.hex(),
                "maxClaimableAmount": str(signed.amount),
                "signature": "0x" + signed.signature.hex(),
            },
        }
        amount = int(accepts["extra"]["minDeposit"]) if deposit is None and total > self.balance else deposit
        if amount:
            self.deposits += 1
            there = self.there.client.addresses
            own = authorize(
                self.key, self.there.deposits.token, there.collector, self.channel, amount, salt=self.deposits
            )
            inner["type"] = "deposit"
            inner["deposit"] = {
                "amount": str(amount),
                "authorization": {
                    "erc3009Authorization": {
                        "validAfter": "0",
                        "validBefore": str(own.before),
                        "salt": "0x" + own.salt.hex(),
                        "signature": "0x" + own.signature.hex(),
                    }
                },
            }
        return {"x402Version": 2, "accepted": accepts, "payload": inner}

    async def pay(
        self, *, change: Change = lambda _payload: None, deposit: int | None = None, **body: object
    ) -> httpx.Response:
        """Ask, and pay what is wanted; `change` meddles with the payment."""
        payload = self.payload((await self.wanted(**body))["accepts"][0], deposit=deposit)
        change(payload)
        reply = await self.post(body, header(payload))
        if "payment-response" in reply.headers:
            told = read(reply.headers["payment-response"])
            self.told.append(told)
            self.charged += int(told["extra"]["chargedAmount"])
            self.balance += int(payload["payload"].get("deposit", {}).get("amount", 0))
        return reply


def header(payload: object) -> str:
    """A head."""
    return base64.b64encode(json.dumps(payload).encode()).decode()


def read(head: str) -> Payload:
    """Inverse of `header`."""
    return json.loads(base64.b64decode(head))


def required(reply: httpx.Response) -> Payload:
    """What a 402 says."""
    assert reply.status_code == 402, reply.text
    return read(reply.headers["payment-required"])
