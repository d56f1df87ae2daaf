"""Decoding, reading prompts, start-up and memory, beside llama.cpp with the same file and as many threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from statistics import median

import numpy as np
from benchmarks.exact._kit import SMOL, program_of

from assay.apps.figures import Figure, Say
from assay.apps.wiring import find_model
from assay.engines.exact.runner import Runner
from assay.engines.llama_context import LlamaContext
from assay.engines.llama_model import LlamaModel

PROMPT, OUTPUT = 200, 48
ROUNDS = 7
MOST_MEMORY = 450
_START = """
import resource, sys, time
started = time.perf_counter()
from pathlib import Path
from assay.engines.exact.cache import load
from assay.engines.exact.engine import ExactEngine
from assay.engines.llama_model import LlamaModel
from assay.engines.llama_reader import LlamaReader
from benchmarks.exact._kit import answer, asked, SMOL
from assay.apps.exact import folder
path, digest = Path(sys.argv[1]), bytes.fromhex(sys.argv[2])
program = load(folder() / f"{digest.hex()}.exact", digest)
reader = LlamaReader(LlamaModel(path, vocab_only=True), limit=2048)
engine = ExactEngine(program, reader, name=SMOL, digest=digest, parallel=4, context=2048)
answer(engine, asked(8, 1), 8)
first = time.perf_counter() - started
answer(engine, asked(200, 256), 200)
engine.close()
status = Path("/proc/self/status")
lines = status.read_text().splitlines() if status.is_file() else []
peaks = [line.split()[1] for line in lines if line.startswith("VmHWM")]
# The kernel's ru_maxrss also counts what the process that started this one had.
print(first, int(peaks[0]) if peaks else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def measure(say: Say) -> Iterator[Figure]:
    """Both sides in turn, in one process; greedy, so that neither waits for a sampler."""
    for threads in (1, 2) if (os.cpu_count() or 1) > 1 else (1,):
        yield from _beside(say, threads)
    found = find_model(SMOL)
    firsts, peaks = [], []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", _START, str(found.path), found.sha256.hex()],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        first, peak = json.loads(f"[{done.stdout.replace(' ', ',')}]")
        firsts.append(first)
        peaks.append(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10))
    yield Figure("start_to_first_token", median(firsts), "s", 3.0, median(firsts) <= 3.0, 3)
    yield Figure("memory", max(peaks), "MiB", MOST_MEMORY, max(peaks) <= MOST_MEMORY, 3)


def _beside(say: Say, threads: int) -> Iterator[Figure]:
    tokens = np.random.default_rng(0).integers(100, program_of(SMOL).vocabulary, PROMPT).tolist()
    ours: dict[str, list[float]] = {"decode": [], "prefill": []}
    theirs: dict[str, list[float]] = {"decode": [], "prefill": []}
    with ExitStack() as stack:
        model = stack.enter_context(LlamaModel(find_model(SMOL).path, repack=True))
        context = stack.enter_context(LlamaContext(model, n_ctx=512, n_threads=threads))
        runner = Runner(program_of(SMOL), sequences=1, positions=512, batch=16, threads=threads)
        stack.callback(runner.close)
        for number in range(-1, ROUNDS):
            exact, other = _exact_seconds(runner, tokens), _llama_seconds(context, tokens)
            if number < 0:
                continue
            for name, mine, its in zip(ours, exact, other, strict=True):
                ours[name].append(mine)
                theirs[name].append(its)
            say(
                f"{threads} threads {number + 1}/{ROUNDS}: {OUTPUT / exact[0]:.0f} against {OUTPUT / other[0]:.0f} "
                f"tokens/s, prompts {PROMPT / exact[1]:.0f} against {PROMPT / other[1]:.0f}"
            )
    for name, count, limit in (("decode", OUTPUT, 1.0), ("prefill", PROMPT, 0.7)):
        ratio = median(its / mine for mine, its in zip(ours[name], theirs[name], strict=True))
        yield Figure(f"{name}_{threads}t", count / median(ours[name]), "tokens/s", None, None, ROUNDS)
        yield Figure(f"{name}_{threads}t_llama", count / median(theirs[name]), "tokens/s", None, None, ROUNDS)
        yield Figure(f"{name}_{threads}t_over_llama", ratio, "ratio", limit, ratio >= limit, ROUNDS)


def _exact_seconds(runner: Runner, tokens: list[int]) -> tuple[float, float]:
    started = time.perf_counter()
    for start in range(0, PROMPT, runner.batch):
        part = tokens[start : start + runner.batch]
        runner.decode(part, range(start, start + len(part)), 0, [False] * (len(part) - 1) + [True])
    read = time.perf_counter()
    token = int(runner.logits(len(part) - 1).argmax())
    for position in range(PROMPT, PROMPT + OUTPUT):
        runner.decode([token], [position], 0, True)
        token = int(runner.logits(0).argmax())
    return time.perf_counter() - read, read - started


def _llama_seconds(context: LlamaContext, tokens: list[int]) -> tuple[float, float]:
    context.seq_rm(0, 0, -1)
    started = time.perf_counter()
    context.decode(tokens, range(PROMPT), 0, [False] * (PROMPT - 1) + [True])
    token = int(context.logits(PROMPT - 1).argmax())
    read = time.perf_counter()
    for position in range(PROMPT, PROMPT + OUTPUT):
        context.decode([token], [position], 0, True)
        token = int(context.logits(0).argmax())
    return time.perf_counter() - read, read - started
