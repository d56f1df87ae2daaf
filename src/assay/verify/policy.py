"""Which checks a receipt gets, and the verdict that they add up to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from assay.core.bundle import Bundle
from assay.core.completion import Prompt
from assay.core.errors import (
    AssayError,
    BindingMismatch,
    Equivocation,
    InvalidSignature,
    ReplayMismatch,
    VerificationError,
)
from assay.core.ports import Auditor, PromptReader, Replayer
from assay.core.receipt import Receipt, check_equivocation, verify_signature
from assay.core.verdict import HISTORY, Finding, Verdict
from assay.verify.binding import check_offline, check_with_model
from assay.verify.calibration import Calibration, Entry, largest_product, limit_of_block
from assay.verify.exact import ServedTrace, check_exact
from assay.verify.replay import machine_differences, regime_contradictions, replay
from assay.verify.statistics import SAME_BITS, judge, measure

_Inspector = TypeVar("_Inspector", Replayer, Auditor)


class _UncheckableError(Exception):
    """What is left cannot be checked on this machine."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.reason)
        self.finding = finding


def verify_bundle(
    bundle: Bundle,
    replayer: Replayer | None,
    *,
    control: Replayer | None = None,
    calibration: Calibration,
    clock: Callable[[], float],
    auditor: Callable[[], Auditor] | None = None,
    trace: ServedTrace | None = None,
) -> Verdict:
    """Check one receipt at its level. Whatever the bundle holds, the answer is a verdict.

    `replayer` recomputes with the model (None: only what needs no model is checked). `control` recomputes with the
    same model in another configuration; statistical checks of a prover whose bits may differ need it to know the
    noise. `clock` gives seconds. `auditor` opens what checks level `exact`, with the `trace` if there is one.
    """
    started = clock()
    findings: list[Finding] = []
    recomputed = 0
    evidence: float | None = None
    try:
        check_offline(bundle)
        findings.append(Finding("receipt", "holds", "the signature is the provider's, and every digest and count fits"))
        signed = bundle.receipt.level == "signed"
        if bundle.receipt.level == "exact":
            prompt, inspector = _check_binding(bundle, auditor() if auditor is not None else None)
            findings += _readings(bundle, inspector.reader)
            _check_versions(bundle, inspector)
            found, recomputed = check_exact(bundle, prompt, inspector, trace)
            findings += found
        elif not signed or (replayer is not None and replayer.model_digest == bundle.receipt.model):
            prompt, replayer = _check_binding(bundle, replayer)
            findings += _readings(bundle, replayer.reader)
            if not signed:
                recomputed = len(bundle.tokens)
                findings += _check_freshness(bundle)
                found, evidence = _check_numbers(bundle, prompt, replayer, control, calibration)
                findings += found
    except _UncheckableError as unchecked:
        findings.append(unchecked.finding)
    except VerificationError as error:
        findings.append(_failure(error))
    except AssayError as error:
        findings.append(Finding("machine", "inconclusive", f"this machine cannot check it: {error}"))
    outcomes = {finding.outcome for finding in findings}
    return Verdict(
        receipt=bundle.receipt.digest.hex(),
        provider=bundle.receipt.provider,
        level=bundle.receipt.level,
        outcome="fails" if "fails" in outcomes else "inconclusive" if "inconclusive" in outcomes else "holds",
        findings=tuple(findings),
        tokens_checked=recomputed,
        seconds=clock() - started,
        evidence=evidence,
    )


def pooled(verdicts: Iterable[Verdict], *, block: int = 1) -> Finding:
    """Judge one provider by the statistical tests of several verdicts, in the order in which they were made.

    Honest verdicts use up evidence, so give a block (say of 8) rather than all that there ever were, and `block`, the
    number of blocks of this provider so far, this one included: over all of them together an honest provider is
    rejected with probability at most 1 / REJECT, however often one looks.
    """
    values = [verdict.evidence for verdict in verdicts if verdict.evidence is not None]
    evidence, limit = largest_product(values), limit_of_block(block)
    fails = evidence >= limit
    reason = (
        f"{len(values)} answers together are not what honest noise gives"
        if fails
        else f"{len(values)} answers together are what honest noise gives"
    )
    return Finding(
        HISTORY,
        "fails" if fails else "holds",
        f"{reason} (evidence {evidence:.3g}, limit {limit:.0f})",
        None,
        evidence,
        limit,
    )


def check_pair(one: Receipt, other: Receipt) -> Finding:
    """Look for a contradiction between two receipts; only validly signed ones can contradict each other."""
    try:
        verify_signature(one)
        verify_signature(other)
        check_equivocation(one, other)
    except VerificationError as error:
        return _failure(error)
    return Finding("equivocation", "holds", "the two receipts do not contradict each other")


def contradictions(receipts: Iterable[Receipt]) -> list[tuple[Receipt, Receipt]]:
    """Pairs of validly signed receipts that contradict each other: fraud by themselves, whatever was answered."""
    first: dict[tuple[str, int], Receipt] = {}
    found: list[tuple[Receipt, Receipt]] = []
    for receipt in receipts:
        try:
            verify_signature(receipt)
            check_equivocation(first.setdefault((receipt.provider, receipt.sequence), receipt), receipt)
        except InvalidSignature:
            continue
        except Equivocation:
            found.append((first[receipt.provider, receipt.sequence], receipt))
    return found


