"""Several nodes of the scenario in one process: the provider's own application and journey, over an engine that waits.

Run as a module: `FOLDER FIRST PAST_LAST READ WRITE`, of which the last two are the speeds of the nodes with a real
model. It listens on one port for each node, prints their addresses, and lets nodes come and go from the moment (Unix
seconds) that it reads from its standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks._network import CONNECT_SECONDS, Job, Network, churn
from benchmarks._scenario import NODES, REAL, churning, network
from benchmarks._virtual import TOKENS
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from tests.tiny import PROFILE, TinyEngine
from typing_extensions import override

from assay.apps.lifeline import follow_parent
from assay.apps.provider import provider_app
from assay.apps.server import Server, bind
from assay.apps.serving import LocalAnswers
from assay.core.completion import Prompt, Step
from assay.core.hashing import Digest
from assay.core.keys import Key
from assay.core.offer import Price
from assay.core.request import LEVELS, Request
from assay.engines.models import CATALOGUE
from assay.market.work import BYTES_PER_TOKEN
from assay.store.receipts import ReceiptStore

MODEL: Final = "smollm2-135m"


class WaitingEngine(TinyEngine):
    """Takes the time of one node; a node that lies queues what it has no place for. It says that it is the real model,
    so that all nodes are in one pool."""

    model_digest: Digest

    def __init__(self, nodes: Network, number: int) -> None:
        super().__init__(model=MODEL, levels=("signed",), profile=replace(PROFILE, context=32768))
        self.model_digest = CATALOGUE[MODEL].sha256  # type: ignore[misc]
        self._nodes: Final = nodes
        self._number: Final = number
        self._places: Final = asyncio.Semaphore(int(nodes.places[number]))

    @override
    async def generate(
        self, request: Request, prompt: Prompt, *, top_logprobs: int | None = None
    ) -> AsyncIterator[Step]:
        """TOKENS steps, each of which stands for so much of the answer."""
        del top_logprobs
        nodes, number = self._nodes, self._number
        job = Job(len(prompt.tokens) / BYTES_PER_TOKEN, float(request.max_tokens or 1))
        async with self._places:
            nodes.running[number] += 1
            try:
                await asyncio.sleep(nodes.first_token(number, job))
                for index in range(TOKENS):
                    if index:
                        await asyncio.sleep(nodes.rest(number, job) / (TOKENS - 1))
                    yield Step(index, 65, "a", b"", stop="stop" if index == TOKENS - 1 else None)
            finally:
                nodes.running[number] -= 1


class Liar(LocalAnswers):
    """Says that it has nothing to do."""

    @property
    @override
    def active(self) -> int:
        return 0


class Far:
    """An application at the end of a long way; nobody answers there while its node is dead."""

    def __init__(self, app: ASGIApp, nodes: Network, number: int) -> None:
        self._app: Final = app
        self._nodes: Final = nodes
        self._number: Final = number
        self._half: Final = float(nodes.round_trip[number]) / 2

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        await asyncio.sleep(self._half)
        if self._nodes.dead[self._number]:
            if self._nodes.mute[self._number]:
                await asyncio.sleep(CONNECT_SECONDS)
            await asyncio.sleep(self._half)
            raise ConnectionAbortedError

        async def later(message: Message) -> None:
            if message["type"] == "http.response.start":
                await asyncio.sleep(self._half)
            await send(message)

        await self._app(scope, receive, later)


def key_of(number: int) -> Key:
    """A node's."""
    return Key.from_secret((number + 1).to_bytes(32, "big"))


async def serve(folder: Path, first: int, past: int, nodes: Network) -> None:
    """Until it is killed."""
    servers, addresses, listening = list[asyncio.Task[None]](), list[str](), list[asyncio.Event]()
    for number in range(first, past):
        store, key = ReceiptStore(f"sqlite:///{folder / f'{number}.db'}"), key_of(number)
        engine, lying = WaitingEngine(nodes, number), bool(nodes.lying[number])
        kind, places = (Liar, 64) if lying else (LocalAnswers, int(nodes.places[number]))
        answers = kind([engine], key, store, prices=dict.fromkeys(LEVELS, Price(0, 0)), parallel=places)
        sock = bind("0.0.0.0", 0)
        app = Far(provider_app(answers, store, key.address), nodes, number)
        listening.append(asyncio.Event())
        server = Server(app, started=listening[-1].set)
        servers.append(asyncio.create_task(server._serve([sock])))
        addresses.append(f"{sock.getsockname()[1]}")
    await asyncio.gather(*(each.wait() for each in listening))
    print(json.dumps({"ports": addresses}), flush=True)
    begin = float(await asyncio.to_thread(sys.stdin.readline))
    loop = asyncio.get_running_loop()
    churn(
        nodes,
        churning(),
        lambda wait, event: loop.call_later(wait + max(begin - time.time(), 0.0), event),
        first=NODES - REAL,
    )
    await asyncio.gather(*servers)


if __name__ == "__main__":
    follow_parent()
    where, begins, ends, reading, writing = sys.argv[1:]
    asyncio.run(serve(Path(where), int(begins), int(ends), network(float(reading), float(writing))))
