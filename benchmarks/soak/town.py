"""A whole network in real processes on loopback: who is honest, and what is done to them."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

import httpx
from benchmarks.soak.watch import Taken
from tests.e2e.kit import Place, Program, ready
from tests.e2e.scene import Books, watching
from tests.engines.exact.models import write_model
from tests.running import free_port

from assay.chain.addresses import Addresses
from assay.store.channels import ChannelStore
from assay.store.tabs import TabStore

MODEL: Final = "tiny"
PROVIDERS: Final = ("steady", "one", "two", "hidden")
"""`hidden` is behind the relay, `steady` is never killed."""
MORTAL: Final = PROVIDERS[1:]
SERVICES: Final = ("devnet", "directory", "relay", "gateway")
LASTING: Final = (*SERVICES, "steady")
"""Those that live from the beginning to the end."""
CONTEXT: Final = 512
SILENCE: Final = 5
"""Seconds without a word for which the gateway waits."""
SETTINGS: Final = {
    "ASSAY_LOG_FORMAT": "json",
    "ASSAY_CHAIN_LOOK_SECONDS": "2",
    "ASSAY_PROVIDER_PROMPT_PRICE_WEI": "3",
    "ASSAY_PROVIDER_OUTPUT_PRICE_WEI": "7",
    "ASSAY_PROVIDER_CREDIT_WEI": "6000",
    "ASSAY_GATEWAY_TIMEOUT_SECONDS": str(SILENCE),
    "ASSAY_NETWORK_WAYS": "relay,direct",
}
_TEMPLATE: Final = "{% for message in messages %}{{ message.role }}: {{ message.content }}, {% endfor %}"


class Town:
    """Everybody honest. All but `look` is called from the main thread."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self._place: Final = Place(root)
        self._stack: Final = stack
        self.model: Final = write_model(root / f"{MODEL}.gguf", width=128, feed=256, template=_TEMPLATE)
        self.running: Final[dict[str, Program]] = {}
        self.taken: Final = {name: Taken() for name in (*SERVICES, *PROVIDERS)}
        """By program; of those that were killed, the lives one after the other."""
        self.faults: Final = Counter[str]()
        self.died: Final[list[str]] = []
        """Programs that ended though nobody killed them."""
        self._ports: Final = {name: free_port() for name in PROVIDERS}
        self._begin("devnet", "devnet", "--port", "0", "--json")
        self._begin("directory", "directory", "--port", "0", "--json")
        self._begin("relay", "relay", "--port", "0", "--json")
        self._wait("devnet", "directory", "relay")
        for name in PROVIDERS:
            self.start(name, wait=False)
        self._wait(*PROVIDERS)
        there = Addresses.fetch(self.running["devnet"].url)
        self._court: Final = stack.enter_context(watching(self.running["devnet"].url, there))

    def open(self, liar: str) -> None:
        """Start the gateway, which reads the honest directory and another one."""
        add = ("models", "add", str(self.model), "--name", MODEL)
        done = self._place.assay(*add, ASSAY_HOME=self._home("gateway"))
        assert done.returncode == 0, done.stderr
        where = f"{self.running['directory'].url},{liar}"
        self._begin("gateway", "gateway", "--port", "0", "--json", *self._chain(), ASSAY_NETWORK_DIRECTORIES=where)
        self._wait("gateway")

    @property
    def gateway(self) -> str:
        """Where consumers ask."""
        return self.running["gateway"].url

    def start(self, name: str, *, wait: bool = True) -> None:
        """A provider, where it was before."""
        serve = ("serve", "--model", str(self.model), "--context", str(CONTEXT), "--threads", "1", "--key", name)
        relay = ("--relay", self.running["relay"].url) if name == "hidden" else ()
        where = ("--port", str(self._ports[name]), "--json", *self._chain())
        self._begin(name, *serve, *where, *relay, ASSAY_NETWORK_DIRECTORIES=self.running["directory"].url)
        if wait:
            self._wait(name)

    def fault(self, dice: random.Random) -> None:
        """One more, and wait until all is well again: of the honest providers two or more are up at any time."""
        match dice.choice(("kill", "kill", "freeze", "freeze", "freeze a service")):
            case "kill":
                name = dice.choice(MORTAL)
                self.running[name].kill()
                self.faults["kills"] += 1
                time.sleep(dice.uniform(0, 3))
                self.start(name)
            case "freeze":
                self._freeze(dice.choice(PROVIDERS), dice.uniform(1, 2 * SILENCE))
            case _:
                self._freeze(dice.choice(("directory", "relay", "devnet")), dice.uniform(1, SILENCE))

    def revive(self) -> None:
        """Note who ended though nobody killed it; a provider is started again."""
        for name in PROVIDERS:
            program = self.running[name]
            if program.process.poll() is not None:
                self.died.append(f"{name} ({program.process.returncode}): {program.log[-2000:]}")
                self.start(name)
        for name in SERVICES:
            program = self.running[name]
            assert program.process.poll() is None, f"{name} ended: {program.log[-2000:]}"

    def look(self) -> None:
        """At what everybody takes; from any thread."""
        for name, taken in self.taken.items():
            taken.look(self.running[name].process.pid)

    def traces(self) -> list[str]:
        """Lines of logs that tell of an error that nobody expected, with the program's name."""
        marks = ("Traceback", '"exception"', "Exception in")
        return [
            f"{name}: {line[:2000]}"
            for name, program in self.running.items()
            for line in program.log.splitlines()
            if any(mark in line for mark in marks)
        ]

    def books(self) -> Books:
        """Everybody's, summed up."""
        folder = self._place.root
        with closing(ChannelStore(f"sqlite:///{folder / 'gateway' / 'gateway.sqlite3'}")) as spent:
            claimed = sum(self._court.client.channel_state(each.id).claimed for each in spent.known())
            sums = spent.sums()
        owed = paid = 0
        for name in PROVIDERS:
            with closing(TabStore(f"sqlite:///{folder / name / 'provider.sqlite3'}")) as tabs:
                _, more_owed, more_paid = tabs.sums()
            owed, paid = owed + more_owed, paid + more_paid
        return Books(claimed, sums["earned"], sums["signed"], sums["accepted"], owed, paid)

    def known(self) -> int:
        """Providers that the gateway knows of."""
        lines = httpx.get(f"{self.gateway}/metrics", timeout=20).text.splitlines()
        return round(float(next(line for line in lines if line.startswith("assay_providers_known ")).split()[1]))

    def _freeze(self, name: str, seconds: float) -> None:
        process = self.running[name].process
        process.send_signal(signal.SIGSTOP)
        try:
            self.faults["freezes"] += 1
            time.sleep(seconds)
        finally:
            process.send_signal(signal.SIGCONT)

    def _begin(self, name: str, *args: str, **more: str) -> None:
        home = self._home(name)
        running = self._place.running(name, *args, wait=False, **SETTINGS, ASSAY_HOME=home, **more)
        self.running[name] = self._stack.enter_context(running)

    def _wait(self, *names: str) -> None:
        for name in names:
            ready(self.running[name])

    def _home(self, name: str) -> str:
        return str(self._place.root / f"home-{name}")

    def _chain(self) -> Sequence[str]:
        return ("--chain", self.running["devnet"].url)
