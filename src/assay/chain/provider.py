"""The embedded chain as a provider of web3, so that everything else speaks to any chain alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

from typing_extensions import override

from assay.chain.embedded import EmbeddedChain
from assay.chain.ethereum import BaseProvider, RPCEndpoint, RPCResponse
from assay.chain.rpc import ChainRpc, RpcError


class EmbeddedProvider(BaseProvider):
    """`Web3(EmbeddedProvider(chain))`."""

    def __init__(self, chain: EmbeddedChain) -> None:
        """Answer from this chain."""
        super().__init__()
        self._rpc: Final = ChainRpc(chain)

    @override
    def make_request(self, method: RPCEndpoint, params: Sequence[object]) -> RPCResponse:
        """See `BaseProvider.make_request`."""
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": 1}
        try:
            answer["result"] = self._rpc.answer(method, params)
        except RpcError as error:
            answer["error"] = {"code": error.code, "message": error.message}
            if error.data is not None:
                answer["error"]["data"] = error.data
        return cast("RPCResponse", answer)

    @override
    def is_connected(self, show_traceback: bool = False) -> bool:
        """Always: it is in this process."""
        del show_traceback
        return True
