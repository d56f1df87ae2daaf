"""`python -m tests.apps.window.fetch`: a Chromium for the tests of pages, if this machine has none.

From the system's packages where this account may install them, else Playwright's own. Without one those tests are
skipped, so that a failure here ends nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from playwright.sync_api import sync_playwright
from tests.apps.window.browser import find_browser


def main() -> int:
    """0 if there is a browser in the end."""
    with sync_playwright() as playwright:
        if find_browser(playwright.chromium):
            return 0
        sys.stdout.write("setup: a browser for the tests of pages (about 100 MB)\n")
        sys.stdout.flush()
        for command in _ways():
            if subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
                continue
            if find_browser(playwright.chromium):
                return 0
    sys.stdout.write("setup: no Chromium could be fetched: tests of pages are skipped (ASSAY_BROWSER names one)\n")
    return 1


def _ways() -> list[list[str]]:
    ways = [[sys.executable, "-m", "playwright", "install", "chromium"]]
    if sys.platform == "linux" and os.geteuid() == 0 and shutil.which("apt-get"):
        install = ["apt-get", "install", "-y", "--no-install-recommends", "chromium"]
        ways[:0] = [install, ["apt-get", "update"], install]
    return ways


if __name__ == "__main__":
    sys.exit(main())
