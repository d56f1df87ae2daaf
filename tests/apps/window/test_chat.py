"""The chat: asking, stopping, what is kept and exported; and answers, names and errors that attack the reader."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, Request, Route, expect
from tests.apps.window import hostile
from tests.apps.window.browser import (
    LOST,
    Stage,
    check_access,
    check_width,
    in_thread,
    looked_at,
    opened,
    picture,
    staged,
)
from tests.apps.window.nodes import node
from tests.apps.window.scripted import ScriptedEngine
from tests.tiny import MODEL, TinyEngine, TinyModel, tiny_bundle, tiny_key, tiny_request
from typing_extensions import override

from assay.apps.window.chat import MOST_MODELS, MOST_PRICES, price_of, summary
from assay.core.bundle import Bundle
from assay.core.completion import Prompt, Step
from assay.core.errors import EngineError, InvalidRequest
from assay.core.hashing import digest
from assay.core.offer import Offer, Price
from assay.core.request import Level
from assay.core.request import Request as AnswerRequest

MANNERS = """# Rivers

Water *finds* its **way**. See [the atlas](https://example.org/rivers?from=here) for more.

1. a spring
2. a stream

| name | km |
|---|---|
| Rhône | 813 |

```python
for river in ("Rhône", "Nile"):
    print(river)
```

> and so to the sea
"""


class BreaksOnce(TinyEngine):
    """Fails in mid-answer, if no other one with the same list did before."""

    def __init__(self, broken: list[int]) -> None:
        super().__init__()
        self._broken = broken

    @override
    async def generate(
        self, request: AnswerRequest, prompt: Prompt, *, top_logprobs: int | None = None
    ) -> AsyncIterator[Step]:
        async for step in super().generate(request, prompt, top_logprobs=top_logprobs):
            if step.index == 3 and not self._broken:
                self._broken.append(step.index)
                raise EngineError("the tiny engine broke", "this was asked for by a test")
            yield step


def says(question: str) -> Sequence[str]:
    """The script of these tests, by the question."""
    if question.startswith("attack "):
        text = hostile.ALL[int(question.removeprefix("attack "))]
        return [text[at : at + 50_000] for at in range(0, len(text), 50_000)]
    if question.startswith("refuse "):
        raise InvalidRequest(hostile.ALL[int(question.removeprefix("refuse "))][:1000])
    if question == "long":
        return ["word "] * 2000
    return re.findall(r".{1,12}", MANNERS, re.DOTALL)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A gateway over one provider that says what is scripted."""
    with staged(tmp_path_factory.mktemp("stage"), [ScriptedEngine(says, delay=0.02)]) as found:
        yield found


@contextmanager
def chatting(browser: Browser, url: str, **how: Any) -> Iterator[Page]:
    """The page, ready for a question; requests may fail."""
    with opened(browser, url, but=LOST, **how) as page:
        page.goto("/")
        page.wait_for_selector("html[data-ready]")
        yield page


def ask(page: Page, question: str, *, settled: bool = True) -> None:
    """Send a question, and wait until its answer has ended."""
    page.fill("#question", question)
    page.press("#question", "Enter")
    if settled:
        page.wait_for_selector("#send:not([hidden])", timeout=60_000)


def identity(page: Page) -> str:
    """The id of the last answer, from its badge."""
    href = page.get_attribute(".turn:last-child .badge", "href")
    assert href is not None
    return href.removeprefix("/receipt/")


def test_an_answer_and_its_badge(stage: Stage, browser: Browser) -> None:
    """It streams in, is shown as Markdown, and wears level, what was checked, cost and speed; they lead to the
    receipt."""
    with chatting(browser, stage.url) as page:
        expect(page.locator("#model option")).to_have_text([MODEL])
        expect(page.locator("#level option")).to_have_count(2)
        page.fill("#question", "Rivers?")
        expect(page.locator("#estimate")).to_contain_text("1,026 wei")  # 2 of the prompt at 1, 512 at 2
        ask(page, "Rivers?", settled=False)
        expect(page.locator(".turn.running .text")).to_contain_text("Rivers")
        page.wait_for_selector("#send:not([hidden])")
        answer = page.locator(".turn .text")
        assert answer.locator("h3").inner_text() == "Rivers"
        assert answer.locator("strong").inner_text() == "way"
        assert answer.locator("td").all_inner_texts() == ["Rhône", "813"]
        assert answer.locator("a").get_attribute("rel") == "noopener noreferrer nofollow"
        assert "(example.org)" in answer.inner_text()
        assert answer.locator("pre").inner_text().startswith("for river in")
        badge = page.locator(".badge").inner_text()
        assert re.match(r"(?s)Receipt:\s*signed.*receipt checked.*wei.*tokens/s", badge), badge
        [bundle] = [Bundle.decode(httpx.get(f"{stage.url}/receipts/{identity(page)}").content)]
        assert f"{bundle.receipt.amount:,} wei" in badge
        assert httpx.get(f"{stage.url}/window/chat/cost/{identity(page)}").json() == {"wei": str(bundle.receipt.amount)}
        page.click(".facts summary")
        assert tiny_key(1).address in page.locator(".facts").inner_text()
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.click(".copy")
        expect(page.locator(".copy")).to_have_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()").startswith("for river in")
        check_access(page)
        picture(page, "chat-answer")
    assert bundle.receipt.stop == "stop"


def test_on_a_node(tmp_path: Path, browser: Browser) -> None:
    """A node checks nothing of what it signs itself, and the badge does not say so."""
    with in_thread(node(tmp_path, TinyEngine())) as url, chatting(browser, url) as page:
        page.fill("#question", "Hello")
        expect(page.locator("#estimate")).to_have_text("Estimate: free.")
        assert page.locator("#level option").all_inner_texts()[1:] == ["pinned", "statistical", "signed"]
        page.select_option("#level", "statistical")
        ask(page, "Hello")
        badge = page.locator(".badge").inner_text()
        assert "statistical" in badge
        assert "signed by this node" in badge
        assert "free" in badge


def test_stop_in_mid_answer(stage: Stage, browser: Browser) -> None:
    """What was delivered is covered by a receipt that says `cancelled`, and the page goes on."""
    with chatting(browser, stage.url) as page:
        page.fill("#most", "4000")
        ask(page, "long", settled=False)
        expect(page.locator(".turn .text")).to_contain_text("word word")
        picture(page, "chat-running")
        page.click("#stop")
        expect(page.locator(".turn .badge")).to_be_visible(timeout=20_000)
        assert "stopped" in page.locator(".notes").inner_text()
        [line] = httpx.get(f"{stage.url}/receipts/{identity(page)}").content.splitlines(keepends=True)
        assert Bundle.decode(line).receipt.stop == "cancelled"
        ask(page, "Rivers?")
        expect(page.locator(".turn:last-child .badge")).to_be_visible()


def test_by_keyboard(stage: Stage, browser: Browser) -> None:
    """Shift and Enter begin a line, Enter sends, Escape stops, and the place to type is not lost."""
    with chatting(browser, stage.url) as page:
        page.focus("#question")
        page.keyboard.type("one")
        page.keyboard.press("Shift+Enter")
        page.keyboard.type("two")
        page.keyboard.press("Enter")
        expect(page.locator(".question")).to_have_text("one\ntwo")
        page.wait_for_selector("#send:not([hidden])")
        page.keyboard.type("long")
        page.keyboard.press("Enter")
        expect(page.locator(".turn:last-child .text")).to_contain_text("word")
        page.keyboard.press("Escape")
        page.wait_for_selector("#send:not([hidden])")
        assert page.evaluate("document.activeElement.id") == "question"


def test_what_is_read_out(stage: Stage, browser: Browser) -> None:
    """The log is one, but its tokens are not announced one by one: the answer is, once, when it is complete."""
    with chatting(browser, stage.url) as page:
        log = page.locator("#log")
        assert (log.get_attribute("role"), log.get_attribute("aria-live")) == ("log", "off")
        page.evaluate(
            "window.said = []; new MutationObserver(() => said.push(document.getElementById('status').textContent))"
            ".observe(document.getElementById('status'), { childList: true })"
        )
        ask(page, "Rivers?")
        said = page.evaluate("window.said")
        assert len(said) == 2
        assert "complete" in said[1]
        assert "Water" in said[1]


def test_history(stage: Stage, browser: Browser) -> None:
    """A conversation is there after a reload and is gone when it is deleted, alone or with all others."""
    with chatting(browser, stage.url) as page:
        ask(page, "Rivers?")
        page.click("#new")
        ask(page, "Other rivers?")
        page.reload()
        page.wait_for_selector("html[data-ready]")
        expect(page.locator(".question")).to_have_text(["Other rivers?"])
        expect(page.locator("#conversations li")).to_have_count(2)
        page.click("#conversations .open >> text=/^Rivers/")
        expect(page.locator(".question")).to_have_text(["Rivers?"])
        expect(page.locator(".badge")).to_be_visible()
        picture(page, "chat-history")
        page.click("[aria-label='Delete “Rivers?”']")
        check_access(page)
        picture(page, "chat-sure")
        page.click("#sure button[value=no]")
        expect(page.locator("#conversations li")).to_have_count(2)
        page.click("[aria-label='Delete “Rivers?”']")
        page.click("#sure button[value=yes]")
        expect(page.locator("#conversations li")).to_have_count(1)
        expect(page.locator(".turn")).to_have_count(0)
        page.click("#delete-all")
        page.click("#sure button[value=yes]")
        expect(page.locator("#conversations li")).to_have_count(0)
        page.reload()
        page.wait_for_selector("html[data-ready]")
        expect(page.locator("#conversations li")).to_have_count(0)


def test_history_is_bounded(stage: Stage, browser: Browser) -> None:
    """The oldest conversations go first, and the oldest turns of one that is too long."""
    with chatting(browser, stage.url) as page:
        source = page.get_attribute("script[src*='chat.js']", "src") or ""
        kept = page.evaluate(
            """async (source) => {
                const { History } = await import(source.replace("chat.js", "history.js"));
                const history = await History.open();
                const turn = (text) => ({ question: "q", text });
                for (let n = 0; n < 103; n++) await history.keep({ id: `c${n}`, turns: [turn("short")] });
                await history.keep({ id: "long", turns: [turn("x".repeat(6e6)), turn("y".repeat(6e6))] });
                return (await history.all()).map(({ id, turns }) => [id, turns.map(({ text }) => text[0]).join("")]);
            }""",
            source,
        )
        assert len(kept) == 100
        assert kept[0] == ["long", "y"]
        assert {name for name, _ in kept}.isdisjoint(f"c{n}" for n in range(4))


def test_without_storage(stage: Stage, browser: Browser) -> None:
    """Where a browser keeps nothing the page works, and says so."""
    with opened(browser, stage.url, but=LOST) as page:
        page.add_init_script(
            "for (const name of ['indexedDB', 'localStorage', 'sessionStorage'])"
            "Object.defineProperty(window, name, { get() { throw new DOMException('off', 'SecurityError'); } })"
        )
        page.goto("/")
        page.wait_for_selector("html[data-ready]")
        expect(page.locator("#kept")).to_contain_text("keeps nothing")
        ask(page, "Rivers?")
        expect(page.locator(".badge")).to_be_visible()
        expect(page.locator("#conversations li")).to_have_count(1)


def test_a_page_that_was_left(stage: Stage, browser: Browser) -> None:
    """What had come of an answer is kept, and is not shown as whole."""
    with chatting(browser, stage.url) as page:
        page.fill("#most", "4000")
        ask(page, "long", settled=False)
        page.wait_for_timeout(2500)
        page.reload()
        page.wait_for_selector("html[data-ready]")
        assert "closed before" in page.locator(".notes").inner_text()
        assert "word" in page.locator(".text").inner_text()


def test_exports(stage: Stage, browser: Browser) -> None:
    """JSON with receipts that `assay verify` reads, and Markdown that leads to them."""
    with chatting(browser, stage.url) as page:
        ask(page, "Rivers?")
        ask(page, "refuse 0")
        with page.expect_download() as saved:
            page.click("#save-json")
        told = json.loads(Path(saved.value.path()).read_text(encoding="utf-8"))
        assert told["format"] == "assay-conversation/1"
        first, second = told["turns"]
        assert first["answer"] == MANNERS
        [bundle] = [Bundle.decode(each.encode()) for each in first["receipts"]]
        assert bundle.request.messages[-1].content == "Rivers?"
        assert second["receipts"] == []
        assert second["state"] == "failed"
        with page.expect_download() as saved:
            page.click("#save-markdown")
        text = Path(saved.value.path()).read_text(encoding="utf-8")
        assert f"{stage.url}/receipt/{first['id']}" in text
        assert "> Rivers?" in text


def test_failures_say_what_to_do(stage: Stage, browser: Browser) -> None:
    """The server's words, what to do, and a way to ask again."""
    with chatting(browser, stage.url) as page:
        page.route("**/v1/chat/completions", lambda route: route.abort())
        page.fill("#question", "Rivers?")
        page.press("#question", "Enter")
        expect(page.locator(".failure")).to_contain_text("does not answer")
        page.unroute("**/v1/chat/completions")
        page.click(".again")
        expect(page.locator(".turn .badge")).to_be_visible()
        expect(page.locator(".turn")).to_have_count(1)


def test_failover_shows_each_receipt(tmp_path: Path, browser: Browser) -> None:
    """Where a provider breaks off and another goes on, the badge counts both receipts and says why."""
    broken: list[int] = []
    engines = [BreaksOnce(broken), BreaksOnce(broken)]
    with staged(tmp_path, engines) as stage, chatting(browser, stage.url) as page:
        ask(page, "Say something.")
        assert broken
        assert "2 receipts" in page.locator(".badge").inner_text()
        page.click(".facts summary")
        told = page.locator(".facts").inner_text()
        assert "another one went on" in told
        assert all(tiny_key(number).address in told for number in (1, 2))


class Watch:
    """Notices whatever a page must not do."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.wrong: list[str] = []
        page.on("dialog", lambda dialog: self.wrong.append(f"dialog {dialog.message}"))
        page.on("request", self._asked)
        page.on("popup", lambda popup: self.wrong.append(f"popup {popup.url}"))
        self.url = url

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.wrong.append(f"request {request.url}")

    def check(self) -> None:
        """Nothing ran, loaded or moved; the page's own elements are what they were."""
        assert not self.wrong, self.wrong
        assert self.page.evaluate("window.pwned === undefined && Object.prototype.pwned === undefined")
        assert self.page.url == f"{self.url}/"
        assert self.page.title() == "Chat · Assay"
        bad = self.page.evaluate(
            """() => [...document.querySelectorAll("#log *, #model *, #conversations *")].filter((element) =>
                /^(script|style|link|base|meta|form|iframe|object|embed|img|svg|math|input|template|h1)$/i
                    .test(element.localName)
                || element.id || element.hasAttribute("name") || element.hasAttribute("style")
                || [...element.attributes].some(({ name }) => name.startsWith("on"))
                || (element.localName === "a" && !/^(https?|mailto):/.test(element.href))
                || (element.target && element.rel !== "noopener noreferrer nofollow")
            ).map((element) => element.outerHTML.slice(0, 200))"""
        )
        assert not bad, bad


def readable(text: str) -> None:
    """Something of the words is there."""
    assert "pwned" in text or "innocent" in text, text[:300]
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b\ufeff\u0000-\u0008\U000e0000-\U000e007f]", text), text


