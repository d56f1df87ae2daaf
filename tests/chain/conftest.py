"""Fixtures of tests that run on either chain."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.chain.kit import Town, anvil, embedded, town_of

from assay.core.keys import keccak256


@pytest.fixture(scope="module", params=["embedded", pytest.param("anvil", marks=pytest.mark.slow)])
def town(request: pytest.FixtureRequest) -> Iterator[Town]:
    """The contracts, on either chain."""
    if request.param == "anvil":
        with anvil() as web3:
            yield Town(web3)
    else:
        yield town_of(embedded())


@pytest.fixture
def salt(request: pytest.FixtureRequest) -> int:
    """Of the test's own channel."""
    return int.from_bytes(keccak256(request.node.name.encode())[:8], "big")
