"""Gateways and providers put together with a chain: clients, tills, wallets and cashiers from configuration."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import httpx

from assay.apps.config import Chain, Config
from assay.apps.disputes.limits import Limits
from assay.apps.funding import Budget, Funding
from assay.apps.till import Till
from assay.apps.wallet import Post, Wallet
from assay.apps.wiring import Program, store_url
from assay.chain.addresses import Addresses
from assay.chain.cashier import Cashier, Habits
from assay.chain.client import ChainClient
from assay.chain.court import CourtClient
from assay.chain.deposits import DEPOSIT_GAS, Deposits
from assay.chain.node import HttpProvider
from assay.chain.outbox import Outbox, Pace
from assay.chain.outbox_file import outbox_path
from assay.core.errors import ChainFailed, ConfigError
from assay.core.keys import Address, Key
from assay.core.offer import Price
from assay.core.payment import Requirements
from assay.core.request import LEVELS, Level
from assay.market.pricing import credit_for
from assay.store.channels import ChannelStore
from assay.store.tabs import TabStore

DEVNET_BUDGET: Final = 100 * 10**18
"""Wei of test tokens: a gateway's budget on a development chain where none is set, a tenth of what it is given."""
_FUND_SECONDS: Final = 30.0


def level_prices(config: Config) -> Mapping[Level, Price]:
    """What each level costs."""
    settings = config.provider
    general = Price(settings.prompt_price_wei, settings.output_price_wei)
    own = {level: Price(each.prompt_wei, each.output_wei) for level, each in settings.prices.items()}
    return {level: own.get(level, general) for level in LEVELS}


@contextmanager
def open_client(config: Config, key: Key) -> Iterator[ChainClient]:
    """A key's view of the chain that is configured; on a development chain the key is given money.

    Raises:
        ConfigError: addresses are missing or wrong.
        ChainFailed: the chain cannot be reached.
        StoreError: another program uses this key on this chain, or its file cannot be used.
    """
    settings = config.chain
    folder = Path(store_url(config, "gateway").removeprefix("sqlite:///")).parent
    addresses = _addresses(settings)
    with ExitStack() as stack:
        provider = stack.enter_context(closing(HttpProvider(settings.url)))
        outbox = Outbox(
            outbox_path(folder, addresses.chain_id, key.address),
            provider,
            key,
            addresses.chain_id,
            confirmations=0 if _is_devnet(settings) else settings.confirmations,
            pace=Pace(poll=0.2) if _is_devnet(settings) else None,
        )
        stack.callback(outbox.close)
        client = ChainClient(provider, addresses, key, outbox)
        if _is_devnet(settings) and not client.balance_of(key.address):
            _fund(settings.url, key.address)
        outbox.start()
        yield client


def has_court(config: Config) -> bool:
    """Whether bonds can be looked up.

    Raises:
        ConfigError: addresses are wrong.
        ChainFailed: the development chain cannot be reached.
    """
    return bool(config.chain.url) and bool(_addresses(config.chain).court)


@contextmanager
def open_court(config: Config, key: Key | None = None) -> Iterator[CourtClient]:
    """A key's view of the court that is configured; without a key for looking only.

    Raises:
        ConfigError: there is no chain or no court, or addresses are wrong.
        ChainFailed, StoreError: see `open_client`.
    """
    if not config.chain.url:
        raise ConfigError("no chain is named", "add --chain URL, or set [chain] url")
    if key is not None:
        with open_client(config, key) as client:
            yield CourtClient(client)
        return
    addresses, nobody = _addresses(config.chain), Key.from_secret(secrets.token_bytes(32))
    with closing(HttpProvider(config.chain.url)) as provider:
        confirmations = 0 if _is_devnet(config.chain) else config.chain.confirmations
        with closing(Outbox(None, provider, nobody, addresses.chain_id, confirmations=confirmations)) as outbox:
            yield CourtClient(ChainClient(provider, addresses, nobody, outbox))


def dispute_limits(config: Config) -> Limits:
    """What a validator risks.

    Raises:
        ConfigError: there is no budget.
    """
    settings = config.validator
    budget = settings.dispute_budget_wei
    if budget is None:
        if not _is_devnet(config.chain):
            raise ConfigError("a validator that disputes has a budget", "set [validator] dispute_budget_wei")
        budget = DEVNET_BUDGET
    return Limits(budget, settings.disputes_at_once, settings.dispute_least_wei)


@dataclass(frozen=True, slots=True)
class Counter:
    """Where a provider is paid, and what that amounts to."""

    till: Till
    tabs: TabStore
    client: ChainClient
    deposits: Deposits | None
    """None: no contract takes deposits by signature here."""
    least_deposit: int
    """Wei that are worth a deposit's gas."""

    def sums(self) -> Mapping[str, int]:
        """Wei by kind, for metrics."""
        _, owed, paid = self.tabs.sums()
        return {"owed": owed, "paid": paid, "claimed": self.till.claimed}


