"""The page of receipts: files that are dropped, permanent links, fields that broke, and the owner's audits."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import segno
from playwright.sync_api import Browser, Page, expect
from starlette.applications import Starlette
from tests.apps.window.browser import (
    TOKEN,
    Stage,
    check_access,
    check_width,
    in_thread,
    looked_at,
    opened,
    picture,
    staged,
)
from tests.running import provider, running
from tests.tiny import PROFILE, TinyEngine, TinyModel, TinyTokenizer, tiny_bundle, tiny_key, tiny_request

from assay.apps.failures import ERROR_HANDLERS
from assay.apps.provider import StoredBundles, provider_app
from assay.apps.serving import LocalAnswers
from assay.apps.window import receipt
from assay.apps.window.auditing import Audits
from assay.apps.window.owner import Owner
from assay.apps.window.shell import Shell
from assay.apps.window.sources import Sources
from assay.apps.window.window import Window
from assay.core.bundle import Bundle
from assay.core.encoding import b64, canonical, pack_ids
from assay.core.errors import BindingMismatch
from assay.core.receipt import sign
from assay.core.request import LEVELS, Message
from assay.core.verdict import Finding, Verdict
from assay.engines.models import ModelFile
from assay.engines.text import spelled
from assay.store.receipts import ReceiptStore

STAGES = ["request", "match", "generate", "attest", "pay", "verify", "settle"]
MADE = [level for level in LEVELS if level != "exact"]
"""Levels of the tiny engine."""


def ask(url: str, level: str = "pinned", **more: Any) -> str:
    """The id of a reply."""
    body = {
        "model": "tiny",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello, ça va ? مرحبا"}],
        "max_tokens": 12,
        "assay": {"level": level},
    } | more
    reply = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=30)
    assert reply.status_code == 200, reply.text
    name: str = reply.json()["id"]
    while not httpx.get(f"{url}/window/receipt/{name}").json()["traces"]:
        time.sleep(0.02)  # it is kept in the background
    return name


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A gateway with a window."""
    with staged(tmp_path_factory.mktemp("stage")) as found:
        yield found


@pytest.fixture(scope="module")
def replies(stage: Stage) -> dict[str, str]:
    """Ids of a reply at each level."""
    return {level: ask(stage.url, level) for level in MADE}


def drop(page: Page, data: bytes) -> None:
    """Choose a file, and wait until it was judged."""
    page.evaluate("document.getElementById('receipts').replaceChildren()")
    page.set_input_files("#file", files=[{"name": "receipt.json", "mimeType": "application/json", "buffer": data}])
    page.wait_for_selector(".verdict.good, [data-how], [role=alert]")


def drag(page: Page, content: str) -> None:
    """Drop a file onto the page; `content` is an expression of JavaScript."""
    page.evaluate(
        f"""() => {{
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([{content}], "receipt.json"));
          document.body.dispatchEvent(new DragEvent("drop", {{ dataTransfer, bubbles: true, cancelable: true }}));
        }}"""
    )


def named(page: Page) -> list[str]:
    """The fields that the page names."""
    return page.locator(".verdict .field").all_inner_texts()


def kept(stage: Stage, name: str) -> dict[str, Any]:
    """The receipt file of a reply, as JSON."""
    return httpx.get(f"{stage.url}/receipts/{name}").json()


# --- pages


@pytest.mark.slow
def test_looks(stage: Stage, replies: dict[str, str], browser: Browser) -> None:
    """Both pages, readable in every language and theme, at 360 and at 1600 px."""
    looked_at(browser, stage.url, "/receipt", "receipt-empty", "#drop")
    looked_at(browser, stage.url, f"/receipt/{replies['statistical']}", "receipt", ".verdict.good")


