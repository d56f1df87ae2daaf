"""Who may go on with an answer that others broke off."""

from __future__ import annotations

from collections.abc import Sequence

from assay.core.offer import Offer


def successors(offers: Sequence[Offer], begun: Sequence[Offer]) -> list[Offer]:
    """Of `offers`, those of other providers than the ones of `begun`, that go on with such answers and whose answer
    is of the same kind: the same model file, level and sampler, and no smaller context."""
    first = begun[0]
    gone = {name for offer in begun for name in (offer.provider, offer.url)}
    alike = (first.model_digest, first.level, first.sampler)
    return [
        offer
        for offer in offers
        if offer.continues
        and (offer.model_digest, offer.level, offer.sampler) == alike
        and offer.context >= first.context
        and gone.isdisjoint((offer.provider, offer.url))
    ]
