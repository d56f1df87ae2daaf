"""The page of the network: whatever providers say of themselves, long lists, choices explained, and whose it is."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Browser, Page, expect
from tests.apps.window.browser import TOKEN, Stage, in_thread, looked_at, opened, staged
from tests.apps.window.crowd import MODELS, Crowd, crowd, made_up, offer, record
from tests.running import running
from tests.tiny import TinyEngine, TinyModel, tiny_key

from assay.apps.provider import provider_app
from assay.apps.serving import LocalAnswers
from assay.apps.window.owner import Owner
from assay.apps.window.paging import Value, cursor, sorted_by, start
from assay.apps.window.window import Window
from assay.core.keys import Key
from assay.core.offer import Defaults, Price
from assay.core.verdict import Finding, Verdict
from assay.market.routing import ROOM_SECONDS
from assay.store.receipts import ReceiptStore
from assay.store.summaries import ORDERS, Order, Summary, Wanted, place

OWNER = {"authorization": f"Bearer {TOKEN}"}
SOME = 300
HOSTILE = (
    "<img src=x onerror='window.hit=1'>",
    "<script>window.hit=1</script>",
    '"><svg onload=window.hit=1>',
    "javascript:window.hit=1",
    "{{constructor.constructor('window.hit=1')()}}",
    "\u202egnp.exe",
    "\u2066\u2067\u200f\u200bhidden\ufeff\u0007",
    "__proto__",
    "</option></select><form name=location action=//evil.example>",
    "x" * 256,
)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    """A gateway that found providers whose models have these names."""
    records = [
        (record(tiny_key(n), [offer(tiny_key(n), name, "signed", Price(n, n))], ["http://93.184.216.34:8100"]), "lan")
        for n, name in enumerate(HOSTILE[:-1], 1)
    ]
    dear = offer(tiny_key(99), HOSTILE[-1], "signed", Price(2**96 - 1, 2**96 - 1))
    records.append((record(tiny_key(99), [dear], [f"ws://{'relay.' * 30}example:1"]), f"https://{'x' * 150}.example"))
    with crowd(tmp_path_factory.mktemp("hostile"), records, receipts=30) as found:
        yield found


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    """10,000 providers and 100,000 receipts."""
    with crowd(tmp_path_factory.mktemp("many"), list(made_up(10_000)), receipts=100_000) as found:
        yield found


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    """Hundreds of providers, and 5,000 receipts."""
    with crowd(tmp_path_factory.mktemp("some"), list(made_up(SOME)), receipts=5000) as found:
        yield found


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A gateway over four real providers, of whom the first fails before its first token."""
    engines = [TinyEngine(breaks_at=0), TinyEngine(), TinyEngine(), TinyEngine()]
    with staged(tmp_path_factory.mktemp("stage"), engines) as found:
        yield found


def ask(url: str, path: str, status: int = 200, **members: object) -> dict:
    """What an endpoint says to the owner."""
    reply = httpx.get(url + path, params=members, headers=OWNER, timeout=60)  # type: ignore[arg-type]
    assert reply.status_code == status, reply.text
    return reply.json()


def whole(url: str, path: str, **members: object) -> list[dict]:
    """All pages of a list."""
    page = ask(url, path, limit=200, **members)
    rows, count = page["rows"], page["found"]
    while page["next"]:
        page = ask(url, path, limit=200, after=page["next"], **members)
        rows += page["rows"]
    assert len(rows) == count
    return rows


def shown(page: Page) -> list[str]:
    """Addresses in the table of providers."""
    return [str(each.get_attribute("title")) for each in page.locator("#providers tbody a").all()]


def opened_list(page: Page, query: str = "") -> None:
    """The list, when its rows are there."""
    page.goto(f"/network{query}")
    page.wait_for_selector("#providers tbody tr")


