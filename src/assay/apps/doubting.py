"""A cheat, tried out: a real dishonest provider as a process, some questions, and the check that catches it.

The provider's home is a folder that goes when it ends, its key with it: nobody else hears of it, or can take its
receipts for anybody's.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, Literal, TypeAlias

import httpx

from assay.apps.cheats import CHEATS, Cheat
from assay.apps.config import EngineName, home
from assay.apps.failures import INTERNAL
from assay.apps.lifeline import start, stop, tail
from assay.apps.logs import logger
from assay.core.errors import AssayError, Busy, EngineError, InvalidRequest, ModelNotFound, NotFound
from assay.engines.models import ModelFile, list_models
from assay.journey import MarketAnswers
from assay.network.http import HttpTransport, Patience
from assay.store.receipts import ReceiptStore

MOST_ASKED: Final = 3
"""Answers that a cheat has to give before it counts as missed: some do not cheat in each."""
MOST_QUESTION: Final = 500
"""Characters."""
TOKENS: Final = 32
"""Of an answer."""
_READY_SECONDS: Final = 180.0
_CHECK_SECONDS: Final = 300.0
_REFUSED: Final = ("does not hold", "as the protocol says")
"""The gateway says this of receipts and streams of liars; anything else is a failure, which may be nobody's fault."""
_COMMAND: Final = (sys.executable, "-P", "-m", "assay.apps.cli")
Stage: TypeAlias = Literal["starting", "asking", "checking", "over"]
Ending: TypeAlias = Literal["", "caught", "refused", "unclear", "missed", "failed", "stopped"]
"""`caught`: its receipt failed the check; `refused`: the gateway took no receipt from it; `unclear`: it claims what
this machine cannot recompute, so that others are asked before it."""
Stand: TypeAlias = Callable[[Cheat, EngineName, ModelFile, Path], AbstractAsyncContextManager[str]]
"""Runs the dishonest provider, with its files in a folder; gives its address."""
Judge: TypeAlias = Callable[[Path, ModelFile], Awaitable[Mapping[str, object]]]
"""Checks a file with a receipt; see `Verdict.to_json`."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer of the cheat, and what was found about it."""

    text: str
    outcome: str
    """See `Verdict`; empty: no receipt was taken."""
    reasons: tuple[str, ...]
    seconds: float
    """That the check took."""


@dataclass(slots=True)
class Trial:
    """One cheat under way, or over."""

    cheat: Cheat
    engine: EngineName
    model: str
    question: str
    stage: Stage = "starting"
    ending: Ending = ""
    replies: list[Reply] = field(default_factory=list)
    trouble: str = ""
    """Why it failed, and what to do."""