def test_a_permanent_link(stage: Stage, replies: dict[str, str], browser: Browser) -> None:
    """It shows that all holds, the question, the whole journey, every check, and how to pass the receipt on."""
    name = replies["statistical"]
    with opened(browser, stage.url) as page:
        page.goto(f"/receipt/{name}")
        expect(page.locator(".verdict h2")).to_contain_text("holds")
        expect(page.locator(".said")).to_contain_text("Hello, ça va ? مرحبا")
        assert [each.get_attribute("data-stage") for each in page.locator(".stage").all()] == STAGES
        assert set(page.locator(".checks li").evaluate_all("all => all.map((each) => each.dataset.holds)")) == {"true"}
        assert page.locator(".share img").evaluate("(image) => image.complete && image.naturalWidth > 0")
        with page.expect_download() as download:
            page.click("a[download]")
        saved = Path(download.value.path()).read_bytes()
    assert saved == httpx.get(f"{stage.url}/receipts/{name}").content
    assert Bundle.decode(saved).request.messages[1].content == "Hello, ça va ? مرحبا"


def test_the_journey_says_what_did_not_happen(stage: Stage, replies: dict[str, str], browser: Browser) -> None:
    """Without a channel nothing is paid or settled; of a file that nobody here knows there are no times."""
    with opened(browser, stage.url) as page:
        page.goto(f"/receipt/{replies['pinned']}")
        page.wait_for_selector(".journey")
        states = page.locator(".stage").evaluate_all("all => all.map((each) => each.className.split(' ')[1])")
        assert states == [f"is-{each}" for each in ("done", "done", "done", "done", "not", "done", "not")]
        expect(page.locator("[data-stage=generate]")).to_contain_text("tokens/s")
        expect(page.locator("[data-stage=match]")).to_contain_text("offers")
        expect(page.locator("[data-stage=attest]")).to_contain_text("0x")
        why = page.get_by_role("link", name="Why this provider?").get_attribute("href") or ""
        assert httpx.get(stage.url + why).status_code == 200
        page.goto("/receipt")
        drop(page, tiny_bundle(tiny_request("Elsewhere."), tiny_key(), 1).encode())
        expect(page.locator("[data-stage=generate]")).to_contain_text("noted no times")
        assert page.locator(".share").count() == 0
        channel = sign(
            replace(tiny_bundle(tiny_request(), tiny_key(), 2).receipt, channel=b"c" * 32, amount=10**18), tiny_key()
        )
        drop(page, replace(tiny_bundle(tiny_request(), tiny_key(), 2), receipt=channel).encode())
        expect(page.locator("[data-stage=pay]")).to_contain_text("1,000,000,000,000,000,000 wei (1 tokens)")
        expect(page.locator("[data-stage=settle]")).to_contain_text("chain")


def test_a_file_is_dropped(stage: Stage, replies: dict[str, str], browser: Browser) -> None:
    """Onto the page, as from a folder."""
    with opened(browser, stage.url) as page:
        page.goto("/receipt")
        page.wait_for_load_state("networkidle")
        drag(page, json.dumps(httpx.get(f"{stage.url}/receipts/{replies['signed']}").text))
        expect(page.locator(".verdict h2")).to_contain_text("holds")
        expect(page.locator("#status")).to_contain_text("holds")
        assert page.locator(".share a[download]").get_attribute("href")  # it is known here: its link is shown


def test_several_receipts(stage: Stage, browser: Browser) -> None:
    """A file with the answers to one call is listed; the first that does not hold is opened, and others can be."""
    name = ask(stage.url, n=3)
    lines = httpx.get(f"{stage.url}/receipts/{name}").content.splitlines(keepends=True)
    assert len(lines) == 3
    with opened(browser, stage.url) as page:
        page.goto(f"/receipt/{name}")
        expect(page.locator(".index p")).to_contain_text("3 of 3")
        page.goto("/receipt")
        broken = json.loads(lines[1])
        broken["profile"]["threads"] += 1
        drop(page, lines[0] + canonical(broken) + b"\n" + lines[2])
        expect(page.locator(".index p")).to_contain_text("2 of 3")
        assert named(page) == ["profile.threads"]
        page.locator(".index button").nth(2).click()
        page.wait_for_selector(".verdict.good")
        assert page.locator(".index button[aria-pressed=true]").count() == 1
        check_access(page)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "newline"),
        (b"hello\n", "not JSON"),
        (b"{}\n", "exactly the members"),
        (b"\xff\n", "UTF-8"),
        (b"[1, 2]\n", "first other byte is number 3"),
        (b"[" * 500 + b"]" * 500 + b"\n", "nested too deeply"),
        (b"\n" * 600, "more than 512 lines"),
    ],
)
def test_other_files_are_refused_in_words(stage: Stage, browser: Browser, data: bytes, words: str) -> None:
    """What it is not, and what to do."""
    with opened(browser, stage.url) as page:
        page.goto("/receipt")
        page.wait_for_load_state("networkidle")
        drop(page, data)
        expect(page.locator("[role=alert]")).to_contain_text(words)
        expect(page.locator("[role=alert]")).to_contain_text("Fetch it again")


