"""The playground for doubt: real cheats of a tiny engine, and the real check; who may start one, and how it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, expect
from tests.apps.window.browser import TOKEN, Stage, looked_at, opened, picture, staged
from tests.running import running
from tests.tiny import TinyAuditor, TinyEngine, TinyReplayer, tiny_key
from tests.verify.kit import CALIBRATION

from assay.apps.cheats import Cheat
from assay.apps.cheats.forgeries import Attest, inflated, inflated_prompt, one_number
from assay.apps.cheats.forgetful import ForgetfulStore
from assay.apps.doubting import MOST_QUESTION, Doubts
from assay.apps.provider import provider_app
from assay.apps.serving import LocalAnswers
from assay.core.bundle import Bundle
from assay.core.errors import EngineError
from assay.core.receipt import attest
from assay.engines.models import ModelFile
from assay.verify.policy import verify_bundle

OWNER = {"authorization": f"Bearer {TOKEN}"}
PENS: Mapping[str, Attest] = {
    "inflated-counts": inflated, "inflated-prompt": inflated_prompt, "equivocation": one_number
}  # fmt: skip
"""Others are played honestly here, so that they are missed; `seed` does not start, `top-p` never does."""


@asynccontextmanager
async def stand(cheat: Cheat, _engine: str, _model: ModelFile, folder: Path) -> AsyncIterator[str]:
    """A provider with a tiny engine and a crooked pen."""
    if cheat.name == "seed":
        raise EngineError("the provider did not start: <img src=x onerror=alert(1)>", "try again")
    if cheat.name == "top-p":
        await asyncio.sleep(3600)
    store, key = ForgetfulStore(f"sqlite:///{folder / 'provider.db'}"), tiny_key(9)
    answers = LocalAnswers([TinyEngine()], key, store, attest=PENS.get(cheat.name, attest))
    async with running(provider_app(answers, store, key.address), drain=answers.drain) as url:
        yield url


async def judge(path: Path, _model: ModelFile) -> Mapping[str, object]:
    """The real check, of a tiny model."""
    bundle = Bundle.decode(await asyncio.to_thread(path.read_bytes))
    clock: Callable[[], float] = map(float, count()).__next__
    return verify_bundle(bundle, TinyReplayer(), calibration=CALIBRATION, clock=clock, auditor=TinyAuditor).to_json()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A gateway that tries cheats, on a machine with one model."""
    here = ModelFile("tiny<b>", Path("/nowhere"), bytes(32), 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("assay.apps.doubting.list_models", lambda _home: (here,))
        with staged(tmp_path_factory.mktemp("doubt"), doubts=Doubts(stand, judge)) as found:
            yield found


def posted(stage: Stage, headers: Mapping[str, str] = OWNER, **body: object) -> httpx.Response:
    """Ask for a trial."""
    return httpx.post(f"{stage.url}/window/doubt", json=body, headers=dict(headers))


def deleted(stage: Stage, headers: Mapping[str, str]) -> httpx.Response:
    """Ends what is tried."""
    return httpx.request("DELETE", f"{stage.url}/window/doubt", json={}, headers=dict(headers))


def tried(stage: Stage, cheat: str) -> dict[str, Any]:
    """A whole trial."""
    assert posted(stage, cheat=cheat, question="Why?").status_code == 202
    for _ in range(600):
        trial = httpx.get(f"{stage.url}/window/doubt", headers=OWNER).json()["trial"]
        if trial["stage"] == "over":
            return trial
        time.sleep(0.05)
    raise AssertionError(trial)


@pytest.mark.parametrize(
    ("cheat", "ending", "reason"),
    [
        ("inflated-counts", "refused", "tokens"),
        ("inflated-prompt", "caught", "prompt"),
        ("equivocation", "refused", "two different receipts"),
        ("padded", "missed", ""),
        ("seed", "failed", ""),
    ],
)
def test_how_it_ends(stage: Stage, cheat: str, ending: str, reason: str) -> None:
    """Caught with a reason, by check or gateway; missed after a few honest answers; or told why nothing came of it."""
    trial = tried(stage, cheat)
    assert trial["ending"] == ending, str(trial)
    if reason:
        assert reason in trial["replies"][-1]["reasons"][0], trial
    if ending == "missed":
        assert [each["outcome"] for each in trial["replies"]] == ["holds"] * 3
    if ending == "failed":
        assert "did not start" in trial["trouble"]


def test_only_the_owner_tries(stage: Stage) -> None:
    """Others do not see it either; and no form of another site can ask."""
    for headers in ({}, {"authorization": "Bearer " + "x" * 43}, {**OWNER, "sec-fetch-site": "cross-site"}):
        assert posted(stage, headers, cheat="padded", question="Why?").status_code == 403
        assert httpx.get(f"{stage.url}/window/doubt", headers=headers).status_code == 403
        assert deleted(stage, headers).status_code == 403
    form = httpx.post(f"{stage.url}/window/doubt", data={"cheat": "padded", "question": "Why?"}, headers=OWNER)
    assert form.status_code == 400
    assert httpx.delete(f"{stage.url}/window/doubt", headers=OWNER).status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        {"cheat": "kindness", "question": "Why?"},
        {"cheat": "padded", "question": "  "},
        {"cheat": "padded", "question": "x" * (MOST_QUESTION + 1)},
        {"cheat": "padded"},
        {"cheat": ["padded"], "question": "Why?"},
        {"cheat": "padded", "question": "x" * 100_000},
    ],
)
def test_what_cannot_be_tried(stage: Stage, body: dict[str, object]) -> None:
    """Is refused with what to do."""
    assert posted(stage, **body).status_code in (400, 413)


