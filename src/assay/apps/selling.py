"""What an owner changes of what is sold while the provider runs, kept for its next start."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from assay.apps.admission import check_places
from assay.apps.keyfile import write_private
from assay.apps.serving import LocalAnswers
from assay.core.encoding import Json
from assay.core.errors import ConfigError, EncodingError
from assay.market.sale import Sale

_MOST: Final = 16_384
"""Bytes of the file."""


class Selling:
    """What is sold here, and the file with what its owner has set of that. All else is as configured."""

    def __init__(self, local: LocalAnswers, configured: Sale, path: Path, *, priced: bool = True) -> None:
        """What the file says holds from now on. `priced`: prices can be set.

        Raises:
            ConfigError: the file cannot be read, or says something that cannot be.
            InvalidRequest: `configured` cannot be sold.
        """
        self._local: Final = local
        self._configured: Final = configured
        self._path: Final = path
        self._priced: Final = priced
        self._changing: Final = asyncio.Lock()
        self._kept = _read(path)
        try:
            sale = self._sale(self._kept)
        except EncodingError as error:
            raise _unclear(path, error) from error
        # There may have been more places when it was written.
        local.sell(Sale(sale.prices, min(sale.places, local.parallel), sale.hours))

    @property
    def now(self) -> Sale:
        """What is sold."""
        return self._local.sale

    @property
    def kept(self) -> list[str]:
        """What the owner has set, of prices, places and hours."""
        return sorted(self._kept)

    async def change(self, said: Mapping[str, Json]) -> None:
        """Sell so from now on, and after the next start: `said` has what changes of `Sale.to_json`, with the levels
        whose prices do.

        Raises:
            EncodingError: it says something that cannot be.
            InvalidRequest: there are not so many places.
            ConfigError: it cannot be kept; then nothing has changed.
        """
        async with self._changing:
            kept = {**self._kept, **said}
            if isinstance(prices := said.get("prices"), Mapping):
                if not self._priced:
                    raise EncodingError("a node has no prices, as it sells nothing")
                before = self._kept.get("prices")
                kept["prices"] = {**(before if isinstance(before, Mapping) else {}), **prices}
            sale = self._sale(kept)
            check_places(sale, self._local.parallel)
            await asyncio.to_thread(write_private, self._path, json.dumps(kept) + "\n", force=True)
            self._kept = kept
            self._local.sell(sale)

    async def reset(self) -> None:
        """Sell what is configured.

        Raises:
            ConfigError: the file cannot be deleted.
        """
        async with self._changing:
            try:
                await asyncio.to_thread(self._path.unlink, missing_ok=True)
            except OSError as error:
                raise ConfigError(f"{self._path} cannot be deleted ({error.strerror})", "check its folder") from error
            self._kept = {}
            self._local.sell(self._configured)

    def _sale(self, kept: Mapping[str, Json]) -> Sale:
        """What is configured, with what is kept in its place."""
        known = self._configured.to_json()
        prices = kept.get("prices", {})
        if not isinstance(prices, Mapping):
            raise EncodingError("prices are no object")
        assert isinstance(known["prices"], Mapping)
        return Sale.from_json({**known, **kept, "prices": {**known["prices"], **prices}})


def _read(path: Path) -> dict[str, Json]:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})", "check its owner and mode") from error
    try:
        value: Json = json.loads(data) if len(data) <= _MOST else None
    except (ValueError, RecursionError) as error:
        raise _unclear(path, error) from error
    if not isinstance(value, dict):
        raise _unclear(path, EncodingError("it is no small object"))
    return value


def _unclear(path: Path, error: Exception) -> ConfigError:
    return ConfigError(f"{path} does not say what is sold ({error})", "delete it: then config.toml holds again")
