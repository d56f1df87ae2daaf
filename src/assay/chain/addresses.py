"""Where the contracts are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

import httpx

from assay.core.errors import ChainFailed, ConfigError, EncodingError
from assay.core.keys import Address, parse_address

_MOST: Final = 1 << 16
"""Bytes that a development chain says about itself."""
_PLAIN: Final = {"accept-encoding": "identity"}


@dataclass(frozen=True, slots=True)
class Addresses:
    """Of one chain."""

    chain_id: int
    channels: Address
    token: Address
    vault: Address = ""
    """The contract that makes vaults; empty: there is none."""
    collector: Address = ""
    """Deposits by signature; empty: there is none."""
    court: Address = ""
    """Empty: there is none."""

    def __post_init__(self) -> None:
        """Check everything.

        Raises:
            ConfigError: this is no chain's id, or no address.
        """
        if isinstance(self.chain_id, bool) or not isinstance(self.chain_id, int) or not 0 < self.chain_id < 1 << 63:
            raise ConfigError("a chain's id is a positive number", "ask a node for eth_chainId")
        for each in fields(self)[1:]:
            found = getattr(self, each.name)
            if found == "" and each.name not in ("channels", "token"):
                continue
            try:
                parse_address(found if isinstance(found, str) else "", what=each.name)
            except EncodingError as error:
                raise ConfigError(error.message, "write 0x and 40 digits, small letters") from error

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> Addresses:
        """From names and values as above, in any case; others are passed over.

        Raises:
            ConfigError: one is missing, or is no address.
        """
        known = {each.name: config[each.name] for each in fields(cls) if config.get(each.name) not in (None, "")}
        if missing := {"chain_id", "channels", "token"} - known.keys():
            raise ConfigError(f"of the contracts' addresses {', '.join(sorted(missing))} is missing", "add it")
        return cls(**{name: each.lower() if isinstance(each, str) else each for name, each in known.items()})  # type: ignore[arg-type]

    @classmethod
    def fetch(cls, url: str, *, seconds: float = 10.0) -> Addresses:
        """From a development chain (`assay devnet`), which tells at its URL.

        Raises:
            ChainFailed: nothing there tells.
            ConfigError: what it tells are no addresses.
        """
        body = bytearray()
        try:
            with httpx.stream("GET", url, timeout=seconds, trust_env=False, headers=_PLAIN) as answer:
                for part in answer.raise_for_status().iter_raw():
                    body += part
                    if len(body) > _MOST:
                        raise ValueError("it tells too much")
            found = json.loads(body)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError) as error:
            why = f"{type(error).__name__}: {error}"[:300]
            raise ChainFailed(
                f"no development chain tells its contracts at {url} ({why})", "start one with `assay devnet`"
            ) from error
        if not isinstance(found, Mapping):
            raise ChainFailed(f"no development chain tells its contracts at {url}", "start one with `assay devnet`")
        return cls.from_config(found)
