"""Answers that go on where another provider broke off: what may be continued, and the grammar's part."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.engines.test_grammar import EOG, VOCABULARY
from tests.tiny import tiny_request

from assay.core.completion import Prompt
from assay.core.errors import InvalidRequest
from assay.engines.continuing import continued, resumed
from assay.engines.grammar import ConstraintSpec, GrammarCompiler

PROMPT = Prompt(b"hi", (1, 2))
TEXT = b'{"name": 12}'


def test_the_model_reads_what_was_delivered_after_the_prompt() -> None:
    """The tokens come last, the rendered text is as it was, and without any nothing changes."""
    request = tiny_request()
    assert continued(PROMPT, request, VOCABULARY) is PROMPT
    assert continued(PROMPT, request.after([97, 98]), VOCABULARY) == Prompt(b"hi", (1, 2, 97, 98))


@pytest.mark.parametrize(
    ("tokens", "said"), [((VOCABULARY.n_vocab,), "token 0"), ((97, EOG), "ended"), (tuple(b"xEND"), "ended")]
)
def test_what_is_no_beginning_of_an_answer_is_refused(tokens: tuple[int, ...], said: str) -> None:
    """Tokens that the model does not have; an end of generation; a whole stop text, of which a part is none."""
    request = tiny_request(stop=("END",))
    with pytest.raises(InvalidRequest, match=said) as caught:
        continued(PROMPT, request.after(tokens), VOCABULARY)
    assert caught.value.field == "continues"
    assert continued(PROMPT, request.after(b"xEN"), VOCABULARY).tokens == (1, 2, *b"xEN")


@pytest.mark.parametrize("cut", range(1, len(TEXT)))
def test_a_grammar_goes_on_where_the_answer_broke_off(cut: int) -> None:
    """After the tokens that were delivered it allows what the grammar of the unbroken answer allows there."""
    compiler, spec = GrammarCompiler(VOCABULARY), ConstraintSpec('{"type":"object"}', "response_format")
    unbroken = compiler.compile(spec)
    for token in TEXT[:cut]:
        unbroken.accept(token)
    went_on = resumed(compiler.compile(spec), tiny_request().after(TEXT[:cut]))
    for token in TEXT[cut:]:
        assert np.array_equal(went_on.allowed(), unbroken.allowed())
        went_on.accept(token)
        unbroken.accept(token)
    assert went_on.allowed()[EOG]


def test_tokens_that_a_grammar_does_not_allow_are_not_continued() -> None:
    """Whoever delivered them did not do what was asked for: nobody goes on with that."""
    compiler, spec = GrammarCompiler(VOCABULARY), ConstraintSpec('{"type":"object"}', "response_format")
    with pytest.raises(InvalidRequest, match="not what was asked for") as caught:
        resumed(compiler.compile(spec), replace(tiny_request(), continues=tuple(b'{"a"}')))
    assert caught.value.field == "continues"
