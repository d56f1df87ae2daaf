"""Programs that end in the middle: kill -9 and Ctrl-C lose no receipt, sign no number twice, leave no orphan."""

from __future__ import annotations

import random
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.kit import MODEL, SAY, Place, Program, bundles, events, until
from tests.running import free_port

from assay.core.receipt import Receipt
from assay.store.receipts import ReceiptStore
from assay.verify.binding import check_offline

pytestmark = [pytest.mark.e2e, pytest.mark.model]
SLOW = pytest.mark.slow

TALE = [{"role": "user", "content": "Tell a long story."}]
LONG = {"model": MODEL, "messages": TALE, "temperature": 0, "stream": True}
SHORT = {"model": MODEL, "messages": SAY, "max_tokens": 3}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A machine of the test's own, on which nothing runs any more at the end."""
    here = Place(tmp_path)
    yield here
    until(lambda: not alive(here), seconds=10)


def alive(place: Place) -> list[int]:
    """Processes that were started at this place and still run."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            dead = (folder / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            if not dead and str(place.root).encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


@contextmanager
def serving(place: Place, model: Path, port: int = 0, engine: str = "llama.cpp") -> Iterator[Program]:
    """A provider."""
    args = ("serve", "--port", str(port), "--json", "--threads", "1", "--context", "512", "--model", str(model))
    args += ("--engine", engine)
    with place.running("provider", *args) as program:
        yield program


@contextmanager
def gateway(place: Place, *providers: str, **environment: str) -> Iterator[Program]:
    """A gateway."""
    named = [part for url in providers for part in ("--provider", url)]
    with place.running("gateway", "gateway", "--port", "0", "--json", *named, **environment) as program:
        yield program


def ask(url: str, **more: Any) -> Mapping[str, Any]:
    """A short answer."""
    reply = httpx.post(f"{url}/v1/chat/completions", json={**SHORT, **more}, timeout=120)
    assert reply.status_code == 200, reply.text
    return reply.json()


def stored(place: Place, program: str) -> list[Receipt]:
    """Every receipt in a program's database, each one whole and signed."""
    store = ReceiptStore(f"sqlite:///{place.root / program / program}.sqlite3")
    try:
        found = [store.get(digest) for _, digest, _ in store.unaudited(10_000)]
    finally:
        store.close()
    for bundle in found:
        check_offline(bundle)
    return [bundle.receipt for bundle in found]


@pytest.mark.parametrize("engine", ["llama.cpp", pytest.param("exact", marks=SLOW)])
def test_kill_a_provider_in_mid_stream(place: Place, model_path: Path, engine: str) -> None:
    """The consumer gets an error event at once; the restarted provider still has every receipt that it issued, goes
    on with fresh numbers, and is asked again."""
    port = free_port()
    with serving(place, model_path, port, engine) as provider, gateway(place, provider.url) as front:
        replies = [ask(front.url) for _ in range(3)]
        seen = {reply["id"]: Receipt.from_json(reply["assay"]["receipts"][0]) for reply in replies}
        with front.http as http, http.stream("POST", "/v1/chat/completions", json=LONG) as reply:
            assert reply.status_code == 200
            chunks = []
            for chunk in events(reply):
                chunks.append(chunk)
                if len(chunks) == 5:
                    provider.kill()
                    killed = time.monotonic()
        assert time.monotonic() - killed < provider.within(5)
        error = chunks[-1]["error"]
        assert error["type"] == "provider_error"
        assert error["code"] == "provider_failed"
        assert provider.url in error["message"]
        with front.http as http:
            assert http.get("/health").json() == {"status": "ok", "active": 0}
            refused = http.post("/v1/chat/completions", json=SHORT)
            assert refused.status_code == 424
            assert refused.json()["error"]["code"] in ("provider_failed", "no_provider")
            assert provider.url in refused.json()["error"]["message"]
        with serving(place, model_path, port, engine) as again:
            for name, receipt in seen.items():
                (bundle,) = bundles(again.url, name)
                assert bundle.receipt == receipt
                assert bundles(front.url, name) == [bundle]
            assert place.verify(bundle.encode(), model_path)["holds"]
            fresh = Receipt.from_json(ask(again.url)["assay"]["receipts"][0])
            assert fresh.sequence > max(receipt.sequence for receipt in seen.values())
            until(lambda: httpx.post(f"{front.url}/v1/chat/completions", json=SHORT, timeout=60).status_code == 200)
        numbers = [receipt.sequence for receipt in stored(place, "provider")]
        assert len(set(numbers)) == len(numbers) >= 5
        assert "Traceback" not in front.log + again.log


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["provider", "gateway"])
def test_kill_again_and_again(place: Place, model_path: Path, victim: str) -> None:
    """Whenever a provider that signs all the time is killed, or the gateway before it, what any consumer holds is in
    its database, and no number was signed twice."""
    seen: list[Receipt] = []

    def consume(url: str) -> None:
        with suppress(httpx.HTTPError), httpx.Client(base_url=url, timeout=60) as http:
            while True:
                body = {**SHORT, "max_tokens": 1, "stream": True, "assay": {"level": "signed"}}
                with http.stream("POST", "/v1/chat/completions", json=body) as reply:
                    for chunk in events(reply):
                        seen.extend(Receipt.from_json(item) for item in chunk.get("assay", {}).get("receipts", []))

    chance = random.Random(5)
    with ExitStack() as stack:
        behind = stack.enter_context(serving(place, model_path)) if victim == "gateway" else None
        for _ in range(8):
            running = gateway(place, behind.url) if behind else serving(place, model_path)
            with running as program:
                consumers = [threading.Thread(target=consume, args=(program.url,)) for _ in range(3)]
                for consumer in consumers:
                    consumer.start()
                time.sleep(chance.uniform(0.5, 1.5))
                program.kill()
                for consumer in consumers:
                    consumer.join(60)
    kept = stored(place, victim)
    assert len(seen) > 8
    assert {receipt.digest for receipt in seen} <= {receipt.digest for receipt in kept}
    numbers = [receipt.sequence for receipt in kept]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.slow
