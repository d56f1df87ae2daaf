"""The tables of the exact semantics as contracts: `python -m tests.chain.tables` writes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from assay.chain import contracts
from assay.engines.exact.tables import exp2_table, log2_table, sigmoid_table, sine_table, tail_table

COMPILED = Path(contracts.__file__).parent / "compiled"
PARTS = {
    "Powers": (exp2_table, log2_table, tail_table),
    "Sigmoid": (sigmoid_table,),
    "Sine": (sine_table,),
}


def code_of(name: str) -> bytes:
    """What stands on the chain: numbers of four bytes, big-endian."""
    return b"".join(table().astype(np.dtype(">i4")).tobytes() for table in PARTS[name])


def artefact_of(name: str) -> str:
    """The file of a table: code that copies what is behind it (PUSH2 DUP1 PUSH1 RETURNDATASIZE CODECOPY RETURN)."""
    code = code_of(name)
    made = bytes.fromhex(f"61{len(code):04x}80600a3d393df3") + code
    return json.dumps({"abi": [], "code": made.hex()}, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    for each in contracts.TABLES:
        (COMPILED / f"{each}.json").write_text(artefact_of(each), encoding="utf-8")
