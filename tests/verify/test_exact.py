"""Level `exact`: with a trace, a bad one, or none; what fails is named, and nobody is blamed for a bad trace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import count

import pytest
from tests.tiny import EXACT_PROFILE, TinyAuditor, tiny_request
from tests.verify.kit import CALIBRATION, bundled, completed, lie

from assay.core.bundle import Bundle
from assay.core.errors import BindingMismatch, ModelFileError, ProviderFailed
from assay.core.evidence import evidence_root
from assay.core.verdict import Verdict
from assay.verify.binding import check_offline
from assay.verify.exact import ServedTrace
from assay.verify.policy import verify_bundle


def honest() -> Bundle:
    """An answer at level `exact`."""
    request = tiny_request(level="exact", max_tokens=20)
    return bundled(request, completed(request))


def altered() -> Bundle:
    """The same tokens, over evidence of other numbers."""
    bundle = honest()
    return lie(bundle, evidence=evidence_root([bytes(32)] * len(bundle.tokens), bundle.request.nonce))


def verdict(bundle: Bundle, trace: ServedTrace | None = None, auditor: TinyAuditor | None = None) -> Verdict:
    """The verdict of an auditor with the model."""
    return verify_bundle(
        bundle, None, calibration=CALIBRATION, clock=map(float, count()).__next__, trace=trace,
        auditor=lambda: auditor or TinyAuditor(),
    )  # fmt: skip


def served(blocks: Iterable[bytes] = (b"tr", b"ace"), **more: object) -> ServedTrace:
    """A good trace, unless it is told otherwise."""
    return ServedTrace(blocks, **more)  # type: ignore[arg-type]


def unreachable() -> Iterator[bytes]:
    """A provider that is gone."""
    yield b"tr"
    raise ProviderFailed("the provider is gone")


def test_with_a_trace() -> None:
    """All passes, or some of them: the verdict says how many tokens that were."""
    bundle = honest()
    whole = verdict(bundle, served())
    assert whole.holds
    assert [finding.check for finding in whole.findings][-3:] == ["trace", "products", "sampler"]
    assert whole.tokens_checked == len(bundle.tokens)
    first = bundle.receipt.prompt_count - 1
    some = verdict(bundle, served(positions=[0, 1, first, first + 3], whole=True))
    assert (some.holds, some.tokens_checked) == (True, 2)
    assert "in 4 of" in some.findings[-2].reason


@pytest.mark.parametrize("blocks", [[b"of another"], [], unreachable()], ids=["other", "none", "broken off"])
def test_a_bad_trace_changes_no_verdict(blocks: Iterable[bytes]) -> None:
    """Everything is computed again; that the trace was of no use is told."""
    for bundle in (honest(), altered()):
        found = verdict(bundle, served(blocks))
        assert found.holds is (bundle == honest())
        (told,) = [finding for finding in found.findings if finding.check == "trace"]
        assert told.outcome == "unchecked"
        assert found.tokens_checked == len(bundle.tokens)


def test_a_wrong_accumulator_alone_blames_nobody() -> None:
    """Receipts do not commit to accumulators, so anybody can write a wrong one: it counts if the receipt fails too."""
    wrong = [TinyAuditor.WRONG]
    found = verdict(honest(), served(wrong))
    assert found.holds
    assert [(finding.check, finding.outcome) for finding in found.findings][-3:] == [
        ("trace", "unchecked"),
        ("products", "holds"),
        ("sampler", "holds"),
    ]
    assert "row 7 of the up product" in found.findings[-3].reason
    assert found.tokens_checked == len(honest().tokens)
    found = verdict(altered(), served(wrong))
    assert (found.outcome, found.findings[-1].check, found.findings[-1].step) == ("fails", "products", 1)
    assert found.reasons[0].startswith("row 7 of the up product")


def test_what_is_wrong_is_named() -> None:
    """With a trace position, layer and operation; without one, that the numbers are others; of a token, which."""
    bundle = altered()
    found = verdict(bundle, served())
    position = bundle.receipt.prompt_count
    (reason,) = found.reasons
    assert reason == f"the up product is wrong at position {position} in layer 3, in the pass that gave output token 1"
    assert (found.findings[-1].check, found.findings[-1].step, found.basis) == ("products", 1, "exact")
    found = verdict(bundle)
    assert (found.outcome, found.findings[-1].check, found.findings[-1].step) == ("fails", "products", None)
    request = tiny_request(level="exact", max_tokens=20)
    found = verdict(bundled(request, completed(request, lambda tokens: [*tokens[:2], tokens[2] ^ 1, *tokens[3:]])))
    assert (found.outcome, found.findings[-1].check, found.findings[-1].step) == ("fails", "sampler", 2)


def test_another_integer_model() -> None:
    """The profile's build is the root that the model file gives, or the receipt fails."""
    auditor = TinyAuditor(profile=replace(EXACT_PROFILE, build="11" * 32))
    found = verdict(honest(), auditor=auditor)
    assert (found.outcome, found.findings[-1].check) == ("fails", "profile")


def test_the_machine_does_not_matter() -> None:
    """An auditor of another instruction set decides all the same."""
    assert verdict(honest(), auditor=TinyAuditor(profile=replace(EXACT_PROFILE, isa="another", threads=7))).holds


@pytest.mark.parametrize("change", [{"regime": "pinned/1"}, {"regime": "free"}, {"sampler": "gumbel/1"}])
def test_other_profiles_cannot_be_exact(change: dict[str, str]) -> None:
    """The level needs its regime and its sampler; and the level `pinned` takes neither."""
    request = tiny_request(level="exact", max_tokens=4)
    with pytest.raises(BindingMismatch, match="'exact' needs"):
        check_offline(bundled(request, completed(request), profile=replace(EXACT_PROFILE, **change)))
    pinned = tiny_request(level="pinned", max_tokens=4)
    with pytest.raises(BindingMismatch, match="'pinned' needs"):
        check_offline(bundled(pinned, completed(pinned), profile=EXACT_PROFILE))


def test_what_cannot_be_checked_here() -> None:
    """Without the model, with another one, or with one that the exact engine cannot have, nobody is blamed."""
    bundle = honest()
    assert verify_bundle(bundle, None, calibration=CALIBRATION, clock=lambda: 0.0).outcome == "inconclusive"
    assert verdict(bundle, auditor=TinyAuditor(5)).outcome == "inconclusive"

    def refuses() -> TinyAuditor:
        raise ModelFileError("the exact engine cannot have this model")

    found = verify_bundle(bundle, None, calibration=CALIBRATION, clock=lambda: 0.0, auditor=refuses)
    assert (found.outcome, "cannot have" in found.reasons[0]) == ("inconclusive", True)