@contextmanager
def open_counter(
    config: Config, key: Key, prices: Mapping[Level, Price], refused: Callable[[str], None]
) -> Iterator[Counter]:
    """A provider's till, with a cashier that claims what it takes.

    Raises:
        ConfigError, ChainFailed, StoreError: see `open_client`.
    """
    settings = config.chain
    with ExitStack() as stack:
        client = stack.enter_context(open_client(config, key))
        addresses = client.addresses
        _bond(client, config.provider.bond_wei)
        credit = config.provider.credit_wei
        dearest = max(credit_for(price, config.provider.context) for price in prices.values())
        required = Requirements(
            addresses.chain_id,
            addresses.channels,
            addresses.token,
            client.vault_of(key.address) if addresses.vault else key.address,
            key.address,
            config.provider.withdraw_delay_seconds,
            dearest if credit is None else credit,
        )
        tabs = TabStore(config.database_url or store_url(config, "provider"))
        habits = Habits(
            settings.claim_factor,
            settings.claim_every_seconds,
            gas_worth(settings),
            look=settings.look_seconds,
        )
        cashier = Cashier(client, tabs.earnings, habits)
        cashier.start()
        stack.callback(cashier.close)
        deposits = Deposits(client) if addresses.collector else None
        least = config.provider.least_deposit_wei
        if least is None:
            gas = DEPOSIT_GAS * client.gas_price() * habits.factor
            least = max(1, int(gas * Fraction(habits.token_wei_per_gas_wei)))
        yield Counter(
            Till(required, client, tabs, refused=refused, follows=credit is None), tabs, client, deposits, least
        )


@contextmanager
def open_wallet(
    config: Config, key: Key, post: Post, log: Callable[[str, Mapping[str, object]], None]
) -> Iterator[Wallet]:
    """What a gateway pays from.

    Raises:
        ConfigError: there is no budget.
        ConfigError, ChainFailed, StoreError: see `open_client`.
    """
    with open_funding(config, key, log) as (funding, store):
        yield Wallet(key, funding, store, post, log=log)


@contextmanager
def open_funding(
    config: Config, key: Key, log: Callable[[str, Mapping[str, object]], None]
) -> Iterator[tuple[Funding, ChannelStore]]:
    """The channels of a gateway, and their database, which is for the caller to close.

    Raises:
        ConfigError, ChainFailed, StoreError: see `open_client`.
    """
    with open_client(config, key) as client:
        store = open_channels(config)
        yield Funding(client, store, _budget(config), log=log), store


def open_channels(config: Config) -> ChannelStore:
    """The database of a gateway's channels.

    Raises:
        StoreError: it cannot be used.
    """
    program: Program = "gateway"
    return ChannelStore(config.database_url or store_url(config, program))


def _bond(client: ChainClient, wanted: int) -> None:
    """Add to this key's bond what is missing."""
    if wanted:
        court = CourtClient(client)
        there = court.stake(client.address).bond
        if there < wanted:
            court.bond(wanted - there, f"bond/{wanted}/{there}")


def _budget(config: Config) -> Budget:
    settings = config.gateway
    total = settings.budget_wei
    if total is None:
        if not _is_devnet(config.chain):
            raise ConfigError("a gateway that pays has a budget", "set [gateway] budget_wei")
        total = DEVNET_BUDGET
    deposit = max(total // 100, 1) if settings.deposit_wei is None else settings.deposit_wei
    if not 0 < deposit <= max(total, 1):
        raise ConfigError("a deposit is over 0 and within the budget", "see [gateway] deposit_wei and budget_wei")
    below = deposit // 4 if settings.top_up_below_wei is None else settings.top_up_below_wei
    if below > deposit:
        raise ConfigError(
            "one deposit would not be enough", "set [gateway] top_up_below_wei to no more than deposit_wei"
        )
    return Budget(total, deposit, below)


def _addresses(settings: Chain) -> Addresses:
    if _is_devnet(settings):
        return Addresses.fetch(settings.url)
    names = ("chain_id", "channels", "token", "vault", "collector", "court")
    return Addresses.from_config({name: getattr(settings, name) or None for name in names})


def gas_worth(settings: Chain) -> float:
    """Wei of the token for a wei of what gas is paid in: nothing on a development chain."""
    return 0.0 if _is_devnet(settings) else settings.token_wei_per_gas_wei


def _is_devnet(settings: Chain) -> bool:
    """The chain itself tells where its contracts are."""
    return not settings.channels


def _fund(url: str, address: Address) -> None:
    try:
        httpx.post(f"{url.rstrip('/')}/fund/{address}", timeout=_FUND_SECONDS, trust_env=False).raise_for_status()
    except httpx.HTTPError as error:
        raise ChainFailed(
            f"the development chain at {url} gives no money ({error})", "is it `assay devnet`?"
        ) from error
