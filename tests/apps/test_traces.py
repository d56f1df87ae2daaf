"""Traces from files and providers: bounded, one at a time, only for who knows the request."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from tests.running import running
from tests.tiny import EXACT_PROFILE, TinyEngine, tiny_bundle, tiny_key, tiny_request

from assay.apps.provider import provider_app
from assay.apps.serving import LocalAnswers
from assay.apps.traces import ProviderTraces, passes_of, traces_at
from assay.apps.tracing import Traces, tracer_of
from assay.core.bundle import Bundle
from assay.core.encoding import b64
from assay.core.errors import Busy, EncodingError, EngineError, InvalidRequest, NotFound, ProviderFailed
from assay.network.traces import TracePatience, fetch_trace
from assay.store.receipts import ReceiptStore

pytestmark = pytest.mark.anyio
BUNDLE = tiny_bundle(tiny_request(level="exact", max_tokens=9), tiny_key(), 1)


class Endless:
    """Implements `Tracer`: blocks without end, each as soon as it is asked for."""

    def __init__(self, blocks: int | None = None) -> None:
        self.blocks = blocks
        self.given = 0
        self.ended = threading.Event()

    def trace(
        self, bundle: Bundle, positions: Collection[int] | None = None, *, stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[bytes]:
        if positions and max(positions) >= passes_of(bundle):
            raise EncodingError("there is no such position")
        return self._blocks(stopped)

    def _blocks(self, stopped: Callable[[], bool]) -> Iterator[bytes]:
        try:
            while self.given != self.blocks:
                if stopped():
                    raise EngineError("broken off")
                self.given += 1
                yield bytes(1 << 16)
        finally:
            self.ended.set()


@asynccontextmanager
async def serving(root: Path, tracer: Endless | None, *, stall: float = 5.0) -> AsyncIterator[tuple[str, Traces]]:
    """A provider that keeps BUNDLE, and serves its trace."""
    store = ReceiptStore(f"sqlite:///{root / 'receipts.db'}")
    store.put(BUNDLE)
    answers = LocalAnswers([TinyEngine(levels=("exact",), profile=EXACT_PROFILE)], tiny_key(), store)
    traces = Traces(tracer, stall=stall)
    async with running(provider_app(answers, store, tiny_key().address, traces=traces), drain=answers.drain) as url:
        yield url, traces


def fetched(url: str, **more: object) -> bytes:
    """The whole trace of BUNDLE."""
    return b"".join(fetch_trace(url, BUNDLE.request, passes_of(BUNDLE), **more))  # type: ignore[arg-type]


async def test_a_trace_is_fetched(tmp_path: Path) -> None:
    """Whole, or for some positions; a validator finds the provider by its address."""
    async with serving(tmp_path, Endless(3)) as (url, _):
        assert len(await asyncio.to_thread(fetched, url)) == 3 << 16
        traces = ProviderTraces(["http://127.0.0.1:9", url])
        served = await asyncio.to_thread(traces, BUNDLE)
        assert served is not None
        assert (served.positions, served.whole) == (None, False)
        stranger = tiny_bundle(tiny_request(level="exact", max_tokens=2), tiny_key(2), 1)
        assert await asyncio.to_thread(traces, stranger) is None
        async with httpx.AsyncClient() as http:
            metrics = (await http.get(f"{url}/metrics")).text
        assert 'assay_traces_total{outcome="served"} 1.0' in metrics


async def test_refusals(tmp_path: Path) -> None:
    """Positions that are none, answers that are unknown, engines without traces."""
    async with serving(tmp_path, Endless(1)) as (url, _):
        with pytest.raises(InvalidRequest, match="no such position"):
            await asyncio.to_thread(fetched, url, positions=[passes_of(BUNDLE)])
        with pytest.raises(NotFound):
            await asyncio.to_thread(lambda: next(fetch_trace(url, tiny_request("other"), 5)))
        async with httpx.AsyncClient() as http:
            reply = await http.get(f"{url}/assay/v1/bundles/{b64(BUNDLE.receipt.digest)}/trace")
            assert reply.status_code == 404
    async with serving(tmp_path, None) as (url, _):
        with pytest.raises(NotFound, match="no traces"):
            await asyncio.to_thread(fetched, url)
    assert tracer_of(TinyEngine()) is None


async def test_one_at_a_time_no_faster_than_it_is_read(tmp_path: Path) -> None:
    """A reader that pauses holds the computing up; meanwhile others are refused; who hangs up ends it."""
    tracer = Endless()
    async with serving(tmp_path, tracer) as (url, _):
        reading = fetch_trace(url, BUNDLE.request, passes_of(BUNDLE))
        await asyncio.to_thread(next, reading)
        await asyncio.sleep(0.5)
        given = tracer.given
        await asyncio.sleep(0.5)
        assert tracer.given == given < 1000
        with pytest.raises(Busy):
            await asyncio.to_thread(fetched, url)
        await asyncio.to_thread(reading.close)
        assert await asyncio.to_thread(tracer.ended.wait, 5)
        tracer.blocks = tracer.given
        assert await asyncio.to_thread(_when_free, url) == b""


def _when_free(url: str) -> bytes:
    for _ in range(100):
        try:
            return fetched(url)
        except Busy:
            threading.Event().wait(0.05)
    raise AssertionError("it stays busy")


async def test_a_reader_that_stays_away_and_a_program_that_ends(tmp_path: Path) -> None:
    """Neither keeps the engine."""
    tracer = Endless()
    async with serving(tmp_path, tracer, stall=0.3) as (url, traces):
        reading = fetch_trace(url, BUNDLE.request, passes_of(BUNDLE))
        await asyncio.to_thread(next, reading)
        assert await asyncio.to_thread(tracer.ended.wait, 5)
        await asyncio.to_thread(reading.close)
        traces.end()
        with pytest.raises(Busy):
            await asyncio.to_thread(fetched, url)


async def test_a_provider_that_sends_without_end(tmp_path: Path) -> None:
    """Readers stop at a size and a time that no honest trace reaches."""
    async with serving(tmp_path, Endless()) as (url, _):
        with pytest.raises(ProviderFailed, match="without end"):
            await asyncio.to_thread(fetched, url, patience=TracePatience(whole=0.3))
    with pytest.raises(ProviderFailed, match="gives no trace"):
        await asyncio.to_thread(fetched, "http://127.0.0.1:9")


async def test_files(tmp_path: Path) -> None:
    """A file is read in blocks; a share of it is chosen anew each time."""
    file = tmp_path / "answer.trace"
    file.write_bytes(b"trace")
    whole = traces_at(str(file))(BUNDLE)
    assert whole is not None
    assert (b"".join(whole.blocks), whole.positions, whole.whole) == (b"trace", None, True)
    chosen = [traces_at(str(file), 0.25)(BUNDLE) for _ in range(20)]
    sizes = {len(one.positions or ()) for one in chosen if one is not None}
    assert sizes == {-(-passes_of(BUNDLE) // 4)}
    assert len({frozenset(one.positions or ()) for one in chosen if one is not None}) > 1
    with pytest.raises(InvalidRequest, match="neither a file nor an address"):
        traces_at(str(tmp_path / "missing"))
    found = traces_at(str(file))(BUNDLE)
    file.unlink()
    assert found is not None
    with pytest.raises(InvalidRequest, match="cannot be read"):
        b"".join(found.blocks)
