"""What a node of the chain says, checked: it may be unreachable, behind, out of order, or lie."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, cast

import httpx
from typing_extensions import override

from assay.chain.abi import printable, reason
from assay.chain.ethereum import BaseProvider, RPCEndpoint, RPCResponse
from assay.core.encoding import check_bounds
from assay.core.errors import ChainFailed, EncodingError
from assay.core.keys import Address, parse_address

MAX_ANSWER: Final = 32 << 20
"""Bytes of a node's answer."""
MAX_LOGS: Final = 10_000
"""Events of one answer; nodes refuse to give more, too."""
MAX_LOG: Final = 1 << 16
"""Bytes of an event."""
_SECONDS: Final = 15.0
_REVERTED, _LIMITED = 3, -32005
"""Codes of Ethereum's nodes (geth's, and EIP-1474's)."""


class NodeRefused(ChainFailed):
    """The node answered with an error: `message` is its own words, `data` what a call was reverted with."""

    def __init__(self, method: str, code: int, message: str, data: bytes = b"") -> None:
        super().__init__(f"the node refuses {method}: {message}", "see what it says")
        self.why: Final = reason(data) if data else message
        """The contract's words if there are some, or the node's."""
        self.busy: Final = code == _LIMITED or "rate limit" in message.lower() or "too many" in message.lower()
        """It would answer later."""
        said = message.lower()
        self.reverted: Final = code == _REVERTED or bool(data) or "revert" in said
        """A contract said no."""
        self.unpaid: Final = not self.reverted and ("insufficient funds" in said or "exceeds allowance" in said)
        """The sender cannot pay for the gas."""
        self.known: Final = any(
            words in said for words in ("already", "known transaction", "nonce too low", "oldnonce")
        )
        """It has the transaction, or another one with this nonce is mined."""
        self.cheap: Final = "underpriced" in said or "fee" in said
        """It wants more for the gas."""


class Asked(Protocol):
    """Whatever takes JSON-RPC requests: any provider of web3."""

    def make_request(self, method: RPCEndpoint, params: Sequence[object]) -> RPCResponse:
        """The node's answer, an object with `result` or `error`."""
        ...


@dataclass(frozen=True, slots=True)
class Head:
    """A block, as far as we need it."""

    number: int
    hash: bytes
    timestamp: int
    """Unix seconds."""
    base_fee: int
    """Wei for a unit of gas; 0 on chains without."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An event of a contract, and where it happened."""

    address: Address
    topics: tuple[bytes, ...]
    data: bytes
    block: int
    block_hash: bytes
    transaction: bytes
    index: int
    """In its block."""


@dataclass(frozen=True, slots=True)
class MinedIn:
    """A transaction's receipt."""

    block: int
    block_hash: bytes
    ok: bool
    gas_used: int
    price: int
    """Wei for a unit of gas that was paid."""
    logs: tuple[Entry, ...]


class HttpProvider(BaseProvider):
    """A node at a URL. Other than web3's own, it bounds an answer's size, and the time until its last byte."""

    def __init__(self, url: str, *, seconds: float = _SECONDS, max_answer: int = MAX_ANSWER) -> None:
        """`seconds`, `max_answer` (bytes): for each answer."""
        super().__init__()
        self._url: Final = url
        self._seconds: Final = seconds
        self._max: Final = max_answer
        self._client: Final = httpx.Client(timeout=seconds, trust_env=False, headers={"accept-encoding": "identity"})

    @override
    def make_request(self, method: RPCEndpoint, params: Sequence[object]) -> RPCResponse:
        """See `BaseProvider.make_request`."""
        asked = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        end, body = time.monotonic() + self._seconds, bytearray()
        with self._client.stream("POST", self._url, json=asked) as answer:
            for part in answer.iter_raw():
                body += part
                if len(body) > self._max or time.monotonic() > end:
                    raise ChainFailed(f"the node's answer to {method} is too long or too slow", "ask another node")
        if answer.status_code != 200 and not body.lstrip().startswith(b"{"):
            raise ChainFailed(f"the node answers {method} with HTTP {answer.status_code}", "see what it wants")
        check_bounds(bytes(body), what=f"the node's answer to {method}")
        return cast("RPCResponse", json.loads(body))

    @override
    def is_connected(self, show_traceback: bool = False) -> bool:
        """It answers."""
        del show_traceback
        try:
            self.make_request(RPCEndpoint("eth_chainId"), [])
        except (httpx.HTTPError, ChainFailed, EncodingError, ValueError):
            return False
        return True

    def close(self) -> None:
        """Connections are closed."""
        self._client.close()


