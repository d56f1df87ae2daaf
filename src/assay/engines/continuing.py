"""Answers that go on where another provider broke off: what its tokens do to prompt and grammar.

The model reads them after the prompt, so that they are prompt tokens in all that is counted, priced, checked and
disputed; as for text, stop strings and grammar, they are the beginning of the answer. `AnswerPath` has the text's part.
"""

from __future__ import annotations

from dataclasses import replace

from assay.core.completion import Prompt
from assay.core.errors import EngineError, InvalidRequest
from assay.core.ports import Constraint, Tokenizer
from assay.core.request import Request
from assay.engines.text import final_text

_FIELD = "continues"


def continued(prompt: Prompt, request: Request, tokenizer: Tokenizer) -> Prompt:
    """`prompt`, as the request's messages render, and after it the tokens that the request continues.

    Raises:
        InvalidRequest: these are not the beginning of an answer: the model does not know one of them, or the answer
            ends in them.
    """
    if not request.continues:
        return prompt
    for index, token in enumerate(request.continues):
        if token >= tokenizer.n_vocab:
            raise InvalidRequest(f"token {index} is {token}, which the model does not know", field=_FIELD)
        if tokenizer.is_eog(token):
            raise _ended()
    if request.stop and final_text(b"".join(map(tokenizer.piece, request.continues)), request.stop)[1]:
        raise _ended()
    return replace(prompt, tokens=(*prompt.tokens, *request.continues))


def resumed(constraint: Constraint, request: Request) -> Constraint:
    """A fresh grammar after the tokens that the request continues.

    Raises:
        InvalidRequest: it does not allow them.
    """
    try:
        for token in request.continues:
            constraint.accept(token)
    except EngineError as error:
        raise InvalidRequest(f"what was delivered before is not what was asked for: {error}", field=_FIELD) from error
    return constraint


def _ended() -> InvalidRequest:
    return InvalidRequest("the answer has ended in the tokens that are to be continued", field=_FIELD)
