"""What a provider offers, and what a consumer wishes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from assay.core.hashing import Digest
from assay.core.keys import Address
from assay.core.payment import Requirements
from assay.core.profile import SamplerKind
from assay.core.request import Level

Sort: TypeAlias = Literal["balance", "price", "latency", "throughput"]
"""What a consumer wants least of: `balance` price times time of a whole answer, `price`, `latency` the time to the
first token, `throughput` the time between tokens."""


@dataclass(frozen=True, slots=True)
class Price:
    """Wei per token, per assurance level."""

    prompt: int
    output: int

    def of(self, prompt_tokens: int, output_tokens: int) -> int:
        """Wei for an answer."""
        return self.prompt * prompt_tokens + self.output * output_tokens


@dataclass(frozen=True, slots=True)
class Offer:
    """One model at one level by one provider."""

    provider: Address
    url: str
    """Where the provider answers."""
    model: str
    model_digest: Digest
    level: Level
    price: Price
    context: int
    """Positions that one sequence may have."""
    chat: bool
    tools: bool
    """The model's template takes tools."""
    profile: Digest
    """Of the profile that its receipts will carry: what a machine claims to be, it claims before it is asked."""
    sampler: SamplerKind
    """`foreign`: tokens are not drawn from the consumer's nonce, so nothing shows that an answer is a fresh one."""
    payment: Requirements | None = None
    """How the provider is paid; None: it only counts what is owed."""

    @property
    def paid(self) -> bool:
        """Answers have to be paid for through a channel."""
        return self.payment is not None and self.price != Price(0, 0)


@dataclass(frozen=True, slots=True)
class Ask:
    """A consumer's wishes beyond the request itself (OpenRouter's `provider` preferences where they mean the same)."""

    model: str
    level: Level
    max_price: Price | None = None
    """Ceiling, each part separately."""
    order: tuple[str, ...] = ()
    """Providers (address or URL) to try first, in this order."""
    only: tuple[str, ...] = ()
    """Consider no others."""
    ignore: tuple[str, ...] = ()
    """Never consider these."""
    allow_fallbacks: bool = True
    """Try another provider when the first one fails before its first token."""
    seeded: bool = False
    """Only providers that draw from the consumer's nonce, whose answers are provably fresh."""
    sort: Sort = "balance"


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a provider says it is; nobody has to believe it."""

    running: int
    """Answers under way."""
    places: int
    """Answers that may be under way at once."""

    @property
    def room(self) -> bool:
        """One more may begin."""
        return self.running < self.places


@dataclass(frozen=True, slots=True)
class Match:
    """The offers to try for an ask, best first."""

    ask: Ask
    offers: tuple[Offer, ...]
