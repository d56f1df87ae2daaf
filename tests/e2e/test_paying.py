"""Real processes on a development chain: a gateway pays, a provider claims, and all sums agree to the last wei."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.kit import MODEL, SAY, Place, Program, openai, until
from tests.running import free_port

from assay.chain.addresses import Addresses
from assay.chain.client import ChainClient
from assay.chain.node import HttpProvider
from assay.chain.outbox import Outbox
from assay.core.keys import Key
from assay.core.receipt import Receipt
from assay.store.channels import Channel, ChannelStore
from assay.store.receipts import ReceiptStore
from assay.store.tabs import TabStore

pytestmark = [pytest.mark.e2e, pytest.mark.model]
PRICES = {"ASSAY_PROVIDER_PROMPT_PRICE_WEI": "3", "ASSAY_PROVIDER_OUTPUT_PRICE_WEI": "7"}
CREDIT = 400
"""Wei: an answer of 40 tokens needs a voucher on the way."""
QUICK = {"ASSAY_CHAIN_LOOK_SECONDS": "0.5"}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A machine of the test's own."""
    return Place(tmp_path)


@contextmanager
def chain(place: Place, port: int = 0) -> Iterator[Program]:
    """A development chain."""
    with place.running("devnet", "devnet", "--port", str(port), "--json") as program:
        yield program


@contextmanager
def provider(place: Place, model: Path, url: str, port: int = 0, **more: str) -> Iterator[Program]:
    """A provider that is paid."""
    args = ("serve", "--port", str(port), "--json", "--threads", "1", "--context", "512", "--model", str(model))
    with place.running("provider", *args, "--chain", url, **(PRICES | QUICK | more)) as program:
        yield program


@contextmanager
def gateway(place: Place, url: str, *providers: str, **more: str) -> Iterator[Program]:
    """A gateway that pays."""
    named = [part for each in providers for part in ("--provider", each)]
    with place.running("gateway", "gateway", "--port", "0", "--json", "--chain", url, *named, **more) as program:
        yield program


@contextmanager
def stranger(url: str) -> Iterator[ChainClient]:
    """Somebody who only looks at the chain."""
    there, key = Addresses.fetch(url), Key.from_secret(bytes(31) + b"\7")
    with closing(HttpProvider(url)) as node, closing(Outbox(None, node, key, there.chain_id)) as outbox:
        yield ChainClient(node, there, key, outbox)


def channels(place: Place) -> list[Channel]:
    """As the gateway's database has them."""
    store = ChannelStore(f"sqlite:///{place.root / 'gateway' / 'gateway.sqlite3'}")
    try:
        return list(store.known())
    finally:
        store.close()


def tab(place: Place, channel: Channel) -> tuple[int, int]:
    """What a channel owes and what its best voucher allows, as the provider's database has it."""
    store = TabStore(f"sqlite:///{place.root / 'provider' / 'provider.sqlite3'}")
    try:
        kept = store.find(channel.id)
        assert kept is not None
        return kept.owed, 0 if kept.voucher is None else kept.voucher.amount
    finally:
        store.close()


def ask(url: str, **more: Any) -> Receipt:
    """The receipt of a short answer, by the official client."""
    with openai(url) as client:
        reply = client.chat.completions.create(model=MODEL, messages=SAY, max_tokens=5, **more)  # type: ignore[arg-type]
    assert reply.model_extra is not None
    (receipt,) = reply.model_extra["assay"]["receipts"]
    return Receipt.from_json(receipt)


def metrics(url: str) -> Mapping[str, float]:
    """`assay_wei` by kind."""
    lines = httpx.get(f"{url}/metrics", timeout=20).text.splitlines()
    found = [line for line in lines if line.startswith("assay_wei{")]
    return {line.split('"')[1]: float(line.split()[-1]) for line in found}


