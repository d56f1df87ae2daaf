"""A provider's window: what it sells is changed while it runs, and consumers with an old price are not cheated."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect
from tests.apps.paying_kit import PROVIDER, Bank
from tests.apps.window.browser import TOKEN, looked_at, opened
from tests.apps.window.node_kit import PLACES, Node, owned
from tests.apps.window.test_node import until

from assay.apps.earnings import LOOK_SECONDS, Earnings
from assay.apps.onchain import Counter
from assay.chain.addresses import Addresses
from assay.chain.devnet import CHAIN_ID
from assay.core.errors import ChainFailed
from assay.core.offer import Price
from assay.market.sale import Hours, Sale
from assay.store.tabs import TabStore

PATH = f"/#owner={TOKEN}"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A provider with an owner."""
    with owned(tmp_path_factory.mktemp("provider"), "provider") as found:
        yield found


@pytest.fixture
def page(node: Node, browser: Browser) -> Iterator[Page]:
    """As its owner opens it."""
    with opened(browser, node.url) as found:
        found.goto(PATH)
        found.wait_for_selector("#sale-prices input")
        yield found


def field(page: Page, kind: str, level: str) -> object:
    """Where a price is typed."""
    return page.get_by_label(f"{kind.capitalize()} token, wei: {level}")


def test_prices_and_hours(node: Node, page: Page) -> None:
    """What is typed is told what it would earn, sold once it is confirmed, kept, and taken back."""
    assert page.url == f"{node.url}/node"
    expect(page.locator("#facts")).to_contain_text("computes for others")
    expect(page.locator("#money")).to_contain_text("nobody pays")
    expect(page.locator("#sale-words")).to_contain_text("as config.toml says")
    page.fill("#e-pace", "10")
    field(page, "prompt", "signed").fill("3")
    field(page, "output", "signed").fill("7")
    row = page.locator("[data-level=signed] .earned")
    expect(row).to_have_text("6,048,000 wei")
    page.uncheck("#sale-always")
    page.fill("#sale-begin", "00:00")
    page.fill("#sale-end", "12:00")
    expect(row).to_have_text("3,024,000 wei")
    page.wait_for_timeout(2500)  # the page looks at the program meanwhile: what is typed stays
    expect(field(page, "output", "signed")).to_have_value("7")
    assert node.selling.now.prices.get("signed") is None
    page.click("text=Sell like this")
    expect(page.locator("#sale-words")).to_contain_text("at the next start too: hours, prices")
    expect(page.locator("#sale-title")).to_be_focused()
    expect(page.locator("#sale-clock")).to_contain_text(re.compile(r"which shows \d\d:\d\d"))
    sold = node.selling.now
    assert (sold.prices["signed"], sold.prices["pinned"], sold.hours) == (Price(3, 7), Price(0, 0), Hours(0, 720))
    assert sold.places == PLACES
    offers = httpx.get(f"{node.url}/assay/v1/offers", trust_env=False).json()["offers"]
    assert {"prompt": "3", "output": "7"} in [each["price"] for each in offers if each["level"] == "signed"]
    page.reload()
    expect(field(page, "output", "signed")).to_have_value("7")
    expect(page.locator("#sale-begin")).to_have_value("00:00")
    page.click("#sale-reset")
    expect(page.locator("#sale-words")).to_contain_text("as config.toml says")
    expect(page.locator("#sale-always")).to_be_checked()
    assert (node.selling.now, node.selling.kept) == (Sale({}, PLACES), [])


def test_what_is_wrong_is_told(node: Node, page: Page) -> None:
    """And nothing is changed."""
    field(page, "output", "signed").fill("1.5")
    page.click("text=Sell like this")
    expect(page.locator("#sale-problem")).to_contain_text("whole wei")
    expect(field(page, "output", "signed")).to_have_attribute("aria-invalid", "true")
    field(page, "output", "signed").fill("1")
    page.uncheck("#sale-always")
    page.fill("#sale-begin", "07:00")
    page.fill("#sale-end", "07:00")
    page.click("text=Sell like this")
    expect(page.locator("#sale-problem")).to_contain_text("two different times")
    field(page, "output", "signed").fill("9" * 28)
    page.fill("#sale-end", "08:00")
    page.click("text=Sell like this")
    until(lambda: node.selling.kept)
    node.ask("DELETE", "/window/owner/sale", json={})