@pytest.mark.slow
def test_what_providers_call_themselves_is_text(hostile: Crowd, browser: Browser) -> None:
    """Markup stays text, in the table and in the lists to choose from; what would reorder or hide text is seen."""
    with opened(browser, hostile.url) as page:
        opened_list(page, f"#owner={TOKEN}")
        page.wait_for_selector("#links svg")
        names = page.locator("#providers tbody .foreign").all_inner_texts()
        for name in HOSTILE[:5]:
            assert name in names
        assert "⟨U+202E⟩gnp.exe" in names
        assert page.evaluate(
            "document.querySelector('#providers table').offsetWidth <= document.querySelector('main').offsetWidth"
        )
        assert "⟨U+2066⟩⟨U+2067⟩⟨U+200F⟩⟨U+200B⟩hidden⟨U+FEFF⟩⟨U+0007⟩" in names
        assert page.locator("#providers tbody img, #providers tbody script, form[name=location]").count() == 0
        for name in HOSTILE:
            page.select_option("#providers [name=model]", name)
            expect(page.locator("#providers tbody tr")).to_have_count(1)
            page.goto(f"/network/{shown(page)[0]}")
            page.wait_for_selector(".facts")
            opened_list(page)
        assert page.evaluate("window.hit") is None


def test_records_that_do_not_hold_are_not_listed(hostile: Crowd) -> None:
    """A region that is none, an address that leads here, another key's signature."""
    bad: Key = tiny_key(97)
    good = record(bad, [offer(bad, "m", "signed", Price(1, 1))], ["http://93.184.216.34:8100"])
    for data in (
        good.encode().replace(b'"region":""', b'"region":"<b>EU</b>"'),
        record(bad, [], ["http://127.0.0.1:22"]).encode(),
        replace(good, signature=tiny_key(98).sign(good.digest)).encode(),
    ):
        hostile.loop.call_soon_threadsafe(hostile.discoveries.finder.heard, data, "lan", 0)
    assert bad.address not in {each["address"] for each in whole(hostile.url, "/window/providers")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sort", "descending", "value"),
    [
        ("price", False, lambda row: 3 * int(row["offers"][0]["prompt"]) + int(row["offers"][0]["output"])),
        ("region", True, lambda row: row["region"] or None),
        ("pace", True, lambda row: row["seen"] and row["seen"]["pace"]),
    ],
)
def test_ten_thousand_providers_page_by_page(
    many: Crowd, sort: str, descending: bool, value: Callable[[dict], Value]
) -> None:
    """Everyone once, in order; those without a value last, whichever way."""
    rows = whole(many.url, "/window/providers", sort=sort, descending=int(descending))
    assert len({row["address"] for row in rows}) == len(rows) == 10_000
    assert rows == sorted_by(rows, value, lambda row: row["address"], descending=descending)
    assert any(value(row) is None for row in rows) or sort == "price"


@given(
    values=st.lists(st.one_of(st.none(), st.integers(0, 5)), max_size=30),
    size=st.integers(1, 7),
    descending=st.booleans(),
)
def test_pages_of_any_list(values: list[int | None], size: int, descending: bool) -> None:
    """Together they are the list, and each begins after the row at which the one before ended."""
    rows = sorted_by(list(enumerate(values)), lambda row: row[1], lambda row: f"{row[0]:03}", descending=descending)
    with_one = [value for _, value in rows if value is not None]
    assert with_one == sorted(with_one, reverse=descending)
    assert [value for _, value in rows[len(with_one) :]] == [None] * values.count(None)
    found: list[tuple[int, int | None]] = []
    after: tuple[Value, str] | None = None
    while page := rows[(begin := _start(rows, after, descending)) : begin + size]:
        assert begin == len(found)
        found += page
        after = page[-1][1], f"{page[-1][0]:03}"
    assert found == rows


def _start(rows: list[tuple[int, int | None]], after: tuple[Value, str] | None, descending: bool) -> int:
    return start(rows, lambda row: row[1], lambda row: f"{row[0]:03}", after, descending=descending)


def test_filters_of_providers(some: Crowd) -> None:
    """Each leaves those that it says; several leave those that fit them all."""
    known = {each.provider: (each, source) for each, source in made_up(SOME)}
    rows = whole(some.url, "/window/providers", model=MODELS[1], level="pinned", source="lan", text="EU-west")
    wanted = {
        name
        for name, (each, source) in known.items()
        if source == "lan" and each.region == "eu-west"
        and any(item.model == MODELS[1] and item.level == "pinned" for item in each.offers)
    }  # fmt: skip
    assert {row["address"] for row in rows} == wanted
    assert wanted
    relayed = whole(some.url, "/window/providers", link="relay")
    assert {row["via"] for row in relayed} == {"relay-a.example:443", "relay-b.example:443"}
    [one] = whole(some.url, "/window/providers", text=rows[0]["address"][2:30].upper())
    assert one["address"] == rows[0]["address"]


