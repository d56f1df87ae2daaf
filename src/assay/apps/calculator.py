"""The question that `assay economics` and the owner's page ask of `market/economics.py`, and its answer."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil
from typing import Annotated, ClassVar, Final, Literal, TypeAlias

from pydantic import ConfigDict, Field

from assay.core.errors import InvalidRequest
from assay.market.economics import (
    Shares,
    Situation,
    best_cheat,
    least_audit,
    least_bond,
    least_cheating,
    least_holdback,
    reward,
    safe,
)

Solve: TypeAlias = Literal["bond", "holdback", "audit-rate", "nothing"]
Slashable: TypeAlias = Literal["exact", "pinned", "statistical"]
"""Levels of receipts that are audited."""
Wei: TypeAlias = Annotated[int, Field(ge=0, lt=10**60)]
Seconds: TypeAlias = Annotated[int, Field(ge=0, lt=10**12)]
Number: TypeAlias = Annotated[str, Field(max_length=40)]
"""A decimal number as it was written: shares and rates are computed exactly."""
_NUMBER: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is given, in the words of `Situation`; what None stands for is computed, or has the value that is named."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    price: Wei
    saving: Number = "0.5"
    """Share of the price that a false answer saves."""
    rate: Number = "1"
    bond: Wei | None = None
    holdback: Seconds | None = None
    """None: 86400, unless it is solved for."""
    unclaimed: Seconds | None = None
    """None: for ever."""
    standing: Wei = 0
    audit: Number | None = None
    """None: 0.1, unless it is solved for."""
    level: Slashable = "exact"
    power: Number | None = None
    """None: 1, unless the level is statistical."""
    colluding: Number = "0"
    detection: Seconds = 3600
    dispute: Seconds = 20 * 3600
    slashed: Number = "0.5"
    to_challenger: Number = "0.25"
    to_wronged: Number = "0.5"
    unbonding: Seconds = 21 * 86_400
    deposit: Wei = 0
    audit_cost: Wei = 0
    dispute_cost: Wei = 0
    defence_cost: Wei = 0
    margin: Number = "0.2"
    solve: Solve = "bond"


def calculate(question: Question) -> dict[str, object]:
    """The numbers by name; wei as decimal strings, as they may pass 2^53.

    Raises:
        InvalidRequest: a number is none, contradicts another one, or the one solved for does not exist.
    """
    given, solve = question, question.solve
    if given.level == "statistical" and given.power is None:
        raise InvalidRequest("a statistical audit does not see every false answer", remedy="say how many: --power 0.9")
    if {"bond": given.bond, "holdback": given.holdback, "audit-rate": given.audit, "nothing": None}[solve] is not None:
        raise InvalidRequest(f"{solve} is what is solved for", remedy="leave it out, or take `--solve nothing`")
    found = _solved(_situation(given), solve)
    profit, seconds = best_cheat(found)
    least = least_cheating(found, audit_cost=given.audit_cost, dispute_cost=given.dispute_cost)
    return {
        "solved": solve,
        "bond_wei": str(found.bond),
        "holdback_seconds": found.holdback,
        "held_seconds": found.held(found.delay),
        "audit_share": float(found.audit),
        "caught_share": float(found.caught),
        "returned_share": float(found.shares.returned),
        "cheat_profit_wei": str(profit),
        "cheat_seconds": seconds,
        "safe": safe(found),
        "reward_wei": str(reward(found)),
        "dispute_pays": reward(found) >= given.dispute_cost,
        "audits_pay_above": None if least is None else float(least),
        "deposit_covers_defence": given.deposit >= given.defence_cost,
    }


def _situation(given: Question) -> Situation:
    slashes = given.level == "exact"
    return Situation(
        price=given.price,
        saving=ceil(given.price * _number(given.saving, "saving", 1)),
        rate=_number(given.rate, "rate"),
        audit=Fraction(1) if given.solve == "audit-rate" else _number(given.audit or "0.1", "audit", 1),
        power=_number(given.power or "1", "power", 1),
        colluding=_number(given.colluding, "colluding", 1),
        detection=given.detection,
        dispute=given.dispute,
        bond=given.bond or 0,
        holdback=86_400 if given.holdback is None else given.holdback,
        unclaimed=given.unclaimed if slashes else None,
        standing=given.standing,
        margin=_number(given.margin, "margin"),
        shares=Shares(
            slashed=_number(given.slashed, "slashed", 1) if slashes else Fraction(0),
            challenger=_number(given.to_challenger, "to-challenger", 1),
            wronged=_number(given.to_wronged, "to-wronged", 1),
        ),
        unbonding=given.unbonding,
    )


def _solved(given: Situation, solve: Solve) -> Situation:
    match solve:
        case "bond":
            return replace(given, bond=least_bond(given))
        case "holdback":
            return replace(given, holdback=least_holdback(given))
        case "audit-rate":
            return replace(given, audit=least_audit(given))
        case "nothing":
            return given


def _number(text: str, name: str, most: int = 10**9) -> Fraction:
    """A decimal number from 0 to `most`.

    Raises:
        InvalidRequest: it is none, or not in that range.
    """
    if not _NUMBER.fullmatch(text) or Fraction(text) > most:
        raise InvalidRequest(
            f"--{name} is {text[:40]!r}, not a number from 0 to {most}", field=name, remedy="write it like 0.25"
        )
    return Fraction(text)
