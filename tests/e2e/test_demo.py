"""The demonstration as a user runs it: real processes, the real model, a cheat that is caught."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect
from tests.apps.cli_kit import COMMAND, ROOT, Said, environment
from tests.apps.window.browser import check_access, launched, opened, picture

pytestmark = [pytest.mark.e2e, pytest.mark.model]
OFFLINE = """
import socket

def refuse(*_args, **_kwargs):
    raise AssertionError("the network was used")

socket.socket.connect = socket.socket.connect_ex = socket.socket.bind = socket.getaddrinfo = refuse
"""


@pytest.fixture
def offline(tmp_path: Path) -> dict[str, str]:
    """Environment of a process that fails as soon as it touches the network."""
    folder = tmp_path / "offline"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(OFFLINE)
    return {**environment(), "PYTHONPATH": f"{folder}{os.pathsep}{ROOT / 'src'}"}


def demo(*options: str, timeout: float = 400) -> Said:
    """Run the demonstration."""
    done = subprocess.run(
        [*COMMAND, "demo", *options], capture_output=True, text=True, timeout=timeout, env=environment()
    )
    return Said(done.returncode, done.stdout, done.stderr)


def children(parent: int) -> list[int]:
    """Processes that `parent` started and that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, rest = path.read_text().rpartition(")")
        except OSError:
            continue
        state, ppid, *_ = rest.split()
        if int(ppid) == parent and state != "Z":
            found.append(int(path.parent.name))
    return found


@pytest.mark.slow
def test_the_cheat_is_caught_and_every_receipt_verifies(
    model_path: Path, tmp_path: Path, offline: dict[str, str]
) -> None:
    """One object with every key; honest answers hold, the cheats are named with a reason, and each receipt file
    verifies in another process that has no network, while those of the cheat do not. The one whose receipts can be
    disputed loses half of its bond, honest providers are paid, and not a wei is lost or made."""
    said = demo("--json", "--out", str(tmp_path / "out"))
    result = said.json
    assert said.code == 0, said.err
    assert result["requests"] >= 12
    assert result["false_alarms"] == 0
    assert result["inconclusive"] == 0
    assert [cheat["kind"] for cheat in result["cheats"]] == ["other-model", "accumulator"]
    for cheat in result["cheats"]:
        assert cheat["caught"] is True
        assert cheat["reason"]
        assert cheat["provider"] in {provider["address"] for provider in result["providers"] if provider["cheat"]}
    assert result["cheats"][1]["reason"].startswith("row 768 of the up product is not what weights")
    assert result["verified"] == len(result["receipts"]) >= 8
    chain = result["chain"]
    assert chain["adds_up"] is True
    assert {(each["provider"], each["outcome"]) for each in chain["disputes"]} == {
        (result["cheats"][1]["provider"], "slashed")
    }
    change = {name: int(chain["after_wei"][name]) - int(before) for name, before in chain["before_wei"].items()}
    assert change["eve"] < -(10**19)
    assert min(change[name] for name in ("validator", "burned")) > 0
    honest = [change[name] for name in ("ada", "boole", "church")]  # whom the gateway has asked, it paid
    assert min(honest) >= 0 < sum(honest)
    assert sum(change.values()) == 0
    assert {row["level"] for row in result["answers"]} >= {"pinned", "statistical", "exact"}
    files = [(path, 0) for path in result["receipts"]] + [(path, 1) for path in result["exhibits"]]
    assert any(code for _, code in files)
    for path, code in files:
        checked = subprocess.run([*COMMAND, "verify", path, "--json"], capture_output=True, env=offline, timeout=120)
        verdict = json.loads(checked.stdout)
        assert checked.returncode == code, (path, verdict, checked.stderr)
        assert {"holds", "level", "reasons", "tokens_checked", "seconds"} <= set(verdict)
        assert verdict["holds"] is (code == 0)
        assert verdict["tokens_checked"] > 0


