"""What a provider offers, and what a consumer wishes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from sys import intern
from typing import Final, Literal, TypeAlias

from assay.core.encoding import Json, b64, unb64
from assay.core.errors import EncodingError
from assay.core.hashing import Digest
from assay.core.keys import Address
from assay.core.payment import Requirements
from assay.core.profile import SAMPLERS, SamplerKind
from assay.core.request import LEVELS, Level, decimal, natural, text

MAX_MODEL: Final = 256
"""Characters of a model's name."""
_MAX_WEI: Final = 2**96
"""No honest price of a token is larger; receipts carry amounts of 128 bits."""
_LEVELS: Final = {level: level for level in LEVELS}
_SAMPLERS: Final = {sampler: sampler for sampler in SAMPLERS}

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

    def to_json(self) -> dict[str, Json]:
        """In decimal digits."""
        return {"prompt": str(self.prompt), "output": str(self.output)}

    @classmethod
    def from_json(cls, value: Json) -> Price:
        """Inverse of `to_json`; members that are not known are passed over.

        Raises:
            EncodingError: it is no price.
        """
        if not isinstance(value, dict):
            raise EncodingError("a price is not an object")
        return _price(text(value.get("prompt"), "price"), text(value.get("output"), "price"))


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
    continues: bool = False
    """It goes on with answers that others began (`Request.continues`)."""
    region: str = ""
    """Where the provider says that it is, by its record; empty: not said."""

    @property
    def paid(self) -> bool:
        """Answers have to be paid for through a channel."""
        return self.payment is not None and self.price != Price(0, 0)

    def to_json(self) -> dict[str, Json]:
        """As lists of offers and records carry it: they name provider, address, payment and region once for all."""
        return {
            "model": self.model,
            "model_digest": b64(self.model_digest),
            "level": self.level,
            "price": self.price.to_json(),
            "context": self.context,
            "chat": self.chat,
            "tools": self.tools,
            "profile": b64(self.profile),
            "sampler": self.sampler,
            **({"continues": True} if self.continues else {}),
        }

    @classmethod
    def from_json(
        cls, value: Json, *, provider: Address, url: str, payment: Requirements | None, region: str = ""
    ) -> Offer:
        """Inverse of `to_json`; members that are not known are passed over.

        Raises:
            EncodingError: a member is missing, of another type or out of range.
        """
        if not isinstance(value, dict):
            raise EncodingError("an offer is not an object")
        level, model = value.get("level"), text(value.get("model"), "model")
        chat, tools, sampler = value.get("chat"), value.get("tools"), value.get("sampler")
        continues = value.get("continues", False)
        if level not in LEVELS:
            raise EncodingError("an offer's level is malformed")
        if not (isinstance(chat, bool) and isinstance(tools, bool) and isinstance(continues, bool)):
            raise EncodingError("an offer's chat, tools or continues is neither true nor false")
        if sampler not in SAMPLERS:
            raise EncodingError("an offer's sampler is unknown")
        if not 0 < len(model) <= MAX_MODEL:
            raise EncodingError(f"an offer's model has 1 to {MAX_MODEL} characters")
        return cls(
            provider=provider,
            url=url,
            model=intern(model),
            model_digest=_digest(text(value.get("model_digest"), "model_digest"), "model_digest"),
            level=_LEVELS[level],
            price=Price.from_json(value.get("price")),
            context=natural(value.get("context"), "context"),
            chat=chat,
            tools=tools,
            profile=_digest(text(value.get("profile"), "profile"), "profile"),
            sampler=_SAMPLERS[sampler],
            payment=payment,
            continues=continues,
            region=intern(region),
        )


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
    model_digest: Digest | None = None
    """Only this file under the model's name."""
    region: str | None = None
    """Only providers that say that they are there: `eu` is the region of that name, and all that begin with `eu-`."""
    min_stake: int | None = None
    """Only providers that have so much to lose, wei, as the chain says."""
    hedge: bool | None = None
    """Ask a second provider as well when the first token is late: sooner (True), only when it is very late (None), or
    never."""
    after: Offer | None = None
    """Of who began the answer and broke off: only those that can go on with it."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a gateway wishes where an ask does not say."""

    max_price: Price | None = None
    region: str | None = None
    min_stake: int | None = None
    ignore: tuple[str, ...] = ()
    """Never considered, whatever an ask says."""
    hedge: bool | None = None

    def fill(self, ask: Ask) -> Ask:
        """The ask with all that is wished."""
        return replace(
            ask,
            max_price=ask.max_price or self.max_price,
            region=self.region if ask.region is None else ask.region,
            min_stake=self.min_stake if ask.min_stake is None else ask.min_stake,
            ignore=(*ask.ignore, *self.ignore),
            hedge=self.hedge if ask.hedge is None else ask.hedge,
        )


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


# Thousands of offers are of the same few models, profiles and prices: their parts are shared.


@lru_cache(maxsize=4096)
def _digest(spelled: str, what: str) -> Digest:
    return unb64(spelled, size=32, what=what)


@lru_cache(maxsize=4096)
def _price(prompt: str, output: str) -> Price:
    return Price(decimal(prompt, what="a price", most=_MAX_WEI), decimal(output, what="a price", most=_MAX_WEI))
