"""Structured logs on standard error, one line an event: for people, or as JSON."""

from __future__ import annotations

import io
import logging
import sys
from contextlib import suppress
from typing import Final, Literal

import structlog
from structlog.typing import FilteringBoundLogger, Processor
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


def configure_logs(level: LogLevel = "info", form: LogFormat = "text") -> None:
    """Send our events and those of libraries to standard error, in one form."""
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
        processors=[*shared, *final],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(target),  # pyrefly: ignore[bad-argument-type] - write and flush are all it takes
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final]
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(threshold)
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(max(threshold, least))
    logging.getLogger("zeroconf").addFilter(_briefly)


def logger(name: str) -> FilteringBoundLogger:
    """A logger whose events carry the program's name."""
    bound: FilteringBoundLogger = structlog.get_logger(program=name)
    return bound
