"""The one configuration file, `config.toml` in ASSAY_HOME, and the environment variables that override it.

`ASSAY_PROVIDER_PORT=8200` overrides `port` of `[provider]`, and so on for every setting. ASSAY_HOME says where models,
keys, databases and the file itself live; ASSAY_CONFIG names another file.
"""

from __future__ import annotations

import difflib
import os
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from assay.core.errors import ConfigError, EncodingError
from assay.core.reach import WAYS, Way
from assay.core.record import MAX_REGION
from assay.core.request import LEVELS, Level
from assay.core.voucher import MAX_WITHDRAW_DELAY, MIN_WITHDRAW_DELAY
from assay.market.sale import Hours

Port: TypeAlias = Annotated[int, Field(ge=0, le=65_535)]
"""0 lets the system choose."""
Wei: TypeAlias = Annotated[int, Field(ge=0)]
Delay: TypeAlias = Annotated[int, Field(ge=MIN_WITHDRAW_DELAY, le=MAX_WITHDRAW_DELAY)]
"""Seconds."""
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Bytes: TypeAlias = Annotated[int, Field(ge=1024)]
Positive: TypeAlias = Annotated[int, Field(ge=1)]
Region: TypeAlias = Annotated[str, Field(max_length=MAX_REGION, pattern="^[a-z0-9-]*$")]
Who: TypeAlias = Annotated[str, Field(pattern="^0x[0-9a-fA-F]{40}$"), AfterValidator(str.lower)]
"""A key's address."""
EngineName: TypeAlias = Literal["llama.cpp", "exact"]

_MAX_FILE = 1 << 20


def _hours(written: str) -> str:
    try:
        return str(Hours.parse(written)) if written else ""
    except EncodingError as error:
        raise ValueError(error.message) from error


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LevelPrice(_Section):
    """`[provider.prices.LEVEL]`: instead of the general prices."""

    prompt_wei: Wei = 0
    output_wei: Wei = 0


class Provider(_Section):
    """`[provider]`: what `assay serve` offers."""

    host: str = "127.0.0.1"
    port: Port = 8100
    url: str = ""
    """Where consumers reach this provider, when that is not `http://host:port`."""
    key: str = "provider"
    """Name of the signing key."""
    model: str = "smollm2-135m"
    """Name or file."""
    engine: EngineName = "llama.cpp"
    """What computes `model` here; only `exact` offers the level of that name."""
    upstream: str = ""
    """Address of an OpenAI server that computes `model` in this machine's place (see docs/engines.md)."""
    upstream_model: str = ""
    """That server's name for the model; empty if it has only one."""
    upstream_api_key: str = ""
    threads: Annotated[int, Field(ge=0)] = 0
    """0 measures and chooses."""
    parallel: Positive = 4
    """Answers at the same time; the next one gets a 429."""
    context: Positive = 2048
    """Positions per answer, the prompt included."""
    levels: tuple[Level, ...] = LEVELS
    """Those that the engine can honour are offered."""
    prompt_price_wei: Wei = 0
    """Per prompt token."""
    output_price_wei: Wei = 0
    """Per output token."""
    prices: dict[Level, LevelPrice] = {}
    """By level, where they differ."""
    hours: Annotated[str, AfterValidator(_hours)] = ""
    """Of the day, in which answers are begun, such as `22:00-07:00`; empty: all."""
    bond_wei: Wei = 0
    """What is added to the bond at the start, so that there is so much: it is lost in part by false exact receipts."""
    credit_wei: Wei | None = None
    """Unpaid work that is tolerated on one channel; None: a prompt that fills the context, and 256 tokens."""
    withdraw_delay_seconds: Delay = 86_400
    """How long withdrawals from channels take at least: the time there is to claim."""
    least_deposit_wei: Wei | None = None
    """That a client of x402 deposits at least; None: `[chain] claim_factor` times the gas, which the provider pays."""
    consumers: tuple[Who, ...] = ()
    """Addresses of the keys of those who are served, and nobody else; empty: everybody."""
    requests_per_minute: Annotated[int, Field(ge=0)] = 0
    """Of a key that is listed or pays; of a network for all others. 0: no limit."""
    max_body_bytes: Bytes = 4 << 20
    tls: bool = False
    """Serve HTTPS, with a certificate of its own that the provider's record names."""


