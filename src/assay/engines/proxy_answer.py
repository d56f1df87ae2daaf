"""One answer of a foreign server, as steps that a receipt can cover: exact tokens, evidence, and how it ended."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from assay.core.completion import Prompt, Step, StepStop, TopLogprobs
from assay.core.errors import ContextOverflow, InvalidRequest, ProviderFailed
from assay.core.evidence import TOP_K, top_leaf
from assay.core.ports import Tokenizer
from assay.core.request import Request, SamplerSettings
from assay.engines.proxy_events import Emitted, Event, Names, read_event
from assay.engines.proxy_traits import SLACK, Traits
from assay.engines.proxy_upstream import Upstream
from assay.engines.text import TextStream

_MAX_EMPTY: Final = 256
"""Most events in a row that bring no token."""
_MANY: Final = 512
"""Alternatives that are asked for to find one token among them, before the whole vocabulary is."""
_CERTAIN: Final = 100.0
"""The largest bias that OpenAI allows."""
_REMEDY: Final = "see the server's log, or ask another provider"


@dataclass(frozen=True, slots=True)
class Foreign:
    """A server as its answers need it."""

    upstream: Upstream
    traits: Traits
    names: Names
    tokenizer: Tokenizer
    end: int
    """The token that ends an answer where the server does not say which one did."""
    context: int
    """Positions of one answer."""


@dataclass(frozen=True, slots=True)
class _Token:
    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class ProxyAnswer:
    """One answer under way.

    Raises:
        ContextOverflow: the prompt leaves no room for one token.
        InvalidRequest: the server gives less log-probabilities than are asked for.
    """

    def __init__(self, server: Foreign, request: Request, prompt: Prompt, logprobs: int | None) -> None:
        if len(prompt.tokens) >= server.context:
            raise ContextOverflow(len(prompt.tokens), server.context)
        traits, room = server.traits, server.context - len(prompt.tokens)
        self._server: Final = server
        self._request: Final = request
        self._prompt: Final = prompt
        self._sent: Final = traits.prompt_of(prompt, server.tokenizer)
        self._limit: Final = min(request.max_tokens, room) if request.max_tokens else room
        self._logprobs: Final = logprobs
        self._evidence: Final = request.level == "statistical" or logprobs is not None
        wanted = max(logprobs or 0, TOP_K if request.level == "statistical" else 0, 1 if self._evidence else 0)
        if wanted > traits.top:
            raise InvalidRequest(
                f"the server behind this provider gives {traits.top} log-probabilities a token",
                field="top_logprobs" if traits.top else "logprobs",
                remedy="ask for less, or ask another provider",
            )
        # Ids come with log-probabilities, so some are always asked for.
        self._top: Final = max(wanted, min(traits.asked, 1))
        self._tokens: list[int] = []
        self._text: Final = TextStream(server.tokenizer.piece, request.stop)

    async def steps(self) -> AsyncGenerator[Step, None]:
        """The tokens as they come; closing the generator hangs up.

        Stop strings and the limit are watched here and not there, so that the token that ends an answer is known.

        Raises:
            Busy: the server has no place.
            ProviderFailed: it broke off, or does not say what a receipt must cover.
        """
        server = self._server
        body = server.traits.body(self._sent, self._request.sampler, tokens=self._limit + SLACK, top=self._top)
        body["seed"] = int.from_bytes(self._request.seed[:4], "big") >> 1
        finish: str | None = None
        made = empty = 0
        async with aclosing(server.upstream.stream(body)) as stream:
            async for value in stream:
                event = read_event(value, server.names)
                self._check_prompt(event)
                empty = 0 if event.emitted or event.text else empty + 1
                if empty > _MAX_EMPTY:
                    raise ProviderFailed("the server sends events without tokens", _REMEDY)
                for token in await self._read(event):
                    step = self._step(token)
                    yield step
                    if step.stop:
                        return
                finish = event.finish or finish
                made = max(made, event.made or 0, event.completion_tokens or 0)
        if finish is None:
            raise ProviderFailed("the server broke off in mid-answer", _REMEDY)
        if finish != "stop":
            raise ProviderFailed(
                f"the server ended the answer ({finish[:40]!r}) after {len(self._tokens)} of {self._limit} tokens",
                "give the server a longer context",
            )
        if server.traits.ids != "none" and made > len(self._tokens) + 1:
            raise ProviderFailed("the server ended within a character and does not say with which tokens", _REMEDY)
        yield self._step(await self._ending())

    async def _read(self, event: Event) -> Sequence[_Token]:
        """The tokens that an event brings, those that the server had kept back included."""
        server = self._server
        if server.traits.ids == "none":
            text = event.text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # no lone surrogates
            return [_Token(token) for token in server.names.spell(text.encode())]
        if event.text and not event.emitted:
            raise ProviderFailed("the server sends text without its tokens", _REMEDY)
        tokens: list[_Token] = []
        late = 0 if event.made is None else event.made - len(self._tokens) - len(event.emitted)
        for emitted in event.emitted:
            if emitted.token is None or emitted.token >= server.tokenizer.n_vocab:
                raise ProviderFailed("the server sends a token that is not in the model file's vocabulary", _REMEDY)
            own = server.tokenizer.piece(emitted.token)
            if late:
                for token in self._kept_back(emitted, own, late):
                    before = [*self._tokens, *(item.token for item in tokens)]
                    tokens.append(await self._look(before, token) if self._evidence else _Token(token))
                late = 0
            elif emitted.data is not None and own and emitted.data != own:
                raise ProviderFailed(
                    f"the server says that token {emitted.token} is {emitted.data!r}, not {own!r}", _REMEDY
                )
            tokens.append(_Token(emitted.token, emitted.logprob, emitted.top))
        return tokens

    def _kept_back(self, emitted: Emitted, own: bytes, count: int) -> tuple[int, ...]:
        """Tokens that llama-server made before this one and tells only by their bytes: they left a character
        unfinished.
        """
        data = emitted.data or b""
        found = None
        if own and data.endswith(own):
            found = self._server.names.fill(data[: -len(own)], count)
        if found is None:
            raise ProviderFailed(f"the server made {count} tokens that it does not tell", _REMEDY)
        return found

    async def _look(self, before: Sequence[int], wanted: int | None) -> _Token:
        """Ask for the log-probabilities after `before`: of `wanted`, or of the likeliest token that ends an answer."""
        server, traits = self._server, self._server.traits
        answer = b"".join(map(server.tokenizer.piece, before))
        try:
            prompt = Prompt(self._prompt.text + answer, (*self._prompt.tokens, *before))
            sent = traits.prompt_of(prompt, server.tokenizer)
        except (InvalidRequest, UnicodeDecodeError) as error:
            raise ProviderFailed("the server cannot be asked for a token that it did not tell", _REMEDY) from error
        for count in (traits.asked,) if wanted is None else (_MANY, server.tokenizer.n_vocab):
            body = traits.body(sent, SamplerSettings(), tokens=1, top=count)
            # Whatever is drawn now does not matter, but it must be told: neither an end nor half a character.
            body["logit_bias"] = {str(server.tokenizer.encode("a", special=False)[-1]): _CERTAIN}
            async with aclosing(server.upstream.stream(body)) as stream:
                async for value in stream:
                    event = read_event(value, server.names)
                    self._check_prompt(event, len(before))
                    for token, logprob in event.emitted[0].top if event.emitted else ():
                        if token == wanted or (wanted is None and server.tokenizer.is_eog(token)):
                            return _Token(token, logprob, event.emitted[0].top[: self._top])
        raise ProviderFailed("the server does not tell a token's log-probability", _REMEDY)

    async def _ending(self) -> _Token:
        """The token that ended the answer, where the server only says that one did."""
        if self._evidence:
            return await self._look(self._tokens, None)
        return _Token(self._server.end)

    def _step(self, token: _Token) -> Step:
        index = len(self._tokens)
        self._tokens.append(token.token)
        text = self._text.push(token.token)
        stop: StepStop | None = None
        if self._server.tokenizer.is_eog(token.token) or self._text.stopped:
            stop = "stop"
        elif len(self._tokens) >= self._limit:
            stop = "length"
        if stop:
            text += self._text.finish()
        leaf, top = self._observe(token)
        return Step(index, token.token, text, leaf, top, stop)

    def _observe(self, token: _Token) -> tuple[bytes, TopLogprobs | None]:
        if not self._evidence:
            return b"", None
        if token.logprob is None or not token.top:
            raise ProviderFailed("the server left out a log-probability", _REMEDY)
        full = TopLogprobs(token.logprob, tuple(i for i, _ in token.top), tuple(value for _, value in token.top))
        leaf = top_leaf(full) if self._request.level == "statistical" else b""
        if self._logprobs is None:
            return leaf, None
        piece, ids = self._server.tokenizer.piece, full.ids[: self._logprobs]
        shown = TopLogprobs(
            full.chosen, ids, full.logprobs[: self._logprobs], piece(token.token), tuple(map(piece, ids))
        )
        return leaf, shown

    def _check_prompt(self, event: Event, more: int = 0) -> None:
        expected = len(self._prompt.tokens) + more
        if event.prompt_tokens is not None and event.prompt_tokens != expected:
            raise ProviderFailed(
                f"the server read {event.prompt_tokens} tokens where {expected} were sent: it changes prompts", _REMEDY
            )
