"""Nodes that fail, lag and lie, before a real one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

from assay.chain.ethereum import RPCEndpoint


class Wire:
    """Passes on to a provider what `rules` do not answer themselves, and counts."""

    def __init__(self, provider: Any) -> None:
        self.provider = provider
        self.rules: dict[str, Callable[[Sequence[object]], Any]] = {}
        self.asked: list[str] = []
        self.raws: list[bytes] = []

    def make_request(self, method: RPCEndpoint, params: Sequence[object]) -> Any:
        """A rule may raise, answer, or give None: then the node is asked."""
        self.asked.append(method)
        if method == "eth_sendRawTransaction":
            self.raws.append(bytes.fromhex(str(params[0])[2:]))
        rule = self.rules.get(method, self.rules.get("*"))
        answer = None if rule is None else rule(params)
        return self.provider.make_request(method, params) if answer is None else answer


def result(value: object) -> dict[str, object]:
    """A node's answer."""
    return {"jsonrpc": "2.0", "id": 1, "result": value}


def error(message: str, code: int = -32000, data: object = None) -> dict[str, object]:
    """A node's refusal."""
    return {"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": message, "data": data}}


def away(_params: Sequence[object]) -> Any:
    """Nobody is there."""
    raise ConnectionError("connection refused")


def kill(_params: Sequence[object]) -> Any:
    """This process is no more."""
    os.kill(os.getpid(), signal.SIGKILL)