class Gateway(_Section):
    """`[gateway]`: the consumer's OpenAI endpoint."""

    host: str = "127.0.0.1"
    port: Port = 8200
    providers: tuple[str, ...] = ()
    """Base URLs."""
    discover: bool | None = None
    """Also ask providers that are found (see `[network]`); None: if no `providers` are named."""
    max_prompt_price_wei: Wei | None = None
    max_output_price_wei: Wei | None = None
    region: Region = ""
    """Of providers, for requests that wish none."""
    min_stake_wei: Wei = 0
    """That providers have to lose, for requests that wish none."""
    ignore: tuple[str, ...] = ()
    """Providers (address or URL) that are never asked."""
    reports: Annotated[tuple[str, ...], Field(max_length=64)] = ()
    """Base URLs of validators whose reports count, by what the reporters have at stake."""
    key: str = "gateway"
    """Name of the key that pays, and that signs requests: providers know it."""
    budget_wei: Wei | None = None
    """Most that is in channels and spent, in all. None: nothing, and on a development chain DEVNET_BUDGET."""
    deposit_wei: Wei | None = None
    """Into a channel at a time; None: a hundredth of the budget."""
    top_up_below_wei: Wei | None = None
    """Deposit again when less is left; None: a quarter of a deposit."""
    hedge: bool | None = None
    """Ask a second provider as well when a first token is late, unless a request says itself; None: when it is very
    late."""
    timeout_seconds: Positive = 30
    """Longest silence of a provider before another one is tried."""
    parallel: Positive = 1024
    """Requests at the same time; the next one gets a 429."""
    max_body_bytes: Bytes = 4 << 20


class Validator(_Section):
    """`[validator]`: who re-checks receipts, and how many."""

    host: str = "127.0.0.1"
    port: Port = 8300
    model: str = "smollm2-135m"
    threads: Annotated[int, Field(ge=0)] = 0
    audit_share: Share = 0.1
    """Share of the receipts that is checked, chosen at random."""
    providers: tuple[str, ...] = ()
    """Base URLs: where traces are asked for, if not in `[gateway] providers`."""
    interval_seconds: Positive = 5
    """Pause between looks for new receipts."""
    key: str = "validator"
    """Name of the key that disputes and reports."""
    report: bool = False
    """Whether verdicts are signed, and shown to whoever asks."""
    dispute: bool = False
    """Whether receipts that are proven wrong are disputed on the chain."""
    dispute_budget_wei: Wei | None = None
    """Most that is in deposits at a time. None: nothing, and on a development chain DEVNET_BUDGET."""
    disputes_at_once: Positive = 4
    dispute_least_wei: Wei = 0
    """Reward that a dispute has to promise, beyond its gas."""


class Node(_Section):
    """`[node]`: one person's own model (`assay up`)."""

    host: str = "127.0.0.1"
    port: Port = 8000
    key: str = "node"
    model: str = "smollm2-135m"
    engine: EngineName = "llama.cpp"
    """See `[provider]`."""
    threads: Annotated[int, Field(ge=0)] = 0
    parallel: Positive = 2
    context: Positive = 2048
    max_body_bytes: Bytes = 4 << 20


class Chain(_Section):
    """`[chain]`: where providers are paid."""

    url: str = ""
    """A node's JSON-RPC; empty: nothing is paid."""
    chain_id: Annotated[int, Field(ge=0)] = 0
    channels: str = ""
    """Address of the `Channels` contract; empty: a development chain tells it."""
    token: str = ""
    vault: str = ""
    """The contract that makes vaults; empty: earnings are not held back."""
    collector: str = ""
    """The contract that takes deposits by signature; empty: clients of x402 are not served."""
    court: str = ""
    """The contract of bonds and disputes; empty: there are none."""
    identity: str = ""
    """An ERC-8004 registry of identities (`assay identity`); empty: none is used."""
    confirmations: Annotated[int, Field(ge=0)] = 5
    """Blocks until a transaction is final; 0 on a development chain."""
    claim_factor: Positive = 20
    """Vouchers are claimed when they are worth so many times the gas."""
    claim_every_seconds: Annotated[int, Field(ge=0)] = 86_400
    """After so long, being worth more than the gas is enough."""
    token_wei_per_gas_wei: Annotated[float, Field(ge=0)] = 1.0
    """What a wei of what gas is paid in is worth in the token; gas counts nothing on a development chain."""
    look_seconds: Annotated[float, Field(gt=0, le=225)] = 15.0
    """Between two looks at what can be claimed."""


class Network(_Section):
    """`[network]`: how providers are found, and make themselves known."""

    lan: bool | None = None
    """Over the local network; None: if the program listens beyond this machine."""
    peers: tuple[str, ...] = ()
    """Base URLs of providers that are asked for their records."""
    directories: tuple[str, ...] = ()
    """Base URLs of directories: providers hand in their records, and others read them, there."""
    ways: Annotated[tuple[Way, ...], Field(min_length=1)] = WAYS
    """How providers that are found are reached, the favourite first."""
    iroh: Literal["off", "direct", "n0"] = "off"
    """Whether a provider has an iroh node, and whose servers help to reach it: nobody's, or those of iroh's makers,
    which a gateway asks too."""
    relays: Annotated[tuple[str, ...], Field(max_length=4)] = ()
    """Addresses (`wss://HOST`) of relays through which a provider is reached; it then serves HTTPS, as with `tls`."""
    region: Region = ""
    """What a provider says of where it is."""


class Directory(_Section):
    """`[directory]`: a service that keeps providers' records for anybody (`assay directory`)."""

    host: str = "127.0.0.1"
    port: Port = 8400
    replicate: tuple[str, ...] = ()
    """Base URLs of other directories, whose records are taken over."""
    max_records: Positive = 100_000
    puts_per_minute: Positive = 30
    """From one address."""
    gets_per_minute: Positive = 600


