"""Real processes on loopback: a chain, providers, some of them dishonest, a gateway and a validator."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from assay.apps.cheats import CHEATS, CaughtBy
from assay.apps.config import EngineName, home
from assay.apps.lifeline import start, stop, tail
from assay.apps.window.owner import Owner
from assay.apps.window.window import token_path
from assay.apps.wiring import open_key
from assay.core.errors import EngineError
from assay.core.keys import Address
from assay.engines.models import ModelFile

_READY_SECONDS: Final = 120.0
"""Longest wait for a process to answer: a slow disk loads a model slowly."""
_HONEST: Final[Mapping[str, EngineName]] = {"ada": "llama.cpp", "boole": "llama.cpp", "church": "exact"}
_DISHONEST: Final = "mallory"
"""Cheats as it is told to."""
_ALTERING: Final = "eve"
"""Cheats on the exact engine, by one number."""
_PRICES: Final = """
[provider]
prompt_price_wei = 100_000_000_000_000
output_price_wei = 1_000_000_000_000_000
bond_wei = 100_000_000_000_000_000_000

[provider.prices.exact]
prompt_wei = 200_000_000_000_000
output_wei = 2_000_000_000_000_000

[gateway]
key = "demo-buyer"
hedge = false

[validator]
key = "demo-validator"

[chain]
look_seconds = 1.0
"""
"""Of every process: 0.001 test tokens for an output token, twice that where each operation can be disputed. Nobody is
asked beside another one: a cheat that was late would be caught by what it had begun, and nobody would see how."""
_COMMAND: Final = (sys.executable, "-P", "-m", "assay.apps.cli")

Lines: TypeAlias = "queue.Queue[bytes | None]"
"""What a process prints."""


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider of the demonstration."""

    name: str
    address: Address
    url: str
    cheat: str
    """Empty for an honest one."""
    engine: EngineName = "llama.cpp"

    @property
    def does(self) -> str:
        """What it does when it cheats, as a sentence about it."""
        known = CHEATS.get(self.cheat)
        return known.does if known else f"serves {self.cheat.removeprefix('swap:')} under the model's name"

    @property
    def caught_by(self) -> CaughtBy:
        """What stands against its cheat."""
        known = CHEATS.get(self.cheat)
        return known.caught_by if known else "check"


@dataclass(slots=True)
class Network:
    """The running processes."""

    providers: Sequence[Provider] = ()
    gateway: str = ""
    """Address of the gateway."""
    window: str = ""
    """Where its owner opens the gateway's pages."""
    chain: str = ""
    """Address of the chain's node."""
    buyer: Address = ""
    """Who pays; `validator`: who disputes."""
    validator: Address = ""
    verdicts: queue.Queue[Mapping[str, object]] = field(default_factory=queue.Queue)
    """What the validator found, as it comes (`Verdict.to_json`)."""
    processes: list[tuple[str, subprocess.Popen[bytes], Path]] = field(default_factory=list)
    """Name, process, log."""

    def name(self, address: Address) -> str:
        """What a provider is called here."""
        return next((provider.name for provider in self.providers if provider.address == address), address[:10])

    @property
    def dishonest(self) -> Sequence[Provider]:
        """The providers that cheat."""
        return [provider for provider in self.providers if provider.cheat]

    def check_alive(self) -> None:
        """Raise `EngineError` if a process has ended."""
        for name, process, log in self.processes:
            if process.poll() is not None:
                raise EngineError(f"the process {name} ended ({process.returncode}): {tail(log)}", f"see {log}")


