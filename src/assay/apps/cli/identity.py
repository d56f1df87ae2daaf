"""`assay identity`: an entry in a registry of agents (ERC-8004), for chains that have one."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from assay.apps.cli.console import JsonFlag, out, print_json
from assay.apps.cli.serve import ChainOption
from assay.apps.cli.stake import KeyOption

if TYPE_CHECKING:
    from collections.abc import Iterator

    from assay.chain.identity import IdentityClient

app = typer.Typer(
    help="A provider's entry in an ERC-8004 registry: make it, change it, look at one.", no_args_is_help=True
)
_SECONDS = 300.0
RegistryOption = Annotated[str | None, typer.Option(help="Address of the registry; left out: [chain] identity.")]
NameOption = Annotated[str, typer.Option(help="What people call the provider.")]
AboutOption = Annotated[str, typer.Option(help="A sentence for people.")]
UrlOption = Annotated[str, typer.Option(help="Where OpenAI's clients reach it; left out: [provider] url.")]
AgentArgument = Annotated[int, typer.Argument(min=0, help="Number in the registry.")]
_NAME, _ABOUT = "Assay provider", "Sells answers of AI models with receipts that anybody can check."


@app.command("register", epilog='Example: [bold]assay identity register --name "Ada\'s box"[/bold]')
def register(
    name: NameOption = _NAME,
    about: AboutOption = _ABOUT,
    url: UrlOption = "",
    key: KeyOption = None,
    registry: RegistryOption = None,
    chain: ChainOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Enter the provider's key. The file stands in the entry itself, so that nobody has to serve it."""
    with _open(key, registry, chain) as (there, where):
        outbox = there.client.outbox
        sent = there.register(_file(there, None, name, about, url or where), outbox.new_name("identity/register "))
        number = there.number(outbox.wait(sent.name, _SECONDS))
        _change(there, number, name, about, url or where)  # only now the file can say which entry it is of
        _print(there, number, as_json)


@app.command("change", epilog="Example: [bold]assay identity change 22 --url https://ada.example[/bold]")
def change(
    agent: AgentArgument,
    name: NameOption = _NAME,
    about: AboutOption = _ABOUT,
    url: UrlOption = "",
    key: KeyOption = None,
    registry: RegistryOption = None,
    chain: ChainOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Give an entry of the provider's key another file."""
    with _open(key, registry, chain) as (there, where):
        _change(there, agent, name, about, url or where)
        _print(there, agent, as_json)


@app.command("show", epilog="Example: [bold]assay identity show 22 --chain http://127.0.0.1:8545[/bold]")
def show(
    agent: AgentArgument, registry: RegistryOption = None, chain: ChainOption = None, as_json: JsonFlag = False
) -> None:
    """Show an entry: who owns it, which provider it names, whether that is the same key, and what is at stake."""
    with _open(None, registry, chain) as (there, _):
        _print(there, agent, as_json)


@contextmanager
def _open(key: str | None, registry: str | None, chain: str | None) -> Iterator[tuple[IdentityClient, str]]:
    """The registry, and the provider's own address on the web."""
    from assay.apps.config import load_config
    from assay.apps.onchain import open_client
    from assay.apps.wiring import open_key, override
    from assay.chain.identity import IdentityClient
    from assay.core.errors import ConfigError

    config = override(load_config(), "chain", {"url": chain, "identity": registry})
    if not config.chain.url or not config.chain.identity:
        raise ConfigError("no registry of identities is named", "set url and identity in [chain]")
    with open_client(config, open_key(key or config.provider.key)[0]) as client:
        yield IdentityClient(client, config.chain.identity.lower()), config.provider.url


def _change(there: IdentityClient, number: int, name: str, about: str, url: str) -> None:
    outbox = there.client.outbox
    sent = there.change(number, _file(there, number, name, about, url), outbox.new_name("identity/change "))
    outbox.wait(sent.name, _SECONDS)


def _file(there: IdentityClient, number: int | None, name: str, about: str, url: str) -> str:
    from assay.core.registration import registration_uri

    return registration_uri(
        there.client.address,
        name=name,
        description=about,
        url=url,
        agent=None if number is None else (there.name, number),
        x402=bool(there.client.addresses.collector),
    )


def _print(there: IdentityClient, number: int, as_json: bool) -> None:
    from assay.chain.abi import printable
    from assay.chain.court import CourtClient
    from assay.core.errors import EncodingError
    from assay.core.registration import provider_in

    agent = there.agent(number)
    try:
        provider = provider_in(agent.uri)
    except EncodingError:
        provider = None
    staked = provider is not None and bool(there.client.addresses.court)
    found = {
        "agent": number,
        "registry": there.name,
        "owner": agent.owner,
        "provider": provider or "",
        "same_key": provider == agent.owner,
        "bond": str(CourtClient(there.client).stake(provider).bond) if staked and provider else "",
        "uri": agent.uri if as_json else printable(agent.uri),
    }
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        out.print(f"{name:<10}{value}", markup=False)