def streamed(body: str) -> Callable[[Route], None]:
    """Answers with this as the stream."""
    return lambda route: route.fulfill(body=body, content_type="text/event-stream")


@pytest.mark.slow
@pytest.mark.parametrize("group", range(6))
def test_hostile_answers(stage: Stage, browser: Browser, group: int) -> None:
    """Nothing of the corpus runs, loads or leads away, when it comes, and when it comes back from what was kept."""
    numbers = range(group, len(hostile.ALL), 6)
    with chatting(browser, stage.url) as page:
        watch = Watch(page, stage.url)
        for number in numbers:
            ask(page, f"attack {number}")
            readable(page.locator(".turn:last-child .text").inner_text())
            watch.check()
        page.reload()
        page.wait_for_selector("html[data-ready]")
        assert page.locator(".turn").count() == len(numbers)
        watch.check()
        check_width(page)


@pytest.mark.slow
@pytest.mark.parametrize("group", range(3))
def test_hostile_errors(stage: Stage, browser: Browser, group: int) -> None:
    """A provider's reason for refusing is text."""
    with chatting(browser, stage.url) as page:
        watch = Watch(page, stage.url)
        for number in range(group, len(hostile.ALL), 3):
            ask(page, f"refuse {number}")
            readable(page.locator(".turn:last-child .failure").inner_text())
            watch.check()


