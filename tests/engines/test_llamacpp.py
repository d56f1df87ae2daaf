"""The engines of this machine behind their port: streams, neighbours, hanging up, closing."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
from tests.tiny import tiny_request

from assay.apps.exact import program_for
from assay.core.completion import Step
from assay.core.errors import Busy, EngineError, InvalidRequest
from assay.core.ports import Engine
from assay.core.request import Request
from assay.engines.exact.engine import ExactEngine
from assay.engines.llama_model import LlamaModel
from assay.engines.llama_reader import LlamaReader
from assay.engines.llamacpp import LlamaEngine
from assay.engines.models import ModelFile

pytestmark = [pytest.mark.model, pytest.mark.anyio]
Opened = Callable[[str, int], LlamaEngine | ExactEngine]


@pytest.fixture(scope="module")
def model(model_path: Path) -> Iterator[LlamaModel]:
    """The real model."""
    with LlamaModel(model_path) as opened:
        yield opened


@pytest.fixture(scope="module")
def opened(model: LlamaModel, model_path: Path) -> Opened:
    """Opens an engine of one kind: llama.cpp's is in the pinned regime."""

    def open_engine(kind: str, parallel: int) -> LlamaEngine | ExactEngine:
        if kind == "llama.cpp":
            return LlamaEngine(model, name="model", digest=bytes(32), parallel=parallel, context=256)
        file = ModelFile("model", model_path, hashlib.sha256(model_path.read_bytes()).digest(), 0)
        reader = LlamaReader(model, limit=256)
        return ExactEngine(program_for(file), reader, name="model", digest=bytes(32), parallel=parallel, context=256)

    return open_engine


@pytest.fixture(scope="module", params=["llama.cpp", "exact"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which engine."""
    return request.param


@pytest.fixture(scope="module")
def engine(opened: Opened, kind: str) -> Iterator[LlamaEngine | ExactEngine]:
    """Three places."""
    found = opened(kind, 3)
    yield found
    found.close()


async def steps_of(engine: Engine, request: Request) -> list[Step]:
    """A whole answer."""
    return [step async for step in engine.generate(request, engine.reader.render(request))]


async def test_neighbours_change_nothing(engine: LlamaEngine | ExactEngine) -> None:
    """Tokens and evidence of an answer are the same alone, beside others, and from a reused prefix."""
    asked = [tiny_request(f"Tell me about {what}.", max_tokens=12, nonce=bytes([n] * 32), level=engine.levels[-1])
             for n, what in enumerate(("rivers", "rivers and boats", "bread"))]  # fmt: skip
    alone = [await steps_of(engine, request) for request in asked]
    together = await asyncio.gather(*(steps_of(engine, request) for request in reversed(asked)))
    assert list(reversed(together)) == alone
    assert len({step.leaf for steps in alone for step in steps}) == sum(map(len, alone))


@pytest.mark.parametrize(
    "form", ["", '{"type":"object","properties":{"bears":{"minItems":3,"type":"array"}},"required":["bears"]}']
)
async def test_an_answer_goes_on_at_another_engine(engine: LlamaEngine | ExactEngine, form: str) -> None:
    """Wherever a greedy answer is broken off, what is asked to go on gives the tokens and the text that it would have
    given: half characters, grammars and limits across the border."""
    request = replace(
        tiny_request("List emoji: 🦊 🐻", max_tokens=14, temperature=0, level="signed"), response_format=form
    )
    whole = await steps_of(engine, request)
    assert len(whole) > 4
    for cut in range(1, len(whole), 3):
        rest = await steps_of(engine, request.after([step.token for step in whole[:cut]]))
        assert [step.token for step in rest] == [step.token for step in whole[cut:]]
        assert "".join(step.text for step in rest) == "".join(step.text for step in whole[cut:])
        assert rest[-1].stop == whole[-1].stop


async def test_hanging_up_frees_the_place(engine: LlamaEngine | ExactEngine) -> None:
    """Whoever closes the stream stops generation within a token; a full engine says that it is full."""
    long = tiny_request("Tell a very long story.", max_tokens=200, temperature=0)
    prompt = engine.reader.render(long)
    streams = [engine.generate(long, prompt) for _ in range(3)]
    for stream in streams:
        await anext(stream)
    assert engine.active == 3
    with pytest.raises(Busy):
        await anext(engine.generate(long, prompt))
    for stream in streams:
        await stream.aclose()
    assert engine.active == 0
    started = time.monotonic()
    assert len(await steps_of(engine, replace(long, max_tokens=2))) == 2
    assert time.monotonic() - started < 1


async def test_an_empty_prompt_is_refused(engine: LlamaEngine | ExactEngine) -> None:
    """It is the asker's mistake, and costs nobody else an answer."""
    empty = replace(tiny_request(max_tokens=4), kind="completion", messages=(), prompt="")
    other = asyncio.create_task(steps_of(engine, tiny_request("Say something.", max_tokens=30)))
    await asyncio.sleep(0.05)
    with pytest.raises(InvalidRequest, match="no tokens"):
        await steps_of(engine, empty)
    assert (await other)[-1].stop


def test_a_loop_that_ends_first(opened: Opened, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A program that ends in mid-answer closes its engine after its loop, without a word."""
    engine = opened(kind, 1)
    loop = asyncio.new_event_loop()

    async def begin() -> None:
        request = tiny_request("Tell a very long story.", max_tokens=200)
        streams.append(engine.generate(request, engine.reader.render(request)))
        await anext(streams[0])

    streams: list = []
    loop.run_until_complete(begin())
    loop.close()
    time.sleep(0.2)
    engine.close()
    assert capfd.readouterr().err == ""


async def test_closing_in_mid_answer(opened: Opened, kind: str) -> None:
    """Answers under way end with an error that says why."""
    engine = opened(kind, 1)
    request = tiny_request("Tell a very long story.", max_tokens=200)
    async with aclosing(engine.generate(request, engine.reader.render(request))) as stream:
        await anext(stream)
        closing = asyncio.create_task(asyncio.to_thread(engine.close))
        with pytest.raises(EngineError, match="shutting down"):
            while True:
                await anext(stream)
        await closing


def test_levels_of_each_regime(opened: Opened, model: LlamaModel) -> None:
    """Only the pinned regime offers `pinned`, and only the exact engine `exact`."""
    for kind, levels in (("llama.cpp", ("signed", "statistical", "pinned")), ("exact", ("signed", "exact"))):
        engine = opened(kind, 1)
        assert engine.levels == levels
        engine.close()
    free = LlamaEngine(model, name="model", digest=bytes(32), regime="free", parallel=1, context=256)
    assert free.levels == ("signed", "statistical")
    assert free.profile.regime == "free"
    free.close()


def test_a_model_that_is_not_bit_exact(model: LlamaModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that fails the probe is not run in the pinned regime, whoever asks."""
    from assay.engines import llamacpp
    from assay.engines.llama_regime import Probe

    monkeypatch.setattr(llamacpp, "probe", lambda _model: Probe("one row and many rows differ", ""))
    with pytest.raises(EngineError, match="one row and many rows differ"):
        LlamaEngine(model, name="model", digest=bytes(32))
