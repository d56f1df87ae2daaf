"""The development chain: contracts where they were, money for whoever asks, and nobody else's folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.chain.courtroom import own
from tests.chain.kit import Clock, key

from assay.chain.contracts import Artefact, artefact
from assay.chain.devnet import ETHER, MINTER, TOKENS, Devnet
from assay.chain.embedded import ChainError
from assay.chain.ethereum import Account, Web3
from assay.chain.provider import EmbeddedProvider
from assay.core.errors import EncodingError, StoreError

ADA = key(77)


def test_it_is_there_again(tmp_path: Path) -> None:
    """After a restart the contracts are at the same addresses, and money is where it was given."""
    path = tmp_path / "devnet.sqlite3"
    devnet = Devnet(path, clock=Clock())
    devnet.fund(ADA.address)
    devnet.fund(Web3.to_checksum_address(ADA.address))
    contracts, head = devnet.contracts, devnet.chain.head
    devnet.close()
    again = Devnet(path, clock=Clock())
    assert (again.contracts, again.chain.head) == (contracts, head)
    assert again.chain.balance(ADA.address) == 2 * ETHER
    web3 = Web3(EmbeddedProvider(again.chain))
    read = {"to": Web3.to_checksum_address(contracts.token), "data": "0x70a08231" + ADA.address[2:].rjust(64, "0")}
    assert int.from_bytes(web3.eth.call(read), "big") == 2 * TOKENS
    again.close()


def test_broken_off_while_contracts_are_made(tmp_path: Path) -> None:
    """It goes on with the next one."""
    path = tmp_path / "devnet.sqlite3"
    whole = Devnet(path, clock=Clock())
    whole.chain._log.execute("DELETE FROM blocks WHERE number > 1")
    whole.close()
    again = Devnet(path, clock=Clock())
    assert again.contracts == whole.contracts
    again.close()


def test_a_court(tmp_path: Path) -> None:
    """Is where its vaults expect it; its game may be another one."""
    abi, code = own("Nim")
    game = Artefact("Nim", abi, bytes.fromhex(code[2:]))
    path = tmp_path / "devnet.sqlite3"
    devnet = Devnet(path, clock=Clock(), game=game)
    web3 = Web3(EmbeddedProvider(devnet.chain))
    court = Web3.to_checksum_address(devnet.contracts.court)
    found = web3.eth.contract(address=court, abi=artefact("Court").abi).functions
    told = [found[name]().call().lower() for name in ("TOKEN", "VAULTS", "PARAMS", "GAME", "CHANNELS")]
    contracts = devnet.contracts
    assert told == [contracts.token, contracts.vault, contracts.params, contracts.game, contracts.channels]
    devnet.close()
    again = Devnet(path, clock=Clock(), game=game)
    assert again.contracts == contracts
    again.close()


def test_a_chain_that_ends_while_it_gives_money(tmp_path: Path) -> None:
    """Whoever has ether then has tokens as well: who has none asks again."""
    path = tmp_path / "devnet.sqlite3"
    devnet = Devnet(path, clock=Clock())
    devnet.fund(ADA.address)
    devnet.chain._log.execute("DELETE FROM blocks WHERE number = (SELECT max(number) FROM blocks)")
    devnet.close()
    again = Devnet(path, clock=Clock())
    assert again.chain.balance(ADA.address) == 0
    again.fund(ADA.address)
    assert again.chain.balance(ADA.address) == ETHER
    again.close()


def test_what_is_no_address() -> None:
    """Is told, and costs nothing."""
    devnet = Devnet(None, clock=Clock())
    for wrong in ("", "0x12", "ada", "0x" + "g" * 40):
        with pytest.raises(EncodingError):
            devnet.fund(wrong)
    assert devnet.chain.head.number == 17
    with pytest.raises(ChainError, match="takes no money"):
        devnet.fund(devnet.contracts.token)


def test_contracts_of_another_version(tmp_path: Path) -> None:
    """Are not taken for these."""
    path = tmp_path / "devnet.sqlite3"
    devnet = Devnet(path, clock=Clock())
    devnet.chain._log.execute("DELETE FROM blocks")
    other = {
        "chainId": 31_337,
        "nonce": 0,
        "gas": 100_000,
        "maxFeePerGas": 1,
        "maxPriorityFeePerGas": 1,
        "data": "0x00",
    }
    raw = bytes(Account.from_key(MINTER.secret).sign_transaction({**other, "value": 0}).raw_transaction)
    devnet.chain._log.execute("INSERT INTO blocks VALUES (1, 5, ?)", (raw,))
    devnet.close()
    with pytest.raises(StoreError, match="another version"):
        Devnet(path, clock=Clock())
