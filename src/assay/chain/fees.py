"""What is offered for gas: enough, and never more than a limit, whatever a node says (EIP-1559)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from assay.chain.node import Head, Node

GWEI: Final = 10**9


@dataclass(frozen=True, slots=True)
class Fee:
    """Wei for a unit of gas."""

    tip: int
    """Beyond the block's base fee."""
    most: int
    """In all."""


class Fees:
    """On one chain."""

    def __init__(self, node: Node, limit: int) -> None:
        """`limit`: wei for a unit of gas, in all. The tip is paid however low the base fee is, so that its limit is a
        tenth of this."""
        self.limit: Final = limit
        self._node: Final = node
        self._most_tip: Final = limit // 10

    def now(self, head: Head) -> Fee:
        """Good while the base fee at most doubles (as web3.py has it)."""
        tip = min(self._node.tip(), self._most_tip)
        return Fee(tip, min(2 * head.base_fee + tip, self.limit))

    def more(self, last: Fee, head: Head) -> Fee | None:
        """For a replacement: of both an eighth more at least, since nodes want a tenth; None: that is too much."""
        now = self.now(head)
        tip, most = max(now.tip, last.tip * 9 // 8 + 1), max(now.most, last.most * 9 // 8 + 1)
        return None if most > self.limit or tip > self._most_tip else Fee(tip, max(tip, most))
