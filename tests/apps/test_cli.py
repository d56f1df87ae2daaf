"""The command line as a whole: help, exit codes, and errors that say what to do."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import typer
from tests.apps.cli_kit import Cli, in_process, in_subprocess
from typer.testing import CliRunner

from assay.apps.cli.app import app
from assay.apps.cli.console import plain
from assay.apps.cli.exits import MEANINGS, ExitCode, exit_code
from assay.core import errors
from assay.core.errors import AssayError

GROUPS = {
    "channels": ("list", "close"),
    "keys": ("new", "show"),
    "models": ("list", "pull", "add", "rm"),
    "identity": ("register", "change", "show"),
    "stake": ("show", "bond", "unbond", "withdraw"),
}
COMMANDS = (
    *(
        "demo",
        "up",
        "window",
        "chat",
        "ask",
        "serve",
        "gateway",
        "directory",
        "relay",
        "providers",
        "validate",
        "verify",
        "trace",
    ),
    *("disputes", "doctor", "devnet", "economics", "bench"),
)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_home: Path) -> Cli:
    """Runs commands in an empty home."""
    return in_process(capsys)


def every_command() -> Iterator[tuple[str, ...]]:
    """The words that name each command."""
    yield from ((name,) for name in COMMANDS)
    yield from ((group, name) for group, names in GROUPS.items() for name in names)


def test_help_lists_every_command_and_exit_code() -> None:
    """`assay --help` shows what there is to do, and what each exit code means."""
    text = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    for name in (*COMMANDS, *GROUPS):
        assert f" {name} " in text
    for code, meaning in MEANINGS.items():
        assert str(code.value) in text
        assert meaning.split(":")[0] in text


@pytest.mark.parametrize("words", list(every_command()), ids=" ".join)
def test_every_command_has_help_with_an_example(words: tuple[str, ...]) -> None:
    """`--help` works without a home, a model or the network, and shows how the command is typed."""
    result = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert f"Example: assay {' '.join(words)}" in result.output


@pytest.mark.parametrize(
    "words", [("nonsense",), ("verify",), ("keys", "new", "--nonsense"), ("up", "--port", "99999")]
)
def test_wrong_usage(cli: Cli, words: tuple[str, ...]) -> None:
    """A command that does not exist, lacks an argument or has a wrong one ends with 2 and a sentence."""
    said = cli(*words)
    assert said.code == ExitCode.BAD_INPUT
    assert "Usage" in said.err
    assert "Traceback" not in said.err


def test_version(cli: Cli) -> None:
    """`--version` prints the version and nothing else."""
    import assay

    assert cli("--version").out == f"assay {assay.__version__}\n"


def test_an_error_is_a_line_and_a_remedy(cli: Cli) -> None:
    """What is wrong stands on one line of standard error, what to do on the next; standard output stays empty."""
    said = cli("keys", "show", "nobody")
    assert said.code == ExitCode.BAD_INPUT
    assert said.out == ""
    first, second = said.err.splitlines()
    assert first.startswith("error: there is no key at ")
    assert second == "  try: make one with `assay keys new`"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidSignature("x"), ExitCode.FAILED_CHECK),
        (errors.NoProvider("x"), ExitCode.UNREACHABLE),
        (errors.Busy("x"), ExitCode.UNREACHABLE),
        (errors.StoreError("x"), ExitCode.MACHINE),
        (errors.EngineError("x"), ExitCode.MACHINE),
        (errors.MachineError("x"), ExitCode.MACHINE),
        (errors.ModelFileError("x"), ExitCode.BAD_INPUT),
        (errors.ConfigError("x"), ExitCode.BAD_INPUT),
        (errors.EncodingError("x"), ExitCode.BAD_INPUT),
    ],
)
def test_exit_codes_of_errors(error: AssayError, code: ExitCode) -> None:
    """Scripts can tell a receipt that does not hold from bad input, an absent provider and a broken machine."""
    assert exit_code(error) == code


def test_a_full_disk_is_the_machines(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever could not be written, the code is the same; a place that may not be written is a setting's fault."""

    def cannot(number: int) -> Callable[..., NoReturn]:
        def refuse(*_args: object, **_more: object) -> NoReturn:
            raise OSError(number, os.strerror(number))

        return refuse

    for number, code in ((errno.ENOSPC, ExitCode.MACHINE), (errno.EACCES, ExitCode.BAD_INPUT)):
        monkeypatch.setattr("os.fsync", cannot(number))
        said = cli("keys", "new", "mine")
        assert said.code == code
        assert os.strerror(number) in said.err


