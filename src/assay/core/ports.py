"""The interfaces between layers; each has two real implementations."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from assay.core.bundle import Bundle
from assay.core.completion import Prompt, Step
from assay.core.hashing import Digest
from assay.core.keys import Address
from assay.core.offer import Ask, Load, Offer
from assay.core.payment import Due, Payment
from assay.core.profile import Profile
from assay.core.reach import Reach
from assay.core.record import ProviderRecord
from assay.core.request import Level, Request


class Tokenizer(Protocol):
    """A model's vocabulary."""

    @property
    def n_vocab(self) -> int:
        """Number of token ids."""
        ...

    def encode(self, text: str, *, special: bool) -> tuple[int, ...]:
        """Token ids of `text`; with `special`, texts of control tokens become those tokens."""
        ...

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for; nothing for control tokens."""
        ...

    def is_eog(self, token: int) -> bool:
        """The token ends generation."""
        ...

    def is_control(self, token: int) -> bool:
        """The token is a control token, never text."""
        ...


class Constraint(Protocol):
    """A grammar's state along one answer."""

    def allowed(self) -> np.ndarray:
        """Which tokens may come next: bool [n_vocab]."""
        ...

    def accept(self, token: int) -> None:
        """Go on to after `token`."""
        ...


class PromptReader(Protocol):
    """How a model reads requests: the part that provider and verifier share."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's vocabulary."""
        ...

    @property
    def context(self) -> int:
        """Positions that the model was trained on; 0 if that is not known here."""
        ...

    def render(self, request: Request) -> Prompt:
        """The prompt as the model sees it: its tokens end with those that the request continues.

        Raises:
            InvalidRequest: the model's template refuses the messages, or has no place for the tools; or the request
                continues what is no beginning of an answer, or what this engine cannot continue.
        """
        ...

    def constraint(self, request: Request) -> Constraint | None:
        """A fresh grammar for the request's response format or forced tool call, after the tokens that the request
        continues; or None.

        Raises:
            InvalidRequest: it cannot be used, or does not allow these tokens.
        """
        ...


class Engine(Protocol):
    """Runs one model."""

    @property
    def model(self) -> str:
        """The name that requests use."""
        ...

    @property
    def model_digest(self) -> Digest:
        """SHA-256 of the model file."""
        ...

    @property
    def profile(self) -> Profile:
        """What determines its numbers."""
        ...

    @property
    def levels(self) -> tuple[Level, ...]:
        """The assurance levels that it can honour."""
        ...

    @property
    def reader(self) -> PromptReader:
        """How it reads requests."""
        ...

    def generate(self, request: Request, prompt: Prompt, *, top_logprobs: int | None = None) -> AsyncIterator[Step]:
        """Answer a request token by token; closing the iterator stops generation within one token.

        `top_logprobs`: put log-probabilities of that many tokens (0: of the emitted one only) into each step.

        Raises:
            Busy: as many answers as it can carry are under way.
            ContextOverflow: the prompt leaves no room for an answer.
        """
        ...


class Replayer(Protocol):
    """Recomputes what a model gives for known tokens, by prefill."""

    @property
    def model_digest(self) -> Digest:
        """SHA-256 of the model file."""
        ...

    @property
    def profile(self) -> Profile:
        """The profile under which it recomputes."""
        ...

    @property
    def reader(self) -> PromptReader:
        """How the model reads requests."""
        ...

    def rows(self, tokens: Sequence[int], first: int) -> Iterator[np.ndarray]:
        """Logits, float32 [n_vocab], that predict the tokens at positions first, first + 1, … of `tokens`."""
        ...


class Auditor(Protocol):
    """Checks answers at level `exact`: with the accumulators of its passes, or by computing them again."""

    @property
    def model_digest(self) -> Digest:
        """SHA-256 of the model file."""
        ...

    @property
    def profile(self) -> Profile:
        """The profile of the integer model that this file gives; its `build` is the model's root."""
        ...

    @property
    def reader(self) -> PromptReader:
        """How the model reads requests."""
        ...

    def audit(
        self,
        bundle: Bundle,
        prompt: Prompt,
        trace: Iterable[bytes] | None = None,
        *,
        positions: Collection[int] | None = None,
        whole: bool = False,
    ) -> int:
        """Check every draw and every operation; how many passes were checked.

        `trace`: the accumulators as a provider serves them (None: they are computed again, for all passes).
        `positions`: the passes to be checked (None: all). `whole`: the trace has all passes whole, not only those.

        Raises:
            ReplayMismatch: a token is not the one that model, settings and seed give, or (without a trace) the
                activations are not those that the receipt commits to.
            AuditMismatch: an operation of a pass is wrong in the trace; it is named. An audit without the trace tells
                whether the receipt is wrong too.
            TraceMismatch, EncodingError: the trace is not the one that the receipt commits to, or none.
            AssayError: whatever `trace` raises.
        """
        ...


