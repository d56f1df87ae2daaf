"""A chain, a provider that cheats, a gateway that pays it, and a validator: real processes that can be killed."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import httpx
from tests.chain.kit import anvil
from tests.e2e.kit import MODEL, SAY, Place, Program
from tests.running import free_port

from assay.apps.config import home
from assay.chain.addresses import Addresses
from assay.chain.client import ChainClient
from assay.chain.court import CourtClient
from assay.chain.devnet import CHAIN_ID, MINTER, Devnet
from assay.chain.docket import overview
from assay.chain.ethereum import Web3
from assay.chain.node import HttpProvider
from assay.chain.outbox import Outbox
from assay.core.encoding import parse_canonical
from assay.core.errors import ChainFailed
from assay.core.hashing import Digest
from assay.core.keys import Key
from assay.core.receipt import Receipt
from assay.core.request import Level, Request
from assay.store.channels import ChannelStore
from assay.store.receipts import ReceiptStore
from assay.store.tabs import TabStore

Chain: TypeAlias = Literal["devnet", "anvil"]
PEOPLE: Final = ("provider", "gateway", "validator")
BOND: Final = 100 * 10**18
MONTH: Final = 30 * 86_400
PROMPT, OUTPUT = 3, 7
"""Wei for a token."""
CREDIT: Final = 600
"""Wei: an answer of 40 tokens needs a voucher on the way."""
NO_CHAIN: Final = 4
"""The exit code of a program that starts while the chain is away."""
SETTINGS: Final = {
    "ASSAY_LOG_FORMAT": "json",
    "ASSAY_CHAIN_LOOK_SECONDS": "0.5",
    "ASSAY_PROVIDER_PROMPT_PRICE_WEI": str(PROMPT),
    "ASSAY_PROVIDER_OUTPUT_PRICE_WEI": str(OUTPUT),
    "ASSAY_PROVIDER_CREDIT_WEI": str(CREDIT),
    "ASSAY_VALIDATOR_INTERVAL_SECONDS": "1",
    "ASSAY_VALIDATOR_DISPUTES_AT_ONCE": "2",
}
log = logging.getLogger(__name__)


class Mirror:
    """A development chain's contracts and money on a real node: the same transactions, sent there."""

    def __init__(self, web3: Web3) -> None:
        self._web3: Final = web3
        self._devnet: Final = Devnet(None, clock=time.time)
        self._sent = 0
        web3.provider.make_request("anvil_setBalance", [Web3.to_checksum_address(MINTER.address), hex(10**27)])  # type: ignore[arg-type]
        self._follow()

    @property
    def settings(self) -> Mapping[str, str]:
        """What programs have to be told where no development chain tells it."""
        found = asdict(self.addresses) | {"confirmations": 1, "token_wei_per_gas_wei": 0}
        return {f"ASSAY_CHAIN_{name.upper()}": str(value) for name, value in found.items()}

    @property
    def addresses(self) -> Addresses:
        """Where the contracts are."""
        return Addresses.from_config({"chain_id": CHAIN_ID, **asdict(self._devnet.contracts)})

    def fund(self, address: str) -> None:
        """Give somebody ether and tokens."""
        self._devnet.fund(address)
        self._follow()

    def _follow(self) -> None:
        for number in range(self._sent + 1, self._devnet.chain.head.number + 1):
            block = self._devnet.chain.block(number)
            assert block is not None
            assert block.transaction is not None
            name = self._web3.eth.send_raw_transaction(block.transaction.raw)
            assert self._web3.eth.wait_for_transaction_receipt(name)["status"] == 1
            self._sent = number


