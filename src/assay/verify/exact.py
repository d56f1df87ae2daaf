"""Level `exact`: every token and every operation is checked, with zero tolerance, on whatever machine."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from assay.core.bundle import Bundle
from assay.core.completion import Prompt
from assay.core.errors import AssayError, AuditMismatch, BindingMismatch, ReplayMismatch
from assay.core.ports import Auditor
from assay.core.verdict import Finding

_Found = tuple[list[Finding], int]
"""Findings, and the output tokens that were checked."""


@dataclass(frozen=True, slots=True)
class ServedTrace:
    """The accumulators of an answer, from whoever has them. Nothing in it is believed."""

    blocks: Iterable[bytes]
    """As they come; may raise AssayErrors."""
    positions: Collection[int] | None = None
    """Of the passes to be checked; None: all."""
    whole: bool = False
    """All passes are in it whole, not only those."""


def check_exact(bundle: Bundle, prompt: Prompt, auditor: Auditor, trace: ServedTrace | None) -> _Found:
    """Audit an answer with its trace; without one, or with one that is of no use, compute everything again.

    `bundle` has passed `check_with_model`. A bad trace says nothing of the answer, for anybody can make one: not one
    that differs from what the receipt commits to, nor one with a wrong accumulator, as receipts commit to activations.
    So what looks wrong in a trace is computed again; where the receipt is wrong too, the trace tells the place.

    Raises:
        BindingMismatch: the profile is of another integer model than this model file gives.
        AssayError: this machine cannot check it.
    """
    mine, theirs = auditor.profile.build, bundle.profile.build
    if mine != theirs:
        raise BindingMismatch(
            "profile", f"the profile names the integer model {theirs[:16]!r}…, and this model file gives {mine[:16]}…"
        )
    findings: list[Finding] = []
    named: AuditMismatch | None = None
    try:
        if trace is not None:
            try:
                return _with_trace(bundle, prompt, auditor, trace)
            except ReplayMismatch:
                raise
            except AuditMismatch as error:
                named = error
                findings.append(Finding("trace", "unchecked", f"something in the trace is wrong: {error}"))
            except AssayError as error:
                findings.append(Finding("trace", "unchecked", f"no use was made of the trace: {error.message}"))
        passes = auditor.audit(bundle, prompt)
        every = f"all {passes} passes were computed again: every activation is the one that the receipt commits to"
        return [*findings, Finding("products", "holds", every), _draws(len(bundle.tokens))], len(bundle.tokens)
    except ReplayMismatch as error:
        return [*findings, _failure(named or error, bundle)], len(bundle.tokens)


def _with_trace(bundle: Bundle, prompt: Prompt, auditor: Auditor, trace: ServedTrace) -> _Found:
    first, passes = len(prompt.tokens) - 1, len(prompt.tokens) + len(bundle.tokens) - 1
    positions = range(passes) if trace.positions is None else trace.positions
    checked = auditor.audit(bundle, prompt, trace.blocks, positions=trace.positions, whole=trace.whole)
    drawn = sum(position >= first for position in positions)
    return [
        Finding("trace", "holds", "the trace is the one that the receipt commits to"),
        Finding(
            "products",
            "holds",
            f"in {checked} of {passes} passes every product was tested and everything between them computed again",
        ),
        _draws(drawn),
    ], drawn


def _draws(count: int) -> Finding:
    return Finding("sampler", "holds", f"{count} tokens are the ones that model, settings and seed give")


def _failure(error: AuditMismatch | ReplayMismatch, bundle: Bundle) -> Finding:
    if isinstance(error, ReplayMismatch):
        return Finding("products" if error.step is None else "sampler", "fails", str(error), error.step)
    step = error.position - bundle.receipt.prompt_count + 1
    if step < 0:
        return Finding("products", "fails", f"{error}, while the prompt was read")
    return Finding("products", "fails", f"{error}, in the pass that gave output token {step}", step)
