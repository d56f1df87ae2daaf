"""Answers by honest and dishonest engines of this process, and their checks: what `benchmarks/audit.py` counts."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from assay.apps.cheats import Dishonest, Workshop
from assay.core.bundle import Bundle
from assay.core.completion import Completion
from assay.core.keys import Key
from assay.core.request import Level, Message, Request, SamplerSettings

KEY: Final = Key.from_secret(bytes(31) + b"\x01")
TEMPERATURES: Final = (0, 300_000, 700_000, 1_000_000, 1_200_000)
_PROMPTS: Final = Path(__file__).with_name("prompts.json")


def requests(
    count: int, level: Level, tokens: int, *, seed: int, long_every: int = 0, short: bool = False
) -> Iterator[Request]:
    """Varied requests: prompts in turn, temperatures from 0 to 1.2, and every so often a context of up to 1,500 tokens.

    `short`: without the prompts that come with passages to read. The same arguments give the same requests.
    """
    dice = random.Random(seed)
    data = json.loads(_PROMPTS.read_text(encoding="utf-8"))
    passages = list(data["passages"].values())
    prompts = [prompt for prompt in data["prompts"] if not (short and prompt["read"])]
    for number in range(count):
        prompt = prompts[number % len(prompts)]
        read = [data["passages"][name] for name in prompt["read"]]
        if long_every and number % long_every == long_every - 1:
            read = dice.sample(passages, dice.randint(3, 6))
        words = "\n\n".join([*read, prompt["ask"]])
        temperature = TEMPERATURES[number % len(TEMPERATURES)]
        sampler = SamplerSettings(temperature, top_p=dice.choice((1_000_000, 900_000)))
        system = (Message("system", prompt["system"]),) if prompt["system"] else ()
        chat = (*system, Message("user", words))
        nonce = dice.randbytes(32)
        yield Request(
            "smollm2-135m", "chat", chat, "", sampler, tokens, (), "", "auto", "", level, nonce, 1_700_000_000
        )


def at_temperatures(items: Iterator[Request], *temperatures: int) -> Iterator[Request]:
    """The same requests with these temperatures in turn."""
    for number, request in enumerate(items):
        sampler = replace(request.sampler, temperature=temperatures[number % len(temperatures)])
        yield replace(request, sampler=sampler)


async def answers(
    provider: Dishonest, asked: Iterator[Request], *, parallel: int, fewest: int = 1
) -> AsyncIterator[Bundle]:
    """A bundle for each request, `parallel` at a time; answers of under `fewest` tokens are left out."""
    sequence = 0

    async def one(request: Request) -> Bundle | None:
        nonlocal sequence
        engine = provider.engine
        prompt = await asyncio.to_thread(engine.reader.render, request)
        steps = [step async for step in engine.generate(request, prompt)]
        stop = steps[-1].stop
        if len(steps) < fewest or stop is None:
            return None
        leaves = tuple(step.leaf for step in steps)
        completion = Completion(prompt, tuple(step.token for step in steps), "", stop, leaves)
        sequence += 1
        receipt = provider.attest(
            request, completion, model=engine.model_digest, profile=engine.profile, key=KEY,
            sequence=sequence, issued=1_700_000_000, amount=0,
        )  # fmt: skip
        opening = b"".join(leaves) if request.level == "statistical" else b""
        return Bundle(receipt, request, engine.profile, completion.tokens, opening)

    running: set[asyncio.Task[Bundle | None]] = set()
    exhausted = False
    while running or not exhausted:
        while not exhausted and len(running) < parallel:
            request = next(asked, None)
            exhausted = request is None
            if request is not None:
                running.add(asyncio.create_task(one(request)))
        if not running:
            break
        done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            bundle = task.result()
            if bundle is not None:
                yield bundle


@contextmanager
def built(make: Callable[[Workshop], Dishonest], shop: Workshop) -> Iterator[Dishonest]:
    """A provider's engine, closed on the way out together with what it is made of."""
    provider = make(shop)
    try:
        yield provider
    finally:
        engine: object | None = provider.engine
        while engine is not None:
            close = getattr(engine, "close", None)
            if close is not None:
                close()
            engine = getattr(engine, "work", None)


def pools(count: int, size: int, of: int, *, seed: int) -> Sequence[Sequence[int]]:
    """`count` random choices of `size` out of `of`."""
    dice = random.Random(seed)
    return [dice.sample(range(of), size) for _ in range(count)]
