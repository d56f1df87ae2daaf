"""The parts of one answer, whose providers failed one after the other (see docs/failover.md)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise

from assay.core.bundle import Bundle
from assay.core.completion import WHOLE
from assay.core.errors import BindingMismatch
from assay.core.request import Request


def newest(bundles: Sequence[Bundle]) -> list[Bundle]:
    """The parts of the newest answer of each choice. `bundles`: of one call, by choice, then as for `latest`."""
    return [part for _, choice in groupby(bundles, key=_choice) for part in latest(list(choice))]


def latest(bundles: Sequence[Bundle]) -> list[Bundle]:
    """The parts of the newest answer, first to last, as far as they are there. `bundles`: at least one, all of one
    choice of one call (`Request.whole`), in the order in which they came; what came last may be the first part."""
    last = bundles[-1]
    while later := [bundle for bundle in bundles if _led_to(last, bundle)]:
        last = later[-1]
    parts = [last]
    while earlier := [bundle for bundle in reversed(bundles) if _led_to(bundle, parts[0])]:
        parts.insert(0, max(earlier, key=lambda bundle: len(bundle.request.continues)))
    return parts


def check_chain(parts: Sequence[Bundle]) -> None:
    """Check that bundles are the parts of one answer, all of them up to the last one. They are checked one by one
    elsewhere. A receipt may cover tokens that were lost on their way, even to the answer's end; they are in no later
    part.

    Raises:
        BindingMismatch: a part does not go on where the one before it broke off; `field` is `continues`.
    """
    if parts[0].request.continues:
        raise BindingMismatch("continues", "the beginning of the answer is missing", "fetch the receipts again later")
    for one, other in pairwise(parts):
        known = one.request.continues + one.tokens
        if not _leads_to(one, other) or len(other.request.continues) > len(known):
            raise BindingMismatch(
                "continues",
                f"the receipt of {other.receipt.provider} does not go on where {one.receipt.provider} broke off",
            )


def delivered(request: Request, bundles: Sequence[Bundle]) -> tuple[int, ...]:
    """The tokens that came in answer to `request`, as far as receipts of later parts among `bundles` show."""
    before = len(request.continues)
    later = (each.request.continues for each in bundles if each.request.whole == request.whole)
    return min((tokens[before:] for tokens in later if len(tokens) > before), key=len, default=())


def _choice(bundle: Bundle) -> int:
    return bundle.request.choice


def _led_to(one: Bundle, other: Bundle) -> bool:
    """A later answer to the same call, which was whole, did not lead to a part of an earlier one."""
    return _leads_to(one, other) and (one.receipt.stop not in WHOLE or one.receipt.issued <= other.receipt.issued)


def _leads_to(one: Bundle, other: Bundle) -> bool:
    """`other` is a later part, or one of an answer that is the same up to where it begins."""
    before, after = one.request.continues, other.request.continues
    known = before + one.tokens
    return (
        (one.receipt.stop not in WHOLE or len(after) < len(known))
        and len(before) < len(after)
        and known[: len(after)] == after[: len(known)]
        and one.request.whole == other.request.whole
    )
