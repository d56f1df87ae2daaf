"""The official `x402` SDK, which knows nothing of Assay, pays a provider through `Channels` on a real node."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.chain.kit import CHAIN_ID, PEOPLE, Town, address, anvil, config
from tests.e2e.kit import MODEL, SAY, Place
from tests.running import running
from tests.tiny import TinyEngine

from assay.apps.provider import provider_app
from assay.apps.serving import LocalAnswers
from assay.apps.till import Till
from assay.chain.addresses import Addresses
from assay.chain.cashier import Cashier, Habits
from assay.chain.client import ChainClient
from assay.chain.contracts import artefact
from assay.chain.deposits import DEPOSIT_GAS, Deposits
from assay.chain.ethereum import Web3
from assay.chain.outbox import Outbox, Pace
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
    """A contract at an address of somebody's choice: its constructor runs there, as code that gives what to keep."""
    found = artefact(name)
    code = web3.eth.contract(abi=found.abi, bytecode=found.code).constructor(*args).data_in_transaction
    web3.provider.make_request("anvil_setCode", [where, code])
    kept = web3.eth.call({"to": where, "data": "0x"})
    web3.provider.make_request("anvil_setCode", [where, Web3.to_hex(kept)])
    return web3.eth.contract(address=where, abi=found.abi)


@dataclass
class Paid(Town):
    """A node with the contracts where the SDK looks for them, and a vault for the provider."""

    @property
    def url(self) -> str:
        return self.web3.provider.endpoint_uri

    @cached_property
    def vaults(self) -> Any:
        """Of a window of an hour."""
        return self.deploy("Vault", self.token.address, address(PEOPLE[0]), 3600)

    def client(self, key: Key) -> ChainClient:
        """The provider's."""
        known = (self.channels.address, self.token.address, self.vaults.address, COLLECTOR)
        outbox = Outbox(None, self.web3.provider, key, CHAIN_ID, confirmations=0, pace=Pace(poll=0.05))
        return ChainClient(self.web3, Addresses(CHAIN_ID, *(each.lower() for each in known)), key, outbox)


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
    client: ChainClient
    tabs: TabStore
    vault: str


