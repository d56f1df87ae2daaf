"""What a gateway has to pay on one channel: the consumer's side, pure.

A provider says in each receipt what is owed in all; a gateway adds up what the answers are worth that it has checked.
It signs for the smaller of the two, so nothing that a provider says makes it pay for more than it got.
"""

from __future__ import annotations

from typing import Final

from assay.core.errors import BindingMismatch

TEMPLATE_TOKENS: Final = 512
"""What a chat template may put around the words of a request, in tokens."""


def to_sign(*, signed: int, earned: int, running: int, asked: int) -> int:
    """The cumulative amount of the next voucher, wei; never less than what was signed before.

    Args:
        signed: by the last voucher.
        earned: by the answers whose receipts were checked.
        running: what has come of the answers under way is worth.
        asked: most that the provider has asked for, by receipt or in mid-answer.
    """
    return max(signed, min(earned + running, asked))


def check_asked(asked: int, *, earned: int, outstanding: int) -> None:
    """Check what a receipt asks for, in all, against the answers that there are.

    Args:
        asked: by the receipt, cumulative wei.
        earned: by all receipts that were checked, this one included.
        outstanding: the most that the answers without a receipt yet can cost.

    Raises:
        BindingMismatch: the provider asks for more than it can have earned.
    """
    if asked > earned + outstanding:
        raise BindingMismatch(
            "amount", f"the receipt asks for {asked} wei on the channel, and at most {earned + outstanding} are owed"
        )


def most_prompt_tokens(request_bytes: int, context: int) -> int:
    """Most tokens that a prompt can have: one a byte of the request, and the template's own."""
    return min(context, request_bytes + TEMPLATE_TOKENS)
