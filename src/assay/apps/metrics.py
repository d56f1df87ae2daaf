"""What a server measures of its answers, for Prometheus and for the log, without a word of what was said."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route
from structlog.typing import FilteringBoundLogger

from assay.core.bundle import Bundle
from assay.core.completion import Step, StopReason
from assay.core.errors import AssayError, Busy
from assay.core.offer import Ask, Offer
from assay.core.ports import Answer, Answers
from assay.core.request import Request
from assay.store.receipts import ReceiptStore, Tally

_SIDES: Final = ("provider", "challenger")
_FIRST: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_CHECK: Final = (0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_NEXT: Final = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 1.0)


class Metrics:
    """One server's numbers, in a registry of their own."""

    def __init__(self) -> None:
        self.registry: Final = CollectorRegistry()
        self.answers: Final = Counter(
            "assay_answers", "Answers by how they ended", ["model", "level", "stop"], registry=self.registry
        )
        self.tokens: Final = Counter("assay_tokens", "Tokens of answers", ["model", "kind"], registry=self.registry)
        self.refusals: Final = Counter(
            "assay_refusals", "Requests that got no answer, by kind of error", ["kind"], registry=self.registry
        )
        self.receipts: Final = Counter("assay_receipts", "Receipts handed over", ["level"], registry=self.registry)
        self.traces: Final = Counter(
            "assay_traces", "Traces that were asked for, by what became of them", ["outcome"], registry=self.registry
        )
        self.active: Final = Gauge("assay_answers_active", "Answers under way", registry=self.registry)
        self.first_token: Final = Histogram(
            "assay_first_token_seconds", "From the request to the first token", buckets=_FIRST, registry=self.registry
        )
        self.next_token: Final = Histogram(
            "assay_next_token_seconds", "From one token to the next", buckets=_NEXT, registry=self.registry
        )

        self.payments_refused: Final = Counter(
            "assay_payments_refused", "Payments that were not taken, by reason", ["reason"], registry=self.registry
        )

    def pace(self) -> float | None:
        """Tokens a second of one answer, on average since the start; None before there were two tokens of one."""
        sums = {each.name: each.value for family in self.next_token.collect() for each in family.samples}
        seconds = sums["assay_next_token_seconds_sum"]
        return sums["assay_next_token_seconds_count"] / seconds if seconds else None

    def watch_money(self, sums: Callable[[], Mapping[str, int]]) -> None:
        """Show amounts by kind, added up in the database at every scrape."""
        self.registry.register(_Money(sums))

    def watch_verdicts(self, store: ReceiptStore) -> None:
        """Show what checks found, counted in the database at every scrape."""
        self.registry.register(_Verdicts(store.tallies))

    def route(self) -> Route:
        """`GET /metrics`."""
        return metrics_route(self.registry)


class CheckMetrics:
    """A validator's numbers since its start, in a registry of their own."""

    def __init__(self) -> None:
        self.registry: Final = CollectorRegistry()
        self.checks: Final = Counter(
            "assay_checks", "Checks made, by what they found", ["level", "outcome"], registry=self.registry
        )
        self.seconds: Final = Histogram(
            "assay_check_seconds", "What a check took", ["level"], buckets=_CHECK, registry=self.registry
        )
        self.skipped: Final = Counter(
            "assay_receipts_skipped", "Receipts that could not be read", registry=self.registry
        )

    def route(self) -> Route:
        """`GET /metrics`."""
        return metrics_route(self.registry)


class DisputeMetrics:
    """Implements `disputes.party.Counts`, in a server's registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._disputes: Final = Counter(
            "assay_disputes", "Disputes, by what became of them", ["side", "what"], registry=registry
        )
        self._slashed: Final = Counter(
            "assay_slashed_wei", "What providers lost in disputes", ["side"], registry=registry
        )

    def dispute(self, side: int, what: str) -> None:
        """See `Counts`."""
        self._disputes.labels(_SIDES[side], what).inc()

    def slashed(self, side: int, wei: int) -> None:
        """See `Counts`."""
        self._slashed.labels(_SIDES[side]).inc(wei)


class DiscoveryMetrics:
    """What a program finds of providers, in its registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry: Final = registry
        self.records: Final = Counter(
            "assay_records", "Providers' records that were told, by what became of them", ["source", "outcome"],
            registry=registry,
        )  # fmt: skip
        self.known: Final = Gauge("assay_providers_known", "Providers with a record", registry=registry)
        self.withheld: Final = Gauge(
            "assay_directory_withheld", "Providers that a directory lacks and most others list", ["directory"],
            registry=registry,
        )  # fmt: skip
        self.notices_dropped: Final = Counter(
            "assay_notices_dropped", "Notices on the local network over what is followed", registry=registry
        )


