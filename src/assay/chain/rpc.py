"""Ethereum's JSON-RPC over the embedded chain: the methods that wallets and web3 libraries use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from assay.chain.embedded import GAS_LIMIT, TIP, Block, EmbeddedChain, Log, Outcome
from assay.chain.transactions import Transaction
from assay.core.errors import AssayError, EncodingError
from assay.core.keys import Address, keccak256

MAX_LOGS: Final = 10_000
"""Most events of one answer."""
MAX_BYTES: Final = 2 << 20
"""Most bytes of events in one answer, and of what a call gives back."""
MAX_REWARDS: Final = 100
_LATEST: Final = ("latest", "pending", "safe", "finalized")
INVALID, NOT_FOUND, FAILED, REVERTED = -32602, -32601, -32000, 3
"""JSON-RPC's error codes, and those of Ethereum's nodes."""


class RpcError(Exception):
    """An error object of JSON-RPC."""

    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        """`data`: what a call was reverted with."""
        super().__init__(message)
        self.code: Final = code
        self.message: Final = message
        self.data: Final = data


class ChainRpc:
    """Answers one call at a time; every argument is hostile until it is read."""

    def __init__(self, chain: EmbeddedChain) -> None:
        """Answer for this chain."""
        self._chain: Final = chain
        self._methods: Final[Mapping[str, Callable[..., object]]] = {
            "eth_chainId": lambda: hex(chain.chain_id),
            "net_version": lambda: str(chain.chain_id),
            "web3_clientVersion": lambda: "assay/embedded",
            "eth_syncing": lambda: False,
            "eth_accounts": list,
            "eth_blockNumber": lambda: hex(chain.head.number),
            "eth_gasPrice": lambda: hex(TIP),
            "eth_maxPriorityFeePerGas": lambda: hex(TIP),
            "eth_feeHistory": self._fee_history,
            "eth_getBalance": self._balance,
            "eth_getTransactionCount": self._count,
            "eth_getCode": self._code,
            "eth_getStorageAt": self._storage,
            "eth_call": self._call,
            "eth_estimateGas": self._estimate,
            "eth_sendRawTransaction": self._send,
            "eth_getBlockByNumber": self._block_by_number,
            "eth_getBlockByHash": self._block_by_hash,
            "eth_getTransactionByHash": self._transaction,
            "eth_getTransactionReceipt": self._receipt,
            "eth_getLogs": self._logs,
            "evm_increaseTime": self._increase_time,
            "evm_mine": self._mine,
        }

    def answer(self, method: str, params: Sequence[object]) -> object:
        """The result of a method.

        Raises:
            RpcError: there is no such method, the arguments are no good, or the chain refuses.
        """
        known = self._methods.get(method)
        if known is None:
            raise RpcError(NOT_FOUND, f"the method {method[:60]!r} is not known here")
        try:
            return known(*params)
        except RpcError:
            raise
        except (EncodingError, TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            raise RpcError(INVALID, f"the arguments of {method} are no good: {str(error)[:200]}") from error
        except AssayError as error:
            raise RpcError(FAILED, error.message) from error

    def _require_latest(self, at: object) -> None:
        if at not in _LATEST and _number(at) != self._chain.head.number:
            raise RpcError(FAILED, "only the latest state is kept: ask for 'latest'")

    def _balance(self, address: object, at: object = "latest") -> str:
        self._require_latest(at)
        return hex(self._chain.balance(_address(address)))

    def _count(self, address: object, at: object = "latest") -> str:
        self._require_latest(at)
        return hex(self._chain.nonce(_address(address)))

    def _code(self, address: object, at: object = "latest") -> str:
        self._require_latest(at)
        return _hex(self._chain.code(_address(address)))

    def _send(self, raw: object) -> str:
        return _hex(self._chain.send(_bytes(raw)))

    def _block_by_number(self, number: object, full: object = False) -> dict[str, Any] | None:
        return self._block(self._numbered(number), full)

    def _numbered(self, tag: object) -> Block | None:
        if tag in _LATEST:
            return self._chain.head
        return self._chain.block(0 if tag == "earliest" else _number(tag))

    def _fee_history(self, count: object, newest: object, rewards: object = ()) -> dict[str, Any]:
        wanted = len(rewards) if isinstance(rewards, Sequence) and not isinstance(rewards, str) else MAX_REWARDS + 1
        if wanted > MAX_REWARDS:
            raise EncodingError(f"up to {MAX_REWARDS} percentiles can be asked for")
        block = self._numbered(newest) or self._chain.head
        size = min(_number(count), block.number + 1, 1024)
        return {
            "oldestBlock": hex(block.number - size + 1),
            "baseFeePerGas": ["0x0"] * (size + 1),
            "gasUsedRatio": [0.0] * size,
            "reward": [[hex(TIP)] * wanted] * size,
        }

    def _storage(self, address: object, slot: object, at: object = "latest") -> str:
        self._require_latest(at)
        return _hex(self._chain.storage(_address(address), _number(slot)).to_bytes(32, "big"))

    def _run(self, asked: Mapping[str, Any], gas: int | None = None) -> Outcome:
        sender = _address(asked.get("from") or "0x" + "0" * 40)
        to = None if asked.get("to") is None else _address(asked["to"])
        data = _bytes(asked.get("data") or asked.get("input") or "0x")
        most = min(_number(asked.get("gas") or hex(GAS_LIMIT)), GAS_LIMIT) if gas is None else gas
        return self._chain.call(sender, to, data, _number(asked.get("value") or "0x0"), most)

    def _call(self, asked: Mapping[str, Any], at: object = "latest", *_more: object) -> str:
        self._require_latest(at)
        outcome = self._run(asked)
        _require(outcome)
        if len(outcome.output) > MAX_BYTES:
            raise RpcError(FAILED, f"the call gives back more than {MAX_BYTES} bytes")
        return _hex(outcome.output)

    def _estimate(self, asked: Mapping[str, Any], *_more: object) -> str:
        """What suffices, to one part in 64: calls within keep some back, and refunds come at the end."""
        outcome = self._run(asked)
        _require(outcome)
        low, high = outcome.gas - 1, outcome.gas
        while high < GAS_LIMIT and not self._run(asked, high).ok:
            low, high = high, min(high * 5 // 4, GAS_LIMIT)
        while high - low > high // 64 + 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._run(asked, middle).ok else (middle, high)
        return hex(high)

    def _increase_time(self, seconds: object) -> str:
        self._chain.pass_time(seconds if isinstance(seconds, int) else _number(seconds))
        return hex(0)

    def _mine(self, *_more: object) -> str:
        self._chain.pass_time(0)
        return "0x0"

    def _block_by_hash(self, wanted: object, full: object = False) -> dict[str, Any] | None:
        return self._block(self._chain.named(_bytes(wanted)), full)

    def _block(self, block: Block | None, full: object) -> dict[str, Any] | None:
        if block is None:
            return None
        own = block.transaction
        return {
            "number": hex(block.number),
            "hash": _hex(block.hash),
            "parentHash": _hex(block.parent),
            "timestamp": hex(block.timestamp),
            "gasLimit": hex(GAS_LIMIT),
            "gasUsed": hex(block.outcome.gas if block.outcome else 0),
            "baseFeePerGas": "0x0",
            "miner": "0x" + "0" * 40,
            "difficulty": "0x0",
            "totalDifficulty": "0x0",
            "extraData": "0x",
            "nonce": "0x" + "0" * 16,
            "size": hex(len(own.raw) if own else 0),
            "sha3Uncles": _hex(bytes(32)),
            "mixHash": _hex(bytes(32)),
            "stateRoot": _hex(bytes(32)),
            "transactionsRoot": _hex(bytes(32)),
            "receiptsRoot": _hex(bytes(32)),
            "logsBloom": _bloom(block.outcome.logs if block.outcome else ()),
            "uncles": [],
            "transactions": [] if own is None else [_sent(own, block) if full else _hex(own.hash)],
        }

    def _transaction(self, name: object) -> dict[str, Any] | None:
        block = self._chain.place(_bytes(name))
        return None if block is None or block.transaction is None else _sent(block.transaction, block)

    def _receipt(self, name: object) -> dict[str, Any] | None:
        block = self._chain.place(_bytes(name))
        if block is None or block.transaction is None or block.outcome is None:
            return None
        own, outcome = block.transaction, block.outcome
        return {
            "transactionHash": _hex(own.hash),
            "transactionIndex": "0x0",
            "blockHash": _hex(block.hash),
            "blockNumber": hex(block.number),
            "from": own.sender,
            "to": own.to,
            "contractAddress": outcome.contract,
            "cumulativeGasUsed": hex(outcome.gas),
            "gasUsed": hex(outcome.gas),
            "effectiveGasPrice": hex(own.tip),
            "status": hex(outcome.ok),
            "type": hex(own.kind),
            "logsBloom": _bloom(outcome.logs),
            "logs": [_event(log, n, block) for n, log in enumerate(outcome.logs)],
        }

    def _logs(self, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
        first = self._numbered(asked.get("fromBlock") or "latest")
        last = self._numbered(asked.get("toBlock") or "latest") or self._chain.head
        if "blockHash" in asked:
            first = last = self._chain.named(_bytes(asked["blockHash"]))
        addresses = asked.get("address")
        wanted = {_address(each) for each in ([addresses] if isinstance(addresses, str) else addresses or ())}
        topics = [_choices(each) for each in asked.get("topics") or ()]
        events: list[dict[str, Any]] = []
        size = 0
        for number in range(first.number, last.number + 1) if first and last else ():
            block = self._chain.block(number)
            for n, log in enumerate(block.outcome.logs if block and block.outcome else ()):
                if block and (not wanted or log.address in wanted) and _matches(log, topics):
                    events.append(_event(log, n, block))
                    size += len(log.data)
                    if len(events) > MAX_LOGS or size > MAX_BYTES:
                        raise RpcError(
                            FAILED, f"more than {MAX_LOGS} events, or {MAX_BYTES} bytes: ask for fewer blocks"
                        )
        return events


def _require(outcome: Outcome) -> None:
    if not outcome.ok:
        if outcome.reason:
            raise RpcError(FAILED, f"the call fails: {outcome.reason}")
        raise RpcError(REVERTED, f"execution reverted{_said(outcome.output)}", _hex(outcome.output))


def _said(output: bytes) -> str:
    """The text of Solidity's `Error(string)`, if that is what a revert came with."""
    if output[:4].hex() != "08c379a0" or len(output) < 68:
        return ""
    size = int.from_bytes(output[36:68], "big")
    return ": " + output[68 : 68 + min(size, 1000)].decode(errors="replace")


