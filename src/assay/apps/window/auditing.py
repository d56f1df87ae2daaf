"""Full checks of receipts for the owner of a program: what `assay verify` does, one at a time, off the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Final, Literal, Protocol, TypeAlias

from assay.apps.checking import find_by_digest, how_to_get, open_checker
from assay.apps.logs import logger
from assay.core.bundle import Bundle
from assay.core.errors import AssayError, Busy, NotFound
from assay.core.hashing import Digest
from assay.core.verdict import Verdict
from assay.engines.models import ModelFile

Stage: TypeAlias = Literal["loading", "computing", "done", "failed", "stopped"]
"""`failed`: this machine could not; `stopped`: its owner, or the limit of time, ended it."""
Clock: TypeAlias = Callable[[], float]
LEASE_S: Final = 90.0
"""An audit that nobody has looked at for so long is of a page that was left. Browsers let pages in the background look
once a minute."""
MOST_S: Final = 3600.0
"""Longest audit."""


class Opener(Protocol):
    """Opens a model for checks; see `open_checker`."""

    def __call__(
        self, model: ModelFile, *, stopped: Callable[[], bool]
    ) -> AbstractContextManager[Callable[[Bundle], Verdict]]:
        """A function that checks receipts of the model. `stopped`: True ends the one under way soon."""
        ...


class _Audit:
    """One that was begun."""

    def __init__(self, receipt: Digest, clock: Clock) -> None:
        self.receipt: Final = receipt
        self._clock: Final = clock
        self._started: Final = clock()
        self._ended: float | None = None
        self._looked = self._started
        self._given_up = False
        self.stage: Stage = "loading"
        self.verdict: Verdict | None = None
        self.error = ""

    @property
    def over(self) -> bool:
        return self.stage in ("done", "failed", "stopped")

    def stopped(self) -> bool:
        now = self._clock()
        return self._given_up or now - self._looked > LEASE_S or now - self._started > MOST_S

    def stop(self) -> None:
        self._given_up = True

    def end(self, stage: Stage) -> None:
        self._ended, self.stage = self._clock(), stage

    def look(self) -> Mapping[str, object]:
        self._looked = self._clock()
        until = self._looked if self._ended is None else self._ended
        return {
            "receipt": self.receipt.hex(),
            "stage": self.stage,
            "seconds": round(until - self._started, 1),
            "verdict": None if self.verdict is None else self.verdict.to_json(),
            "error": self.error,
        }


class Audits:
    """The audit under way, if there is one, and the last one's outcome."""

    def __init__(
        self,
        *,
        models: Sequence[ModelFile] = (),
        find: Callable[[Digest], ModelFile | None] = find_by_digest,
        opener: Opener = open_checker,
        clock: Clock = time.monotonic,
    ) -> None:
        """`models`: those that the program runs, wherever their files are. `find`: another one on this machine, by its
        digest. `clock`: seconds that only rise."""
        self._models: Final = {model.sha256: model for model in models}
        self._find: Final = find
        self._open: Final = opener
        self._clock: Final = clock
        self._last: _Audit | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, bundle: Bundle) -> Mapping[str, object]:
        """Begin to check a receipt, on the running event loop; gives what `look` does.

        Raises:
            Busy: another one is being checked.
        """
        if not self.over:
            raise Busy("another receipt is being checked", retry_after=5, remedy="wait for it, or stop it")
        audit = self._last = _Audit(bundle.receipt.digest, self._clock)
        self._task = asyncio.create_task(asyncio.to_thread(self._check, audit, bundle))
        return audit.look()

    def look(self) -> Mapping[str, object] | None:
        """How the last audit stands: its `receipt`'s digest, `stage`, `seconds`; then the `verdict`, or the `error`."""
        return None if self._last is None else self._last.look()

    @property
    def over(self) -> bool:
        """None is under way."""
        return self._last is None or self._last.over

    def stop(self) -> None:
        """End the audit under way soon."""
        if self._last is not None:
            self._last.stop()

    def _check(self, audit: _Audit, bundle: Bundle) -> None:
        stage: Stage = "failed"
        try:
            with self._open(self._model(bundle.receipt.model), stopped=audit.stopped) as check:
                audit.stage = "computing"
                verdict = check(bundle)
            if audit.stopped():  # its verdict says that it was broken off
                stage = "stopped"
            else:
                audit.verdict, stage = verdict, "done"
        except AssayError as error:
            audit.error = str(error)
        except Exception:  # noqa: BLE001 - the page is told, and the log has it
            audit.error = "the check failed: the program's log says why"
            logger("window").exception("audit_failed")
        finally:
            audit.end(stage)

    def _model(self, digest: Digest) -> ModelFile:
        model = self._models.get(digest) or self._find(digest)
        if model is None:
            raise NotFound(
                f"the model of this receipt (SHA-256 {digest.hex()[:16]}…) is not on this machine", how_to_get(digest)
            )
        return model
