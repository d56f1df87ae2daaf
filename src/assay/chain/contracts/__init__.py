"""The contracts: Vyper sources, and what the compiler made of them.

`python -m assay.chain.contracts.compile` makes them anew (Vyper and snekmate come with the development tools); a test
compares, so that what is deployed is what is read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

FOLDER = files("assay.chain.contracts").joinpath("compiled")
"""Where they are; tests of tests put others in their place."""
NAMES: Final = ("Channels", "Collector", "Court", "Params", "Token", "Vault")
"""All of them."""


@dataclass(frozen=True, slots=True)
class Artefact:
    """A compiled contract."""

    name: str
    abi: list[dict[str, Any]]
    code: bytes
    """That deploys it; arguments of its constructor go behind."""


@cache
def artefact(name: str) -> Artefact:
    """One of NAMES.

    Raises:
        FileNotFoundError: there is no such contract.
    """
    found = json.loads(FOLDER.joinpath(f"{name}.json").read_text(encoding="utf-8"))
    return Artefact(name, found["abi"], bytes.fromhex(found["code"]))