def test_a_receipt_alone(stage: Stage, replies: dict[str, str], browser: Browser) -> None:
    """Who signed it is told, that nothing else can be, and a changed one does not hold."""
    value = kept(stage, replies["signed"])["receipt"]
    with opened(browser, stage.url) as page:
        page.goto("/receipt")
        page.wait_for_load_state("networkidle")
        for receipt_, words in ((value, "says nothing of any answer"), (value | {"amount": "1"}, "did not sign it")):
            drag(page, json.dumps(json.dumps(receipt_, indent=1)))
            expect(page.locator(".verdict")).to_contain_text(words)
        check_access(page)


def test_a_giant_is_refused_unread(stage: Stage, browser: Browser) -> None:
    """By its size alone."""
    with opened(browser, stage.url) as page:
        page.goto("/receipt")
        page.wait_for_load_state("networkidle")
        drag(page, "new Uint8Array(32 * 2 ** 20 + 1)")
        expect(page.locator("[role=alert]")).to_contain_text("larger than 32 MiB")


@pytest.mark.parametrize("name", ["A" * 43, "nonsense", "%3Cscript%3E"])
def test_a_link_to_nothing(stage: Stage, browser: Browser, name: str) -> None:
    """It says that nothing is kept under the name."""
    with opened(browser, stage.url) as page:
        page.goto(f"/receipt/{name}")
        expect(page.locator("[role=alert]")).to_contain_text("No receipt with this id")


def test_a_program_that_is_away_is_said_to_be(stage: Stage, replies: dict[str, str], browser: Browser) -> None:
    """A link cannot be shown; a file can be checked all the same."""
    with opened(browser, stage.url) as page:
        page.route("**/window/receipt/**", lambda route: route.fulfill(status=200, body="not JSON"))
        page.goto(f"/receipt/{replies['signed']}")
        expect(page.locator("[role=alert]")).to_contain_text("cannot be asked")
        drop(page, httpx.get(f"{stage.url}/receipts/{replies['signed']}").content)
        expect(page.locator(".verdict h2")).to_contain_text("holds")


def test_an_id_is_looked_up_by_keyboard(stage: Stage, replies: dict[str, str], browser: Browser) -> None:
    """As it stands in a reply."""
    with opened(browser, stage.url) as page:
        page.goto("/receipt")
        page.wait_for_load_state("networkidle")
        page.focus("#id")
        page.keyboard.type(replies["signed"])
        page.keyboard.press("Enter")
        page.wait_for_selector(".verdict.good")
        assert page.url.endswith(replies["signed"])


