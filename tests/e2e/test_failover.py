"""`kill -9` of who serves, in mid-sentence, again and again: the consumer's stream goes on, every part has a receipt
that holds, and each provider is paid for what it delivered, to the last wei."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.kit import MODEL, Place, Program, bundles, events, until
from tests.running import free_port

from assay.apps.checking import open_checker
from assay.apps.config import home
from assay.core.bundle import Bundle
from assay.core.chain import check_chain
from assay.core.verdict import Verdict
from assay.engines.models import resolve
from assay.store.channels import Channel, ChannelStore
from assay.store.receipts import ReceiptStore
from assay.store.tabs import TabStore

pytestmark = [pytest.mark.e2e, pytest.mark.model]
PROMPT_WEI, OUTPUT_WEI = 3, 7
LENGTH = 40
ON_THE_WAY = 2
"""Tokens that a dead provider may have handed over and nobody received."""
BODY: Mapping[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Tell a story about a river."}],
    "temperature": 0,
    "max_tokens": LENGTH,
    "stream": True,
}


class Fleet:
    """Providers of the exact engine that are paid, and can be killed and started again where they were."""

    def __init__(self, place: Place, model: Path, chain: str, stack: ExitStack) -> None:
        self._place, self._model, self._chain, self._stack = place, model, chain, stack
        self.running: dict[str, Program] = {}
        self.ports: dict[str, int] = {}

    def start(self, name: str) -> None:
        """Start one, and wait until it answers."""
        port = self.ports.setdefault(name, free_port())
        args = ("serve", "--engine", "exact", "--model", str(self._model), "--context", "256", "--threads", "1")
        prices = {"ASSAY_PROVIDER_PROMPT_PRICE_WEI": "3", "ASSAY_PROVIDER_OUTPUT_PRICE_WEI": "7"}
        where = ("--port", str(port), "--json", "--key", name, "--chain", self._chain)
        program = self._place.running(name, *args, *where, ASSAY_CHAIN_LOOK_SECONDS="0.5", **prices)
        self.running[name] = self._stack.enter_context(program)


@contextmanager
def network(place: Place, model: Path) -> Iterator[tuple[Fleet, Program]]:
    """A chain, three providers, a gateway that pays."""
    (place.root / "home").mkdir()
    (home() / "exact").mkdir(parents=True, exist_ok=True)
    (place.root / "home" / "exact").symlink_to(home() / "exact")
    with ExitStack() as stack:
        chain = stack.enter_context(place.running("devnet", "devnet", "--port", "0", "--json"))
        fleet = Fleet(place, model, chain.url, stack)
        for name in ("one", "two", "three"):  # one after the other: only the first one compiles
            fleet.start(name)
        named = [part for each in fleet.running.values() for part in ("--provider", each.url)]
        gateway = stack.enter_context(
            # Nobody is asked beside another one, who would deliver, and be paid for, tokens that are in no answer.
            place.running(
                "gateway", "gateway", "--port", "0", "--json", "--chain", chain.url, *named, ASSAY_GATEWAY_HEDGE="false"
            )
        )
        yield fleet, gateway
        for program in (gateway, *fleet.running.values()):
            assert "Traceback" not in program.log, program.log


def asked(gateway: Program, serving: Program, *, kill_at: int = 0) -> tuple[str, str, list[Any]]:
    """The text, name and receipts of one streamed answer; who serves it is killed after so many pieces."""
    wishes = {"level": "exact", "order": [serving.url]}
    text: list[str] = []
    last: Mapping[str, Any] = {}
    with gateway.http as http, http.stream("POST", "/v1/chat/completions", json={**BODY, "assay": wishes}) as reply:
        assert reply.status_code == 200, reply.read()
        for last in events(reply):
            assert "error" not in last, (last, gateway.log)
            if piece := last["choices"][0]["delta"].get("content"):
                text.append(piece)
                if len(text) == kill_at:
                    serving.kill()
    assert last["choices"][0]["finish_reason"] == "length"
    return "".join(text), last["id"], last["assay"]["receipts"]


def kills(place: Place, model: Path, times: int) -> Iterator[tuple[int, int]]:
    """So many kills at random tokens, all that must hold being asserted. Gives for each how many tokens came from who
    was killed, and for how many it signed: more, where it died between writing a token down and sending it."""
    dice = random.Random(5)
    with network(place, model) as (fleet, gateway), open_checker(resolve(str(model), home())) as check:
        unbroken, name, _ = asked(gateway, fleet.running["three"])
        parts = list(bundles(gateway.url, name))
        assert len(parts) == 1
        turn = late = 0
        while turn < times:
            at, serving = dice.randrange(1, LENGTH - 2), ("one", "two", "three")[turn % 3]
            text, name, receipts = asked(gateway, fleet.running[serving], kill_at=at)
            assert text == unbroken
            assert 1 <= len(receipts) <= 2
            fleet.start(serving)
            [*_, last] = bundles(gateway.url, name)
            if not last.request.continues:  # on a busy machine all may have been sent before it died
                parts.append(last)
                late += 1
                assert late <= times, "it dies too late"
                continue
            turn += 1
            found = until(lambda: both(gateway, name), seconds=90)  # noqa: B023 - asked at once
            check_part(found, check)
            assert found[0].receipt.provider == fleet.running[serving].facts["address"]
            assert at <= len(found[1].request.continues) <= len(found[0].tokens)
            assert len(found[0].tokens) <= len(found[1].request.continues) + ON_THE_WAY
            parts += found
            yield len(found[1].request.continues), len(found[0].tokens)
        done = place.assay("verify", str(saved(place, found)), "--model", str(model), "--json")
        assert done.returncode == 0, (done.stdout, done.stderr)
        until(lambda: paid(place, fleet, parts), seconds=60)


def both(gateway: Program, name: str) -> list[Bundle] | None:
    """The parts of an answer, when both are there."""
    found = bundles(gateway.url, name)
    return found if len(found) == 2 else None


def check_part(parts: Sequence[Bundle], check: Callable[[Bundle], Verdict]) -> None:
    """Both hold, computed again, and belong together."""
    check_chain(parts)
    for part in parts:
        verdict = check(part)
        assert verdict.holds, verdict


def saved(place: Place, parts: Sequence[Bundle]) -> Path:
    """As `assay verify` reads them."""
    path = place.root / "parts.json"
    path.write_bytes(b"".join(part.encode() for part in parts))
    return path


def paid(place: Place, fleet: Fleet, parts: Sequence[Bundle]) -> bool:
    """Whether every provider has issued just these receipts, is owed what they are worth, and is paid just that."""
    channels = {channel.terms.receiver_authorizer: channel for channel in channels_of(place)}
    for name, program in fleet.running.items():
        address = program.facts["address"]
        own = [part.receipt for part in parts if part.receipt.provider == address]
        worth = sum(PROMPT_WEI * each.prompt_count + OUTPUT_WEI * each.output_count for each in own)
        assert {each.digest for each in own} == set(issued(place, name))
        if not own:
            continue
        channel = channels[address]
        store = TabStore(f"sqlite:///{place.root / name / 'provider.sqlite3'}")
        kept = store.find(channel.id)
        store.close()
        assert kept is not None
        assert kept.voucher is not None
        assert kept.owed == worth == max(each.amount for each in own)
        if not channel.earned == channel.signed == channel.accepted == kept.voucher.amount == worth:
            return False
    return True


def issued(place: Place, name: str) -> list[bytes]:
    """Digests of all receipts of a provider for which it delivered something."""
    store = ReceiptStore(f"sqlite:///{place.root / name / 'provider.sqlite3'}")
    digests = [digest for _, digest, _ in store.unaudited(10_000)]
    found = [digest for digest in digests if store.get(digest).tokens]
    store.close()
    return found


def channels_of(place: Place) -> list[Channel]:
    """As the gateway's database has them."""
    store = ChannelStore(f"sqlite:///{place.root / 'gateway' / 'gateway.sqlite3'}")
    found = list(store.known())
    store.close()
    return found


@pytest.mark.slow
def test_five_kills_in_mid_sentence(tmp_path: Path, model_path: Path) -> None:
    """One stream each, equal to the unbroken one; both receipts hold; every provider is paid what it delivered."""
    assert len(list(kills(Place(tmp_path), model_path, 5))) == 5


@pytest.mark.long
def test_a_hundred_kills_in_mid_sentence(tmp_path: Path, model_path: Path) -> None:
    """The same, at a hundred places."""
    cuts = list(kills(Place(tmp_path), model_path, 100))
    assert len(cuts) == 100
    assert len({came for came, _ in cuts}) > LENGTH // 3
