"""Nodes over HTTP, and what they say: sizes, times and nonsense are bounded."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from tests.chain.kit import CHAIN_ID, PEOPLE, Town, config, embedded, town_of
from tests.chain.nodes import Wire, error, result
from tests.running import free_port

from assay.chain.abi import CONFIG, encoded, reason, words
from assay.chain.addresses import Addresses
from assay.chain.ethereum import Web3, encode_abi
from assay.chain.node import HttpProvider, Node, NodeRefused
from assay.core.errors import ChainFailed, ConfigError

Reply = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture
def serve() -> Iterator[Callable[[Reply], str]]:
    """Start a server whose every answer is this."""
    servers: list[ThreadingHTTPServer] = []

    def start(reply: Reply) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                reply(self)

            do_GET = do_POST  # noqa: N815

            def log_message(self, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def answer(body: bytes, status: int = 200, **headers: str) -> Reply:
    """Of a server."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return reply


def giant(handler: BaseHTTPRequestHandler) -> None:
    """Has no end."""
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b" " * (1 << 16))
    except OSError:
        pass


def slow(handler: BaseHTTPRequestHandler) -> None:
    """Says a word now and then."""
    handler.send_response(200)
    handler.end_headers()
    try:
        for _ in range(100):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)
    except OSError:
        pass


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (answer(b"no"), "JSONDecodeError"),
        (answer(b""), "JSONDecodeError"),
        (answer(b"<html>", 502), "HTTP 502"),
        (answer(b"[" * 200_000), "nested too deeply"),
        (answer(b'{"result": ' + b"1" * 10_000 + b"}"), "ValueError"),
        (answer(b'"text"'), "is none"),
        (answer(b"", 302, location="http://127.0.0.1:1/"), "HTTP 302"),
        (answer(b"\x1f\x8b", content_encoding="gzip"), "UnicodeDecodeError"),
        (answer(b'{"error": {"code": 429, "message": "too many requests"}}', 429), "too many requests"),
        (giant, "too long or too slow"),
        (slow, "too long or too slow"),
    ],
)
def test_nonsense_over_http(serve: Callable[[Reply], str], reply: Reply, why: str) -> None:
    """Is one error that says what to do, soon, and with little memory."""
    provider = HttpProvider(serve(reply), seconds=1, max_answer=1 << 20)
    began = time.monotonic()
    with pytest.raises(ChainFailed, match=why):
        Node(provider, CHAIN_ID).head()
    assert time.monotonic() - began < 3
    assert provider.is_connected() == (why in ("is none", "too many requests"))
    provider.close()


def test_nobody_at_the_url() -> None:
    """Says so."""
    provider = HttpProvider(f"http://127.0.0.1:{free_port()}")
    assert not provider.is_connected()
    with pytest.raises(ChainFailed, match="check that it runs and its URL"):
        Node(provider, CHAIN_ID).head()
    with pytest.raises(ChainFailed, match="start one with `assay devnet`"):
        Addresses.fetch(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ChainFailed, match="no development chain"):
        Addresses.fetch("nonsense")


def test_addresses_of_a_development_chain(serve: Callable[[Reply], str]) -> None:
    """Are read, and checked."""
    true = {
        "chain_id": 31337,
        "block": 3,
        "token": "0x" + "1" * 40,
        "channels": "0x" + "2" * 40,
        "collector": "0x" + "3" * 40,
    }
    found = Addresses.fetch(serve(answer(json.dumps(true).encode())))
    assert (found.chain_id, found.vault, found.collector) == (31337, "", "0x" + "3" * 40)
    with pytest.raises(ConfigError, match="token"):
        Addresses.fetch(serve(answer(json.dumps(true | {"token": "0x1"}).encode())))
    for body in (b"[]", b"x" * (1 << 17), b"{", b"[" * 30_000):
        with pytest.raises(ChainFailed, match="no development chain"):
            Addresses.fetch(serve(answer(body)))
    with pytest.raises(ChainFailed, match="404"):
        Addresses.fetch(serve(answer(b"{}", 404)))


@pytest.fixture
def town() -> Town:
    """A chain of the test's own."""
    return town_of(embedded())


def test_events_that_were_not_asked_for(town: Town) -> None:
    """Of other contracts, kinds or blocks, out of order or twice, are not believed."""
    wire = Wire(town.web3.provider)
    node, token = Node(wire, CHAIN_ID), town.token.address.lower()
    topic = town.web3.keccak(text="Transfer(address,address,uint256)")
    head = node.head().number
    found = node.logs(token, topic, 0, head)
    assert len(found) > 2
    true: Any = wire.provider.make_request(
        "eth_getLogs", [{"address": token, "topics": ["0x" + topic.hex()], "fromBlock": "0x0", "toBlock": hex(head)}]
    )
    logs = true["result"]
    lies = [
        logs[::-1], logs + logs[-1:], [{**logs[0], "address": "0x" + "1" * 40}], [{**logs[0], "topics": []}],
        [{**logs[0], "topics": ["0x" + "1" * 64]}], [{**logs[0], "blockNumber": hex(head + 1)}],
        [{**logs[0], "topics": ["0x" + topic.hex()] * 5}],
        [{**logs[0], "data": "0x0"}], [{**logs[0], "logIndex": None}], {}, "0x", None, [None],
    ]  # fmt: skip
    for lie in lies:
        wire.rules["eth_getLogs"] = lambda _, lie=lie: result(lie)
        with pytest.raises(ChainFailed):
            node.logs(token, topic, 0, head)


def test_what_a_revert_says() -> None:
    """The contract's words, short and printable, or what else there is."""
    said = bytes.fromhex("08c379a0") + encode_abi(["string"], ["too early"])
    assert reason(said) == "too early"
    assert reason(b"") == "no reason is given"
    assert reason(b"\1" * 100) == "0x" + "01" * 68
    assert len(reason(said[:4] + b"\xff" * 10**6)) == 300
    assert reason(bytes.fromhex("08c379a0") + encode_abi(["string"], ["\x1b[2J" * 1000])).isprintable()
    with pytest.raises(NodeRefused) as refused:
        Node(Wire(_Says(error("execution reverted", 3, "0x" + said.hex()))), CHAIN_ID).head()
    assert (refused.value.why, refused.value.reverted) == ("too early", True)


class _Says:
    """Always the same."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def make_request(self, method: str, params: object) -> Any:
        return self.answer


def test_numbers_from_a_contract() -> None:
    """Are in range, and as many as they should be."""
    assert words(encode_abi(["uint256", "uint8"], [5, 6]), 1 << 256, 256, what="x") == [5, 6]
    for data in (b"", b"\0" * 31, b"\0" * 33, b"\0" * 64, b"\1" * 32):
        with pytest.raises(ChainFailed, match="a number cannot be read"):
            words(data, 1 << 128, what="a number")


def test_calls_are_those_of_the_contract(town: Town) -> None:
    """As others' libraries encode them."""
    both = Web3.to_checksum_address("0x" + "1" * 40), Web3.to_checksum_address("0x" + "2" * 40)
    assert "0x" + encoded("settle", ("address", "address"), *both).hex() == town.channels.encode_abi("settle", both)
    terms = town.terms(PEOPLE[1], PEOPLE[2])
    theirs = town.channels.encode_abi("initiateWithdraw", [config(terms), 5])
    assert "0x" + encoded("initiateWithdraw", (CONFIG, "uint128"), terms.values(), 5).hex() == theirs
