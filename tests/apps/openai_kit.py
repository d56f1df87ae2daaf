"""Answers by script for tests of the OpenAI surface: a tiny deterministic `Answers` that signs real receipts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.middleware import Middleware

from assay.apps.limits import Limits
from assay.apps.openai_api import ERROR_HANDLERS, Patience, openai_routes
from assay.core.bundle import Bundle
from assay.core.completion import Completion, Prompt, Step, StopReason, TopLogprobs
from assay.core.errors import AssayError, Busy, ModelNotFound
from assay.core.hashing import Digest
from assay.core.keys import Key
from assay.core.offer import Ask, Offer, Price
from assay.core.profile import Profile
from assay.core.receipt import attest
from assay.core.request import Level, Request
from assay.network.openai.shape import ToolCall, ToolReader

MODEL = "org/scripted-1"
NOW = 1_790_000_000
EOG = 2
PROFILE = Profile(
    engine="script",
    build="1",
    regime="free",
    isa="any",
    kv_type="none",
    flash_attention=False,
    micro_batch=1,
    threads=0,
    context=4096,
    sampler="gumbel/1",
    template="none",
    grammar="none",
)
WORDS = ("Hel", "lo, ", "wör", "ld ", "🌍", "!")


def spoken(request: Request) -> Sequence[str]:
    """The pieces of every answer: WORDS, then six letters that depend on the seed."""
    return (*WORDS, " ", request.seed.hex()[:6])


@dataclass
class Scripted:
    """Implements `Answers` and `Bundles`. A token a piece, then the end-of-generation token."""

    script: Callable[[Request], Sequence[str]] = spoken
    delay: float = 0.0
    """Seconds before each token."""
    start_delay: float = 0.0
    """Seconds before an answer starts."""
    levels: tuple[Level, ...] = ("signed", "statistical")
    places: int = 64
    refuses: AssayError | None = None
    """Raised instead of starting."""
    breaks_at: int | None = None
    """The token at which the provider breaks off."""
    breaks_with: AssayError | Exception | None = None
    """Raised there; None: the stream just ends."""
    no_receipt: AssayError | None = None
    """Raised instead of signing."""
    key: Key = field(default_factory=lambda: Key.from_secret((7).to_bytes(32, "big")))
    asked: list[tuple[Request, Ask]] = field(default_factory=list)
    kept: list[Bundle] = field(default_factory=list)
    active: int = 0
    closed: int = 0

    async def models(self) -> Sequence[Offer]:
        return [
            Offer(
                self.key.address,
                "",
                MODEL,
                bytes(32),
                level,
                Price(1, 2),
                PROFILE.context,
                chat=True,
                tools=True,
                profile=PROFILE.digest,
                sampler=PROFILE.sampler,
            )
            for level in self.levels
        ]

    async def answer(self, request: Request, ask: Ask, *, top_logprobs: int | None = None) -> ScriptedAnswer:
        if self.refuses:
            raise self.refuses
        if request.model != MODEL:
            raise ModelNotFound(f"no {request.model}")
        await asyncio.sleep(self.start_delay)
        if self.active >= self.places:
            raise Busy("the script has no place", retry_after=3)
        self.active += 1
        self.asked.append((request, ask))
        return ScriptedAnswer(self, request, top_logprobs)

    async def find(self, name: Digest) -> Sequence[Bundle]:
        found = [bundle for bundle in self.kept if name in (bundle.request.name, bundle.request.call)]
        return sorted(found, key=lambda bundle: bundle.request.choice)


class ScriptedAnswer:
    """Implements `Answer`."""

    earlier: Sequence[Bundle] = ()

    def __init__(self, owner: Scripted, request: Request, top_logprobs: int | None) -> None:
        self._owner = owner
        self._request = request
        self._top_logprobs = top_logprobs
        self._delivered: list[Step] = []
        self._hung_up = asyncio.Event()
        self._over = False
        self._bundle: Bundle | None = None

    async def steps(self) -> AsyncIterator[Step]:
        owner, request = self._owner, self._request
        pieces = [*owner.script(request), None]
        for index, piece in enumerate(pieces):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hung_up.wait(), owner.delay or 0.0001)
            if self._hung_up.is_set():
                return
            if index == owner.breaks_at:
                self._end()
                if owner.breaks_with:
                    raise owner.breaks_with
                return
            stop: StopReason | None = None
            if piece is None:
                stop = "stop"
            elif request.max_tokens == index + 1:
                stop = "length"
            step = Step(index, EOG if piece is None else 10 + index, piece or "", b"", self._top(piece), stop)
            self._delivered.append(step)
            if stop:
                self._end()
            yield step
            if stop:
                return

    async def bundle(self) -> Bundle:
        self._end()
        if self._owner.no_receipt:
            raise self._owner.no_receipt
        if self._bundle is None:
            last = self._delivered[-1].stop if self._delivered else None
            completion = Completion(
                prompt=Prompt(b"prompt", (1, 2, 3, 4, 5)),
                tokens=tuple(step.token for step in self._delivered),
                text="".join(step.text for step in self._delivered),
                stop=last or ("cancelled" if self._hung_up.is_set() else "failed"),
                leaves=(),
            )
            receipt = attest(
                self._request,
                completion,
                model=bytes(32),
                profile=PROFILE,
                key=self._owner.key,
                sequence=len(self._owner.kept) + 1,
                issued=NOW,
                amount=7,
            )
            self._bundle = Bundle(receipt, self._request, PROFILE, completion.tokens)
            self._owner.kept.append(self._bundle)
        return self._bundle

    async def close(self) -> None:
        if not self._over:
            self._owner.closed += 1
            self._hung_up.set()
        self._end()

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._owner.active -= 1

    def _top(self, piece: str | None) -> TopLogprobs | None:
        if self._top_logprobs is None:
            return None
        data = (piece or "").encode()
        ids = tuple(range(self._top_logprobs))
        return TopLogprobs(-0.25, ids, tuple(-0.25 - i for i in ids), data, tuple(data + bytes([97 + i]) for i in ids))


def read_calls(text: str) -> tuple[str, Sequence[ToolCall]]:
    """The tool syntax of these tests: `<call>NAME ARGUMENTS` up to the end."""
    said, mark, call = text.partition("<call>")
    if not mark:
        return text, ()
    name, _, arguments = call.partition(" ")
    return said.rstrip(), [ToolCall(name, arguments)]


def scripted_app(
    answers: Scripted,
    *,
    read_tools: ToolReader | None = read_calls,
    patience: Patience | None = None,
    **limits: float,
) -> Starlette:
    """The OpenAI routes over a script, with everything around them that a server has."""
    nonces = iter(range(1, 2**32))
    return Starlette(
        routes=openai_routes(
            answers,
            answers,
            read_tools=read_tools,
            now=lambda: NOW + 0.5,
            fresh_nonce=lambda: next(nonces).to_bytes(32, "big"),
            patience=patience,
        ),
        exception_handlers=ERROR_HANDLERS,
        middleware=[Middleware(Limits, **limits)],
    )


CHAT: Mapping[str, object] = {"model": MODEL, "messages": [{"role": "user", "content": "Say something."}]}
"""The smallest chat body."""