class Node:
    """Asks a node of one chain. For use from several threads."""

    def __init__(self, provider: Asked, chain_id: int) -> None:
        """`provider`: of web3; whether it is on this chain is asked first, and again after each outage."""
        self._provider: Final = provider
        self.chain_id: Final = chain_id
        self._verified: Final = threading.Event()

    def ask(self, method: str, *params: object) -> object:
        """The result of a method, of whatever type.

        Raises:
            NodeRefused: the node says so.
            ChainFailed: it cannot be reached, is on another chain, or its answer is no JSON-RPC.
        """
        if not self._verified.is_set():
            found = _number(self._ask("eth_chainId", ()), "the chain's id")
            if found != self.chain_id:
                raise ChainFailed(
                    f"the node is on chain {found}, not {self.chain_id}", "name a node of the right chain"
                )
            self._verified.set()
        return self._ask(method, params)

    def _ask(self, method: str, params: Sequence[object]) -> object:
        try:
            answer: object = self._provider.make_request(RPCEndpoint(method), list(params))
        except ChainFailed:
            self._verified.clear()
            raise
        except Exception as error:  # whatever the provider's library raises
            self._verified.clear()
            why = printable(f"{type(error).__name__}: {error}")
            raise ChainFailed(f"the node does not answer {method} ({why})", "check that it runs and its URL") from error
        if not isinstance(answer, Mapping):
            raise _strange(method)
        error = answer.get("error")
        if error is not None:
            raise _refusal(method, error)
        if "result" not in answer:
            raise _strange(method)
        return answer["result"]

    def head(self, number: int | None = None) -> Head:
        """The latest block, or one by its number.

        Raises:
            ChainFailed: see `ask`; or the node does not have it.
        """
        asked = "latest" if number is None else hex(number)
        found = _members(self.ask("eth_getBlockByNumber", asked, False), "a block")
        head = Head(
            _number(found.get("number"), "a block's number"),
            _bytes(found.get("hash"), "a block's hash", 32),
            _number(found.get("timestamp"), "a block's time", 1 << 63),
            _number(found.get("baseFeePerGas") or "0x0", "a block's base fee"),
        )
        if number not in (None, head.number):
            raise _strange("eth_getBlockByNumber")
        return head

    def count(self, address: Address) -> int:
        """Transactions of an address that are mined: the next nonce."""
        return _number(self.ask("eth_getTransactionCount", address, "latest"), "a nonce", 1 << 63)

    def tip(self) -> int:
        """Wei for a unit of gas beyond the base fee, which the node proposes; 0 where it does not know."""
        try:
            return _number(self.ask("eth_maxPriorityFeePerGas"), "a tip")
        except NodeRefused:
            return 0

    def balance(self, address: Address) -> int:
        """Wei."""
        return _number(self.ask("eth_getBalance", address, "latest"), "a balance")

    def code(self, address: Address) -> bytes:
        """Of a contract; empty: there is none."""
        return _bytes(self.ask("eth_getCode", address, "latest"), "code")

    def call(self, to: Address, data: bytes, *, sender: Address | None = None, block: int | None = None) -> bytes:
        """What a contract answers now, or did at the end of a block.

        Raises:
            NodeRefused: among others when the call is reverted.
            ChainFailed: see `ask`.
        """
        asked = {"to": to, "data": "0x" + data.hex()}
        if sender is not None:
            asked["from"] = sender
        return _bytes(self.ask("eth_call", asked, "latest" if block is None else hex(block)), "what a call gives")

    def estimate(self, sender: Address, to: Address, data: bytes) -> int:
        """Gas that a transaction needs.

        Raises:
            NodeRefused: among others when it would be reverted.
            ChainFailed: see `ask`.
        """
        asked = {"from": sender, "to": to, "data": "0x" + data.hex()}
        return _number(self.ask("eth_estimateGas", asked), "an amount of gas", 1 << 40)

    def send(self, raw: bytes) -> None:
        """Broadcast a signed transaction.

        Raises:
            NodeRefused: it does not take it, perhaps since it has it.
            ChainFailed: see `ask`; it may have been broadcast.
        """
        self.ask("eth_sendRawTransaction", "0x" + raw.hex())

    def receipt(self, transaction: bytes) -> MinedIn | None:
        """What became of a transaction, by its hash; None: it is not mined, as far as the node knows."""
        answer = self.ask("eth_getTransactionReceipt", "0x" + transaction.hex())
        if answer is None:
            return None
        found = _members(answer, "a receipt")
        if found.get("blockNumber") is None:  # some nodes have receipts of what is pending
            return None
        if _bytes(found.get("transactionHash"), "a receipt's transaction", 32) != transaction:
            raise _strange("eth_getTransactionReceipt")
        block = _number(found.get("blockNumber"), "a receipt's block", 1 << 63)
        name = _bytes(found.get("blockHash"), "a receipt's block", 32)
        logs = _entries(found.get("logs"))
        if any((each.block, each.block_hash, each.transaction) != (block, name, transaction) for each in logs):
            raise _strange("eth_getTransactionReceipt")
        return MinedIn(
            block,
            name,
            _number(found.get("status"), "a receipt's status", 2) == 1,
            _number(found.get("gasUsed"), "a receipt's gas", 1 << 40),
            _number(found.get("effectiveGasPrice") or "0x0", "a receipt's price"),
            logs,
        )

    def logs(self, address: Address, topic: bytes, first: int, last: int) -> tuple[Entry, ...]:
        """Events of a contract with this first topic, in blocks `first` to `last`, in their order.

        Raises:
            NodeRefused: among others for too many blocks or events.
            ChainFailed: see `ask`; or events that were not asked for.
        """
        asked = {"address": address, "topics": ["0x" + topic.hex()], "fromBlock": hex(first), "toBlock": hex(last)}
        found = _entries(self.ask("eth_getLogs", asked))
        places = [(each.block, each.index) for each in found]
        if places != sorted(set(places)) or any(
            each.address != address or each.topics[:1] != (topic,) or not first <= each.block <= last for each in found
        ):
            raise _strange("eth_getLogs")
        return found


