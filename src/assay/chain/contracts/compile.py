"""Compile the contracts: `python -m assay.chain.contracts.compile`, or only some: with their names behind it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from assay.chain.contracts import NAMES

HERE: Final = Path(__file__).parent


def compiled(name: str, folder: Path = HERE) -> str:
    """The file of a contract whose source is in a folder: JSON of its ABI and the code that deploys it.

    Raises:
        VyperException: it is no contract.
    """
    from vyper.cli.vyper_compile import compile_files

    (found,) = compile_files([folder / f"{name}.vy"], ["abi", "bytecode"], paths=[str(folder)]).values()
    code = found["bytecode"].removeprefix("0x")
    return json.dumps({"abi": found["abi"], "code": code}, indent=1, sort_keys=True) + "\n"


def main() -> None:
    """Write the files."""
    (HERE / "compiled").mkdir(exist_ok=True)
    for name in sys.argv[1:] or NAMES:
        (HERE / "compiled" / f"{name}.json").write_text(compiled(name), encoding="utf-8")


if __name__ == "__main__":
    main()
