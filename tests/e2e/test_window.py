"""The window in a real browser, before real processes with the real model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from tests.apps.window.browser import check_access, opened, picture
from tests.e2e.kit import MODEL, Place, bundles

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.model]


def test_a_first_answer(tmp_path: Path, model_path: Path, browser: Browser) -> None:
    """`assay up`: a question in the browser, an answer, and a badge whose receipt another process finds to hold."""
    place = Place(tmp_path)
    up = ("up", "--port", "0", "--json", "--threads", "1", "--context", "512", "--model", str(model_path))
    with place.running("up", *up) as node, opened(browser, node.url) as page:
        page.goto("/")
        expect(page.locator("#model option")).to_have_text([MODEL])
        expect(page.locator("#estimate")).to_have_text("Estimate: free.")
        page.fill("#most", "24")
        page.fill("#question", "Say something about rivers.")
        page.press("#question", "Enter")
        badge = page.locator(".turn .badge")
        expect(badge).to_contain_text("signed by this node", timeout=120_000)
        assert re.search(r"pinned[\s\S]*free[\s\S]*tokens/s", badge.inner_text())
        assert page.locator(".turn .text").inner_text().strip()
        check_access(page)
        picture(page, "chat-real")
        [bundle] = bundles(node.url, (badge.get_attribute("href") or "").removeprefix("/receipt/"))
        assert bundle.request.messages[-1].content == "Say something about rivers."
        verdict = place.verify(bundle.encode(), model_path)
    assert verdict["holds"]
