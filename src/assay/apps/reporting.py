"""Verdicts that others may read, and what others say: a validator signs and serves them, a gateway collects them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

import httpx
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from assay.apps.logs import logger
from assay.core.bundle import Bundle
from assay.core.errors import AssayError
from assay.core.keys import Address, Key
from assay.core.report import MAX_REPORT_BYTES, SignedReport, sign_report
from assay.core.verdict import Verdict
from assay.market.reputation import Recheck, Report
from assay.network.replies import get, within
from assay.store.reports import ReportStore, Told

MOST: Final = 1000
"""Reports that a validator shows, its newest."""
ASK_SECONDS: Final = 60.0
"""Between two questions to a validator."""
_REPLY_SECONDS: Final = 10.0
Stakes: TypeAlias = Callable[[], Mapping[Address, int]]
"""Wei that those have to lose whose stakes are known."""
Tell: TypeAlias = Callable[[Sequence[Report]], None]
_RECHECKS: Final[Mapping[tuple[bool, str], Recheck]] = {
    (True, "holds"): "holds", (False, "fails"): "holds", (True, "fails"): "fails", (False, "holds"): "fails"
}  # fmt: skip


class Reporter:
    """Signs what was found without doubt, and shows it."""

    def __init__(self, key: Key) -> None:
        """`key`: whose stake stands behind the reports."""
        self._key: Final = key
        self._lines: Final[deque[bytes]] = deque(maxlen=MOST)

    def told(self, bundle: Bundle, verdict: Verdict) -> None:
        """Report a verdict, if the answer was computed again or is proven wrong: not what one answer's statistics deny,
        nor that a signature holds."""
        proven = verdict.outcome == "fails" and verdict.basis != "test"
        held = verdict.outcome == "holds" and verdict.level != "signed" and verdict.basis != "none"
        if proven or held:
            self._lines.append(sign_report(bundle.receipt, self._key, good=held).encode())

    def route(self) -> Route:
        """`GET /assay/v1/reports`: one a line, oldest first."""

        async def reports(_request: Request) -> Response:
            return Response(b"".join(line + b"\n" for line in self._lines), media_type="application/x-ndjson")

        return Route("/assay/v1/reports", reports, methods=["GET"])


class Reports:
    """What validators elsewhere report: asked for again and again; kept if the reporter has something at stake."""

    def __init__(self, urls: Sequence[str], store: ReportStore, *, ask: float = ASK_SECONDS) -> None:
        """`urls`: base URLs. `ask`: seconds between two questions."""
        self._urls: Final = tuple(url.rstrip("/") for url in urls)
        self._store: Final = store
        self._ask: Final = ask
        self._kept: frozenset[Address] = frozenset()
        self._heard: Final[dict[str, frozenset[Address]]] = {}
        """Reporters of whom nothing is kept yet, by who told of them."""
        self._done: Final[dict[str, frozenset[bytes]]] = {}
        """Of the lines of each one's last reply those that need not be read again."""

    def reporters(self) -> Collection[Address]:
        """Whose stakes have to be known."""
        return self._kept.union(*self._heard.values())

    @asynccontextmanager
    async def running(self, stakes: Stakes, tell: Tell) -> AsyncIterator[None]:
        """Ask until the end of the block; `tell` is given all that is kept, at once and after each round."""
        await self._tried("the database", self._load(tell))
        task = asyncio.create_task(self._follow(stakes, tell))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._store.close()

    async def _follow(self, stakes: Stakes, tell: Tell) -> None:
        async with httpx.AsyncClient(timeout=_REPLY_SECONDS, trust_env=False) as client:
            while True:
                await asyncio.gather(*(self._tried(url, self._read(url, client, stakes)) for url in self._urls))
                await self._tried("the database", self._load(tell))
                await asyncio.sleep(self._ask)

    async def _tried(self, source: str, work: Awaitable[None]) -> None:
        """One that fails ends nothing else."""
        try:
            await work
        except AssayError as error:
            logger("gateway").warning("reports_not_read", source=source, reason=error.message, remedy=error.remedy)

    async def _read(self, url: str, client: httpx.AsyncClient, stakes: Stakes) -> None:
        asking = get(client, f"{url}/assay/v1/reports", MOST * (MAX_REPORT_BYTES + 1))
        body = await within(_REPLY_SECONDS, asking, f"{url} does not tell its reports")
        await asyncio.to_thread(self._take, url, body.split(b"\n")[:-1][-MOST:], stakes())

    def _take(self, url: str, lines: Sequence[bytes], stakes: Mapping[Address, int]) -> None:
        good, heard, done, refused = list[SignedReport](), set[Address](), set[bytes](), ""
        for line in lines:
            if line in self._done.get(url, frozenset()):
                done.add(line)
                continue
            try:
                report = SignedReport.decode(line)
                report.check()
            except AssayError as error:
                done.add(line)
                refused = error.message
                continue
            if stakes.get(report.reporter):
                done.add(line)
                good.append(report)
            else:
                heard.add(report.reporter)
        self._store.keep(good)
        self._heard[url], self._done[url] = frozenset(heard), frozenset(done)
        if refused:
            logger("gateway").warning("report_refused", source=url, reason=refused)

    async def _load(self, tell: Tell) -> None:
        kept = await asyncio.to_thread(self._store.load)
        self._kept = frozenset(each.reporter for each in kept)
        tell(reports_of(kept))


def reports_of(kept: Iterable[Told]) -> tuple[Report, ...]:
    """As reputation takes them: a check here found the same, or another thing, or there was none."""
    return tuple(
        Report(each.reporter, each.provider, each.receipt, each.good, _RECHECKS.get((each.good, each.here), "not made"))
        for each in kept
    )
