"""A validator: re-checks a random share of a gateway's receipts by recomputing them, and leaves verdicts."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from structlog.typing import FilteringBoundLogger

from assay.apps.auditing import Desk
from assay.apps.failures import ERROR_HANDLERS
from assay.apps.logs import logger
from assay.apps.metrics import CheckMetrics
from assay.core.bundle import Bundle
from assay.core.errors import AssayError, EncodingError, NotFound
from assay.core.hashing import Digest
from assay.core.keys import Address
from assay.core.verdict import Finding, Verdict
from assay.market.health import audit_share
from assay.network.openai.shape import encode
from assay.verify.policy import check_pair

Check = Callable[[Bundle], Verdict]
"""Recomputes a receipt; runs in a thread."""
Pool = Callable[[Sequence[Verdict], int], Finding]
"""Judges several verdicts on one provider together, its n-th block (`verify.policy.pooled`)."""
_TRIES: Final = 2
"""Of a check that breaks."""
BLOCK: Final = 8
"""Verdicts that are judged together; then a new block begins."""


class Validator:
    """Looks at a desk again and again, and checks what falls into its share."""

    def __init__(
        self,
        desk: Desk,
        check: Check,
        *,
        share: float,
        salt: bytes | None = None,
        pool: Pool | None = None,
        told: Callable[[Bundle, Verdict], None] = lambda _bundle, _verdict: None,
        log: FilteringBoundLogger | None = None,
        metrics: CheckMetrics | None = None,
    ) -> None:
        """`share`: of the receipts, 0 to 1, at least: see `audit_share` for new providers. `salt`: decides which;
        nobody who signs receipts may know it.

        `pool` judges verdicts with statistical tests on one provider together; None: each stands alone.
        """
        self._desk: Final = desk
        self._check: Final = check
        self._share: Final = share
        self._salt: Final = secrets.token_bytes(32) if salt is None else salt
        self._pool: Final = pool
        self._histories: Final[dict[Address, list[Verdict]]] = {}
        self._blocks: Final[dict[Address, int]] = {}
        """Number of the last block of each provider."""
        self._passed: Final[dict[Address, int]] = {}
        """Checks that each provider has passed, as far as is known here."""
        self._told: Final = told
        self._log: Final = log or logger("validator")
        self._after = 0
        self._unread: Final[set[Digest]] = set()
        self.metrics: Final = metrics or CheckMetrics()
        self.outcomes: Final[dict[str, int]] = {"holds": 0, "fails": 0, "inconclusive": 0}
        """Verdicts since the start."""

    def chooses(self, receipt: Digest, passed: int) -> bool:
        """A receipt of a provider that has `passed` so many checks falls into the share: fixed by the salt, evenly
        spread over all digests."""
        limit = round(audit_share(passed, self._share) * 2**64)
        return int.from_bytes(hashlib.sha256(self._salt + receipt).digest()[:8]) < limit

    async def look(self) -> int:
        """Check what is new; returns how many verdicts that made.

        Raises:
            AssayError: the desk or the engine cannot be used now.
        """
        made = 0
        for one, other in await self._desk.contradictions():
            made += await self._expose(one, other)
        while rows := await self._desk.unaudited(self._after):
            for row, digest, provider in rows:
                if provider not in self._passed:
                    self._passed[provider] = await self._desk.passed(provider)
                if self.chooses(digest, self._passed[provider]):
                    made += await self._judge(digest)
                    del self._passed[provider]
                self._after = max(self._after, row)
            self._passed.clear()  # others may have checked meanwhile
        return made

    async def run(self, interval: float) -> None:
        """Look every `interval` seconds until cancelled; failures of every kind are logged and tried again."""
        while True:
            try:
                await self.look()
            except AssayError as error:
                self._log.warning("look_failed", reason=str(error))
            except Exception as error:  # noqa: BLE001 - whatever went wrong, the next look may not
                self._log.exception("look_failed", reason=f"{type(error).__name__}: {error}")
            await asyncio.sleep(interval)

    async def _read(self, digest: Digest) -> Bundle | None:
        """The receipt; None if it is too old by now, or is none: that must not hold up all others."""
        try:
            return await self._desk.bundle(digest)
        except NotFound:
            return None
        except EncodingError as error:
            if digest not in self._unread:
                self._unread.add(digest)
                self.metrics.skipped.inc()
                self._log.warning("receipt_skipped", receipt=digest.hex(), reason=error.message)
            return None

    async def _judge(self, digest: Digest) -> int:
        bundle = await self._read(digest)
        if bundle is None:
            return 0
        await self._tell(bundle, await self._with_history(await self._checked(bundle)))
        return 1

    async def _checked(self, bundle: Bundle) -> Verdict:
        """The verdict. A receipt that breaks its check must not end all checks, nor must a mishap let it escape."""
        receipt, found = bundle.receipt, ""
        for _ in range(_TRIES):
            try:
                return await asyncio.to_thread(self._check, bundle)
            except Exception as error:  # noqa: BLE001 - whatever it is
                found = f"the check broke ({type(error).__name__}: {error})"
                self._log.exception("check_broke", receipt=receipt.digest.hex(), reason=found)
        finding = Finding("machine", "inconclusive", found)
        return Verdict(receipt.digest.hex(), receipt.provider, receipt.level, "inconclusive", (finding,), 0, 0.0)

    async def _expose(self, one: Digest, other: Digest) -> int:
        """Two receipts under one number: fraud by itself, whatever was answered."""
        started = time.perf_counter()
        first, second = await self._read(one), await self._read(other)
        if first is None or second is None:
            return 0
        finding = check_pair(first.receipt, second.receipt)
        receipt = second.receipt
        verdict = Verdict(
            receipt=receipt.digest.hex(),
            provider=receipt.provider,
            level=receipt.level,
            outcome="fails" if finding.outcome == "fails" else "holds",
            findings=(finding,),
            tokens_checked=0,
            seconds=time.perf_counter() - started,
        )
        await self._tell(second, verdict)
        return 1

    async def _tell(self, bundle: Bundle, verdict: Verdict) -> None:
        await self._desk.judge(verdict)
        self.outcomes[verdict.outcome] += 1
        self.metrics.checks.labels(verdict.level, verdict.outcome).inc()
        self.metrics.seconds.labels(verdict.level).observe(verdict.seconds)
        report = self._log.warning if verdict.outcome == "fails" else self._log.info
        report(
            "verdict",
            receipt=verdict.receipt,
            provider=verdict.provider,
            assurance=verdict.level,
            outcome=verdict.outcome,
            reasons=verdict.reasons,
            seconds=round(verdict.seconds, 3),
        )
        self._told(bundle, verdict)

    async def _with_history(self, verdict: Verdict) -> Verdict:
        """Add what this verdict and the ones before it on the same provider say together, in blocks of BLOCK.

        No two blocks of a provider have one number, also over restarts: the first one is numbered after all verdicts
        that were ever left, of which each earlier block had at least one.
        """
        if self._pool is None or verdict.evidence is None:
            return verdict
        provider = verdict.provider
        history = self._histories.setdefault(provider, [])
        if not history:
            last = self._blocks[provider] if provider in self._blocks else await self._desk.tested(provider)
            self._blocks[provider] = last + 1
        history.append(verdict)
        finding = self._pool(history, self._blocks[provider])
        if len(history) == BLOCK or finding.outcome == "fails":
            history.clear()
        outcome = "fails" if finding.outcome == "fails" else verdict.outcome
        return replace(verdict, findings=(*verdict.findings, finding), outcome=outcome)


def validator_app(
    validator: Validator,
    *,
    interval: float,
    stop_check: Callable[[], None] = lambda: None,
    beside: Sequence[Callable[[], Coroutine[Any, Any, None]]] = (),
    routes: Sequence[Route] = (),
) -> Starlette:
    """The validator with `/health` and `/metrics`; it works from the start of the application to its end.

    `beside`: what goes on at the same time. `routes`: what else is served. `stop_check` ends a check that is under way
    then: its thread would hold up the program, with the model in use.
    """

    async def health(_request: Request) -> Response:
        report: Mapping[str, object] = {"status": "ok", "verdicts": validator.outcomes}
        return Response(encode(report), media_type="application/json")

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        work = [asyncio.create_task(each) for each in (validator.run(interval), *(run() for run in beside))]
        yield
        for each in work:
            each.cancel()
        stop_check()
        await asyncio.wait(work)

    return Starlette(
        routes=[Route("/health", health, methods=["GET"]), validator.metrics.route(), *routes],
        exception_handlers=ERROR_HANDLERS,
        lifespan=lifespan,
    )
