"""A court that has seen something: one case of each kind, played on the real contracts, before a gateway's window."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tests.apps.dispute_kit import EVE, Stage, Wrong
from tests.apps.window.browser import Stage as Front
from tests.apps.window.browser import staged

from assay.apps.disputes.workbench import Workbench
from assay.apps.window.courtroom import Courtroom
from assay.chain.history import History
from assay.core.bundle import Bundle
from assay.core.errors import ModelNotFound
from assay.core.hashing import Digest
from assay.core.verdict import Finding, Verdict
from assay.engines.exact.program import Program

SAID = "row 3 of the up product is not what weights <b>and</b> inputs give\u202e"
"""A validator's sentence, with what a page must not do with it."""


class Days:
    """A clock for which every look is a new one."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Seconds."""
        self.now += 10
        return self.now


@dataclass
class Session:
    """The chain, its cases, and who shows them."""

    stage: Stage
    wrong: Wrong
    guilty: Bundle
    """Case 2, over the demand 1: slashed for one number."""
    honest: Bundle
    """Case 3: upheld."""
    open: Bundle
    """Case 4: under way."""
    room: Courtroom
    front: Front

    @property
    def listed(self) -> list[dict[str, Any]]:
        """Cases, as the window lists them."""
        return httpx.get(f"{self.front.url}/window/court").json()["cases"]


def late(stage: Stage) -> Wrong:
    """A wrong number to which thousands of cells lead: behind all layers."""
    layout = stage.small.program.layout
    return Wrong(position=5, index=layout.kept_chunks * 256 + layout.layers * layout.inputs_step + 3)


def play_some(stage: Stage, turns: int, *looks: Callable[[], object]) -> None:
    """Some turns, and no more: what is open stays so."""
    for _ in range(turns):
        for look in looks:
            look()
            stage.finish()
        stage.pass_time(61)


def in_session(root: Path) -> Iterator[Session]:
    """All of it."""
    stage = Stage(root)
    try:
        wrong = late(stage)
        guilty = stage.answer(wrong)
        accuser, defender = stage.accuser(), stage.defender(wrong)
        stage.play(lambda: accuser.look([guilty.receipt.digest]), defender.look)
        stage.served = stage.serve
        honest = stage.answer(sequence=2)
        eve, defender = stage.accuser(EVE, Wrong(position=3, index=20)), stage.defender()
        stage.play(lambda: eve.look([honest.receipt.digest]), defender.look)
        one, other = stage.answer(sequence=3), stage.answer(Wrong(token=1), sequence=3)
        stage.accuser().look([], [(one.receipt.digest, other.receipt.digest)])
        stage.finish()
        under_way = stage.answer(Wrong(token=1), sequence=4)
        accuser, defender = stage.accuser(), stage.defender(Wrong(token=1))
        play_some(stage, 4, lambda: accuser.look([under_way.receipt.digest]), defender.look)
        yield from _shown(root, stage, wrong, guilty, honest, under_way)
    finally:
        stage.close()


def _shown(
    root: Path, stage: Stage, wrong: Wrong, guilty: Bundle, honest: Bundle, under_way: Bundle
) -> Iterator[Session]:
    court = stage.court(EVE)

    def programs(model: Digest) -> Program | None:
        return stage.small.program if model == stage.small.digest else None

    def bench(model: Digest, *, stopped: Callable[[], bool]) -> AbstractContextManager[Workbench]:
        del stopped
        if model != stage.small.digest:
            raise ModelNotFound("the model is not here")
        return nullcontext(stage.bench())

    room = Courtroom(History(lambda: court, clock=Days()), programs, bench)
    with staged(root, court=room) as front:
        front.store.put(guilty)
        finding = Finding("products", "fails", SAID)
        receipt = guilty.receipt
        front.store.judge(Verdict(receipt.digest.hex(), receipt.provider, "exact", "fails", (finding,), 3, 0.1))
        yield Session(stage, wrong, guilty, honest, under_way, room, front)
