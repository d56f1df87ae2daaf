"""Models and answers that the parts share."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import TypeVar

from assay.apps.exact import program_for
from assay.apps.wiring import find_model
from assay.core.completion import Step
from assay.core.evidence import evidence_root
from assay.core.request import Request, SamplerSettings
from assay.engines.exact.audit import Response
from assay.engines.exact.engine import ExactEngine
from assay.engines.exact.program import Program
from assay.engines.llama_model import LlamaModel
from assay.engines.llama_reader import LlamaReader

SMOL = "smollm2-135m"
WORDS = "The history of the sea, and of those who sail on it, is long; it begins before writing. "
_Result = TypeVar("_Result")


def scaled(count: int) -> int:
    """A sample size, under `ASSAY_BENCH_SCALE`."""
    return max(1, round(count * float(os.environ.get("ASSAY_BENCH_SCALE", "1"))))


@cache
def program_of(name: str) -> Program:
    """An integer model, converted if it is not there."""
    return program_for(find_model(name))


@cache
def reader_of(name: str) -> LlamaReader:
    """Its vocabulary."""
    return LlamaReader(LlamaModel(find_model(name).path, vocab_only=True), limit=4096)


def engine_of(name: str = SMOL, *, parallel: int = 1, threads: int = 1, context: int = 1024) -> ExactEngine:
    """An engine as a provider has it."""
    found = find_model(name)
    return ExactEngine(
        program_of(name),
        reader_of(name),
        name=name,
        digest=found.sha256,
        parallel=parallel,
        context=context,
        threads=threads,
    )


def asked(prompt: int, output: int, *, name: str = SMOL, nonce: int = 0) -> Request:
    """A completion of about `prompt` tokens, answered with `output`."""
    words = WORDS
    while len(reader_of(name).tokenizer.encode(words, special=False)) < prompt:
        words += WORDS
    return Request(
        model=name,
        kind="completion",
        messages=(),
        prompt=words,
        sampler=SamplerSettings(),
        max_tokens=output,
        stop=(),
        tools="",
        tool_choice="none",
        response_format="",
        level="exact",
        nonce=nonce.to_bytes(32, "big"),
        created=0,
    )


async def _steps(engine: ExactEngine, request: Request, count: int) -> tuple[tuple[int, ...], list[Step]]:
    prompt = engine.reader.render(request)
    prompt = replace(prompt, tokens=prompt.tokens[:count])
    return prompt.tokens, [step async for step in engine.generate(request, prompt)]


def answer(engine: ExactEngine, request: Request, prompt: int) -> Response:
    """A whole answer to the first `prompt` tokens of a request, as an auditor sees it."""
    tokens, steps = asyncio.run(_steps(engine, request, prompt))
    evidence = evidence_root([step.leaf for step in steps], request.nonce)
    every = (*tokens, *(step.token for step in steps))
    return Response(every, len(tokens), evidence, request.nonce, request.sampler, request.seed)


def timed(work: Callable[[], _Result]) -> tuple[_Result, float, float]:
    """The result, seconds, and seconds of all processors together."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - wall, time.process_time() - cpu
