"""Real processes on a development chain: a gateway pays, a provider claims, and all sums agree to the last wei."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai as official
import pytest
from tests.e2e.kit import MODEL, SAY, Place, Program, openai, until
from tests.e2e.scene import watching

from assay.chain.addresses import Addresses
from assay.core.receipt import Receipt
from assay.store.channels import Channel, ChannelStore
from assay.store.tabs import TabStore

pytestmark = [pytest.mark.e2e, pytest.mark.model]
PRICES = {"ASSAY_PROVIDER_PROMPT_PRICE_WEI": "3", "ASSAY_PROVIDER_OUTPUT_PRICE_WEI": "7"}
QUICK = {"ASSAY_CHAIN_LOOK_SECONDS": "0.5"}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A machine of the test's own."""
    return Place(tmp_path)


@contextmanager
def chain(place: Place) -> Iterator[Program]:
    """A development chain."""
    with place.running("devnet", "devnet", "--port", "0", "--json") as program:
        yield program


@contextmanager
def provider(place: Place, model: Path, url: str) -> Iterator[Program]:
    """A provider that is paid."""
    args = ("serve", "--port", "0", "--json", "--threads", "1", "--context", "512", "--model", str(model))
    with place.running("provider", *args, "--chain", url, **PRICES, **QUICK) as program:
        yield program


@contextmanager
def gateway(place: Place, url: str, provider: str) -> Iterator[Program]:
    """A gateway that pays."""
    args = ("gateway", "--port", "0", "--json", "--chain", url, "--provider", provider)
    with place.running("gateway", *args) as program:
        yield program


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
    with (
        chain(place) as devnet,
        provider(place, model_path, devnet.url) as there,
        watching(devnet.url, Addresses.fetch(devnet.url)) as court,
    ):
        look = court.client
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


@pytest.mark.slow
def test_a_price_is_changed_while_answers_are_sold(place: Place, model_path: Path) -> None:
    """By the provider's owner, from free and back: whoever still reckons with the old price is refused, and nobody is
    taken for a cheat; each answer costs what was offered when it was asked for."""
    args = ("serve", "--port", "0", "--json", "--threads", "1", "--context", "512", "--model", str(model_path))
    with (
        chain(place) as devnet,
        place.running("provider", *args, "--chain", devnet.url, **QUICK) as there,
        gateway(place, devnet.url, there.url) as here,
    ):
        token = (place.root / "home" / "window-token").read_text("ascii").strip()
        owner = {"authorization": f"Bearer {token}"}

        def sell(prompt: int, output: int) -> None:
            price = {"prompt": str(prompt), "output": str(output)}
            body = {"prices": dict.fromkeys(("signed", "statistical", "pinned"), price)}
            httpx.post(f"{there.url}/window/owner/sale", json=body, headers=owner, timeout=20).raise_for_status()

        def asked() -> Receipt:
            found: list[Receipt] = []

            def once() -> bool:
                try:
                    found.append(ask(here.url))
                except official.RateLimitError as refused:
                    assert "the price is" in str(refused) or "is full" in str(refused)  # noqa: PT017
                return bool(found)

            until(once, 40)
            return found[0]

        assert ask(here.url).amount == 0
        sell(3, 7)
        first = asked()
        assert first.amount == 3 * first.prompt_count + 7 * first.output_count
        sell(30, 70)
        second = asked()
        assert second.amount == first.amount + 30 * second.prompt_count + 70 * second.output_count
        until(lambda: metrics(there.url)["claimed"] == second.amount)
        sell(0, 0)
        assert asked().amount == 0
        looked = httpx.get(f"{there.url}/window/owner/node", headers=owner, timeout=20).json()
        assert looked["earnings"]["owed_wei"] == looked["earnings"]["claimed_wei"] == str(second.amount)
        (offer, *_) = httpx.get(f"{here.url}/v1/models").json()["data"][0]["assay"]["offers"]
        assert offer["provider"] == there.facts["address"]
        assert "provider_failed" not in here.log
        assert "caught" not in here.log
