"""Receipts that say something else than what was done."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Protocol

from assay.core.completion import Completion
from assay.core.hashing import ZERO, Digest
from assay.core.keys import Key
from assay.core.profile import Profile
from assay.core.receipt import Receipt, attest, sign
from assay.core.request import Request


class Attest(Protocol):
    """The signature of `core.receipt.attest`, as a provider calls it."""

    def __call__(
        self,
        request: Request,
        completion: Completion,
        *,
        model: Digest,
        profile: Profile,
        key: Key,
        sequence: int,
        issued: int,
        amount: int,
        channel: Digest = ZERO,
    ) -> Receipt:
        """Sign what was done."""
        ...


def _forged(change: Callable[[Receipt], Receipt], pen: Callable[[Key], Key] = lambda key: key) -> Attest:
    """Attests honestly, then changes the receipt and signs it with the key that `pen` makes of the right one."""

    def forge(
        request: Request,
        completion: Completion,
        *,
        model: Digest,
        profile: Profile,
        key: Key,
        sequence: int,
        issued: int,
        amount: int,
        channel: Digest = ZERO,
    ) -> Receipt:
        honest = attest(
            request,
            completion,
            model=model,
            profile=profile,
            key=key,
            sequence=sequence,
            issued=issued,
            amount=amount,
            channel=channel,
        )
        return sign(change(honest), pen(key))

    return forge


def _with_more_tokens(honest: Receipt) -> Receipt:
    more = honest.output_count // 4 + 1
    bill = honest.amount * (honest.output_count + more) // honest.output_count if honest.output_count else honest.amount
    return replace(honest, output_count=honest.output_count + more, amount=bill)


def _with_a_longer_prompt(honest: Receipt) -> Receipt:
    return replace(honest, prompt_count=honest.prompt_count + honest.prompt_count // 4 + 1)


inflated: Final = _forged(_with_more_tokens)
"""Counts (and so bills) more tokens than were delivered."""
inflated_prompt: Final = _forged(_with_a_longer_prompt)
"""Bills a longer prompt than was read: without the model nobody knows how many tokens it has."""
by_another_key: Final = _forged(lambda honest: honest, lambda _: Key.from_secret(secrets.token_bytes(32)))
"""Names the provider and is signed by a key that nobody knows."""
one_number: Final = _forged(lambda honest: replace(honest, sequence=7))
"""Signs every receipt under the same sequence number."""