@pytest.mark.slow
def test_the_text(model_path: Path, tmp_path: Path) -> None:
    """In text: a row an answer, the cheat and what it did, and what to try next."""
    questions = json.loads((ROOT / "src" / "assay" / "apps" / "demo" / "questions.json").read_text(encoding="utf-8"))[
        :4
    ]
    short = tmp_path / "questions.json"
    short.write_text(json.dumps(questions), encoding="utf-8")
    said = demo("--cheat", "temperature", "--questions", str(short), "--out", str(tmp_path / "out"))
    assert said.code == 0, said.out + said.err
    for question in questions:
        assert question["text"] in said.out
    for words in ("ignores the temperature", "Caught", "0 false alarms", "Try next", "verify", "demo --serve"):
        assert words in said.out


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left(model_path: Path, tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C, and even `kill -9`, take every process of the network along."""
    running = subprocess.Popen(
        [*COMMAND, "demo", "--out", str(tmp_path / "out")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    until = time.monotonic() + 60
    while len(started := children(running.pid)) < 5 and time.monotonic() < until:
        time.sleep(0.1)
    assert len(started) >= 5
    running.send_signal(number)
    assert running.wait(30) in (130, -signal.SIGKILL)
    until = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in started) and time.monotonic() < until:
        time.sleep(0.1)
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_it_goes_on_with_its_window(model_path: Path, tmp_path: Path) -> None:
    """`--serve`: the network of a finished demonstration answers a browser: its chat answers and is paid, its network
    lists all five and says why one was chosen, its court has the slashed provider's dispute down to the number, which
    the owner has computed. Ctrl-C leaves nothing behind."""
    known = json.loads((ROOT / "src" / "assay" / "apps" / "demo" / "questions.json").read_text(encoding="utf-8"))
    questions = [next(each for each in known if each["level"] == level) for level in ("exact", "pinned")]
    short, log = tmp_path / "questions.json", tmp_path / "log"
    short.write_text(json.dumps(questions), encoding="utf-8")
    command = [*COMMAND, "demo", "--serve", "--json", "--questions", str(short), "--out", str(tmp_path / "out")]
    with log.open("wb") as errors, subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=errors, env=environment()
    ) as running:  # fmt: skip
        try:
            assert running.stdout is not None
            lines = list(iter(running.stdout.readline, b"}\n"))
            result = json.loads(b"".join(lines) + b"}")
            started = children(running.pid)
            guilty = next(each["provider"] for each in result["cheats"] if each["kind"] == "accumulator")
            url, _, token = result["window"].partition("/#owner=")
            with launched() as browser, opened(browser, url) as page:
                page.goto(f"/court#owner={token}")
                card = page.locator(".case", has_text=guilty[:10]).first
                expect(card.locator(".badge")).to_have_text("provider slashed", timeout=60_000)
                picture(page, "demo-court")
                card.locator("a").click()
                expect(page.locator(".lead")).to_contain_text("did not prove its result for it in time", timeout=60_000)
                expect(page.locator(".funnel li")).to_have_count(3)
                expect(page.locator(".shares")).to_contain_text("to the buyer")
                expect(page.locator(".funnel li").nth(2).locator("strong")).to_have_count(1, timeout=60_000)
                expect(page.locator(".foreign").first).to_contain_text("is not what weights")
                page.locator("#compute").click()
                expect(page.locator(".pair")).to_contain_text("the receipt is wrong here", timeout=120_000)
                picture(page, "demo-dispute")
                asked = {"model": "smollm2-135m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
                answer = httpx.post(f"{url}/v1/chat/completions", json=asked, timeout=60).json()
                assert answer["assay"]["receipts"], answer
                page.goto("/network")
                expect(page.locator("#providers tbody tr")).to_have_count(5)
                expect(page.locator("#receipts tbody tr").first).to_be_visible()
                expect(page.locator("#links svg[role=img]")).to_be_visible()
                check_access(page)
                picture(page, "demo-network")
                page.goto(f"/network/why/{answer['id']}")
                expect(page.locator(".steps")).to_be_visible()
                picture(page, "demo-why")
        finally:
            running.send_signal(signal.SIGINT)
            code = running.wait(30)
    assert code == 0, log.read_text()
    assert len(started) >= 7
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]
