"""The models on this machine, as the owner's page lists, adds and removes them."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias

from assay.apps.failures import INTERNAL
from assay.apps.logs import logger
from assay.core.errors import AssayError, Busy, InvalidRequest, ModelNotFound
from assay.core.hashing import Digest
from assay.engines.models import CATALOGUE, list_models, pull, remove

State: TypeAlias = Literal["running", "stopping", "done", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Fetching:
    """A model that is being fetched, or was the last one."""

    name: str
    state: State = "running"
    stage: str = "wait"
    """`wait` for another program that fetches, `download`, `unpack`."""
    done: int = 0
    """Bytes of the stage."""
    total: int = 0
    problem: str = ""
    """Why it failed, and what to do."""

    @property
    def over(self) -> bool:
        """Nothing happens any more."""
        return self.state in ("done", "failed", "cancelled")


class _Cancelled(Exception):
    """The owner does not want the model any more."""


class Shelf:
    """Models under ASSAY_HOME. One is fetched at a time, whoever looks on; all methods but `start` and `cancel` read
    the disk."""

    def __init__(self, home: Path) -> None:
        self._home: Final = home
        self._lock: Final = threading.Lock()
        self._fetching: Fetching | None = None

    @property
    def fetching(self) -> Fetching | None:
        """None: nothing was fetched since the start, or it was put away."""
        return self._fetching

    def listed(self, running: Collection[Digest]) -> Mapping[str, Sequence[Mapping[str, object]]]:
        """The models that are here, and those that can be fetched; `running`: digests of those that answer now.

        Raises:
            ModelFileError: a file cannot be read.
        """
        here = list_models(self._home)
        installed = [
            {
                "name": each.name,
                "size": each.size,
                "sha256": each.sha256.hex(),
                "path": str(each.path),
                "fetched": each.name in CATALOGUE,
                "damaged": each.name in CATALOGUE and CATALOGUE[each.name].sha256 != each.sha256,
                "running": each.sha256 in running,
            }
            for each in here
        ]
        names = {each.name for each in here}
        available = [
            {"name": name, "title": entry.title, "licence": entry.licence, "size": entry.size}
            for name, entry in CATALOGUE.items()
            if name not in names
        ]
        return {"installed": installed, "available": available}

    def start(self, name: str) -> None:
        """Begin to fetch a model of the catalogue.

        Raises:
            ModelNotFound: it has none of this name.
            Busy: one is being fetched.
        """
        if name not in CATALOGUE:
            raise ModelNotFound(f"the catalogue has no model {name[:80]!r}", f"choose one of {', '.join(CATALOGUE)}")
        with self._lock:
            self._check_idle()
            self._fetching = Fetching(name)
        # Not in a pool, whose work the program would wait for when it ends: pip ends with it, and what is left of the
        # file is cleared by the next fetch.
        threading.Thread(target=self._fetch, args=(name,), daemon=True).start()

    def cancel(self) -> None:
        """Stop fetching, soon; or put away what is told of the last one."""
        with self._lock:
            if self._fetching is not None:
                self._fetching = None if self._fetching.over else replace(self._fetching, state="stopping")

    def remove(self, name: str, running: Collection[Digest]) -> None:
        """Delete a fetched model, or forget the name of an added file.

        Raises:
            ModelNotFound: none of this name is here.
            InvalidRequest: it answers now.
            Busy: one is being fetched.
            ModelFileError: it cannot be deleted.
        """
        with self._lock:
            self._check_idle()
        if any(each.name == name and each.sha256 in running for each in list_models(self._home)):
            raise InvalidRequest(
                f"{name} answers now", field="name", remedy="start the program with another model first"
            )
        remove(name, self._home)

    def _check_idle(self) -> None:
        if self._fetching is not None and not self._fetching.over:
            raise Busy(f"{self._fetching.name} is being fetched", remedy="wait until it is here, or cancel that")

    def _fetch(self, name: str) -> None:
        def report(stage: str, done: int, total: int) -> None:
            with self._lock:
                if self._fetching is None or self._fetching.state == "stopping":
                    raise _Cancelled
                self._fetching = replace(self._fetching, stage=stage, done=done, total=total)

        try:
            pull(name, self._home, report=report)
            self._end("done")
        except _Cancelled:
            self._end("cancelled")
        except AssayError as error:
            logger("window").warning("model_not_fetched", model=name, reason=error.message)
            self._end("failed", str(error))
        except Exception:  # noqa: BLE001 - logged; or the page would wait for ever
            logger("window").exception("fetch_broke", model=name)
            self._end("failed", str(INTERNAL))

    def _end(self, state: State, problem: str = "") -> None:
        with self._lock:
            if self._fetching is not None:
                self._fetching = replace(self._fetching, state=state, problem=problem)


def shown(fetching: Fetching | None) -> Mapping[str, object] | None:
    """For the page."""
    return None if fetching is None else {**asdict(fetching), "over": fetching.over}
