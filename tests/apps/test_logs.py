"""What is logged, and what is not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from assay.apps.logs import Recent

_SAYS = """
import logging
from assay.apps.logs import configure_logs
configure_logs("info", "json")
for name in ("asyncio", "httpx", "uvicorn.error"):
    for level in (logging.INFO, logging.WARNING, logging.ERROR):
        logging.getLogger(name).log(level, f"{name} {level}")
"""


@pytest.mark.parametrize(("name", "levels"), [("asyncio", {40}), ("httpx", {30, 40}), ("uvicorn.error", {20, 30, 40})])
def test_strangers_do_not_fill_the_log(name: str, levels: set[int]) -> None:
    """asyncio's warnings come once for each write on a connection that somebody broke off; its errors are heard."""
    done = subprocess.run([sys.executable, "-c", _SAYS], capture_output=True, text=True, check=True)
    assert {level for level in (20, 30, 40) if f'"{name} {level}"' in done.stderr} == levels


_CUT = """
import logging
from assay.apps.logs import configure_logs
configure_logs("info", "text")
try:
    raise OSError(101, "Network is unreachable")
except OSError as error:
    for name in ("zeroconf", "uvicorn.error"):
        logging.getLogger(name).warning(f"{name} fails: {error}", exc_info=True)
"""


def test_a_network_that_is_away_is_no_stack_of_calls() -> None:
    """mDNS sends when a cable is out, too: one line says it. Whatever else raises keeps its stack."""
    done = subprocess.run([sys.executable, "-c", _CUT], capture_output=True, text=True, check=True)
    ours, others = done.stderr.split("uvicorn.error fails")
    assert "zeroconf fails: [Errno 101] Network is unreachable" in ours
    assert "Traceback" not in ours
    assert "Traceback" in others


_KEPT = """
import logging
from assay.apps.logs import configure_logs, logger
recent = configure_logs("{level}")
logger("node").debug("quiet")
logger("node").info("answered", tokens=3, provider=None)
try:
    raise ValueError("why")
except ValueError:
    logger("node").exception("broke")
logging.getLogger("uvicorn.error").info("hello")
logging.getLogger("httpx").info("GET")
for line in recent.after(0):
    print(line.number, line.level, line.program, line.text)
"""


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_the_last_lines_are_kept(level: str) -> None:
    """In memory from `info` on, with facts and reason and without stacks, whatever standard error shows."""
    done = subprocess.run([sys.executable, "-c", _KEPT.format(level=level)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "1 info node answered tokens=3",
        "2 error node broke (ValueError: why)",
        "3 info uvicorn.error hello",
    ]
    shown = {"debug": 10, "info": 20, "warning": 30, "error": 40}[level]
    for word, at in (("quiet", 10), ("answered", 20), ("hello", 20), ("broke", 40)):
        assert (word in done.stderr) == (shown <= at), word


def test_no_more_than_that_is_kept() -> None:
    """A bound on lines and on what is in one of them; numbers go on."""
    recent = Recent(3, clock=lambda: 7.0)
    for number in range(5):
        recent(None, "info", {"event": f"{number}" * 5000, "level": "info", "program": "x"})
    lines = recent.after(0)
    assert [(line.number, line.time, len(line.text)) for line in lines] == [(n, 7.0, 2000) for n in (3, 4, 5)]
    assert recent.after(4) == lines[2:]
    assert recent.after(5) == []
    assert recent.after(480) == lines  # whoever asks had seen an earlier run of the program
