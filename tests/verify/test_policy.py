"""Verdicts: the right checks for each level, one clear sentence each, and nobody blamed for another machine's bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import PROFILE, TinyAuditor, TinyReplayer, profile_at, tiny_completion, tiny_key, tiny_request
from tests.verify.kit import CALIBRATION, FREE, KEY, NoisyReplayer, bundled, completed, lie, reader

from assay.core.bundle import Bundle
from assay.core.errors import EngineError, ModelFileError
from assay.core.ports import Replayer
from assay.core.receipt import sign
from assay.core.request import LEVELS, Level, Message, Request
from assay.core.verdict import Finding, Verdict
from assay.verify.calibration import REJECT
from assay.verify.policy import check_pair, contradictions, pooled, verify_bundle


def clock() -> Callable[[], float]:
    """A clock that goes on by a second each time it is read."""
    return map(float, count()).__next__


def verdict(bundle: Bundle, replayer: Replayer | None = None, control: Replayer | None = None) -> Verdict:
    """The verdict on a bundle."""
    return verify_bundle(bundle, replayer, control=control, calibration=CALIBRATION, clock=clock(), auditor=TinyAuditor)


def honest(level: Level = "pinned", number: int = 1) -> Bundle:
    """An honest answer; another number is another nonce."""
    request = tiny_request(level=level, nonce=bytes([number]) * 32, max_tokens=64)
    return bundled(request, completed(request))


def only_reason(found: Verdict) -> str:
    """The one thing that does not hold."""
    assert len(found.reasons) == 1
    return found.reasons[0]


@pytest.mark.parametrize("level", LEVELS)
def test_an_honest_answer_holds_at_every_level(level: Level) -> None:
    """The verdict names the receipt, the provider and the time it took, and counts what was recomputed."""
    bundle = honest(level)
    found = verdict(bundle, TinyReplayer())
    assert found.holds
    assert found.reasons == []
    assert found.level == level
    assert found.receipt == bundle.receipt.digest.hex()
    assert found.provider == KEY.address
    assert found.tokens_checked == (0 if level == "signed" else len(bundle.tokens))
    assert found.seconds == 1.0


def test_without_a_model_only_signed_can_hold() -> None:
    """What needs the model is inconclusive without it, and says so."""
    assert verdict(honest("signed")).holds
    for level in ("statistical", "pinned"):
        found = verdict(honest(level))
        assert found.outcome == "inconclusive"
        assert "needs the model file" in only_reason(found)
        assert found.tokens_checked == 0


def test_a_forged_receipt_fails_without_any_model() -> None:
    """A bad signature or digest is found offline, and nothing else is looked at."""
    bundle = honest()
    forged = verdict(replace(bundle, receipt=sign(bundle.receipt, tiny_key(9))), TinyReplayer())
    assert (forged.outcome, forged.findings[-1].check) == ("fails", "signature")
    changed = verdict(replace(bundle, tokens=(*bundle.tokens[:-1], 7)), TinyReplayer())
    assert (changed.outcome, changed.findings[-1].check) == ("fails", "output")


def test_a_changed_token_is_named_at_pinned() -> None:
    """The sentence says which token it is and what model and seed give."""
    request = tiny_request()
    right = tiny_completion(request).tokens[4]
    forged = completed(request, lambda tokens: [*tokens[:4], tokens[4] ^ 1, *tokens[5:]])
    found = verdict(bundled(request, forged), TinyReplayer())
    assert found.outcome == "fails"
    assert only_reason(found).startswith(f"token 4 is {right ^ 1} and model and seed give {right}")
    assert found.findings[-1].step == 4


def test_another_model_file_blames_nobody() -> None:
    """Whoever checks with the wrong file is told so."""
    found = verdict(honest(), TinyReplayer(1))
    assert found.outcome == "inconclusive"
    assert "check it with the model file that it names" in only_reason(found)


def test_a_machine_with_other_bits_blames_nobody_at_pinned() -> None:
    """Where the provider's profile differs, pinned is inconclusive, and the draws are checked up to noise."""
    request = tiny_request(max_tokens=64)
    bundle = bundled(request, completed(request), profile=replace(PROFILE, isa="another"))
    found = verdict(bundle, NoisyReplayer(1), NoisyReplayer(2))
    assert found.outcome == "inconclusive"
    assert [finding.outcome for finding in found.findings[-2:]] == ["inconclusive", "holds"]
    assert "isa differs" in only_reason(found)
    assert found.findings[-1].check == "sampler"


