"""`assay economics`: the bond, hold-back or audit share that makes cheating a loss (docs/economics.md)."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import typer
from rich.table import Table
from rich.text import Text

from assay.apps.cli.console import JsonFlag, out, print_json

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
    from assay.apps.calculator import Question, calculate

    result = calculate(
        Question(
            price=price, saving=saving, rate=rate, bond=bond, holdback=holdback, unclaimed=unclaimed, standing=standing,
            audit=audit, level=level, power=power, colluding=colluding, detection=detection, dispute=dispute,
            slashed=slashed, to_challenger=to_challenger, to_wronged=to_wronged, unbonding=unbonding, deposit=deposit,
            audit_cost=audit_cost, dispute_cost=dispute_cost, defence_cost=defence_cost, margin=margin, solve=solve,
        )
    )  # fmt: skip
    if as_json:
        print_json(result)
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    for key, words in _WORDS.items():
        style = "bold" if _SOLVED.get(solve) == key else ""
        table.add_row(Text(words, style), Text(_shown(result[key]), style))
    out.print(table)


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
