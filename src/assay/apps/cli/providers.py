"""`assay providers`: who can be found from here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from assay.apps.cli.console import JsonFlag, note, out, plain, print_json

if TYPE_CHECKING:
    from assay.apps.discovering import Discoveries
    from assay.core.reach import Way
    from assay.core.record import ProviderRecord
    from assay.network.discovery.book import Entry


def providers(
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="How long to look.")] = 2.0,
    lan: Annotated[bool | None, typer.Option("--lan/--no-lan", help="Look on the local network too.")] = None,
    peer: Annotated[list[str] | None, typer.Option(help="Address of a provider to ask (may be repeated).")] = None,
    directory: Annotated[list[str] | None, typer.Option(help="Address of a directory to ask.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List the providers that are found: on this machine, the local network, and by peers and directories."""
    from prometheus_client import CollectorRegistry

    from assay.apps.config import home, load_config
    from assay.apps.discovering import Discoveries, registry_folder, sources_of, uses_lan
    from assay.apps.logs import configure_logs
    from assay.apps.metrics import DiscoveryMetrics
    from assay.apps.wiring import check_url, override, ways_of

    given = {
        "lan": lan, "peers": tuple(peer) if peer else None, "directories": tuple(directory) if directory else None
    }  # fmt: skip
    config = override(load_config(), "network", given)
    configure_logs("warning" if config.log.level == "info" else config.log.level, config.log.format)
    for address in (*config.network.peers, *config.network.directories):
        check_url(address, "a peer or directory")
    sources = sources_of(config.network, registry_folder(home()), lan=uses_lan(config.network, config.gateway.host))
    discoveries = Discoveries(sources, DiscoveryMetrics(CollectorRegistry()))
    asyncio.run(_look(discoveries, seconds))
    now = time.time()
    found = [_facts(record, entry, ways_of(config.network), now) for record, entry in discoveries.book.entries(now)]
    if as_json:
        print_json({"providers": found})
        return
    if not found:
        note(f"No provider was found in {seconds:g} s. Start one with `assay serve`.")
        return
    for each in found:
        head = f"{each['provider']} at {each['address']} ({each['source']}, {each['age']} s old)"
        tail = f"  {each['models']}: {each['prices']} wei per token of prompt/output"
        out.print(plain(f"{head}\n{tail}"), markup=False, soft_wrap=True)


async def _look(discoveries: Discoveries, seconds: float) -> None:
    async with discoveries.running():
        await asyncio.sleep(seconds)


def _facts(record: ProviderRecord, entry: Entry, ways: Sequence[Way], now: float) -> Mapping[str, object]:
    """What is shown of a provider."""
    from assay.core.reach import usable

    endpoint = usable(record, entry.reach, ways)
    return {
        "provider": record.provider,
        "address": "" if endpoint is None else endpoint.url,
        "models": ", ".join(sorted({offer.model for offer in record.offers})),
        "prices": ", ".join(sorted({f"{o.level} {o.price.prompt}/{o.price.output}" for o in record.offers})),
        "endpoints": [{"kind": each.kind, "address": each.address} for each in record.endpoints],
        "offers": [offer.to_json() for offer in record.offers],
        "region": record.region,
        "pinned_certificate": any(record.tls),
        "age": round(now - record.issued),
        "expires": record.expires,
        "source": entry.source,
    }
