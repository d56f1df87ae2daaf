"""Ethereum's own Python implementation, for comparison, without its side effect.

py_ecc, which eth_account imports, raises the interpreter's recursion limit to 100,000: with that, deeply nested JSON
overflows the stack of CPython 3.11 instead of being refused.
"""

from __future__ import annotations

import sys

_limit = sys.getrecursionlimit()

from eth_account import Account  # noqa: E402
from eth_account.messages import encode_typed_data  # noqa: E402
from eth_utils.crypto import keccak  # noqa: E402

sys.setrecursionlimit(_limit)

__all__ = ["Account", "encode_typed_data", "keccak"]
