"""A node with an owner, over a tiny engine, for the tests of its page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from starlette.applications import Starlette
from tests.apps.window.browser import TOKEN, in_thread
from tests.running import running
from tests.tiny import TinyEngine, tiny_key

from assay.apps.logs import Recent
from assay.apps.provider import provider_app
from assay.apps.selling import Selling
from assay.apps.serving import LocalAnswers
from assay.apps.window.auditing import Audits
from assay.apps.window.owner import Owner
from assay.apps.window.shell import Kind
from assay.apps.window.sources import Upkeep
from assay.apps.window.window import Window
from assay.market.sale import Sale
from assay.store.receipts import ReceiptStore

PLACES = 4


@dataclass
class Node:
    """It runs."""

    url: str
    app: Starlette
    home: Path
    recent: Recent
    local: LocalAnswers
    selling: Selling

    def ask(self, method: str, path: str, *, token: str = TOKEN, **more: object) -> httpx.Response:
        """As the owner, or as who has another token."""
        headers = {"authorization": f"Bearer {token}", **more.pop("headers", {})}  # type: ignore[dict-item]
        return httpx.request(method, self.url + path, headers=headers, trust_env=False, **more)  # type: ignore[arg-type]


@contextmanager
def owned(root: Path, kind: Kind = "node") -> Iterator[Node]:
    """A node or a provider in a thread of its own, with a home under `root`."""
    home, key = root / "home", tiny_key(1)
    home.mkdir()

    @asynccontextmanager
    async def server() -> AsyncIterator[Node]:
        async with asyncio.TaskGroup():  # so that what fails in a task is seen
            store, recent = ReceiptStore(f"sqlite:///{root / 'node.db'}"), Recent()
            local = LocalAnswers([TinyEngine()], key, store, parallel=PLACES)
            upkeep = Upkeep(home, key.address, {"model": "tiny", "parallel": PLACES}, recent)
            selling = Selling(local, Sale({}, PLACES), root / "sale.json", priced=kind == "provider")
            window = Window(Owner(TOKEN), loopback=True, upkeep=upkeep, kind=kind)
            app = provider_app(local, store, key.address, window=window, audits=Audits(), selling=selling)
            async with running(app, drain=local.drain) as url:
                yield Node(url, app, home, recent, local, selling)

    with in_thread(server()) as node:
        yield node