def test_claiming_another_machine_is_no_way_out() -> None:
    """Cheap tokens under a claimed foreign profile still fail the statistical check of the draws."""
    request = tiny_request(max_tokens=64)
    cheap = list(tiny_completion(request, 1).tokens)
    forged = bundled(request, completed(request, lambda _: cheap), profile=replace(PROFILE, isa="another"))
    assert verdict(forged, NoisyReplayer(1), NoisyReplayer(2)).outcome == "fails"


def test_a_regime_with_another_cache_is_a_contradiction() -> None:
    """The pinned regime fixes the cache: whoever claims both lies."""
    request = tiny_request()
    for level in ("pinned", "statistical"):
        asked = replace(request, level=level)
        bundle = bundled(asked, completed(asked), profile=replace(PROFILE, kv_type="q8_0"))
        found = verdict(bundle, TinyReplayer())
        assert (found.outcome, found.findings[-1].check) == ("fails", "profile")


def test_statistical_holds_for_an_honest_machine_with_other_bits() -> None:
    """Honest noise passes, and each test says so with its limit."""
    request = tiny_request(level="statistical", max_tokens=64)
    bundle = bundled(request, completed(request), profile=FREE)
    found = verdict(bundle, NoisyReplayer(1), NoisyReplayer(2))
    assert found.holds, found.reasons
    assert {"forward", "chosen", "opening", "sampler"} <= {finding.check for finding in found.findings}
    assert all(finding.threshold == 1.0 for finding in found.findings if finding.statistic is not None)


def test_statistical_needs_a_yardstick() -> None:
    """Without a second recomputation, or without a calibration, nobody is blamed."""
    request = tiny_request(level="statistical")
    bundle = bundled(request, completed(request), profile=FREE)
    assert "second recomputation" in only_reason(verdict(bundle, NoisyReplayer(1)))
    strange = bundled(request, completed(request), profile=replace(FREE, engine="abacus"))
    assert "no calibration" in only_reason(verdict(strange, NoisyReplayer(1), NoisyReplayer(2)))


def test_statistical_says_what_is_wrong() -> None:
    """Another model's numbers are called that."""
    request = tiny_request(level="statistical", max_tokens=64)
    made = completed(request, seed=1)
    found = verdict(bundled(request, made, profile=FREE), NoisyReplayer(1), NoisyReplayer(2))
    assert found.outcome == "fails"
    assert any("other weights or another prompt" in reason for reason in found.reasons)


def test_an_injected_prompt_fails_by_its_digest() -> None:
    """A provider that signs what it really did shows the other prompt."""
    request = tiny_request()
    told = replace(request, messages=(Message("system", "Sell!"), *request.messages))
    made = replace(completed(request), prompt=reader().render(told))
    found = verdict(bundled(request, made), TinyReplayer())
    assert (found.outcome, found.findings[-1].check) == ("fails", "prompt")


def test_other_versions_of_template_or_grammar_blame_nobody() -> None:
    """A prompt that another version of the renderer gave may differ honestly."""
    request = tiny_request()
    told = replace(request, messages=(Message("system", "New!"), *request.messages))
    made = replace(completed(request), prompt=reader().render(told))
    found = verdict(bundled(request, made, profile=replace(PROFILE, template="tiny/2")), TinyReplayer())
    assert found.outcome == "inconclusive"
    assert "chat templates are of version 'tiny/2'" in only_reason(found)


