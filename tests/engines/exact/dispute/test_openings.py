"""What an opening shows beside cells and records: tokens, and the numbers of model and layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from benchmarks._dispute import guide
from tests.engines.exact.dispute.kit import NONCE, Answer, answer, settle
from tests.tiny import PROFILE, tiny_completion, tiny_key, tiny_request

from assay.core.errors import BindingMismatch, EncodingError
from assay.core.hashing import ZERO
from assay.core.receipt import attest
from assay.core.request import Opening, Request, SamplerSettings
from assay.engines.exact.dispute.evidence import Tokens
from assay.engines.exact.dispute.game import Terms
from assay.engines.exact.dispute.moves import Outcome, Turn, WantStep
from assay.engines.exact.dispute.plan import NumberTarget, Plan, Target, TokenTarget
from assay.engines.exact.dispute.reading import Commitments, OpenedReader
from assay.engines.exact.dispute.response import OpenedTokens, Response
from assay.engines.exact.dispute.shape import LAYER_BYTES, MODEL_BYTES
from assay.engines.exact.dispute.sides import Prover


def read(one: Answer, position: int, opening: bytes, roots: Tokens | None = None) -> int:
    """The token that an opening shows."""
    own = one.own
    committed = Commitments(one.root, own.evidence, roots or own.token_roots, position, ZERO, ZERO, ZERO)
    plan = Plan(one.shape, NumberTarget(position, 0))
    reader = OpenedReader(plan, own.parameters.catalogue, committed, 0, opening)
    token = reader.token(position)
    reader.close()
    return token


@pytest.mark.parametrize("name", ["llama", "long"])
def test_tokens_open(name: str) -> None:
    """Each of prompt and answer; not with another token or salt, its neighbour's path, or those of the other tree."""
    one = answer(name)
    own = one.own
    for position, token in enumerate(own.tokens):
        opening = own.open_token(position)
        assert read(one, position, opening) == token
        start, stop = (0, own.prompt) if position < own.prompt else (own.prompt, len(own.tokens))
        beside = own.open_token(position - 1 if position > start else position + 1)
        other = own.open_token(own.prompt if position < own.prompt else 0)
        for wrong in (
            (token ^ 1).to_bytes(4) + opening[4:],
            opening[:4] + beside[4:36] + opening[36:],
            opening[:36] + beside[36:],
            beside,
            other,
            opening[:-1],
            opening + bytes(32),
        ):
            with pytest.raises((BindingMismatch, EncodingError)):
                read(one, position, wrong)
        roots = own.token_roots
        with pytest.raises(BindingMismatch):
            read(one, position, opening, Tokens(roots.output, roots.prompt))
        assert stop - start > 1


class Pretending(Response):
    """Commits to other tokens than those that it computes with."""

    claims: Sequence[int] = ()

    @property
    def opened_tokens(self) -> tuple[OpenedTokens, OpenedTokens]:  # type: ignore[override]
        """Of the claims."""
        own = Response(
            self.model, self.parameters.parameters, self.claims, self.prompt, self.records, self.nonce, self.rules
        )
        return own.opened_tokens


def pretending(one: Answer, position: int, token: int) -> Pretending:
    """A response that claims another token at a position."""
    own = one.own
    other = Pretending(own.model, own.parameters.parameters, own.tokens, own.prompt, own.records, NONCE, own.rules)
    other.parameters = own.parameters
    other.claims = [*own.tokens[:position], token, *own.tokens[position + 1 :]]
    return other


@pytest.mark.parametrize("past", [0, 1, 2**32 - 1])
def test_tokens_that_the_model_does_not_have(past: int) -> None:
    """Whoever signs for one loses: in the prompt, at the first step over it; in the answer, at the draw too."""
    one = answer("llama")
    own = one.own
    token = min(one.shape.embedding.rows + past, 2**32 - 1)
    first = one.shape.vector(0, "input")[0]
    draw = Plan(one.shape, TokenTarget(own.prompt - 1)).count - 1
    cases: list[tuple[int, Target, int]] = [
        (1, NumberTarget(1, first), 0),
        (own.prompt, NumberTarget(own.prompt, first), 0),
        (own.prompt, TokenTarget(own.prompt - 1), draw),
    ]
    for position, target, cell in cases:
        theirs = pretending(one, position, token)
        outcome = settle(one.terms(theirs), Prover(theirs), guide(one.shape, target, cell))
        assert outcome.winner == "challenger"
        assert "not in the vocabulary" in outcome.reason


def test_another_token_than_was_computed_with() -> None:
    """The row that is opened is the opened token's."""
    one = answer("llama")
    theirs = pretending(one, 1, one.own.tokens[1] ^ 1)
    target = NumberTarget(1, one.shape.vector(0, "input")[0])
    outcome = settle(one.terms(theirs), Prover(theirs), guide(one.shape, target, 0))
    assert outcome.winner == "challenger"