@pytest.mark.slow
def test_hostile_questions(stage: Stage, browser: Browser) -> None:
    """What a reader pastes is text as well, in the conversation and in the list."""
    with chatting(browser, stage.url) as page:
        watch = Watch(page, stage.url)
        for text in hostile.ALL[::8]:
            page.click("#new")
            ask(page, text[:2000])
            readable(page.locator(".question").inner_text())
        watch.check()
        check_width(page)


@pytest.mark.slow
def test_hostile_models(stage: Stage, browser: Browser) -> None:
    """Names of models are text; what is listed and is no level and no price is passed over."""
    prices = [["0", "0"], ["1e9", "-1"], [None, {}], ["1", "9" * 5000]]
    listed = [{"id": text[:256], "levels": [{"level": "signed", "prices": prices}]} for text in hostile.ALL]
    wrong = [None, {}, {"id": 5, "levels": []}, {"id": "x", "levels": [{"level": "<b>", "prices": prices}]}]

    def tell(route: Route) -> None:
        route.fulfill(json={"models": [*wrong, *listed]})

    with opened(browser, stage.url, but=LOST) as page:
        watch = Watch(page, stage.url)
        page.route("**/window/chat/models", tell)
        page.goto("/")
        page.wait_for_selector("html[data-ready]")
        names = page.locator("#model option").all_text_contents()
        assert len(names) == len(listed)
        for name in names:
            readable(name + "pwned")
        for number in range(0, len(listed), 20):
            page.select_option("#model", index=number)
            assert page.locator("#estimate").inner_text() == "Estimate: free at the lowest price on offer."
            page.fill("#question", "Hello")
            page.press("#question", "Enter")
            page.wait_for_selector("#send:not([hidden])")
            assert "Choose another" in page.locator(".turn:last-child .failure").inner_text()
        watch.check()
        check_width(page)