def test_a_list_goes_on_where_it_ended(some: Crowd) -> None:
    """Also where the row at which a page ended is gone, or the price of others has changed meanwhile."""
    first = ask(some.url, "/window/providers", sort="address", limit=3)
    after = first["rows"][-1]["address"]
    gone = ask(some.url, "/window/providers", sort="address", limit=3, after=cursor(after + "0", after + "0"))
    assert gone["rows"][0]["address"] > after
    assert gone["before"] == 3


@pytest.mark.parametrize(
    "members",
    [
        {"limit": "0"}, {"limit": "201"}, {"limit": "-1"}, {"limit": "٣"}, {"sort": "__class__"}, {"level": "best"},
        {"after": "x"}, {"after": "bnVsbA"}, {"after": "W10"}, {"after": "W3RydWUsICJ4Il0"}, {"after": "A" * 700},
        {"text": "x" * 301}, {"descending": "2"}, {"link": "carrier pigeon"},
        {"after": "WyJhIiwgImIiXQ", "sort": "price"},
    ],
)  # fmt: skip
def test_what_is_no_page_is_refused(hostile: Crowd, members: dict) -> None:
    """With what to do."""
    said = ask(hostile.url, "/window/providers", 400, **members)
    assert ":" in said["error"]["message"]


def test_receipts_are_the_owners(hostile: Crowd) -> None:
    """Nobody else lists them, nor another site in the owner's browser."""
    path = hostile.url + "/window/receipts"
    assert httpx.get(path).status_code == 403
    assert httpx.get(path, headers={"authorization": "Bearer " + "u" * 43}).status_code == 403
    assert httpx.get(path, headers={**OWNER, "sec-fetch-site": "cross-site"}).status_code == 403
    assert httpx.get(path, headers=OWNER).status_code == 200
    assert httpx.get(path, headers=OWNER, params={"model": "xyz"}).status_code == 400
    assert httpx.get(path, headers=OWNER, params={"after": "WyJhIiwgImIiXQ"}).status_code == 400


def kept(store: ReceiptStore, wanted: Wanted, size: int = 10_000) -> list[Summary]:
    """All pages of a list of receipts."""
    found: list[Summary] = []
    while True:
        rows = store.page(wanted, size, place(found[-1], wanted.order) if found else None)
        found += rows
        if not rows:
            assert len(found) == store.matching(wanted)
            return found


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("descending", [False, True])
def test_a_hundred_thousand_receipts_page_by_page(many: Crowd, order: Order, descending: bool) -> None:
    """Each once, in order; by what they are worth as numbers, however long these are."""
    rows = kept(many.store, Wanted(order=order, descending=descending))
    assert len({row.digest for row in rows}) == len(rows) == 100_000
    places = [place(row, order) for row in rows]
    assert places == sorted(places, reverse=descending)


def test_filters_of_receipts(some: Crowd) -> None:
    """Each leaves those that it says; signs that databases take for others are just signs."""
    rows = kept(some.store, Wanted())
    model = bytes([2] * 32)
    found = kept(some.store, Wanted(level="exact", outcome="unchecked", model=model))
    assert found == [row for row in rows if row.level == "exact" and row.outcome is None and row.model == model]
    assert found
    one = rows[500]
    assert kept(some.store, Wanted(text=one.digest.hex().upper())) == [one]
    assert kept(some.store, Wanted(text=one.provider[:40])) == [row for row in rows if row.provider == one.provider]
    assert kept(some.store, Wanted(text="%")) == kept(some.store, Wanted(text="_")) == []
    assert kept(some.store, Wanted(text="0x")) == rows


def test_receipts_page_by_page_over_the_wire(some: Crowd) -> None:
    """As the store has them."""
    rows = whole(some.url, "/window/receipts", level="exact", outcome="fails", sort="amount")
    wanted = kept(some.store, Wanted(level="exact", outcome="fails", order="amount"))
    assert [row["digest"] for row in rows] == [row.digest.hex() for row in wanted]
    assert [row["amount"] for row in rows] == [str(row.amount) for row in wanted]
    assert rows


