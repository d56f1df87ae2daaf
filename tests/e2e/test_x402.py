"""The official `x402` SDK, which knows nothing of Assay, pays a provider through `Channels` on a real node."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.chain.kit import CHAIN_ID, PEOPLE, Town, anvil, config
from tests.running import running
from tests.tiny import TinyEngine

from assay.apps.provider import provider_app
from assay.apps.serving import LocalAnswers
from assay.apps.till import Till
from assay.chain.addresses import Addresses
from assay.chain.client import ChainClient
from assay.chain.contracts import artefact
from assay.chain.deposits import Deposits
from assay.chain.ethereum import Web3
from assay.chain.outbox import Outbox
from assay.core.bundle import Bundle
from assay.core.keys import Key
from assay.core.offer import Price
from assay.core.payment import Requirements
from assay.core.request import LEVELS
from assay.core.voucher import channels_domain
from assay.store.receipts import ReceiptStore
from assay.store.tabs import TabStore

pytest.importorskip("x402", reason="the SDK is not installed")
pytestmark = pytest.mark.e2e
CHANNELS = "0x4020074e9dF2ce1deE5A9C1b5c3f541D02a10003"
COLLECTOR = "0x4020806089470a89826cB9fB1f4059150b550004"
"""Where the SDK's constants say that the contracts are."""
PRICE = Price(3, 7)
HELLO = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 16}


def placed(web3: Web3, where: str, name: str, *args: Any) -> Any:
    """A contract at an address of somebody's choice: its constructor runs there, as code that gives the code to keep."""
    found = artefact(name)
    code = web3.eth.contract(abi=found.abi, bytecode=found.code).constructor(*args).data_in_transaction
    web3.provider.make_request("anvil_setCode", [where, code])
    kept = web3.eth.call({"to": where, "data": "0x"})
    web3.provider.make_request("anvil_setCode", [where, Web3.to_hex(kept)])
    return web3.eth.contract(address=where, abi=found.abi)


@dataclass
class Paid(Town):
    """A node with the contracts where the SDK looks for them, and a provider in front of it."""

    @property
    def url(self) -> str:
        return self.web3.provider.endpoint_uri

    def requirements(self, receiver: Key) -> Requirements:
        there = self.channels.address.lower()
        return Requirements(CHAIN_ID, there, self.token.address.lower(), receiver.address, receiver.address, 900, 0)

    def client(self, key: Key) -> ChainClient:
        """Of the provider."""
        token, collector = self.token.address.lower(), COLLECTOR.lower()
        outbox = Outbox(None, self.web3.provider, key, CHAIN_ID, confirmations=0)
        return ChainClient(
            self.web3,
            Addresses(CHAIN_ID, self.channels.address.lower(), token, collector=collector),
            key,
            outbox,
        )


@pytest.fixture(scope="module")
def town() -> Iterator[Paid]:
    """anvil."""
    with anvil() as web3:
        town = Paid(web3)
        town.channels = placed(web3, CHANNELS, "Channels")
        placed(web3, COLLECTOR, "Collector", CHANNELS)
        assert town.token
        yield town


@dataclass
class Provider:
    """One that is paid by x402."""

    url: str
    key: Key
    client: ChainClient
    store: ReceiptStore
    tabs: TabStore


@asynccontextmanager
async def provider(town: Paid, root: Path, key: Key, **options: Any) -> AsyncIterator[Provider]:
    """Over the tiny engine."""
    url = f"sqlite:///{root / 'provider.db'}"
    store, tabs, client = ReceiptStore(url), TabStore(url), town.client(key)
    till = Till(town.requirements(key), client, tabs)
    local = LocalAnswers([TinyEngine()], key, store, prices=dict.fromkeys(LEVELS, PRICE), till=till, parallel=8)
    app = provider_app(local, store, key.address, till=till, deposits=Deposits(client), **options)
    async with running(app, drain=local.drain) as here:
        yield Provider(here, key, client, store, tabs)
    client.outbox.close()


def payer(town: Paid, key: Key, *, sees_chain: bool = True) -> httpx.AsyncClient:
    """The SDK as its documentation uses it: an HTTP client that pays where it has to."""
    from eth_account import Account
    from x402 import x402Client
    from x402.http.clients.httpx import x402HttpxClient
    from x402.mechanisms.evm.batch_settlement.client import BatchSettlementEvmScheme
    from x402.mechanisms.evm.signers import EthAccountSigner, EthAccountSignerWithRPC

    account = Account.from_key(key.secret)
    signer = EthAccountSignerWithRPC(account, town.url) if sees_chain else EthAccountSigner(account)
    client = x402Client()
    client.set_spend_controls(False)  # they know a few tokens only
    client.register(f"eip155:{CHAIN_ID}", BatchSettlementEvmScheme(signer))
    return x402HttpxClient(client, timeout=60)


def settled(response: httpx.Response) -> dict[str, Any]:
    """What the SDK is told was charged."""
    from x402.http.utils import decode_payment_response_header

    return decode_payment_response_header(response.headers["payment-response"]).model_dump()


def test_contracts_where_the_sdk_looks(town: Paid) -> None:
    """The code at the SDK's addresses signs for these addresses: channels' ids and vouchers are those of its domain."""
    terms = town.terms(*PEOPLE[1:3])
    domain = channels_domain(CHAIN_ID, CHANNELS.lower())
    assert town.channels.functions.getChannelId(config(terms)).call() == terms.channel(domain)
    from x402.mechanisms.evm.batch_settlement.types import ChannelConfig
    from x402.mechanisms.evm.batch_settlement.utils import compute_channel_id

    theirs = ChannelConfig(*terms.values()[:6], "0x" + terms.salt.hex())
    assert compute_channel_id(theirs, f"eip155:{CHAIN_ID}") == "0x" + terms.channel(domain).hex()


@pytest.mark.anyio
async def test_a_completion_is_paid(town: Paid, tmp_path: Path) -> None:
    """The first answer opens a channel by the payer's signature alone, the next ones pay by vouchers; both sides agree
    to the last wei, and what was charged can be claimed, and no more."""
    ada, bob = PEOPLE[1], PEOPLE[2]
    before = town.balance(ada.address)
    async with provider(town, tmp_path, bob) as there, payer(town, ada) as http:
        charged = 0
        for number in range(3):
            reply = await http.post(f"{there.url}/v1/chat/completions", json=HELLO | {"seed": number})
            assert reply.status_code == 200, reply.text
            body, told = reply.json(), settled(reply)
            usage = body["usage"]
            price = PRICE.of(usage["prompt_tokens"], usage["completion_tokens"])
            charged += price
            assert body["choices"][0]["message"]["content"]
            assert told["extra"]["chargedAmount"] == str(price)
            assert told["extra"]["channelState"]["chargedCumulativeAmount"] == str(charged)
            assert bool(told["transaction"]) == (number == 0)
            receipt = Bundle.decode((await http.get(f"{there.url}/receipts/{body['id']}")).content).receipt
            assert receipt.amount == charged
        ((terms, voucher),) = there.tabs.vouchers()
    state = town.channels.functions.channels(receipt.channel).call()
    assert before - town.balance(ada.address) == state[0] > charged
    assert voucher.amount >= charged
