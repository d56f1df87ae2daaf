"""A chain for development: the embedded one with the contracts on it, and with money for whoever asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from assay.chain.contracts import REFEREES, TABLES, Artefact, artefact
from assay.chain.embedded import TIP, ChainError, EmbeddedChain
from assay.chain.ethereum import Account, Contract, Nonce, TxParams, Web3, Wei, rlp
from assay.chain.provider import EmbeddedProvider
from assay.chain.referees import table_of
from assay.core.errors import StoreError
from assay.core.keys import Address, Key, keccak256, parse_address

CHAIN_ID: Final = 31_337
"""As development nodes have it."""
MINTER: Final = Key.from_secret(keccak256(b"assay devnet"))
"""Deploys, and gives money; everybody knows this key, which is worth nothing elsewhere."""
ETHER: Final = 10 * 10**18
TOKENS: Final = 1000 * 10**18
"""What somebody is given, wei."""
HELD: Final = 7 * 86_400
"""Seconds for which vaults hold earnings back."""
VALUES: Final = (3600, 21 * 86_400, HELD, 10 * 10**18, 10**18, 5000, 5000, 2500, 60, int(MINTER.address, 16))
"""What `Params` begins with, in its order; the pool is the minter's."""
_GAS: Final = 8_000_000


@dataclass(frozen=True, slots=True)
class Contracts:
    """Where they are."""

    token: Address
    channels: Address
    collector: Address
    params: Address
    """The court's values."""
    game: Address
    """What disputes are: see docs/dispute.md."""
    vault: Address
    """The contract that makes vaults."""
    court: Address


def created(deployer: Address, nonce: int) -> Address:
    """Where somebody's transaction puts a contract: keccak256 of RLP of both, its last 20 bytes (yellow paper, §7)."""
    encoded: Any = rlp.encode([bytes.fromhex(deployer[2:]), nonce])
    return "0x" + keccak256(encoded)[12:].hex()


class Devnet:
    """The chain, the contracts on it, and their faucet. For use from several threads, `fund` from one at a time."""

    def __init__(self, path: Path | None, *, clock: Callable[[], float], game: Artefact | None = None) -> None:
        """`path`: the chain's log; None: in memory. `game`: another one than ours.

        Raises:
            StoreError: the log cannot be used, or is of another version's chain.
        """
        self.chain: Final = EmbeddedChain(path, chain_id=CHAIN_ID, balances={MINTER.address: 10**27}, clock=clock)
        self._web3: Final = Web3(EmbeddedProvider(self.chain))
        self._account: Final = Account.from_key(MINTER.secret)
        self._made = 0
        token = self._deploy("Token", "Assay test token", "TEST", 18)
        channels = self._deploy("Channels")
        collector = self._deploy("Collector", channels.address)
        params = self._deploy("Params", VALUES)
        played = self._deploy(game) if game is not None else self._deploy_game()
        court = Web3.to_checksum_address(created(MINTER.address, self._made + 1))
        vaults = self._deploy("Vault", token.address, court, HELD)
        parties = [each.address for each in (token, vaults, params, played, channels)]
        made = [token, channels, collector, params, played, vaults, self._deploy("Court", *parties)]
        self._token: Final = token
        self.contracts: Final = Contracts(*(each.address.lower() for each in made))

    def fund(self, address: Address) -> None:
        """Give somebody TOKENS and ETHER, in this order: programs that have no ether ask for both, again if need be.

        Raises:
            EncodingError: this is no address.
            ChainError: it is a contract that takes none.
            StoreError: the chain cannot keep it.
        """
        to = Web3.to_checksum_address(parse_address(address.lower(), what="the address"))
        self._send(self._token.functions.mint(to, TOKENS).build_transaction(self._terms()))
        self._send({"to": to, "value": ETHER, "gas": 21_000})

    def close(self) -> None:
        """The log's file is free."""
        self.chain.close()

    def _deploy_game(self) -> Contract:
        """The game, its referees, and the tables that they read."""
        tables = {name: self._deploy(name).address for name in TABLES}
        judges = [self._deploy(name, *(tables[each] for each in [table_of(name)] if each)) for name in REFEREES]
        return self._deploy("Game", [each.address for each in judges])

    def _deploy(self, what: str | Artefact, *args: object) -> Contract:
        """The contract that the deployer's next transaction made; makes it if there is none yet."""
        nonce, self._made = self._made, self._made + 1
        found = artefact(what) if isinstance(what, str) else what
        made = self._web3.eth.contract(abi=found.abi, bytecode=found.code).constructor(*args)
        if self.chain.nonce(MINTER.address) == nonce:
            self._send(made.build_transaction(self._terms()))
        block = self.chain.block(nonce + 1)
        own = block.transaction.data if block and block.transaction else b""
        deployed = block.outcome.contract if block and block.outcome else None
        if deployed is None or own != Web3.to_bytes(hexstr=made.data_in_transaction):
            raise StoreError("this chain has the contracts of another version of Assay", "start one in an empty folder")
        return self._web3.eth.contract(address=Web3.to_checksum_address(deployed), abi=found.abi)

    def _terms(self) -> TxParams:
        nonce = Nonce(self.chain.nonce(MINTER.address))
        price = Wei(TIP)
        return {
            "chainId": CHAIN_ID, "nonce": nonce, "gas": _GAS, "maxFeePerGas": price, "maxPriorityFeePerGas": price,
        }  # fmt: skip

    def _send(self, transaction: Mapping[str, Any]) -> None:
        signed = self._account.sign_transaction({**self._terms(), **transaction})
        block = self.chain.place(self.chain.send(bytes(signed.raw_transaction)))
        if block is None or block.outcome is None or not block.outcome.ok:
            raise ChainError("the address takes no money", remedy="name one that is not a contract")