@asynccontextmanager
async def provider(town: Paid, root: Path, key: Key, *, delay: float = 0.0) -> AsyncIterator[Provider]:
    """Over the tiny engine."""
    url = f"sqlite:///{root / 'provider.db'}"
    store, tabs, client = ReceiptStore(url), TabStore(url), town.client(key)
    own, vault = client.addresses, client.vault_of(key.address)
    till = Till(Requirements(CHAIN_ID, own.channels, own.token, vault, key.address, 900, 0), client, tabs)
    prices = dict.fromkeys(LEVELS, PRICE)
    local = LocalAnswers([TinyEngine(delay=delay)], key, store, prices=prices, till=till, parallel=8)
    app = provider_app(local, store, key.address, till=till, deposits=Deposits(client))
    async with running(app, drain=local.drain) as here:
        yield Provider(here, client, tabs, vault)
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
    to the last wei; and what was charged, no more, is claimed and held back in the provider's vault."""
    ada, bob = PEOPLE[1], PEOPLE[2]
    before = town.balance(ada.address)
    async with provider(town, tmp_path, bob) as there, payer(town, ada) as http:
        charged = 0
        for number in range(3):
            reply = await http.post(f"{there.url}/v1/chat/completions", json=HELLO | {"seed": number})
            assert reply.status_code == 200, reply.text
            body, told = reply.json(), settled(reply)
            price = PRICE.of(body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"])
            charged += price
            assert body["choices"][0]["message"]["content"]
            assert told["extra"]["chargedAmount"] == str(price)
            assert told["extra"]["channelState"]["chargedCumulativeAmount"] == str(charged)
            assert bool(told["transaction"]) == (number == 0)
            receipt = Bundle.decode((await http.get(f"{there.url}/receipts/{body['id']}")).content).receipt
            assert receipt.amount == charged
        deposited = before - town.balance(ada.address)
        assert town.channels.functions.channels(receipt.channel).call() == [deposited, 0]
        cashier = Cashier(there.client, there.tabs.earnings, Habits(token_wei_per_gas_wei=0))
        for _ in range(4):  # claim, settle, open the vault, collect
            cashier.step()
            while there.client.outbox.step():
                pass
        assert town.channels.functions.channels(receipt.channel).call() == [deposited, charged]
        assert there.client.vault_state(bob.address) == (charged, 0)


@pytest.mark.anyio
async def test_a_deposit_by_signature_costs_what_is_told(town: Paid, tmp_path: Path) -> None:
    """The gas, which the provider pays, is what `least_deposit` is reckoned by."""
    async with provider(town, tmp_path, PEOPLE[3]) as there, payer(town, PEOPLE[4]) as http:
        reply = await http.post(f"{there.url}/v1/chat/completions", json=HELLO)
        spent = town.web3.eth.get_transaction_receipt(settled(reply)["transaction"])["gasUsed"]
        assert DEPOSIT_GAS * 0.8 < spent <= DEPOSIT_GAS


@pytest.mark.anyio
async def test_a_client_that_has_forgotten(town: Paid, tmp_path: Path) -> None:
    """A client that has lost its state is told where its channel stands, beside a voucher of its own, and goes on by
    itself; and so is one that hung up in the middle of an answer and did not hear what that was charged."""
    from x402.http.clients.httpx import PaymentError

    url, ada = "/v1/chat/completions", PEOPLE[5]
    async with provider(town, tmp_path, PEOPLE[6], delay=0.06) as there:
        async with payer(town, ada) as http:
            assert (await http.post(there.url + url, json=HELLO)).status_code == 200
            with pytest.raises(PaymentError):
                for seed in range(50):  # until an answer is long enough
                    await http.post(there.url + url, json=HELLO | {"seed": seed}, timeout=0.3)
            await asyncio.sleep(1.0)
            reply = await http.post(there.url + url, json=HELLO)
            assert reply.status_code == 200, reply.text
        async with payer(town, ada) as http:
            reply = await http.post(there.url + url, json=HELLO)
            assert reply.status_code == 200, reply.text
        ((_, _, owed),) = there.tabs.earnings()
        assert settled(reply)["extra"]["channelState"]["chargedCumulativeAmount"] == str(owed)


@pytest.mark.anyio
async def test_an_openai_client_over_the_sdk(town: Paid, tmp_path: Path) -> None:
    """OpenAI's own library pays by it, with nothing but another HTTP client."""
    from openai import AsyncOpenAI

    async with provider(town, tmp_path, PEOPLE[7]) as there, payer(town, PEOPLE[1]) as http:
        client = AsyncOpenAI(base_url=f"{there.url}/v1", api_key="unused", http_client=http)
        reply = await client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "hello"}], max_tokens=8
        )
        assert reply.choices[0].message.content
        assert there.tabs.sums()[1] > 0


@pytest.mark.model
@pytest.mark.anyio
async def test_assay_serve(town: Paid, model_path: Path, tmp_path: Path) -> None:
    """A provider as people run it, with a real model: nothing is set but the chain and the contracts on it."""
    place = Place(tmp_path)
    made = place.assay("keys", "new", "provider")
    owner = re.search(r"0x[0-9a-f]{40}", made.stdout + made.stderr)
    assert owner is not None, made.stderr
    town.web3.provider.make_request("anvil_setBalance", [owner[0], hex(10**20)])
    chain = {
        "CHAIN_URL": town.url,
        "CHAIN_CHAIN_ID": str(CHAIN_ID),
        "CHAIN_CHANNELS": CHANNELS,
        "CHAIN_TOKEN": town.token.address,
        "CHAIN_VAULT": town.vaults.address,
        "CHAIN_COLLECTOR": COLLECTOR,
        "CHAIN_CONFIRMATIONS": "0",
        "PROVIDER_OUTPUT_PRICE_WEI": "1000000000",
    }
    settings = {f"ASSAY_{name}": value for name, value in chain.items()}
    asked = ("serve", "--model", str(model_path), "--port", "0", "--threads", "1", "--context", "320", "--json")
    with place.running("serve", *asked, **settings) as program:
        async with payer(town, PEOPLE[1]) as http:
            for _ in range(2):
                body = {"model": MODEL, "messages": SAY, "max_tokens": 8}
                reply = await http.post(f"{program.url}/v1/chat/completions", json=body)
                assert reply.status_code == 200, program.log
                charged = reply.json()["usage"]["completion_tokens"] * 10**9
                assert settled(reply)["extra"]["chargedAmount"] == str(charged)
    assert "Traceback" not in program.log
