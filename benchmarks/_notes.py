"""Writes down what the tests of the referees ask contracts: `python -m benchmarks._notes FILE TEST...`."""

from __future__ import annotations

import pickle
import random
import sys
from pathlib import Path
from typing import Any, Final

import pytest

HEAD: Final = 1024
"""Bytes of a call that differ in many of them: behind these stand openings, each of which is kept once."""


class Notes:
    """Stands beside pytest. It imports the chain late: pytest has to see tests before anybody else does."""

    def __init__(self) -> None:
        self.asked: dict[tuple[str, bytes], bytes | None] = {}
        """Answers, by contract and call."""

    def pytest_collection_finish(self) -> None:
        """Listen from now on."""
        from tests.chain.tribunal import Bench

        call: Any = Bench.call

        def noted(bench: Bench, name: str, data: bytes) -> tuple[bytes, int] | None:
            found = call(bench, name, data)
            self.asked[name, data] = found and found[0]
            return found

        Bench.call = noted

    def write(self, path: Path) -> None:
        """By contract, in any order: head and rest of a call, and its answer."""
        rests: dict[bytes, bytes] = {}
        calls: dict[str, list[tuple[bytes, bytes, bytes | None]]] = {}
        for (name, data), answer in self.asked.items():
            rest = rests.setdefault(data[HEAD:], data[HEAD:])
            calls.setdefault(name, []).append((data[:HEAD], rest, answer))
        for each in calls.values():
            random.Random(1).shuffle(each)
        path.write_bytes(pickle.dumps(calls))


def main() -> int:
    """The exit code of the tests; there is a file only if they pass."""
    notes = Notes()
    failed = pytest.main(["-q", "-x", "-m", "not slow", "-p", "no:cacheprovider", *sys.argv[2:]], plugins=[notes])
    if not failed:
        notes.write(Path(sys.argv[1]))
    return failed


if __name__ == "__main__":
    sys.exit(main())