def test_a_hostile_name_on_the_way(tmp_path: Path, browser: Browser) -> None:
    """A model whose real name is an attack can be chosen and asked."""
    name = "<img src=x onerror=window.pwned=1>\u202e"
    engine = ScriptedEngine(lambda _question: ["fine"], model=name)
    with staged(tmp_path, [engine]) as stage, chatting(browser, stage.url) as page:
        watch = Watch(page, stage.url)
        ask(page, "Hello")
        expect(page.locator(".text")).to_have_text("fine")
        readable(page.locator(".who").inner_text())
        expect(page.locator(".badge")).to_be_visible()
        watch.check()


@pytest.mark.slow
def test_hostile_receipts(stage: Stage, browser: Browser) -> None:
    """Receipts that are none give no badge; what a badge tells is numbers and known words."""
    good = tiny_bundle(tiny_request(level="signed"), tiny_key(), 1).receipt.to_json()
    attack = "<img src=x onerror=window.pwned=1>"
    wrong: list[object] = [
        None, 5, [None, 5, attack], [{**good, "level": attack}], [{**good, "amount": attack}], [{**good, "amount": 5}],
    ]  # fmt: skip
    odd = [{**good, "provider": attack, "stop": attack, "prompt_count": attack, "output_count": -1e99}]
    with chatting(browser, stage.url) as page:
        watch = Watch(page, stage.url)
        for receipts in [*wrong, odd]:
            head = {"id": "chatcmpl-x/../" + attack, "choices": [{"delta": {"content": "words"}}]}
            last = {"choices": [], "usage": {"completion_tokens": attack}, "assay": {"receipts": receipts}}
            body = "".join(f"data: {json.dumps(each)}\n\n" for each in (head, last)) + "data: [DONE]\n\n"
            page.route("**/v1/chat/completions", streamed(body))
            page.route("**/receipts/**", lambda route: route.fulfill(body="{}\n\nnothing"))
            ask(page, "Hello")
            expect(page.locator(".turn:last-child .text")).to_have_text("words")
            assert page.locator(".turn:last-child .badge").count() == (receipts is odd)
            page.unroute("**/v1/chat/completions")
        page.click(".turn:last-child .facts summary")
        assert attack in page.locator(".facts").inner_text()
        watch.check()


