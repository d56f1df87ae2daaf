"""What an answer costs."""

from __future__ import annotations

from typing import Final

from assay.core.offer import Price

FREE: Final = Price(0, 0)
CREDIT_TOKENS: Final = 256
"""Output tokens that may be unpaid, beside the longest prompt, where no credit is set."""
_PROMPT_WEIGHT: Final = 3
"""Prompt tokens for each output token in the usual blended price."""


def amount_due(price: Price, prompt_tokens: int, output_tokens: int) -> int:
    """Wei for an answer; nothing if not one token was delivered."""
    return price.of(prompt_tokens, output_tokens) if output_tokens else 0


def credit_for(price: Price, context: int) -> int:
    """Wei that may be unpaid where no credit is set: a prompt that fills the context, and CREDIT_TOKENS."""
    return price.of(context, CREDIT_TOKENS)


def blended(price: Price) -> int:
    """One number to compare prices by: three prompt tokens and one output token."""
    return _PROMPT_WEIGHT * price.prompt + price.output


def within(price: Price, ceiling: Price | None) -> bool:
    """Each part is at most the ceiling's."""
    return ceiling is None or (price.prompt <= ceiling.prompt and price.output <= ceiling.output)
