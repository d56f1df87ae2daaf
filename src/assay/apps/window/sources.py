"""What pages are made from: the parts of the program that serves them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from assay.apps.window.auditing import Audits
from assay.apps.window.owner import Owner
from assay.apps.window.shell import Kind
from assay.core.hashing import Digest
from assay.core.ports import Answers, Bundles
from assay.core.spelling import Spell
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
    spell: Spell | None = None
    """What tokens say, where the vocabulary is here."""
    audits: Audits | None = None
    """Full checks, where the program makes them."""
    voucher_for: Callable[[Digest], int | None] | None = None
    """Wei of the voucher that was signed for the receipt with a digest, where the program pays."""
