"""A tiny engine: a byte-level model of a few numpy tables, with everything that a real one promises.

Its logits depend on the last REACH tokens only, are computed by elementwise sums in one order, and hence are equal
bit for bit between generating and recomputing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

import numpy as np
from typing_extensions import override

from assay.core.bundle import Bundle
from assay.core.completion import Completion, Prompt, Step, TopLogprobs
from assay.core.errors import AuditMismatch, Busy, EngineError, InvalidRequest, ReplayMismatch, TraceMismatch
from assay.core.evidence import evidence_root, logits_leaf
from assay.core.hashing import Digest
from assay.core.keys import Key
from assay.core.ports import Constraint
from assay.core.profile import Profile
from assay.core.receipt import attest
from assay.core.request import Level, Message, Request, SamplerSettings
from assay.core.sampler import draw
from assay.engines.answering import Answering, Picked
from assay.engines.continuing import continued

EOG: Final = 256
"""Ends generation."""
START: Final = 257
"""Begins every prompt."""
ROLES: Final = {"system": 258, "developer": 258, "user": 259, "assistant": 260, "tool": 261}
"""Control tokens before each message."""
N_VOCAB: Final = 262
REACH: Final = 4
"""How many tokens decide the next one."""
MODEL: Final = "tiny"
LEVELS: Final[tuple[Level, ...]] = ("signed", "statistical", "pinned")
"""What it can honour."""
PROFILE: Final = Profile(
    engine="tiny",
    build="1",
    regime="pinned/1",
    isa="any",
    kv_type="none",
    flash_attention=False,
    micro_batch=1,
    threads=0,
    context=2048,
    sampler="gumbel/1",
    template="tiny/1",
    grammar="none",
)

EXACT_PROFILE: Final = replace(PROFILE, regime="exact/1", sampler="gumbel/2", build="00" * 32)
"""What its receipts at level `exact` name: it plays that level by its pinned numbers."""


def profile_at(level: Level) -> Profile:
    """The profile of its receipts at a level."""
    return EXACT_PROFILE if level == "exact" else PROFILE


@dataclass(frozen=True)
class TinyTokenizer:
    """Bytes are tokens 0 to 255; the rest are control tokens."""

    n_vocab: int = N_VOCAB

    def encode(self, text: str, *, special: bool) -> tuple[int, ...]:
        """UTF-8; no text spells a control token."""
        return tuple(text.encode())

    def piece(self, token: int) -> bytes:
        """The byte, or nothing."""
        return bytes([token]) if token < 256 else b""

    def is_eog(self, token: int) -> bool:
        return token == EOG

    def is_control(self, token: int) -> bool:
        return token >= 256


@dataclass(frozen=True)
class TinyReader:
    """START, then each message after its role's token, then the assistant's token; a completion's prompt as it is."""

    tokenizer: TinyTokenizer = field(default_factory=TinyTokenizer)
    takes_tools: bool = True
    context: int = 2048

    def render(self, request: Request) -> Prompt:
        return continued(self._render(request), request, self.tokenizer)

    def _render(self, request: Request) -> Prompt:
        if request.kind == "completion":
            return Prompt(request.prompt.encode(), (START, *request.prompt.encode()))
        if request.tools and not self.takes_tools:
            raise InvalidRequest("the model's chat template has no place for tools", field="tools")
        text, tokens = b"", [START]
        for message in (*_tools(request), *request.messages, Message("assistant", "")):
            text += f"<{message.role}>{message.content}".encode()
            tokens += [ROLES[message.role], *message.content.encode()]
        return Prompt(text, tuple(tokens))

    def constraint(self, request: Request) -> Constraint | None:
        """No grammars here."""
        return None


