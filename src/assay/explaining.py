"""What a choice rested on, for a request's trace: who fitted, who was looked at, and what those who were asked said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from assay.core.encoding import Json
from assay.core.offer import Ask
from assay.core.trace import Diary
from assay.market.routing import Router, Tried
from assay.market.steps import Heard, Probe
from assay.market.views import TIER_NAMES


class Account:
    """Of one choice; writes in the request's diary what explains it, at most a shortlist or a probe a mark."""

    def __init__(self, diary: Diary, router: Router, ask: Ask) -> None:
        self._diary: Final = diary
        self._all: Final = router.catalogue.size
        self._like: int
        self._like, steps = router.sifted(ask)
        self._fit: Final = steps[-1].left if steps else self._like
        self._wishes: Final[Sequence[Json]] = [
            {"wish": step.wish, "value": step.value, "left": step.left, "out": step.out} for step in steps
        ]
        self._ask: Final = ask

    def listed(self, shortlist: Sequence[Tried]) -> None:
        """These are looked at closely, best first; nobody fits if there are none."""
        self._diary.mark(
            "match",
            f"{self._fit} of {self._all} offers fit",
            all=self._all,
            model=self._ask.model[:100],
            level=self._ask.level,
            like=self._like,
            wishes=self._wishes,
            sort=self._ask.sort,
            shortlist=[_tried(each) for each in shortlist],
        )

    def probed(self, probe: Probe, heard: Heard) -> None:
        """These were asked how busy they are."""
        said = [_said(offer.provider, offer.url, heard) for offer in probe.offers]
        self._diary.mark("match", f"{len(said)} were asked how busy they are", probed=said)


def _tried(each: Tried) -> Json:
    return {"provider": each.offer.provider, "tier": TIER_NAMES[each.tier], "cost": round(1000 * each.cost)}


def _said(provider: str, url: str, heard: Heard) -> Json:
    if url in heard.late:
        return {"provider": provider, "said": "late"}
    if url not in heard.loads:
        return {"provider": provider, "said": "nothing"}
    load, after = heard.loads[url], heard.after.get(url)
    found: dict[str, Json] = {"provider": provider, "said": "served"}
    if load is not None:
        found |= {"said": "room" if load.room else "full", "running": load.running, "places": load.places}
    return found if after is None else found | {"after_ms": round(1000 * after)}