class Exchanging(Prover):
    """Shows other numbers of the model or of the layer."""

    def __init__(self, own: Response, start: int, leaf: bytes) -> None:
        super().__init__(own)
        self._start, self._leaf = start, leaf

    def move(self, turn: Turn) -> bytes:
        move = super().move(turn)
        if not isinstance(turn, WantStep):
            return move
        return move[: self._start] + self._leaf + move[self._start + len(self._leaf) :]


def proved(one: Answer, index: int, leaf: bytes) -> bytes:
    """A layer's numbers, and the path of some layer's."""
    return leaf + b"".join(one.own.parameters.layer(index))


def judged(one: Answer, start: int, leaf: bytes, terms: Terms | None = None) -> Outcome:
    """What becomes of an opening of a cell of the last layer in which something is exchanged."""
    target = NumberTarget(3, one.shape.vector(len(one.shape.layers) - 1, "keys")[0])
    return settle(terms or one.terms(), Exchanging(one.own, start, leaf), guide(one.shape, target, None))


def test_numbers_of_model_and_layer_are_bound() -> None:
    """Those of another layer, changed ones, or others' path lose; so does whoever agreed to another shape."""
    one = answer("gemma3")
    layers = [(n, one.shape.layers[n].leaf) for n in range(2)]
    model = one.own.parameters.numbers()
    assert len(one.shape.leaf) == MODEL_BYTES
    assert {len(leaf) for _, leaf in layers} == {LAYER_BYTES}
    mine = proved(one, *layers[1])
    assert judged(one, 0, model + mine).winner == "prover"
    changed = bytes([mine[0] ^ 1]) + mine[1:]
    for wrong in (proved(one, *layers[0]), changed, proved(one, layers[0][0], layers[1][1])):
        assert judged(one, len(model), wrong).winner == "challenger"
    assert judged(one, 0, bytes([model[0] ^ 1])).winner == "challenger"
    assert judged(one, len(model) - 1, bytes([model[-1] ^ 1])).winner == "challenger"


def test_the_shape_is_the_roots() -> None:
    """A dispute about a shape that is not under the root is lost by the prover, not judged by that shape."""
    one = answer("gemma3")
    layers = (one.shape.layers[0], replace(one.shape.layers[1], window=4))
    for shape in (replace(one.shape, layers=layers), replace(one.shape, epsilon=one.shape.epsilon + 1)):
        outcome = judged(one, 0, b"", replace(one.terms(), shape=shape))
        assert outcome.winner == "challenger"
        assert "other numbers" in outcome.reason


def test_a_wrong_salt() -> None:
    """The evidence opens with its own only."""
    own = answer("llama").own
    for position, leaf in enumerate(own.leaves):
        path = own.path(position)
        own.evidence.verify(position, leaf, path)
        for salt in (NONCE, bytes(32)):
            with pytest.raises(BindingMismatch):
                own.evidence.verify(position, leaf, [*path[:-1], salt])


def terms_of(request: Request, opening: Opening) -> Terms:
    """Those of a receipt over an answer to a request."""
    given = {"model": bytes(32), "profile": PROFILE, "key": tiny_key(), "sequence": 1, "issued": 1, "amount": 0}
    receipt = attest(request, tiny_completion(request), **given)
    one = answer("llama")
    terms = Terms.of(receipt, opening, one.shape, one.root)
    assert (terms.evidence.root, terms.evidence.prompt) == (receipt.evidence, receipt.prompt_count)
    assert terms.tokens == (receipt.prompt_tokens, receipt.output)
    return terms


def test_terms_of_a_receipt() -> None:
    """Settings and seed are those of its request; another body, seed or rules are refused, and so is a grammar."""
    request = replace(tiny_request(), sampler=SamplerSettings(5, 6, 7, 8))
    opening = request.opening
    terms = terms_of(request, opening)
    assert (terms.settings, terms.seed) == (request.sampler, request.seed)
    other = tiny_request(nonce=NONCE).opening
    for wrong in (
        opening._replace(body=other.body),
        opening._replace(seed=other.seed),
        opening._replace(rules=other.rules),
        opening._replace(rules=opening.rules[:-1] + b"\1"),
        opening._replace(rules=opening.rules + b"\0"),
        other,
    ):
        with pytest.raises(BindingMismatch, match="opened request"):
            terms_of(request, wrong)
    masked = replace(request, response_format="json_object")
    with pytest.raises(BindingMismatch, match="grammar"):
        terms_of(masked, masked.opening)


def test_no_opening_shows_the_nonce() -> None:
    """Nor does any other move."""
    one = answer("llama")
    for target in (NumberTarget(1, one.shape.vector(0, "input")[0]), TokenTarget(one.own.prompt - 1)):
        seen: list[bytes] = []
        settle(one.terms(), Noting(one.own, seen), guide(one.shape, target, None))
        assert len(seen) > 2
        assert not any(NONCE in move for move in seen)


class Noting(Prover):
    """Keeps its moves."""

    def __init__(self, own: Response, seen: list[bytes]) -> None:
        super().__init__(own)
        self._seen = seen

    def move(self, turn: Turn) -> bytes:
        self._seen.append(super().move(turn))
        return self._seen[-1]
