"""Parts put together from configuration: model files, engines, keys and databases."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from assay.apps.config import Config, EngineName, Network, home
from assay.apps.config import Provider as ProviderSettings
from assay.apps.keyfile import key_path, load_or_new
from assay.apps.progress import progress_bar
from assay.apps.speed import choose_threads
from assay.core.errors import AssayError, BindingMismatch, ConfigError, ModelFileError, ModelNotFound, StoreError
from assay.core.hashing import Digest
from assay.core.keys import Key
from assay.core.ports import Engine
from assay.core.reach import Way
from assay.core.spelling import Spell
from assay.engines.llama_model import LlamaModel, LlamaTokenizer
from assay.engines.llama_reader import LlamaReader
from assay.engines.llama_regime import file_refusal, probe
from assay.engines.llamacpp import LlamaEngine
from assay.engines.models import CATALOGUE, ModelFile, list_models, pull, resolve
from assay.engines.openai_proxy import ProxyEngine, connect
from assay.engines.text import spelled
from assay.engines.tool_calls import TOOL_STYLES, ToolStyle, parse_tool_calls, tool_style
from assay.network.openai.shape import ToolCall, ToolReader
from assay.store.parts import PartStore
from assay.store.receipts import ReceiptStore

if TYPE_CHECKING:
    from assay.apps.selling import Selling
    from assay.apps.serving import Attest, LocalAnswers
    from assay.market.sale import Sale

Program: TypeAlias = Literal["provider", "gateway", "node", "directory"]
"""Who keeps receipts; each has a database of its own."""


def open_key(name: str) -> tuple[Key, bool]:
    """The signing key of that name, made if there is none yet; and whether it was made now.

    Raises:
        ConfigError: it cannot be read or written, or others may read it.
    """
    return load_or_new(key_path(home(), name))


def find_model(name_or_path: str) -> ModelFile:
    """The model of that name or file; one of the catalogue is fetched if it is not here.

    Raises:
        ModelNotFound, ModelFileError: there is none, or it is damaged.
    """
    try:
        return resolve(name_or_path, home())
    except ModelNotFound:
        if name_or_path not in CATALOGUE:
            raise
    with progress_bar(name_or_path) as report:
        return pull(name_or_path, home(), report=report)


def known_models() -> Mapping[str, Digest]:
    """Digests by name of the models of the catalogue and of this machine: an offer of another file is no offer."""
    known = {name: entry.sha256 for name, entry in CATALOGUE.items()}
    return known | {model.name: model.sha256 for model in list_models(home())}


@contextmanager
def open_speller() -> Iterator[Spell]:
    """What tokens of the models on this machine say; their vocabularies are opened as they are asked for. A model that
    is not here, or whose file cannot be read, is not known."""
    with ExitStack() as stack:
        vocabularies: dict[Digest, LlamaTokenizer | None] = {}
        lock = threading.Lock()

        def opened(model: Digest) -> LlamaTokenizer | None:
            try:
                found = next((item for item in list_models(home()) if item.sha256 == model), None)
                return stack.enter_context(LlamaModel(found.path, vocab_only=True)).tokenizer if found else None
            except AssayError:
                return None  # a broken file here is no fault of the answer's

        def spell(model: Digest, tokens: Sequence[int], stops: Sequence[str]) -> tuple[str, str] | None:
            with lock:
                if model not in vocabularies:
                    vocabularies[model] = opened(model)
            vocabulary = vocabularies[model]
            if vocabulary is None:
                return None
            for index, token in enumerate(tokens):
                if not 0 <= token < vocabulary.n_vocab:
                    raise BindingMismatch(
                        "tokens", f"token {index} is {token}, and the model knows {vocabulary.n_vocab} tokens"
                    )
            return spelled(vocabulary.piece, tokens, stops)

        yield spell


@dataclass(frozen=True, slots=True)
class Capacity:
    """How much of this machine an engine takes."""

    threads: int
    """0 measures and chooses; the exact engine then takes one."""
    parallel: int
    """Answers at the same time."""
    context: int
    """Positions of one answer."""


@contextmanager
def open_engine(model: ModelFile, capacity: Capacity, kind: EngineName = "llama.cpp") -> Iterator[Engine]:
    """The engine of that kind; llama.cpp is in the pinned regime if the model turns out to be bit-exact in it here.

    Raises:
        ModelFileError, EngineError: the file or this machine does not work, or the engine cannot have this model.
        StoreError: the exact engine's form of the model cannot be kept.
    """
    if kind == "exact":
        from assay.apps.exact import open_exact

        with open_exact(model, capacity) as engine:
            yield engine
        return
    with LlamaModel(model.path) as loaded:
        engine = LlamaEngine(
            loaded,
            name=model.name,
            digest=model.sha256,
            regime="free" if probe(loaded).refusal else "pinned",
            parallel=capacity.parallel,
            context=capacity.context,
            threads=capacity.threads or choose_threads(loaded),
        )
        try:
            yield engine
        finally:
            engine.close()


@contextmanager
def open_proxy(model: ModelFile, capacity: Capacity, settings: ProviderSettings) -> Iterator[ProxyEngine]:
    """An engine that has the server at `settings.upstream` compute; of the model file only the vocabulary is read.

    Raises:
        ModelFileError: the file does not work.
        ProviderFailed, EngineError: the server cannot be reached, or cannot be used for this model.
    """
    with LlamaModel(model.path, vocab_only=True) as loaded:
        ends = [token for token in (loaded.tokenizer.eos(), *sorted(loaded.tokenizer.eog())) if token is not None]
        if not ends:
            raise ModelFileError(f"{model.path} has no token that ends an answer", "use another model")
        yield asyncio.run(
            connect(
                settings.upstream,
                LlamaReader(loaded),
                name=model.name,
                digest=model.sha256,
                end=ends[0],
                served=settings.upstream_model,
                api_key=settings.upstream_api_key,
                parallel=capacity.parallel,
                context=capacity.context,
                checkable=not file_refusal(loaded),
            )
        )


@contextmanager
def open_cheat(
    name: str, model: ModelFile, capacity: Capacity, kind: EngineName = "llama.cpp"
) -> Iterator[tuple[Engine, Attest]]:
    """The engine and the pen of a dishonest provider (see `apps/cheats`).

    Raises:
        ConfigError: there is no such cheat.
    """
    from assay.apps.cheats import Workshop, make_cheat

    if kind == "exact":
        from assay.apps.exact import program_for

        program_for(model)  # converted and compiled where it can be said why that takes a while
    shop = Workshop(
        path=model.path,
        name=model.name,
        digest=model.sha256,
        scratch=home() / "cheats",
        parallel=capacity.parallel,
        context=capacity.context,
        threads=capacity.threads or 1,
        kind=kind,
    )
    dishonest = make_cheat(name, shop)
    yield dishonest.engine, dishonest.attest


def tool_reader(model: ModelFile | None = None) -> ToolReader | None:
    """Finds tool calls in answers as the model's template writes them; without a model, as any of them does.

    None if the template writes them in a way that is not read here: then calls stay text.

    Raises:
        ModelFileError: the file is damaged.
    """
    styles: Sequence[ToolStyle] = TOOL_STYLES
    if model is not None:
        with LlamaModel(model.path, vocab_only=True) as loaded:
            style = tool_style(loaded.chat_template or "")
        if style is None:
            return None
        styles = (style,)

    def read(text: str) -> tuple[str, Sequence[ToolCall]]:
        for style in styles:
            content, calls = parse_tool_calls(text, style, id_prefix="")
            if calls:
                return content, [ToolCall(call.name, call.arguments) for call in calls]
        return text, []

    return read


def open_store(config: Config, program: Program, *, forgetful: bool = False) -> ReceiptStore:
    """The program's database; `forgetful`: a dishonest provider's (see `apps/cheats/forgetful.py`).

    Raises:
        StoreError: it cannot be opened.
    """
    url = config.database_url or store_url(config, program)
    if forgetful:
        from assay.apps.cheats.forgetful import ForgetfulStore

        return ForgetfulStore(url)
    return ReceiptStore(url)


@contextmanager
def open_parts(config: Config, program: Program) -> Iterator[PartStore]:
    """Where the program notes what it delivers, beside its database.

    Raises:
        StoreError: the folder cannot be made.
    """
    parts = PartStore(_data(config) / f"{program}-parts")
    try:
        yield parts
    finally:
        parts.close()


def open_selling(config: Config, local: LocalAnswers, configured: Sale, key: str, *, priced: bool = True) -> Selling:
    """What `local` sells: as configured, and as the owner of the key of that name has set since.

    Raises:
        ConfigError: what the owner said cannot be read.
        StoreError: its folder cannot be made.
    """
    from assay.apps.selling import Selling

    return Selling(local, configured, _data(config) / f"{key}-sale.json", priced=priced)


def store_url(config: Config, program: Program) -> str:
    """The SQLite file of `program` as SQLAlchemy names it; its folder is made, for the owner only.

    Raises:
        StoreError: the folder cannot be made.
    """
    return f"sqlite:///{_data(config) / program}.sqlite3"


def _data(config: Config) -> Path:
    folder = config.data.expanduser().absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"the folder {folder} cannot be made ({error.strerror})", "set ASSAY_HOME elsewhere"
        ) from error
    return folder


def check_url(address: str, what: str) -> None:
    """Refuse at the start what cannot be the base URL of `what`.

    Raises:
        ConfigError: it cannot.
    """
    if not address.startswith(("http://", "https://")):
        raise ConfigError(f"{address!r} is no address of {what}", "write http://HOST:PORT")


def ways_of(settings: Network) -> tuple[Way, ...]:
    """The ways that providers are reached here.

    Raises:
        ConfigError: only iroh is left, and it is not installed.
    """
    from assay.network.iroh import installed

    ways = tuple(way for way in settings.ways if way != "iroh" or installed())
    if not ways:
        raise ConfigError("iroh is not installed", "run `pip install 'assay[iroh]'`, or add another of `ways`")
    return ways


def override(config: Config, section: str, settings: Mapping[str, object]) -> Config:
    """`config` with what was given on the command line (not None) in place of its own settings, checked alike.

    Raises:
        ConfigError: a value that the setting cannot have.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    members = config.model_dump()
    members[section] |= given
    try:
        return Config.model_validate(members)
    except ValueError as error:
        what = ", ".join(f"--{name.replace('_', '-')} {value}" for name, value in given.items())
        raise ConfigError(f"one of {what} cannot be used", "see the command's --help") from error
