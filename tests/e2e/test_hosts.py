"""Three machines on one network that nobody configured: they find one another, and go on through what networks do."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import APIStatusError, OpenAI
from tests.e2e.conftest import SIZE
from tests.e2e.hosts import Host, bridged, impossible, skewed
from tests.e2e.kit import MODEL, SAY, Place, Program, all_running, until

from assay.core.bundle import Bundle
from assay.core.receipt import Receipt

REASON = impossible()
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.model,
    pytest.mark.slow,
    pytest.mark.skipif(REASON != "", reason=f"there are no network namespaces: {REASON}"),
]


@dataclass
class Town:
    """Two hosts with a provider each, and one with a gateway."""

    place: Place
    hosts: list[Host]
    providers: list[Program]
    gateway: Program
    http: httpx.Client
    """Of a client on the gateway's host."""

    @property
    def addresses(self) -> list[str]:
        """The providers' keys."""
        return [each.facts["address"] for each in self.providers]

    def newcomer(self, model: Path) -> AbstractContextManager[Program]:
        """Another provider on the first host."""
        serve = ("serve", "--host", "0.0.0.0", "--key", "new", "--model", str(model), *SIZE)
        return Place(self.place.root.parent / "host1").running("newcomer", *serve, prefix=self.hosts[0].prefix)

    def found(self) -> set[str]:
        """Whose offers the gateway lists."""
        listed = self.http.get("/v1/models").json()
        return {offer["provider"] for model in listed.get("data", ()) for offer in model["assay"]["offers"]}

    @property
    def client(self) -> OpenAI:
        """The official client, on the gateway's host."""
        return OpenAI(base_url="http://host/v1", api_key="-", max_retries=0, http_client=self.http)

    def ask(self) -> Bundle:
        """An answer by an OpenAI client; gives its receipt and what belongs to it."""
        began = time.monotonic()
        reply = self.client.chat.completions.create(model=MODEL, messages=SAY, max_tokens=4)  # type: ignore[arg-type]
        assert time.monotonic() - began < 12.0, "whoever is away is waited for too long"
        [line] = self.http.get(f"/receipts/{reply.id}").content.splitlines(keepends=True)
        return Bundle.decode(line)

    def records(self) -> float:
        """That were new to the gateway."""
        new = 'assay_records_total{outcome="new",source="lan"} '
        [line] = [each for each in self.http.get("/metrics").text.splitlines() if each.startswith(new)]
        return float(line.removeprefix(new))

    def served_by(self, number: int, seconds: float) -> None:
        """Wait for an answer of that provider's; of those until then one may fail: with one of two machines away, and
        the way to the other one just changed, nobody else is left to ask."""
        end, failed = time.monotonic() + seconds, 0
        while failed < 2:
            try:
                if self.ask().receipt.provider == self.addresses[number]:
                    return
            except APIStatusError:
                failed += 1
            assert time.monotonic() < end, "others answer"
        raise AssertionError("answers fail")


@contextmanager
def town(root: Path, model: Path, clocks: tuple[Mapping[str, str], ...] = ({}, {}, {})) -> Iterator[Town]:
    """Everybody with a home of its own, and nothing set but that they listen to the network."""
    with ExitStack() as stack:
        hosts = stack.enter_context(bridged(3))
        homes = [Place(root / f"host{host.number}") for host in hosts]
        for home in homes:
            home.root.mkdir()
        serve = ("serve", "--host", "0.0.0.0", "--model", str(model), *SIZE)
        starts = [
            home.running("provider", *serve, wait=False, prefix=host.prefix, **clock)
            for home, host, clock in zip(homes[:2], hosts[:2], clocks[:2], strict=True)
        ]
        providers = stack.enter_context(all_running(starts))
        listen = ("gateway", "--host", "0.0.0.0", "--port", "0", "--json")
        gateway = stack.enter_context(homes[2].running("gateway", *listen, prefix=hosts[2].prefix, **clocks[2]))
        port = int(gateway.url.rpartition(":")[2])
        began = time.monotonic()
        http = stack.enter_context(hosts[2].client(port, root))
        made = Town(homes[2], hosts, providers, gateway, http)
        until(lambda: made.found() == set(made.addresses), 3.0 - (time.monotonic() - began))
        yield made
        for program in (gateway, *providers):
            assert "Traceback" not in program.log, program.log


def test_a_network_that_is_cut_and_moved(tmp_path: Path, model_path: Path) -> None:
    """All are found within 3 s and answers hold. Whose cable is pulled out is passed over and comes back; who gets
    another address is found there, and who came while the network was cut is found as well."""
    with town(tmp_path, model_path) as here:
        bundle = here.ask()
        assert bundle.receipt.provider in here.addresses
        assert here.place.verify(bundle.encode(), model_path)["holds"]

        here.hosts[0].plug(into=False)
        for _ in range(3):
            assert here.ask().receipt.provider == here.addresses[1]
        here.hosts[0].plug(into=True)
        here.hosts[1].plug(into=False)
        here.served_by(0, 30.0)
        here.hosts[1].plug(into=True)
        until(lambda: here.found() == set(here.addresses), 30.0)

        before = here.records()
        here.hosts[1].move(22)
        until(lambda: here.records() > before)
        here.hosts[0].plug(into=False)
        here.served_by(1, 30.0)
        here.hosts[0].plug(into=True)

        here.hosts[2].move(33)
        here.hosts[1].plug(into=False)
        here.served_by(0, 30.0)

        here.hosts[0].plug(into=False)
        with here.newcomer(model_path) as newcomer:
            here.hosts[0].plug(into=True)
            until(lambda: newcomer.facts["address"] in here.found(), 45.0)


def test_a_cable_is_pulled_out_in_mid_sentence(tmp_path: Path, model_path: Path) -> None:
    """The answer goes on with the other provider within seconds, though no connection was closed."""
    with town(tmp_path, model_path) as here:
        asked: dict[str, Any] = {"model": MODEL, "messages": SAY, "max_tokens": 200, "temperature": 0}
        began, longest, chunks = time.monotonic(), 0.0, []
        for chunk in here.client.chat.completions.create(
            **asked, stream=True, extra_body={"assay": {"order": [here.addresses[0]]}}
        ):
            if len(chunks) == 5:
                here.hosts[0].plug(into=False)
            longest, began = max(longest, time.monotonic() - began), time.monotonic()
            chunks.append(chunk)
        assert chunks[-1].choices[0].finish_reason in ("stop", "length")
        assert 3.0 < longest < 12.0, "the pause"
        ends = [chunk.model_extra["assay"] for chunk in chunks if "assay" in (chunk.model_extra or {})]
        receipts = [Receipt.from_json(each) for end in ends for each in end.get("receipts", ())]
        assert [each.provider for each in receipts] == [here.addresses[1]]
        here.hosts[0].plug(into=True)
        until(lambda: len(here.http.get(f"/receipts/{chunks[0].id}").content.splitlines()) == 2, 60.0)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_clocks_that_are_wrong(tmp_path: Path, model_path: Path) -> None:
    """Five minutes fast here and slow there: everybody is found in time all the same, serves, and answers hold."""
    fast, slow = skewed(tmp_path, 300), skewed(tmp_path, -300)
    with town(tmp_path, model_path, (fast, slow, slow)) as here:
        for number, now in ((0, time.time() + 300), (1, time.time() - 300)):
            here.hosts[1 - number].plug(into=False)
            here.served_by(number, 30.0)
            bundle = here.ask()
            assert abs(bundle.receipt.issued - now) < 60
            assert here.place.verify(bundle.encode(), model_path)["holds"]
            here.hosts[1 - number].plug(into=True)
