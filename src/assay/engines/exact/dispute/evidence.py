"""The evidence of a receipt, opened: the way from the commitment to one pass up to what the receipt carries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from assay.core import merkle, tree16
from assay.core.errors import BindingMismatch
from assay.core.evidence import evidence_root, evidence_salt, salted
from assay.core.hashing import Digest
from assay.engines.exact.dispute import trees
from assay.engines.exact.record import evidence_leaves


class Tokens(NamedTuple):
    """The roots of a receipt over its tokens: see `core/completion.py`."""

    prompt: Digest
    output: Digest


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence of a receipt, and which passes it is over."""

    root: Digest
    """As the receipt carries it, salted."""
    prompt: int
    """Tokens of the prompt."""
    output: int
    """Tokens of the answer, at least one."""

    @property
    def passes(self) -> int:
        """Tokens that went through the model: all but the last one of the answer."""
        return self.prompt + self.output - 1

    def draws(self, position: int) -> bool:
        """Whether a token of the answer was drawn behind it."""
        return position >= self.prompt - 1

    def path_length(self, position: int) -> int:
        """How many digests `prove` gives."""
        inner = trees.path_length(self.prompt, position, position + 1) + 1 if position < self.prompt else 0
        return inner + _merkle_length(self.output, self._output(position)) + 2

    def verify(self, position: int, leaf: Digest, path: Sequence[Digest]) -> None:
        """Check that the pass at `position` is committed to as `leaf`.

        Raises:
            BindingMismatch: it is not.
        """
        if not 0 <= position < self.passes or len(path) != self.path_length(position):
            raise BindingMismatch("path", f"pass {position} is not opened like this")
        *path, root, salt = path
        if position < self.prompt:
            length = trees.path_length(self.prompt, position, position + 1)
            inner, item, path = path[:length], path[length], path[length + 1 :]
            tree16.verify(item, self.prompt, position, leaf, inner)
            leaf = item
        merkle.verify(root, self.output, self._output(position), merkle.leaf(leaf), path)
        if salted(root, salt) != self.root:
            raise BindingMismatch("evidence", "the opened root is not the receipt's evidence")

    def prove(self, leaves: Sequence[Digest], position: int, nonce: bytes) -> list[Digest]:
        """The way from a pass's leaf to the root, given those of all passes: behind the tree's root stands the salt."""
        outputs = [merkle.leaf(item) for item in evidence_leaves(leaves, self.prompt)]
        path = [*merkle.prove(outputs, self._output(position)), merkle.root(outputs), evidence_salt(nonce)]
        if position >= self.prompt:
            return path
        prompt = leaves[: self.prompt]
        return [*tree16.prove(prompt, position), tree16.root(prompt), *path]

    def _output(self, position: int) -> int:
        """The token of the answer that the pass is evidence of."""
        return max(0, position - self.prompt + 1)


def evidence_of(leaves: Sequence[Digest], nonce: bytes, prompt: int) -> Evidence:
    """The evidence over the leaves of all passes, of which the first `prompt` are the prompt's."""
    root = evidence_root(evidence_leaves(leaves, prompt), nonce)
    return Evidence(root, prompt, len(leaves) - prompt + 1)


def _merkle_length(count: int, index: int) -> int:
    """How many steps a proof in `core/merkle.py` has."""
    length = 0
    while count > 1:
        split = 1 << ((count - 1).bit_length() - 1)
        index, count = (index - split, count - split) if index >= split else (index, split)
        length += 1
    return length
