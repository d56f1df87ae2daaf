"""Which offers fit an ask. They lie in columns, so that 100,000 are looked through quickly."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import Final, Generic, Literal, NamedTuple, TypeAlias, TypeVar

import numpy as np

from assay.core.errors import ModelNotFound, NoProvider
from assay.core.keys import Address
from assay.core.offer import Ask, Match, Offer
from assay.core.request import LEVELS, Level
from assay.market.continuing import follows
from assay.market.pricing import FREE, blended

Places: TypeAlias = np.ndarray
"""int32 [k]: places of offers in their pool, ascending."""
T = TypeVar("T")
WishName: TypeAlias = Literal[
    "after", "model_digest", "only", "ignore", "dishonest", "seeded", "region", "min_stake", "max_price"
]
"""As in `Ask`; `dishonest`: not to be cheated by who was caught."""
_EXAMPLES: Final = 4
"""Providers that are named of those that a wish leaves out."""
_SHOWN: Final = 200
"""Characters of a wish's value that are shown."""
_TOLD: Final = 8
"""Values that a message lists."""
_FITS_KEPT: Final = 8
"""Wishes whose fitting offers are remembered; the next one costs a look at all offers."""


class PoolKey(NamedTuple):
    """What all offers of a pool have in common."""

    model: str
    level: Level


class Sifted(NamedTuple):
    """What a wish left of the offers that fitted the wishes before it."""

    wish: WishName
    value: str
    """What is wished, for people; cut short."""
    left: int
    """Offers."""
    out: tuple[Address, ...]
    """Some of the providers that it left out."""


class _Sieve(NamedTuple):
    places: Places
    steps: tuple[Sifted, ...]
    """Of all wishes, or those up to the one that left nobody."""
    refusal: tuple[str, str]
    """Of that one, what to say and its remedy; empty."""


class _Wish(NamedTuple):
    name: WishName
    value: str
    fits: Callable[[Places], np.ndarray]
    said: str
    remedy: str


class _Shared(Generic[T]):
    """A column of values of which many are the same."""

    def __init__(self, values: Sequence[T]) -> None:
        numbers = {value: number for number, value in enumerate(dict.fromkeys(values))}
        self._values: Final = list(numbers)
        self._of: Final = np.array([numbers[value] for value in values], dtype=np.int32)

    def which(self, holds: Callable[[T], bool]) -> Callable[[Places], np.ndarray]:
        """A wish: of places, bool [k], those of whose values something holds."""
        good = np.array([holds(value) for value in self._values], dtype=bool)
        return lambda places: good[self._of[places]]

    def some(self, places: Places) -> str:
        """The first few values at these places, for people."""
        found = sorted(str(self._values[number]) for number in np.unique(self._of[places]).tolist())
        return ", ".join(value or "some that do not say" for value in found[:_TOLD])


