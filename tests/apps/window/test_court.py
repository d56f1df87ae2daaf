"""The court's pages, over disputes that were played on the real contracts."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect
from tests.apps.dispute_kit import BOND, EVE, PROVIDER, VALIDATOR
from tests.apps.window.browser import TOKEN, looked_at, opened, picture, staged
from tests.apps.window.court_kit import SAID, Session, in_session
from tests.chain.nodes import away, error

from assay.engines.exact.dispute.shape import Shape

OWNER = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """One case of each kind."""
    yield from in_session(tmp_path_factory.mktemp("court"))


def asked(session: Session, path: str, **query: str) -> httpx.Response:
    """What the window answers."""
    return httpx.get(f"{session.front.url}{path}", params=query)


def told(session: Session, name: str) -> dict[str, Any]:
    """A case, with what stands where in its model, which is learnt meanwhile."""
    for _ in range(100):
        found = asked(session, f"/window/court/{name}").json()
        if found["point"]["operation"] is not None:
            return found
        time.sleep(0.05)
    raise AssertionError(found)


def test_the_list(session: Session) -> None:
    """The newest first: who accused whom, of what, how it stands, whose turn it is; and how far back was read."""
    found = asked(session, "/window/court").json()
    rows = [(each["kind"], each["state"], each["turn"]) for each in found["cases"]]
    assert rows == [
        ("dispute", "open", "challenger"),
        ("equivocation", "challenger", None),
        ("dispute", "provider", None),
        ("dispute", "challenger", None),
        ("demand", "provider", None),
    ]
    assert {each["provider"] for each in found["cases"]} == {PROVIDER.address}
    assert [each["challenger"] == EVE.address for each in found["cases"]] == [False, False, True, False, False]
    slashed = found["cases"][3]
    assert slashed["receipt"] == session.guilty.receipt.digest.hex()
    assert int(slashed["slashed_wei"]) == BOND // 2
    assert found["cases"][0]["deadline"] > found["now"]
    assert (found["count"], found["open"], found["back"], found["whole"], found["trouble"]) == (5, 1, 0, True, "")


def test_what_is_listed(session: Session) -> None:
    """By state, by address and by a receipt's first digits."""

    def names(**query: str) -> list[str]:
        return [each["name"][:1] for each in asked(session, "/window/court", **query).json()["cases"]]

    contradiction = names()[1]
    assert names(state="open") == ["4"]
    assert names(state="decided") == [contradiction, "3", "2", "1"]
    assert names(**{"with": EVE.address}) == ["3"]
    assert names(**{"with": EVE.address.upper().replace("0X", "0x"), "state": "open"}) == []
    assert names(**{"with": session.guilty.receipt.digest.hex()[:12]}) == ["2", "1"]


