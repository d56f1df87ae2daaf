"""The exception tree: every failure that Assay reports, with its remedy.

AssayError
├── InvalidRequest            the caller's request cannot be served as written (HTTP 400)
│   ├── ContextOverflow       prompt and answer do not fit the model's context
│   └── BodyTooLarge          the body is over the limit (HTTP 413)
├── NotFound                  nothing under that name (HTTP 404)
│   └── ModelNotFound
├── PaymentRequired           the answer has to be paid, and is not (HTTP 402)
├── Forbidden                 who asks is not served here (HTTP 403)
├── Busy                      try again later, or elsewhere (HTTP 429)
├── ProviderFailed            a provider broke its side of the protocol, or cannot be reached (HTTP 424)
│   └── NoProvider            no provider fits the wish
├── RecordRefused             a provider's record that is not taken, with one word why
├── EncodingError             bytes that are not the canonical encoding of a value
├── ModelFileError            a model file that is damaged, truncated or hostile
├── EngineError               the engine or its library cannot work here
├── MachineError              a port, disk or other part of this machine cannot be used
├── ConfigError               a setting that cannot be used
├── StoreError                the database cannot keep what must be kept (full disk, locked, damaged)
├── ChainFailed               a node of the chain cannot be reached, or answers what is no answer
│   └── TransactionFailed     a transaction was reverted, would be, or its place was taken by another
└── VerificationError         a receipt does not hold
    ├── InvalidSignature
    ├── BindingMismatch       the receipt and what it should cover differ
    ├── ReplayMismatch        recomputing gives other numbers
    ├── TraceMismatch         a trace is not the one that the receipt commits to
    ├── StatisticalMismatch   the numbers are too far away to be honest noise
    ├── AuditMismatch         an operation of an exact answer is wrong in its trace
    └── Equivocation          one key signed two different receipts under one sequence number
"""

from __future__ import annotations

from typing import ClassVar


class AssayError(Exception):
    """Base of every error that Assay raises on purpose.

    `message` says what is wrong, `remedy` what to do about it, `status` is the HTTP status that servers answer.
    """

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "assay_error"

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(f"{message}: {remedy}" if remedy else message)
        self.message = message
        self.remedy = remedy


class InvalidRequest(AssayError):
    """The request cannot be served as written; `field` names the offending part in OpenAI's dotted notation."""

    status = 400
    kind = "invalid_request_error"

    def __init__(self, message: str, *, field: str = "", remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.field = field


class ContextOverflow(InvalidRequest):
    """The prompt and the answer asked for need more positions than the engine's context has."""

    def __init__(self, prompt_tokens: int, limit: int) -> None:
        super().__init__(
            f"the prompt has {prompt_tokens} tokens and the context holds {limit}, the answer included",
            field="messages",
            remedy="shorten the messages or ask a provider with a longer context",
        )
        self.prompt_tokens = prompt_tokens
        self.limit = limit


class BodyTooLarge(InvalidRequest):
    """The HTTP body is larger than the server accepts."""

    status = 413

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is larger than {limit} bytes", remedy="send a smaller request")
        self.limit = limit


class NotFound(AssayError):
    """Nothing is known under that name."""

    status = 404
    kind = "not_found_error"


class ModelNotFound(NotFound):
    """The model is not served here, or not installed."""


class Forbidden(AssayError):
    """Whoever asks is not served here."""

    status = 403
    kind = "permission_error"


class Busy(AssayError):
    """No capacity now; `retry_after` is in whole seconds."""

    status = 429
    kind = "rate_limit_error"

    def __init__(
        self, message: str, *, retry_after: int = 1, remedy: str = "try again, or ask another provider"
    ) -> None:
        super().__init__(message, remedy)
        self.retry_after = retry_after


class PriceChanged(Busy):
    """The consumer reckons with another price than the one that holds by now."""


class PaymentRequired(AssayError):
    """The answer has to be paid, and the payment is missing, wrong, or not enough; `reason` is one word for metrics."""

    status = 402
    kind = "payment_error"

    def __init__(self, message: str, remedy: str = "", *, reason: str = "missing") -> None:
        super().__init__(message, remedy)
        self.reason = reason


class ProviderFailed(AssayError):
    """A provider could not be reached, broke off, or answered something that is not the protocol."""

    status = 424
    kind = "provider_error"


class NoProvider(ProviderFailed):
    """No known provider fits the request's wishes."""


class RecordRefused(AssayError):
    """A provider's record is not taken; `reason` is one word for metrics."""

    status = 409
    kind = "record_error"

    def __init__(self, reason: str, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.reason = reason


class EncodingError(AssayError):
    """Bytes that are not the canonical encoding of the value that they should be."""

    status = 400
    kind = "encoding_error"


class ModelFileError(AssayError):
    """A model file that is damaged, truncated or hostile."""


class EngineError(AssayError):
    """The inference engine cannot work: wrong library, wrong machine, or a failed call."""


class MachineError(AssayError):
    """A port, disk or other part of this machine cannot be used."""


class ConfigError(AssayError):
    """A setting that cannot be used."""


class StoreError(AssayError):
    """The database cannot keep what must be kept."""

    kind = "store_error"


class ChainFailed(AssayError):
    """The chain cannot be asked or does not do what it should: a node that is away, behind or lying."""

    status = 503
    kind = "chain_error"


class TransactionFailed(ChainFailed):
    """A transaction did nothing, and is not tried again; `reason` is the contract's, where one is known."""

    def __init__(self, name: str, reason: str, remedy: str = "see the reason, and send another") -> None:
        super().__init__(f"the transaction {name} failed ({reason})", remedy)
        self.name = name
        self.reason = reason


class VerificationError(AssayError):
    """A receipt does not hold. Subclasses carry the evidence."""

    status = 400
    kind = "verification_error"


class InvalidSignature(VerificationError):
    """The signature is malformed or was made by another key."""


class BindingMismatch(VerificationError):
    """A field of the receipt differs from what it should cover."""

    def __init__(self, field: str, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.field = field


class ReplayMismatch(VerificationError):
    """Recomputing gives another token or other logits; `step` counts output tokens from 0 (None: not localised)."""

    def __init__(
        self, message: str, *, step: int | None = None, expected: int | None = None, actual: int | None = None
    ) -> None:
        super().__init__(message)
        self.step = step
        self.expected = expected
        self.actual = actual


class TraceMismatch(VerificationError):
    """A served trace is not what the receipt commits to; `position` counts tokens from 0, the prompt's first."""

    def __init__(self, message: str, *, position: int | None = None) -> None:
        super().__init__(message)
        self.position = position


class StatisticalMismatch(VerificationError):
    """A calibrated test rejects: `statistic` is over `threshold`."""

    def __init__(self, test: str, message: str, *, statistic: float, threshold: float) -> None:
        super().__init__(message)
        self.test = test
        self.statistic = statistic
        self.threshold = threshold


class Equivocation(VerificationError):
    """One key signed two different receipts under one sequence number: fraud by itself."""


class AuditMismatch(VerificationError):
    """An operation of a pass is not what the model gives for the numbers before it."""

    def __init__(self, message: str, *, position: int, layer: int | None, operation: str) -> None:
        """`position`: of the token, the prompt's first is 0. `layer`: from 0; None for the head."""
        where = f"at position {position}" + ("" if layer is None else f" in layer {layer}")
        super().__init__(f"{message} {where}")
        self.position = position
        self.layer = layer
        self.operation = operation