class Doubts:
    """One trial at a time. For use from one event loop, in the main thread."""

    def __init__(self, stand: Stand | None = None, judge: Judge | None = None) -> None:
        """Left out: real processes of this program."""
        self.trial: Trial | None = None
        """The last one."""
        self._stand: Final = stand or _standing
        self._judge: Final = judge or _judged
        self._task: asyncio.Task[None] | None = None

    async def begin(self, name: str, question: str) -> None:
        """Try a cheat in the background.

        Raises:
            InvalidRequest: there is no such cheat, or no question.
            ModelNotFound: there is no model on this machine.
            Busy: another one is tried.
        """
        cheat = CHEATS.get(name)
        if cheat is None:
            raise InvalidRequest("there is no such cheat", field="cheat", remedy="choose one of the list")
        if not 0 < len(question.strip()) <= MOST_QUESTION:
            raise InvalidRequest(
                f"a question has 1 to {MOST_QUESTION} characters", field="question", remedy="ask another"
            )
        models = await asyncio.to_thread(list_models, home())  # a new file is read as a whole
        if self._task is not None and not self._task.done():
            raise Busy("another cheat is tried now", retry_after=10, remedy="stop it, or wait for its end")
        model = next(iter(models), None)
        if model is None:
            raise ModelNotFound("there is no model on this machine", "`assay models pull smollm2-135m` fetches one")
        engine: EngineName = "llama.cpp" if "llama.cpp" in cheat.engines else "exact"
        self.trial = Trial(cheat, engine, model.name, question.strip())
        self._task = asyncio.create_task(self._run(self.trial, model))

    async def over(self) -> None:
        """Wait until nothing is under way."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def end(self) -> None:
        """Stop what is under way, and wait until nothing of it is left.

        Raises:
            NotFound: nothing is.
        """
        if self._task is None or self._task.done():
            raise NotFound("no cheat is tried now", "choose one")
        self._task.cancel()
        await self.over()

    async def _run(self, trial: Trial, model: ModelFile) -> None:
        try:
            async with AsyncExitStack() as stack:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="assay-doubt-")))
                url = await stack.enter_async_context(self._stand(trial.cheat, trial.engine, model, folder))
                await self._ask(trial, model, url, folder, stack)
        except asyncio.CancelledError:
            trial.ending = "stopped"
            raise
        except AssayError as error:
            trial.ending, trial.trouble = "failed", str(error)
        except Exception:  # noqa: BLE001 - nobody waits for this task
            logger("window").exception("trial_failed", cheat=trial.cheat.name)
            trial.ending, trial.trouble = "failed", str(INTERNAL)
        finally:
            trial.stage = "over"

    async def _ask(self, trial: Trial, model: ModelFile, url: str, folder: Path, stack: AsyncExitStack) -> None:
        from assay.apps.gateway import gateway_app  # whose pages show this

        store = ReceiptStore(f"sqlite:///{folder / 'receipts.sqlite3'}")
        stack.callback(store.close)
        transport = HttpTransport([url], patience=Patience())
        stack.push_async_callback(transport.aclose)
        market = MarketAnswers(transport, store)
        stack.push_async_callback(market.drain, 0)
        offer = next(iter(await transport.offers()))
        gateway = httpx.ASGITransport(app=gateway_app(market, store))
        client = await stack.enter_async_context(
            httpx.AsyncClient(transport=gateway, base_url="http://doubt", timeout=_CHECK_SECONDS)
        )
        body = {
            "model": offer.model, "messages": [{"role": "user", "content": trial.question}], "max_tokens": TOKENS,
            "temperature": 1.0, "top_p": 0.9,
            "assay": {"level": "exact" if trial.engine == "exact" else "pinned"},
        }  # fmt: skip
        for n in range(MOST_ASKED):
            trial.stage = "asking"
            answer = await client.post("/v1/chat/completions", json=body)
            if answer.status_code != 200:
                said = str(answer.json()["error"]["message"])
                if not any(words in said for words in _REFUSED):
                    raise EngineError("the provider gave no answer", said)
                trial.replies.append(Reply("", "", (said,), 0.0))
                trial.ending = "refused"
                return
            found = answer.json()
            trial.stage = "checking"
            path = folder / f"{n}.json"
            path.write_bytes((await client.get(f"/receipts/{found['id']}")).content)
            verdict = await self._judge(path, model)
            text = found["choices"][0]["message"]["content"] or ""
            trial.replies.append(_reply(text, verdict))
            if trial.replies[-1].outcome == "fails":
                trial.ending = "caught"
                return
        unclear = any(reply.outcome == "inconclusive" for reply in trial.replies)
        trial.ending = "unclear" if unclear else "missed"


def _reply(text: str, verdict: Mapping[str, object]) -> Reply:
    reasons, seconds = verdict.get("reasons"), verdict.get("seconds")
    return Reply(
        text,
        str(verdict.get("outcome", "inconclusive")),
        tuple(map(str, reasons)) if isinstance(reasons, list) else (),
        float(seconds) if isinstance(seconds, int | float) else 0.0,
    )


@asynccontextmanager
async def _standing(cheat: Cheat, engine: EngineName, model: ModelFile, folder: Path) -> AsyncIterator[str]:
    """See `Stand`: `assay serve --cheat`, in a home of its own that knows the converted models of this one."""
    own = folder / "home"
    own.mkdir()
    for each in ("exact", "cheats"):  # what takes long to make
        (home() / each).mkdir(parents=True, exist_ok=True)
        with suppress(OSError):
            (own / each).symlink_to(home() / each, target_is_directory=True)
    command = ["serve", "--port", "0", "--json", "--model", str(model.path), "--threads", "1", "--parallel", "1"]
    command += ["--context", "1024", "--engine", engine, "--cheat", cheat.name, "--i-am-testing-dishonesty"]
    async with _running(command, own, folder / "provider.log") as (out, log):
        try:
            line = await asyncio.wait_for(asyncio.to_thread(out.readline), _READY_SECONDS)
            url = str(json.loads(line)["url"])
        except (TimeoutError, ValueError) as error:
            raise EngineError(
                f"the provider did not start: {tail(log, 3) or 'it says nothing'}", "try again"
            ) from error
        yield url


async def _judged(path: Path, model: ModelFile) -> Mapping[str, object]:
    """See `Judge`: `assay verify`, as anybody would."""
    command = ["verify", str(path), "--model", str(model.path), "--json"]
    async with _running(command, home(), path.with_suffix(".log")) as (out, log):
        try:
            found = json.loads(await asyncio.wait_for(asyncio.to_thread(out.read), _CHECK_SECONDS))
        except (TimeoutError, ValueError) as error:
            raise EngineError(f"the check did not end: {tail(log, 3) or 'it says nothing'}", "try again") from error
    verdicts: Sequence[Mapping[str, object]] = found if isinstance(found, list) else [found]
    return next((each for each in verdicts if each.get("outcome") == "fails"), verdicts[0])


@asynccontextmanager
async def _running(command: Sequence[str], own: Path, log: Path) -> AsyncIterator[tuple[IO[bytes], Path]]:
    """A command of this program with ASSAY_HOME `own`; gives its standard output, and the file of its errors."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("ASSAY_")}
    with log.open("wb") as file:
        process = start([*_COMMAND, *command], env={**env, "ASSAY_HOME": str(own)}, log=file)
    try:
        assert process.stdout is not None
        yield process.stdout, log
    finally:
        await asyncio.to_thread(stop, [process])
