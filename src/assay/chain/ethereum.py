"""web3 and its relatives, imported here only, without their side effect.

py_ecc, which they import, raises the interpreter's recursion limit to 100,000: with that, deeply nested JSON from
outside overflows the stack of CPython 3.11 instead of being refused.
"""

from __future__ import annotations

import sys

_limit = sys.getrecursionlimit()

import rlp  # noqa: E402
from eth_abi import encode as encode_abi  # noqa: E402
from eth_account import Account  # noqa: E402
from web3 import Web3  # noqa: E402
from web3.contract import Contract  # noqa: E402
from web3.providers.base import BaseProvider  # noqa: E402
from web3.types import Nonce, RPCEndpoint, RPCResponse, TxParams, Wei  # noqa: E402

sys.setrecursionlimit(_limit)

__all__ = [
    "Account",
    "BaseProvider",
    "Contract",
    "Nonce",
    "RPCEndpoint",
    "RPCResponse",
    "TxParams",
    "Web3",
    "Wei",
    "encode_abi",
    "rlp",
]
