"""What a buyer remembers of its providers: failures, load and verdicts, as records that matching reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from assay.core.errors import Busy
from assay.core.keys import Address
from assay.core.request import Level
from assay.market.matching import Record, Records

REST_SECONDS: Final = 2.0
"""After the first failure; doubles with each one that follows."""
LONGEST_REST: Final = 300.0


class Health:
    """Mutable; time is handed in, in seconds on a clock that only rises."""

    def __init__(self) -> None:
        self._of_url: dict[str, Record] = {}
        self._of_provider: dict[Address, Record] = {}

    @property
    def records(self) -> Records:
        """For `choose`."""
        return Records(self._of_provider, self._of_url)

    def asked(self, url: str) -> None:
        """An answer begins at a provider."""
        record = self._at(url)
        self._of_url[url] = replace(record, asked=record.asked + 1, active=record.active + 1)

    def over(self, url: str) -> None:
        """An answer that was begun has ended, well or not."""
        record = self._at(url)
        self._of_url[url] = replace(record, active=max(record.active - 1, 0))

    def good(self, url: str) -> None:
        """An answer came whole, with its receipt."""
        self._of_url[url] = replace(self._at(url), failures=0, resting_until=0.0)

    def failed(self, url: str, now: float, *, badly: bool = False) -> None:
        """An answer failed; `badly`: the provider lied, and rests as long as any."""
        record = self._at(url)
        rest = LONGEST_REST if badly else min(REST_SECONDS * 2 ** min(record.failures, 16), LONGEST_REST)
        self._of_url[url] = replace(record, failures=record.failures + 1, resting_until=now + rest)

    def busy(self, url: str, now: float, reason: Busy) -> None:
        """The provider is full: no failure, but others are asked first for as long as it says."""
        record = self._at(url)
        self._of_url[url] = replace(record, resting_until=max(record.resting_until, now + reason.retry_after))

    def judged(
        self, verdicts: Iterable[tuple[Address, Level, str, str, int]], contradictions: Iterable[Address]
    ) -> None:
        """All verdicts up to now, and who signed one number twice.

        Verdicts are counted by provider, level, outcome and basis (`core/verdict.py`). A failure that no noise explains
        and one of a whole history are proof, at any level; that of one answer's statistics is a doubt, at any level.
        """
        fresh: dict[Address, Record] = {}
        for provider, level, outcome, basis, count in verdicts:
            record = fresh.get(provider, Record())
            if basis == "test":
                doubts = count if outcome == "fails" else 0
                record = replace(record, doubts=record.doubts + doubts, checked=record.checked + count)
            elif outcome == "fails":
                record = replace(record, caught=record.caught + count)
            if basis != "none" and level != "signed":
                if outcome == "holds":
                    record = replace(record, held=_more(record.held, level, count))
                elif outcome == "inconclusive":
                    record = replace(record, inconclusive=_more(record.inconclusive, level, count))
            fresh[provider] = record
        for provider in contradictions:
            record = fresh.get(provider, Record())
            fresh[provider] = replace(record, caught=record.caught + 1)
        self._of_provider = fresh

    def _at(self, url: str) -> Record:
        return self._of_url.get(url, Record())


def _more(counts: Mapping[str, int], level: Level, count: int) -> Mapping[str, int]:
    return {**counts, level: counts.get(level, 0) + count}
