"""A disk that is full: nothing is answered without a receipt that is kept, nobody hears a 5xx, and it passes."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.conftest import EXACT
from tests.e2e.kit import MODEL, SAY, Place, Program, bundles, check_error, events, until

pytestmark = [pytest.mark.e2e, pytest.mark.model]

ASK: dict[str, Any] = {"model": MODEL, "messages": SAY, "max_tokens": 3}
SMALL_DISK = ("unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=2m tmpfs "$0" && exec "$@" 2>"$0/log"')
"""Runs a command with a disk of its own at the folder that follows, and its log on it too."""


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Where a small disk can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with suppress(OSError):
        if subprocess.run([*SMALL_DISK, str(folder), "true"], check=False, capture_output=True).returncode == 0:
            return folder
    pytest.skip("this machine lets nobody mount a disk")


class Disk:
    """A program's small disk, seen from outside its namespace."""

    def __init__(self, program: Program, folder: Path) -> None:
        self.here = Path(f"/proc/{program.process.pid}/root{folder}")

    def fill(self) -> None:
        """Until nothing more can be written."""
        with (self.here / "filler").open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))

    def free(self) -> None:
        """Everything that `fill` took."""
        (self.here / "filler").unlink()

    @property
    def log(self) -> str:
        """What the program wrote there."""
        return (self.here / "log").read_text()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A machine of the test's own."""
    return Place(tmp_path)


@pytest.fixture(params=["llama.cpp", EXACT])
def provider(place: Place, disk: Path, model_path: Path, request: pytest.FixtureRequest) -> Iterator[Program]:
    """A provider on a small disk."""
    args = ("serve", "--port", "0", "--json", "--threads", "1", "--context", "512", "--model", str(model_path))
    args += ("--engine", request.param)
    with place.running("provider", *args, prefix=(*SMALL_DISK, str(disk)), data=disk / "data") as program:
        yield program


def chat(program: Program, **more: Any) -> httpx.Response:
    """A short answer."""
    return httpx.post(f"{program.url}/v1/chat/completions", json={**ASK, **more}, timeout=60)


def test_a_provider_whose_disk_is_full(place: Place, provider: Program, disk: Path) -> None:
    """The answer that cannot be covered ends in an error, the next ones are refused at once with `Retry-After`, old
    receipts can still be read, and once there is room everything goes on, numbers included."""
    before = chat(provider).json()
    small = Disk(provider, disk)
    small.fill()
    while (reply := chat(provider)).status_code == 200:  # what the database had reserved
        small.fill()
    message = check_error(reply, 429)
    assert "receipts cannot be kept" in message
    assert str(disk) not in reply.text
    for stream in (False, True):
        asked = time.monotonic()
        reply = chat(provider, stream=stream, max_tokens=200)
        check_error(reply, 429)
        assert int(reply.headers["retry-after"]) > 1
        assert time.monotonic() - asked < 2
    with provider.http as http:
        for _ in range(60):  # until not even the log finds room
            check_error(http.post("/v1/chat/completions", json=ASK), 429)
    assert httpx.get(f"{provider.url}/health").status_code == 200
    assert httpx.get(f"{provider.url}/metrics").status_code == 200
    assert httpx.get(f"{provider.url}/receipts/{before['id']}").status_code in (200, 429)
    small.free()
    reply = chat(provider)
    assert reply.status_code == 200, reply.text
    old, new = (bundles(provider.url, item["id"])[0].receipt for item in (before, reply.json()))
    assert [old.to_json()] == before["assay"]["receipts"]
    assert [new.to_json()] == reply.json()["assay"]["receipts"]
    assert new.sequence > old.sequence
    assert "Traceback" not in small.log


@pytest.mark.slow
def test_a_stream_whose_receipt_cannot_be_kept(provider: Program, disk: Path) -> None:
    """The disk fills up while the answer streams: the stream ends with an error event in place of the receipt, which is
    there by the reply's id once the disk has room."""
    small = Disk(provider, disk)
    body = {**ASK, "max_tokens": 40, "stream": True}
    with provider.http as http, http.stream("POST", "/v1/chat/completions", json=body) as reply:
        chunks = []
        for chunk in events(reply):
            chunks.append(chunk)
            if len(chunks) == 2:
                small.fill()
    if "error" not in chunks[-1]:  # it fitted into what the database had reserved
        small.fill()
        with provider.http as http, http.stream("POST", "/v1/chat/completions", json=body) as reply:
            chunks = list(events(reply))
    error = chunks[-1]["error"]
    assert error["type"] == "rate_limit_error"
    assert "assay" not in chunks[-1]
    small.free()
    (late,) = bundles(provider.url, chunks[0]["id"])
    assert late.receipt.output_count > 2
    assert "Traceback" not in small.log


@pytest.mark.slow
def test_a_gateway_whose_disk_is_full(place: Place, disk: Path, model_path: Path) -> None:
    """The buyer loses neither answer nor receipt; only the gateway's own copy is missing, which its log says."""
    serve = ("serve", "--port", "0", "--json", "--threads", "1", "--context", "512", "--model", str(model_path))
    with place.running("provider", *serve) as provider:
        args = ("gateway", "--port", "0", "--json", "--provider", provider.url)
        with place.running("gateway", *args, prefix=(*SMALL_DISK, str(disk)), data=disk / "data") as gateway:
            assert chat(gateway).status_code == 200
            small = Disk(gateway, disk)
            small.fill()

            def lost() -> dict[str, Any] | None:
                small.fill()
                reply = chat(gateway)
                assert reply.status_code == 200, reply.text
                name = reply.json()["id"]
                kept = httpx.get(f"{gateway.url}/receipts/{name}").status_code
                assert kept in (200, 404, 429)
                return None if kept == 200 else reply.json()

            answer = until(lost, seconds=60)
            (bundle,) = bundles(provider.url, answer["id"])
            assert bundle.receipt.to_json() == answer["assay"]["receipts"][0]
            small.free()
            reply = chat(gateway)
            assert bundles(gateway.url, reply.json()["id"])
            assert "Traceback" not in small.log


@pytest.mark.parametrize("command", [pytest.param("serve", marks=pytest.mark.slow), "gateway"])
def test_starting_on_a_full_disk(place: Place, disk: Path, model_path: Path, command: str) -> None:
    """A program that cannot make its database says so, with what to do, and ends."""
    options = {"serve": ("--model", str(model_path)), "gateway": ("--provider", "http://127.0.0.1:9")}
    fill = 'mount -t tmpfs -o size=64k tmpfs "$0" && head -c 60000 /dev/zero >"$0/filler"; exec "$@"'
    prefix = ("unshare", "-rm", "sh", "-c", fill, str(disk))
    args = (command, "--port", "0", *options[command])
    with place.running(command, *args, prefix=prefix, data=disk / "data", wait=False) as program:
        assert program.process.wait(60) == 5
    assert "full" in program.log
    assert "free disk space" in program.log
    assert "Traceback" not in program.log
