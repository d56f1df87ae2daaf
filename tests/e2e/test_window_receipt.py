"""The page of receipts in a real browser, before a real program with the real model."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect
from tests.apps.window.browser import check_access, opened, picture
from tests.e2e.conftest import ENGINES
from tests.e2e.kit import MODEL, Place

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.model]


@ENGINES
def test_a_receipt_is_checked_and_audited(tmp_path: Path, model_path: Path, browser: Browser, engine: str) -> None:
    """`assay up`: the permanent link shows question, answer and journey, the owner's audit computes it again and holds,
    and a file with another word names it."""
    place = Place(tmp_path)
    up = ("up", "--port", "0", "--json", "--threads", "1", "--context", "512", "--model", str(model_path))
    up += ("--engine", engine)
    with place.running("up", *up) as node:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Name a colour."}], "max_tokens": 16}
        reply = httpx.post(f"{node.url}/v1/chat/completions", json=body, timeout=120).json()
        token = (tmp_path / "home" / "window-token").read_text().strip()
        with opened(browser, node.url) as page:
            page.goto(f"/receipt/{reply['id']}#owner={token}")
            expect(page.locator(".verdict h2")).to_contain_text("holds")
            expect(page.locator(".said")).to_contain_text(reply["choices"][0]["message"]["content"].strip()[:20])
            page.get_by_role("button", name="Run the full audit here").click()
            expect(page.locator(".audit")).to_contain_text("The audit holds", timeout=120_000)
            expect(page.locator(".audit")).to_contain_text("tokens computed again")
            level = httpx.get(f"{node.url}/receipts/{reply['id']}").json()["receipt"]["level"]
            assert level == ("exact" if engine == "exact" else "pinned")
            check_access(page)
            picture(page, "receipt-real")
            value = httpx.get(f"{node.url}/receipts/{reply['id']}").json()
            value["request"]["messages"][0]["content"] = "Name a color."
            text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
            page.set_input_files(
                "#file", files=[{"name": "r.json", "mimeType": "application/json", "buffer": text.encode()}]
            )
            expect(page.locator(".verdict.bad .field")).to_have_text("request")
