"""Transactions of disputes: each is sent once, and again a few times where it failed though it is still wanted."""

from __future__ import annotations

from typing import Final

from assay.chain.outbox import Outbox
from assay.chain.outbox_file import Mined
from assay.core.errors import NotFound, TransactionFailed

TRIES: Final = 8


def free_name(outbox: Outbox, name: str, *, lost: bool = False) -> str | None:
    """The name under which to send something now; None: it is under way, is done, or has failed too often. `lost`:
    what is done counts as failed, since the chain does not have it any more."""
    for n in range(TRIES):
        tried = f"{name}/{n}" if n else name
        try:
            found = outbox.result(tried)
        except NotFound:
            return tried
        except TransactionFailed:
            continue
        if found is None or not lost:
            return None
    return None


def done(outbox: Outbox, name: str) -> Mined | None:
    """The attempt that is in the chain for good; None: there is none, or none yet."""
    for n in range(TRIES):
        try:
            found = outbox.result(f"{name}/{n}" if n else name)
        except NotFound:
            return None
        except TransactionFailed:
            continue
        return found
    return None


def has_failed(outbox: Outbox, name: str) -> str:
    """Why the last attempt failed, if all have; empty otherwise."""
    try:
        outbox.result(f"{name}/{TRIES - 1}")
    except TransactionFailed as error:
        return error.reason
    except NotFound:
        pass
    return ""
