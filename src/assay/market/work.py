"""How much work a request is, as far as it can be told without the model, and who has done part of it already."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, NamedTuple

from assay.core.request import Request

BYTES_PER_TOKEN: Final = 4
"""Of text, about."""
USUAL_OUTPUT: Final = 256
"""Tokens of an answer, at most, where the request allows more: most end before."""
_MOST_PREFIXES: Final = 16
"""Beginnings of one request that are remembered."""
_CONVERSATIONS: Final = 8192
"""Beginnings that are remembered in all."""
WARM_SECONDS: Final = 300.0
"""How long a provider is taken to keep what it computed of a prompt."""


class Prefix(NamedTuple):
    """A beginning of a conversation."""

    key: bytes
    tokens: int
    """About."""


@dataclass(frozen=True, slots=True)
class Work:
    """Of one request; about, in tokens."""

    prompt: int
    output: int
    prefixes: tuple[Prefix, ...] = ()
    """Beginnings of the conversation that end with a message, longest first."""


def work_of(request: Request) -> Work:
    """Sizes of a request, from its bytes, and names of its beginnings."""
    state, size = blake2b(f"{request.model}\0{request.tools}\0".encode(), digest_size=16), len(request.tools)
    prefixes: list[Prefix] = []
    for message in request.messages:
        said = f"{message.role}\0{message.content}\0{message.tool_calls}\0".encode("utf-8", "surrogatepass")
        state.update(said)
        size += len(said)
        prefixes.append(Prefix(state.digest(), size // BYTES_PER_TOKEN))
    size += len(request.prompt)
    output = min(request.max_tokens or USUAL_OUTPUT, USUAL_OUTPUT)
    return Work(size // BYTES_PER_TOKEN + len(request.continues), output, tuple(reversed(prefixes[-_MOST_PREFIXES:])))


class Conversations:
    """Who has served the beginning of a conversation lately, and so may have it in its cache. Mutable, bounded."""

    def __init__(self) -> None:
        self._last: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    def served(self, work: Work, url: str, now: float) -> None:
        """The machine at this URL has read the whole prompt."""
        for prefix in work.prefixes:
            self._last.pop(prefix.key, None)
            self._last[prefix.key] = url, now
        while len(self._last) > _CONVERSATIONS:
            self._last.popitem(last=False)

    def warm(self, work: Work, now: float) -> tuple[str, int] | None:
        """Who knows the longest beginning, and about how many tokens of it; None: nobody."""
        for prefix in work.prefixes:
            url, at = self._last.get(prefix.key, ("", 0.0))
            if url and now - at < WARM_SECONDS:
                return url, min(prefix.tokens, work.prompt)
        return None
