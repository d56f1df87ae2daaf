"""Every pass is committed to, whatever was computed, reused or given up before it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from tests.engines.exact.models import write_model
from tests.engines.exact.running import reference_passes

from assay.core.hashing import Digest
from assay.engines.exact.convert import convert
from assay.engines.exact.decoder import ExactDecoder
from assay.engines.exact.program import Program, program_of
from assay.engines.exact.record import both_parts, chunk_digests, evidence_leaves, root_of
from assay.engines.exact.reference import Model
from assay.engines.exact.runner import Runner

TOKENS = [5, 9, 100, 101, 7, 280, 30, 12, 60, 61, 62, 63]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A small Qwen 3."""
    return convert(write_model(tmp_path_factory.mktemp("m") / "m.gguf", "qwen3", layers=2))


@pytest.fixture(scope="module")
def program(model: Model) -> Program:
    """It, laid out."""
    return program_of(model)


@contextmanager
def decoding(program: Program, sequences: int = 2) -> Iterator[ExactDecoder]:
    """A decoder that is closed afterwards."""
    runner = Runner(program, sequences=sequences, positions=64, batch=16, threads=2)
    decoder = ExactDecoder(runner, sequences=sequences)
    try:
        yield decoder
    finally:
        decoder.close()


def expected_leaves(model: Model, tokens: list[int], prompt: int) -> list[Digest]:
    """The evidence of an answer, by the reference alone."""
    kept = program_of(model).layout.kept_chunks * 256
    roots = [
        both_parts(*(root_of(chunk_digests(part.astype(np.int16).reshape(-1, 256))) for part in parts))
        for parts in (np.split(each.record, [kept]) for each in reference_passes(model, tokens))
    ]
    return evidence_leaves(roots, prompt)


def answer(decoder: ExactDecoder, tokens: list[int], prompt: int, *, start: int = 0, sequence: int = 0) -> list[Digest]:
    """The evidence of an answer whose first `start` tokens are in the cache."""
    decoder.decode(tokens[start:prompt], range(start, prompt), sequence, [False] * (prompt - start - 1) + [True])
    rows = [decoder.logits(prompt - start - 1)]
    for position in range(prompt, len(tokens)):
        decoder.decode([tokens[position]], [position], [sequence], True)
        rows.append(decoder.logits(0))
    return [row.leaf(index) for index, row in enumerate(rows)]


def test_a_fresh_answer(model: Model, program: Program) -> None:
    """Its evidence is the reference's."""
    with decoding(program) as decoder:
        assert answer(decoder, TOKENS, 7) == expected_leaves(model, TOKENS, 7)


@pytest.mark.parametrize("kept", [1, 4, 6])
def test_a_reused_beginning(model: Model, program: Program, kept: int) -> None:
    """After another answer with the same beginning the evidence is that of a fresh run; so it is when the prompt is an
    earlier prompt and its answer."""
    other = [*TOKENS[:kept], *reversed(TOKENS)]
    with decoding(program) as decoder:
        answer(decoder, other, kept + 2)
        assert decoder.seq_rm(0, kept, -1)
        assert answer(decoder, TOKENS, 7, start=kept) == expected_leaves(model, TOKENS, 7)
        assert decoder.seq_rm(0, 10, -1)
        assert answer(decoder, TOKENS, 11, start=10) == expected_leaves(model, TOKENS, 11)


def test_positions_that_are_overwritten(model: Model, program: Program) -> None:
    """A token decoded one too far, or a sequence begun again, leaves nothing behind, even if nobody says so."""
    with decoding(program) as decoder:
        answer(decoder, list(reversed(TOKENS)), 3)
        assert answer(decoder, TOKENS, 5) == expected_leaves(model, TOKENS, 5)


def test_neighbours(model: Model, program: Program) -> None:
    """Two sequences that take turns, and share batches, have the evidence of each alone."""
    other = list(reversed(TOKENS))
    with decoding(program) as decoder:
        rows: dict[int, list] = {0: [], 1: []}
        decoder.decode(TOKENS[:5], range(5), 0, [False] * 4 + [True])
        rows[0].append(decoder.logits(4))
        decoder.decode(other[:5], range(5), 1, [False] * 4 + [True])
        rows[1].append(decoder.logits(4))
        for position in range(5, 12):
            decoder.decode([TOKENS[position], other[position]], [position, position], [0, 1], True)
            for sequence in (0, 1):
                rows[sequence].append(decoder.logits(sequence))
        for sequence, tokens in enumerate((TOKENS, other)):
            assert [row.leaf(n) for n, row in enumerate(rows[sequence])] == expected_leaves(model, tokens, 5)


def test_only_an_end_can_be_forgotten(program: Program) -> None:
    """A hole in the middle is refused."""
    with decoding(program) as decoder:
        assert not decoder.seq_rm(0, 1, 3)
