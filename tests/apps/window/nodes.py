"""A node with a window, as `assay up` serves it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.apps.window.browser import TOKEN
from tests.running import running
from tests.tiny import tiny_key

from assay.apps.provider import provider_app
from assay.apps.serving import LocalAnswers
from assay.apps.window.owner import Owner
from assay.apps.window.window import Window
from assay.core.ports import Engine
from assay.store.receipts import ReceiptStore


@asynccontextmanager
async def node(root: Path, engine: Engine) -> AsyncIterator[str]:
    """Its address."""
    store, key = ReceiptStore(f"sqlite:///{root / 'node.db'}"), tiny_key(9)
    answers = LocalAnswers([engine], key, store)
    app = provider_app(answers, store, key.address, window=Window(Owner(TOKEN), loopback=True))
    async with running(app, drain=answers.drain) as url:
        yield url
