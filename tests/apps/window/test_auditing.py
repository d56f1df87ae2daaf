"""Full audits for the owner: one at a time, bounded, and what `assay verify` does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.apps.test_cli_verify import NAME, answered
from tests.network.discovery.kit import until
from tests.tiny import TinyModel, tiny_bundle, tiny_key, tiny_request

from assay.apps.window.auditing import LEASE_S, MOST_S, Audits
from assay.core.bundle import Bundle
from assay.core.errors import Busy, EngineError
from assay.core.verdict import Verdict
from assay.engines.models import ModelFile

BUNDLE = tiny_bundle(tiny_request(), tiny_key(), 1)
MODEL = ModelFile("tiny", Path("/nowhere"), TinyModel().digest, 1)


class Clock:
    """Seconds that the test turns."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def verdict_on(bundle: Bundle) -> Verdict:
    """One that holds."""
    return Verdict(bundle.receipt.digest.hex(), bundle.receipt.provider, "pinned", "holds", (), 1, 0.1)


def made(check: Callable[[Bundle, Callable[[], bool]], Verdict], clock: Clock | None = None) -> Audits:
    """Audits that `check` makes; it is given the question whether it is to stop."""

    @contextmanager
    def opener(_model: ModelFile, *, stopped: Callable[[], bool]) -> Iterator[Callable[[Bundle], Verdict]]:
        yield lambda bundle: check(bundle, stopped)

    return Audits(find=lambda digest: MODEL if digest == MODEL.sha256 else None, opener=opener, clock=clock or Clock())


async def ended(audits: Audits) -> Mapping[str, Any]:
    """How an audit stands when it is over."""
    await until(lambda: audits.over, 60)
    state = audits.look()
    assert state is not None
    return state


def test_one_at_a_time() -> None:
    """The second is refused while the first is under way, and begins after it; the verdict is the first one's."""
    go = threading.Event()

    def check(bundle: Bundle, _stopped: Callable[[], bool]) -> Verdict:
        assert go.wait(10)
        return verdict_on(bundle)

    async def work() -> None:
        audits = made(check)
        assert audits.look() is None
        audits.stop()  # nothing is under way
        assert audits.start(BUNDLE)["receipt"] == BUNDLE.receipt.digest.hex()
        with pytest.raises(Busy):
            audits.start(BUNDLE)
        go.set()
        state = await ended(audits)
        assert (state["stage"], state["verdict"]) == ("done", verdict_on(BUNDLE).to_json())
        assert audits.start(BUNDLE)["verdict"] is None
        assert (await ended(audits))["stage"] == "done"

    asyncio.run(work())


@pytest.mark.parametrize("why", ["asked", "left", "too long"])
def test_an_audit_stops(why: str) -> None:
    """When it is asked to, when nobody looks at it any more, and after the longest time; no verdict is told."""
    clock, begun = Clock(), threading.Event()

    def check(bundle: Bundle, stopped: Callable[[], bool]) -> Verdict:
        begun.set()
        while not stopped():
            pass
        return verdict_on(bundle)

    async def work() -> None:
        audits = made(check, clock)
        audits.start(BUNDLE)
        await asyncio.to_thread(begun.wait)
        if why == "asked":
            audits.stop()
        elif why == "left":
            clock.now += LEASE_S + 1
        else:
            while clock.now <= MOST_S:
                audits.look()
                clock.now += LEASE_S - 1
        state = await ended(audits)
        assert (state["stage"], state["verdict"]) == ("stopped", None)

    asyncio.run(work())


def test_what_cannot_be_checked_is_said_in_words() -> None:
    """No model, an engine that does not work, and a mistake of ours, whose traceback is the log's business."""

    def broken(_bundle: Bundle, _stopped: Callable[[], bool]) -> Verdict:
        raise EngineError("the library is gone", "install it again")

    def wrong(_bundle: Bundle, _stopped: Callable[[], bool]) -> Verdict:
        raise ZeroDivisionError("secret")

    async def told(audits: Audits) -> str:
        audits.start(BUNDLE)
        state = await ended(audits)
        assert state["stage"] == "failed"
        return state["error"]

    assert asyncio.run(told(made(broken))) == "the library is gone: install it again"
    assert asyncio.run(told(made(wrong))) == "the check failed: the program's log says why"
    words = asyncio.run(told(Audits(find=lambda _digest: None)))
    assert "is not on this machine" in words
    assert "assay models add FILE" in words


@pytest.mark.model
@pytest.mark.parametrize("where", ["running", "installed"])
def test_the_real_model(model_path: Path, tmp_home: Path, where: str) -> None:
    """An honest answer holds by the same audit that `assay verify` makes, with the model that the program runs or with
    one on this machine."""
    from assay.apps.wiring import Capacity, open_engine
    from assay.engines.models import add, resolve

    model = resolve(str(model_path), model_path.parent)
    if where == "installed":
        add(model_path, "mine", tmp_home)
    with open_engine(model, Capacity(threads=1, parallel=1, context=256)) as engine:
        bundle = answered(engine, tiny_request("Name a colour.", level="pinned", max_tokens=12, model=NAME))

    async def work() -> Mapping[str, Any]:
        audits = Audits(models=[model] if where == "running" else ())
        audits.start(bundle)
        return await ended(audits)

    state = asyncio.run(work())
    assert (state["stage"], state["error"]) == ("done", "")
    assert state["verdict"]["holds"]
    assert state["verdict"]["tokens_checked"] == len(bundle.tokens)
