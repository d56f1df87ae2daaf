"""Exit codes of every command, in one place. `assay --help` prints this table."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from enum import IntEnum
from typing import Final

from assay.core.errors import (
    AssayError,
    Busy,
    ChainFailed,
    EngineError,
    MachineError,
    ProviderFailed,
    StoreError,
    VerificationError,
)


class ExitCode(IntEnum):
    """What a command's exit status means; scripts may rely on these."""

    DONE = 0
    FAILED_CHECK = 1
    BAD_INPUT = 2
    INCONCLUSIVE = 3
    UNREACHABLE = 4
    MACHINE = 5
    BUG = 70
    INTERRUPTED = 130


MEANINGS: Final[Mapping[ExitCode, str]] = {
    ExitCode.DONE: "done; `verify`: the receipt holds",
    ExitCode.FAILED_CHECK: "a check failed; `verify`: the receipt does not hold",
    ExitCode.BAD_INPUT: "wrong usage, unreadable or damaged file, unusable setting, unknown name",
    ExitCode.INCONCLUSIVE: "`verify`: this machine cannot check it (for instance: no model)",
    ExitCode.UNREACHABLE: "nobody answered: no provider, no gateway, no chain, no capacity",
    ExitCode.MACHINE: "this machine: port in use, disk full, engine or database does not work",
    ExitCode.BUG: "an error that Assay did not expect (ASSAY_DEBUG=1 shows where)",
    ExitCode.INTERRUPTED: "interrupted with Ctrl-C",
}
"""One line each."""


def exit_code(error: AssayError) -> ExitCode:
    """The status with which a command ends that raised `error`."""
    if isinstance(error.__cause__, OSError) and error.__cause__.errno in (errno.ENOSPC, errno.EDQUOT):
        return ExitCode.MACHINE  # a full disk, whatever could not be written
    match error:
        case VerificationError():
            return ExitCode.FAILED_CHECK
        case ProviderFailed() | Busy() | ChainFailed():
            return ExitCode.UNREACHABLE
        case EngineError() | StoreError() | MachineError():
            return ExitCode.MACHINE
        case _:
            return ExitCode.BAD_INPUT


def table() -> str:
    """The exit codes as text for `--help`, one to a line."""
    return "\n\n".join(f"[bold]{code.value:>3}[/bold]  {meaning}" for code, meaning in MEANINGS.items())
