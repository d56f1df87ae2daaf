"""Both sides of disputes put to work: a provider's in a thread of its own, a validator's beside its checks."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Final

from prometheus_client import CollectorRegistry

from assay.apps.auditing import Desk
from assay.apps.disputes.accuser import Accuser
from assay.apps.disputes.defender import Defender
from assay.apps.disputes.limits import Limits
from assay.apps.disputes.party import Means
from assay.apps.disputes.workbench import Workbench
from assay.apps.logs import logger
from assay.apps.metrics import DisputeMetrics
from assay.apps.traces import ProviderTraces, passes_of
from assay.chain.court import CourtClient
from assay.core.bundle import Bundle
from assay.core.errors import AssayError, EncodingError, NotFound
from assay.core.hashing import Digest
from assay.core.keys import Key
from assay.core.voucher import Terms
from assay.engines.exact.engine import ExactEngine
from assay.engines.exact.trace_stream import read_roots
from assay.engines.models import ModelFile
from assay.store.receipts import ReceiptStore

_FIND_SECONDS: Final = 60.0
"""For which a receipt is waited for."""


class Patrol:
    """Calls something again and again, in a thread of its own; failures are logged, once each, and tried again."""

    def __init__(self, look: Callable[[], object], interval: float, name: str) -> None:
        """`interval`: seconds between two looks."""
        self._look: Final = look
        self._interval: Final = interval
        self._log: Final = logger(name)
        self.stop: Final = threading.Event()
        self._trouble = ""
        self._thread: Final = threading.Thread(target=self._run, name="assay-disputes", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End, when what is under way has ended."""
        self.stop.set()
        self._thread.join()

    def tried(self) -> None:
        """One look."""
        why = ""
        try:
            self._look()
        except AssayError as error:
            why = str(error)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the next look may not
            why = f"{type(error).__name__}: {error}"
            self._log.exception("disputes_failed")
        self.tell(why)

    def tell(self, why: str) -> None:
        """Log what was wrong with a look, or nothing, if that is new."""
        if why and why != self._trouble:
            self._log.warning("disputes_failed", reason=why)
        self._trouble = why

    def _run(self) -> None:
        while not self.stop.is_set():
            self.tried()
            self.stop.wait(self._interval)


@contextmanager
def defended(
    court: CourtClient,
    engine: ExactEngine,
    model: ModelFile,
    store: ReceiptStore,
    registry: CollectorRegistry,
    *,
    interval: float,
    gas_worth: float,
) -> Iterator[None]:
    """A provider that defends itself for as long as this lasts. `interval`: seconds between two looks."""
    stopped = threading.Event()
    bench = Workbench(
        model.path, model.sha256, engine.program, engine.reader, alter=engine.alter, stopped=stopped.is_set
    )

    def find(digest: Digest) -> Bundle | None:
        with suppress(NotFound, EncodingError):
            return store.get(digest)
        return None

    means = Means(court, find, bench, logger("provider"), DisputeMetrics(registry), gas_worth=gas_worth)
    patrol = Patrol(Defender(means).look, interval, "provider")
    patrol.start()
    with closing(patrol):
        try:
            yield
        finally:
            stopped.set()


class Disputes:
    """A validator's disputes: which receipts failed is asked of its desk."""

    def __init__(
        self,
        desk: Desk,
        court: CourtClient,
        key: Key,
        bench: Workbench,
        traces: ProviderTraces,
        limits: Limits,
        registry: CollectorRegistry,
        *,
        interval: float,
        gas_worth: float,
        channel: Callable[[Digest], Terms | None],
    ) -> None:
        """`interval`: seconds between two looks. `channel`: terms of a channel by its id, if they are known."""
        self._desk: Final = desk
        self._court: Final = court
        self._interval: Final = interval
        self._loop: asyncio.AbstractEventLoop | None = None
        means = Means(
            court, self._find, bench, logger("validator"), DisputeMetrics(registry), channel, gas_worth=gas_worth
        )
        self._accuser: Final = Accuser(means, key, lambda bundle: _roots(traces, bundle), limits)
        self._failed: Sequence[Digest] = ()
        self._pairs: Sequence[tuple[Digest, Digest]] = ()
        self._patrol: Final = Patrol(lambda: self._accuser.look(self._failed, self._pairs), interval, "validator")

    async def run(self) -> None:
        """Look again and again until cancelled."""
        self._loop = asyncio.get_running_loop()
        while True:
            try:
                age = await asyncio.to_thread(self._court.values)
                self._failed = await self._desk.disproven(int(time.time()) - age.age)
                self._pairs = await self._desk.contradicted()
            except AssayError as error:
                self._patrol.tell(str(error))
            else:
                await asyncio.to_thread(self._patrol.tried)
            await asyncio.sleep(self._interval)

    def _find(self, digest: Digest) -> Bundle | None:
        """Called in the thread of the look."""
        assert self._loop is not None
        with suppress(NotFound, EncodingError):
            return asyncio.run_coroutine_threadsafe(self._desk.bundle(digest), self._loop).result(_FIND_SECONDS)
        return None


def _roots(traces: ProviderTraces, bundle: Bundle) -> Sequence[Digest]:
    with closing(traces.beginning(bundle)) as blocks:
        return read_roots(blocks, passes_of(bundle))
