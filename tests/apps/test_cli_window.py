"""`assay window`: the owner's address of a program that runs."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from tests.apps.cli_kit import Cli, in_process
from tests.apps.window.browser import TOKEN, staged
from tests.running import free_port

from assay.apps.cli import console
from assay.apps.window.window import token_path


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_home: Path) -> Cli:
    """Runs commands in an empty home."""
    return in_process(capsys)


def test_the_owners_address(cli: Cli, tmp_home: Path, tmp_path: Path) -> None:
    """Of a program that runs, with the token of this account; without one nothing is made."""
    with staged(tmp_path) as stage:
        said = cli("window", "--url", stage.url)
        assert (said.code != 0, "start `assay up`" in said.err, said.out) == (True, True, "")
        assert not token_path(tmp_home).exists()
        token_path(tmp_home).write_text(TOKEN + "\n")
        said = cli("window", "--url", f"{stage.url}/v1")
        assert (said.code, said.out) == (0, f"{stage.url}/#owner={TOKEN}\n")
        assert cli("window", "--url", stage.url, "--json").json == {
            "url": stage.url,
            "window": f"{stage.url}/#owner={TOKEN}",
        }


def test_nothing_runs(cli: Cli, tmp_home: Path) -> None:
    """Says so, and how to start it; the token is not shown."""
    token_path(tmp_home).write_text(TOKEN + "\n")
    said = cli("window", "--url", f"http://127.0.0.1:{free_port()}")
    assert (said.code, "assay up" in said.err, TOKEN in said.out + said.err) == (4, True, False)


def test_the_token_stands_in_no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal is the owner's; a file or a journal may be read by others, in whatever colours it is written."""
    address, url = "http://127.0.0.1:8100/#owner=secret", "http://127.0.0.1:8100"

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(console, "err", Console(file=Terminal()))
    assert console.window_at(address, url) == address
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(console, "err", Console(file=io.StringIO()))
    assert console.window_at(address, url) == "`assay window --url http://127.0.0.1:8100` says where"