@dataclass(frozen=True)
class TinyModel:
    """The numbers; another `seed` is another model."""

    seed: int = 0

    @property
    def digest(self) -> Digest:
        """Stands for the SHA-256 of a model file."""
        return bytes([self.seed % 256]) * 32

    @cached_property
    def _tables(self) -> np.ndarray:
        """float32 [REACH, N_VOCAB, N_VOCAB]: what the token i places back says about the next one."""
        tables = np.random.default_rng(1000 + self.seed).normal(0, 1.5, (REACH, N_VOCAB, N_VOCAB)).astype(np.float32)
        return tables / np.arange(1, REACH + 1, dtype=np.float32)[:, None, None]

    @cached_property
    def _bias(self) -> np.ndarray:
        """float32 [N_VOCAB]: mostly lower-case letters and spaces, seldom the end, never other control tokens."""
        bias = np.full(N_VOCAB, -14, dtype=np.float32)
        bias[32:127] = -3
        bias[[*range(97, 123), 32]] = 2
        bias[0xC3], bias[0x80:0xC0] = -2, -4  # now and then a letter of two bytes
        bias[EOG] = 1
        return bias

    def logits(self, tokens: Sequence[int]) -> np.ndarray:
        """float32 [N_VOCAB] after `tokens` (at least one)."""
        row = self._bias.copy()
        for back, token in enumerate(reversed(tokens[-REACH:])):
            row += self._tables[back, token]
        return row


class TinyAnswering(Answering):
    """Commits to logits at level `exact` too."""

    @override
    def observe(self, row: np.ndarray, picked: Picked) -> tuple[bytes, TopLogprobs | None]:
        leaf, top = super().observe(row, picked)
        return (logits_leaf(row) if self.request.level == "exact" else leaf), top


class TinyEngine:
    """Implements `Engine`. `delay` seconds pass before every token; at step `breaks_at` the engine fails."""

    def __init__(
        self,
        seed: int = 0,
        *,
        model: str = MODEL,
        levels: tuple[Level, ...] = LEVELS,
        profile: Profile = PROFILE,
        parallel: int = 64,
        delay: float = 0.0,
        breaks_at: int | None = None,
    ) -> None:
        self.numbers = TinyModel(seed)
        self.model: Final = model
        self.model_digest: Final = TinyModel(seed).digest
        self.profile: Final = profile
        self.levels: Final = levels
        self.reader: Final = TinyReader()
        self.parallel: Final = parallel
        self.delay = delay
        self.breaks_at = breaks_at
        self.active = 0
        """Answers under way."""
        self.generated = 0
        """Tokens computed since the start."""

    async def generate(
        self, request: Request, prompt: Prompt, *, top_logprobs: int | None = None
    ) -> AsyncIterator[Step]:
        """Token by token; see `Engine.generate`."""
        if self.active >= self.parallel:
            raise Busy("the tiny engine is full")
        answering = TinyAnswering(request, prompt, self.reader, context=self.profile.context, logprobs=top_logprobs)
        self.active += 1
        try:
            while True:
                await asyncio.sleep(self.delay)
                if len(answering.tokens) == self.breaks_at:
                    raise EngineError("the tiny engine broke", "this was asked for by a test")
                self.generated += 1
                step = answering.step(self.numbers.logits([*prompt.tokens, *answering.tokens]))
                yield step
                if step.stop:
                    return
        finally:
            self.active -= 1


class TinyReplayer:
    """Implements `Replayer`. `noise`: standard deviation (nats) added to every logit, as another machine would."""

    def __init__(self, seed: int = 0, *, profile: Profile = PROFILE, noise: float = 0.0) -> None:
        self.numbers: Final = TinyModel(seed)
        self.model_digest: Final = self.numbers.digest
        self.profile: Final = profile
        self.reader: Final = TinyReader()
        self._noise = noise
        self._random = np.random.default_rng(7)

    def rows(self, tokens: Sequence[int], first: int) -> Iterator[np.ndarray]:
        """Logits that predict the tokens from position `first` on."""
        for position in range(first, len(tokens)):
            row = self.numbers.logits(tokens[:position])
            yield row + self._random.normal(0, self._noise, N_VOCAB).astype(np.float32) if self._noise else row