def _readings(bundle: Bundle, reader: PromptReader) -> list[Finding]:
    """What holds of a bundle that has passed `check_with_model`."""
    return [
        Finding("prompt", "holds", "the request renders to the prompt that was answered"),
        Finding("stop", "holds", "the answer ends where the receipt says, and for that reason"),
        *_check_length(bundle, reader),
    ]


def _check_binding(bundle: Bundle, replayer: _Inspector | None) -> tuple[Prompt, _Inspector]:
    receipt = bundle.receipt
    if replayer is None:
        raise _unchecked("model", f"level {receipt.level!r} needs the model file, and none was given")
    positions, context = receipt.prompt_count + receipt.output_count, replayer.profile.context
    if positions > context:
        raise _unchecked("length", f"the answer takes {positions} positions, and this verifier has {context}")
    try:
        return check_with_model(bundle, replayer.reader, replayer.model_digest), replayer
    except BindingMismatch as error:
        mine, theirs = replayer.profile, bundle.profile
        if error.field == "model":
            raise _unchecked("model", str(error)) from error
        if error.field == "prompt" and mine.template != theirs.template:
            raise _unchecked("prompt", _other_version("chat templates", mine.template, theirs.template)) from error
        if error.field == "grammar" and mine.grammar != theirs.grammar:
            raise _unchecked("grammar", _other_version("grammars", mine.grammar, theirs.grammar)) from error
        raise


def _check_length(bundle: Bundle, reader: PromptReader) -> list[Finding]:
    """`length` because of the context is the provider's word: only the offer says whether so small a one was agreed."""
    receipt, declared, trained = bundle.receipt, bundle.profile.context, reader.context
    if receipt.stop != "length" or receipt.output_count == bundle.request.max_tokens or 0 < trained <= declared:
        return []
    return [
        Finding(
            "context",
            "inconclusive",
            f"the answer was cut at the context of {declared} that the provider declares, and the model was trained on "
            f"{trained or 'an unknown number of'} positions: its offer, not the receipt, says if that was agreed",
        )
    ]


def _check_freshness(bundle: Bundle) -> list[Finding]:
    if bundle.profile.sampler != "foreign" or not bundle.request.sampler.temperature:
        return []
    return [
        Finding(
            "freshness",
            "unchecked",
            "the provider's sampler is not seeded by the request: an old answer of the same model would pass",
        )
    ]


def _check_numbers(
    bundle: Bundle, prompt: Prompt, replayer: Replayer, control: Replayer | None, calibration: Calibration
) -> tuple[list[Finding], float | None]:
    """Findings, and the e-value of the calibrated tests, if some were made."""
    pinned = bundle.receipt.level == "pinned"
    mine, theirs = replayer.profile, bundle.profile
    differences = machine_differences(theirs, mine)
    _check_versions(bundle, replayer)
    if not differences and mine.regime != "free":
        if wrong := regime_contradictions(theirs, mine):
            raise BindingMismatch(
                "profile", f"the profile claims the regime {theirs.regime!r} with another {' and '.join(wrong)}"
            )
        if not pinned:
            return _judged(judge(measure(bundle, prompt, replayer, None), SAME_BITS), SAME_BITS)
        replay(bundle, prompt, replayer)
        return [Finding("logits", "holds", "model and seed give exactly these tokens and these logits")], None
    findings: list[Finding] = []
    if pinned:
        reason = f"the provider's {' and '.join(differences) or 'regime'} differs from this machine's, and so may bits"
        findings.append(Finding("logits", "inconclusive", reason))
    entry = calibration.find(bundle.receipt.model, theirs, mine)
    if entry is None or control is None:
        lack = "no calibration covers the provider's profile" if entry is None else "there is no second recomputation"
        unknown = Finding("statistics", "inconclusive", f"how large honest noise is, is not known: {lack}")
        return [*findings, unknown], None
    found, evidence = _judged(judge(measure(bundle, prompt, replayer, control), entry), entry)
    return findings + found, evidence


def _check_versions(bundle: Bundle, inspector: Replayer | Auditor) -> None:
    """Another version of the grammars may mask other tokens."""
    mine, theirs = inspector.profile.grammar, bundle.profile.grammar
    if mine != theirs and inspector.reader.constraint(bundle.request) is not None:
        raise _unchecked("grammar", _other_version("grammars", mine, theirs))


def _judged(findings: list[Finding], entry: Entry) -> tuple[list[Finding], float | None]:
    severities = [finding.statistic for finding in findings if finding.statistic is not None]
    return findings, entry.evidence(max(severities)) if severities else None


def _failure(error: VerificationError) -> Finding:
    match error:
        case BindingMismatch():
            return Finding(error.field, "fails", str(error))
        case InvalidSignature():
            return Finding("signature", "fails", str(error))
        case ReplayMismatch():
            return Finding("logits" if error.step is None else "sampler", "fails", str(error), error.step)
        case Equivocation():
            return Finding("equivocation", "fails", str(error))
        case _:
            return Finding("receipt", "fails", str(error))


def _unchecked(check: str, reason: str) -> _UncheckableError:
    return _UncheckableError(Finding(check, "inconclusive", reason))


def _other_version(what: str, mine: str, theirs: str) -> str:
    return f"the provider's {what} are of version {theirs!r} and this machine's of {mine!r}"