@pytest.mark.parametrize(
    "body",
    ["data: nothing\n\n", "data: 5\n\n", "data: {}\n\n", 'data: {"choices": 5}\n\n', "", "x" * 5_000_000],
    ids=["no-json", "number", "empty", "odd", "nothing", "endless"],
)
def test_garbage(stage: Stage, browser: Browser, body: str) -> None:
    """A stream that is none ends as a failure in words."""
    with chatting(browser, stage.url) as page:
        page.route("**/v1/chat/completions", streamed(body))
        ask(page, "Hello")
        expect(page.locator(".failure")).to_be_visible()


@pytest.mark.slow
def test_looks(stage: Stage, browser: Browser) -> None:
    """Before the first question: readable by all, nothing sticks out."""
    looked_at(browser, stage.url, "/", "chat", "html[data-ready]")


@pytest.mark.parametrize(("lang", "theme", "width"), [("en", "dark", 360), ("fr", "light", 1600), ("ar", "dark", 800)])
def test_looks_of_a_conversation(stage: Stage, browser: Browser, lang: str, theme: str, width: int) -> None:
    """The same with answers, one of which failed."""
    with chatting(browser, stage.url, lang=lang, theme=theme, width=width) as page:
        ask(page, "Rivers?")
        ask(page, "refuse 70")
        page.locator(".facts summary").click()
        check_access(page)
        check_width(page)
        picture(page, f"chat-talk-{lang}-{theme}-{width}")