class Relay(_Section):
    """`[relay]`: a service through which providers are reached that take no connections (`assay relay`)."""

    host: str = "127.0.0.1"
    port: Port = 8500
    certificate: str = ""
    """PEM file of a certificate and its key, to be reached as `wss://`; empty: a reverse proxy does that."""
    max_providers: Positive = 1000
    max_streams: Positive = 64
    """Of one provider, at a time."""
    max_connections: Positive = 8192
    max_connections_per_address: Positive = 256
    idle_seconds: Positive = 120
    """After which a stream ends on which nothing is passed on."""


class Log(_Section):
    """`[log]`: to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class Config(_Section):
    """Everything that can be set."""

    data_dir: Path | None = None
    """Where databases live, when not in ASSAY_HOME; a PostgreSQL or other database is named by `database_url`."""
    database_url: str = ""
    """SQLAlchemy URL; empty for SQLite in the data folder."""
    provider: Provider = Provider()
    gateway: Gateway = Gateway()
    validator: Validator = Validator()
    node: Node = Node()
    chain: Chain = Chain()
    network: Network = Network()
    directory: Directory = Directory()
    relay: Relay = Relay()
    log: Log = Log()

    @property
    def data(self) -> Path:
        """The folder of the databases."""
        return self.data_dir or home() / "data"


def home() -> Path:
    """ASSAY_HOME, or the platform's folder for a user's application data. Nothing is created."""
    if chosen := os.environ.get("ASSAY_HOME"):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "assay"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "assay"
    xdg = Path(os.environ.get("XDG_DATA_HOME") or "")
    # The XDG specification says to ignore relative paths.
    return (xdg if xdg.is_absolute() else Path.home() / ".local" / "share") / "assay"


def load_config(path: Path | None = None) -> Config:
    """The settings of a file, overridden by the environment.

    Args:
        path: the file; None for ASSAY_CONFIG, else `config.toml` in ASSAY_HOME, which need not exist.

    Raises:
        ConfigError: the file cannot be read, or a setting is unknown or has a value that it cannot have.
    """
    if path is None and (named := os.environ.get("ASSAY_CONFIG")):
        path = Path(named).expanduser()
    members = _read(path or home() / "config.toml", required=path is not None)
    origins = _override(members, os.environ)
    try:
        return Config.model_validate(members)
    except ValidationError as error:
        raise _explain(error, origins, path or home() / "config.toml") from error


def _read(path: Path, *, required: bool) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_FILE + 1)
        if len(text) > _MAX_FILE:
            raise ConfigError(f"{path} is over {_MAX_FILE} bytes", "name Assay's own configuration file")
        return tomllib.loads(text.decode("utf-8"))
    except FileNotFoundError as error:
        if required:
            raise ConfigError(f"there is no configuration file {path}", "check the path") from error
        return {}
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror or error})", "check the path and its permissions"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML ({error})", "correct that line") from error


def _override(members: dict[str, object], environment: Mapping[str, str]) -> dict[tuple[str, ...], str]:
    """Put the environment's settings into `members`; returns which variable each of them came from."""
    origins: dict[tuple[str, ...], str] = {}
    for variable, text in sorted(environment.items()):
        name = variable.removeprefix("ASSAY_").lower()
        section, _, field = name.partition("_")
        if not variable.startswith("ASSAY_"):
            continue
        if name in ("data_dir", "database_url"):
            members[name] = text
            origins[(name,)] = variable
        elif section in Config.model_fields and field:
            held = members.get(section)
            inner: dict[str, object] = {**held} if isinstance(held, dict) else {}
            inner[field] = (
                [part.strip() for part in text.split(",") if part.strip()] if _is_list(section, field) else text
            )
            members[section] = inner
            origins[section, field] = variable
    return origins


def _fields(section: str) -> tuple[str, ...]:
    """Names of the settings of a section, or of the top level for an empty name."""
    kind = Config.model_fields[section].annotation if section in Config.model_fields else Config
    return tuple(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else ()


def _is_list(section: str, field: str) -> bool:
    return isinstance(getattr(getattr(Config(), section), field, None), tuple)


def _explain(error: ValidationError, origins: Mapping[tuple[str, ...], str], path: Path) -> ConfigError:
    """The first complaint, with where the value came from and the settings that exist."""
    complaint = error.errors(include_url=False)[0]
    where = tuple(str(part) for part in complaint["loc"])
    source = origins.get(where[:2]) or str(path)
    name = f"[{where[0]}] {'.'.join(where[1:])}" if len(where) > 1 else where[0]
    if complaint["type"] == "extra_forbidden":
        known = _fields(where[0] if len(where) > 1 else "")
        near = difflib.get_close_matches(where[-1], known, n=1)
        return ConfigError(
            f"{source}: unknown setting {name}", f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        )
    given = str(complaint["input"])[:100]
    return ConfigError(f"{source}: {name} cannot be {given!r} ({complaint['msg']})", "correct or remove it")
