"""Checks of receipts on this machine: what `assay verify`, the chat and the validator call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final

from assay.apps.config import home
from assay.apps.traces import Traces, no_traces
from assay.core.bundle import Bundle
from assay.core.chain import check_chain
from assay.core.encoding import micros
from assay.core.errors import BindingMismatch, InvalidRequest, VerificationError
from assay.core.hashing import Digest
from assay.core.ports import Auditor
from assay.core.receipt import Receipt, verify_signature
from assay.core.verdict import Finding, Outcome, Verdict
from assay.engines.llama_model import LlamaModel
from assay.engines.llama_regime import Regime, pinned_refusal
from assay.engines.llama_replay import LlamaReplayer
from assay.engines.models import CATALOGUE, ModelFile, list_models, resolve
from assay.verify.binding import check_offline
from assay.verify.calibration import Calibration
from assay.verify.policy import verify_bundle

if TYPE_CHECKING:
    from assay.apps.client import Wish

MOST_POSITIONS: Final = 32_768
"""Longest answer, its prompt included, that is recomputed: what the cache of a longer one takes, strangers decide."""


def check_here(bundle: Bundle, *, model: Path | None = None, threads: int = 1, traces: Traces = no_traces) -> Verdict:
    """Check a receipt with the model file given, or with the one on this machine that has the receipt's digest.

    Without the model everything else is checked, and the verdict is `inconclusive` at best. `traces`: see
    `open_checker`.

    Raises:
        InvalidRequest: `model` is another file than the receipt's.
        ModelFileError, EngineError: the model or this machine does not work.
    """
    wanted = bundle.receipt.model
    found = resolve(str(model), home()) if model is not None else find_by_digest(wanted)
    if found is None:
        return _without_model(bundle)
    if found.sha256 != wanted:
        raise InvalidRequest(
            f"{found.path} has the SHA-256 {found.sha256.hex()}, and the receipt is for {wanted.hex()}",
            remedy=how_to_get(wanted),
        )
    with open_checker(found, threads=threads, traces=traces) as check:
        return check(bundle)


def check_bare(receipt: Receipt) -> Verdict:
    """What a receipt alone shows: who signed it. It says nothing of any answer, so that it never holds."""
    outcome: Outcome = "inconclusive"
    try:
        verify_signature(receipt)
        finding = Finding(
            "file",
            outcome,
            f"the signature is {receipt.provider}'s, but this is the receipt alone, without the request and the tokens "
            "that it covers: fetch the receipt file at /receipts/ID of the node or gateway, with the reply's id",
        )
    except VerificationError as error:
        outcome = "fails"
        finding = Finding("signature", outcome, error.message)
    return Verdict(
        receipt.digest.hex(),
        receipt.provider,
        receipt.level,
        outcome,
        (finding,),
        tokens_checked=0,
        seconds=0.0,
    )


def check_linked(verdicts: Sequence[Verdict], bundles: Sequence[Bundle]) -> list[Verdict]:
    """The verdicts on `bundles`, those on parts of answers with a finding on whether they go on where the ones before
    broke off. A part whose beginning is not here may hold by itself."""
    judged: list[Verdict] = []
    for verdict, bundle in zip(verdicts, bundles, strict=True):
        if not bundle.request.continues:
            judged.append(verdict)
            continue
        before = len(bundle.request.continues)
        parts = [
            each
            for each in bundles
            if each.request.whole == bundle.request.whole and len(each.request.continues) < before
        ]
        parts.sort(key=lambda each: len(each.request.continues))
        outcome, finding = verdict.outcome, Finding("continues", "unchecked", "what it continues is not in the file")
        if parts:
            try:
                check_chain([*parts, bundle])
                finding = Finding("continues", "holds", f"it goes on after {before} tokens of the receipts before it")
            except BindingMismatch as error:
                outcome, finding = "fails", Finding("continues", "fails", error.message)
        judged.append(replace(verdict, outcome=outcome, findings=(*verdict.findings, finding)))
    return judged


@contextmanager
def open_checker(
    model: ModelFile,
    *,
    threads: int = 1,
    stopped: Callable[[], bool] = lambda: False,
    traces: Traces = no_traces,
) -> Iterator[Callable[[Bundle], Verdict]]:
    """A function that checks receipts of one model, one after the other; `stopped`: True ends the one under way soon.

    `traces`: where those of answers at level `exact` come from; without one everything is computed again.

    Raises:
        ModelFileError, EngineError: the model or this machine does not work.
    """
    calibration = load_calibration()
    with LlamaModel(model.path) as loaded, ExitStack() as stack:
        context = min(loaded.n_ctx_train, MOST_POSITIONS)
        regimes: tuple[Regime, ...] = ("pinned", "free") if not pinned_refusal(loaded) else ("free",)
        replayers = [
            LlamaReplayer(
                loaded, digest=model.sha256, regime=regime, context=context, threads=threads or 1, stopped=stopped
            )
            for regime in regimes
        ]
        for replayer in replayers:
            stack.callback(replayer.close)
        first, control = replayers[0], replayers[1] if len(replayers) > 1 else None

        @cache
        def auditor() -> Auditor:
            from assay.apps.exact import open_auditor

            return open_auditor(model, first.reader, context=context, threads=threads, stopped=stopped)

        yield lambda bundle: verify_bundle(
            bundle,
            first,
            control=control,
            calibration=calibration,
            clock=time.perf_counter,
            auditor=auditor,
            trace=traces(bundle) if bundle.receipt.level == "exact" else None,
        )


def load_calibration() -> Calibration:
    """The published calibration of the statistical tests; without it, only equal bits can be checked.

    Raises:
        ConfigError: the file is damaged.
    """
    file = files("assay.verify").joinpath("calibration.json")
    return Calibration.from_json(file.read_bytes()) if file.is_file() else Calibration((), 0.0)


def find_by_digest(digest: Digest) -> ModelFile | None:
    """The model on this machine with this SHA-256, or None."""
    return next((model for model in list_models(home()) if model.sha256 == digest), None)


def how_to_get(digest: Digest) -> str:
    """What to type so that a model with this SHA-256 is found."""
    name = next((name for name, entry in CATALOGUE.items() if entry.sha256 == digest), None)
    if name is not None:
        return f"`assay models pull {name}` fetches it"
    return "get the file with this SHA-256, then `assay models add FILE` or `--model FILE`"


def _without_model(bundle: Bundle) -> Verdict:
    """What can be said without the model, and how to get it."""
    verdict = verify_bundle(bundle, None, calibration=load_calibration(), clock=time.perf_counter)
    return replace(
        verdict,
        findings=tuple(
            replace(finding, reason=f"{finding.reason}: {how_to_get(bundle.receipt.model)}")
            if finding.check == "model"
            else finding
            for finding in verdict.findings
        ),
    )


def check_covers(bundle: Bundle, wish: Wish) -> None:
    """Check, without the model, that a receipt is for this very question and that everything in it fits together.

    Raises:
        VerificationError: it is not, or does not.
    """
    check_offline(bundle)
    request = bundle.request
    asked = [(message["role"], message["content"]) for message in wish.messages]
    if [(message.role, message.content) for message in request.messages] != asked:
        raise BindingMismatch("request", "the receipt is for other messages than those that were sent")
    if request.model != wish.model:
        raise BindingMismatch("request", f"{wish.model} was asked, and the receipt is for {request.model}")
    if wish.level is not None and request.level != wish.level:
        raise BindingMismatch("request", f"level {wish.level} was asked for, and the receipt is at {request.level}")
    for name, wanted, bound in (
        ("temperature", wish.temperature, request.sampler.temperature),
        ("top_p", wish.top_p, request.sampler.top_p),
    ):
        if wanted is not None and micros(wanted, what=name) != bound:
            raise BindingMismatch("request", f"the receipt is for another {name} than the one asked for")
    if wish.max_tokens is not None and request.whole.max_tokens != wish.max_tokens:
        raise BindingMismatch("request", "the receipt is for another length limit than the one asked for")
