"""`assay economics`: the bond, hold-back or audit share that makes cheating a loss (docs/economics.md)."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

import typer
from rich.table import Table
from rich.text import Text

from assay.apps.cli.console import JsonFlag, out, print_json
from assay.core.errors import InvalidRequest

if TYPE_CHECKING:
    from assay.market.economics import Situation

_NUMBER: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_STAKE, _CHECKS, _COURT, _COSTS = "What is at stake", "How it is checked", "What the court does", "What checks cost"

_Solve: TypeAlias = Literal["bond", "holdback", "audit-rate", "nothing"]
_Level: TypeAlias = Literal["exact", "pinned", "statistical"]


def _wei(panel: str, words: str) -> object:
    return typer.Option(min=0, metavar="WEI", rich_help_panel=panel, help=words)


def _seconds(panel: str, words: str) -> object:
    return typer.Option(min=0, metavar="SECONDS", rich_help_panel=panel, help=words)


def _share(panel: str, words: str) -> object:
    return typer.Option(metavar="SHARE", rich_help_panel=panel, help=f"{words}, from 0 to 1.")


def economics(
    price: Annotated[int, _wei(_STAKE, "What a request pays.")],
    saving: Annotated[str, _share(_STAKE, "Share of the price that a false answer saves")] = "0.5",
    rate: Annotated[
        str, typer.Option(metavar="NUMBER", rich_help_panel=_STAKE, help="Requests a second that one bond stands for.")
    ] = "1",
    bond: Annotated[int | None, _wei(_STAKE, "The bond, where another number is solved for.")] = None,
    holdback: Annotated[
        int | None, _seconds(_STAKE, "For how long the vault holds earnings back; left out: 86400.")
    ] = None,
    unclaimed: Annotated[
        int | None,
        _seconds(_STAKE, "For how long buyers put up with vouchers that are not claimed; left out: for ever."),
    ] = None,
    standing: Annotated[int, _wei(_STAKE, "What a new key pays until it sells as much as a known one.")] = 0,
    audit: Annotated[str | None, _share(_CHECKS, "Share of the requests that is audited; left out: 0.1")] = None,
    level: Annotated[
        _Level, typer.Option(rich_help_panel=_CHECKS, help="Of the receipts; only exact is slashed.")
    ] = "exact",
    power: Annotated[
        str | None, _share(_CHECKS, "Probability that an audit sees a false answer; left out: 1, unless statistical")
    ] = None,
    colluding: Annotated[str, _share(_CHECKS, "Share of the auditors who never report this provider")] = "0",
    detection: Annotated[int, _seconds(_CHECKS, "From a false answer to the dispute over it.")] = 3600,
    dispute: Annotated[
        int, _seconds(_CHECKS, "From there until nobody buys any more: 20 moves of an hour, unless buyers stop before.")
    ] = 20 * 3600,
    slashed: Annotated[str, _share(_COURT, "Of the bond")] = "0.5",
    to_challenger: Annotated[str, _share(_COURT, "Of what is taken")] = "0.25",
    to_wronged: Annotated[str, _share(_COURT, "Of what is taken; the cheat may be this one, too")] = "0.5",
    unbonding: Annotated[int, _seconds(_COURT, "That a bond takes to leave.")] = 21 * 86_400,
    deposit: Annotated[int, _wei(_COURT, "That a challenger stands to lose.")] = 0,
    audit_cost: Annotated[int, _wei(_COSTS, "One audit.")] = 0,
    dispute_cost: Annotated[int, _wei(_COSTS, "A dispute, for its challenger.")] = 0,
    defence_cost: Annotated[int, _wei(_COSTS, "A dispute, for an honest provider.")] = 0,
    margin: Annotated[
        str, typer.Option(metavar="NUMBER", help="By which the loss has to exceed the gain; 0.2 is a fifth.")
    ] = "0.2",
    solve: Annotated[_Solve, typer.Option(help="The number to compute from the others.")] = "bond",
    as_json: JsonFlag = False,
) -> None:
    """Compute the least bond, hold-back or audit share at which no cheat gains, and what the best cheat would gain."""
    from assay.market.economics import Shares, Situation

    if level == "statistical" and power is None:
        raise InvalidRequest("a statistical audit does not see every false answer", remedy="say how many: --power 0.9")
    if {"bond": bond, "holdback": holdback, "audit-rate": audit, "nothing": None}[solve] is not None:
        raise InvalidRequest(f"{solve} is what is solved for", remedy="leave it out, or take `--solve nothing`")
    slashes = level == "exact"
    given = Situation(
        price=price,
        saving=ceil(price * _number(saving, "saving", 1)),
        rate=_number(rate, "rate"),
        audit=Fraction(1) if solve == "audit-rate" else _number(audit or "0.1", "audit", 1),
        power=_number(power or "1", "power", 1),
        colluding=_number(colluding, "colluding", 1),
        detection=detection,
        dispute=dispute,
        bond=bond or 0,
        holdback=86_400 if holdback is None else holdback,
        unclaimed=unclaimed if slashes else None,
        standing=standing,
        margin=_number(margin, "margin"),
        shares=Shares(
            slashed=_number(slashed, "slashed", 1) if slashes else Fraction(0),
            challenger=_number(to_challenger, "to-challenger", 1),
            wronged=_number(to_wronged, "to-wronged", 1),
        ),
        unbonding=unbonding,
    )
    found = _solved(given, solve)
    result = _result(found, solve, deposit, audit_cost, dispute_cost, defence_cost)
    if as_json:
        print_json(result)
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    for key, words in _WORDS.items():
        style = "bold" if _SOLVED.get(solve) == key else ""
        table.add_row(Text(words, style), Text(_shown(result[key]), style))
    out.print(table)


def _solved(given: Situation, solve: _Solve) -> Situation:
    from assay.market.economics import least_audit, least_bond, least_holdback

    match solve:
        case "bond":
            return replace(given, bond=least_bond(given))
        case "holdback":
            return replace(given, holdback=least_holdback(given))
        case "audit-rate":
            return replace(given, audit=least_audit(given))
        case "nothing":
            return given


def _result(
    found: Situation, solve: _Solve, deposit: int, audit_cost: int, dispute_cost: int, defence_cost: int
) -> dict[str, object]:
    """What is printed; wei as decimal strings in JSON, as they may pass 2^53."""
    from assay.market.economics import best_cheat, least_cheating, reward, safe

    profit, seconds = best_cheat(found)
    least = least_cheating(found, audit_cost=audit_cost, dispute_cost=dispute_cost)
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
        "dispute_pays": reward(found) >= dispute_cost,
        "audits_pay_above": None if least is None else float(least),
        "deposit_covers_defence": deposit >= defence_cost,
    }


_WORDS: Final = {
    "bond_wei": "bond, wei",
    "holdback_seconds": "hold-back, seconds",
    "held_seconds": "seconds of earnings that are surely taken",
    "audit_share": "share of the requests that is audited",
    "caught_share": "probability that a false answer is caught",
    "returned_share": "share of what is taken that may come back to the cheat",
    "cheat_profit_wei": "the best cheat's profit over honest work, at most, wei",
    "cheat_seconds": "seconds for which it takes its chance",
    "safe": "cheating loses, with the margin",
    "reward_wei": "a challenger's reward, wei",
    "dispute_pays": "which is more than a dispute costs it",
    "audits_pay_above": "share of false answers above which rewards alone pay audits",
    "deposit_covers_defence": "the deposit covers an honest provider's defence",
}
_SOLVED: Final = {"bond": "bond_wei", "holdback": "holdback_seconds", "audit-rate": "audit_share"}


def _shown(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.9g}"
        case None:
            return "at none"
        case _:
            return str(value)


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