def test_ten_questions_are_paid_and_claimed(place: Place, model_path: Path) -> None:
    """Gateway, provider and chain agree on the sum of ten answers; the rest comes back to the gateway."""
    with chain(place) as devnet, provider(place, model_path, devnet.url) as there, stranger(devnet.url) as look:
        with gateway(place, devnet.url, there.url) as here:
            total, had = 0, look.token_balance(there.facts["address"])
            for number in range(10):
                receipt = ask(here.url, temperature=1, seed=number)
                total += 3 * receipt.prompt_count + 7 * receipt.output_count
                assert receipt.amount == total
            (channel,) = channels(place)
            assert receipt.channel == channel.id
            until(lambda: look.channel_state(channel.id).claimed == total)
            until(lambda: channels(place)[0].accepted == total)
            (channel,) = channels(place)
            assert (channel.earned, channel.signed) == (total, total)
            assert tab(place, channel) == (total, total)
            until(lambda: metrics(there.url) == {"owed": total, "paid": total, "claimed": total})
            assert metrics(here.url)["signed"] == total
            receiver = channel.terms.receiver
            if receiver == there.facts["address"]:
                until(lambda: look.token_balance(receiver) == had + total)
            else:  # a vault, which holds it back
                until(lambda: look.vault_state(there.facts["address"]) == (total, 0))
            told = place.assay("ask", "Hello", "--url", here.url, "--max-tokens", "3", "--json").stdout
            (own,) = json.loads(told)["receipts"]
            cost = 3 * own["prompt_count"] + 7 * own["output_count"]
            assert json.loads(told)["cost_wei"] == str(cost)
            total += cost
            until(lambda: look.channel_state(channel.id).claimed == total)
        at = {"ASSAY_DATA_DIR": str(place.root / "gateway")}
        (shown,) = json.loads(place.assay("channels", "list", "--json", **at).stdout)["channels"]
        assert (shown["signed"], shown["state"]) == (str(total), "open")
        close = ("channels", "close", "all", "--chain", devnet.url, "--json")
        done = place.assay(*close, **at)
        assert json.loads(done.stdout)["channels"][0]["state"] == "leaving", done.stderr
        assert look.channel_state(channel.id).leaving == channel.deposited - total
        for method, params in (("evm_increaseTime", [channel.terms.withdraw_delay]), ("evm_mine", [])):
            asked = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            assert "result" in httpx.post(devnet.url, json=asked, timeout=20).json()
        before = look.token_balance(channel.terms.payer)
        done = place.assay(*close, **at)
        assert json.loads(done.stdout)["channels"][0]["state"] == "closed", done.stderr
        assert look.token_balance(channel.terms.payer) == before + channel.deposited - total
        assert look.channel_state(channel.id).balance == look.channel_state(channel.id).claimed == total


def books(place: Place, look: ChainClient) -> tuple[Channel, int, int, int]:
    """The open channel, what its provider is owed and paid, and what the chain has claimed."""
    (channel,) = [each for each in channels(place) if each.state == "open"]
    return channel, *tab(place, channel), look.channel_state(channel.id).claimed


@pytest.mark.slow
def test_kill_at_random_moments_loses_no_voucher_and_pays_nothing_twice(place: Place, model_path: Path) -> None:
    """Gateway, provider and chain are killed again and again while answers stream. All go on by themselves; a provider
    never has less than what the gateway takes for paid, the gateway never signs for more than it has checked or sees
    stream, and in the end all agree to the last wei."""
    chance = random.Random(4)
    port, chain_port = free_port(), free_port()
    seen: set[bytes] = set()
    with ExitStack() as stack:
        running: dict[str, Any] = {}

        def start(name: str) -> Program:
            there = f"http://127.0.0.1:{chain_port}"
            contexts = {
                "devnet": lambda: chain(place, chain_port),
                "provider": lambda: provider(place, model_path, there, port, ASSAY_PROVIDER_CREDIT_WEI=str(CREDIT)),
                "gateway": lambda: gateway(place, there, f"http://127.0.0.1:{port}"),
            }
            running[name] = stack.enter_context(contexts[name]())
            return running[name]

        for name in ("devnet", "provider", "gateway"):
            start(name)
        look = stack.enter_context(stranger(running["devnet"].url))
        for turn in range(12):
            name = ("gateway", "provider", "devnet")[turn % 3]
            asking = threading.Thread(target=lambda: seen.update(tried(running["gateway"].url)))
            asking.start()
            time.sleep(chance.uniform(0.0, 2.5))
            running[name].kill()
            asking.join()
            start(name)
            until(lambda: look.now() > 0, seconds=30)
            found = [each for each in channels(place) if each.state == "open"]
            if found:
                claimed = look.channel_state(found[0].id).claimed
                channel, owed, paid, _ = books(place, look)
                assert channel.accepted <= paid <= books(place, look)[0].signed  # what is read later is no less
                assert claimed <= paid
                assert channel.earned <= owed
                assert channel.signed <= owed + CREDIT
        last = until(lambda: tried(running["gateway"].url), seconds=60)

        def agreed() -> bool:
            channel, owed, paid, claimed = books(place, look)
            if channel.signed > owed:  # paid in mid-answer to a provider that was killed: the next answers are for that
                seen.update(tried(running["gateway"].url))
            return channel.earned == owed == paid == claimed == channel.signed == channel.accepted

        until(agreed, seconds=90)
        channel, owed, *_ = books(place, look)
        store = ReceiptStore(f"sqlite:///{place.root / 'provider' / 'provider.sqlite3'}")
        issued = [store.get(digest).receipt for _, digest in store.unaudited(10_000)]
        store.close()
        assert owed == sum(3 * each.prompt_count + 7 * each.output_count for each in issued if each.output_count)
        assert owed == max(each.amount for each in issued)
        assert {each.digest for each in issued} >= seen | last
        assert len(seen) > 3
        assert len({each.amount for each in issued}) == len(issued)
        for program in running.values():
            assert "Traceback" not in program.log, program.log


def tried(url: str) -> set[bytes]:
    """Digests of the receipts of an answer that may fail."""
    body = {"model": MODEL, "messages": SAY, "max_tokens": 40}
    try:
        reply = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)
    except httpx.HTTPError:
        return set()
    if reply.status_code != 200:
        return set()
    return {Receipt.from_json(each).digest for each in reply.json()["assay"]["receipts"]}