def test_the_list_in_a_browser(some: Crowd, browser: Browser) -> None:
    """Pages, sorting and filtering by keyboard; what has the focus keeps it; the wishes are in the address."""
    with opened(browser, some.url) as page:
        opened_list(page)
        first = shown(page)
        page.locator("#providers [data-next]").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#providers [data-status]")).to_contain_text("26–50 of 300")
        assert not set(first) & set(shown(page))
        assert page.evaluate("document.activeElement.matches('[data-next]')")
        page.locator("#providers [data-previous]").press("Enter")
        expect(page.locator("#providers [data-status]")).to_contain_text("1–25")
        assert shown(page) == first
        page.locator("#providers [data-sort=pace]").press("Enter")
        expect(page.locator("#providers th[aria-sort=descending]")).to_have_text("Tokens a second")
        page.select_option("#providers [name=level]", "exact")
        page.fill("#providers [name=text]", "eu-west")
        page.wait_for_url(re.compile("text=eu-west"))
        page.reload()
        page.wait_for_selector("#providers tbody tr")
        assert page.input_value("#providers [name=text]") == "eu-west"
        assert page.input_value("#providers [name=level]") == "exact"
        expect(page.locator("#providers th[aria-sort=descending]")).to_have_text("Tokens a second")
        page.fill("#providers [name=text]", "nobody at all")
        expect(page.locator("#providers [data-status]")).to_have_text("None of 300 providers fits. Change the filters.")
        assert page.locator("#receipts [data-owners]").is_hidden()


def test_the_owner_lists_receipts(some: Crowd, browser: Browser) -> None:
    """Each leads to its own page."""
    with opened(browser, some.url) as page:
        opened_list(page, f"#owner={TOKEN}")
        page.wait_for_selector("#receipts tbody tr")
        expect(page.locator("#receipts [data-status]")).to_have_text("Receipts: 5,000")
        assert page.locator("#receipts tbody a").first.get_attribute("href").startswith("/receipt/")  # type: ignore[union-attr]
        page.select_option("#receipts [name=outcome]", "fails")
        expect(page.locator("#receipts tbody .bad")).to_have_count(25)
        assert TOKEN not in page.url


def test_what_is_not_there_is_told_in_words(hostile: Crowd, browser: Browser) -> None:
    """A provider that has left, a name that is none, a server that is away; who waits can ask again."""
    page = browser.new_page(base_url=hostile.url)  # a refused request is an error on the console
    page.goto("/network/0x00")
    expect(page.locator("[data-status]")).to_contain_text("it may have left: see the list")
    page.goto("/network/%zz")
    expect(page.locator("[data-status]")).to_contain_text("it may have left: see the list")
    page.goto("/network/why/nothing")
    expect(page.locator("[data-status]")).to_contain_text("no receipt can have this name")
    page.route("**/window/providers?**", lambda route: route.abort())
    page.goto("/network")
    expect(page.locator("#providers [data-status]")).to_contain_text("This could not be loaded")
    page.unroute("**/window/providers?**")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#providers tbody tr")).to_have_count(len(HOSTILE))
    page.context.close()


def test_who_is_passed_over_and_why(tmp_path: Path) -> None:
    """Proof, the gateway's own wishes, other files, no open way, rest: each is named, the strongest first."""
    price = Price(5, 5)
    usual = {n: offer(tiny_key(n), "m", "pinned", price, region="eu", digest=b"\x01" * 32) for n in range(1, 9)}
    usual[3] = replace(usual[3], model_digest=b"\x02" * 32)
    usual[4] = replace(usual[4], region="us")
    usual[5] = replace(usual[5], price=Price(500, 5))
    records = [
        (
            record(
                tiny_key(n),
                [each],
                ["http://93.184.216.34:8100"] if n != 6 else [f"iroh://{1:064x}"],
                region=each.region,
            ),
            "lan",
        )
        for n, each in usual.items()
    ]
    defaults = Defaults(max_price=Price(100, 100), region="eu", ignore=(tiny_key(2).address,))
    with crowd(tmp_path, records, known={"m": b"\x01" * 32}, defaults=defaults, ways=("direct",)) as found:
        found.store.judge(
            Verdict("0" * 64, tiny_key(1).address, "pinned", "fails", (Finding("x", "fails", "x"),), 1, 0.1)
        )
        asyncio.run_coroutine_threadsafe(found.market.look_up_verdicts(), found.loop).result()
        found.market.router.failed(usual[7], time.monotonic())
        rows = {row["address"]: row for row in whole(found.url, "/window/providers")}
    reasons = [rows[tiny_key(n).address]["reason"] for n in range(1, 9)]
    assert reasons == ["dishonest", "ignored", "file", "region", "price", "unreachable", "resting", None]
    assert rows[tiny_key(1).address]["failed"] == 1
    assert rows[tiny_key(7).address]["rest"] in (1, 2)