class Scene:
    """Everybody, on a chain of either kind."""

    def __init__(self, place: Place, model: Path, stack: ExitStack, chain: Chain) -> None:
        self.place, self.model, self.stack = place, model, stack
        self.ports = {name: free_port() for name in ("devnet", *PEOPLE)}
        self.running: dict[str, Program] = {}
        self.settings = dict(SETTINGS)
        self.killed: Counter[tuple[str, str]] = Counter()
        """By program and stage."""
        self.restarted: Counter[str] = Counter()
        """Programs that ended because there was no chain."""
        (place.root / "home").mkdir()
        (home() / "exact").mkdir(parents=True, exist_ok=True)
        (place.root / "home" / "exact").symlink_to(home() / "exact")  # models are converted once
        made = [self.assay("keys", "new", name)["address"] for name in PEOPLE]
        self.address = dict(zip(PEOPLE, made, strict=True))
        if chain == "anvil":
            web3 = stack.enter_context(anvil())
            self.url: str = web3.provider.endpoint_uri  # type: ignore[attr-defined]
            mirror = Mirror(web3)
            for address in made:
                mirror.fund(address)
            web3.provider.make_request("evm_setIntervalMining", [1])  # type: ignore[arg-type]
            self.settings |= mirror.settings
            self.settings |= {f"ASSAY_{name}_WEI": str(BOND) for name in ("GATEWAY_BUDGET", "VALIDATOR_DISPUTE_BUDGET")}
            there = mirror.addresses
        else:
            self.url = self.at("devnet")
            self.start("devnet")
            for address in made:
                assert httpx.post(f"{self.url}/fund/{address}", timeout=20).status_code == 200
            there = Addresses.fetch(self.url)
        self.court = stack.enter_context(watching(self.url, there))

    def at(self, name: str) -> str:
        """A program's address."""
        return f"http://127.0.0.1:{self.ports[name]}"

    def start(self, *names: str) -> None:
        """Start programs together, and wait until they answer."""
        for name in names:
            self._begin(name)
        self.wait(*names)

    def wait(self, *names: str, seconds: float = 120.0) -> None:
        """Until these answer."""
        end = time.monotonic() + seconds
        for name in names:
            while not _answers(self.at(name)):
                assert time.monotonic() < end, f"{name} does not answer: {self.running[name].log[-2000:]}"
                self.tend()
                time.sleep(0.1)

    def tend(self) -> None:
        """What a supervisor does: start again who ended because there was no chain; nobody may end otherwise."""
        for name, program in list(self.running.items()):
            if (code := program.process.poll()) is not None:
                assert code == NO_CHAIN, f"{name} ended with {code}: {program.log[-2000:]}"
                self.restarted[name] += 1
                self._begin(name)

    @property
    def stage(self) -> str:
        """What goes on now."""
        if "validator" not in self.running:
            return "selling"
        try:
            return "disputing" if self.disputes() else "checking"
        except ChainFailed:
            return "without a chain"

    def kill(self, name: str) -> None:
        """`kill -9`; and start it again."""
        stage = self.stage
        self.tend()
        self.running[name].kill()
        self.killed[name, stage] += 1
        log.info("%s is killed (%s)", name, stage)
        self._begin(name)

    def _begin(self, name: str) -> None:
        self.running[name] = self.stack.enter_context(self._context(name))

    def _context(self, name: str) -> Any:
        port = ("--port", str(self.ports[name]), "--json")
        there = (*port, "--chain", self.url)
        model = ("--model", str(self.model))
        commands: Mapping[str, tuple[str, ...]] = {
            "devnet": ("devnet", *port),
            "provider": (
                "serve", *there, *model, "--engine", "exact", "--context", "256", "--threads", "1",
                "--cheat", "accumulator", "--i-am-testing-dishonesty",
            ),
            "gateway": ("gateway", *there, "--provider", self.at("provider")),
            "validator": (
                "validate", *there, *model, "--share", "1", "--dispute", "--provider", self.at("provider")
            ),
        }  # fmt: skip
        return self.place.running(name, *commands[name], wait=False, data=self.folder(name), **self.settings)

    def folder(self, name: str) -> Path:
        """Of a program's databases; a validator reads the gateway's."""
        return self.place.root / ("gateway" if name == "validator" else name)

    def pass_time(self, seconds: int) -> None:
        """On the chain."""
        for method, params in (("evm_increaseTime", [seconds]), ("evm_mine", [])):
            asked = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            assert "result" in httpx.post(self.url, json=asked, timeout=20).json()

    def disputes(self) -> list[dict[str, object]]:
        """That are open now: see `overview`."""
        return [each for each in overview(self.court, MONTH) if each["state"] == "open"]

    def hurry(self) -> None:
        """Let time pass where everybody waits for it: a minute where a validator has opened no dispute, and an hour
        where in all that are open the provider has found that it has nothing left to say. Nothing happens while the
        chain is away."""
        if "validator" not in self.running:
            return
        with suppress(ChainFailed, httpx.HTTPError):
            found = self.disputes()
            if not found:
                self.pass_time(61)
            elif all(each["turn"] == "provider" for each in found):
                stuck = self.said("provider", "dispute_trouble")
                known = {(it["dispute"], it["move"]) for it in stuck if not str(it["reason"]).startswith("the node ")}
                if {(each["id"], each["moves"]) for each in found} <= known:
                    self.pass_time(3601)

    def said(self, name: str, event: str) -> list[Mapping[str, Any]]:
        """What a program has logged of a kind."""
        found = []
        for line in self.running[name].log.splitlines():
            with suppress(ValueError):  # one that a kill broke off
                found.append(json.loads(line))
        return [each for each in found if each["event"] == event]

    def assay(self, *args: str, data: str = "") -> Any:
        """What a command prints."""
        done = self.place.assay(*args, "--json", ASSAY_DATA_DIR=str(self.folder(data)), **self.settings)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@contextmanager