class Pool:
    """The offers of one model at one level, each at its place. Does not change."""

    def __init__(self, offers: Sequence[Offer]) -> None:
        self.offers: Final = offers
        self.prices: Final = _column([blended(offer.price) for offer in offers])
        """float64 [n]: of three prompt tokens and one output token, wei. Rounding keeps their order."""
        self._prompt: Final = _column([offer.price.prompt for offer in offers])
        self._output: Final = _column([offer.price.output for offer in offers])
        self._seeded: Final = np.array([offer.sampler != "foreign" for offer in offers], dtype=bool)
        self._regions: Final = _Shared([offer.region for offer in offers])
        self._digests: Final = _Shared([offer.model_digest for offer in offers])
        self._fits: OrderedDict[object, _Sieve] = OrderedDict()
        self._valued: tuple[Mapping[Address, float], np.ndarray] = {}, np.zeros(len(offers))

    def of_providers(self, values: Mapping[Address, float]) -> np.ndarray:
        """float64 [n]: the value of each offer's provider, 0 where there is none; remembered until there are others."""
        if values is not self._valued[0]:
            column = np.zeros(len(self.offers))
            for name, value in values.items():
                column[list(self._named.get(name, ()))] = value
            self._valued = values, column
        return self._valued[1]

    def named(self, names: Collection[str]) -> Places:
        """Where the offers of these providers (address in any case, or URL) are."""
        found = {
            place for name in names for key in {name.lower(), name.rstrip("/")} for place in self._named.get(key, ())
        }
        return np.array(sorted(found), dtype=np.int32)

    def at(self, url: str) -> int | None:
        """Where the offer of this machine is."""
        return next((place for place in self._named.get(url.rstrip("/"), ()) if self.offers[place].url == url), None)

    def fitting(
        self, ask: Ask, dishonest: frozenset[Address] = frozenset(), staked: frozenset[Address] | None = None
    ) -> Places:
        """Where the offers are that fit the wishes; model and level are the pool's. `dishonest` providers never fit.
        `staked`: those that have `min_stake` to lose; None: that is not asked.

        Raises:
            NoProvider: none fits; the message says which wish leaves nobody.
        """
        found = self._sieve(ask, dishonest, staked)
        if not len(found.places):
            raise NoProvider(*found.refusal)
        return found.places

    def sifted(
        self, ask: Ask, dishonest: frozenset[Address] = frozenset(), staked: frozenset[Address] | None = None
    ) -> tuple[Sifted, ...]:
        """What each wish leaves, one after the other, up to the one that leaves nobody."""
        return self._sieve(ask, dishonest, staked).steps

    def _sieve(self, ask: Ask, dishonest: frozenset[Address], staked: frozenset[Address] | None) -> _Sieve:
        plain = (ask.only, ask.ignore, ask.seeded, ask.max_price, ask.model_digest, ask.region, ask.after)
        wishes = (*plain, dishonest, staked)
        found = self._fits.pop(wishes, None)
        if found is None:
            found = self._look_through(ask, dishonest, staked)
            if len(self._fits) == _FITS_KEPT:
                self._fits.popitem(last=False)
        self._fits[wishes] = found
        return found

    @cached_property
    def _named(self) -> Mapping[str, tuple[int, ...]]:
        named: dict[str, tuple[int, ...]] = {}
        for place, offer in enumerate(self.offers):
            for name in (offer.provider, offer.url.rstrip("/")):
                named[name] = (*named.get(name, ()), place)
        return named

    def _look_through(self, ask: Ask, dishonest: frozenset[Address], staked: frozenset[Address] | None) -> _Sieve:
        """Apply one wish after the other; the one that leaves nobody is named."""
        left = np.arange(len(self.offers), dtype=np.int32)
        steps: list[Sifted] = []
        for wish in self._wishes(ask, dishonest, staked):
            fits = wish.fits(left)
            kept = left[fits]
            out = tuple(dict.fromkeys(self.offers[place].provider for place in left[~fits][:_EXAMPLES].tolist()))
            steps.append(Sifted(wish.name, wish.value[:_SHOWN], len(kept), out))
            if not len(kept):
                prices = f" (the cheapest left asks {self._cheapest(left)})" if wish.name == "max_price" else ""
                there = f" (there are {self._regions.some(left)})" if wish.name == "region" else ""
                refusal = f"no provider offers {ask.model!r} {wish.said}{prices}{there}", wish.remedy
                return _Sieve(kept, tuple(steps), refusal)
            left = kept
        return _Sieve(left, tuple(steps), ("", ""))

    def _wishes(self, ask: Ask, dishonest: frozenset[Address], staked: frozenset[Address] | None) -> Sequence[_Wish]:
        def seeded(places: Places) -> np.ndarray:
            return self._seeded[places]

        def affordable(places: Places) -> np.ndarray:
            most = ask.max_price or FREE
            return (self._prompt[places] <= float(most.prompt)) & (self._output[places] <= float(most.output))

        def those(names: Collection[str]) -> Callable[[Places], np.ndarray]:
            return lambda places: np.isin(places, self.named(names))

        def others(names: Collection[str]) -> Callable[[Places], np.ndarray]:
            return lambda places: ~np.isin(places, self.named(names))

        def following(places: Places) -> np.ndarray:
            return np.array([ask.after is None or follows(self.offers[place], ask.after) for place in places], bool)

        wishes: list[_Wish] = []

        def wish(name: WishName, value: object, fits: Callable[[Places], np.ndarray], said: str, remedy: str) -> None:
            wishes.append(_Wish(name, str(value), fits, said, remedy))

        if ask.after is not None:
            wish("after", ask.after.provider, following, "that goes on with answers of others", "ask again")
        if ask.model_digest is not None:
            right = self._digests.which(lambda digest: digest == ask.model_digest)
            said, remedy = "with the file of `model_digest`", "see GET /v1/models, or leave it out"
            wish("model_digest", ask.model_digest.hex(), right, said, remedy)
        if ask.only:
            said, remedy = "among those in `only`", "name others, or leave `only` out"
            wish("only", _named(ask.only), those(ask.only), said, remedy)
        if ask.ignore:
            said, remedy = "that is not in `ignore`", "take one out of `ignore`"
            wish("ignore", _named(ask.ignore), others(ask.ignore), said, remedy)
        if dishonest:
            said, remedy = "that was not caught cheating", "start an honest one with `assay serve`"
            wish("dishonest", len(dishonest), others(dishonest), said, remedy)
        if ask.seeded:
            said = "whose sampler is seeded by the request"
            wish("seeded", "", seeded, said, "leave `seeded` out, or start one with `assay serve`")
        if ask.region:
            near = self._regions.which(lambda region: f"{region}-".startswith(f"{ask.region}-"))
            wish("region", ask.region, near, "in the `region`", "name another one, or leave it out")
        if staked is not None:
            said = "that has `min_stake` to lose"
            wish("min_stake", ask.min_stake, those(staked), said, "lower it, or leave it out")
        if ask.max_price is not None:
            most = f"{ask.max_price.prompt}/{ask.max_price.output}"
            wish("max_price", most, affordable, "within `max_price`", "raise it, or leave it out")
        return wishes

    def _cheapest(self, places: Places) -> str:
        price = min((self.offers[place].price for place in places), key=blended)
        return f"{price.prompt} wei a prompt token and {price.output} an output token"