def test_stakes_are_shown_where_a_chain_is_known(tmp_path: Path) -> None:
    """Who has less than the gateway wishes is passed over for it."""
    records = list(made_up(3))
    names = [each.provider for each, _ in records]
    stakes = {names[0]: 10**18, names[1]: 5}
    with crowd(tmp_path, records, stakes=stakes, defaults=Defaults(min_stake=10)) as found:
        rows = whole(found.url, "/window/providers", sort="stake", descending="1")
    assert [(row["address"], row["stake"], row["reason"]) for row in rows] == [
        (names[0], str(10**18), None),
        (names[1], "5", "stake"),
        (names[2], None, "stake"),
    ]


def test_one_provider(some: Crowd) -> None:
    """All of its offers, its record, and what became of its answers day by day."""
    [row, *_] = ask(some.url, "/window/providers", sort="passed", descending="1")["rows"]
    found = ask(some.url, f"/window/providers/{row['address']}")
    assert found["address"] == row["address"]
    assert len(found["offers"]) >= 1
    assert found["record"]["endpoints"]
    days: dict[int, list[int]] = {}
    for each in whole(some.url, "/window/receipts", text=row["address"]):
        counts = days.setdefault(each["kept"] // 86_400, [0, 0, 0, 0])
        counts[0] += 1
        for index, outcome in enumerate(("holds", "fails", "inconclusive"), 1):
            counts[index] += each["outcome"] == outcome
    assert found["days"] == [[day, *counts] for day, counts in sorted(days.items())]
    assert ask(some.url, "/window/providers/0x00", 404)["error"]["message"]


def test_providers_of_the_settings(stage: Stage, tmp_path: Path, browser: Browser) -> None:
    """They are named as such, and what was seen of them is there; where nobody is reached, it is said why."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 20}
    for _ in range(2):
        httpx.post(f"{stage.url}/v1/chat/completions", json=body, timeout=30).raise_for_status()
    asyncio.run_coroutine_threadsafe(stage.market.drain(5), stage.loop).result()
    until = time.monotonic() + 20
    while True:
        rows = whole(stage.url, "/window/providers", sort="answers", descending="1")
        if rows[0]["seen"] or time.monotonic() > until:
            break
        time.sleep(0.5)
    assert {(row["source"], row["link"], row["via"]) for row in rows} == {("given", "direct", "")}
    assert {row["address"] for row in rows} == {tiny_key(n).address for n in range(1, 5)}
    assert rows[0]["seen"]["answers"] >= 1
    assert 0 < rows[0]["seen"]["first"] < 30
    assert "http://" not in str(rows)
    with crowd(tmp_path, []) as empty, opened(browser, empty.url) as page:
        page.goto("/network")
        expect(page.locator("#providers [data-status]")).to_contain_text("start one with `assay serve`")


def test_a_choice_is_explained(stage: Stage, browser: Browser) -> None:
    """Who fitted which wish, who was looked at and asked how busy it is, who failed, who answered."""
    first, second, third, fourth = (tiny_key(n).address for n in range(1, 5))
    wishes = {"order": [first], "ignore": [second], "sort": "latency"}
    body = {"model": "tiny", "messages": [{"role": "user", "content": "a secret question"}], "max_tokens": 4}
    said = httpx.post(f"{stage.url}/v1/chat/completions", json={**body, "assay": wishes}, timeout=30).json()
    name = said["id"]
    asyncio.run_coroutine_threadsafe(stage.market.drain(5), stage.loop).result()
    [trace] = httpx.get(f"{stage.url}/traces/{name}").json()["traces"]
    match = trace[0]["facts"]
    assert match["wishes"] == [{"wish": "ignore", "value": second, "left": 3, "out": [second]}]
    assert match["shortlist"][0]["provider"] == first
    assert {each["provider"] for each in match["shortlist"]} == {first, third, fourth}
    assert "secret" not in str(trace)
    with opened(browser, stage.url) as page:
        opened_list(page)
        page.fill("#why-form [name=name]", name)
        page.press("#why-form [name=name]", "Enter")
        page.wait_for_selector(".steps")
        text = page.inner_text(".steps")
    for words in (
        f"Without {second}: left 3", "3 offers fitted.",
        "by the time to the first token", "was asked for the answer", "failed:", "gave the first token",
        "The receipt is kept.",
    ):  # fmt: skip
        assert words in text, text


def test_probes_are_explained(stage: Stage, browser: Browser) -> None:
    """What providers said of their load, where none is known to have room."""
    time.sleep(ROOM_SECONDS + 0.1)
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
    said = httpx.post(f"{stage.url}/v1/chat/completions", json=body, timeout=30).json()
    asyncio.run_coroutine_threadsafe(stage.market.drain(5), stage.loop).result()
    [trace] = httpx.get(f"{stage.url}/traces/{said['id']}").json()["traces"]
    [probed] = [mark["facts"]["probed"] for mark in trace if "probed" in mark.get("facts", {})]
    assert len(probed) == 3
    assert {each["said"] for each in probed} <= {"room", "late"}
    with opened(browser, stage.url) as page:
        page.goto(f"/network/why/{said['id']}")
        page.wait_for_selector(".steps")
        text = page.inner_text(".steps")
    assert "3 were asked how busy they are:" in text
    assert "has room: 0 of 4 answers under way" in text


def test_a_node_shows_its_own_offers(tmp_path: Path, browser: Browser) -> None:
    """It asks nobody else, so there are no links and no choices."""

    @asynccontextmanager
    async def node() -> AsyncIterator[str]:
        store, key = ReceiptStore(f"sqlite:///{tmp_path / 'node.db'}"), tiny_key()
        local = LocalAnswers([TinyEngine()], key, store)
        app = provider_app(local, store, key.address, window=Window(Owner(TOKEN), loopback=True))
        async with running(app, drain=local.drain) as url:
            yield url

    with in_thread(node()) as url, opened(browser, url) as page:
        opened_list(page)
        assert shown(page) == [tiny_key().address]
        expect(page.locator("#providers tbody tr")).to_contain_text("this program")
        expect(page.locator("#links, #why-form, #providers [name=link]")).to_have_count(0)
        body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
        httpx.post(f"{url}/v1/chat/completions", json=body, timeout=30).raise_for_status()
        assert httpx.get(f"{url}/network/why/x").status_code == 404
        [row] = whole(url, "/window/receipts")
        assert (row["provider"], row["level"], row["outcome"]) == (tiny_key().address, "pinned", None)
        assert row["model"] == TinyModel().digest.hex()


@pytest.mark.slow
def test_looks(hostile: Crowd, stage: Stage, some: Crowd, browser: Browser) -> None:
    """Readable by all, in each language and theme, on a telephone too: lists, a provider, a choice."""
    looked_at(browser, hostile.url, f"/network#owner={TOKEN}", "network-hostile", "#receipts tbody tr")
    looked_at(browser, some.url, f"/network?text=eu#owner={TOKEN}", "network", "#links svg")
    [row, *_] = ask(some.url, "/window/providers", sort="passed", descending="1")["rows"]
    looked_at(browser, some.url, f"/network/{row['address']}", "network-provider", ".facts")
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
    said = httpx.post(f"{stage.url}/v1/chat/completions", json=body, timeout=30).json()
    asyncio.run_coroutine_threadsafe(stage.market.drain(5), stage.loop).result()
    looked_at(browser, stage.url, f"/network/why/{said['id']}", "network-why", ".steps")