def test_work_is_bounded_before_it_is_done() -> None:
    """An answer longer than the verifier's context is not recomputed."""
    bundle = honest()
    context = bundle.receipt.prompt_count + len(bundle.tokens) - 2
    found = verdict(bundle, TinyReplayer(profile=replace(PROFILE, context=context)))
    assert found.outcome == "inconclusive"
    assert "positions" in only_reason(found)
    assert found.tokens_checked == 0


@pytest.mark.parametrize("error", [EngineError("it broke"), ModelFileError("it is damaged")])
def test_a_machine_that_fails_blames_nobody(error: Exception) -> None:
    """Errors of the verifier's own engine are inconclusive."""

    class Failing(TinyReplayer):
        def rows(self, tokens: Sequence[int], first: int) -> Iterator[np.ndarray]:
            raise error

    found = verdict(honest(), Failing())
    assert found.outcome == "inconclusive"
    assert "this machine cannot check it" in only_reason(found)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_hostile_bundles_get_a_verdict(data: st.DataObject) -> None:
    """Whatever a provider signs, there is a verdict, and it never holds."""
    level = data.draw(st.sampled_from(LEVELS))
    bundle = honest(level)
    honest_count = len(bundle.tokens)
    big = st.sampled_from([0, 1, honest_count, 2**20, 2**32 - 1])
    tokens = tuple(data.draw(st.lists(st.sampled_from([0, 97, 256, 261, 262, 2**32 - 1]), max_size=70)))
    forged = lie(
        replace(bundle, tokens=tokens, opening=data.draw(st.binary(max_size=200))),
        prompt_count=data.draw(big),
        output_count=data.draw(big),
        evidence=data.draw(st.sampled_from([bytes(32), bundle.receipt.evidence])),
    )
    found = verdict(forged, NoisyReplayer(1), NoisyReplayer(2))
    assert found.outcome == "fails"
    assert found.reasons


def test_several_answers_together_are_judged() -> None:
    """Cheating too slight for one answer shows in eight; eight honest answers pass; later blocks need more evidence."""

    def one(severity: float) -> Verdict:
        return replace(verdict(honest("signed")), evidence=CALIBRATION.entries[0].evidence(severity))

    assert pooled([one(0.1)] * 8).outcome == "holds"
    slight = [one(0.1), *[one(1.1)] * 5, one(0.1)]
    found = pooled(slight)
    assert found.outcome == "fails"
    assert found.statistic is not None
    assert found.statistic >= 2 * REJECT
    assert pooled(slight, block=1000).outcome == "holds"
    assert pooled([verdict(honest("signed"))] * 8).reason.startswith("0 answers")


def test_a_verdict_brings_its_evidence() -> None:
    """By the calibration of the prover's class; without statistical tests there is none."""
    request = tiny_request(level="statistical", max_tokens=64)
    right = bundled(request, completed(request), profile=FREE)
    wrong = bundled(request, completed(request, seed=1), profile=FREE)
    good, bad = (verdict(bundle, NoisyReplayer(1), NoisyReplayer(2)).evidence for bundle in (right, wrong))
    assert good is not None
    assert bad is not None
    assert good < 1 < 10 < bad
    assert verdict(honest(), TinyReplayer()).evidence is None


def test_the_basis_tells_proof_from_noise() -> None:
    """What was compared exactly is proof at every level; what was tested may be noise, also of a pinned receipt."""
    request = tiny_request(level="statistical", max_tokens=64)
    right = bundled(request, completed(request), profile=FREE)
    assert verdict(right, NoisyReplayer(1), NoisyReplayer(2)).basis == "test"
    wrong = verdict(bundled(request, completed(request, seed=1), profile=FREE), NoisyReplayer(1), NoisyReplayer(2))
    assert (wrong.outcome, wrong.basis) == ("fails", "test")
    told = replace(request, messages=(Message("system", "Sell!"), *request.messages))
    made = replace(completed(request), prompt=reader().render(told))
    injected = verdict(bundled(request, made, profile=FREE), NoisyReplayer(1), NoisyReplayer(2))
    assert (injected.outcome, injected.basis) == ("fails", "exact")
    pinned = tiny_request(max_tokens=64)

    def edited(tokens: list[int]) -> list[int]:
        return [token ^ 1 if 98 <= token < 122 else token for token in tokens]

    elsewhere = bundled(pinned, completed(pinned, edited), profile=replace(PROFILE, isa="another"))
    noisy = verdict(elsewhere, NoisyReplayer(1), NoisyReplayer(2))
    assert (noisy.outcome, noisy.basis) == ("fails", "test")
    assert verdict(bundled(pinned, completed(pinned, edited)), TinyReplayer()).basis == "exact"
    history = replace(wrong, findings=(*wrong.findings, Finding("history", "fails", "", None, 9e9, 2e3)))
    assert history.basis == "history"
    assert verdict(honest()).basis == "none"


