"""A network that nobody configured: providers and a gateway on one machine find each other."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from tests.e2e.conftest import SIZE
from tests.e2e.kit import MODEL, SAY, Place, Program, all_running, bundles, openai, until

pytestmark = [pytest.mark.e2e, pytest.mark.model]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A home of its own."""
    return Place(tmp_path_factory.mktemp("discovery"))


@pytest.fixture(scope="module")
def providers(place: Place, model_path: Path) -> Iterator[list[Program]]:
    """Two, of which nobody is told; the second one by HTTPS only."""
    starts = [
        place.running(name, "serve", "--key", name, tls, "--model", str(model_path), *SIZE, wait=False)
        for name, tls in (("one", "--no-tls"), ("two", "--tls"))
    ]
    with all_running(starts) as found:
        yield found
        for program in found:
            assert "Traceback" not in program.log, program.log


def names(gateway: Program) -> set[str]:
    """Whose offers a gateway lists."""
    with gateway.http as http:
        listed = http.get("/v1/models").json()
    return {offer["provider"] for model in listed.get("data", ()) for offer in model["assay"]["offers"]}


def test_a_network_without_configuration(place: Place, providers: list[Program], model_path: Path) -> None:
    """A gateway finds both within seconds of its start, and an OpenAI client gets an answer that holds; a provider that
    is killed is passed over."""
    addresses = {program.facts["address"] for program in providers}
    with place.running("gateway", "gateway", "--port", "0", "--json") as gateway:
        started = time.monotonic()
        until(lambda: names(gateway) == addresses, 3.0)
        assert time.monotonic() - started < 3.0
        reply = openai(gateway.url).chat.completions.create(model=MODEL, messages=SAY, max_tokens=8)  # type: ignore[arg-type]
        [bundle] = bundles(gateway.url, reply.id)
        assert bundle.receipt.provider in addresses
        assert place.verify(bundle.encode(), model_path)["holds"]

        listed = json.loads(place.assay("providers", "--json", "--seconds", "1").stdout)["providers"]
        assert {each["provider"] for each in listed} == addresses
        assert {each["address"] for each in listed} == {program.url for program in providers}
        assert all(each["source"] == "registry" and each["models"] == MODEL for each in listed)

        victim = next(each for each in providers if each.facts["address"] == bundle.receipt.provider)
        victim.kill()
        until(lambda: names(gateway) == addresses - {bundle.receipt.provider}, 10.0)
        reply = openai(gateway.url).chat.completions.create(model=MODEL, messages=SAY, max_tokens=8)  # type: ignore[arg-type]
        [other] = bundles(gateway.url, reply.id)
        assert other.receipt.provider in addresses - {bundle.receipt.provider}
        metrics = httpx.get(f"{gateway.url}/metrics").text
        assert "assay_providers_known 1.0" in metrics
        assert "Traceback" not in gateway.log


@contextmanager
def overheard(url: str) -> Iterator[tuple[str, list[bytes]]]:
    """A way to a server that notes whatever is sent there; its address, and what was noted."""
    said: list[bytes] = []
    server = socket.create_server(("127.0.0.1", 0))
    host, _, port = url.removeprefix("http://").partition(":")

    def pump(source: socket.socket, sink: socket.socket, noted: list[bytes]) -> None:
        with sink, suppress(OSError):
            while data := source.recv(65_536):
                noted.append(data)
                sink.sendall(data)

    def accept() -> None:
        with suppress(OSError):
            while True:
                here, there = server.accept()[0], socket.create_connection((host, int(port)))
                for way in ((here, there, said), (there, here, [])):
                    threading.Thread(target=pump, args=way, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}", said
    finally:
        server.close()


def test_a_directory_hears_no_prompt(place: Place, model_path: Path) -> None:
    """Whatever goes to it: questions for records, and the provider's own; no word of prompts or answers, nor for which
    model, level or provider anybody asks."""
    other = Place(place.root / "overheard")
    other.root.mkdir()
    serve = ("serve", "--key", "five", "--model", str(model_path), *SIZE)
    with place.running("directory2", "directory", "--port", "0", "--json") as directory:
        with overheard(directory.url) as (url, said), overheard(directory.url) as (by_provider, told):
            with (
                place.running(
                    "five", *serve, ASSAY_HOME=str(place.root / "fifth"), ASSAY_NETWORK_DIRECTORIES=by_provider
                ),
                other.running("gateway", "gateway", "--port", "0", "--json", ASSAY_NETWORK_DIRECTORIES=url) as gateway,
            ):
                until(lambda: names(gateway), 30.0)
                until(lambda: len(said) >= 2, 30.0)
                reply = openai(gateway.url).chat.completions.create(model=MODEL, messages=SAY, max_tokens=8)  # type: ignore[arg-type]
                before = len(said)
                until(lambda: len(said) > before, 30.0)  # after the answer it is asked again
        text = reply.choices[0].message.content
        assert text
        requests = [part for part in b"".join(said).split(b"\r\n\r\n") if part]
        assert len(requests) >= 3
        assert all(part.startswith(b"GET /assay/v1/records?since=") for part in requests)
        for word in (SAY[0]["content"], text, MODEL, "pinned", reply.id):
            assert word.encode() not in b"".join(said)
        for word in (SAY[0]["content"], text, reply.id):
            assert word.encode() not in b"".join(told)


def test_over_a_directory(place: Place, model_path: Path) -> None:
    """A provider with a home of its own hands its record in at a directory, where a gateway elsewhere finds it."""
    other = Place(place.root / "elsewhere")
    other.root.mkdir()
    with place.running("directory", "directory", "--port", "0", "--json") as directory:
        where = {"ASSAY_NETWORK_DIRECTORIES": directory.url}
        with place.running(
            "three", "serve", "--key", "three", "--model", str(model_path), *SIZE,
            ASSAY_HOME=str(place.root / "third"), **where,
        ) as provider:  # fmt: skip
            with other.running("gateway", "gateway", "--port", "0", "--json", **where) as gateway:
                until(lambda: names(gateway) == {provider.facts["address"]}, 20.0)
                reply = openai(gateway.url).chat.completions.create(model=MODEL, messages=SAY, max_tokens=4)  # type: ignore[arg-type]
                assert bundles(gateway.url, reply.id)[0].receipt.provider == provider.facts["address"]
        assert httpx.get(f"{directory.url}/health").json() == {"providers": 1}
        assert "Traceback" not in directory.log
