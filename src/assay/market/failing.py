"""What a consumer hears when no provider gave a first token."""

from __future__ import annotations

from collections.abc import Sequence

from assay.core.errors import AssayError, Busy, InvalidRequest, PaymentRequired, PriceChanged, ProviderFailed


def all_failed(errors: Sequence[AssayError]) -> AssayError:
    """One error out of those of all providers that were tried, in their order."""
    refused = [error for error in errors if isinstance(error, InvalidRequest)]
    if refused:
        return refused[0]
    unpaid = [error for error in errors if isinstance(error, PaymentRequired)]
    if unpaid and len(unpaid) == len(errors):
        return unpaid[0]
    waits = [error.retry_after for error in errors if isinstance(error, Busy)]
    changed = [error for error in errors if isinstance(error, PriceChanged)]
    if changed and len(waits) == len(errors):
        return Busy(changed[0].message, retry_after=1, remedy="try again: the new price is known now")
    if len(waits) == len(errors):
        return Busy("every provider that fits is full", retry_after=min(waits, default=1), remedy="try again")
    reasons = "; ".join(dict.fromkeys(error.message for error in errors))
    return ProviderFailed(f"every provider that fits failed ({reasons[:2000]})", "try again, or start another provider")
