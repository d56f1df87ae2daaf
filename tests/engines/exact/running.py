"""Runs of a model by the reference and by the kernels, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from assay.engines.exact import reference
from assay.engines.exact.affine import Matrix
from assay.engines.exact.program import Program, program_of
from assay.engines.exact.reference import Cache, Model
from assay.engines.exact.runner import Runner


class Pass(NamedTuple):
    """What a pass gives."""

    logits: np.ndarray
    body: np.ndarray
    head: np.ndarray
    record: np.ndarray


def reference_passes(model: Model, tokens: Iterable[int]) -> list[Pass]:
    """The passes of a sequence, by the reference: its products are listened to."""
    done: list[Pass] = []
    cache = Cache.of(model)
    plain = reference.multiply
    heard: list[np.ndarray] = []
    inputs: list[list[int]] = []

    def listen(matrix: Matrix, x: np.ndarray, fraction: int, bias: np.ndarray | None = None) -> tuple[np.ndarray, int]:
        heard.append(plain(matrix, x, fraction)[0])
        inputs.append([*x.tolist(), max(-32767, min(fraction, 32767))])
        return plain(matrix, x, fraction, bias)

    reference.multiply = listen
    try:
        for token in tokens:
            heard.clear()
            inputs.clear()
            logits = reference.forward(model, token, cache)
            record = _record([kept for layer in zip(cache.keys, cache.values, strict=True) for kept in layer], inputs)
            done.append(Pass(logits, np.concatenate(heard[:-1]), heard[-1], record))
    finally:
        reference.multiply = plain
    return done


def _record(kept: Sequence[list[tuple[np.ndarray, np.ndarray]]], inputs: Sequence[list[int]]) -> np.ndarray:
    """The record of the last pass, as `record.py` says it, spelled out."""
    first: list[int] = []
    for numbers, fractions in (each[-1] for each in kept):
        first += [*numbers.reshape(-1).tolist(), *np.clip(fractions, -32767, 32767).tolist()]
    second: list[int] = []
    for number, each in enumerate(inputs):
        if number == len(inputs) - 1 or number % 7 in (0, 3, 4, 6):
            second += each
    return np.array([*first, *[0] * (-len(first) % 256), *second, *[0] * (-len(second) % 256)])


@contextmanager
def running(
    model: Model | Program, *, sequences: int = 1, positions: int = 512, batch: int = 16, threads: int = 1
) -> Iterator[Runner]:
    """A runner that is closed afterwards."""
    program = program_of(model) if isinstance(model, Model) else model
    runner = Runner(program, sequences=sequences, positions=positions, batch=batch, threads=threads, traced=True)
    try:
        yield runner
    finally:
        runner.close()


def body_of(runner: Runner, index: int) -> np.ndarray:
    """All layers' accumulators of the last pass's token `index`, without what fills chunks up."""
    program = runner.program
    return runner.body(index).reshape(program.shape.layers, -1)[:, : program.plan.layer_size].flatten()


def kernel_passes(runner: Runner, tokens: Sequence[int], splits: Sequence[int], sequence: int = 0) -> list[Pass]:
    """The passes of a sequence, by the kernels, in batches of the sizes given (the last one again and again)."""
    done: list[Pass] = []
    turn = 0
    while len(done) < len(tokens):
        start = len(done)
        part = tokens[start : start + splits[min(turn, len(splits) - 1)]]
        runner.decode(part, range(start, start + len(part)), sequence, True)
        done += [
            Pass(runner.logits(n).copy(), body_of(runner, n), runner.head(n).copy(), runner.record(n).copy())
            for n in range(len(part))
        ]
        turn += 1
    return done


def assert_same(found: Sequence[Pass], expected: Sequence[Pass]) -> None:
    """Both agree on every number."""
    for position, (one, other) in enumerate(zip(found, expected, strict=True)):
        for name, a, b in zip(Pass._fields, one, other, strict=True):
            assert np.array_equal(a, b), f"{name} of position {position}"


def check_equal(model: Model, tokens: Sequence[int], *, batch: int = 16, threads: int = 1) -> None:
    """Kernels and reference agree on every accumulator and logit of a sequence."""
    with running(model, positions=len(tokens), batch=batch, threads=threads) as runner:
        assert_same(kernel_passes(runner, tokens, [batch]), reference_passes(model, tokens))
