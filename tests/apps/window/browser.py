"""A real browser over real servers: what the tests of pages share."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserType, ConsoleMessage, Page, sync_playwright
from tests.running import provider, running
from tests.tiny import TinyEngine, tiny_key

from assay.apps.doubting import Doubts
from assay.apps.gateway import gateway_app
from assay.apps.logs import Recent
from assay.apps.window.courtroom import Courtroom
from assay.apps.window.owner import Owner
from assay.apps.window.sources import Upkeep
from assay.apps.window.texts import LANGUAGES
from assay.apps.window.window import Window
from assay.core.ports import Engine
from assay.journey import MarketAnswers
from assay.network.http import HttpTransport, Patience
from assay.store.receipts import ReceiptStore

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TOKEN: Final = "t" * 43
THEMES: Final = ("light", "dark")
LOST: Final = "^Failed to load resource"
"""What browsers log of a request that fails."""
PICTURES: Final = "ASSAY_PICTURES"
MOST_BYTES: Final = 200_000
"""Of a page's first load."""
"""Names the folder into which tests put what pages look like."""


def find_browser(chromium: BrowserType) -> str | None:
    """The program of a Chromium: ASSAY_BROWSER, one on the PATH, or Playwright's own."""
    named = [os.environ.get("ASSAY_BROWSER"), *map(shutil.which, NAMES), chromium.executable_path]
    return next((path for path in named if path and Path(path).exists()), None)


@contextmanager
def launched() -> Iterator[Browser]:
    """A headless Chromium, for one module: while it runs, the thread has no event loop for other tests."""
    with sync_playwright() as playwright:
        path = find_browser(playwright.chromium)
        if path is None:
            if os.environ.get("CI"):
                raise RuntimeError("there is no Chromium here: run `make browser`")
            pytest.skip("there is no Chromium here: `make browser` fetches one")
        # Root, as in containers, has no sandbox.
        browser = playwright.chromium.launch(executable_path=path, chromium_sandbox=os.geteuid() != 0)
        yield browser
        browser.close()


@contextmanager
def misled(browser: Browser, name: str) -> Iterator[Browser]:
    """Another one, for which `name` leads to this machine."""
    kind = browser.browser_type
    other = kind.launch(
        executable_path=find_browser(kind),
        chromium_sandbox=os.geteuid() != 0,
        args=[f"--host-resolver-rules=MAP {name} 127.0.0.1"],
    )
    yield other
    other.close()


@contextmanager
def opened(
    browser: Browser, url: str, *, width: int = 1280, theme: str = "light", lang: str = "en", but: str = "favicon"
) -> Iterator[Page]:
    """A page of a reader of its own; fails if the page logs an error or breaks its own security policy. `but`: pattern
    of errors that are meant to come."""
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if theme == "dark" else "light",
        locale=lang,
        base_url=url,
    )
    page, wrong = context.new_page(), list[str]()

    def heard(message: ConsoleMessage) -> None:
        if message.type == "error" and not re.search(but, message.text):
            wrong.append(message.text)

    page.on("console", heard)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    yield page
    context.close()
    assert not wrong, wrong


def check_access(page: Page) -> None:
    """axe-core finds nothing serious or critical on a page as it is."""
    found = Axe().run(page).response["violations"]
    bad = [
        f"{each['id']} ({each['impact']}): {each['help']}: {[node['html'][:150] for node in each['nodes']][:5]}"
        for each in found
        if each["impact"] in ("serious", "critical")
    ]
    assert not bad, "\n".join(bad)


def check_width(page: Page) -> None:
    """Nothing sticks out to the side."""
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def loaded(page: Page) -> int:
    """Bytes of the page and of all that it has loaded, as they came over the wire (compressed), without heads."""
    found: int = page.evaluate(
        """["navigation", "resource"].flatMap((kind) => performance.getEntriesByType(kind))
        .reduce((sum, each) => sum + each.encodedBodySize, 0)"""
    )
    return found


def picture(page: Page, name: str) -> None:
    """Keep what a page looks like, where a folder for that is named."""
    if folder := os.environ.get(PICTURES):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def looked_at(browser: Browser, url: str, path: str, name: str, ready: str) -> None:
    """A page in both themes and all languages, on a telephone and on a large screen: small, readable by all, nothing
    sticks out. `ready`: selector of what is there once the page is."""
    for lang in LANGUAGES:
        for theme, width in (("light", 360), ("dark", 1600)):
            with opened(browser, url, width=width, theme=theme, lang=lang) as page:
                page.goto(path)
                page.wait_for_selector(ready)
                assert 5_000 < loaded(page) < MOST_BYTES
                check_access(page)
                check_width(page)
                picture(page, f"{name}-{lang}-{theme}-{width}")


@dataclass
class Stage:
    """A gateway with a window, over providers whose engine is tiny."""

    url: str
    store: ReceiptStore
    market: MarketAnswers
    loop: asyncio.AbstractEventLoop
    """That they run in."""


@contextmanager
def staged(
    root: Path, engines: Sequence[Engine] = (), *, court: Courtroom | None = None, doubts: Doubts | None = None
) -> Iterator[Stage]:
    """The servers, in a thread with an event loop of its own; without engines one provider with a `TinyEngine`.
    `court`: what is shown of a chain's; `doubts`: tries cheats."""

    @asynccontextmanager
    async def servers() -> AsyncIterator[Stage]:
        async with asyncio.TaskGroup():  # so that what fails in a task is seen
            store = ReceiptStore(f"sqlite:///{root / 'gateway.db'}")
            sellers = [provider(root, each, tiny_key(n + 1)) for n, each in enumerate(engines or [TinyEngine()])]
            urls = [(await each.__aenter__()).url for each in sellers]
            transport = HttpTransport(urls, patience=Patience())
            market = MarketAnswers(transport, store)
            upkeep = Upkeep(root / "home", tiny_key(50).address, {}, Recent())
            window = Window(Owner(TOKEN), loopback=True, upkeep=upkeep)
            app = gateway_app(market, store, close=transport.aclose, window=window, court=court, doubts=doubts)
            try:
                async with running(app, drain=market.drain) as url:
                    yield Stage(url, store, market, asyncio.get_running_loop())
            finally:
                for each in sellers:
                    await each.__aexit__(None, None, None)

    with in_thread(servers()) as stage:
        yield stage


@contextmanager
def in_thread(servers) -> Iterator:  # noqa: ANN001
    """What an asynchronous context manager gives, while it runs in a thread of its own."""
    there, over, found, wrong = threading.Event(), asyncio.Event(), [], []
    loop = asyncio.new_event_loop()

    async def run() -> None:
        async with servers as value:
            found.append(value)
            there.set()
            await over.wait()

    def work() -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(run())
        except BaseException as error:  # noqa: BLE001 - raised again in the test's thread
            wrong.append(error)
        finally:
            there.set()
            loop.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    there.wait()
    if wrong:
        raise wrong[0]
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(30)
        if wrong:
            raise wrong[0]
