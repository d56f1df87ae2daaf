"""The development chain as a program: web3 over HTTP, money, restarts, kill -9, and what nobody should send."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import pytest
from tests.chain.kit import CHAIN_ID, NOBODY, Town, address, key
from tests.e2e.kit import Place, Program

from assay.chain.addresses import Addresses
from assay.chain.client import ChainClient
from assay.chain.contracts import artefact
from assay.chain.ethereum import Web3
from assay.chain.node import HttpProvider
from assay.chain.outbox import Outbox
from assay.core.errors import ChainFailed
from assay.core.voucher import Terms, channels_domain

pytestmark = [pytest.mark.e2e]
ADA, BOB = key(101), key(102)
ARGS = ("devnet", "--port", "0", "--json", "--fund", ADA.address)


def town_of(program: Program) -> Town:
    """The contracts that it says it has."""
    town = Town(Web3(Web3.HTTPProvider(program.url)))
    for name, attribute in (("Token", "token"), ("Channels", "channels")):
        where = Web3.to_checksum_address(program.facts[attribute])
        setattr(town, attribute, town.web3.eth.contract(address=where, abi=artefact(name).abi))
    return town


def test_a_channel_over_http_and_kill_dash_nine(tmp_path: Path) -> None:
    """Somebody is given money, opens a channel and is paid; after kill -9 everything is where it was."""
    place = Place(tmp_path)
    with place.running("devnet", *ARGS) as program:
        assert httpx.post(f"{program.url}/fund/{BOB.address}").json()["ether"] == str(10**19)
        town = town_of(program)
        assert town.web3.eth.chain_id == CHAIN_ID
        town.send(ADA, town.token.functions.approve(town.channels.address, 2**256 - 1))
        both = (ADA.address, ADA.address, BOB.address, BOB.address)
        terms = Terms(*both, town.token.address.lower(), 86_400, bytes(32))
        town.deposit(ADA, terms, 10**18)
        town.domain = channels_domain(CHAIN_ID, town.channels.address.lower())
        town.send(BOB, town.channels.functions.claim([town.claim_of(ADA, terms, 7)]))
        head = town.web3.eth.block_number
        program.process.send_signal(signal.SIGKILL)
        program.process.wait(10)
    with place.running("devnet", "devnet", "--port", "0", "--json") as again:
        assert again.facts["channels"] == program.facts["channels"]
        town = town_of(again)
        assert town.web3.eth.block_number == head
        assert town.channels.functions.channels(
            terms.channel(channels_domain(CHAIN_ID, again.facts["channels"]))
        ).call() == [10**18, 7]
        before = town.balance(BOB.address)
        town.send(BOB, town.channels.functions.settle(address(BOB), town.token.address))
        assert town.balance(BOB.address) == before + 7
        assert "Traceback" not in again.log


def test_a_client_in_python(tmp_path: Path) -> None:
    """Finds the contracts by asking, and pays into a channel while the chain is killed and comes back."""
    place = Place(tmp_path)
    with place.running("devnet", *ARGS) as program:
        where = Addresses.fetch(program.url)
        assert (where.chain_id, where.channels) == (CHAIN_ID, program.facts["channels"])
        provider = HttpProvider(program.url)
        outbox = Outbox(tmp_path / "outbox", provider, ADA, CHAIN_ID, confirmations=0)
        client = ChainClient(provider, where, ADA, outbox)
        both = (ADA.address, ADA.address, BOB.address, BOB.address)
        terms = Terms(*both, where.token, 86_400, bytes(32))
        assert outbox.wait(client.approve_and_deposit(terms, 100, "first").name, 20).ok
        program.process.send_signal(signal.SIGKILL)
        program.process.wait(10)
        client.approve_and_deposit(terms, 11, "second")
        with pytest.raises(ChainFailed, match="does not answer"):
            outbox.wait("second/deposit", 0.2)
        outbox.close()
        provider.close()
    with place.running("devnet", "devnet", "--port", "0", "--json") as again:
        provider = HttpProvider(again.url)
        outbox = Outbox(tmp_path / "outbox", provider, ADA, CHAIN_ID, confirmations=0)
        client = ChainClient(provider, where, ADA, outbox)
        outbox.start()
        assert outbox.wait("second/deposit", 20).ok
        assert client.channel_state(terms.channel(client.domain)).balance == 111
        outbox.close()
        provider.close()


JUNK = [
    b"", b"{", b"[]", b"null", b'"x"', b"{}", b'{"method": 5}', b'{"method": "eth_chainId", "params": {}}',
    b'{"method": "eth_call", "params": [{"to": []}]}', b"[" * 100_000, b"\xff\xfe",
    b'{"method": "' + b"x" * 900_000 + b'"}', b"[" + b",".join([b"{}"] * 101) + b"]",
]  # fmt: skip


def test_what_nobody_should_send(tmp_path: Path) -> None:
    """Errors of JSON-RPC, or of HTTP; never a 5xx, and the chain goes on."""
    with Place(tmp_path).running("devnet", "devnet", "--port", "0", "--json") as program:
        with program.http as http:
            for body in JUNK:
                reply = http.post("/", content=body)
                assert reply.status_code in (200, 400), (body[:50], reply.text[:200])
                assert "error" in reply.json(), body[:50]
            assert http.post("/", content=b" " * (2 << 20)).status_code == 413
            assert http.post("/fund/nobody").status_code == 400
            assert http.get("/nothing").status_code == 404
            half = b'[{"id": "\\ud800", "method": "eth_chainId"}, {"id": 1, "method": "\\udfff"}]'
            first, second = http.post("/", content=half).json()
            assert (first["result"], second["error"]["code"]) == (hex(CHAIN_ID), -32601)
            assert http.post(f"/fund/{program.facts['token']}").status_code == 400
            calls = [
                {"jsonrpc": "2.0", "id": n, "method": "eth_getBalance", "params": [NOBODY, "latest"]} for n in (1, 2)
            ]
            assert [each["result"] for each in http.post("/", json=calls).json()] == ["0x0", "0x0"]
            assert http.get("/health").json()["block"] >= 3
        assert "Traceback" not in program.log
