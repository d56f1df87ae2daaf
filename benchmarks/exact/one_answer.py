"""The same records and logits whatever computes them: threads, batches, neighbours, processors, numba and numpy."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from benchmarks.exact._kit import program_of
from tests.engines.exact.models import VOCABULARY, write_model
from tests.engines.exact.running import reference_passes
from tests.engines.exact.test_reference import VARIANTS

from assay.apps.figures import Figure, Say
from assay.apps.wiring import find_model
from assay.engines.exact.convert import convert
from assay.engines.exact.program import Program
from assay.engines.exact.program import program_of as laid_out
from assay.engines.exact.runner import Runner

MODELS = ("smollm2-135m", "gemma3-270m")
LENGTH = 96
REFERENCE = 4
"""Tokens that the reference computes of the two models: half a minute each."""
_GENERIC = "from benchmarks.exact import one_answer; one_answer.print_digests(__import__('sys').argv[1:])"


def measure(say: Say) -> Iterator[Figure]:
    """How many configurations give other digests than one token at a time on one thread."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: find_model(name).path for name in MODELS}
        for name, given in VARIANTS.items():
            paths[name] = write_model(Path(folder) / name, **given)
        generic = _generic(say, list(paths.values()))
        for number, (name, path) in enumerate(paths.items()):
            program = program_of(name) if name in MODELS else laid_out(convert(path))
            tokens = tokens_of(program)
            expected = digests(program, tokens, [1])
            found = list(_configurations(program, tokens))
            found.append(generic[number])
            differing = sum(each != expected for each in found)
            short = tokens if name not in MODELS else tokens[:REFERENCE]
            referenced = _reference(path, program, short)
            differing += referenced != digests(program, short, [1])
            say(f"{name}: {len(found) + 1} configurations, {differing} differ")
            yield Figure(f"one_answer.{name}", differing, "configurations", 0, differing == 0, len(found) + 1)


def tokens_of(program: Program) -> list[int]:
    """Arbitrary ones."""
    most = min(program.vocabulary, 49_000)
    return np.random.default_rng(5).integers(3, most, LENGTH if most > VOCABULARY else 40).tolist()


def digests(program: Program, tokens: Sequence[int], splits: Sequence[int], *, threads: int = 1) -> str:
    """SHA-256 over the records and logits of a sequence, computed in batches of these sizes, again and again."""
    runner = Runner(program, sequences=1, positions=len(tokens), batch=32, threads=threads)
    state = hashlib.sha256()
    try:
        start = turn = 0
        while start < len(tokens):
            part = tokens[start : start + splits[turn % len(splits)]]
            runner.decode(part, range(start, start + len(part)), 0, True)
            for n in range(len(part)):
                state.update(runner.record(n).astype("<i2").tobytes() + runner.logits(n).astype("<i4").tobytes())
            start, turn = start + len(part), turn + 1
    finally:
        runner.close()
    return state.hexdigest()


def print_digests(paths: Sequence[str]) -> None:
    """Of several models, for another process to read."""
    for path in paths:
        program = laid_out(convert(Path(path)))
        print(digests(program, tokens_of(program), [16]))


def _configurations(program: Program, tokens: Sequence[int]) -> Iterator[str]:
    for threads in (1, 2):
        for splits in ([16], [32], [1, 7, 3, 16], [5]):
            yield digests(program, tokens, splits, threads=threads)
    for sequences in (2, 3, 4):
        yield from _side_by_side(program, tokens, sequences)


def _side_by_side(program: Program, tokens: Sequence[int], sequences: int) -> Iterator[str]:
    """Each of several sequences, all of the same tokens, of which each is at another position."""
    runner = Runner(program, sequences=sequences, positions=len(tokens), batch=16, threads=1)
    states = [hashlib.sha256() for _ in range(sequences)]
    try:
        for step in range(len(tokens) + sequences - 1):
            here = [(step - s, s) for s in range(sequences) if 0 <= step - s < len(tokens)]
            positions, which = [p for p, _ in here], [s for _, s in here]
            runner.decode([tokens[p] for p in positions], positions, which, True)
            for n, s in enumerate(which):
                states[s].update(runner.record(n).astype("<i2").tobytes() + runner.logits(n).astype("<i4").tobytes())
    finally:
        runner.close()
    yield from (state.hexdigest() for state in states)


def _reference(path: Path, program: Program, tokens: Sequence[int]) -> str:
    state = hashlib.sha256()
    for each in reference_passes(convert(path), tokens):
        record = program.layout.empty(1)[0]
        record[: each.record.size] = each.record
        state.update(record.astype("<i2").tobytes() + each.logits.astype("<i4").tobytes())
    return state.hexdigest()


def _generic(say: Say, paths: Sequence[Path]) -> list[str]:
    """The same in a process whose kernels are compiled for any processor of this family."""
    say("compiling for NUMBA_CPU_NAME=generic")
    root = Path(__file__).parents[2]
    environment = {**os.environ, "NUMBA_CPU_NAME": "generic", "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"}
    done = subprocess.run(
        [sys.executable, "-c", _GENERIC, *map(str, paths)], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()
