"""A registry of identities as Python sees it (ERC-8004, draft): agents are tokens, each with the URI of its file.

Source of signatures and events: https://eips.ethereum.org/EIPS/eip-8004, "Identity Registry". Everything blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from assay.chain.abi import encoded, words
from assay.chain.client import ChainClient
from assay.chain.court_events import tail
from assay.chain.node import NodeRefused
from assay.chain.outbox_file import Mined, Sent
from assay.core.errors import ChainFailed, NotFound
from assay.core.keys import Address, keccak256, parse_address
from assay.core.registration import MAX_FILE

_REGISTERED: Final = keccak256(b"Registered(uint256,string,address)")
_MOST_URI: Final = 2 * MAX_FILE
"""Bytes of a URI that is read."""


@dataclass(frozen=True, slots=True)
class Agent:
    """An entry, as it is now."""

    id: int
    owner: Address
    uri: str


class IdentityClient:
    """One key's view of a registry."""

    def __init__(self, client: ChainClient, registry: Address) -> None:
        """`client`: of that key."""
        self.client: Final = client
        self.registry: Final = parse_address(registry, what="identity")

    @property
    def name(self) -> str:
        """Of the registry, in all the world."""
        return f"eip155:{self.client.addresses.chain_id}:{self.registry}"

    def register(self, uri: str, name: str) -> Sent:
        """Enter this key."""
        return self.client.outbox.send(name, self.registry, encoded("register", ("string",), uri))

    def change(self, agent: int, uri: str, name: str) -> Sent:
        """Give an agent of this key another file."""
        return self.client.outbox.send(name, self.registry, encoded("setAgentURI", ("uint256", "string"), agent, uri))

    def number(self, mined: Mined) -> int:
        """The agent that a transaction entered.

        Raises:
            ChainFailed: it entered none.
        """
        logs = self.client.node.logs(self.registry, _REGISTERED, mined.block, mined.block)
        owner = bytes.fromhex(self.client.address[2:]).rjust(32, b"\0")
        for each in logs:
            if each.transaction == mined.transaction and len(each.topics) == 3 and each.topics[2] == owner:
                return int.from_bytes(each.topics[1], "big")
        raise ChainFailed("the registry has entered nobody", "check [chain] identity")

    def agent(self, number: int) -> Agent:
        """An entry.

        Raises:
            NotFound: there is none with this number.
            ChainFailed: the chain cannot be asked, or there is no registry at the address.
        """
        try:
            (owner,) = words(self._ask("ownerOf", number), 1 << 160, what="an agent's owner")
        except NodeRefused as error:
            if not error.reverted:
                raise
            raise NotFound(f"{self.name} has no agent {number}", "check the number") from error
        uri = tail(self._ask("tokenURI", number), 0, _MOST_URI)
        if uri is None:
            raise ChainFailed(f"the file of agent {number} cannot be read", f"it may have over {_MOST_URI} bytes")
        return Agent(number, f"0x{owner:040x}", uri.decode(errors="replace"))

    def _ask(self, what: str, number: int) -> bytes:
        return self.client.node.call(self.registry, encoded(what, ("uint256",), number))
