"""`assay stake`: what a provider has at stake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from assay.apps.cli.console import JsonFlag, out, print_json
from assay.apps.cli.serve import ChainOption
from assay.core.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from assay.chain.court import CourtClient
    from assay.chain.outbox_file import Sent

app = typer.Typer(help="A provider's bond: add to it, take it back, see what is at stake.", no_args_is_help=True)
_SECONDS = 300.0
KeyOption = Annotated[str | None, typer.Option(help="Name of the key (see `assay keys`); left out: [provider] key.")]
AmountArgument = Annotated[str, typer.Argument(help="Wei of the token.")]


@app.command("show", epilog="Example: [bold]assay stake show --chain http://127.0.0.1:8545[/bold]")
def show(
    address: Annotated[str, typer.Option(help="Of another provider than this machine's.")] = "",
    key: KeyOption = None,
    chain: ChainOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show a provider's bond, what is leaving it, disputes against it, and what its vault holds back; in wei."""
    from assay.apps.config import load_config
    from assay.apps.onchain import open_court
    from assay.apps.wiring import open_key, override
    from assay.core.keys import parse_address

    config = override(load_config(), "chain", {"url": chain})
    who = address.lower() or open_key(key or config.provider.key)[0].address
    with open_court(config) as court:
        _print(court, parse_address(who, what="the address"), as_json)


@app.command("bond", epilog="Example: [bold]assay stake bond 100000000000000000000[/bold]")
def bond(amount: AmountArgument, key: KeyOption = None, chain: ChainOption = None, as_json: JsonFlag = False) -> None:
    """Add to the bond. What is bonded is lost in part by whoever signs a receipt that is proven wrong."""
    wei = _wei(amount)
    _do(lambda court: court.bond(wei, court.client.outbox.new_name("stake/bond ")), key, chain, as_json)


@app.command("unbond", epilog="Example: [bold]assay stake unbond 100000000000000000000[/bold]")
def unbond(amount: AmountArgument, key: KeyOption = None, chain: ChainOption = None, as_json: JsonFlag = False) -> None:
    """Begin to take back so much of the bond; it can be withdrawn after three weeks. 0: stay."""
    wei = _wei(amount)
    _do(lambda court: court.unbond(wei, court.client.outbox.new_name("stake/unbond ")), key, chain, as_json)


@app.command("withdraw", epilog="Example: [bold]assay stake withdraw[/bold]")
def withdraw(key: KeyOption = None, chain: ChainOption = None, as_json: JsonFlag = False) -> None:
    """Take back what was unbonded, when its time has come and no dispute is open."""
    _do(lambda court: court.withdraw(court.client.outbox.new_name("stake/withdraw ")), key, chain, as_json)


def _do(send: Callable[[CourtClient], Sent], key: str | None, chain: str | None, as_json: bool) -> None:
    from assay.apps.config import load_config
    from assay.apps.onchain import open_court
    from assay.apps.wiring import open_key, override

    config = override(load_config(), "chain", {"url": chain})
    signer, _ = open_key(key or config.provider.key)
    with open_court(config, signer) as court:
        court.client.outbox.wait(send(court).name, _SECONDS)
        _print(court, signer.address, as_json)


def _print(court: CourtClient, provider: str, as_json: bool) -> None:
    stake, client = court.stake(provider), court.client
    found: Mapping[str, object] = {
        "provider": provider,
        "bond": str(stake.bond),
        "leaving": str(stake.leaving),
        "leaving_at": stake.leaving_at,
        "disputes": stake.running,
        "vault": str(client.token_balance(client.vault_of(provider))),
        "credit": str(court.credit(provider)),
    }
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        out.print(f"{name:<12}{value}", markup=False)


def _wei(amount: str) -> int:
    if not (amount.isascii() and amount.isdigit() and len(amount) < 39):
        raise InvalidRequest(f"{amount[:60]!r} is no amount in wei", remedy="write a whole number")
    return int(amount)
