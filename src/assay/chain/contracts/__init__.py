"""The contracts: Vyper sources, and what the compiler made of them.

`python -m assay.chain.contracts.compile` makes them anew (Vyper and snekmate come with the development tools); a test
compares, so that what is deployed is what is read. TABLES have no source: their code is the exact semantics' tables,
which `python -m tests.chain.tables` writes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

FOLDER = files("assay.chain.contracts").joinpath("compiled")
"""Where they are; tests of tests put others in their place."""
REFEREES: Final = ("Products", "Stream", "Norms", "Heads", "Softmax", "Feed", "Draws")
"""Each judges some kinds of steps of a dispute; `Game` knows them in this order."""
NAMES: Final = ("Channels", "Collector", "Court", "Game", "Params", "Token", "Vault", *REFEREES)
"""All that have a source."""
MODULES: Final = ("opening", "plan", "whole")
"""Sources of parts of REFEREES, which are no contracts."""
TABLES: Final = ("Powers", "Sigmoid", "Sine")
"""Contracts that are read, and never called."""


@dataclass(frozen=True, slots=True)
class Artefact:
    """A compiled contract."""

    name: str
    abi: list[dict[str, Any]]
    code: bytes
    """That deploys it; arguments of its constructor go behind."""


@cache
def artefact(name: str) -> Artefact:
    """One of NAMES or TABLES.

    Raises:
        FileNotFoundError: there is no such contract.
    """
    found = json.loads(FOLDER.joinpath(f"{name}.json").read_text(encoding="utf-8"))
    return Artefact(name, found["abi"], bytes.fromhex(found["code"]))
