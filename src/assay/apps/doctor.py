"""What `assay doctor` looks at: each check gives findings, and each finding that is not well names its remedy."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from assay.apps.keyfile import key_path, load_key
from assay.apps.logs import logger
from assay.core.errors import AssayError, ConfigError, MachineError, ModelFileError, ModelNotFound, NotFound

if TYPE_CHECKING:
    from assay.apps.config import Config

Health: TypeAlias = Literal["well", "note", "bad"]
"""`note`: works, but could be better. `bad`: something that Assay needs does not work."""

ENOUGH_DISK: Final = 2 * 2**30
"""Bytes: a small model and a year of receipts."""
_SLOW: Final = 4.0
"""Tokens per second under which reading along is no pleasure."""


@dataclass(frozen=True, slots=True)
class Symptom:
    """One thing that was looked at."""

    check: str
    health: Health
    detail: str
    remedy: str = ""

    def to_json(self) -> dict[str, object]:
        """For scripts."""
        return asdict(self)


Check: TypeAlias = Callable[[], Iterator[Symptom]]
"""Looks at one part of the machine."""


def run_checks(checks: Sequence[tuple[str, Check]]) -> Iterator[Symptom]:
    """Findings of all checks in turn; a check that breaks is a finding itself."""
    for name, check in checks:
        try:
            yield from check()
        except AssayError as error:
            yield Symptom(name, "bad", error.message, error.remedy)
        except OSError as error:
            yield Symptom(name, "bad", str(error), "check the path, its permissions and the disk")
        except Exception as error:  # noqa: BLE001 - what cannot be looked at is not fit
            logger("doctor").exception("check_broke", check=name)
            yield Symptom(name, "bad", f"this check broke ({type(error).__name__})", "please report it")


def all_checks(home: Path, config: Config) -> Sequence[tuple[str, Check]]:
    """Everything that is looked at, in the order in which it is told; `home` is ASSAY_HOME."""
    ports = {
        "up": (config.node.host, config.node.port),
        "serve": (config.provider.host, config.provider.port),
        "gateway": (config.gateway.host, config.gateway.port),
        "validate": (config.validator.host, config.validator.port),
    }
    models = (config.node.model, config.provider.model, config.validator.model)
    return (
        ("machine", check_machine),
        ("engine", check_engine),
        ("models", lambda: check_models(home, models)),
        ("speed", lambda: check_speed(home, config.node.model)),
        ("exact", lambda: check_exact(home, config.node.model)),
        ("disk", lambda: check_disk(home)),
        ("ports", lambda: check_ports(ports)),
        ("key", lambda: check_key(key_path(home, config.provider.key))),
        ("key", lambda: check_key(key_path(home, config.node.key))),
    )


def check_machine() -> Iterator[Symptom]:
    """Processor, memory and Python."""
    cores = os.cpu_count() or 1
    memory = _memory()
    detail = f"{platform.system()} {platform.machine()}, {cores} cores"
    if memory:
        detail += f", {memory / 2**30:.1f} GiB of memory"
    if memory and memory < 2**30:
        yield Symptom("machine", "note", detail, "with less than 1 GiB, stay with models under 500 MB")
    else:
        yield Symptom("machine", "well", detail)
    yield Symptom("python", "well", f"Python {platform.python_version()} at {sys.executable}")


def check_engine() -> Iterator[Symptom]:
    """The llama.cpp library: version, symbols, struct layouts, kernels."""
    from assay.engines import llama_abi

    llama_abi.check_abi()
    yield Symptom(
        "engine", "well", f"llama.cpp of xllamacpp {llama_abi.XLLAMACPP_VERSION}: every symbol and struct as expected"
    )
    features = llama_abi.isa()
    if platform.machine().lower() in ("x86_64", "amd64") and "avx2" not in features.split():
        yield Symptom("isa", "note", features or "none", "this build has no AVX2 kernels: expect slow answers")
    else:
        yield Symptom("isa", "well", features)


def check_models(home: Path, wanted: Sequence[str] = ()) -> Iterator[Symptom]:
    """The model files and their digests; `wanted` are the names or files that the settings ask for."""
    from assay.engines.models import CATALOGUE, list_models, resolve

    models = list_models(home)
    for name in dict.fromkeys(wanted):
        try:
            resolve(name, home)
        except ModelNotFound as error:
            if name in CATALOGUE:  # a start fetches it
                yield Symptom("models", "note", f"{name} is not here yet", f"run `assay models pull {name}`")
            else:
                yield Symptom("models", "bad", error.message, error.remedy)
        except ModelFileError:
            continue  # damaged: told below, or what uses it tells
    for model in models:
        entry = CATALOGUE.get(model.name)
        if entry is not None and entry.sha256 != model.sha256:
            yield Symptom("models", "bad", f"{model.path} is damaged", f"run `assay models pull {model.name}`")
        else:
            yield Symptom("models", "well", f"{model.name}, SHA-256 {model.sha256.hex()}")


def check_speed(home: Path, model: str) -> Iterator[Symptom]:
    """Tokens per second of one stream, with one thread and with all cores but one; `model` is a name or a file."""
    from assay.apps.speed import measure
    from assay.engines.llama_model import LlamaModel
    from assay.engines.models import resolve

    try:
        path = resolve(model, home).path
    except ModelNotFound as error:
        yield Symptom("speed", "note", f"not measured: {model} is not here", error.remedy)
        return
    with LlamaModel(path) as loaded:
        rates = measure(loaded)
    best = max(rates, key=lambda threads: rates[threads])
    detail = ", ".join(f"{rate:.0f} tokens/s with {_threads(threads)}" for threads, rate in rates.items())
    if rates[best] < _SLOW:
        yield Symptom("speed", "note", detail, "close other programs, or take a smaller model")
    else:
        yield Symptom("speed", "well", detail)


def check_exact(home: Path, model: str) -> Iterator[Symptom]:
    """The exact engine: one pass and many agree in every bit, and how fast they are. Nothing is converted for this."""
    from assay.apps.speed import measure_exact
    from assay.engines.exact.cache import is_kept, open_program
    from assay.engines.exact.warm import is_compiled
    from assay.engines.models import resolve

    try:
        found = resolve(model, home)
    except ModelNotFound as error:
        yield Symptom("exact", "note", f"not tried: {model} is not here", error.remedy)
        return
    if not is_compiled() or not is_kept(found.sha256, home / "exact"):
        said = f"not used with {found.name} yet: `assay serve --engine exact` converts and compiles, once, in a minute"
        yield Symptom("exact", "well", said)
        return
    alike, rate = measure_exact(open_program(found.path, found.sha256, home / "exact"))
    detail = f"{rate:.0f} tokens/s with 1 thread"
    if not alike:
        yield Symptom("exact", "bad", "one pass and many give different numbers", "please report it, and use llama.cpp")
    elif rate < _SLOW:
        yield Symptom("exact", "note", detail, "close other programs, or take a smaller model")
    else:
        yield Symptom("exact", "well", f"{detail}; one pass and many agree in every bit")


def check_disk(home: Path) -> Iterator[Symptom]:
    """Room, and whether files can be written under ASSAY_HOME."""
    where = home
    while not where.exists() and where != where.parent:
        where = where.parent
    free = shutil.disk_usage(where).free
    detail = f"{free / 2**30:.1f} GiB free at {home}"
    if not os.access(where, os.W_OK):
        yield Symptom("disk", "bad", f"{where} cannot be written", "set ASSAY_HOME to a directory of your own")
    elif free < ENOUGH_DISK:
        yield Symptom("disk", "note", detail, "free some space: answers stop when receipts cannot be kept")
    else:
        yield Symptom("disk", "well", detail)


def check_ports(ports: Mapping[str, tuple[str, int]]) -> Iterator[Symptom]:
    """Whether the commands can listen where the settings say: command → host and port."""
    from assay.apps.server import bind, url_of

    for name, (host, port) in ports.items():
        check, where = f"port {port}", f"{host} port {port}"
        try:
            with bind(host, port) as sock:
                url = url_of(sock)
        except MachineError as error:
            who = "an Assay server answers there" if _is_assay(host, port) else error.message
            yield Symptom(
                check, "note", f"taken ({who}): `assay {name}` cannot listen there",
                f"stop what listens there, or run `assay {name} --port 0`",
            )  # fmt: skip
        except ConfigError as error:
            yield Symptom(check, "bad", f"`assay {name}` cannot listen at {where}: {error.message}", error.remedy)
        else:
            yield Symptom(check, "well", f"free for `assay {name}`" + (f" ({url})" if port else ""))


def check_key(path: Path) -> Iterator[Symptom]:
    """The signing key."""
    try:
        yield Symptom("key", "well", f"{path.stem} signs as {load_key(path).address}")
    except NotFound:
        yield Symptom("key", "well", f"{path.stem}: none yet, made when it is first needed")


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _memory() -> int:
    """Bytes of memory, 0 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def _is_assay(host: str, port: int) -> bool:
    import httpx

    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    try:
        told = httpx.get(f"http://{host}:{port}/health", timeout=1.0, trust_env=False).json()
    except (httpx.HTTPError, ValueError):
        return False
    return isinstance(told, dict) and told.get("status") == "ok" and bool({"active", "verdicts"} & set(told))