@contextmanager
def running(model: ModelFile, cheat: str, folder: Path, say: Callable[[str], None]) -> Iterator[Network]:
    """Start everything, with its files under `folder`, and end it on the way out.

    Three providers are honest, one cheats in this way and one by a single number; `say` is told what is started.

    Raises:
        EngineError: a process does not start.
    """
    network = Network()
    try:
        sellers: list[tuple[str, str, EngineName]] = [
            *((name, "", engine) for name, engine in _HONEST.items()),
            (_DISHONEST, cheat, "llama.cpp"),
            (_ALTERING, "accumulator", "exact"),
        ]
        say("starting a chain")
        network.chain = str(
            _ready(network, "chain", _spawn(network, folder, "chain", ["devnet", "--port", "0", "--json"]))["url"]
        )
        say(f"starting providers {', '.join(name for name, *_ in sellers)}, which bond 100 test tokens each")
        lines = [_serve(network, folder, model, *seller) for seller in sellers]
        facts = [_ready(network, seller[0], line) for seller, line in zip(sellers, lines, strict=True)]
        network.providers = [
            Provider(name, str(fact["address"]), str(fact["url"]), how, engine)
            for (name, how, engine), fact in zip(sellers, facts, strict=True)
        ]
        say("starting gateway and validator")
        named = [part for provider in network.providers for part in ("--provider", provider.url)]
        paying = ["--chain", network.chain]
        gateway = _spawn(network, folder, "gateway", ["gateway", "--port", "0", "--json", *paying, *named])
        network.gateway = str(_ready(network, "gateway", gateway)["url"])
        network.window = Owner.of(token_path(home()), _no_token).address(network.gateway)
        check = ["validate", "--share", "1", "--model", str(model.path), "--port", "0", "--threads", "1"]
        validator = _spawn(
            network, folder, "validator", [*check, "--interval", "1", "--json", "--dispute", *paying, *named]
        )
        _ready(network, "validator", validator)
        network.buyer, network.validator = (open_key(name)[0].address for name in ("demo-buyer", "demo-validator"))
        threading.Thread(target=_collect, args=(network, validator), daemon=True).start()
        yield network
    finally:
        stop([process for _, process, _ in network.processes])


def _no_token(path: Path, _text: str) -> None:
    raise EngineError(f"the gateway has made no token at {path}", "see its log")


def _serve(network: Network, folder: Path, model: ModelFile, name: str, cheat: str, engine: EngineName) -> Lines:
    command = ["serve", "--port", "0", "--json", "--model", str(model.path), "--key", f"demo-{name}", "--threads", "1"]
    command += ["--parallel", "2", "--context", "1024", "--engine", engine, "--chain", network.chain]
    if cheat:
        command += ["--cheat", cheat, "--i-am-testing-dishonesty"]
    return _spawn(network, folder, name, command)


def _spawn(network: Network, folder: Path, name: str, command: Sequence[str]) -> Lines:
    """Start `assay COMMAND`; its standard output comes line by line through the queue, and None at its end."""
    place = folder / ("gateway" if name == "validator" else name)  # the validator looks into the gateway's database
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings = place / "config.toml"
    settings.write_text(_PRICES, encoding="utf-8")
    log = folder / f"{name}.log"
    env = {key: value for key, value in os.environ.items() if not key.startswith("ASSAY_")}
    env |= {"ASSAY_HOME": str(home()), "ASSAY_CONFIG": str(settings), "ASSAY_DATA_DIR": str(place)}
    with log.open("wb") as file:
        process = start([*_COMMAND, *command], env=env, log=file)
    network.processes.append((name, process, log))
    lines: Lines = queue.Queue()
    threading.Thread(target=_pump, args=(process, lines), daemon=True).start()
    return lines


def _pump(process: subprocess.Popen[bytes], lines: Lines) -> None:
    with suppress(OSError, ValueError):  # closed under its feet at the end
        for line in process.stdout or ():
            lines.put(line)
    lines.put(None)


def _ready(network: Network, name: str, lines: Lines) -> Mapping[str, object]:
    """The line in which a process says where it answers."""
    until = time.monotonic() + _READY_SECONDS
    while time.monotonic() < until:
        try:
            line = lines.get(timeout=0.5)
        except queue.Empty:
            network.check_alive()
            continue
        if line is None:
            break
        fact = json.loads(line)
        assert isinstance(fact, dict)
        return fact
    log = next(log for known, _, log in network.processes if known == name)
    raise EngineError(f"the process {name} did not start: {tail(log) or 'it says nothing'}", f"see {log}")


def _collect(network: Network, lines: Lines) -> None:
    while (line := lines.get()) is not None:
        with suppress(ValueError, KeyError, TypeError):
            network.verdicts.put(json.loads(line)["verdict"])
