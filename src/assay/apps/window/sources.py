"""What pages are made from: the parts of the program that serves them."""

from __future__ import annotations

from dataclasses import dataclass

from assay.apps.doubting import Doubts
from assay.apps.window.courtroom import Courtroom
from assay.apps.window.owner import Owner
from assay.apps.window.shell import Kind
from assay.core.ports import Answers, Bundles
from assay.journey import MarketAnswers
from assay.store.receipts import ReceiptStore


@dataclass(frozen=True, slots=True)
class Sources:
    """Parts that a program has; those that it lacks are None, and pages leave out what they would show of them."""

    kind: Kind
    owner: Owner
    answers: Answers
    bundles: Bundles
    store: ReceiptStore
    market: MarketAnswers | None = None
    """A gateway's."""
    court: Courtroom | None = None
    """Where a chain is configured."""
    doubts: Doubts | None = None
    """Tries cheats for the owner."""
