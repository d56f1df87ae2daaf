"""Chains with contracts on them, and people who use them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from tests.running import free_port

from assay.apps.config import home
from assay.chain.contracts import artefact
from assay.chain.embedded import EmbeddedChain
from assay.chain.ethereum import Account, Contract, Web3
from assay.chain.provider import EmbeddedProvider
from assay.core.keys import Key
from assay.core.voucher import Terms, channels_domain, sign_voucher

CHAIN_ID = 31337
ANVIL = "@foundry-rs/anvil-linux-amd64@1.7.1"
RICH = 10**21
NOBODY = "0x" + "0" * 40


def runs(count: int, steps: int) -> settings:
    """Of a state machine: so many, of at most so many steps."""
    return settings(
        max_examples=count, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
    )


def key(number: int) -> Key:
    """Somebody's key."""
    return Key.from_secret(number.to_bytes(32, "big"))


PEOPLE = [key(number) for number in range(1, 9)]


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        """Unix seconds."""
        return self.now


def embedded(path: Path | None = None, clock: Clock | None = None) -> EmbeddedChain:
    """A chain on which everybody has ether."""
    return EmbeddedChain(
        path, chain_id=CHAIN_ID, balances={each.address: RICH for each in PEOPLE}, clock=clock or Clock()
    )


def _anvil_program() -> Path:
    """The program, out of npm's registry, kept beside the models."""
    kept = home() / "anvil" / ANVIL.rsplit("@", 1)[1] / "anvil"
    if not kept.exists():
        npm = shutil.which("npm")
        if npm is None or not sys.platform.startswith("linux"):
            pytest.skip("anvil comes as a package of npm for Linux")
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            fetched = subprocess.run([npm, "pack", "--silent", ANVIL], cwd=folder, check=False, capture_output=True)
            if fetched.returncode:
                pytest.skip("npm cannot fetch anvil here")
            (archive,) = Path(folder).glob("*.tgz")
            shutil.unpack_archive(archive, folder, filter="data")
            program = Path(folder) / "package" / "bin" / "anvil"
            program.chmod(0o755)
            program.replace(kept)
    return kept


@contextmanager
def anvil() -> Iterator[Web3]:
    """A real node with the same rules."""
    program = _anvil_program()
    port = free_port()
    args = ["--port", str(port), "--hardfork", "cancun", "--chain-id", str(CHAIN_ID), "--base-fee", "0", "--silent"]
    with subprocess.Popen([program, *args]) as process:
        try:
            web3 = Web3(Web3.HTTPProvider(f"http://127.0.0.1:{port}"))
            end = time.monotonic() + 30
            while not web3.is_connected():
                assert time.monotonic() < end, "anvil does not answer"
                time.sleep(0.05)
            for each in PEOPLE:
                web3.provider.make_request("anvil_setBalance", [Web3.to_checksum_address(each.address), hex(RICH)])
            yield web3
        finally:
            process.terminate()


