"""Real `assay` processes on loopback, and what the end-to-end tests ask of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from openai import OpenAI

from assay.apps.lifeline import start, stop
from assay.core.bundle import Bundle

ROOT = Path(__file__).parents[2]
MODEL = "smollm2-135m"
TOOLS_MODEL = "tools-135m"
READY_SECONDS = 120.0
SAY = [{"role": "user", "content": "Say something about rivers."}]

TOOLS_TEMPLATE = """{%- if tools %}
    {{- '<|im_start|>system\\nTools:' }}
    {%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}{{- message.content or '' }}
    {%- for call in message.tool_calls or [] %}
        {{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
        {{- call.function.arguments | tojson }}{{- '}\\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
"""A chat template of the Hermes kind: what the real model lacks to be asked for tools."""


@dataclass
class Program:
    """A running `assay` command."""

    name: str
    process: subprocess.Popen[bytes]
    folder: Path
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Its first line: where it answers."""
    start_seconds: float = 0.0
    """How long it took to say so."""

    @property
    def url(self) -> str:
        return self.facts["url"]

    @property
    def log(self) -> str:
        """What it wrote to standard error."""
        return (self.folder / f"{self.name}.log").read_text(encoding="utf-8", errors="replace")

    @property
    def http(self) -> httpx.Client:
        """A client that waits as long as a small busy machine needs; close it."""
        return httpx.Client(base_url=self.url, timeout=120)

    def within(self, seconds: float) -> float:
        """A limit for what takes far less work than the program's start: longer where that shows a busy machine."""
        return max(seconds, self.start_seconds)

    def interrupt(self, patience: float = 20.0) -> int:
        """Ctrl-C; gives the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(patience)

    def kill(self) -> None:
        """`kill -9`."""
        self.process.kill()
        self.process.wait()


@dataclass
class Place:
    """An ASSAY_HOME of a test's own."""

    root: Path

    def environment(self, **more: str) -> dict[str, str]:
        """The environment of a command that lives here."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ASSAY_")}
        return {**kept, "PYTHONPATH": str(ROOT / "src"), "ASSAY_HOME": str(self.root / "home"), **more}

    @contextmanager
    def running(
        self,
        name: str,
        *args: str,
        wait: bool = True,
        prefix: Sequence[str] = (),
        data: Path | None = None,
        **environment: str,
    ) -> Iterator[Program]:
        """`assay ARGS` until the end of the block; `wait` until it answers. `prefix` goes before the command.

        `data`: the database's folder, if not the one called `name`, where a program that is started again under its
        name finds its receipts again.
        """
        env = self.environment(ASSAY_DATA_DIR=str(data or self.root / name), **environment)
        with (self.root / f"{name}.log").open("ab") as log:
            command = [*prefix, sys.executable, "-P", "-m", "assay.apps.cli", *args]
            process = start(command, env=env, log=log)
        program = Program(name, process, self.root)
        try:
            if wait:
                ready(program)
            yield program
        finally:
            stop([process], patience=20.0)

    def assay(self, *args: str, timeout: float = 120.0, **environment: str) -> subprocess.CompletedProcess[str]:
        """`assay ARGS` to its end."""
        return subprocess.run(
            [sys.executable, "-P", "-m", "assay.apps.cli", *args],
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def verify(self, receipt: bytes | Path, model: Path) -> Mapping[str, Any]:
        """What `assay verify --json` says of a receipt in another process; fails unless it says by its exit code
        what it prints."""
        path = receipt if isinstance(receipt, Path) else self.root / f"receipt{time.monotonic_ns()}.json"
        if isinstance(receipt, bytes):
            path.write_bytes(receipt)
        done = self.assay("verify", str(path), "--model", str(model), "--json")
        assert done.stdout, done.stderr
        verdict = json.loads(done.stdout)
        assert (done.returncode == 0) == verdict["holds"], done
        return verdict


def ready(program: Program) -> None:
    """Wait until a program has said where it answers."""
    program.facts = json.loads(first_line(program))


def first_line(program: Program) -> bytes:
    """What a program says when it answers, as soon as it does."""
    assert program.process.stdout is not None
    os.set_blocking(program.process.stdout.fileno(), False)
    line = b""
    begun = time.monotonic()
    until = begun + READY_SECONDS
    while not line.endswith(b"\n"):
        assert time.monotonic() < until, f"{program.name} does not answer: {program.log}"
        assert program.process.poll() is None, f"{program.name} ended: {program.log}"
        line += program.process.stdout.readline() or b""
        time.sleep(0.02)
    program.start_seconds = time.monotonic() - begun
    return line


@contextmanager
def all_running(starts: Sequence[Any]) -> Iterator[list[Program]]:
    """Several programs (made by `Place.running` with `wait=False`), started together."""
    with ExitStack() as stack:
        programs = [stack.enter_context(item) for item in starts]
        for program in programs:
            ready(program)
        yield programs


def openai(url: str) -> OpenAI:
    """The official client; it does not try again, so that every failure shows."""
    return OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0, timeout=120)


def with_template(source: Path, target: Path, template: str) -> Path:
    """A copy of a GGUF model with another chat template, spliced in: to write all of it anew takes 10 s.

    The header is a list of key, type and value; what follows it stays aligned to 32 bytes because the template is
    filled up to that with a comment.
    """
    data = source.read_bytes()
    key = b"tokenizer.chat_template"
    at = data.index(len(key).to_bytes(8, "little") + key) + 8 + len(key)
    assert data[at : at + 4] == (8).to_bytes(4, "little"), "the value is a string"
    old = int.from_bytes(data[at + 4 : at + 12], "little")
    text = template.encode()
    text += b"{#-" + b" " * ((old - len(text) - 5) % 32) + b"#}"
    target.write_bytes(data[: at + 4] + len(text).to_bytes(8, "little") + text + data[at + 12 + old :])
    return target


def bundles(url: str, name: str) -> list[Bundle]:
    """The receipt files under a name."""
    reply = httpx.get(f"{url}/receipts/{name}", timeout=30)
    assert reply.status_code == 200, reply.text
    return [Bundle.decode(line) for line in reply.content.splitlines(keepends=True)]


def events(reply: httpx.Response) -> Iterator[Mapping[str, Any]]:
    """The JSON objects of an SSE stream; ends with the stream or at `[DONE]`."""
    for line in reply.iter_lines():
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


def until(found: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What `found` gives as soon as it is something; fails after so many seconds."""
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.05)
    return value


def check_error(reply: httpx.Response, status: int, *, param: str | None = None) -> str:
    """An OpenAI-shaped error of that status without a trace of the program's inside; gives its message."""
    assert reply.status_code == status, (reply.status_code, reply.text[:2000])
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "Traceback" not in reply.text
    assert error["message"]
    if param is not None:
        assert error["param"] == param, error
    return error["message"]
