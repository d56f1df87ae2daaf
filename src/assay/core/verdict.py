"""A verdict: what a check found, in one sentence a finding, with the evidence."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final, Literal, TypeAlias

from assay.core.keys import Address
from assay.core.request import Level

Outcome: TypeAlias = Literal["holds", "fails", "inconclusive"]
"""`inconclusive`: this machine could not check at the level claimed; nobody is blamed."""
Found: TypeAlias = Outcome | Literal["unchecked"]
"""`unchecked`: the level does not promise it of such a machine, so the verdict does not depend on it."""
Basis: TypeAlias = Literal["exact", "test", "history", "none"]
"""What an outcome rests on: `exact` comparisons; a statistical `test` of one answer, which honest noise may fail; the
`history` of several answers; `none`: the verifier did not have the model."""
HISTORY: Final = "history"
"""Name of the finding over several answers."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked."""

    check: str
    """Short name: `signature`, `request`, `prompt`, `stop`, `logits`, `sampler`, …"""
    outcome: Found
    reason: str
    """One sentence."""
    step: int | None = None
    """The output token concerned, from 0."""
    statistic: float | None = None
    """Only of statistical findings."""
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The whole check of one receipt."""

    receipt: str
    """The receipt's digest in hexadecimal."""
    provider: Address
    level: Level
    """The level at which the check was made."""
    outcome: Outcome
    findings: tuple[Finding, ...]
    tokens_checked: int
    """Output tokens that were recomputed."""
    seconds: float
    """Wall-clock time of the check."""
    evidence: float | None = None
    """The answer's e-value: at most 1 on average over honest answers. None: no calibrated test was made."""

    @property
    def holds(self) -> bool:
        """Everything that the level promises was checked and holds."""
        return self.outcome == "holds"

    @property
    def reasons(self) -> list[str]:
        """What did not hold (or could not be checked), one sentence each."""
        return [finding.reason for finding in self.findings if finding.outcome in ("fails", "inconclusive")]

    @property
    def basis(self) -> Basis:
        """What the outcome rests on."""
        failed = [finding for finding in self.findings if finding.outcome == "fails"]
        if failed and all(finding.statistic is not None for finding in failed):
            return "history" if any(finding.check == HISTORY for finding in failed) else "test"
        if failed:
            return "exact"
        if any(finding.check == "model" and finding.outcome == "inconclusive" for finding in self.findings):
            return "none"
        return "test" if any(finding.statistic is not None for finding in self.findings) else "exact"

    def to_json(self) -> dict[str, object]:
        """For people and scripts; not hashed."""
        return {
            "receipt": self.receipt,
            "provider": self.provider,
            "holds": self.holds,
            "outcome": self.outcome,
            "level": self.level,
            "reasons": self.reasons,
            "tokens_checked": self.tokens_checked,
            "seconds": round(self.seconds, 4),
            "evidence": self.evidence,
            "findings": [asdict(finding) for finding in self.findings],
        }
