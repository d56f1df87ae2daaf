"""Openings of a receipt's commitment: one chunk of a token's pass, and that pass under the evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from assay.core import merkle, tree16
from assay.core.errors import BindingMismatch, EncodingError
from assay.core.hashing import ZERO, Digest, digest
from assay.engines.exact.accumulators import (
    CHUNK,
    chunk_count,
    chunk_digest,
    decode_chunk,
    evidence_leaves,
    token_leaf,
)
from assay.engines.exact.chunks import Chunks, digest_list

Part: TypeAlias = Literal["body", "head"]
"""Which of a pass's two vectors."""


@dataclass(frozen=True, slots=True)
class ChunkOpening:
    """One chunk of a pass, and the way from it to the pass's leaf."""

    part: Part
    index: int
    """Of the chunk in its vector."""
    data: bytes
    """Its encoding."""
    path: tuple[Digest, ...]
    """To the root of its vector, see `tree16.prove`."""
    other: Digest
    """The root of the other vector; ZERO for a head that is not there."""


@dataclass(frozen=True, slots=True)
class PassOpening:
    """The leaf of one pass, and the way from it to the receipt's evidence."""

    position: int
    """Of the token that was passed through the model: the prompt's first is 0."""
    leaf: Digest
    prompt_path: tuple[Digest, ...]
    """For a token of the prompt: to the root over the prompt's passes, see `tree16.prove`."""
    prompt_root: Digest
    """That root; ZERO for a token of the output."""
    path: tuple[Digest, ...]
    """To the Merkle root of the evidence, see `merkle.prove`."""
    root: Digest
    """That root, before it is salted."""


def prove_chunk(body: Chunks, head: Chunks | None, part: Part, index: int) -> ChunkOpening:
    """Open chunk `index` of one of a pass's vectors.

    Raises:
        IndexError: there is no such chunk.
    """
    vector, other = (body, head) if part == "body" else (head, body)
    if vector is None or not 0 <= index < len(vector.widths):
        raise IndexError(f"no chunk {index} in the {part}")
    bounds = vector.bounds
    data = vector.data[bounds[index] : bounds[index + 1]].tobytes()
    path = tree16.prove(digest_list(vector.digests()), index)
    return ChunkOpening(part, index, data, path, ZERO if other is None else other.root())


def verify_chunk(opening: ChunkOpening, leaf: Digest, size: int) -> np.ndarray:
    """The accumulators of an opened chunk, int64 [CHUNK], after checking them against the pass's leaf.

    `size`: accumulators of the whole vector, as the model has them.

    Raises:
        EncodingError: no chunk is encoded like this, or it is the last one and not filled up with zeros.
        BindingMismatch: it is not the pass's chunk.
    """
    if len(opening.other) != 32:  # or the two roots' border could be moved
        raise BindingMismatch("other", "a root is not 32 bytes")
    chunk = decode_chunk(opening.data)
    root = tree16.climb(chunk_count(size), opening.index, chunk_digest(opening.data), opening.path)
    roots = (root, opening.other) if opening.part == "body" else (opening.other, root)
    if token_leaf(*roots) != leaf:
        raise BindingMismatch("path", f"chunk {opening.index} of the {opening.part} is not in the token's pass")
    if chunk[max(0, size - opening.index * CHUNK) :].any():
        raise EncodingError("the last chunk of accumulators is not filled up with zeros")
    return chunk


def prove_pass(leaves: Sequence[Digest], prompt: int, position: int) -> PassOpening:
    """Open the pass at `position`, given the leaves of all passes, of which the first `prompt` are the prompt's.

    Raises:
        IndexError: there is no such pass.
    """
    if not 0 <= position < len(leaves) or not 0 < prompt <= len(leaves):
        raise IndexError(f"no pass {position} among {len(leaves)}")
    outputs = [merkle.leaf(item) for item in evidence_leaves(leaves, prompt)]
    path, root = merkle.prove(outputs, max(0, position - prompt + 1)), merkle.root(outputs)
    if position >= prompt:
        return PassOpening(position, leaves[position], (), ZERO, path, root)
    whole = leaves[:prompt]
    return PassOpening(position, leaves[position], tree16.prove(whole, position), tree16.root(whole), path, root)


def verify_pass(opening: PassOpening, prompt: int, output: int, evidence: Digest, nonce: bytes) -> None:
    """Check that the opened leaf is under a receipt's evidence; the receipt's answer has `output` tokens.

    Raises:
        BindingMismatch: it is not.
    """
    if not 0 <= opening.position < prompt + output - 1:
        raise BindingMismatch("index", f"no pass {opening.position} of {prompt} + {output} tokens")
    item = opening.leaf
    if opening.position < prompt:
        tree16.verify(opening.prompt_root, prompt, opening.position, item, opening.prompt_path)
        item = opening.prompt_root
    elif opening.prompt_path or opening.prompt_root != ZERO:
        raise BindingMismatch("path", "a pass of the output is opened as one of the prompt")
    merkle.verify(opening.root, output, max(0, opening.position - prompt + 1), merkle.leaf(item), opening.path)
    if digest("assay/evidence/1", nonce, opening.root) != evidence:
        raise BindingMismatch("evidence", "the opened root is not the receipt's evidence")