def test_hostile_words_stay_words(stage: Stage, browser: Browser) -> None:
    """Whatever strangers write into a receipt file is shown as text, with what would reorder it made visible."""
    evil = '<img src=x onerror="window.hit=1"><script>window.hit=1</script>\u202egnp.exe\u200b{{7*7}}'
    request = replace(
        tiny_request(evil), messages=(Message("tool", evil, evil, evil, evil), Message("user", evil)), model=evil
    )
    honest = tiny_bundle(request, tiny_key(), 9)
    profile = replace(PROFILE, engine=evil, regime=evil, build=evil)
    signed = sign(replace(honest.receipt, profile=profile.digest, issued=2**53 - 1), tiny_key())
    with opened(browser, stage.url) as page:
        page.goto("/receipt")
        page.wait_for_load_state("networkidle")
        drop(page, replace(honest, receipt=signed, profile=profile).encode())
        expect(page.locator(".verdict.good")).to_have_count(1)
        expect(page.locator(".said")).to_contain_text("<script>window.hit=1</script>⟨U+202E⟩gnp.exe⟨U+200B⟩{{7*7}}")
        assert page.evaluate("window.hit") is None
        assert page.locator("main img, main script").count() == 0
        value = json.loads(replace(honest, receipt=signed, profile=profile).encode())
        value["request"]["messages"][0][evil] = evil
        drop(page, canonical(value) + b"\n")
        expect(page.locator("[role=alert]")).to_contain_text("⟨U+202E⟩gnp.exe")
        assert page.evaluate("window.hit") is None


# --- which field broke