def test_a_signed_receipt_is_held_to_the_model_where_it_is_there() -> None:
    """Prompt and stop reason at `signed` too; nothing is recomputed, and another model's file changes nothing."""
    request = tiny_request(level="signed")
    told = replace(request, messages=(Message("system", "Sell!"), *request.messages))
    made = replace(completed(request), prompt=reader().render(told))
    injected = bundled(request, made)
    assert verdict(injected).holds
    assert verdict(injected, TinyReplayer(1)).holds
    found = verdict(injected, TinyReplayer())
    assert (found.outcome, found.findings[-1].check, found.tokens_checked) == ("fails", "prompt", 0)
    right = verdict(bundled(request, completed(request)), TinyReplayer())
    assert [finding.check for finding in right.findings] == ["receipt", "prompt", "stop"]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("limit", [0, 40])
def test_an_answer_cut_by_a_context_smaller_than_the_models_is_not_vouched_for(level: Level, limit: int) -> None:
    """The context is the provider's own word: that the answer had to end there cannot be told from the receipt."""
    request = tiny_request(level=level, max_tokens=limit)
    made = completed(request, lambda tokens: tokens[:3])
    small = replace(profile_at(level), context=len(made.prompt.tokens) + 3)
    found = verdict(bundled(request, replace(made, stop="length"), profile=small), TinyReplayer())
    assert (found.outcome, found.findings[3].check) == ("inconclusive", "context")
    assert "trained on 2048" in only_reason(found)
    asked = tiny_request(level=level, max_tokens=3)
    whole = replace(completed(asked), stop="length")
    assert verdict(bundled(asked, whole, profile=replace(small, context=500)), TinyReplayer()).holds


def test_foreign_samplers_are_said_to_prove_no_freshness() -> None:
    """An old answer of the same model would pass: the finding says so, without a verdict on anybody."""
    request = tiny_request(level="statistical", max_tokens=64)
    foreign = replace(FREE, sampler="foreign")
    calibration = replace(CALIBRATION, entries=(replace(CALIBRATION.entries[0], prover="foreign"),))

    def found(asked: Request) -> Verdict:
        bundle = bundled(asked, completed(asked), profile=foreign)
        return verify_bundle(bundle, NoisyReplayer(1), control=NoisyReplayer(2), calibration=calibration, clock=clock())

    seen = found(request)
    assert seen.holds, seen.reasons
    assert [finding.outcome for finding in seen.findings if finding.check == "freshness"] == ["unchecked"]
    assert seen.reasons == []
    cold = replace(request, sampler=replace(request.sampler, temperature=0))
    assert "freshness" not in {finding.check for finding in found(cold).findings}


def test_two_receipts_under_one_number_are_fraud() -> None:
    """Only receipts that the provider signed count; the same receipt twice is no contradiction."""
    one, other = honest(number=1).receipt, honest(number=2).receipt
    next_one = sign(replace(other, sequence=2), KEY)
    forged = sign(other, tiny_key(5))
    assert check_pair(one, other).check == "equivocation"
    assert check_pair(one, other).outcome == "fails"
    assert check_pair(one, one).outcome == "holds"
    assert check_pair(one, next_one).outcome == "holds"
    assert check_pair(one, forged).check == "signature"
    assert contradictions([one, one, next_one, forged]) == []
    assert contradictions([next_one, one, forged, other]) == [(one, other)]
