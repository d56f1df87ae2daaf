"""The exact engine behind its port, with a small model: neighbours, reused beginnings, hanging up, closing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
from tests.engines.exact.models import VOCABULARY, write_model
from tests.engines.exact.running import reference_passes
from tests.engines.exact.test_decoder import expected_leaves
from tests.tiny import tiny_request

from assay.core.completion import Step
from assay.core.errors import Busy, ContextOverflow, EngineError, InvalidRequest
from assay.core.request import Request
from assay.engines.exact import sampling
from assay.engines.exact.convert import convert
from assay.engines.exact.engine import ExactEngine
from assay.engines.exact.program import Program, program_of
from assay.engines.exact.reference import Model
from assay.engines.llama_model import LlamaModel
from assay.engines.llama_reader import LlamaReader

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama."""
    return write_model(tmp_path_factory.mktemp("m") / "m.gguf", layers=2)


@pytest.fixture(scope="module")
def model(path: Path) -> Model:
    """It, converted."""
    return convert(path)


@pytest.fixture(scope="module")
def program(model: Model) -> Program:
    """It, laid out."""
    return program_of(model)


@pytest.fixture(scope="module")
def reader(path: Path) -> Iterator[LlamaReader]:
    """Its vocabulary."""
    with LlamaModel(path) as opened:
        yield LlamaReader(opened)


@pytest.fixture
def engine(program: Program, reader: LlamaReader) -> Iterator[ExactEngine]:
    """Three places, two threads."""
    opened = ExactEngine(program, reader, name="m", digest=bytes(32), parallel=3, context=128, threads=2)
    yield opened
    opened.close()


def asked(text: str, max_tokens: int = 8, nonce: int = 0, temperature: float = 1.0) -> Request:
    """A completion at level exact."""
    request = tiny_request(level="exact", max_tokens=max_tokens, nonce=bytes([nonce] * 32), temperature=temperature)
    return replace(request, kind="completion", messages=(), prompt=text)


async def steps_of(engine: ExactEngine, request: Request, top: int | None = None) -> list[Step]:
    """A whole answer."""
    return [step async for step in engine.generate(request, engine.reader.render(request), top_logprobs=top)]


async def test_an_answer_is_the_reference_s(engine: ExactEngine, model: Model) -> None:
    """Tokens and evidence follow from the readable code alone."""
    request = asked("hello there", 6)
    prompt = engine.reader.render(request).tokens
    steps = await steps_of(engine, request)
    tokens = [step.token for step in steps]
    passes = reference_passes(model, [*prompt, *tokens[:-1]])
    for index, token in enumerate(tokens):
        logits = passes[len(prompt) - 1 + index].logits.astype("int32")
        assert token == sampling.draw(logits, request.sampler, request.seed, index, None)
    assert [step.leaf for step in steps] == expected_leaves(model, [*prompt, *tokens[:-1]], len(prompt))


async def test_neighbours_and_reused_beginnings_change_nothing(engine: ExactEngine) -> None:
    """An answer is the same alone, beside others, and behind one that began alike."""
    texts = ("abcdefghij klmn opqr stuv", "abcdefghij klmn opqr stuv and more", "abcdefghij", "zyx")
    requests = [asked(text, 10, n) for n, text in enumerate(texts)]
    alone = [await steps_of(engine, request) for request in requests]
    again = [await steps_of(engine, request) for request in reversed(requests)]
    together = await asyncio.gather(*(steps_of(engine, request) for request in requests[1:]))
    assert list(reversed(again)) == alone
    assert together == alone[1:]


async def test_hanging_up_frees_the_place(engine: ExactEngine) -> None:
    """Whoever closes the stream stops generation within a token; a full engine says that it is full."""
    long = asked("a long story", 100)
    prompt = engine.reader.render(long)
    expected = await steps_of(engine, asked("a long story", 3))
    streams = [engine.generate(long, prompt) for _ in range(3)]
    for stream in streams:
        await anext(stream)
    with pytest.raises(Busy):
        await anext(engine.generate(long, prompt))
    for stream in streams:
        await stream.aclose()
    assert engine.active == 0
    assert (await steps_of(engine, asked("a long story", 3))) == expected


async def test_an_answer_up_to_the_end_of_the_context(engine: ExactEngine) -> None:
    """It ends for want of room, and a prompt that leaves none is refused; what comes next is served."""
    request = asked("x" * 100, 0)
    steps = await steps_of(engine, request)
    assert steps[-1].stop in ("length", "stop")
    assert len(engine.reader.render(request).tokens) + len(steps) <= 128
    with pytest.raises(ContextOverflow):
        await steps_of(engine, asked("x" * 200))
    assert await steps_of(engine, asked("y", 2))


async def test_levels_and_probabilities(engine: ExactEngine) -> None:
    """Without the level there is no evidence; log-probabilities are shown where they are asked for."""
    steps = await steps_of(engine, replace(asked("abc", 3), level="signed"), top=2)
    assert all(step.leaf == b"" and step.top is not None and len(step.top.ids) == 2 for step in steps)
    assert engine.levels == ("signed", "exact")
    assert (engine.profile.regime, engine.profile.sampler, engine.profile.threads) == ("exact/1", "gumbel/2", 0)


async def test_a_token_that_does_not_exist(engine: ExactEngine) -> None:
    """A prompt with a token that the model does not have fails, and the engine goes on."""
    request = asked("abc", 3)
    prompt = engine.reader.render(request)
    with pytest.raises(EngineError, match="vocabulary"):
        async for _ in engine.generate(request, replace(prompt, tokens=(*prompt.tokens, VOCABULARY))):
            pass
    with pytest.raises(InvalidRequest, match="no tokens"):
        async for _ in engine.generate(request, replace(prompt, tokens=())):
            pass
    assert len(await steps_of(engine, request)) > 0


async def test_closing_in_mid_answer(program: Program, reader: LlamaReader) -> None:
    """Answers under way end with an error that says why."""
    engine = ExactEngine(program, reader, name="m", digest=bytes(32), parallel=1, context=512)
    request = asked("a very long story", 400)
    async with aclosing(engine.generate(request, engine.reader.render(request))) as stream:
        await anext(stream)
        engine.close()
        with pytest.raises(EngineError, match="shutting down"):
            while True:
                await anext(stream)