def scene(place: Place, model: Path, chain: Chain) -> Iterator[Scene]:
    """All of it; at the end everybody still runs, and nobody has met an error that it did not expect."""
    with ExitStack() as stack:
        made = Scene(place, model, stack, chain)
        yield made
        for program in made.running.values():
            assert program.process.poll() is None
            assert "Traceback" not in program.log, program.log


@contextmanager
def watching(url: str, there: Addresses) -> Iterator[CourtClient]:
    """Somebody who only looks at the chain, as it is in its latest block."""
    key = Key.from_secret(bytes(31) + b"\7")
    with (
        closing(HttpProvider(url)) as node,
        closing(Outbox(None, node, key, there.chain_id, confirmations=0)) as outbox,
    ):
        yield CourtClient(ChainClient(node, there, key, outbox))


def tried(url: str, level: Level) -> set[Receipt]:
    """Receipts of an answer that may fail."""
    body = {"model": MODEL, "messages": SAY, "max_tokens": 40, "assay": {"level": level}}
    try:
        reply = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)
    except httpx.HTTPError:
        return set()
    if reply.status_code != 200:
        return set()
    return {Receipt.from_json(each) for each in reply.json()["assay"]["receipts"]}


@contextmanager
def customer(here: Scene, exact: int) -> Iterator[set[Receipt]]:
    """Somebody who asks again and again, in a thread: for so many exact answers first. What has come of that."""
    seen: set[Receipt] = set()
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            done = tried(here.at("gateway"), "exact" if len(seen) < exact else "signed")
            seen.update(done)
            over.wait(0.0 if done else 0.5)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def receipts(here: Scene, name: str) -> list[Receipt]:
    """All in a program's database that have no verdict."""
    with closing(ReceiptStore(_store(here, name))) as store:
        return [store.get(digest).receipt for _, digest, _ in store.unaudited(10_000)]


def missing(here: Scene) -> set[Digest]:
    """Requests whose receipts the gateway has still to fetch, and the provider has."""
    with closing(ChannelStore(_store(here, "gateway"))) as store:
        asked = [Request.from_json(parse_canonical(each.request, what="a request")) for each in store.outstanding()]
    return {each.digest for each in asked} & {each.request for each in receipts(here, "provider")}


def _answers(url: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    return False


def _store(here: Scene, name: str) -> str:
    return f"sqlite:///{here.folder(name) / name}.sqlite3"


@dataclass(frozen=True)
class Books:
    """Wei over all channels."""

    claimed: int
    """As the chain has it."""
    earned: int
    """By answers, as far as the gateway has counted; `signed`, what its vouchers allow; `accepted`, of which it knows
    that the provider has it."""
    signed: int
    accepted: int
    owed: int
    """As the provider's receipts say; `paid`, what its best vouchers allow."""
    paid: int

    @property
    def agree(self) -> bool:
        """All that was earned is signed for, handed over and claimed, and no more."""
        return self.claimed == self.earned == self.signed == self.accepted == self.paid

    @classmethod
    def read(cls, here: Scene) -> Books:
        """Now: chain, gateway, provider, in this order."""
        with (
            closing(ChannelStore(_store(here, "gateway"))) as spent,
            closing(TabStore(_store(here, "provider"))) as tabs,
        ):
            claimed = sum(here.court.client.channel_state(each.id).claimed for each in spent.known())
            sums = spent.sums()
            _, owed, paid = tabs.sums()
        return cls(claimed, sums["earned"], sums["signed"], sums["accepted"], owed, paid)
