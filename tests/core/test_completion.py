"""Roots over tokens: what they bind, and that one token is opened without the others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.core import tree16
from assay.core.completion import Prompt, output_digest, token_leaves, token_salts
from assay.core.errors import BindingMismatch, EncodingError

NONCE = bytes(range(32))
TOKENS = st.lists(st.integers(0, 2**32 - 1), max_size=40).map(tuple)


@given(TOKENS, TOKENS)
def test_roots_bind_the_tokens(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    """In their order, and their number."""
    assert (one == other) == (output_digest(NONCE, one) == output_digest(NONCE, other))


def test_prompt_and_output_are_told_apart() -> None:
    """The same tokens under the same nonce have other roots and salts."""
    assert Prompt(b"", (1, 2)).token_digest(NONCE) != output_digest(NONCE, (1, 2))
    salts = token_salts("assay/prompt-tokens/2", NONCE, 20) + token_salts("assay/output/2", NONCE, 20)
    assert len(set(salts)) == 40
    assert not set(salts) & {*token_salts("assay/output/2", bytes(32), 20)}


@given(st.lists(st.integers(0, 2**32 - 1), min_size=2, max_size=40), st.data())
def test_a_token_opens(tokens: list[int], data: st.DataObject) -> None:
    """By its salt and path; another token, salt, place or path does not."""
    salts = token_salts("assay/output/2", NONCE, len(tokens))
    leaves = token_leaves(salts, tokens)
    root, count = output_digest(NONCE, tuple(tokens)), len(tokens)
    at = data.draw(st.integers(0, count - 1))
    beside = at - 1 if at else 1
    path = tree16.prove(leaves, at)
    tree16.verify(root, count, at, leaves[at], path)
    for index, leaf, way in (
        (at, token_leaves([salts[beside]], [tokens[at]])[0], path),
        (at, token_leaves([salts[at]], [tokens[at] ^ 1])[0], path),
        (at, leaves[beside], path),
        (beside, leaves[at], path),
        (at, leaves[at], tree16.prove(leaves, beside)),
    ):
        with pytest.raises(BindingMismatch):
            tree16.verify(root, count, index, leaf, way)


@pytest.mark.parametrize("token", [-1, 2**32])
def test_tokens_that_do_not_fit(token: int) -> None:
    """They are refused."""
    with pytest.raises(EncodingError):
        output_digest(NONCE, (1, token))
