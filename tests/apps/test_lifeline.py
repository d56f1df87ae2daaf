"""Processes that end with the one that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from assay.apps.lifeline import PARENT, start, stop, tail

ROOT = Path(__file__).parents[2]
CHILD = """
import sys, time
from assay.apps.lifeline import follow_parent
follow_parent()
print("ready", flush=True)
time.sleep(60)
"""
PARENT_PROGRAM = f"""
import os, sys
from assay.apps.lifeline import start
child = start([sys.executable, "-c", {CHILD!r}], env=dict(os.environ), log=sys.stderr.buffer)
child.stdout.readline()
print(child.pid, flush=True)
sys.stdin.read()
"""


def environment() -> dict[str, str]:
    """In which the package is found."""
    return {**os.environ, "PYTHONPATH": str(ROOT / "src")}


def gone(pid: int, seconds: float = 5.0) -> bool:
    """The process ends within so many seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":  # its new parent has not looked yet
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_ends_with_its_parent(number: signal.Signals) -> None:
    """A parent that is killed without a chance to clean up takes its children with it."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT_PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
    )
    assert parent.stdout is not None
    assert parent.stdin is not None
    pid = int(parent.stdout.readline())
    os.kill(pid, 0)
    parent.send_signal(number)
    parent.wait()
    assert gone(pid)
    parent.stdin.close()
    parent.stdout.close()


def test_the_pipe_alone_is_enough(tmp_path: Path) -> None:
    """Where the system has no signal for it, the end of standard input ends the child."""
    with (tmp_path / "log").open("wb") as log:
        child = start([sys.executable, "-c", CHILD], env=environment(), log=log)
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    child.stdin.close()
    assert child.wait(5) == 1
    child.stdout.close()


def test_stop_ends_the_stubborn(tmp_path: Path) -> None:
    """Who ignores SIGTERM is killed; what it said is in its log."""
    stubborn = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print('no', file=sys.stderr); print('ready', flush=True); time.sleep(60)"
    )
    log = tmp_path / "log"
    with log.open("wb") as file:
        child = start([sys.executable, "-c", stubborn], env=environment(), log=file)
    assert child.stdout is not None
    child.stdout.readline()
    stop([child], patience=0.2)
    assert child.returncode is not None
    assert tail(log) == "no"


def test_a_process_that_nobody_started_goes_on() -> None:
    """Without the variable, a closed standard input means nothing."""
    env = {name: value for name, value in environment().items() if name != PARENT}
    done = subprocess.run(
        [sys.executable, "-c", CHILD.replace("time.sleep(60)", "time.sleep(0.3)")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=env,
    )
    assert (done.returncode, done.stdout) == (0, b"ready\n")
