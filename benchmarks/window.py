"""How soon the window's pages are there, and its long tables answer: a gateway that knows 10,000 providers and keeps
100,000 receipts.

Tables: the server alone, over HTTP on loopback; and in a headless Chromium, if there is one, from a click to painted
rows. Pages: in that browser, with nothing kept, from the address to what a reader can use. Each figure is the 95th
percentile of ROUNDS (of pages: LOADS), beside the median.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import httpx
import numpy as np
from playwright.sync_api import Browser, Page, sync_playwright
from tests.apps.window.browser import MOST_BYTES, TOKEN, find_browser, loaded
from tests.apps.window.crowd import MODELS, crowd, made_up

from assay.apps.figures import Figure, Say

PROVIDERS: Final = 10_000
RECEIPTS: Final = 100_000
ROUNDS: Final = 40
LOADS: Final = 20
BAR_MS: Final = 200.0
BAR_LOAD_MS: Final = 1000.0
_PAGES: Final = {
    "chat": ("/", "html[data-ready]"),
    "receipt": ("/receipt", "#drop"),
    "network": (f"/network#owner={TOKEN}", "#receipts tbody tr"),
    "court": ("/court", ".missing"),
    "doubt": (f"/doubt#owner={TOKEN}", "#cheats input"),
    "node": (f"/node#owner={TOKEN}", "#facts dd"),
}
"""Where they are, and what is there once they can be used."""
_SERVED: Final = {
    "providers.page": ("/window/providers", "page"),
    "providers.filter": ("/window/providers", "model"),
    "providers.search": ("/window/providers", "text"),
    "providers.sort": ("/window/providers", "sort"),
    "receipts.page": ("/window/receipts", "page"),
    "receipts.filter": ("/window/receipts", "level"),
    "receipts.search": ("/window/receipts", "text"),
    "receipts.sort": ("/window/receipts", "sort"),
}
_PAINTED: Final = """
async ({ root, target, values, round }) => {
  const table = document.querySelector(`${root} table`);
  const named = document.querySelector(`${root} ${target}`);
  const field = named.getAttribute("aria-disabled") === "true" ? named.previousElementSibling : named;
  const changed = new Promise((resolve) => {
    new MutationObserver((_, watch) => {
      if (table.hasAttribute("aria-busy")) return;
      watch.disconnect();
      resolve();
    }).observe(table, { attributeFilter: ["aria-busy"] });
  });
  const began = performance.now();
  if (field.tagName === "BUTTON") field.click();
  else {
    field.value = values[round % values.length];
    field.dispatchEvent(new Event(field.type === "search" ? "input" : "change", { bubbles: true }));
  }
  await changed;
  await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
  return performance.now() - began;
}
"""
"""Milliseconds from a click, or a choice, until the rows that answer it are painted."""


def measure(
    say: Say, *, providers: int = PROVIDERS, receipts: int = RECEIPTS, rounds: int = ROUNDS, loads: int = LOADS
) -> Iterator[Figure]:
    """Pages, filters, searches and sorting of both tables; first loads of all pages."""
    say(f"signing {providers} records, keeping {receipts} receipts")
    records = list(made_up(providers))
    with (
        tempfile.TemporaryDirectory(prefix="assay-bench-") as scratch,
        crowd(Path(scratch), records, receipts=receipts, contents=True) as found,
    ):
        with httpx.Client(base_url=found.url, headers={"authorization": f"Bearer {TOKEN}"}, timeout=60) as client:
            for name, (path, what) in _SERVED.items():
                yield from _figures(say, f"{name}.served", _served(client, path, what), rounds)
        with sync_playwright() as playwright:
            program = find_browser(playwright.chromium)
            if program is None:
                say("there is no Chromium here (`make browser`): nothing is measured in one")
                return
            browser = playwright.chromium.launch(executable_path=program, chromium_sandbox=False)
            yield from _in_browser(say, browser, found.url, rounds)
            yield from _first_loads(say, browser, found.url, loads)
            browser.close()


def _served(client: httpx.Client, path: str, what: str) -> Callable[[int], float]:
    """Asks for what this round wants; each round something that was not asked for just before."""
    orders = ("amount", "tokens", "kept") if path.endswith("receipts") else ("pace", "price", "first", "stake")
    after = [""]

    def once(number: int) -> float:
        query = {
            "page": {"after": after[0]},
            "model": {"model": MODELS[number % len(MODELS)]},
            "level": {"level": ("exact", "pinned", "statistical", "signed")[number % 4], "outcome": "fails"},
            "text": {"text": f"0x{number:02x}"},
            "sort": {"sort": orders[number % len(orders)], "descending": str(number // len(orders) % 2)},
        }[what]
        began = time.perf_counter()
        reply = client.get(path, params=query)
        taken = 1000 * (time.perf_counter() - began)
        page = reply.raise_for_status().json()
        assert page["rows"] or page["found"] == 0
        after[0] = page["next"] or ""
        return taken

    return once


def _in_browser(say: Say, browser: Browser, url: str, rounds: int) -> Iterator[Figure]:
    page = browser.new_page(base_url=url, viewport={"width": 1280, "height": 900})
    acts = {
        "providers.page": ("#providers", "[data-next]", []),
        "providers.filter": ("#providers", "[name=model]", list(MODELS)),
        "providers.search": ("#providers", "[name=text]", ["eu", "us-east", "ap", "0x1"]),
        "providers.sort": ("#providers", "[data-sort=pace]", []),
        "receipts.page": ("#receipts", "[data-next]", []),
        "receipts.filter": ("#receipts", "[name=level]", ["exact", "pinned", "signed", "statistical"]),
        "receipts.search": ("#receipts", "[name=text]", ["0x0", "0x1", "0x2a", "00"]),
        "receipts.sort": ("#receipts", "[data-sort=amount]", []),
    }
    for name, (root, target, values) in acts.items():
        page.goto(f"/network#owner={TOKEN}")
        page.reload()
        page.wait_for_selector("#providers tbody tr")
        page.wait_for_selector("#receipts tbody tr")
        yield from _figures(say, f"{name}.painted", _painted(page, root, target, values), rounds)


def _first_loads(say: Say, browser: Browser, url: str, loads: int) -> Iterator[Figure]:
    for name, (path, ready) in _PAGES.items():
        sizes, times = [], []
        for _ in range(loads):
            context = browser.new_context(base_url=url, viewport={"width": 1280, "height": 900})
            page = context.new_page()
            began = time.perf_counter()
            page.goto(path)
            page.wait_for_selector(ready, state="attached")
            times.append(1000 * (time.perf_counter() - began))
            sizes.append(loaded(page))
            context.close()
        late = float(np.percentile(times, 95))
        say(f"{name}: {max(sizes)} bytes, {np.median(times):.0f} ms, 95th percentile {late:.0f} ms")
        yield Figure(f"{name}.loaded", max(sizes), "bytes", MOST_BYTES, max(sizes) < MOST_BYTES, loads)
        yield Figure(f"{name}.usable_p50", float(np.median(times)), "ms", None, None, loads)
        yield Figure(f"{name}.usable_p95", late, "ms", BAR_LOAD_MS, late < BAR_LOAD_MS, loads)


def _painted(page: Page, root: str, target: str, values: list[str]) -> Callable[[int], float]:
    def once(number: int) -> float:
        found: float = page.evaluate(_PAINTED, {"root": root, "target": target, "values": values, "round": number})
        page.wait_for_timeout(50)
        return found

    return once


def _figures(say: Say, name: str, once: Callable[[int], float], rounds: int) -> Iterator[Figure]:
    once(0)
    times = [once(number) for number in range(1, rounds + 1)]
    late = float(np.percentile(times, 95))
    say(f"{name}: {np.median(times):.0f} ms, 95th percentile {late:.0f} ms")
    yield Figure(f"{name}_p50", float(np.median(times)), "ms", None, None, rounds)
    yield Figure(f"{name}_p95", late, "ms", BAR_MS, late < BAR_MS, rounds)
