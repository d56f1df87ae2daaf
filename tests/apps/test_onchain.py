"""Gateways and providers put together with a chain, from configuration."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.apps.cli_kit import in_subprocess
from tests.running import free_port, running
from tests.tiny import tiny_key

from assay.apps.config import Config, load_config
from assay.apps.devnet import devnet_app
from assay.apps.onchain import DEVNET_BUDGET, level_prices, open_client, open_counter, open_funding
from assay.apps.wiring import override
from assay.chain.devnet import Devnet
from assay.core.errors import AssayError, ChainFailed, ConfigError, StoreError
from assay.core.offer import Price

pytestmark = pytest.mark.anyio
KEY = tiny_key(1)


@asynccontextmanager
async def chain() -> AsyncIterator[str]:
    """A development chain over HTTP."""
    devnet = Devnet(None, clock=time.time)
    async with running(devnet_app(devnet)) as url:
        yield url
    devnet.close()


def on(url: str, section: str = "provider", **settings: Any) -> Config:
    """The configuration of a program on this chain."""
    return override(override(load_config(), "chain", {"url": url}), section, settings)


def test_prices_by_level(tmp_home: Path) -> None:
    """A level's own prices replace the general ones, both of them."""
    (tmp_home / "config.toml").write_text(
        "[provider]\nprompt_price_wei = 1\noutput_price_wei = 2\n[provider.prices.exact]\noutput_wei = 9\n"
    )
    prices = level_prices(load_config())
    assert prices["exact"] == Price(0, 9)
    assert prices["signed"] == prices["pinned"] == Price(1, 2)


async def test_on_a_development_chain_nothing_needs_to_be_set(tmp_home: Path) -> None:
    """Addresses are told, keys get money once, a provider is paid, and a gateway has a budget."""
    async with chain() as url:

        def look() -> tuple[int, int, Any, Any]:
            with open_client(on(url), KEY) as client:
                first = client.token_balance(KEY.address)
            with open_counter(on(url), KEY, {"signed": Price(1, 2)}, lambda _reason: None) as counter:
                with open_funding(on(url), tiny_key(2), lambda _event, _facts: None) as (funding, store):
                    store.close()
                with open_client_again() as client:
                    again = client.token_balance(KEY.address)
                counter.tabs.close()
                return first, again, counter.till.requirements, funding.budget

        def open_client_again() -> Any:
            return open_client(on(url), tiny_key(3))

        first, again, required, budget = await asyncio.to_thread(look)
        assert first == again > DEVNET_BUDGET
        assert required.authorizer == KEY.address
        assert required.credit == 2048 + 2 * 256
        assert (budget.total, budget.deposit) == (DEVNET_BUDGET, DEVNET_BUDGET // 100)


async def test_two_programs_with_one_key_refuse_each_other(tmp_home: Path) -> None:
    """Their transactions would take each other's places."""
    async with chain() as url:

        def both() -> None:
            with open_client(on(url), KEY), open_client(on(url), KEY):
                pass

        with pytest.raises(StoreError):
            await asyncio.to_thread(both)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"deposit_wei": 0}, "a deposit is over 0"),
        ({"budget_wei": 10, "deposit_wei": 11}, "within the budget"),
        ({"deposit_wei": 10, "top_up_below_wei": 11}, "would not be enough"),
    ],
)
async def test_budgets_that_cannot_be(tmp_home: Path, settings: dict[str, int], message: str) -> None:
    """Said at the start."""
    async with chain() as url:

        def start() -> None:
            with open_funding(on(url, "gateway", **settings), KEY, lambda _event, _facts: None):
                pass

        with pytest.raises(ConfigError, match=message):
            await asyncio.to_thread(start)


async def test_on_another_chain_a_budget_has_to_be_set(tmp_home: Path) -> None:
    """Nobody spends money that he was not told to."""
    async with chain() as url:
        with pytest.raises(AssayError, match="has a budget"):
            await asyncio.to_thread(_start_elsewhere, url)


def _start_elsewhere(url: str) -> None:
    from assay.chain.addresses import Addresses

    there = Addresses.fetch(url)
    named = {"chain_id": there.chain_id, "channels": there.channels, "token": there.token}
    config = override(on(url), "chain", named)
    with open_funding(config, KEY, lambda _event, _facts: None):
        pass


def test_a_chain_that_is_not_there(tmp_home: Path) -> None:
    """The commands say so, with the exit code of those who do not answer."""
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ChainFailed), open_client(on(url), KEY):
        pass
    said = in_subprocess("gateway", "--provider", "http://127.0.0.1:1", "--chain", url, "--port", "0")
    assert said.code == 4
    assert "assay devnet" in said.err


def test_channels_of_nobody(tmp_home: Path) -> None:
    """The list is empty; what is not there cannot be closed."""
    assert in_subprocess("channels", "list", "--json").json == {"channels": []}
    said = in_subprocess("channels", "close", "0x1234")
    assert said.code == 2
    assert "assay channels list" in said.err