def _choices(topic: object) -> set[bytes] | None:
    if topic is None or topic == []:
        return None
    return {_bytes(each) for each in (topic if isinstance(topic, list) else [topic])}


def _matches(log: Log, topics: Sequence[set[bytes] | None]) -> bool:
    if len(topics) > len(log.topics):
        return False
    return all(choice is None or own in choice for own, choice in zip(log.topics, topics, strict=False))


def _sent(own: Transaction, block: Block) -> dict[str, Any]:
    return {
        "hash": _hex(own.hash),
        "blockHash": _hex(block.hash),
        "blockNumber": hex(block.number),
        "transactionIndex": "0x0",
        "from": own.sender,
        "to": own.to,
        "nonce": hex(own.nonce),
        "value": hex(own.value),
        "gas": hex(own.gas),
        "gasPrice": hex(own.tip),
        "maxFeePerGas": hex(own.most),
        "maxPriorityFeePerGas": hex(own.tip),
        "input": _hex(own.data),
        "chainId": hex(own.chain_id),
        "type": hex(own.kind),
        **dict(zip(("v", "r", "s"), map(hex, own.signature), strict=True)),
    }


def _event(log: Log, index: int, block: Block) -> dict[str, Any]:
    return {
        "address": log.address,
        "topics": [_hex(topic) for topic in log.topics],
        "data": _hex(log.data),
        "logIndex": hex(index),
        "blockHash": _hex(block.hash),
        "blockNumber": hex(block.number),
        "transactionHash": _hex(block.transaction.hash if block.transaction else bytes(32)),
        "transactionIndex": "0x0",
        "removed": False,
    }


def _bloom(logs: Sequence[Log]) -> str:
    """Of 2,048 bits, as Ethereum's Yellow Paper has it (4.3.1)."""
    bits = 0
    for item in (part for log in logs for part in (bytes.fromhex(log.address[2:]), *log.topics)):
        name = keccak256(item)
        for at in (0, 2, 4):
            bits |= 1 << (int.from_bytes(name[at : at + 2], "big") & 2047)
    return _hex(bits.to_bytes(256, "big"))


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


def _bytes(text: object) -> bytes:
    if not isinstance(text, str) or not text.startswith("0x"):
        raise EncodingError("bytes are written as 0x and hexadecimal digits")
    return bytes.fromhex(text[2:])


def _number(text: object) -> int:
    if not isinstance(text, str) or not text.startswith("0x") or len(text) > 66:
        raise EncodingError("a number is written as 0x and up to 64 hexadecimal digits")
    return int(text, 16)


def _address(text: object) -> Address:
    if not isinstance(text, str) or len(_bytes(text)) != 20:
        raise EncodingError("an address is 0x and 40 hexadecimal digits")
    return text.lower()
