"""What people read of an answer, against its tokens: these are what a receipt binds, and text follows from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from assay.core.completion import WHOLE, StepStop
from assay.core.errors import BindingMismatch
from assay.core.hashing import Digest
from assay.core.offer import Offer
from assay.core.request import Request

Spell: TypeAlias = Callable[[Digest, Sequence[int], Sequence[str]], tuple[str, str] | None]
"""The text of an answer of the model with this digest, by its tokens and the request's stop texts: as far as it can be
shown while more tokens may follow, and all of it; None: the model is not known. Raises BindingMismatch for tokens that
the model does not have."""


def check_text(
    spell: Spell, offer: Offer, request: Request, tokens: Sequence[int], shown: str, stop: StepStop | None
) -> None:
    """Check the text that came until now against the tokens that came; nothing is found where the model is not known.

    Raises:
        BindingMismatch: it is not what the tokens say.
    """
    texts = spell(offer.model_digest, (*request.continues, *tokens), request.stop)
    if texts is not None and (texts[1] != shown if stop in WHOLE else not texts[1].startswith(shown)):
        raise _other(len(request.continues) + len(tokens))


def kept_back(spell: Spell, offer: Offer, request: Request, tokens: Sequence[int], shown: str) -> str:
    """What the tokens of an answer that broke off say and its provider has not shown, though it could; nothing where
    the model is not known.

    Raises:
        BindingMismatch: what it has shown is not the beginning of that.
    """
    texts = spell(offer.model_digest, (*request.continues, *tokens), request.stop)
    if texts is None:
        return ""
    if not texts[0].startswith(shown):
        raise _other(len(request.continues) + len(tokens))
    return texts[0][len(shown) :]


def _other(tokens: int) -> BindingMismatch:
    return BindingMismatch("text", f"the text that came is not what its {tokens} tokens say")