@pytest.mark.parametrize(
    "body",
    [
        {"prices": 1},
        {"prices": {"signed": {"prompt": "007", "output": "1"}}},
        {"hours": ""},
        {"hours": "7"},
        {"more": 1},
        {"places": 99},
        {"prices": {"best": {}}},
        {"prices": {"signed": {"prompt": "1", "output": "1" * 40}}},
    ],
)
def test_bad_sales(node: Node, body: dict) -> None:
    """A 400 that says what is wrong; nothing is changed."""
    said = node.ask("POST", "/window/owner/sale", json=body)
    assert (said.status_code, said.json()["error"]["message"] != "") == (400, True)
    assert not node.selling.kept


def test_strangers(node: Node) -> None:
    """Change nothing."""
    for method in ("POST", "DELETE"):
        assert node.ask(method, "/window/owner/sale", token="x" * 43, json={"places": 0}).status_code == 403
    assert node.ask("POST", "/window/owner/sale", content=b"places=0").status_code == 400
    assert node.selling.now == Sale({}, PLACES)


def test_pages_of_a_provider(node: Node) -> None:
    """What others asked is theirs: no list of receipts, no chat."""
    for path in ("/network", "/window/receipts", "/window/network/receipts", "/window/chat/models", "/doubt"):
        assert httpx.get(node.url + path, trust_env=False).status_code == 404, path
    front = httpx.get(node.url, trust_env=False)
    assert (front.status_code, front.headers["location"]) == (307, "/node")


def test_other_names_of_a_provider(node: Node) -> None:
    """Consumers reach it under other names, through relays and proxies; its pages, and its owner, are of this machine
    only."""
    for name in ("0x4a62316623ad457f02cdc5d997ded67a383ec569", "sells.example"):
        headers = {"host": name}
        for path in ("/assay/v1/offers", "/assay/v1/load", "/v1/models", "/health"):
            assert httpx.get(node.url + path, headers=headers, trust_env=False).status_code == 200, path
        for path in ("/node", "/receipt", "/court", "/window/files/x/static/node.js"):
            assert httpx.get(node.url + path, headers=headers, trust_env=False).status_code == 403, path
        assert node.ask("POST", "/window/owner/sale", headers=headers, json={"places": 0}).status_code == 403
    assert node.selling.now.places == PLACES


def test_looks(node: Node, browser: Browser) -> None:
    """Readable by all, in each language and theme."""
    looked_at(browser, node.url, PATH, "provider", "#sale-prices input")


def test_a_node_sells_nothing(tmp_path: Path) -> None:
    """It answers its owner only."""
    with owned(tmp_path) as node:
        said = node.ask("POST", "/window/owner/sale", json={"prices": {"signed": {"prompt": "1", "output": "1"}}})
        assert (said.status_code, "sells nothing" in said.text) == (400, True)
        assert node.ask("POST", "/window/owner/sale", json={"places": 1}).json()["places"] == 1


def test_earnings(tmp_path: Path) -> None:
    """Sums of the till and of the chain, which is asked now and then; where it is away, the last ones, and why."""
    bank, now = Bank.new(), [0.0]
    there = bank.devnet.contracts
    client = bank.client(PROVIDER)
    client.addresses = Addresses(CHAIN_ID, there.channels, there.token, there.vault, court=there.court)
    tabs = TabStore(f"sqlite:///{tmp_path / 'tabs.db'}")
    earnings = Earnings(Counter(SimpleNamespace(claimed=5), tabs, client, None, 1), clock=lambda: now[0])  # type: ignore[arg-type]
    first = earnings()
    purse = client.token_balance(PROVIDER.address)
    assert purse > 0
    assert first == {
        **{f"{name}_wei": "0" for name in ("owed", "paid", "held", "ripe", "bond", "leaving")},
        "claimed_wei": "5",
        "purse_wei": str(purse),
        "problem": "",
    }
    bank.devnet.fund(client.vault_of(PROVIDER.address))
    assert earnings() == first
    now[0] = LOOK_SECONDS
    second = earnings()
    assert int(str(second["held_wei"])) == purse > 0 == int(str(second["ripe_wei"]))

    def away(_address: str) -> int:
        raise ChainFailed("the node does not answer")

    client.token_balance = away  # type: ignore[method-assign]
    now[0] = 3 * LOOK_SECONDS
    assert earnings() == second | {"problem": "the node does not answer"}
    tabs.close()
    client.outbox.close()
