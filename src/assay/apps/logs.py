"""Structured logs on standard error, one line an event, for people or as JSON. The last ones are kept in memory too."""

from __future__ import annotations

import io
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor
from typing_extensions import override

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]
_QUIET: Final = {
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
    "uvicorn.access": logging.WARNING,
    "asyncio": logging.ERROR,
}
"""From which level on libraries are heard: below it they say nothing that our own events do not. asyncio warns once for
each write after somebody has broken a connection off, so that strangers could fill the log."""


MOST_LINES: Final = 500
"""That are kept in memory."""
_MOST_TEXT: Final = 2000
"""Characters of one of them."""
_ASIDE: Final = frozenset({"event", "level", "program", "timestamp", "exc_info"})
"""Of an event, what is no fact of its text."""


@dataclass(frozen=True, slots=True)
class Line:
    """One event, in memory."""

    number: int
    """From 1 on, in the order in which they came."""
    time: float
    """Unix seconds."""
    level: str
    program: str
    text: str
    """What happened, and its facts."""


class Recent(logging.Handler):
    """The last lines of the log, for the program's owner: from `info` on, whatever standard error shows.

    A handler for the events of libraries, and a processor for our own.
    """

    def __init__(self, most: int = MOST_LINES, clock: Callable[[], float] = time.time) -> None:
        """`most`: lines that are kept. `clock`: Unix seconds."""
        super().__init__(logging.INFO)
        self._clock: Final = clock
        self._lines: Final[deque[Line]] = deque(maxlen=most)
        self._count = 0
        self._keeping: Final = threading.Lock()

    def after(self, number: int) -> Sequence[Line]:
        """Those that came after the one of this number, the oldest first; all, where that was of an earlier run."""
        with self._keeping:
            after = 0 if number > self._count else number  # it counts anew when the program has started again
            return [line for line in self._lines if line.number > after]

    @override
    def emit(self, record: logging.LogRecord) -> None:
        """Keep an event of a library."""
        failed = record.exc_info[1] if record.exc_info else None
        self._keep(record.levelname.lower(), record.name, record.getMessage() + _why(failed))

    def __call__(self, _logger: object, _name: str, event: EventDict) -> EventDict:
        """Keep an event of ours, and pass it on."""
        if _rank(event) < self.level:
            return event
        facts = [f"{name}={value}" for name, value in event.items() if name not in _ASIDE and value is not None]
        failed = event.get("exc_info")
        if failed is True:
            failed = sys.exc_info()[1]
        text = " ".join([str(event.get("event", "")), *facts])
        why = _why(failed) if isinstance(failed, BaseException) else ""
        self._keep(str(event["level"]), str(event.get("program", "")), text + why)
        return event

    def _keep(self, level: str, program: str, text: str) -> None:
        with self._keeping:
            self._count += 1
            self._lines.append(Line(self._count, self._clock(), level, program, text[:_MOST_TEXT]))


def _why(error: BaseException | None) -> str:
    return "" if error is None else f" ({type(error).__name__}: {error})"


def _rank(event: EventDict) -> int:
    return logging.getLevelNamesMapping()[str(event["level"]).upper()]


def _only_from(threshold: int) -> Processor:
    """Drops what is below a level."""

    def passed(_logger: object, _name: str, event: EventDict) -> EventDict:
        if _rank(event) < threshold:
            raise structlog.DropEvent
        return event

    return passed


def _briefly(record: logging.LogRecord) -> bool:
    """A filter: where the machine has lost its network for a moment, what failed is told without a stack."""
    if record.exc_info and isinstance(record.exc_info[1], OSError):
        record.exc_info = None
    return True


class _StandardError(io.TextIOBase):
    """Where a full disk or a closed pipe costs lines of the log, and no answers."""

    @override
    def write(self, text: str, /) -> int:
        with suppress(OSError):
            sys.stderr.write(text)
        return len(text)

    @override
    def flush(self) -> None:
        with suppress(OSError):
            sys.stderr.flush()


def configure_logs(level: LogLevel = "info", form: LogFormat = "text") -> Recent:
    """Send our events and those of libraries to standard error, in one form; gives those that are kept in memory."""
    recent = Recent()
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    target = _StandardError()
    final: list[Processor] = (
        [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
        if form == "json"
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    structlog.configure(
        processors=[*shared, recent, _only_from(threshold), *final],
        wrapper_class=structlog.make_filtering_bound_logger(min(threshold, recent.level)),
        logger_factory=structlog.PrintLoggerFactory(target),  # pyrefly: ignore[bad-argument-type] - write and flush are all it takes
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final]
        )
    )
    root = logging.getLogger()
    handler.setLevel(threshold)
    root.handlers[:] = [handler, recent]
    root.setLevel(min(threshold, recent.level))
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(max(threshold, least))
    logging.getLogger("zeroconf").addFilter(_briefly)
    return recent


def logger(name: str) -> FilteringBoundLogger:
    """A logger whose events carry the program's name."""
    bound: FilteringBoundLogger = structlog.get_logger(program=name)
    return bound
