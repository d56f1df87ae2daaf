"""One network of real processes that the whole session shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
import pytest
from tests.e2e.kit import MODEL, TOOLS_MODEL, TOOLS_TEMPLATE, Place, Program, all_running, until, with_template

from assay.apps.checking import open_checker
from assay.core.bundle import Bundle
from assay.core.hashing import Digest
from assay.core.verdict import Verdict
from assay.engines.llama_model import LlamaModel, LlamaTokenizer
from assay.engines.models import resolve
from assay.network.iroh import installed

if TYPE_CHECKING:
    from playwright.sync_api import Browser


WAYS: Final = ("relay", "iroh")
SIZE = ("--port", "0", "--json", "--threads", "1", "--parallel", "4", "--context", "320")


@dataclass(frozen=True)
class Far:
    """Providers that are reached in roundabout ways only."""

    providers: list[Program]
    gateways: Mapping[str, Program]
    """By the way that they take, as `[network] ways` has it."""
    services: list[Program]

    def programs(self) -> list[Program]:
        """All of them."""
        return [*self.providers, *self.gateways.values(), *self.services]


@dataclass
class Network:
    """Two providers behind a gateway, and a node, each with both models."""

    place: Place
    model: Path
    tools_model: Path
    gateway: Program
    node: Program
    tools_node: Program
    providers: list[Program]
    exact_nodes: Mapping[str, Program] = field(default_factory=dict)
    """Nodes of the exact engine by model: see the fixture of that name."""
    far: Far | None = None
    """Providers that are reached in roundabout ways: see the fixture of that name."""

    def programs(self) -> list[Program]:
        """All of them."""
        return [
            self.gateway,
            self.node,
            self.tools_node,
            *self.providers,
            *self.exact_nodes.values(),
            *(self.far.programs() if self.far else ()),
        ]

    def file(self, model: str) -> Path:
        """The model file that is served under a name."""
        return self.tools_model if model == TOOLS_MODEL else self.model

    def surface(self, name: str, model: str) -> Program:
        """Who answers for a model: the gateway for both, one node for each."""
        if name == "exact":
            return self.exact_nodes[model]
        if name == "gateway":
            return self.gateway
        if name in WAYS:
            assert self.far is not None
            return self.far.gateways[name]
        return self.tools_node if model == TOOLS_MODEL else self.node


@pytest.fixture(scope="session")
def tools_path(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real model with a chat template that takes tools."""
    return with_template(model_path, tmp_path_factory.mktemp("model") / f"{TOOLS_MODEL}.gguf", TOOLS_TEMPLATE)


@pytest.fixture(scope="session")
def tokenizer(model_path: Path) -> Iterator[LlamaTokenizer]:
    """The real model's vocabulary."""
    with LlamaModel(model_path, vocab_only=True) as model:
        yield model.tokenizer


@pytest.fixture(scope="session")
def check(
    model_path: Path, tools_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Bundle], Verdict]]:
    """What `assay verify` does, in this process: another one for each receipt takes seconds."""
    root = tmp_path_factory.mktemp("checks")
    with ExitStack() as stack:
        checks: dict[Digest, Callable[[Bundle], Verdict]] = {}
        patch = stack.enter_context(pytest.MonkeyPatch.context())

        def checked(bundle: Bundle) -> Verdict:
            for path in (model_path, tools_path):
                found = resolve(str(path), root)
                if found.sha256 == bundle.receipt.model and found.sha256 not in checks:
                    checks[found.sha256] = stack.enter_context(open_checker(found))
            with patch.context() as here:
                here.setenv("ASSAY_HOME", str(root))  # where converted models go
                return checks[bundle.receipt.model](bundle)

        yield checked