def _break(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_root: Path) -> None:
        raise RuntimeError("something \x1b[31mnobody\x1b[0m thought of")

    monkeypatch.setattr("assay.engines.models.list_models", fail)


def test_a_bug_gives_no_traceback(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected error is named without a traceback or terminal codes, and ends with 70."""
    _break(monkeypatch)
    said = cli("models", "list")
    assert said.code == ExitCode.BUG
    assert "RuntimeError: something [31mnobody[0m thought of" in said.err
    assert "ASSAY_DEBUG=1" in said.err
    assert "Traceback" not in said.err


def test_debugging_shows_where(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ASSAY_DEBUG=1 the traceback comes through."""
    _break(monkeypatch)
    monkeypatch.setenv("ASSAY_DEBUG", "1")
    with pytest.raises(RuntimeError):
        cli("models", "list")


def test_words_from_strangers_cannot_steer_the_terminal() -> None:
    """Escape sequences, bells and carriage returns are taken out; lines, tabs and every script stay."""
    assert plain("a\x1b]0;title\x07b\rc\x9b31md") == "a]0;titlebc31md"
    assert plain("line\n\ttab مرحبا été 你好") == "line\n\ttab مرحبا été 你好"


def test_a_terminal_without_unicode(tmp_home: Path) -> None:
    """On a terminal that knows ASCII only, characters are replaced; the command still works."""
    said = in_subprocess("keys", "new", PYTHONIOENCODING="ascii", ASSAY_HOME=str(tmp_home / "café"))
    assert (said.code, "Traceback" in said.err) == (0, False)
    assert "?" in said.out


def test_a_settings_file_that_cannot_be_used(cli: Cli, tmp_home: Path) -> None:
    """A wrong line of config.toml is named, and the command does not start."""
    (tmp_home / "config.toml").write_text("[provider]\nprot = 1\n")
    said = cli("serve")
    assert said.code == ExitCode.BAD_INPUT
    assert "prot" in said.err
    assert "port" in said.err


def test_a_cheat_needs_consent(cli: Cli) -> None:
    """Nobody signs false receipts by mistake."""
    said = cli("serve", "--cheat", "q4_0")
    assert said.code == ExitCode.BAD_INPUT
    assert "--i-am-testing-dishonesty" in said.err


@pytest.mark.parametrize("address", ["127.0.0.1:8100", "ftp://127.0.0.1", ""])
def test_addresses_that_are_none(cli: Cli, address: str) -> None:
    """What cannot be an address is refused at the start, not at the first request."""
    for words in (("gateway", "--provider", address), ("validate", "--gateway", address or "x", "--audit-token", "t")):
        said = cli(*words, "--port", "0")
        assert said.code == ExitCode.BAD_INPUT
        assert "http://HOST:PORT" in said.err


def test_nobody_is_found(cli: Cli) -> None:
    """A list without anybody says how to change that; for scripts it is an empty list."""
    said = cli("providers", "--seconds", "0.1")
    assert (said.code, said.out) == (0, "")
    assert "assay serve" in said.err
    assert cli("providers", "--seconds", "0.1", "--json").json == {"providers": []}


def test_a_validator_elsewhere_needs_the_token(cli: Cli) -> None:
    """Looking into another machine's gateway needs its secret."""
    said = cli("validate", "--gateway", "http://127.0.0.1:1")
    assert said.code == ExitCode.BAD_INPUT
    assert "ASSAY_AUDIT_TOKEN" in said.err


def test_reports_need_a_court(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without stakes no word weighs anything: said at the start."""
    monkeypatch.setenv("ASSAY_GATEWAY_REPORTS", "http://127.0.0.1:1")
    said = cli("gateway", "--provider", "http://127.0.0.1:1", "--port", "0")
    assert said.code == ExitCode.BAD_INPUT
    assert "no court is known" in said.err


def test_a_port_in_use(cli: Cli) -> None:
    """A taken port is named with another one to try."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = cli("gateway", "--provider", "http://127.0.0.1:1", "--port", str(port))
    assert said.code == ExitCode.MACHINE
    assert f"port {port} on 127.0.0.1 is in use" in said.err


def test_every_command_is_reached() -> None:
    """The lists above name every command that there is."""
    group = typer.main.get_command(app)
    assert set(getattr(group, "commands", ())) == {*COMMANDS, *GROUPS}