def test_a_provider_that_freezes(place: Place, model_path: Path) -> None:
    """A provider that stands still in mid-stream is given up in time; when it wakes up, it signs what it had sent and
    is asked again."""
    with (
        serving(place, model_path) as provider,
        gateway(place, provider.url, ASSAY_GATEWAY_TIMEOUT_SECONDS="2") as front,
    ):
        try:
            with front.http as http, http.stream("POST", "/v1/chat/completions", json=LONG) as reply:
                chunks = []
                for chunk in events(reply):
                    chunks.append(chunk)
                    if len(chunks) == 5:
                        provider.process.send_signal(signal.SIGSTOP)
                        frozen = time.monotonic()
            assert time.monotonic() - frozen < provider.within(12)
            assert chunks[-1]["error"]["code"] == "provider_failed"
        finally:
            provider.process.send_signal(signal.SIGCONT)
        until(lambda: httpx.get(f"{provider.url}/health").json()["active"] == 0)
        (bundle,) = until(lambda: bundles(provider.url, chunks[0]["id"]))
        assert bundle.receipt.stop == "cancelled"
        until(lambda: httpx.post(f"{front.url}/v1/chat/completions", json=SHORT, timeout=60).status_code == 200)


@pytest.mark.slow
def test_kill_the_gateway_in_mid_stream(place: Place, model_path: Path) -> None:
    """The provider stops generating within a second and signs what it had sent; the restarted gateway has what it
    had kept."""
    with serving(place, model_path) as provider:
        with gateway(place, provider.url) as front:
            before = ask(front.url)
            with pytest.raises(httpx.HTTPError), front.http as http:
                with http.stream("POST", "/v1/chat/completions", json=LONG) as reply:
                    for count, chunk in enumerate(events(reply)):
                        name = chunk["id"]
                        if count == 5:
                            front.kill()
                            killed = time.monotonic()
        with provider.http as http:
            until(lambda: http.get("/health").json()["active"] == 0)
            assert time.monotonic() - killed < 1.5
            until(lambda: http.get(f"/receipts/{name}").status_code == 200)
            (bundle,) = bundles(provider.url, name)
        assert bundle.receipt.stop == "cancelled"
        assert bundle.tokens
        assert place.verify(bundle.encode(), model_path)["holds"]
        with gateway(place, provider.url) as again:
            assert [found.receipt.to_json() for found in bundles(again.url, before["id"])] == before["assay"][
                "receipts"
            ]
            assert ask(again.url)["choices"]


