"""Two providers over one engine in one process, of which the second is paid; for `payment.py`.

    python -m benchmarks._paid_pair MODEL CHAIN

prints the addresses of both as a JSON list, and serves until it is killed.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import ExitStack

from assay.apps.config import load_config
from assay.apps.logs import configure_logs
from assay.apps.onchain import open_counter
from assay.apps.provider import provider_app
from assay.apps.server import Server, bind, url_of
from assay.apps.serving import LocalAnswers
from assay.apps.wiring import Capacity, find_model, open_engine, open_key, override, store_url
from assay.core.offer import Price
from assay.core.request import LEVELS
from assay.store.receipts import ReceiptStore

PRICE = Price(1000, 3000)


def main() -> None:
    """Serve."""
    model, chain = sys.argv[1:]
    configure_logs("warning")
    config = override(override(load_config(), "chain", {"url": chain}), "provider", {"context": 512})
    with ExitStack() as stack:
        found = find_model(model)
        engine = stack.enter_context(open_engine(found, Capacity(threads=1, parallel=4, context=512)))
        prices = dict.fromkeys(LEVELS, PRICE)
        servers = []
        for name in ("free", "paid"):
            key, _ = open_key(name)
            url, till = store_url(config, "provider"), None
            store = ReceiptStore(url if name == "paid" else f"{url}.free")
            if name == "paid":
                till = stack.enter_context(open_counter(config, key, prices, lambda _reason: None)).till
            local = LocalAnswers([engine], key, store, prices=prices, till=till)
            sock = bind("127.0.0.1", 0)
            app = provider_app(local, store, key.address, till=till)
            servers.append((Server(app, drain=local.drain), sock))
        sys.stdout.write(json.dumps([url_of(sock) for _, sock in servers]) + "\n")
        sys.stdout.flush()
        sys.setswitchinterval(0.0005)

        async def serve() -> None:
            await asyncio.gather(*(server.serve(sockets=[sock]) for server, sock in servers))

        asyncio.run(serve())


if __name__ == "__main__":
    main()