def other(value: Any, name: str) -> Any:
    """Another value that can stand in a member's place."""
    choices = {
        "level": ["signed", "pinned"], "stop": ["length", "failed"], "kind": ["chat", "completion"],
        "sampler": ["gumbel/1", "foreign"], "role": ["user", "tool"], "amount": ["77", "78"],
    }  # fmt: skip
    if name in choices:
        return next(each for each in choices[name] if each != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if name == "provider":
        return "0x" + "12" * 20
    if len(value) in (43, 87):  # a digest, or the signature: another one altogether
        return value[:5] + "".join("B" if each == "A" else "A" for each in value[5:9]) + value[9:]
    return value + "!" if not value else ("?" if value[0] != "?" else "!") + value[1:]


def members(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every plain value within a JSON value, with the way to it."""
    if not isinstance(value, dict | list):
        yield path, value
        return
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield from members(item, (*path, key))


def spelled_path(path: tuple[str | int, ...]) -> str:
    """As the page names it."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)[1:]


def changed(value: Any, path: tuple[str | int, ...]) -> Any:
    """`value` with another value at the end of the way."""
    copy = value.copy()
    last = len(path) == 1
    copy[path[0]] = other(value[path[0]], str(path[0])) if last else changed(value[path[0]], path[1:])
    return copy


@pytest.mark.parametrize("level", MADE)
def test_each_changed_field_of_a_receipt_is_named(
    stage: Stage, replies: dict[str, str], browser: Browser, level: str
) -> None:
    """For each field of the receipt: a file with another value there names that field, and no other."""
    good = kept(stage, replies[level])
    width, theme = (360, "dark") if level == "statistical" else (1280, "light")
    with opened(browser, stage.url, width=width, theme=theme) as page:
        page.goto("/receipt")
        page.wait_for_load_state("networkidle")
        for field in good["receipt"]:
            data = canonical(changed(good, ("receipt", field))) + b"\n"
            drop(page, data)
            assert named(page) == [f"receipt.{field}"], field
            bad = page.locator(".stage.is-bad").evaluate_all("all => all.map((each) => each.dataset.stage)")
            assert field == "v" or {"attest", "verify"} <= set(bad)
            if field == "model":
                check_access(page)
                check_width(page)
                picture(page, f"receipt-changed-{level}")


def test_each_changed_member_beside_a_receipt_is_named(stage: Stage, replies: dict[str, str], browser: Browser) -> None:
    """For each member of request (nested ones, too) and profile, for the tokens and the opening: the page names it."""
    good = kept(stage, replies["statistical"])
    tokens = Bundle.from_json(good).tokens
    with opened(browser, stage.url) as page:
        page.goto("/receipt")
        page.wait_for_load_state("networkidle")
        for part in ("request", "profile"):
            for path, value in members(good[part], (part,)):
                if value == "":
                    continue  # a longer text: see below
                drop(page, canonical(changed(good, path)) + b"\n")
                expected = "request.nonce" if path[-1] == "nonce" else spelled_path(path)
                assert named(page) == [expected], path
        drop(page, canonical(good | {"request": good["request"] | {"prompt": "Something else"}}) + b"\n")
        assert named(page) == ["request"]
        drop(page, canonical(good | {"tokens": b64(pack_ids((*tokens[:3], tokens[3] ^ 1, *tokens[4:])))}) + b"\n")
        assert named(page) == ["tokens[3]"]
        drop(page, canonical(good | {"tokens": b64(pack_ids(tokens[:-1]))}) + b"\n")
        assert named(page) == ["tokens"]
        drop(page, canonical(good | {"opening": "B" + good["opening"][1:]}) + b"\n")
        assert named(page) == ["opening"]


def test_fields_that_cannot_be_read_are_named(stage: Stage, replies: dict[str, str], browser: Browser) -> None:
    """For each field of the receipt: a file with something there that is no JSON, no text, not the one spelling or of
    another type says where."""
    good = kept(stage, replies["signed"])
    with opened(browser, stage.url) as page:
        page.goto("/receipt")
        page.wait_for_load_state("networkidle")
        for field, value in good["receipt"].items():
            spelled = f'"{field}":{json.dumps(value)}'.encode()
            before, after = canonical(good["receipt"]).split(spelled)
            whole = canonical(good)
            for wrong in (b"?", b'"\xff"', b" " + spelled.partition(b":")[2], b"null", b"1.5"):
                broken = before + f'"{field}":'.encode() + wrong + after
                drop(page, whole.replace(canonical(good["receipt"]), broken) + b"\n")
                assert field in [name.rpartition(".")[2] for name in named(page)], (field, wrong)


def test_two_changed_fields_are_both_named(stage: Stage, replies: dict[str, str], browser: Browser) -> None:
    """As long as the program keeps the file as it was, or one of them follows from the rest."""
    good = kept(stage, replies["pinned"])
    with opened(browser, stage.url) as page:
        page.goto("/receipt")
        page.wait_for_load_state("networkidle")
        drop(page, canonical(changed(changed(good, ("receipt", "model")), ("receipt", "issued"))) + b"\n")
        assert sorted(named(page)) == ["receipt.issued", "receipt.model"]
        drop(page, canonical(changed(changed(good, ("receipt", "stop")), ("profile", "threads"))) + b"\n")
        assert sorted(named(page)) == ["profile", "receipt.stop"]


# --- what the program tells


def test_what_is_known_under_a_name(stage: Stage, replies: dict[str, str]) -> None:
    """The file byte for byte, its verdicts and its trace; nothing under other names, and no error."""
    name = replies["pinned"]
    bundle = Bundle.decode(httpx.get(f"{stage.url}/receipts/{name}").content)
    verdict = Verdict(
        bundle.receipt.digest.hex(),
        bundle.receipt.provider,
        "pinned",
        "holds",
        (Finding("logits", "holds", "equal"),),
        12,
        0.5,
    )
    stage.store.judge(verdict)
    found = httpx.get(f"{stage.url}/window/receipt/{name}").json()
    [item] = found["receipts"]
    assert item["file"].encode() == bundle.encode()
    assert (item["digest"], item["shown"], item["text"]) == (bundle.receipt.digest.hex(), True, None)
    assert (item["verdicts"], item["voucher"]) == ([verdict.to_json()], None)
    assert "attest" in [mark["stage"] for mark in found["traces"][0]]
    for nothing in ("A" * 43, "x", "..%2f..%2fetc", b64(bundle.receipt.digest), b64(bundle.receipt.request)):
        reply = httpx.get(f"{stage.url}/window/receipt/{nothing}")
        assert reply.status_code == 404 or reply.json() == {"receipts": [], "traces": []}


def test_the_code_leads_to_the_page(stage: Stage, replies: dict[str, str]) -> None:
    """A picture without script that says the permanent link; of no name there is none."""
    name = replies["pinned"]
    reply = httpx.get(f"{stage.url}/window/receipt/{name}/qr.svg")
    assert reply.headers["content-type"] == "image/svg+xml"
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    picture = BytesIO()
    link = f"{stage.url}/receipt/{name.removeprefix('chatcmpl-')}"
    segno.make(link, error="m").save(picture, kind="svg", scale=4, border=4, dark="#000", light="#fff")
    assert reply.content == picture.getvalue()
    assert httpx.get(f"{stage.url}/window/receipt/nonsense/qr.svg").status_code == 404


def test_a_node_spells_what_its_own_models_said(tmp_path: Path) -> None:
    """Text of tokens; None for other models, and an error for tokens that the model does not have."""
    with in_thread(provider(tmp_path, TinyEngine(), tiny_key())) as node:
        model = TinyModel().digest
        assert node.answers.spell(model, tuple(b"hello END"), ("END",)) == ("hello ", "hello ")
        assert node.answers.spell(b"?" * 32, (1,), ()) is None
        with pytest.raises(BindingMismatch):
            node.answers.spell(model, (100_000,), ())


def test_a_node_tells_when_its_own_answers_came(tmp_path: Path, browser: Browser) -> None:
    """Without a market: no match, but the times of generating, and the text, as the node has the vocabulary."""
    key, store = tiny_key(), ReceiptStore(f"sqlite:///{tmp_path / 'node.db'}")
    local = LocalAnswers([TinyEngine()], key, store)
    app = provider_app(local, store, key.address, window=Window(Owner(TOKEN), loopback=True), audits=Audits())
    with in_thread(running(app, drain=local.drain)) as url, opened(browser, url) as page:
        page.goto(f"/receipt/{ask(url, n=2)}")
        expect(page.locator("[data-stage=generate]")).to_contain_text("tokens/s")
        expect(page.locator("[data-stage=match]")).to_contain_text("No market")
        expect(page.locator(".said")).not_to_contain_text("vocabulary")


# --- audits


@dataclass
class Desk:
    """A program with a window whose audits end when the test says so."""

    url: str
    finish: threading.Event
    seen: list[bool]
    """Whether each audit was stopped."""


@contextmanager
def desk(stage: Stage, *, here: bool = True) -> Iterator[Desk]:
    """`here`: the models are on this machine."""
    finish, seen = threading.Event(), list[bool]()

    @contextmanager
    def opener(_model: ModelFile, *, stopped: Callable[[], bool]) -> Iterator[Callable[[Bundle], Verdict]]:
        def check(bundle: Bundle) -> Verdict:
            while not finish.wait(0.02) and not stopped():
                pass
            seen.append(stopped())
            finding = Finding("logits", "holds", "every <b>number</b> is equal")
            digest, who = bundle.receipt.digest.hex(), bundle.receipt.provider
            return Verdict(digest, who, "pinned", "holds", (finding,), len(bundle.tokens), 1.5)

        yield check

    model = ModelFile("tiny", Path("/nowhere"), TinyModel().digest, 1)
    shell = Shell("gateway", [receipt.ENTRY])
    sources = Sources(
        "gateway",
        Owner(TOKEN),
        stage.market,
        StoredBundles(stage.store),
        stage.store,
        wallet=SimpleNamespace(voucher_for=lambda _digest: 5 * 10**18),
        spell=lambda _model, tokens, stops: spelled(TinyTokenizer().piece, tokens, stops),
        audits=Audits(find=lambda _digest: model if here else None, opener=opener),
    )
    app = Starlette(routes=[*shell.routes(), *receipt.routes(shell, sources)], exception_handlers=ERROR_HANDLERS)
    with in_thread(running(app)) as url:
        yield Desk(url, finish, seen)
        finish.set()


def test_the_owner_audits(stage: Stage, replies: dict[str, str], browser: Browser) -> None:
    """Progress, then the verdict with what was checked, the time, and its ratio to the answer's own."""
    with desk(stage) as program, opened(browser, program.url) as page:
        page.goto(f"/receipt/{replies['pinned']}#owner={TOKEN}")
        button = page.get_by_role("button", name="Run the full audit here")
        button.click()
        page.wait_for_selector(".audit progress")
        check_access(page)
        assert button.is_disabled()
        program.finish.set()
        expect(page.locator(".audit")).to_contain_text("The audit holds")
        expect(page.locator(".audit")).to_contain_text("12 tokens computed again · in 1.5 s")
        expect(page.locator(".audit")).to_contain_text("times as long as the answer took")
        expect(page.locator(".audit")).to_contain_text("every <b>number</b> is equal")
        assert button.is_enabled()
        expect(page.locator(".said")).not_to_contain_text("vocabulary")  # this program has it
        known = page.evaluate("fetch(location.pathname.replace('/', '/window/')).then((reply) => reply.json())")
        assert known["receipts"][0]["voucher"] == str(5 * 10**18)
        picture(page, "receipt-audited")


def test_an_audit_ends_when_its_page_is_left_or_says_so(
    stage: Stage, replies: dict[str, str], browser: Browser
) -> None:
    """By the button, and by going away."""
    with desk(stage) as program, opened(browser, program.url) as page:
        page.goto(f"/receipt/{replies['pinned']}#owner={TOKEN}")
        page.get_by_role("button", name="Run the full audit here").click()
        page.get_by_role("button", name="Stop").click()
        expect(page.locator(".audit")).to_contain_text("was stopped")
        page.get_by_role("button", name="Run the full audit here").click()
        page.wait_for_selector(".audit progress")
        page.goto("/receipt")
        for _ in range(100):
            if len(program.seen) == 2:
                break
            page.wait_for_timeout(50)
        assert program.seen == [True, True]


def test_an_audit_without_the_model_says_how_to_get_it(stage: Stage, replies: dict[str, str], browser: Browser) -> None:
    """In words, on the page."""
    with desk(stage, here=False) as program, opened(browser, program.url) as page:
        page.goto(f"/receipt/{replies['pinned']}#owner={TOKEN}")
        page.get_by_role("button", name="Run the full audit here").click()
        expect(page.locator(".audit")).to_contain_text("is not on this machine")
        expect(page.locator(".audit")).to_contain_text("assay models add FILE")


def test_audits_are_the_owners(stage: Stage, replies: dict[str, str], browser: Browser) -> None:
    """Without the token there is no button, and no answer; one at a time; only of what is kept, asked in JSON."""
    with desk(stage) as program, opened(browser, program.url) as page:
        page.goto(f"/receipt/{replies['pinned']}")
        page.wait_for_selector(".verdict.good")
        assert page.get_by_role("button", name="Run the full audit here").count() == 0
        path = f"{program.url}/window/owner/audits"
        digest = Bundle.decode(httpx.get(f"{stage.url}/receipts/{replies['pinned']}").content).receipt.digest.hex()
        body = {"name": replies["pinned"], "receipt": digest}
        owner = {"authorization": f"Bearer {TOKEN}"}
        for method in ("GET", "POST", "DELETE"):
            assert httpx.request(method, path).status_code == 403
            assert httpx.request(method, path, headers={"authorization": "Bearer " + "u" * 43}).status_code == 403
            crossed = owner | {"sec-fetch-site": "cross-site"}
            assert httpx.request(method, path, headers=crossed).status_code == 403
        assert httpx.get(path, headers=owner).json() == {}
        assert httpx.post(path, content=json.dumps(body), headers=owner).status_code == 400
        for wrong in ({}, body | {"receipt": 1}, body | {"more": 1}, [], "x"):
            assert httpx.post(path, json=wrong, headers=owner).status_code == 400
        assert httpx.post(path, json=body | {"receipt": "00" * 32}, headers=owner).status_code == 404
        assert httpx.post(path, json=body, headers=owner).status_code == 202
        busy = httpx.post(path, json=body, headers=owner)
        assert busy.status_code == 429
        assert "another receipt is being checked" in busy.text
        assert httpx.request("DELETE", path, headers=owner).status_code == 400
        assert httpx.request("DELETE", path, headers=owner, json={}).status_code == 200
