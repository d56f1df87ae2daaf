"""`python -m tests.e2e.pictures`: the pictures of the README, from the real pages of `assay up` with the real model."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import expect
from tests.apps.window.browser import launched, opened
from tests.e2e.kit import Place

from assay.apps.config import home
from assay.engines.models import pull

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"


def main() -> int:
    """Write them."""
    FOLDER.mkdir(exist_ok=True)
    model = pull("smollm2-135m", home()).path
    with tempfile.TemporaryDirectory(prefix="assay-pictures-") as scratch, launched() as browser:
        up = ("up", "--port", "0", "--json", "--context", "1024", "--model", str(model))
        place = Place(Path(scratch))
        with place.running("up", *up) as node, opened(browser, node.url, width=1100) as page:
            page.goto("/")
            page.fill("#most", "80")
            page.fill("#question", "Why is the sky blue?")
            page.press("#question", "Enter")
            badge = page.locator(".turn .badge")
            expect(badge).to_contain_text("signed by this node", timeout=120_000)
            page.screenshot(path=FOLDER / "chat.png")
            page.goto(badge.get_attribute("href") or "")
            expect(page.locator("#verdict")).to_contain_text("holds", timeout=60_000)
            shown = {"x": 0, "y": 0, "width": 1100, "height": 1880}  # down to the journey's end
            page.screenshot(path=FOLDER / "receipt.png", full_page=True, clip=shown)
    for each in sorted(FOLDER.glob("*.png")):
        sys.stdout.write(f"{each.relative_to(FOLDER.parents[1])}: {each.stat().st_size // 1024} KB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