@dataclass
class Town:
    """A chain with the contracts on it."""

    web3: Web3

    @cached_property
    def token(self) -> Contract:
        """Of which everybody has 10^24 and has allowed Channels all."""
        token = self.deploy("Token", "Test token", "TEST", 18)
        for each in PEOPLE:
            self.send(PEOPLE[0], token.functions.mint(address(each), 10**24))
        return token

    @cached_property
    def channels(self) -> Contract:
        """Payment channels."""
        channels = self.deploy("Channels")
        for each in PEOPLE:
            self.send(each, self.token.functions.approve(channels.address, 2**256 - 1))
        return channels

    @cached_property
    def domain(self) -> bytes:
        """For vouchers."""
        return channels_domain(CHAIN_ID, self.channels.address.lower())

    def deploy(self, name: str, *args: Any) -> Contract:
        """A contract on the chain."""
        found = artefact(name)
        receipt = self.send(PEOPLE[0], self.web3.eth.contract(abi=found.abi, bytecode=found.code).constructor(*args))
        return self.web3.eth.contract(address=receipt["contractAddress"], abi=found.abi)

    def send(self, who: Key, call: Any, gas: int = 10_000_000) -> Any:
        """The receipt of a transaction, which must not fail."""
        receipt = self.post(who, call, gas)
        assert receipt["status"] == 1, self.why(who, call)
        return receipt

    def post(self, who: Key, call: Any, gas: int = 10_000_000) -> Any:
        """The receipt of a transaction."""
        asked = call.build_transaction(self._terms(who, gas))
        return self._signed(who, asked)

    def send_data(self, who: Key, to: str, data: bytes, gas: int = 10_000_000) -> Any:
        """The receipt of a transaction with such data, which must not fail."""
        receipt = self._signed(who, {**self._terms(who, gas), "to": to, "data": data, "value": 0, "type": 2})
        assert receipt["status"] == 1
        return receipt

    def _terms(self, who: Key, gas: int) -> dict[str, Any]:
        nonce = self.web3.eth.get_transaction_count(address(who))
        price = {"maxFeePerGas": 10**9, "maxPriorityFeePerGas": 10**9}
        return {"from": address(who), "nonce": nonce, "gas": gas, "chainId": CHAIN_ID, **price}

    def _signed(self, who: Key, transaction: dict[str, Any]) -> Any:
        raw = Account.from_key(who.secret).sign_transaction(transaction).raw_transaction
        return self.web3.eth.wait_for_transaction_receipt(self.web3.eth.send_raw_transaction(raw))

    def why(self, who: Key, call: Any) -> str:
        """What a call would fail with; empty if it would not."""
        try:
            call.call({"from": address(who), "gas": 10_000_000})
        except Exception as error:  # noqa: BLE001
            return str(error)
        return ""

    def terms(self, payer: Key, receiver: Key, salt: int = 0, **other: Any) -> Terms:
        """A channel between two."""
        values: dict[str, Any] = {
            "payer": payer.address,
            "payer_authorizer": payer.address,
            "receiver": receiver.address,
            "receiver_authorizer": receiver.address,
            "token": self.token.address.lower(),
            "withdraw_delay": 86_400,
            "salt": salt.to_bytes(32, "big"),
        }
        return Terms(**{**values, **other})

    def deposit(self, payer: Key, terms: Terms, amount: int) -> Any:
        """By allowance."""
        return self.send(payer, self.channels.functions.deposit(config(terms), amount, NOBODY, b""))

    def claim_of(self, payer: Key, terms: Terms, amount: int, *, most: int | None = None) -> Any:
        """A voucher as `claim` wants it."""
        most = amount if most is None else most
        voucher = sign_voucher(payer, self.domain, terms.channel(self.domain), most)
        return ((config(terms), most), voucher.signature, amount)

    def compact(self, payer: Key, terms: Terms, amount: int) -> bytes:
        """The same as `claimCompact` wants it."""
        signature = sign_voucher(payer, self.domain, terms.channel(self.domain), amount).signature
        s = int.from_bytes(signature[32:64], "big") | (signature[64] - 27) << 255
        head = bytes.fromhex(terms.payer[2:]) + terms.salt + amount.to_bytes(16, "big")
        return head + signature[:32] + s.to_bytes(32, "big")

    def balance(self, of: str) -> int:
        """Tokens."""
        return self.token.functions.balanceOf(Web3.to_checksum_address(of)).call()

    def pass_time(self, seconds: int) -> None:
        """Let time pass on the chain."""
        self.web3.provider.make_request("evm_increaseTime", [seconds])
        self.web3.provider.make_request("evm_mine", [])


def town_of(chain: EmbeddedChain) -> Town:
    """Contracts on an embedded chain."""
    return Town(Web3(EmbeddedProvider(chain)))


def address(of: Key) -> Any:
    """As web3 wants it."""
    return Web3.to_checksum_address(of.address)


def config(terms: Terms) -> tuple[Any, ...]:
    """Terms as the contract takes them."""
    return tuple(Web3.to_checksum_address(each) if isinstance(each, str) else each for each in terms.values())
