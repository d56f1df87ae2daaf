"""Real servers on loopback for tests: uvicorn within the test's own event loop, or a process that can be killed."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from starlette.types import ASGIApp

from assay.apps.door import Door
from assay.apps.provider import Pace, provider_app
from assay.apps.server import Drain, Server, bind, url_of
from assay.apps.serving import LocalAnswers
from assay.core.keys import Key
from assay.core.offer import Price
from assay.core.ports import Engine
from assay.core.request import LEVELS
from assay.store.receipts import ReceiptStore

ROOT = Path(__file__).parents[1]


@asynccontextmanager
async def running(
    app: ASGIApp, *, drain: Drain | None = None, grace: float = 2.0, certificate: Path | None = None
) -> AsyncIterator[str]:
    """Serve an application; gives its address."""
    sock = bind("127.0.0.1", 0)
    url = url_of(sock, tls=certificate is not None)
    listening = asyncio.Event()
    server = Server(app, drain=drain, grace=grace, started=listening.set, certificate=certificate)
    task = asyncio.create_task(server._serve([sock]))  # without uvicorn's signal handlers: pytest has its own
    await listening.wait()
    try:
        yield url
    finally:
        server.should_exit = True
        await task


@dataclass
class Provider:
    """A running provider."""

    url: str
    key: Key
    answers: LocalAnswers
    store: ReceiptStore


@asynccontextmanager
async def provider(
    root: Path,
    engine: Engine,
    key: Key,
    *,
    price: int = 1,
    parallel: int = 4,
    pace: Pace | None = None,
    kind: type[LocalAnswers] = LocalAnswers,
    door: Door | None = None,
) -> AsyncIterator[Provider]:
    """A provider over one engine."""
    store = ReceiptStore(f"sqlite:///{root / (key.address + '.db')}")
    prices = dict.fromkeys(LEVELS, Price(price, 2 * price))
    answers = kind([engine], key, store, prices=prices, parallel=parallel)
    async with running(provider_app(answers, store, key.address, pace=pace, door=door), drain=answers.drain) as url:
        yield Provider(url, key, answers, store)


_PROCESS = """
import sys, json
from assay.apps.provider import provider_app
from assay.apps.server import announce, bind, serve, url_of
from assay.apps.serving import LocalAnswers
from pathlib import Path
from assay.store.parts import PartStore
from assay.store.receipts import ReceiptStore
from tests.tiny import TinyEngine, tiny_key
from assay.apps.logs import configure_logs
configure_logs()
database, number, port, options = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])
store, key = ReceiptStore(database), tiny_key(number)
answers = LocalAnswers([TinyEngine(**options)], key, store, parts=PartStore(Path(database[10:] + "-parts")))
sock = bind("127.0.0.1", port)
url = url_of(sock)
serve(provider_app(answers, store, key.address), sock, drain=answers.drain, grace=1.0,
      started=lambda: announce("assay serve", url, as_json=True))
"""


@contextmanager
def provider_process(
    root: Path, number: int = 1, *, port: int = 0, **options: object
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A provider over a tiny engine (built with `options`) as a process of its own: its address, and the process."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    database = f"sqlite:///{root / f'process{number}.db'}"
    process = subprocess.Popen(
        [sys.executable, "-c", _PROCESS, database, str(number), str(port), json.dumps(options)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"], process
    finally:
        process.kill()
        process.communicate()


def free_port() -> int:
    """A port at which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]
