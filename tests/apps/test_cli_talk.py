"""`assay ask` and `assay chat` against a real server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.apps.cli_kit import COMMAND, environment, in_subprocess
from tests.running import free_port, provider_process
from tests.tiny import MODEL

from assay.core.bundle import Bundle
from assay.core.receipt import verify_signature


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a provider over a tiny engine."""
    with provider_process(tmp_path_factory.mktemp("provider")) as (address, _):
        yield address


@pytest.fixture
def url(provider: str, tmp_home: Path) -> str:
    """The provider's address; the commands have an empty home."""
    return provider


def test_ask(url: str, tmp_path: Path) -> None:
    """The answer goes to standard output, remarks to standard error, and the receipt into its file."""
    file = tmp_path / "receipt.json"
    options = ("--url", url, "--max-tokens", "20", "--seed", "5", "--receipt", str(file))
    said = in_subprocess("ask", "Say something.", *options)
    assert said.code == 0
    bundle = Bundle.decode(file.read_bytes())
    verify_signature(bundle.receipt)
    assert bundle.request.messages[0].content == "Say something."
    assert len(said.out.strip()) > 5
    assert f"{bundle.receipt.output_count} tokens" in said.err
    assert bundle.receipt.digest.hex()[:12] in said.err
    assert f"assay verify {file}" in said.err


def test_ask_json(url: str) -> None:
    """`--json` gives text, counts and receipts as one object; `-` reads the question from standard input."""
    said = in_subprocess("ask", "-", "--url", url, "--max-tokens", "9", "--level", "signed", "--json", stdin="Hé, 你好")
    assert said.code == 0
    assert said.json["level"] == "signed"
    assert said.json["tokens"] == said.json["receipts"][0]["output_count"] in range(1, 10)
    assert said.json["receipts"][0]["provider"] == said.json["provider"]


def test_the_same_seed_gives_the_same_answer(url: str) -> None:
    """`--seed` makes an answer repeatable."""
    one, same = (in_subprocess("ask", "Hello", "--url", url, "--max-tokens", "20", "--seed", "5") for _ in range(2))
    other = in_subprocess("ask", "Hello", "--url", url, "--max-tokens", "20", "--seed", "6")
    assert one.out == same.out != other.out


def test_nobody_to_ask(tmp_home: Path) -> None:
    """Without a node the error says how to start one, and the exit code is the one for absent providers."""
    said = in_subprocess("ask", "Hello", "--url", f"http://127.0.0.1:{free_port()}")
    assert said.code == 4
    assert "assay up" in said.err
    assert said.out == ""


@pytest.mark.parametrize(
    ("options", "word"),
    [(("--model", "nothing"), "nothing"), (("--level", "perfect"), "level"), (("--temperature", "9"), "temperature")],
)
def test_wishes_that_cannot_be(url: str, options: tuple[str, str], word: str) -> None:
    """Unknown models, levels and settings are named, and nothing is answered."""
    said = in_subprocess("ask", "Hello", "--url", url, *options)
    assert said.code == 2
    assert word in said.err
    assert said.out == ""


def test_a_receipt_file_that_cannot_be_written(url: str, tmp_path: Path) -> None:
    """The answer is shown all the same; the error names the file."""
    said = in_subprocess(
        "ask", "Hello", "--url", url, "--max-tokens", "5", "--receipt", str(tmp_path / "no" / "r.json")
    )
    assert said.code == 2
    assert "r.json" in said.err
    assert "Traceback" not in said.err


BAD = b"caf\xe9"


@pytest.mark.skipif(sys.platform == "win32", reason="arguments are text there")
@pytest.mark.parametrize(
    ("words", "stdin"),
    [
        (("ask", BAD), b""),
        (("ask", "-"), BAD),
        (("ask", "Hello", "--model", BAD), b""),
        (("ask", "Hello", "--level", BAD), b""),
        (("chat", "--system", BAD), b""),
        (("serve", "--model", BAD), b""),
        (("models", "pull", BAD), b""),
        (("keys", "new", BAD), b""),
    ],
)
def test_what_is_no_text_is_bad_input(url: str, words: tuple[str | bytes, ...], stdin: bytes) -> None:
    """Bytes of another encoding, as an argument or on standard input, are named and end with 2, without a traceback."""
    more = ("--url", url) if words[0] in ("ask", "chat") else ()
    done = subprocess.run([*COMMAND, *words, *more], input=stdin, capture_output=True, env=environment(), timeout=60)
    said = done.stderr.decode()
    assert done.returncode == 2, said
    assert "report it" not in said
    assert "Traceback" not in said
    assert done.stdout == b""


def test_a_line_of_a_chat_that_is_no_text_is_told(url: str) -> None:
    """The conversation goes on after it."""
    done = subprocess.run(
        [*COMMAND, "chat", "--url", url, "--max-tokens", "4"],
        input=BAD + b"\nHello\n",
        capture_output=True,
        env=environment(),
        timeout=60,
    )
    said = done.stderr.decode()
    assert done.returncode == 0
    assert "the line is not text in UTF-8" in said
    assert "signed by" in said


def test_chat(url: str, tmp_path: Path) -> None:
    """A conversation remembers what was said, shows a receipt under each answer, and saves it."""
    file = tmp_path / "saved.json"
    lines = f"Hello\n\nAnd then?\n/save {file}\n/nonsense\n/new\n/help\n/quit\nnever read\n"
    said = in_subprocess("chat", "--url", url, "--max-tokens", "12", "--system", "Be kind.", stdin=lines)
    assert said.code == 0
    assert len(re.findall(r"\d+ tokens · .* · signed by", said.err)) == 2
    assert said.err.count("covers this very question") == 2
    assert "There is no command /nonsense" in said.err
    request = Bundle.decode(file.read_bytes()).request
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "user"]
    assert [request.messages[place].content for place in (0, 1, 3)] == ["Be kind.", "Hello", "And then?"]
    assert request.messages[2].content in said.out


def test_chat_goes_on_after_an_error(url: str) -> None:
    """What one answer fails at does not end the program."""
    lines = "/save nowhere.json\n/level perfect\nHello\n/level signed\nHello again\n"
    said = in_subprocess("chat", "--url", url, "--max-tokens", "12", stdin=lines)
    assert said.code == 0
    assert "there is no answer with a receipt yet" in said.err
    assert said.err.count("error:") == 2
    assert len(re.findall(r"\d+ tokens · .* · signed by", said.err)) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT to one process")
def test_ctrl_c_stops_the_answer_not_the_program(tmp_path: Path, tmp_home: Path) -> None:
    """Ctrl-C in the middle of an answer ends the answer, whose receipt is kept, and the chat goes on."""
    file = tmp_path / "cut.json"
    with provider_process(tmp_path, delay=0.02) as (url, _):
        chat = subprocess.Popen(
            [*COMMAND, "chat", "--url", url, "--max-tokens", "400", "--model", MODEL],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        assert chat.stdin is not None
        assert chat.stdout is not None
        chat.stdin.write(b"Hello\n")
        chat.stdin.flush()
        os.read(chat.stdout.fileno(), 1)  # the answer has begun
        chat.send_signal(signal.SIGINT)
        _, err = chat.communicate(f"/save {file}\n".encode(), timeout=30)
    assert chat.returncode == 0, err
    assert b"stopped" in err
    receipt = Bundle.decode(file.read_bytes()).receipt
    assert receipt.stop == "cancelled"
    assert 0 < receipt.output_count < 400
