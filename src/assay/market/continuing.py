"""Who may go on with an answer that somebody else broke off."""

from __future__ import annotations

from assay.core.offer import Offer


def follows(offer: Offer, first: Offer) -> bool:
    """Whether `offer` goes on with answers that `first` began, and its answers are of the same kind: the same model
    file, level and sampler, and no smaller context."""
    alike = (offer.model_digest, offer.level, offer.sampler) == (first.model_digest, first.level, first.sampler)
    return offer.continues and alike and offer.context >= first.context