@pytest.mark.parametrize(
    "command", ["serve", "gateway", pytest.param("up", marks=SLOW), pytest.param("validate", marks=SLOW)]
)
def test_control_c(place: Place, model_path: Path, command: str) -> None:
    """Ctrl-C ends an idle program within seconds, silently and with exit code 0."""
    options = {
        "serve": ("--threads", "1", "--model", str(model_path)),
        "up": ("--threads", "1", "--model", str(model_path)),
        "gateway": ("--provider", "http://127.0.0.1:9"),
        "validate": ("--threads", "1", "--model", str(model_path)),
    }
    with place.running(command, command, "--port", "0", "--json", *options[command]) as program:
        asked = time.monotonic()
        assert program.interrupt(60) == 0
        assert time.monotonic() - asked < program.within(5)
        assert "Traceback" not in program.log
        assert "error" not in program.log


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=SLOW)])
def test_control_c_in_mid_stream(place: Place, model_path: Path, number: signal.Signals) -> None:
    """A node that is stopped hangs up after a moment of grace; the consumer gets an error event with the receipt."""
    args = ("up", "--port", "0", "--json", "--threads", "1", "--context", "2048", "--model", str(model_path))
    with place.running("node", *args) as node:
        with node.http as http, http.stream("POST", "/v1/chat/completions", json=LONG) as reply:
            chunks = []
            for chunk in events(reply):
                chunks.append(chunk)
                if len(chunks) == 4:
                    node.process.send_signal(number)
                    asked = time.monotonic()
        assert node.process.wait(60) == 0
        assert time.monotonic() - asked < node.within(8)
        assert "error" in chunks[-1]
        (receipt,) = (Receipt.from_json(item) for item in chunks[-1]["assay"]["receipts"])
        assert "Traceback" not in node.log
    (kept,) = stored(place, "node")
    assert kept == receipt
    assert kept.output_count >= 3


@pytest.mark.slow
def test_control_c_twice(place: Place, model_path: Path) -> None:
    """Who presses Ctrl-C again does not wait for answers under way; nothing that was issued is lost."""
    with serving(place, model_path) as provider:
        before = Receipt.from_json(ask(provider.url)["assay"]["receipts"][0])
        with suppress(httpx.HTTPError), provider.http as http:
            with http.stream("POST", "/v1/chat/completions", json=LONG) as reply:
                for count, _ in enumerate(events(reply)):
                    if count == 3:
                        provider.process.send_signal(signal.SIGINT)
                        time.sleep(0.2)
                        provider.process.send_signal(signal.SIGINT)
                        asked = time.monotonic()
        provider.process.wait(60)
        assert time.monotonic() - asked < provider.within(5)
        assert "Traceback" not in provider.log
    assert before in stored(place, "provider")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_demo_leaves_nobody_behind(place: Place, model_path: Path, number: signal.Signals) -> None:
    """However the demo ends, its providers, gateway and validator end with it."""
    args = ("demo", "--json", "--model", str(model_path), "--out", str(place.root / "out"))
    with place.running("demo", *args, wait=False) as demo:
        until(lambda: len(alive(place)) >= 5, seconds=120)
        time.sleep(1)
        demo.process.send_signal(number)
        code = demo.process.wait(30)
        assert code == {signal.SIGINT: 130, signal.SIGTERM: -15, signal.SIGKILL: -9}[number]
        until(lambda: not alive(place), seconds=10)
        assert "Traceback" not in demo.log


@pytest.mark.slow
def test_a_command_that_waits_ends_at_control_c(place: Place, model_path: Path) -> None:
    """`assay ask` in the middle of an answer ends with exit code 130, and its answer is over at the node too."""
    with serving(place, model_path) as provider:
        with place.running("ask", "ask", "Tell a very long story.", "--url", provider.url, wait=False) as command:
            until(lambda: httpx.get(f"{provider.url}/health").json()["active"] == 1, seconds=60)
            time.sleep(0.5)
            assert command.interrupt() == 130
            assert "Traceback" not in command.log
        until(lambda: httpx.get(f"{provider.url}/health").json()["active"] == 0, seconds=2)
        until(lambda: stored(place, "provider"))
        assert [receipt.stop for receipt in stored(place, "provider")] == ["cancelled"]


@pytest.mark.parametrize(
    "command", ["serve", "gateway", pytest.param("up", marks=SLOW), pytest.param("validate", marks=SLOW)]
)
def test_a_port_in_use(place: Place, model_path: Path, command: str) -> None:
    """A port in use is told with one that may be free, before a model is loaded."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        options = ("--provider", "http://127.0.0.1:9") if command == "gateway" else ("--model", str(model_path))
        done = place.assay(command, "--port", port, *options)
    assert done.returncode == 5, done
    assert f"port {port} on 127.0.0.1 is in use" in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr
