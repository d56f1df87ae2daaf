"""A verdict in words and colours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rich.text import Text

from assay.apps.cli.console import plain
from assay.apps.cli.exits import ExitCode
from assay.core.verdict import Found, Outcome, Verdict

STYLES: Final[Mapping[Outcome, str]] = {"holds": "bold green", "fails": "bold red", "inconclusive": "bold yellow"}
WORDS: Final[Mapping[Outcome, str]] = {
    "holds": "holds",
    "fails": "does not hold",
    "inconclusive": "could not be checked",
}
CODES: Final[Mapping[Outcome, ExitCode]] = {
    "holds": ExitCode.DONE,
    "fails": ExitCode.FAILED_CHECK,
    "inconclusive": ExitCode.INCONCLUSIVE,
}
_SIGNS: Final[Mapping[Found, tuple[str, str]]] = {
    "holds": ("✓", "green"),
    "fails": ("✗", "red"),
    "inconclusive": ("?", "yellow"),
    "unchecked": ("–", "dim"),
}


def lines(verdict: Verdict) -> Text:
    """What was checked, by how much, and what did not hold."""
    text = Text.assemble(
        (WORDS[verdict.outcome], STYLES[verdict.outcome]),
        f" at level {verdict.level}: {verdict.tokens_checked} tokens recomputed in {verdict.seconds:.2f} s",
    )
    for finding in verdict.findings:
        sign, style = _SIGNS[finding.outcome]
        text.append(f"\n  {sign} ", style=style)
        text.append(f"{finding.check}: ", style="bold")
        text.append(plain(finding.reason))
        if finding.statistic is not None and finding.threshold is not None:
            text.append(f" ({finding.statistic:.4g}, limit {finding.threshold:.4g})", style="dim")
    return text
