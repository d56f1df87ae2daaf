"""One chunk and one pass, opened under a receipt's evidence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.engines.exact.accumulator_kit import LAYOUT, NONCE, header_of, passes_of, vector

from assay.core.errors import BindingMismatch, EncodingError
from assay.core.evidence import evidence_root
from assay.core.hashing import ZERO
from assay.engines.exact.accumulators import chunks_of, evidence_leaves, token_leaf
from assay.engines.exact.chunks import encode_vector, vector_root
from assay.engines.exact.openings import (
    ChunkOpening,
    Part,
    PassOpening,
    prove_chunk,
    prove_pass,
    verify_chunk,
    verify_pass,
)

BODY, HEAD = vector(1, LAYOUT.body), vector(2, LAYOUT.head)
PACKED = encode_vector(BODY), encode_vector(HEAD)
LEAF = token_leaf(vector_root(BODY), vector_root(HEAD))


@pytest.mark.parametrize("part", ["body", "head"])
def test_every_chunk_can_be_opened(part: Part) -> None:
    """Each one is shown with its numbers, and not as another one's place, part, or content."""
    x = BODY if part == "body" else HEAD
    for index, chunk in enumerate(chunks_of(x)):
        opening = prove_chunk(*PACKED, part, index)
        assert (verify_chunk(opening, LEAF, len(x)) == chunk).all()
        flipped = bytes([opening.data[0] ^ 1]) + opening.data[1:]
        wrong = [
            replace(opening, index=index ^ 1),
            replace(opening, index=-1),
            replace(opening, part="head" if part == "body" else "body"),
            replace(opening, data=flipped),
            replace(opening, data=prove_chunk(*PACKED, part, index ^ 1).data),
            replace(opening, path=opening.path[:-1]),
            replace(opening, path=(ZERO, *opening.path[1:])),
            replace(opening, other=ZERO),
            replace(opening, other=opening.other + b"x"),
        ]
        for other in wrong:
            with pytest.raises((BindingMismatch, EncodingError)):
                verify_chunk(other, LEAF, len(x))
        for leaf, size in ((ZERO, len(x)), (LEAF, len(x) + 256)):
            with pytest.raises(BindingMismatch):
                verify_chunk(opening, leaf, size)


def test_a_pass_without_a_head() -> None:
    """Its body is opened beside zeros; there is nothing else to open."""
    opening = prove_chunk(PACKED[0], None, "body", 3)
    verify_chunk(opening, token_leaf(vector_root(BODY)), LAYOUT.body)
    for index, part in ((0, "head"), (-1, "body"), (999, "body")):
        with pytest.raises(IndexError):
            prove_chunk(PACKED[0], None, part, index)  # pyrefly: ignore


def test_numbers_behind_the_end_are_refused() -> None:
    """Who commits to more accumulators than there are cannot open the last chunk."""
    x = np.ones(512, dtype=np.int64)
    opening: ChunkOpening = prove_chunk(encode_vector(x), None, "body", 1)
    verify_chunk(opening, token_leaf(vector_root(x)), 512)
    with pytest.raises(EncodingError, match="zeros"):
        verify_chunk(opening, token_leaf(vector_root(x)), 511)


@pytest.mark.parametrize(("prompt", "output"), [(1, 1), (1, 4), (3, 1), (20, 5)])
def test_every_pass_can_be_opened(prompt: int, output: int) -> None:
    """Passes of prompt and output are under the evidence, and at no other position or in another response."""
    leaves = [bytes([i]) * 32 for i in range(prompt + output - 1)]
    evidence = evidence_root(evidence_leaves(leaves, prompt), NONCE)
    for position, leaf in enumerate(leaves):
        opening: PassOpening = prove_pass(leaves, prompt, position)
        assert opening.leaf == leaf
        verify_pass(opening, prompt, output, evidence, NONCE)
        wrong = [
            *(replace(opening, position=other) for other in range(-1, len(leaves) + 1) if other != position),
            replace(opening, leaf=b"\xff" * 32),
            replace(opening, leaf=opening.leaf + b"x"),
            replace(opening, prompt_path=(*opening.prompt_path, ZERO)),
            replace(opening, prompt_root=b"\xff" * 32),
            replace(opening, path=(*opening.path, ZERO)),
            replace(opening, root=ZERO),
        ]
        for other in wrong:
            with pytest.raises(BindingMismatch):
                verify_pass(other, prompt, output, evidence, NONCE)
        for claim in ((prompt + 1, output, evidence, NONCE), (prompt, output + 1, evidence, NONCE),
                      (prompt, output, ZERO, NONCE), (prompt, output, evidence, ZERO)):  # fmt: skip
            with pytest.raises(BindingMismatch):
                verify_pass(opening, *claim)
    for position in (-1, len(leaves)):
        with pytest.raises(IndexError):
            prove_pass(leaves, prompt, position)


def test_a_chunk_down_from_the_receipt() -> None:
    """Both openings together lead from the evidence to one chunk's numbers."""
    passes = passes_of(2, 3)
    header = header_of(2, 3, passes)
    leaves = [item.leaf for item in passes]
    for position, item in enumerate(passes):
        opened = prove_pass(leaves, 2, position)
        verify_pass(opened, 2, 3, header.evidence, NONCE)
        chunk = prove_chunk(item.body, item.head, "body", 7)
        verify_chunk(chunk, opened.leaf, LAYOUT.body)
