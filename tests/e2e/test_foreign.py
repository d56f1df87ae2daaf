"""A foreign OpenAI server joins the network by one command: it is served, checked, and paid, in real processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.e2e.kit import MODEL, SAY, Place, bundles, openai, until
from tests.e2e.scene import watching
from tests.e2e.test_paying import PRICES, QUICK, chain, channels, gateway, metrics, tab
from tests.engines.foreign import llama_server

from assay.chain.addresses import Addresses

pytestmark = [pytest.mark.e2e, pytest.mark.model, pytest.mark.slow]
ASKS: tuple[dict[str, Any], ...] = (
    {"temperature": 0},
    {"temperature": 1, "seed": 7},
    {"temperature": 0.7, "top_p": 0.9},
)


def test_a_foreign_server_is_served_checked_and_paid(tmp_path: Path, model_path: Path) -> None:
    """Its answers at `statistical` hold when they are recomputed, greedy and drawn; for all
    of them the provider claims on the chain what the gateway has signed for, to the last wei."""
    place = Place(tmp_path)
    with llama_server(model_path) as server, chain(place) as devnet:
        join = ("serve", "--upstream", server, "--model", str(model_path), "--chain", devnet.url)
        with (
            place.running("provider", *join, "--port", "0", "--json", **PRICES, **QUICK) as there,
            gateway(place, devnet.url, there.url) as here,
            openai(here.url) as client,
            watching(devnet.url, Addresses.fetch(devnet.url)) as court,
        ):
            total = 0
            for settings in ASKS:
                reply = client.chat.completions.create(
                    model=MODEL, messages=SAY, max_tokens=12, extra_body={"assay": {"level": "statistical"}}, **settings
                )  # type: ignore[call-overload]
                [bundle] = bundles(here.url, reply.id)
                assert bundle.receipt.level == "statistical"
                assert bundle.profile.engine == "openai:llamacpp"
                assert bundle.receipt.provider == there.facts["address"]
                verdict = place.verify(bundle.encode(), model_path)
                assert (verdict["holds"], verdict["level"]) == (True, "statistical"), verdict
                assert verdict["tokens_checked"] == bundle.receipt.output_count
                total += 3 * bundle.receipt.prompt_count + 7 * bundle.receipt.output_count
                assert bundle.receipt.amount == total
            (channel,) = channels(place)
            until(lambda: court.client.channel_state(channel.id).claimed == total)
            assert tab(place, channel) == (total, total)
            until(lambda: metrics(there.url) == {"owed": total, "paid": total, "claimed": total})
            assert metrics(here.url)["signed"] == total
            for program in (there, here):
                assert "Traceback" not in program.log, program.log
