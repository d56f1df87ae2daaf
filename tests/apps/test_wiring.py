"""Parts put together from configuration and command line."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest
from tests.tiny import TinyEngine, tiny_key, tiny_request

from assay.apps import speed
from assay.apps.cheats.forgetful import ForgetfulStore
from assay.apps.config import Config, Network, load_config
from assay.apps.levelled import Levelled
from assay.apps.publishing import iroh_endpoints
from assay.apps.serving import LocalAnswers
from assay.apps.wiring import known_models, open_speller, open_store, override, tool_reader, ways_of
from assay.core.errors import AssayError, BindingMismatch, ConfigError, ModelFileError, StoreError
from assay.core.offer import Ask
from assay.engines.models import CATALOGUE, ModelFile


def test_options_override_settings() -> None:
    """What is given on the command line counts; what is not (None) leaves the settings alone."""
    config = override(Config(), "provider", {"port": 1234, "model": None, "levels": ("signed",)})
    assert (config.provider.port, config.provider.model) == (1234, Config().provider.model)
    assert config.provider.levels == ("signed",)
    assert config.gateway == Config().gateway


@pytest.mark.parametrize("given", [{"levels": ("perfect",)}, {"port": 70_000}, {"nothing": 1}])
def test_options_that_cannot_be(given: dict[str, object]) -> None:
    """A value that the setting cannot have is refused by its option's name."""
    with pytest.raises(ConfigError, match=f"--{next(iter(given))}"):
        override(Config(), "provider", given)


def test_databases_are_private_and_apart(tmp_home: Path) -> None:
    """Each program has a database of its own, in a folder that only its owner may look into."""
    config = load_config()
    for program in ("provider", "gateway", "node"):
        open_store(config, program).close()
    found = sorted(path.name for path in config.data.glob("*.sqlite3"))
    assert found == ["gateway.sqlite3", "node.sqlite3", "provider.sqlite3"]
    if os.name == "posix":
        assert stat.S_IMODE(config.data.stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_made(tmp_home: Path) -> None:
    """A file in the folder's place is an error with a remedy."""
    (tmp_home / "data").touch()
    with pytest.raises(StoreError, match="ASSAY_HOME"):
        open_store(load_config(), "node")


def test_names_of_the_catalogue_mean_its_files(tmp_home: Path) -> None:
    """A gateway knows which file a name of the catalogue stands for, also without having it."""
    assert known_models() == {name: entry.sha256 for name, entry in CATALOGUE.items()}


@pytest.mark.model
def test_tokens_that_the_model_does_not_have_are_no_way_round_the_text_check(model_path: Path) -> None:
    """What tokens say is known where the model is; a token outside its vocabulary is a lie, not a thing unknown."""
    digest = CATALOGUE["smollm2-135m"].sha256
    with open_speller() as spell:
        assert spell(bytes(32), [1, 10**6], ()) is None
        texts = spell(digest, [504, 330], ())
        assert texts
        assert texts[0] == texts[1] != ""
        with pytest.raises(BindingMismatch, match="token 1 is 1000000"):
            spell(digest, [504, 10**6], ())


def test_a_model_file_that_cannot_be_read_is_a_model_that_is_not_known(
    tmp_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer has come, and is not spoilt by a broken file of the gateway's own."""

    def broken(_home: Path) -> list[ModelFile]:
        raise ModelFileError("a model file cannot be read")

    monkeypatch.setattr("assay.apps.wiring.list_models", broken)
    with open_speller() as spell:
        assert spell(bytes(32), [1], ()) is None
    damaged = tmp_home / "damaged.gguf"
    damaged.write_bytes(b"GGUF")
    monkeypatch.setattr("assay.apps.wiring.list_models", lambda _home: [ModelFile("m", damaged, bytes(32), 4)])
    with open_speller() as spell:
        assert spell(bytes(32), [1], ()) is None


def test_tool_calls_without_the_model(tmp_home: Path) -> None:
    """A gateway reads the usual spelling of tool calls."""
    read = tool_reader()
    assert read is not None
    text, (call,) = read('Well. <tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>')
    assert (text.strip(), call.name) == ("Well.", "f")
    assert read("no calls") == ("no calls", [])


def test_fewer_levels_than_the_engine_honours(tmp_path: Path) -> None:
    """What is not offered is refused, and what is offered works as ever."""

    async def offered() -> None:
        store = ForgetfulStore(f"sqlite:///{tmp_path / 'a.db'}")
        local = LocalAnswers([Levelled(TinyEngine(), ["signed", "pinned"])], tiny_key(), store)
        assert [offer.level for offer in await local.models()] == ["signed", "pinned"]
        with pytest.raises(AssayError, match="statistical"):
            await local.answer(tiny_request(level="statistical"), Ask("tiny", "statistical"))
        answer = await local.answer(tiny_request(level="pinned"), Ask("tiny", "pinned"))
        tokens = [step.token async for step in answer.steps()]
        assert (await answer.bundle()).tokens == tuple(tokens)
        store.close()

    asyncio.run(offered())


def test_a_forgetful_store_signs_what_it_cannot_keep(tmp_path: Path) -> None:
    """The dishonest provider's database never stands in the way of a second receipt under one number."""
    from tests.apps.test_cli_verify import answered

    bundle = answered(TinyEngine(), tiny_request())
    store = ForgetfulStore(f"sqlite:///{tmp_path / 'a.db'}")
    assert store.issue(tiny_key().address, lambda _: bundle) == bundle
    assert store.issue(tiny_key().address, lambda _: bundle) == bundle
    assert store.count() == 1
    store.close()


@pytest.mark.model
def test_threads(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread where there is no choice; more only if they are clearly faster."""
    from assay.engines.llama_model import LlamaModel

    with LlamaModel(model_path) as model:
        monkeypatch.setattr(os, "cpu_count", lambda: 2)
        assert speed.choose_threads(model) == 1
        monkeypatch.setattr(os, "cpu_count", lambda: 8)
        for fast, chosen in ((1.1, 1), (1.9, 7)):
            monkeypatch.setattr(
                speed, "_rate", lambda _model, threads, _tokens, fast=fast: 10.0 * fast ** (threads > 1)
            )
            assert speed.choose_threads(model) == chosen


def test_ways_without_iroh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not installed the other ways are taken; if it is the only one, that is said."""
    monkeypatch.setattr("assay.network.iroh.find_spec", lambda _name: None)
    assert ways_of(Network()) == ("direct", "relay")
    with pytest.raises(ConfigError, match="not installed"):
        ways_of(Network(ways=("iroh",)))
    with pytest.raises(ConfigError, match="not installed"):
        iroh_endpoints(tiny_key(1), "127.0.0.1", 1, "direct")
