"""What a receipt commits to, as far as disputes open it: chunks of accumulators, passes, and the evidence over them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from assay.core import merkle
from assay.core.errors import BindingMismatch, EncodingError
from assay.core.hashing import ZERO, Digest, digest
from assay.engines.exact.dispute import trees

CHUNK: Final = 256
"""Accumulators of one chunk."""
WIDTHS: Final = (4, 5, 6, 8)
"""Bytes that an accumulator may take; all those of a chunk take the same."""


def encode_chunk(chunk: Sequence[int]) -> bytes:
    """CHUNK accumulators in the fewest bytes that hold them all: low words, then what is above them; little-endian.

    Raises:
        EncodingError: another number of them, or one that needs more than 8 bytes.
    """
    bits = max((x if x >= 0 else ~x).bit_length() for x in chunk) + 1
    width = next((width for width in WIDTHS if bits <= 8 * width), 0)
    if len(chunk) != CHUNK or not width:
        raise EncodingError("accumulators do not fit a chunk")
    low = struct.pack(f"<{CHUNK}I", *(x & 0xFFFFFFFF for x in chunk))
    return low + b"".join((x >> 32).to_bytes(width - 4, "little", signed=True) for x in chunk if width > 4)


def decode_chunk(data: bytes) -> list[int]:
    """Inverse of `encode_chunk`.

    Raises:
        EncodingError: a length that no width has, or not the smallest width.
    """
    width, rest = divmod(len(data), CHUNK)
    if rest or width not in WIDTHS:
        raise EncodingError(f"no chunk of accumulators has {len(data)} bytes")
    if width == 4:
        return list(struct.unpack(f"<{CHUNK}i", data))
    low, step = struct.unpack_from(f"<{CHUNK}I", data), width - 4
    high = (data[at : at + step] for at in range(4 * CHUNK, len(data), step))
    chunk = [(int.from_bytes(above, "little", signed=True) << 32) + x for above, x in zip(high, low, strict=True)]
    if encode_chunk(chunk) != data:
        raise EncodingError(f"a chunk of accumulators takes {width} bytes each where fewer do")
    return chunk


def chunk_count(n: int) -> int:
    """How many chunks n accumulators have."""
    return -(-n // CHUNK)


def chunk_digest(data: bytes) -> Digest:
    """The leaf of one encoded chunk."""
    return digest("assay/exact-chunk/1", data)


def fractions_digest(data: bytes) -> Digest:
    """The leaf of one position's fraction bits."""
    return digest("assay/exact-fractions/1", data)


def encode_fractions(fractions: Sequence[int]) -> bytes:
    """One position's fraction bits: of each layer's first normalisation, two bytes, big-endian."""
    return struct.pack(f">{len(fractions)}h", *fractions)


def decode_fractions(data: bytes) -> tuple[int, ...]:
    """Inverse of `encode_fractions`, for bytes of the right length."""
    return struct.unpack(f">{len(data) // 2}h", data)


def pass_leaf(body: Digest, head: Digest = ZERO) -> Digest:
    """What one token's pass is committed to; ZERO where it had no head."""
    return digest("assay/exact-token/1", body, head)


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence of a receipt, and which passes it is over."""

    root: Digest
    """As the receipt carries it, salted."""
    nonce: bytes
    """The salt, 32 bytes."""
    prompt: int
    """Tokens of the prompt."""
    output: int
    """Tokens of the answer, at least one."""

    @property
    def passes(self) -> int:
        """Tokens that went through the model: all but the last one of the answer."""
        return self.prompt + self.output - 1

    def has_head(self, position: int) -> bool:
        """Whether logits were wanted there."""
        return position >= self.prompt - 1

    def path_length(self, position: int) -> int:
        """How many digests `prove` gives."""
        inner = trees.path_length(self.prompt, position, position + 1) + 1 if position < self.prompt else 0
        return inner + _merkle_length(self.output, self._output(position)) + 1

    def verify(self, position: int, leaf: Digest, path: Sequence[Digest]) -> None:
        """Check that the pass at `position` is committed to as `leaf`.

        Raises:
            BindingMismatch: it is not.
        """
        if not 0 <= position < self.passes or len(path) != self.path_length(position):
            raise BindingMismatch("path", f"pass {position} is not opened like this")
        *path, root = path
        if position < self.prompt:
            length = trees.path_length(self.prompt, position, position + 1)
            inner, item, path = path[:length], path[length], path[length + 1 :]
            if trees.climb(self.prompt, position, [leaf], inner) != item:
                raise BindingMismatch("path", f"pass {position} is not one of the prompt's")
            leaf = item
        merkle.verify(root, self.output, self._output(position), merkle.leaf(leaf), path)
        if digest("assay/evidence/1", self.nonce, root) != self.root:
            raise BindingMismatch("evidence", "the opened root is not the receipt's evidence")

    def prove(self, leaves: Sequence[Digest], position: int) -> list[Digest]:
        """The way from a pass's leaf to the root, given those of all passes."""
        outputs = [merkle.leaf(item) for item in _evidence_leaves(leaves, self.prompt)]
        path = [*merkle.prove(outputs, self._output(position)), merkle.root(outputs)]
        if position >= self.prompt:
            return path
        levels = trees.levels_of(leaves[: self.prompt])
        return [*trees.prove(levels, position, position + 1), trees.root_of(levels), *path]

    def _output(self, position: int) -> int:
        """The token of the answer that the pass is evidence of."""
        return max(0, position - self.prompt + 1)


def evidence_of(leaves: Sequence[Digest], nonce: bytes, prompt: int) -> Evidence:
    """The evidence over the leaves of all passes, of which the first `prompt` are the prompt's."""
    root = merkle.root([merkle.leaf(item) for item in _evidence_leaves(leaves, prompt)])
    return Evidence(digest("assay/evidence/1", nonce, root), nonce, prompt, len(leaves) - prompt + 1)


def _evidence_leaves(leaves: Sequence[Digest], prompt: int) -> list[Digest]:
    return [trees.root_of(trees.levels_of(leaves[:prompt])), *leaves[prompt:]]


def _merkle_length(count: int, index: int) -> int:
    """How many steps a proof in `core/merkle.py` has."""
    length = 0
    while count > 1:
        split = 1 << ((count - 1).bit_length() - 1)
        index, count = (index - split, count - split) if index >= split else (index, split)
        length += 1
    return length
