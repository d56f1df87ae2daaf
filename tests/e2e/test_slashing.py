"""Real processes: a provider that cheats is disputed by an unattended validator, and loses its stake."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.kit import MODEL, SAY, Place, Program, openai, until
from tests.running import free_port

from assay.apps.config import home
from assay.chain.addresses import Addresses
from assay.chain.client import NOBODY, ChainClient
from assay.chain.court import CourtClient
from assay.chain.court_events import PROVER_WINS, Slashing, read_ended, read_slashed
from assay.chain.devnet import MINTER, TOKENS
from assay.chain.docket import overview
from assay.chain.node import HttpProvider
from assay.chain.outbox import Outbox
from assay.core.keys import Key
from assay.core.receipt import Receipt

pytestmark = [pytest.mark.e2e, pytest.mark.model]
BOND = 100 * 10**18
DEAD = "0x" + "0" * 36 + "dead"
QUICK = {"ASSAY_CHAIN_LOOK_SECONDS": "0.5", "ASSAY_VALIDATOR_INTERVAL_SECONDS": "1"}
CHEAT = ("--cheat", "accumulator", "--i-am-testing-dishonesty")


class Scene:
    """A development chain, a provider, a gateway and a validator, each of which can be started again."""

    def __init__(self, place: Place, model: Path, stack: ExitStack, cheat: bool) -> None:
        self.place, self.model, self.stack, self.cheat = place, model, stack, cheat
        self.ports = {name: free_port() for name in ("devnet", "provider", "gateway", "validator")}
        self.running: dict[str, Program] = {}
        (place.root / "home").mkdir()
        (home() / "exact").mkdir(parents=True, exist_ok=True)
        (place.root / "home" / "exact").symlink_to(home() / "exact")
        self.url = f"http://127.0.0.1:{self.ports['devnet']}"
        self.start("devnet")
        there, key = Addresses.fetch(self.url), Key.from_secret(bytes(31) + b"\7")
        node = HttpProvider(self.url)
        stack.callback(node.close)
        outbox = Outbox(None, node, key, there.chain_id, confirmations=0)
        self.court = CourtClient(ChainClient(node, there, key, outbox))

    def start(self, *names: str) -> None:
        """Start programs, at the same time."""
        made = [self.stack.enter_context(self._context(name)) for name in names]
        self.running |= dict(zip(names, made, strict=True))

    def _context(self, name: str) -> Any:
        port = ("--port", str(self.ports[name]), "--json")
        chain = ("--chain", self.url)
        provider = f"http://127.0.0.1:{self.ports['provider']}"
        commands: Mapping[str, tuple[str, ...]] = {
            "devnet": ("devnet", *port),
            "provider": (
                "serve", *port, *chain, "--engine", "exact", "--model", str(self.model), "--context", "256",
                "--threads", "1", *(CHEAT if self.cheat else ()),
            ),
            "gateway": ("gateway", *port, *chain, "--provider", provider),
            "validator": (
                "validate", *port, *chain, "--model", str(self.model), "--share", "1", "--dispute",
                "--provider", provider,
            ),
        }  # fmt: skip
        prices = {"ASSAY_PROVIDER_PROMPT_PRICE_WEI": "3", "ASSAY_PROVIDER_OUTPUT_PRICE_WEI": "7"}
        data = self.place.root / ("gateway" if name == "validator" else name)
        return self.place.running(name, *commands[name], data=data, **QUICK, **prices)

    def ask(self) -> Receipt:
        """The receipt of an answer."""
        with openai(self.running["gateway"].url) as client:
            wishes = {"assay": {"level": "exact"}}
            reply = client.chat.completions.create(model=MODEL, messages=SAY, max_tokens=4, extra_body=wishes)  # type: ignore[arg-type]
        assert reply.model_extra is not None
        (receipt,) = reply.model_extra["assay"]["receipts"]
        return Receipt.from_json(receipt)

    def pass_time(self, seconds: int) -> None:
        """On the chain."""
        for method, params in (("evm_increaseTime", [seconds]), ("evm_mine", [])):
            asked = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            assert "result" in httpx.post(self.url, json=asked, timeout=20).json()

    def assay(self, *args: str, data: str) -> Any:
        """What a command prints."""
        done = self.place.assay(*args, "--chain", self.url, "--json", ASSAY_DATA_DIR=str(self.place.root / data))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@contextmanager
def scene(place: Place, model: Path, *, cheat: bool) -> Iterator[Scene]:
    """All of it."""
    with ExitStack() as stack:
        made = Scene(place, model, stack, cheat)
        yield made
        for program in made.running.values():
            assert "Traceback" not in program.log, program.log


def slashings(here: Scene) -> list[Slashing]:
    """All that the chain has."""
    court = here.court
    return [read_slashed(each) for each in court.happened("Slashed", 0, court.node.head().number)]


def check_books(here: Scene, receipts: list[Receipt]) -> None:
    """Every token is where it should be, to the last wei."""
    court, found = here.court, slashings(here)
    client = court.client
    provider = receipts[0].provider
    (validator,) = {each.challenger for each in found}
    assert len(found) == len(receipts)
    bond = BOND
    for each in found:
        pot = each.bond + each.held
        assert (each.provider, each.bond) == (provider, bond // 2)
        assert each.reward == pot // 4
        assert each.compensation + each.insured == pot // 2
        assert each.compensation in (0, *(receipt.amount for receipt in receipts))
        bond -= each.bond
    assert court.stake(provider).bond == bond
    assert court.stake(provider).running == 0
    ended = [read_ended(each) for each in court.happened("Ended", 0, court.node.head().number)]
    fees = court.values().fee * ended.count(PROVER_WINS)  # of what was demanded while nobody served it
    until(lambda: court.credit(validator) == court.credit(provider) == 0, seconds=60)
    assert client.token_balance(validator) == TOKENS + sum(each.reward for each in found) - fees
    assert client.token_balance(provider) == TOKENS - BOND + fees
    payers = {each.wronged for each in found} - {NOBODY}
    assert sum(map(court.credit, payers)) == sum(each.compensation for each in found)
    assert court.credit(MINTER.address) == sum(each.insured for each in found)
    burned = sum(each.bond + each.held - each.reward - each.compensation - each.insured for each in found)
    assert court.credit(DEAD) == burned


def finish(here: Scene, receipts: list[Receipt], seconds: float) -> None:
    """Let time pass until all are slashed: an hour at once where the provider has nothing left to say."""
    court, end = here.court, time.monotonic() + seconds
    seen: dict[object, tuple[object, float]] = {}
    while not all(court.is_slashed(each.digest) for each in receipts):
        assert time.monotonic() < end, {name: each.log[-2000:] for name, each in here.running.items()}
        time.sleep(0.5)
        disputes = [each for each in overview(court, 7 * 86_400) if each["state"] == "open"]
        now = time.monotonic()
        for each in disputes:
            if seen.get(each["id"], (-1, 0.0))[0] != each["moves"]:
                seen[each["id"]] = each["moves"], now
        if not disputes:
            here.pass_time(61)
        elif all(each["turn"] == "provider" and now - seen[each["id"]][1] > 8 for each in disputes):
            here.pass_time(3601)


def play_with_kills(here: Scene, kills: int, answers: int) -> None:
    """A cheat sells answers; programs are killed at random moments until all of them are slashed."""
    chance = random.Random(kills)
    assert here.assay("stake", "bond", str(BOND), data="provider")["bond"] == str(BOND)
    here.start("provider", "gateway")
    receipts = [here.ask() for _ in range(answers)]
    here.start("validator")
    for turn in range(kills):
        name = ("validator", "provider", "devnet")[turn % 3]
        time.sleep(chance.uniform(0.0, 4.0))
        if name != "devnet":
            here.pass_time(30)
        here.running[name].kill()
        here.start(name)
    finish(here, receipts, 120 + 60 * answers)
    until(lambda: not any(map(here.court.dispute, range(1, here.court.count() + 1))), seconds=60)
    check_books(here, receipts)
    shown = here.assay("disputes", data="gateway")["disputes"]
    assert {each["receipt"] for each in shown if each["state"] == "challenger won"} == {
        r.digest.hex() for r in receipts
    }
    text = httpx.get(f"{here.running['validator'].url}/metrics", timeout=20).text
    assert 'assay_disputes_total{side="challenger",what="won"}' in text or kills > 0


@pytest.mark.parametrize(
    ("kills", "answers"), [pytest.param(3, 1, marks=pytest.mark.slow), pytest.param(50, 4, marks=pytest.mark.long)]
)
def test_a_cheat_is_slashed(tmp_path: Path, model_path: Path, kills: int, answers: int) -> None:
    """Its receipts are found wrong, disputed by a validator and lost, while validator, provider and chain are killed at
    random moments: every receipt is slashed once, and all tokens are accounted for."""
    with scene(Place(tmp_path), model_path, cheat=True) as here:
        play_with_kills(here, kills, answers)