@runtime_checkable
class Tracer(Protocol):
    """Serves the accumulators behind receipts at level `exact`."""

    def trace(
        self, bundle: Bundle, positions: Collection[int] | None = None, *, stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[bytes]:
        """The trace of an answer, computed again while it is read, for an audit of these passes (None: of all).

        `stopped`: True breaks it off soon, with an EngineError.

        Raises:
            NotFound: this is no answer of the model's at level `exact`.
            EncodingError: a position that the answer does not have.
        """
        ...


class Answer(Protocol):
    """An answer under way at a provider."""

    @property
    def earlier(self) -> Sequence[Bundle]:
        """When `bundle` has ended: receipts of parts that other providers delivered before, first to last, as far as
        they are to be had."""
        ...

    def steps(self) -> AsyncIterator[Step]:
        """The tokens as they come; a provider that breaks off raises `ProviderFailed`."""
        ...

    async def bundle(self) -> Bundle:
        """The receipt and its evidence: after the last step, or of what was delivered when cut short."""
        ...

    async def close(self) -> None:
        """Hang up: the provider stops within one token."""
        ...


class Answers(Protocol):
    """Where answers come from: the local engine of a node, or the market behind a gateway."""

    async def models(self) -> Sequence[Offer]:
        """Everything that can be asked for now."""
        ...

    async def answer(self, request: Request, ask: Ask, *, top_logprobs: int | None = None) -> Answer:
        """Start an answer.

        Raises:
            ModelNotFound: nobody serves the model.
            InvalidRequest: the model cannot take the request.
            Busy: no capacity anywhere.
            ProviderFailed: every provider that fits failed.
        """
        ...


class Provider(Answers, Protocol):
    """Answers of one provider."""

    @property
    def active(self) -> int:
        """Answers under way."""
        ...

    @property
    def parallel(self) -> int:
        """How many may be."""
        ...


class Bundles(Protocol):
    """Where receipts are kept."""

    async def find(self, name: Digest) -> Sequence[Bundle]:
        """Every bundle whose request or call has this name (see `Request.name`): by choice, then in the order in which
        they came; empty if there is none. Digests, which receipts show, find nothing."""
        ...


class Purse(Protocol):
    """What one answer is paid from, at a gateway."""

    @property
    def channel(self) -> Digest:
        """Which pays."""
        ...

    @property
    def payment(self) -> Payment:
        """What goes with the request."""
        ...

    def begun(self) -> None:
        """The first token has come, so that something will be owed."""
        ...

    def due(self, due: Due, received: int) -> None:
        """The provider wants to be paid before it goes on, after so many tokens have come. Pays in the background, and
        no more than what came is worth."""
        ...

    def settle(self, bundle: Bundle) -> None:
        """Pay in the background for a receipt that was checked: what its answer is worth, whatever it asks.

        Raises:
            BindingMismatch: it is of another channel, or asks for more than all answers there are worth.
        """
        ...

    def refuse(self, reason: str) -> None:
        """The receipt does not hold: nothing is paid for it, and the provider is dealt with no more."""
        ...

    def over(self, received: int, *, refused: bool = False) -> None:
        """The answer has ended after so many tokens, with a receipt or without. `refused`: the provider did not begin
        it because of the payment."""
        ...


class Payer(Protocol):
    """Pays providers, at a gateway."""

    async def open(self, offer: Offer, request: Request) -> Purse:
        """What pays this answer; opens a channel where there is none.

        Raises:
            PaymentRequired: the budget or the provider's terms do not allow it.
        """
        ...

    def leave(self, provider: Address, reason: str) -> None:
        """Deal with this provider no more, and take back in the background what it has not earned."""
        ...


class Finder(Protocol):
    """Whom sources tell what they find."""

    def heard(self, data: bytes, source: str, reach: Reach) -> ProviderRecord | None:
        """Bytes that are said to be a record, by a source that is so near; the record if it holds and is now known."""
        ...

    def gone(self, provider: Address, source: str | None = None) -> None:
        """Nobody answers for this provider's record any more: by any source, or only if that one told it."""
        ...


class Discovery(Protocol):
    """A source of providers' records."""

    @property
    def name(self) -> str:
        """For people, metrics, and the shares of the record book."""
        ...

    async def run(self, finder: Finder) -> None:
        """Tell what is there and what comes, until cancelled. What strangers do wrong ends nothing."""
        ...


class Transport(Protocol):
    """Reaches providers."""

    async def offers(self) -> Sequence[Offer]:
        """What the known providers offer now."""
        ...

    async def load(self, offer: Offer) -> Load:
        """How busy a provider says it is.

        Raises:
            NotFound: it does not say.
            ProviderFailed: it cannot be reached, or says nonsense.
        """
        ...

    async def send(
        self, offer: Offer, request: Request, *, top_logprobs: int | None = None, purse: Purse | None = None
    ) -> Answer:
        """Start an answer at a provider; `purse` pays it.

        Raises:
            PaymentRequired: the provider is not content with the payment.
            Busy: the provider has no capacity.
            ProviderFailed: it cannot be reached or refuses.
        """
        ...
