"""Rows of numbers by name that grow: what is remembered of many providers, in columns."""

from __future__ import annotations

from typing import Final

import numpy as np


class Rows:
    """Rows of a structured dtype, zero when they are new."""

    def __init__(self, dtype: np.dtype) -> None:
        self._of: Final[dict[str, int]] = {}
        self._table = np.zeros(16, dtype)

    def __len__(self) -> int:
        return len(self._of)

    def __getitem__(self, column: str) -> np.ndarray:
        """[n] of one column: a view, until a row is added."""
        return self._table[column][: len(self._of)]

    def find(self, name: str) -> int | None:
        """The number of a row, if there is one."""
        return self._of.get(name)

    def at(self, name: str) -> int:
        """The number of a row, which is added if it is new."""
        row = self._of.get(name)
        if row is None:
            row = self._of[name] = len(self._of)
            if row == len(self._table):
                self._table = np.concatenate([self._table, np.zeros_like(self._table)])
        return row

    def names(self) -> list[str]:
        """In the order of the rows."""
        return list(self._of)
