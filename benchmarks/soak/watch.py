"""What processes take, looked at again and again: memory and open files."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

MB: Final = 1_000_000


@dataclass
class Taken:
    """Of one process; each list has one entry a look."""

    at: list[float] = field(default_factory=list)
    """Seconds on the monotonic clock."""
    memory: list[float] = field(default_factory=list)
    """Resident, MB."""
    files: list[int] = field(default_factory=list)
    """Open descriptors."""

    def look(self, pid: int) -> None:
        """Look once; a process that is gone by then is passed over."""
        with suppress(OSError, StopIteration):
            lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
            kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
            files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
            self.at.append(time.monotonic())
            self.memory.append(kilobytes * 1024 / MB)
            self.files.append(files)

    @property
    def growth(self) -> float:
        """MB that the straight line through the last two thirds of all looks rises by."""
        late = slice(len(self.at) // 3, None)
        at = np.array(self.at[late])
        return float(np.polyfit(at, self.memory[late], 1)[0] * (at[-1] - at[0]))