class Catalogue:
    """Offers by model and level. Does not change: made anew when offers change."""

    def __init__(self, offers: Sequence[Offer]) -> None:
        self.size: Final = len(offers)
        sorted_out: dict[PoolKey, list[Offer]] = {}
        for offer in offers:
            sorted_out.setdefault(PoolKey(offer.model, offer.level), []).append(offer)
        self.pools: Final[Mapping[PoolKey, Pool]] = {key: Pool(found) for key, found in sorted_out.items()}

    def index(self) -> Catalogue:
        """Itself; names are put in order now, which else happens when one is looked for."""
        for pool in self.pools.values():
            pool.at("")
        return self

    def pool(self, ask: Ask) -> Pool:
        """The offers of the model and level asked for.

        Raises:
            ModelNotFound: nobody offers the model.
            NoProvider: nobody offers it at the level.
        """
        found = self.pools.get(PoolKey(ask.model, ask.level))
        if found is not None:
            return found
        levels = {key.level for key in self.pools if key.model == ask.model}
        if not levels:
            served = ", ".join(sorted({key.model for key in self.pools})) or "none"
            raise ModelNotFound(
                f"no provider offers {ask.model[:100]!r} (offered: {served[:500]})",
                "start one with `assay serve`, or ask for a model that is offered",
            )
        raise NoProvider(
            f"no provider offers {ask.model!r} at level '{ask.level}' "
            f"(offered: {', '.join(level for level in LEVELS if level in levels)})",
            "start one with `assay serve`, or ask for another level",
        )


def choose(ask: Ask, offers: Sequence[Offer]) -> Match:
    """The offers that fit, in the order to try them where nothing is known of the providers.

    Named in `order` first, then the cheapest. Without `allow_fallbacks` only the first is left.
    `min_stake` is passed over.

    Raises:
        ModelNotFound: nobody offers the model.
        NoProvider: nobody offers it as wished; the message says which wish leaves nobody.
    """
    pool = Catalogue(offers).pool(ask)
    turn = turns(ask, pool)
    ranked = sorted(pool.fitting(ask).tolist(), key=lambda place: (turn(place), blended(pool.offers[place].price)))
    return Match(ask, tuple(pool.offers[place] for place in (ranked if ask.allow_fallbacks else ranked[:1])))


def strongest_that_fits(ask: Ask, catalogue: Catalogue, fits: Callable[[Ask], object]) -> Level:
    """The strongest level at which an offer fits the other wishes. `fits` raises NoProvider where none does.

    Raises:
        ModelNotFound: nobody offers the model.
    """
    for level in reversed(LEVELS):
        with suppress(NoProvider):
            fits(replace(ask, level=level))
            return level
    # Whoever answers will say which wish it is that nobody fits; most are offered at the weakest level.
    return min((key.level for key in catalogue.pools if key.model == ask.model), key=LEVELS.index)


def turns(ask: Ask, pool: Pool) -> Callable[[int], int]:
    """The turn of each place by the ask's `order`; places that it does not name come last."""
    turn: dict[int, int] = {}
    for number, name in enumerate(ask.order):
        for place in pool.named([name]).tolist():
            turn.setdefault(place, number)
    return lambda place: turn.get(place, len(ask.order))


def _column(numbers: Sequence[int]) -> np.ndarray:
    return np.array([float(number) for number in numbers], dtype=np.float64)


def _named(providers: Sequence[str]) -> str:
    """Of those that a wish names, for a trace: addresses; not where somebody's machines are."""
    return ", ".join(each if each.startswith("0x") else "a URL" for each in providers)