class RelayMetrics:
    """What passes through a relay, in its registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry: Final = registry
        self.providers: Final = Gauge("assay_relay_providers", "Providers that wait", registry=registry)
        self.streams: Final = Gauge("assay_relay_streams", "Streams that are passed on", registry=registry)
        self.connections: Final = Gauge("assay_relay_connections", "Connections of all kinds", registry=registry)
        self.passed: Final = Counter("assay_relay_bytes", "Bytes that were passed on", registry=registry)
        self.refused: Final = Counter(
            "assay_relay_refused", "Connections that were refused or cut, by the reason", ["reason"], registry=registry
        )


class Measured:
    """Implements `Answers` by passing everything through, measuring and logging it."""

    def __init__(
        self,
        inner: Answers,
        metrics: Metrics,
        log: FilteringBoundLogger,
        *,
        good: Callable[[Bundle], None] = lambda _bundle: None,
    ) -> None:
        """`good`: told of each receipt that came of an answer."""
        self._inner: Final = inner
        self._metrics: Final = metrics
        self._log: Final = log
        self._good: Final = good

    async def models(self) -> Sequence[Offer]:
        """As the inner one."""
        return await self._inner.models()

    async def answer(self, request: Request, ask: Ask, *, top_logprobs: int | None = None) -> Answer:
        """As the inner one."""
        return await self.measure(request, self._inner.answer(request, ask, top_logprobs=top_logprobs))

    async def measure(self, request: Request, starting: Awaitable[Answer]) -> Answer:
        """An answer that is about to start, measured."""
        started = time.monotonic()
        try:
            answer = await starting
        except AssayError as error:
            self._metrics.refusals.labels("busy" if isinstance(error, Busy) else error.kind).inc()
            self._log.info("refused", assurance=request.level, kind=error.kind, reason=error.message)
            raise
        return _MeasuredAnswer(answer, request, started, self._metrics, self._log, self._good)


class _MeasuredAnswer:
    def __init__(
        self,
        inner: Answer,
        request: Request,
        started: float,
        metrics: Metrics,
        log: FilteringBoundLogger,
        good: Callable[[Bundle], None],
    ) -> None:
        self._inner = inner
        self._request = request
        self._started = started
        self._metrics = metrics
        self._log = log
        self._good = good
        self._count = 0
        self._first = 0.0
        self._stop: StopReason | None = None
        self._over = False
        metrics.active.inc()

    @property
    def earlier(self) -> Sequence[Bundle]:
        return self._inner.earlier

    async def steps(self) -> AsyncIterator[Step]:
        last = self._started
        observe = self._metrics.next_token.observe
        async for step in self._inner.steps():
            now = time.monotonic()
            if self._count:
                observe(now - last)
            else:
                self._first = now - self._started
                self._metrics.first_token.observe(self._first)
            last = now
            self._count += 1
            self._stop = step.stop
            yield step

    async def bundle(self) -> Bundle:
        try:
            bundle = await self._inner.bundle()
        except AssayError as error:
            self._end(None, error.message)
            raise
        self._end(bundle, "")
        return bundle

    async def close(self) -> None:
        await self._inner.close()

    def _end(self, bundle: Bundle | None, problem: str) -> None:
        """Count the answer once, whoever asks for its receipt how often."""
        if self._over:
            return
        self._over = True
        request, receipt = self._request, bundle.receipt if bundle else None
        stop = receipt.stop if receipt else self._stop or "failed"
        self._metrics.active.dec()
        self._metrics.answers.labels(request.model, request.level, stop).inc()
        self._metrics.tokens.labels(request.model, "output").inc(self._count)
        if bundle is not None and receipt is not None:
            self._good(bundle)
            self._metrics.tokens.labels(request.model, "prompt").inc(receipt.prompt_count)
            self._metrics.receipts.labels(receipt.level).inc()
        self._log.info(
            "answered",
            model=request.model,
            assurance=request.level,
            stop=stop,
            tokens=self._count,
            first_token_s=round(self._first, 4),
            seconds=round(time.monotonic() - self._started, 4),
            provider=receipt.provider if receipt else None,
            receipt=receipt.digest.hex() if receipt else None,
            problem=problem or None,
        )


class _Money(Collector):
    def __init__(self, sums: Callable[[], Mapping[str, int]]) -> None:
        self._sums = sums

    def collect(self) -> Iterator[GaugeMetricFamily]:
        (family,) = self.describe()
        try:
            for kind, wei in self._sums().items():
                family.add_metric([kind], wei)
        except AssayError:
            return  # the other numbers are still worth having
        yield family

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing is asked of the database when the registry checks names."""
        yield GaugeMetricFamily("assay_wei", "Wei on channels, cumulative, by kind", labels=["kind"])


def metrics_route(registry: CollectorRegistry) -> Route:
    """`GET /metrics`."""

    def metrics(_request: HttpRequest) -> Response:  # not async: Starlette runs it in a thread
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return Route("/metrics", metrics, methods=["GET"])


def _family() -> CounterMetricFamily:
    return CounterMetricFamily("assay_verdicts", "Verdicts", labels=["provider", "level", "checked", "outcome"])


class _Verdicts(Collector):
    def __init__(self, tallies: Callable[[], Sequence[Tally]]) -> None:
        self._tallies = tallies

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = _family()
        try:
            for tally in self._tallies():
                family.add_metric([tally.provider, tally.level, tally.basis, tally.outcome], tally.count)
        except AssayError:
            return  # the other numbers are still worth having
        yield family

    def describe(self) -> Iterator[CounterMetricFamily]:
        """Nothing is asked of the database when the registry checks names."""
        yield _family()