def _refusal(method: str, error: object) -> NodeRefused:
    if not isinstance(error, Mapping):
        return NodeRefused(method, 0, printable(str(error)))
    code, said, data = error.get("code"), error.get("message"), error.get("data")
    try:
        given = _bytes(data, "")[:4096]
    except ChainFailed:
        given = b""
    return NodeRefused(method, code if isinstance(code, int) else 0, printable(str(said)), given)


def _strange(method: str) -> ChainFailed:
    return ChainFailed(f"the node's answer to {method} is none", "ask another node")


def _members(value: object, what: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise ChainFailed(f"the node does not have {what}, or gives none", "ask another node")
    return value


def _number(value: object, what: str, limit: int = 1 << 256) -> int:
    try:
        if isinstance(value, str) and value.startswith("0x") and 2 < len(value) <= 66:
            found = int(value[2:], 16)
            if "_" not in value and 0 <= found < limit:
                return found
    except ValueError:
        pass
    raise ChainFailed(f"the node's answer is not {what}", "ask another node")


def _bytes(value: object, what: str, size: int | None = None) -> bytes:
    try:
        if isinstance(value, str) and value.startswith("0x"):
            found = bytes.fromhex(value[2:])
            if 2 * len(found) + 2 == len(value) and size in (None, len(found)):
                return found
    except ValueError:
        pass
    raise ChainFailed(f"the node's answer is not {what}", "ask another node")


def _entries(value: object) -> tuple[Entry, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) > MAX_LOGS:
        raise ChainFailed("the node's answer is not a list of events", "ask another node")
    return tuple(_entry(_members(each, "an event")) for each in value)


def _entry(found: Mapping[str, object]) -> Entry:
    topics, address, data = found.get("topics"), found.get("address"), found.get("data")
    if not isinstance(topics, Sequence) or len(topics) > 4 or not isinstance(address, str):
        raise ChainFailed("the node's answer is not an event", "ask another node")
    if not isinstance(data, str) or len(data) > 2 * MAX_LOG + 2 or found.get("removed") is True:
        raise ChainFailed("the node's answer is not an event", "ask another node")
    try:
        own = parse_address(address.lower(), what="an event's contract")
    except EncodingError as error:
        raise ChainFailed("the node's answer is not an event", "ask another node") from error
    return Entry(
        own,
        tuple(_bytes(each, "an event's topic", 32) for each in topics),
        _bytes(data, "an event's data"),
        _number(found.get("blockNumber"), "an event's block", 1 << 63),
        _bytes(found.get("blockHash"), "an event's block", 32),
        _bytes(found.get("transactionHash"), "an event's transaction", 32),
        _number(found.get("logIndex"), "an event's place", 1 << 31),
    )
