"""Children that end with their parent, also when it is killed without a chance to clean up."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

PARENT: Final = "ASSAY_PARENT"
"""Environment variable with the process id that this process must not outlive."""
_PR_SET_PDEATHSIG: Final = 1


def start(command: Sequence[str], *, env: Mapping[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start `command` so that `follow_parent` in it ends it with this process; its errors go to `log`.

    `env` is its whole environment. Call it from the main thread: Linux watches the thread that starts a process, not
    the whole parent. Its standard output is a pipe; it has a process group of its own, so that Ctrl-C in the terminal
    reaches the parent only.
    """
    return subprocess.Popen(
        list(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env={**env, PARENT: str(os.getpid())},
        process_group=0 if os.name == "posix" else None,
    )


def follow_parent() -> None:
    """End this process when the one that `start`ed it is gone; does nothing in a process that nobody `start`ed."""
    parent = os.environ.pop(PARENT, "")
    if not parent.isdigit():
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != int(parent):  # it died before the call above
            os._exit(1)
    threading.Thread(target=_watch, name="assay-lifeline", daemon=True).start()


def stop(processes: Sequence[subprocess.Popen[bytes]], *, patience: float = 5.0) -> None:
    """Ask processes to end, and kill those that have not within `patience` seconds."""
    for process in processes:
        with suppress(OSError):
            process.terminate()
    for process in processes:
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


def tail(log: Path, lines: int = 5) -> str:
    """The last lines of a log, for an error message."""
    try:
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def _watch() -> None:
    """Standard input is a pipe whose other end only the parent holds: it ends with the parent."""
    with suppress(OSError):
        while os.read(0, 4096):  # not through sys.stdin, whose lock would block the interpreter's end
            pass
    os._exit(1)
