"""What is logged, and what is not."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