class TinyAuditor:
    """Implements `Auditor`; a trace is `TRACE`, or `WRONG` with a wrong accumulator, or is of another answer."""

    TRACE: Final = b"trace"
    WRONG: Final = b"wrong"

    def __init__(self, seed: int = 0, *, profile: Profile = EXACT_PROFILE) -> None:
        self.numbers: Final = TinyModel(seed)
        self.model_digest: Final = self.numbers.digest
        self.profile: Final = profile
        self.reader: Final = TinyReader()

    def audit(
        self,
        bundle: Bundle,
        prompt: Prompt,
        trace: Iterable[bytes] | None = None,
        *,
        positions: Collection[int] | None = None,
        whole: bool = False,
    ) -> int:
        """See `Auditor.audit`."""
        given = None if trace is None else b"".join(trace)
        if given not in (None, self.TRACE, self.WRONG):
            raise TraceMismatch("the trace is of another response or model")
        if given == self.WRONG:
            raise AuditMismatch(
                "row 7 of the up product is wrong", position=len(prompt.tokens), layer=3, operation="up"
            )
        request, tokens, first = bundle.request, (*prompt.tokens, *bundle.tokens), len(prompt.tokens)
        rows = [self.numbers.logits(tokens[:place]) for place in range(first, len(tokens))]
        for step, row in enumerate(rows):
            if draw(row, request.sampler, request.seed, step) != bundle.tokens[step]:
                raise ReplayMismatch(f"token {step} is another", step=step)
        if evidence_root(list(map(logits_leaf, rows)), request.nonce) != bundle.receipt.evidence:
            if given is not None:
                raise AuditMismatch("the up product is wrong", position=first, layer=3, operation="up")
            raise ReplayMismatch("the accumulators are not those that the receipt commits to")
        return len(tokens) - 1 if positions is None else len(positions)


def tiny_request(
    content: str = "Say something.",
    *,
    level: Level = "pinned",
    max_tokens: int = 32,
    temperature: float = 1.0,
    nonce: bytes = bytes(32),
    stop: tuple[str, ...] = (),
    model: str = MODEL,
) -> Request:
    """A chat of one message."""
    return Request(
        model=model,
        kind="chat",
        messages=(Message("user", content),),
        prompt="",
        sampler=SamplerSettings(temperature=round(temperature * 1_000_000)),
        max_tokens=max_tokens,
        stop=stop,
        tools="",
        tool_choice="auto",
        response_format="",
        level=level,
        nonce=nonce,
        created=1_790_000_000,
    )


def tiny_completion(request: Request, seed: int = 0) -> Completion:
    """What TinyEngine(seed) answers."""
    numbers, reader = TinyModel(seed), TinyReader()
    prompt = reader.render(request)
    answering = TinyAnswering(request, prompt, reader, context=PROFILE.context)
    steps: list[Step] = []
    while not steps or steps[-1].stop is None:
        steps.append(answering.step(numbers.logits([*prompt.tokens, *answering.tokens])))
    return Completion(
        prompt=prompt,
        tokens=tuple(step.token for step in steps),
        text="".join(step.text for step in steps),
        stop=steps[-1].stop or "stop",
        leaves=tuple(step.leaf for step in steps) if request.level != "signed" else (),
    )


def tiny_bundle(request: Request, key: Key, sequence: int, *, seed: int = 0, amount: int = 0) -> Bundle:
    """An honest receipt of TinyEngine(seed)'s answer, with all that travels with it."""
    completion = tiny_completion(request, seed)
    receipt = attest(
        request,
        completion,
        model=TinyModel(seed).digest,
        profile=profile_at(request.level),
        key=key,
        sequence=sequence,
        issued=1_790_000_001,
        amount=amount,
    )
    opening = b"".join(completion.leaves) if request.level == "statistical" else b""
    return Bundle(receipt, request, profile_at(request.level), completion.tokens, opening)


def tiny_key(number: int = 1) -> Key:
    """A key for tests; each number is another one."""
    return Key.from_secret(number.to_bytes(32, "big"))


def _tools(request: Request) -> tuple[Message, ...]:
    if not request.tools or request.tool_choice == "none":
        return ()
    names = [tool["function"]["name"] for tool in json.loads(request.tools)]
    return (Message("system", "tools: " + " ".join(names)),)
