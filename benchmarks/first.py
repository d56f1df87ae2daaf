"""From nothing to a first answer that is verified in the browser, as the README tells it: two commands, three clicks.

A fresh clone of this repository's last commit, with an empty home: no virtual environment, no model, no packages kept
by pip. What it takes depends on the network, as that fetches some 200 MB.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from playwright.sync_api import Page, expect, sync_playwright
from tests.apps.window.browser import find_browser

from assay.apps.figures import Figure, Say, folder
from assay.apps.lifeline import start, stop
from assay.core.errors import ConfigError

COMMANDS: Final = (("make", "setup"), (".venv/bin/assay", "up"))
BAR_COMMANDS: Final = 2
BAR_CLICKS: Final = 3
QUESTION: Final = "Why is the sky blue?"
_OF_THIS_SHELL: Final = ("ASSAY_", "PIP_CACHE", "PYTHON", "VIRTUAL_ENV", "XDG_", "MAKE")
"""Begins of variables that a fresh machine does not have."""
_PATIENCE: Final = 900.0


def measure(say: Say) -> Iterator[Figure]:
    """Each step's seconds, and all together."""
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as scratch:
        root = Path(scratch)
        tree, home = root / "assay", root / "home"
        home.mkdir()
        _run(["git", "clone", "--quiet", str(folder().parent), str(tree)], root, dict(os.environ))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_OF_THIS_SHELL)}
        environment = {**kept, "HOME": str(home)}
        setup, up = COMMANDS
        say(" ".join(setup))
        began = time.monotonic()
        _run(list(setup), tree, environment)
        ready = time.monotonic()
        say(" ".join(up))
        terminal, other = pty.openpty()
        # The port is not the user's to give: another program may have the usual one here.
        with os.fdopen(other, "wb") as log:
            process = start([str(tree / up[0]), *up[1:]], env={**environment, "ASSAY_NODE_PORT": "0"}, log=log)
        try:
            window = _printed(terminal)
            listening = time.monotonic()
            say(f"in the browser: {QUESTION}")
            answered, verified, clicks = _in_browser(window)
        finally:
            stop([process], patience=20.0)
            os.close(terminal)
    steps = {"setup": ready - began, "start": listening - ready, "answer": answered, "verify": verified}
    for name, seconds in steps.items():
        yield Figure(f"first.{name}", round(seconds, 1), "s", None, None, 1)
    yield Figure("first.in_all", round(sum(steps.values()), 1), "s", None, None, 1)
    yield Figure("first.commands", len(COMMANDS), "", BAR_COMMANDS, len(COMMANDS) <= BAR_COMMANDS, 1)
    yield Figure("first.clicks", clicks, "", BAR_CLICKS, clicks <= BAR_CLICKS, 1)


def _run(command: list[str], where: Path, environment: Mapping[str, str]) -> None:
    done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(
            f"`{' '.join(command)}` failed: {(done.stderr or done.stdout)[-2000:]}", "mend it, and try again"
        )


def _printed(terminal: int) -> str:
    """The address for the browser, as soon as it stands there."""
    said = b""
    while (found := re.search(rb"http://\S+/#owner=[\w-]{43}", said)) is None:
        try:
            said += os.read(terminal, 65_536)
        except OSError as error:  # the program has ended
            raise ConfigError(f"`{' '.join(COMMANDS[1])}` ended: {said.decode(errors='replace')}") from error
    return found[0].decode()


def _in_browser(window: str) -> tuple[float, float, int]:
    """Seconds from the click on the address to the whole answer, from there to the verdict, and clicks."""
    with sync_playwright() as playwright:
        program = find_browser(playwright.chromium)
        if program is None:
            raise ConfigError("there is no Chromium here", "run `make browser`")
        browser = playwright.chromium.launch(executable_path=program, chromium_sandbox=False)
        try:
            page = browser.new_page()
            began = time.monotonic()
            page.goto(window)  # the first click, in the terminal
            page.fill("#question", QUESTION)
            badge = page.locator(".turn .badge")
            clicks = 1 + _click(page, "#send")
            expect(badge).to_contain_text("signed by this node", timeout=1000 * _PATIENCE)
            answered = time.monotonic()
            clicks += _click(page, ".turn .badge")
            expect(page.locator("#verdict")).to_contain_text("holds", timeout=60_000)
            return answered - began, time.monotonic() - answered, clicks
        finally:
            browser.close()


def _click(page: Page, what: str) -> int:
    page.click(what)
    return 1