@pytest.fixture(scope="session")
def network(model_path: Path, tools_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Real programs on loopback. At the end none of them may have failed at anything that was asked of it."""
    place = Place(tmp_path_factory.mktemp("network"))
    models: Mapping[str, Path] = {"plain": model_path, "tools": tools_path}
    starts = [
        place.running(f"{kind}-{name}", *command, "--model", str(path), *SIZE, wait=False, ASSAY_NODE_KEY=name)
        for name, path in models.items()
        for kind, command in (("serve", ("serve", "--key", f"provider-{name}")), ("up", ("up",)))
    ]
    with all_running(starts) as (provider, node, tools_provider, tools_node):
        named = [part for one in (provider, tools_provider) for part in ("--provider", one.url)]
        with place.running("gateway", "gateway", "--port", "0", "--json", *named) as gateway:
            found = Network(place, model_path, tools_path, gateway, node, tools_node, [provider, tools_provider])
            yield found
            for program in found.programs():
                assert "Traceback" not in program.log, program.log


@pytest.fixture(scope="session")
def exact_nodes(network: Network) -> Iterator[Mapping[str, Program]]:
    """The network's nodes of the exact engine, started when the first test wants them."""
    models = {MODEL: network.model, TOOLS_MODEL: network.tools_model}
    starts = [
        network.place.running(
            f"exact-{name}", "up", "--engine", "exact", "--model", str(path), *SIZE, ASSAY_NODE_KEY=f"exact-{name}"
        )
        for name, path in models.items()
    ]
    with ExitStack() as stack:  # one after the other: only the first one compiles
        nodes = {name: stack.enter_context(start) for name, start in zip(models, starts, strict=True)}
        network.exact_nodes = nodes
        yield nodes
        for program in nodes.values():
            assert "Traceback" not in program.log, program.log
        network.exact_nodes = {}


@pytest.fixture(scope="session")
def far(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    """Providers that gateways reach through a relay or iroh, without any address, started when the first test wants
    them."""
    place = Place(tmp_path_factory.mktemp("far"))
    with ExitStack() as stack:
        relay = stack.enter_context(place.running("relay", "relay", "--port", "0", "--json"))
        ways = [way for way in WAYS if way != "iroh" or installed()]
        serve = ("serve", *SIZE, "--relay", relay.url, *(("--iroh", "direct") if "iroh" in ways else ()))
        starts = [
            place.running(f"far-{name}", *serve, "--key", name, "--model", str(path), wait=False)
            for name, path in (("plain", network.model), ("tools", network.tools_model))
        ]
        providers = stack.enter_context(all_running(starts))
        gateways = {
            way: stack.enter_context(
                place.running(f"by-{way}", "gateway", "--port", "0", "--json", ASSAY_NETWORK_WAYS=way)
            )
            for way in ways
        }
        for gateway in gateways.values():
            until(lambda: len(httpx.get(f"{gateway.url}/v1/models").json().get("data", ())) == 2)  # noqa: B023
        network.far = Far(providers, gateways, [relay])
        yield network.far
        for program in network.far.programs():
            assert "Traceback" not in program.log, program.log
        network.far = None


def surface_of(request: pytest.FixtureRequest) -> str:
    """The surface that a test is parametrised with; starts what it needs."""
    if request.param == "exact":
        request.getfixturevalue("exact_nodes")
    if request.param in WAYS:
        request.getfixturevalue("far")
    return request.param


EXACT: Final = pytest.param("exact", marks=pytest.mark.slow)
"""A node of the exact engine, or the engine itself, as a parameter."""
ROUNDABOUT: Final = [
    pytest.param("relay", marks=pytest.mark.slow),
    pytest.param("iroh", marks=[pytest.mark.slow, pytest.mark.skipif(not installed(), reason="iroh is not installed")]),
]
"""Gateways that reach their providers in roundabout ways, as parameters."""
ENGINES: Final = pytest.mark.parametrize("engine", ["llama.cpp", EXACT])
"""For tests that start providers of their own."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium, for one module of tests."""
    from tests.apps.window.browser import launched

    with launched() as found:
        yield found