def test_one_at_a_time(stage: Stage) -> None:
    """A second one waits for the first, which can be stopped; then nothing is left to stop."""
    assert posted(stage, cheat="top-p", question="Why?").status_code == 202
    busy = posted(stage, cheat="padded", question="Why?")
    assert (busy.status_code, "another cheat" in busy.json()["error"]["message"]) == (429, True)
    ended = deleted(stage, OWNER).json()["trial"]
    assert (ended["stage"], ended["ending"]) == ("over", "stopped")
    assert deleted(stage, OWNER).status_code == 404


def test_in_a_browser(stage: Stage, browser: Browser) -> None:
    """The owner chooses, asks, and sees the cheat caught; failures are text; the page knows a trial after a reload."""
    with opened(browser, stage.url) as page:
        page.goto(f"/doubt#owner={TOKEN}")
        page.locator("input[value=inflated-counts]").check()
        page.locator("#question").fill("Why <i>?")
        page.locator("#try").click()
        expect(page.locator(".ending")).to_contain_text("Caught")
        expect(page.locator(".reason").first).to_contain_text("tokens")
        picture(page, "doubt-caught")
        page.locator("input[value=top-p]").check()
        page.locator("#try").click()
        expect(page.locator("#try")).to_be_disabled()
        page.reload()
        expect(page.locator("#stop")).to_be_visible()
        page.locator("#stop").click()
        expect(page.locator(".ending")).to_contain_text("Stopped")
        page.locator("input[value=seed]").check()
        page.locator("#try").click()
        expect(page.locator(".ending")).to_contain_text("<img src=x")
        assert page.locator("main img").count() == 0


@pytest.mark.slow
def test_it_looks_well(stage: Stage, browser: Browser) -> None:
    """Without the token, and with it and a trial: readable in every language and theme, at 360 and at 1600 px."""
    looked_at(browser, stage.url, "/doubt", "doubt-stranger", "#refused:not([hidden])")
    tried(stage, "inflated-counts")
    looked_at(browser, stage.url, f"/doubt#owner={TOKEN}", "doubt", ".ending")
