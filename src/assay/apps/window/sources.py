"""What pages are made from: the parts of the program that serves them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from assay.apps.doubting import Doubts
from assay.apps.earnings import Earnings
from assay.apps.logs import Recent
from assay.apps.selling import Selling
from assay.apps.serving import LocalAnswers
from assay.apps.wallet import Wallet
from assay.apps.window.auditing import Audits
from assay.apps.window.courtroom import Courtroom
from assay.apps.window.owner import Owner
from assay.apps.window.shell import Kind
from assay.core.keys import Address
from assay.core.offer import Load
from assay.core.ports import Answers, Bundles
from assay.core.reach import WAYS, Way
from assay.core.spelling import Spell
from assay.journey import MarketAnswers
from assay.network.discovery.book import RecordBook
from assay.store.receipts import ReceiptStore


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What a program's owner looks after."""

    home: Path
    """ASSAY_HOME: models, keys and settings."""
    address: Address
    """Of the program's key."""
    settings: Mapping[str, object]
    """The program's section of `config.toml`, options of the command included: a change needs a restart."""
    recent: Recent
    """The log."""


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
    upkeep: Upkeep | None = None
    load: Callable[[], Load] | None = None
    """Answers under way, and places."""
    pace: Callable[[], float | None] | None = None
    """Tokens a second of one answer, as far as there were any."""
    local: LocalAnswers | None = None
    """A node's own."""
    wallet: Wallet | None = None
    """A gateway's that pays."""
    earnings: Earnings | None = None
    """A provider's that is paid."""
    selling: Selling | None = None
    """Prices, places and hours, where the owner changes them."""
    spell: Spell | None = None
    """What tokens say, where the vocabulary is here."""
    audits: Audits | None = None
    """Full checks, where the program makes them."""
    court: Courtroom | None = None
    """Where a chain is configured."""
    doubts: Doubts | None = None
    """Tries cheats for the owner."""
    book: RecordBook | None = None
    """Of the providers that were found."""
    ways: Sequence[Way] = WAYS
    """By which those are reached."""
    stakes: Callable[[], Mapping[Address, int]] | None = None
    """Wei that providers have to lose; where a chain is known."""