def test_pages_of_the_list(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every case once, however they are cut."""
    monkeypatch.setattr("assay.apps.window.court.MOST_LISTED", 2)
    found, before = [], ""
    for _ in range(3):
        page = asked(session, "/window/court", before=before).json()
        found += [each["name"][:1] for each in page["cases"]]
        before = page["next"] or ""
    assert before == ""
    assert found[0] == "4"
    assert found[2:] == ["3", "2", "1"]
    assert len(found) == 5


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"state": "guilty"}, "no such state"),
        ({"with": "<script>"}, "no address"),
        ({"with": "0x12"}, "4 hexadecimal digits"),
        ({"before": "1;2"}, "no place"),
        ({"before": "9" * 4000 + "-1"}, "no place"),
    ],
)
def test_what_cannot_be_asked(session: Session, query: dict[str, str], words: str) -> None:
    """Is refused with what to do."""
    reply = asked(session, "/window/court", **query)
    assert reply.status_code == 400
    assert words in reply.json()["error"]["message"]


@pytest.mark.parametrize("name", ["99", "x", "1-1", "%2e%2e", "9" * 40, "0" * 64 + "-0"])
def test_no_such_case(session: Session, name: str) -> None:
    """Is said so."""
    assert asked(session, f"/window/court/{name}").status_code == 404


def test_a_case_down_to_the_number(session: Session) -> None:
    """Every transaction with block, gas and what it said; the number, the operation and the split, to the last wei."""
    found = told(session, "2")
    steps = found["steps"]
    assert [(each["what"], each["stage"], each["by"]) for each in steps] == [
        ("opened", "open", "challenger"),
        ("moved", "tops", "provider"),
        ("moved", "branch", "challenger"),
        ("moved", "chunks", "provider"),
        ("moved", "entry", "challenger"),
        ("moved", "cells", "provider"),
        ("moved", "cell names", "challenger"),
        ("moved", "cell nodes", "provider"),
        ("moved", "cell names", "challenger"),
        ("provider-silent", "step", None),
    ]
    for step in steps:
        mined: Any = session.stage.wire.make_request("eth_getTransactionReceipt", ["0x" + step["transaction"]])
        assert (hex(step["gas"]), hex(step["block"])) == (mined["result"]["gasUsed"], mined["result"]["blockNumber"])
    index = session.wrong.index
    assert (steps[4]["entry"], steps[4]["committed"]) == (index, found["point"]["committed"])
    pieces = {each["tree"]: each for each in steps[3]["pieces"]}
    shape = Shape.of(session.stage.small.model)
    kept = shape.layout.kept_chunks
    assert pieces["inputs"]["index"] == index // 256 - kept
    assert pieces["inputs"]["numbers"][index % 256] == steps[4]["committed"]
    named = steps[2]["named"]
    assert {each["tree"] for each in named} == {"inputs"}
    assert named[0]["digest"] in steps[1]["shown"]["inputs"]
    cell = steps[8]["named"][0]
    assert cell["digest"] == steps[7]["shown"]["cells"][cell["index"] - 16 * steps[7]["under"][0]["index"]]
    assert found["point"]["number"] == {"layer": -1, "vector": "head input", "at": 3, "size": shape.width + 1}
    assert found["point"]["operation"]["kind"] == "number"
    assert (found["point"]["cell"], found["point"]["cells"]) == (steps[8]["named"][0]["index"], steps[5]["cells"])
    split = {name: int(wei) for name, wei in found["split"].items() if name != "wronged"}
    assert split["bond"] == BOND // 2
    assert split["bond"] + split["held"] == sum(split[name] for name in ("compensation", "reward", "insured", "burned"))
    assert found["said"] == [SAID]


def test_other_endings(session: Session) -> None:
    """A proof on the chain, data that were produced, two receipts under one number: each in its words."""
    upheld = told(session, "3")
    assert upheld["steps"][-1]["what"] == "proven"
    assert upheld["steps"][-1]["judged"]["kind"] == upheld["point"]["operation"]["kind"]
    assert upheld["split"] is None
    produced = asked(session, "/window/court/1").json()
    assert [each["what"] for each in produced["steps"]] == ["demanded", "produced"]
    assert produced["point"] is None
    name = next(each["name"] for each in session.listed if each["kind"] == "equivocation")
    [step] = asked(session, f"/window/court/{name}").json()["steps"]
    assert step["what"] == "equivocation"
    assert step["sequence"] == "3"
    assert "output" in step["differ"]
    assert "sequence" not in step["differ"]


def test_the_chain_is_asked_once(session: Session) -> None:
    """However many look: a case that is known costs the few requests that a look takes."""
    asked(session, "/window/court/2")
    before = len(session.stage.wire.asked)
    for _ in range(5):
        asked(session, "/window/court/2")
    calls = session.stage.wire.asked[before:]
    assert "eth_getTransactionReceipt" not in calls
    assert len(calls) <= 5 * 8


def test_a_chain_that_is_away(session: Session) -> None:
    """What is known is shown, the outage is told in a word, and no word of the node's goes out."""
    session.stage.wire.rules["*"] = away
    try:
        found = asked(session, "/window/court").json()
        assert (found["trouble"], len(found["cases"])) == ("away", 5)
        assert asked(session, "/window/court/2").json()["trouble"] == "away"
        session.stage.wire.rules["*"] = lambda _: error("https://node.example/secret-key says no")
        assert "secret" not in asked(session, "/window/court").text
        session.room._accounts._steps.clear()
        hearing = asked(session, "/window/court/2")
        assert "secret" not in hearing.text
        assert (hearing.json()["steps"], hearing.json()["trouble"]) == ([], "away")
    finally:
        session.stage.wire.rules.clear()
    assert asked(session, "/window/court").json()["trouble"] == ""


def test_only_the_owner_has_it_computed(session: Session) -> None:
    """The number that follows from the model is another one than the receipt commits to; others are refused."""
    url = f"{session.front.url}/window/court/2/number"
    assert httpx.post(url).status_code == 403
    assert httpx.post(url, headers={"authorization": "Bearer " + "x" * 43}).status_code == 403
    assert httpx.post(url, headers={**OWNER, "sec-fetch-site": "cross-site"}).status_code == 403
    assert httpx.get(url, headers=OWNER).status_code == 405
    assert httpx.post(url, headers=OWNER).status_code == 400  # no form's post
    found = httpx.post(url, json={}, headers=OWNER).json()
    assert abs(found["committed"] - found["follows"]) == 1
    assert httpx.get(f"{session.front.url}/receipts/{found['name']}").status_code == 200
    assert httpx.post(url.replace("/2/", "/1/"), json={}, headers=OWNER).status_code == 400
    assert httpx.post(url.replace("/2/", "/3/"), json={}, headers=OWNER).status_code == 404  # its receipt is not here


@pytest.mark.slow
def test_pages_look_well(session: Session, browser: Browser) -> None:
    """The list, and cases of all kinds: readable in every language and theme, at 360 and at 1600 px."""
    looked_at(browser, session.front.url, "/court", "court", ".case")
    looked_at(browser, session.front.url, "/court/2", "court-slashed", ".timeline")
    contradiction = next(each["name"] for each in session.listed if each["kind"] == "equivocation")
    for name, case in (("upheld", "3"), ("demand", "1"), ("open", "4"), ("equivocation", contradiction)):
        looked_at(browser, session.front.url, f"/court/{case}", f"court-{name}", ".timeline")


def test_without_a_chain(tmp_path: Path, browser: Browser) -> None:
    """The page says so, and what to do."""
    with staged(tmp_path) as front:
        assert httpx.get(f"{front.url}/window/court").status_code == 404
        looked_at(browser, front.url, "/court", "court-none", ".missing")
        with opened(browser, front.url) as page:
            page.goto("/court")
            expect(page.locator("main")).to_contain_text("No chain is configured here")
            expect(page.locator("main")).to_contain_text("assay gateway --chain")


def test_a_reader_finds_a_case(session: Session, browser: Browser) -> None:
    """By keyboard: filters, searches, opens; what a validator said is text, with what is hidden in it made visible."""
    with opened(browser, session.front.url) as page:
        page.goto("/court")
        expect(page.locator(".case")).to_have_count(5)
        page.locator("#state-all").focus()
        page.keyboard.press("ArrowRight")
        expect(page.locator(".case")).to_have_count(1)
        expect(page.locator("#state-open")).to_be_focused()
        page.locator("#state-all").check(force=True)
        page.locator("#with").fill(session.guilty.receipt.digest.hex())
        page.keyboard.press("Enter")
        expect(page.locator(".case")).to_have_count(2)
        expect(page.locator("#with")).to_be_focused()
        page.locator("#case-2").focus()
        page.keyboard.press("Enter")
        page.wait_for_selector(".timeline")
        assert page.url.endswith("/court/2")
        expect(page.locator("h1")).to_have_text("Dispute 2")
        expect(page.locator(".lead")).to_contain_text("did not prove its result for it in time")
        expect(page.locator(".foreign")).to_contain_text("<b>and</b> inputs give⟨U+202E⟩")
        assert page.locator("main b").count() == 0
        expect(page.locator(".numbers mark")).to_have_count(1)
        expect(page.locator(".figure").nth(1)).to_contain_text("?")
        expect(page.locator("#compute")).to_have_count(0)
        expect(page.locator(".shares")).to_contain_text("12.5 tokens")


def test_the_owner_computes(session: Session, browser: Browser) -> None:
    """A button shows both numbers, the receipt's and the model's; a failure is told in words."""
    with opened(browser, session.front.url) as page:
        page.goto(f"/court/2#owner={TOKEN}")
        page.locator("#compute").click()
        expect(page.locator(".figure").nth(1)).not_to_contain_text("?")
        figures = [_number(page, n) for n in range(2)]
        assert abs(figures[0] - figures[1]) == 1
        expect(page.locator(".pair")).to_contain_text("the receipt is wrong here")
        picture(page, "court-computed")
        assert TOKEN not in page.url


def _number(page: Page, n: int) -> int:
    return int(re.sub(r"[^\d]", "", page.locator(".figure strong").nth(n).inner_text()))


def test_the_page_follows(session: Session, browser: Browser) -> None:
    """A move that is made while somebody looks appears by itself; what was unfolded stays so; silence ends it, which
    makes no case void that was open over another receipt."""
    stage = session.stage
    with opened(browser, session.front.url) as page:
        page.goto("/court/4")
        expect(page.locator(".step")).to_have_count(5)
        page.locator("#digests-1 summary").click()
        accuser = stage.accuser(VALIDATOR)
        accuser.look([session.open.receipt.digest])
        stage.finish()
        expect(page.locator(".step")).to_have_count(6, timeout=15_000)
        expect(page.locator("#digests-1")).to_have_attribute("open", "")
        expect(page.locator("#news")).to_have_text("The page has changed.")
        expect(page.locator(".badge")).to_have_text("open")
        stage.pass_time(4000)
        stage.accuser(VALIDATOR).look([session.open.receipt.digest])
        stage.finish()
        expect(page.locator(".badge")).to_have_text("provider slashed", timeout=15_000)
