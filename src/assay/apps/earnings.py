"""What a provider has earned, and what of it is held back or at stake on the chain."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

from assay.apps.onchain import Counter
from assay.chain.court import CourtClient
from assay.core.errors import AssayError

LOOK_SECONDS: Final = 10.0
"""The chain is asked again after that."""


class Earnings:
    """For use from several threads."""

    def __init__(self, counter: Counter, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds that only rise."""
        self._counter: Final = counter
        self._clock: Final = clock
        self._chain: Mapping[str, str] = {}
        self._problem = ""
        self._looked = float("-inf")

    def __call__(self) -> Mapping[str, object]:
        """Amounts in wei, in decimal digits, and `problem`: why those of the chain are old or missing. Blocks.

        Raises:
            StoreError: the database cannot be read.
        """
        if self._clock() - self._looked >= LOOK_SECONDS:
            self._looked = self._clock()
            try:
                self._chain, self._problem = self._ask(), ""
            except AssayError as error:
                self._problem = error.message
        sums = {f"{kind}_wei": str(wei) for kind, wei in self._counter.sums().items()}
        return {**sums, **self._chain, "problem": self._problem}

    def _ask(self) -> Mapping[str, str]:
        client = self._counter.client
        found = {"purse": client.token_balance(client.address)}
        if client.addresses.vault:
            vault = client.vault_of(client.address)
            found["held"] = client.token_balance(vault)
            found["ripe"] = client.vault_state(client.address)[1] if client.has_vault(client.address) else 0
        if client.addresses.court:
            stake = CourtClient(client).stake(client.address)
            found |= {"bond": stake.bond, "leaving": stake.leaving}
        return {f"{name}_wei": str(wei) for name, wei in found.items()}
