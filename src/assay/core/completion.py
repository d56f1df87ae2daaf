"""What an engine gives back: a prompt as the model saw it, a stream of steps, a completion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from assay.core import tree16
from assay.core.encoding import pack_ids
from assay.core.hashing import Digest, digest, digests

StopReason: TypeAlias = Literal["stop", "length", "cancelled", "failed"]
"""`stop`: end-of-generation token or stop text. `length`: max_tokens or the context's end. `cancelled`: the consumer
hung up. `failed`: the engine or the provider broke; what was delivered before is still covered."""
STOP_REASONS: tuple[StopReason, ...] = get_args(StopReason)
StepStop: TypeAlias = Literal["stop", "length", "failed"]
"""What a last step may say. Who hung up needs no word for it, so a provider that says `cancelled` broke off."""
STEP_STOPS: tuple[StepStop, ...] = get_args(StepStop)
WHOLE: tuple[StopReason, ...] = ("stop", "length")
"""How a whole answer ends."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """The rendered prompt."""

    text: bytes
    """UTF-8 of what the chat template gave."""
    tokens: tuple[int, ...]

    def text_digest(self, nonce: bytes) -> Digest:
        """Salted digest of the rendered bytes."""
        return digest("assay/prompt-text/1", nonce, self.text)

    def token_digest(self, nonce: bytes) -> Digest:
        """Salted root over the token ids."""
        return _tokens_root("assay/prompt-tokens/2", nonce, self.tokens)


@dataclass(frozen=True, slots=True)
class TopLogprobs:
    """Log-probabilities (natural, temperature 1, before filters and masks) at one position."""

    chosen: float
    """Of the token that was emitted."""
    ids: tuple[int, ...]
    """Most probable tokens, best first, the lowest id first among equals."""
    logprobs: tuple[float, ...]
    chosen_bytes: bytes = b""
    """What the emitted token stands for; nothing for control tokens. For showing only: no receipt covers it."""
    top_bytes: tuple[bytes, ...] = ()
    """The same for each of `ids`."""


@dataclass(frozen=True, slots=True)
class Step:
    """One output token."""

    index: int
    """Position among the output tokens, from 0."""
    token: int
    text: str
    """Text that may be shown now; later tokens may complete what this one began."""
    leaf: bytes
    """The evidence leaf's content for this token (see `core/evidence.py`); empty at level `signed`."""
    top: TopLogprobs | None = None
    """There if log-probabilities were asked for."""
    stop: StepStop | None = None
    """Set on the last step."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A finished (or cut) answer."""

    prompt: Prompt
    tokens: tuple[int, ...]
    """Every token that was sampled and delivered, the end-of-generation token included."""
    text: str
    stop: StopReason
    leaves: tuple[bytes, ...]
    """Evidence leaves, one a token, or none."""


def output_digest(nonce: bytes, tokens: tuple[int, ...]) -> Digest:
    """Salted root over the output token ids."""
    return _tokens_root("assay/output/2", nonce, tokens)


TokensTag: TypeAlias = Literal["assay/prompt-tokens/2", "assay/output/2"]
"""Whether tokens are a prompt's or an output's."""


def token_salts(tag: TokensTag, nonce: bytes, count: int) -> list[Digest]:
    """Of each token its own: one can be shown without the nonce, and without others becoming guessable."""
    return digests(tag, nonce, (index.to_bytes(4, "big") for index in range(count)))


def token_leaves(salts: Sequence[Digest], tokens: Sequence[int]) -> list[Digest]:
    """The leaf of each token.

    Raises:
        EncodingError: an id does not fit into 4 bytes.
    """
    data = pack_ids(tokens)
    return digests("assay/token/1", b"", (salt + data[4 * i : 4 * i + 4] for i, salt in enumerate(salts)))


def _tokens_root(tag: TokensTag, nonce: bytes, tokens: Sequence[int]) -> Digest:
    return tree16.root(token_leaves(token_salts(tag, nonce, len(tokens)), tokens))
