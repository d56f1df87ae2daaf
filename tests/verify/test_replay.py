"""The pinned check: zero tolerance."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import PROFILE, TinyModel, TinyReplayer, tiny_completion, tiny_request
from tests.verify.kit import NoisyReplayer, bundled, completed, leaf_of, lie, prefill, reader

from assay.core.bundle import Bundle
from assay.core.encoding import MICRO
from assay.core.errors import ReplayMismatch
from assay.core.evidence import evidence_root
from assay.core.ports import Replayer
from assay.core.request import SamplerSettings
from assay.verify.replay import machine_differences, recompute, regime_contradictions, replay


def replayed(bundle: Bundle, replayer: Replayer | None = None) -> None:
    """Replay a bundle on the machine that made it, or on another."""
    replay(bundle, reader().render(bundle.request), replayer or TinyReplayer())


def honest(temperature: float = 1.0) -> Bundle:
    """An honest answer of the tiny model."""
    request = tiny_request(temperature=temperature)
    return bundled(request, completed(request))


@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0, 1.2])
def test_an_honest_answer_is_recomputed_exactly(temperature: float) -> None:
    """Every token and every logit of an honest answer come out again."""
    replayed(honest(temperature))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 31), st.integers(1, 255))
def test_any_changed_token_is_found_and_named(step: int, shift: int) -> None:
    """A changed token is found where it was changed, even if all evidence is recomputed for it."""
    request = tiny_request()

    def edit(tokens: list[int]) -> list[int]:
        at = step % len(tokens)
        return [*tokens[:at], (tokens[at] + shift) % 256, *tokens[at + 1 :]]

    original, forged = tiny_completion(request), completed(request, edit)
    at = step % len(original.tokens)
    if forged.tokens == original.tokens:
        return
    with pytest.raises(ReplayMismatch, match=f"token {at} is {forged.tokens[at]} and model and seed give") as caught:
        replayed(bundled(request, forged))
    assert (caught.value.step, caught.value.expected) == (at, original.tokens[at])
    assert caught.value.actual == forged.tokens[at]


def test_ignored_settings_and_seeds_show() -> None:
    """Another temperature, filter or seed than the request's gives other tokens."""
    request = tiny_request(temperature=0.7)
    for sampler in (SamplerSettings(MICRO), SamplerSettings(0), SamplerSettings(700_000, top_k=2)):
        other = completed(replace(request, sampler=sampler))
        with pytest.raises(ReplayMismatch):
            replayed(bundled(request, other))
    with pytest.raises(ReplayMismatch):
        replayed(bundled(request, completed(replace(request, nonce=b"\x05" * 32))))


def test_another_model_shows_in_its_tokens_or_at_least_in_its_logits() -> None:
    """Cheap tokens with an honest prefill miss the draw; honest tokens with another model's logits miss the root."""
    request = tiny_request()
    cheap = tiny_completion(request, 1).tokens
    with pytest.raises(ReplayMismatch, match=r"token \d+ is"):
        replayed(bundled(request, completed(request, lambda _: list(cheap))))
    made = completed(request)
    rows = prefill((*made.prompt.tokens, *made.tokens), len(made.prompt.tokens), noise=1e-6)
    leaves = tuple(leaf_of(request, row, token) for row, token in zip(rows, made.tokens, strict=True))
    with pytest.raises(ReplayMismatch, match="the logits that the receipt commits to are not") as caught:
        replayed(bundled(request, replace(made, leaves=leaves)))
    assert caught.value.step is None


def test_a_root_over_other_leaves_is_refused() -> None:
    """The evidence root must be the one of the recomputed logits."""
    bundle = honest()
    with pytest.raises(ReplayMismatch):
        replayed(lie(bundle, evidence=evidence_root((), bundle.request.nonce)))


def test_what_is_recomputed_has_a_row_for_each_token() -> None:
    """Rows predict the token beside them."""
    bundle = honest(0.0)
    for here in recompute(bundle, reader().render(bundle.request), TinyReplayer()):
        assert here.row.argmax() == here.token == bundle.tokens[here.index]


def test_noise_is_a_mismatch_here() -> None:
    """Zero tolerance means that a machine which computes other bits cannot replay (see the policy)."""
    with pytest.raises(ReplayMismatch):
        replayed(honest(), NoisyReplayer(1))


def test_profiles_say_whether_bits_must_be_equal() -> None:
    """Machines may differ in engine, build, regime and instruction set; cache and attention belong to the regime."""
    assert machine_differences(PROFILE, replace(PROFILE, context=9, threads=3, template="x")) == ()
    assert machine_differences(replace(PROFILE, isa="avx2", build="7"), PROFILE) == ("build", "isa")
    assert regime_contradictions(PROFILE, PROFILE) == ()
    assert regime_contradictions(replace(PROFILE, kv_type="q8_0"), PROFILE) == ("kv_type",)
    assert TinyModel(0).digest == TinyReplayer().model_digest
