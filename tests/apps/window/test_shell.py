"""The frame of all pages: language, theme, what browsers may do, and what other sites may not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser
from tests.apps.window.browser import Stage, looked_at, opened, staged

from assay.apps.keyfile import write_private
from assay.apps.window.owner import Owner
from assay.apps.window.texts import LANGUAGES, texts_of
from assay.core.errors import ConfigError


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A gateway with a window."""
    with staged(tmp_path_factory.mktemp("stage")) as found:
        yield found


def test_languages_say_the_same() -> None:
    """Each text is there in each language, with the same values in it."""
    english = texts_of("en")
    for language in LANGUAGES:
        texts = texts_of(language)
        assert texts.keys() == english.keys()
        for key, text in texts.items():
            assert text.strip(), key
            assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", english[key])), key


def test_no_page_may_run_or_load_what_is_not_its_own(stage: Stage) -> None:
    """The policy forbids inline script and style, other origins, frames and unclean markup; pages have none."""
    reply = httpx.get(stage.url)
    policy = reply.headers["content-security-policy"]
    for rule in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "require-trusted-types-for"):
        assert rule in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|style=", reply.text)
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", reply.text)


def test_files_are_small_and_kept(stage: Stage) -> None:
    """Compressed; cached for ever under a path that changes with their content; nothing beside them is served."""
    page = httpx.get(stage.url).text
    [css] = re.findall(r'href="([^"]+shell.css)"', page)
    found = httpx.get(stage.url + css)
    assert "immutable" in found.headers["cache-control"]
    assert found.headers["content-encoding"] == "gzip"
    assert httpx.get(stage.url + css.replace(css.split("/")[3], "0" * 16)).headers["cache-control"] == "no-store"
    folder = css.rpartition("/static/")[0]
    for name in ("vendor/package.json", "static/../shell.py", "static/%2e%2e/shell.py", "nothing.js", ""):
        assert httpx.get(f"{stage.url}{folder}/{name}").status_code == 404


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "[evil]"])
def test_a_name_that_leads_here_is_refused(stage: Stage, host: str) -> None:
    """DNS rebinding: a site's own name, with this machine's address."""
    assert httpx.get(stage.url, headers={"host": host}).status_code == 403


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:80", "[::1]:8200", "LOCALHOST:8200"])
def test_this_machines_names_are_served(stage: Stage, host: str) -> None:
    """As browsers spell them."""
    assert httpx.get(stage.url, headers={"host": host}).status_code == 200


def test_the_frame(stage: Stage, browser: Browser) -> None:
    """Readable in every language and theme, at 360 and at 1600 px."""
    looked_at(browser, stage.url, "/", "chat", "h1")


def test_a_reader_chooses(stage: Stage, browser: Browser) -> None:
    """Language and theme are kept; Arabic reads from the right."""
    with opened(browser, stage.url) as page:
        page.goto("/")
        page.select_option("#language", "ar")
        page.wait_for_selector("html[dir=rtl]")
        page.click("#theme")
        assert page.get_attribute("html", "data-theme") == "dark"
        page.goto("/")
        assert page.get_attribute("html", "dir") == "rtl"
        assert page.get_attribute("html", "data-theme") == "dark"


def test_by_keyboard(stage: Stage, browser: Browser) -> None:
    """The first stop skips to the page itself."""
    with opened(browser, stage.url) as page:
        page.goto("/")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"


def test_owner_token(tmp_path: Path) -> None:
    """Made once, private, and kept."""

    def write(path: Path, text: str) -> None:
        write_private(path, text, force=False)

    one, other = Owner.of(tmp_path / "token", write), Owner.of(tmp_path / "token", write)
    assert one.token == other.token
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600


def test_two_programs_of_one_home_begin_at_once(tmp_path: Path) -> None:
    """The one that comes too late takes the token of the other one; where none can be written, that is told."""
    path = tmp_path / "token"

    def late(where: Path, text: str) -> None:
        write_private(where, "x" * 43 + "\n", force=False)
        write_private(where, text, force=False)

    assert Owner.of(path, late).token == "x" * 43

    def full(_path: Path, _text: str) -> None:
        raise ConfigError("the disk is full")

    with pytest.raises(ConfigError, match="full"):
        Owner.of(tmp_path / "other", full)