def offer(price: Price, *, level: Level = "pinned", model: str = "m", chat: bool = True, provider: int = 1) -> Offer:
    """An offer."""
    return Offer(
        tiny_key(provider).address, "http://x", model, TinyModel().digest, level, price, 2048, chat, False,
        digest("assay/x/1"), "gumbel/1",
    )  # fmt: skip


def test_what_can_be_asked_for() -> None:
    """Levels strongest first, with the prices that no other undercuts; neither models nor prices without end."""
    offers = [offer(Price(*each)) for each in ((3, 1), (1, 3), (2, 2), (3, 3), (2, 5), (1, 3))]
    offers += [offer(Price(0, 0), level="exact"), offer(Price(0, 0), level="signed", chat=False)]
    [model] = summary(offers)
    assert isinstance(model, dict)
    exact, pinned = model["levels"]
    assert (exact["level"], exact["prices"]) == ("exact", [["0", "0"]])
    assert pinned == {
        "level": "pinned", "offers": 6, "context": 2048, "prices": [["1", "3"], ["2", "2"], ["3", "1"]]
    }  # fmt: skip
    [model] = summary([offer(Price(n, 100 - n)) for n in range(100)])
    assert isinstance(model, dict)
    assert len(model["levels"][0]["prices"]) == MOST_PRICES
    many = [offer(Price(1, 1), model=f"m{n}") for n in range(MOST_MODELS + 9)]
    listed = summary([*many, many[-1]])
    assert len(listed) == MOST_MODELS
    assert isinstance(listed[0], dict)
    assert listed[0]["id"] == many[-1].model


def test_what_an_answer_cost(stage: Stage) -> None:
    """Receipts say it, or, on a channel, the provider's price; where that is not listed, nothing is made up."""
    free = tiny_bundle(tiny_request(), tiny_key(), 1, amount=7)
    assert price_of([free, free], []) == 14
    paid = replace(free, receipt=replace(free.receipt, channel=bytes([1]) * 32, amount=10**20))
    assert price_of([paid], []) is None
    price = Price(3, 5)
    counts = paid.receipt.prompt_count, paid.receipt.output_count
    assert price_of([paid, free], [offer(price, model=MODEL)]) == price.of(*counts) + 7
    assert httpx.get(f"{stage.url}/window/chat/cost/nothing").status_code == 404
    assert httpx.get(f"{stage.url}/window/chat/cost/{'A' * 43}").status_code == 404
