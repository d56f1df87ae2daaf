"""What pages are made from: the parts of the program that serves them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from assay.apps.window.owner import Owner
from assay.apps.window.shell import Kind
from assay.core.keys import Address
from assay.core.ports import Answers, Bundles
from assay.core.reach import WAYS, Way
from assay.journey import MarketAnswers
from assay.network.discovery.book import RecordBook
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
    book: RecordBook | None = None
    """Of the providers that were found."""
    ways: Sequence[Way] = WAYS
    """By which those are reached."""
    stakes: Callable[[], Mapping[Address, int]] | None = None
    """Wei that providers have to lose; where a chain is known."""
