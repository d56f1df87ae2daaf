"""The command line `assay`: one file a command, put together in `app.py`. Exit codes are listed in `exits.py`."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> None:
    """Run a command and leave with its exit code (see `exits.py`); never with a traceback, unless ASSAY_DEBUG=1."""
    from assay.apps.cli.app import run
    from assay.apps.cli.console import survive_any_encoding
    from assay.apps.lifeline import follow_parent

    follow_parent()
    survive_any_encoding()
    sys.exit(run(args))
