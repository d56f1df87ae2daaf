"""Evidence: what a receipt commits to besides the tokens, and what an audit opens.

level        leaf for output token i                                                        opened in the bundle
signed       none                                                                           no
statistical  the log-probabilities of token i and of the TOP_K most probable tokens         yes
pinned       digest of all logits (float32, little-endian) that token i was drawn from      no: recomputed
exact        root over the activations of the pass that token i was drawn from; for       no: recomputed; accumulators
             i = 0 over those of all passes of the prompt                                   are served on demand
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from assay.core import merkle
from assay.core.completion import TopLogprobs
from assay.core.errors import EncodingError
from assay.core.hashing import Digest, digest
from assay.core.request import Level

TOP_K: Final = 8
"""Most probable tokens in a statistical leaf."""
LOGPROB_SCALE: Final = 4096
"""Log-probabilities under a hash are integers in 1/4096 nat."""
TOP_LEAF_SIZE: Final = 4 + 8 * TOP_K
"""Bytes of a statistical leaf."""
_TOP_LEAF: Final = struct.Struct(f">{1 + 2 * TOP_K}I")


LEAF_SIZES: Final[Mapping[Level, int]] = {"signed": 0, "statistical": TOP_LEAF_SIZE, "pinned": 32, "exact": 32}
"""Bytes of a leaf, by level; 0: there are none."""


def logits_leaf(row: np.ndarray) -> bytes:
    """The pinned leaf of one row of logits, float32 [n_vocab]."""
    return digest("assay/logits/1", np.ascontiguousarray(row, dtype="<f4").data.cast("B"))


def top_leaf(top: TopLogprobs) -> bytes:
    """The statistical leaf: the chosen token's log-probability, then TOP_K pairs (id, log-probability).

    Log-probabilities are carried as round(-4096 * logprob), capped at 2^32 - 1; missing pairs repeat the last one.
    """
    pairs = list(zip(top.ids, top.logprobs, strict=True))[:TOP_K]
    if not pairs:
        raise EncodingError("a statistical leaf needs log-probabilities")
    pairs += [pairs[-1]] * (TOP_K - len(pairs))
    words = [_fixed(top.chosen)]
    for token, logprob in pairs:
        words += [token, _fixed(logprob)]
    return _TOP_LEAF.pack(*words)


def read_top_leaf(leaf: bytes) -> TopLogprobs:
    """Inverse of `top_leaf`, to 1/4096 nat.

    Raises:
        EncodingError: another length.
    """
    if len(leaf) != TOP_LEAF_SIZE:
        raise EncodingError(f"a statistical leaf has {TOP_LEAF_SIZE} bytes, not {len(leaf)}")
    words = _TOP_LEAF.unpack(leaf)
    return TopLogprobs(
        chosen=-words[0] / LOGPROB_SCALE,
        ids=words[1::2],
        logprobs=tuple(-word / LOGPROB_SCALE for word in words[2::2]),
    )


def evidence_root(leaves: Sequence[bytes], nonce: bytes) -> Digest:
    """The digest that the receipt carries: the leaves' Merkle root, salted.

    Unsalted, anyone with the model could confirm a guess of the prompt and the answer.
    """
    return salted(merkle.root([merkle.leaf(item) for item in leaves]), evidence_salt(nonce))


def evidence_salt(nonce: bytes) -> Digest:
    """What the root is salted with. It follows from the request's nonce, which a dispute need not show with it."""
    return digest("assay/evidence-salt/1", nonce)


def salted(root: Digest, salt: Digest) -> Digest:
    """The evidence over a Merkle root."""
    return digest("assay/evidence/2", salt, root)


def split_opening(opening: bytes) -> tuple[bytes, ...]:
    """The statistical leaves of a bundle's opening.

    Raises:
        EncodingError: not a whole number of leaves.
    """
    if len(opening) % TOP_LEAF_SIZE:
        raise EncodingError("the opening is not a whole number of leaves")
    return tuple(opening[i : i + TOP_LEAF_SIZE] for i in range(0, len(opening), TOP_LEAF_SIZE))


def _fixed(logprob: float) -> int:
    return min(max(round(-logprob * LOGPROB_SCALE), 0), 2**32 - 1) if logprob > -1e9 else 2**32 - 1
