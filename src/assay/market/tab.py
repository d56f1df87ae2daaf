"""What a payer owes a provider on one channel, and how far the provider works on: the provider's side, pure."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tab:
    """Amounts are cumulative wei on the channel."""

    owed: int
    """After the last receipt."""
    paid: int
    """What the best voucher that is on the disk allows."""
    funds: int
    """Deposits less what was withdrawn and what is leaving: no voucher is worth more."""
    credit: int
    """What may be unpaid."""
    running: dict[Hashable, int] = field(default_factory=dict)
    """Answers under way, and what each would cost with its next token."""

    @property
    def total(self) -> int:
        """Owed if every answer under way got its next token and ended there."""
        return self.owed + sum(self.running.values())

    @property
    def backed(self) -> bool:
        """The channel holds enough for all that."""
        return self.total <= self.funds

    @property
    def covers(self) -> bool:
        """The next tokens of all answers may be made: what is unpaid stays within the credit, and there is money."""
        return self.total <= self.paid + self.credit and self.backed

    @property
    def low(self) -> bool:
        """Half the credit is used: time to ask for a voucher, so that nobody has to wait for it."""
        return 2 * (self.total - self.paid) > self.credit
