"""What an owner changes of what is sold while the provider runs, kept for its next start."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Final

from assay.apps.keyfile import write_private
from assay.apps.serving import LocalAnswers
from assay.core.errors import ConfigError, EncodingError
from assay.market.sale import Sale

_MOST: Final = 16_384
"""Bytes of the file."""


class Selling:
    """What is sold here, and the file that says so where it differs from the configuration."""

    def __init__(self, local: LocalAnswers, configured: Sale, path: Path) -> None:
        """What the file says holds from now on; without one, what is `configured`.

        Raises:
            ConfigError: the file cannot be read, or says something that cannot be.
            InvalidRequest: `configured` cannot be sold.
        """
        self._local: Final = local
        self._configured: Final = configured
        self._path: Final = path
        self._changing: Final = asyncio.Lock()
        kept = _read(path)
        self.kept = kept is not None
        """It is not as configured."""
        if kept is None:
            local.sell(configured)
        else:  # there may have been more places when it was written
            local.sell(Sale(kept.prices, min(kept.places, local.parallel), kept.hours))

    @property
    def now(self) -> Sale:
        """What is sold."""
        return self._local.sale

    async def change(self, sale: Sale) -> None:
        """Sell this from now on, and after the next start.

        Raises:
            InvalidRequest: there are not so many places.
            ConfigError: it cannot be kept; then nothing has changed.
        """
        async with self._changing:
            before = self.now
            self._local.sell(sale)
            try:
                await asyncio.to_thread(write_private, self._path, json.dumps(sale.to_json()) + "\n", force=True)
            except ConfigError:
                self._local.sell(before)
                raise
            self.kept = True

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
            self._local.sell(self._configured)
            self.kept = False


def _read(path: Path) -> Sale | None:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})", "check its owner and mode") from error
    try:
        if len(data) > _MOST:
            raise EncodingError(f"it is larger than {_MOST} bytes")
        return Sale.from_json(json.loads(data))
    except (ValueError, RecursionError, EncodingError) as error:
        raise ConfigError(
            f"{path} does not say what is sold ({error})", "delete it: then config.toml holds again"
        ) from error
