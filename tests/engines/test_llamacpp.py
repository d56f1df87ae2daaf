"""The llama.cpp engine behind its port: streams, neighbours, hanging up, closing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
from tests.tiny import tiny_request

from assay.core.completion import Step
from assay.core.errors import Busy, EngineError, InvalidRequest
from assay.core.request import Request
from assay.engines.llama_model import LlamaModel
from assay.engines.llamacpp import LlamaEngine

pytestmark = [pytest.mark.model, pytest.mark.anyio]


@pytest.fixture(scope="module")
def model(model_path: Path) -> Iterator[LlamaModel]:
    """The real model."""
    with LlamaModel(model_path) as opened:
        yield opened


@pytest.fixture(scope="module")
def engine(model: LlamaModel) -> Iterator[LlamaEngine]:
    """Three places, in the pinned regime."""
    opened = LlamaEngine(model, name="model", digest=bytes(32), parallel=3, context=256)
    yield opened
    opened.close()


async def steps_of(engine: LlamaEngine, request: Request) -> list[Step]:
    """A whole answer."""
    return [step async for step in engine.generate(request, engine.reader.render(request))]


async def test_neighbours_change_nothing(engine: LlamaEngine) -> None:
    """Tokens and evidence of an answer are the same alone, beside others, and from a reused prefix."""
    asked = [tiny_request(f"Tell me about {what}.", max_tokens=12, nonce=bytes([n] * 32))
             for n, what in enumerate(("rivers", "rivers and boats", "bread"))]  # fmt: skip
    alone = [await steps_of(engine, request) for request in asked]
    together = await asyncio.gather(*(steps_of(engine, request) for request in reversed(asked)))
    assert list(reversed(together)) == alone
    assert len({step.leaf for steps in alone for step in steps}) == sum(map(len, alone))


async def test_hanging_up_frees_the_place(engine: LlamaEngine) -> None:
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


async def test_an_empty_prompt_is_refused(engine: LlamaEngine) -> None:
    """It is the asker's mistake, and costs nobody else an answer."""
    empty = replace(tiny_request(max_tokens=4), kind="completion", messages=(), prompt="")
    other = asyncio.create_task(steps_of(engine, tiny_request("Say something.", max_tokens=30)))
    await asyncio.sleep(0.05)
    with pytest.raises(InvalidRequest, match="no tokens"):
        await steps_of(engine, empty)
    assert (await other)[-1].stop


def test_a_loop_that_ends_first(model: LlamaModel, capfd: pytest.CaptureFixture[str]) -> None:
    """A program that ends in mid-answer closes its engine after its loop, without a word."""
    engine = LlamaEngine(model, name="model", digest=bytes(32), parallel=1, context=256)
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


async def test_closing_in_mid_answer(model: LlamaModel) -> None:
    """Answers under way end with an error that says why."""
    engine = LlamaEngine(model, name="model", digest=bytes(32), parallel=1, context=256)
    request = tiny_request("Tell a very long story.", max_tokens=200)
    async with aclosing(engine.generate(request, engine.reader.render(request))) as stream:
        await anext(stream)
        closing = asyncio.create_task(asyncio.to_thread(engine.close))
        with pytest.raises(EngineError, match="shutting down"):
            while True:
                await anext(stream)
        await closing


def test_levels_of_each_regime(engine: LlamaEngine, model: LlamaModel) -> None:
    """Only the pinned regime offers `pinned`."""
    assert engine.levels == ("signed", "statistical", "pinned")
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
