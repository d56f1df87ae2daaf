"""What a foreign server can do, found out by asking it: nothing is assumed from its name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from itertools import product
from typing import Final, Literal, TypeAlias

from assay.core.completion import Prompt
from assay.core.encoding import MICRO
from assay.core.errors import EngineError, InvalidRequest, ProviderFailed
from assay.core.evidence import TOP_K
from assay.core.ports import PromptReader, Tokenizer
from assay.core.request import Level, Request, SamplerSettings
from assay.engines.proxy_events import Emitted, Event, Names, read_event
from assay.engines.proxy_upstream import Object, Refused, Upstream

Ids: TypeAlias = Literal["given", "mapped", "none"]
"""Where token ids come from: the server, the texts of its tokens, or nowhere (then text is tokenised again)."""
Filter: TypeAlias = Literal["top_k", "top_p", "min_p"]

How: TypeAlias = Literal["ids", "text"]
"""How prompts are sent."""

SLACK: Final = 8
"""More tokens are asked for than wanted, so that a last character is finished (see `proxy_events`)."""
_TEXT: Final = "Here is a list of words that come to my mind:"
_HOW: Final[tuple[How, ...]] = ("ids", "text")
_LENGTH: Final = 6
"""Tokens of a probe's answer."""
_MOST: Final = 20
"""Most alternatives that anybody may want."""
_NOISE: Final = 0.5
"""Mean difference (nats) of log-probabilities that two runs of one server may show; scaled ones differ far more."""
_STRANGE: Final = "put llama-server, vLLM or another server with /v1/completions behind Assay (see docs/engines.md)"


@dataclass(frozen=True, slots=True)
class Traits:
    """What a server was seen to do."""

    kind: str
    """Who it says it is, such as `llamacpp` or `vllm`: a word."""
    build: str
    model: str
    """Its name for the model."""
    prompt: How
    adds_first: bool
    """It puts the vocabulary's first token before texts by itself."""
    extended: bool
    """It takes members that OpenAI does not have."""
    ids: Ids
    asked: int
    """Most alternatives that may be asked for; 0 where log-probabilities do not come."""
    top: int
    """Most alternatives of which each one's id is known."""
    raw: bool
    """Log-probabilities are natural, and from before temperature and filters."""
    filters: frozenset[Filter]
    """Sampler settings that it follows."""
    keeps_limit: bool
    """max_tokens holds."""
    context: int | None
    """Positions of one answer, if it says."""
    places: int | None
    """Answers at the same time, if it says."""

    @property
    def levels(self) -> tuple[Level, ...]:
        """The assurance levels that it allows."""
        return ("signed", "statistical") if not self.lacks else ("signed",)

    @property
    def lacks(self) -> tuple[str, ...]:
        """Why `statistical` cannot be offered, one clause each."""
        reasons = {
            "it gives no log-probabilities": not self.asked,
            "its log-probabilities are of tokens that its texts do not name": self.asked > 0 and not self.top,
            f"it gives {self.top} alternatives a token, and {TOP_K} are needed": 0 < self.top < TOP_K,
            "its log-probabilities are from after temperature and filters": self.top > 0 and not self.raw,
            "the exact token ids are not to be had": self.ids == "none",
        }
        return tuple(reason for reason, holds in reasons.items() if holds)

    @property
    def summary(self) -> str:
        """What was found out, in a line for people."""
        levels = " and ".join(self.levels) + (f" ({'; '.join(self.lacks)})" if self.lacks else "")
        missing = [name for name in ("top_k", "top_p", "min_p") if name not in self.filters]
        notes = f"; it does not follow {' or '.join(missing)}" if missing else ""
        notes += "" if self.keeps_limit else "; it does not keep to max_tokens"
        return f"The server ({self.kind}, {self.build}) computes {self.model!r}: {levels}{notes}."

    def body(
        self, prompt: Sequence[int] | str, sampler: SamplerSettings, *, tokens: int, top: int
    ) -> dict[str, object]:
        """The request for one streamed completion; `top` is how many alternatives are wanted (0: none).

        With a server that takes more than OpenAI's members, every sampler of its own is switched off, and the
        filters come after the temperature, as `core/sampler.py` has it.
        """
        body: dict[str, object] = {
            "model": self.model,
            "prompt": prompt if isinstance(prompt, str) else list(prompt),
            "max_tokens": tokens,
            "temperature": sampler.temperature / MICRO,
            "top_p": max(sampler.top_p, 1) / MICRO,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if top:
            body["logprobs"] = top
        if self.extended:
            body |= {**_EXTENDED, "top_k": sampler.top_k, "min_p": sampler.min_p / MICRO}
        return body

    def prompt_of(self, prompt: Prompt, tokenizer: Tokenizer) -> Sequence[int] | str:
        """What to send, so that the server reads exactly the tokens of `prompt`.

        Raises:
            InvalidRequest: the server takes text, and would read this one otherwise.
        """
        if self.prompt == "ids":
            return prompt.tokens
        text, tokens = prompt.text.decode(), prompt.tokens
        if self.adds_first and tokens:
            text, tokens = _without(text, tokens[0], tokenizer), tokens[1:]
        if tokenizer.encode(text, special=True) != tokens:
            raise InvalidRequest(
                "the server behind this provider takes text only, and would read this one as other tokens",
                field="messages",
                remedy="leave out what looks like a model's control tokens, or ask another provider",
            )
        return text


_EXTENDED: Final[Mapping[str, object]] = {
    # llama-server
    "timings_per_token": True,
    "post_sampling_probs": False,
    "samplers": ["temperature", "top_k", "top_p", "min_p"],
    "repeat_penalty": 1.0,
    "dry_multiplier": 0.0,
    "xtc_probability": 0.0,
    "typical_p": 1.0,
    "mirostat": 0,
    "dynatemp_range": 0.0,
    "top_n_sigma": -1.0,
    # vLLM
    "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    "return_token_ids": True,
    "return_tokens_as_token_ids": True,
    "repetition_penalty": 1.0,
    # both
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}


@dataclass(frozen=True, slots=True)
class _Sample:
    text: str
    emitted: tuple[Emitted, ...]
    prompt_tokens: int | None
    made: int


async def probe(upstream: Upstream, reader: PromptReader, names: Names, *, model: str = "") -> Traits:
    """Ask the server for a few short completions. `reader` is the model's; `model` the server's name for it.

    Raises:
        ProviderFailed: the server cannot be reached or is no OpenAI server.
        EngineError: it cannot be used: no completions, another vocabulary, or it changes the prompt.
    """
    listed = await _models(upstream)
    entry = _choose(listed, model, upstream.url)
    props, version = await _optional(upstream, "/props"), await _optional(upstream, "/version")
    settings = props.get("default_generation_settings")
    context = settings.get("n_ctx") if isinstance(settings, dict) else entry.get("max_model_len")
    prompt = reader.render(_request())
    traits, first = await _first(upstream, names, prompt, reader.tokenizer, str(entry["id"]))
    ids, top = _told(first, reader.tokenizer)
    traits = replace(
        traits,
        kind=_word(entry.get("owned_by")),
        build=_word(props.get("build_info") or version.get("version")),
        ids=ids,
        asked=traits.asked if any(emitted.logprob is not None for emitted in first.emitted) else 0,
        top=min(top, traits.asked),
        keeps_limit=first.made <= _LENGTH,
        context=context if isinstance(context, int) and context > 0 else None,
        places=places if isinstance(places := props.get("total_slots"), int) and places > 0 else None,
    )
    sent = traits.prompt_of(prompt, reader.tokenizer)

    async def ask(sampler: SamplerSettings, tokens: int = _LENGTH) -> _Sample:
        return await _sample(upstream, names, traits.body(sent, sampler, tokens=tokens, top=traits.asked))

    hot = 2 * MICRO
    again = await ask(SamplerSettings(temperature=0))
    if not _greedy(again, first) or _greedy(await ask(SamplerSettings(hot), 2 * _LENGTH), first):
        raise EngineError(f"{upstream.url} does not follow the temperature", _STRANGE)
    cold: dict[Filter, SamplerSettings] = {"top_p": SamplerSettings(hot, top_p=1)}
    if traits.extended:
        cold |= {"top_k": SamplerSettings(hot, top_k=1), "min_p": SamplerSettings(hot, min_p=MICRO)}
    followed = [name for name, sampler in cold.items() if _greedy(await ask(sampler), first)]
    raw = traits.top > 0 and _alike(
        await ask(SamplerSettings(), 1), await ask(SamplerSettings(MICRO // 4, top_p=MICRO // 2), 1)
    )
    return replace(traits, filters=frozenset(followed), raw=raw)


async def _first(
    upstream: Upstream, names: Names, prompt: Prompt, tokenizer: Tokenizer, model: str
) -> tuple[Traits, _Sample]:
    """The richest form of request that the server takes, and its answer at temperature 0."""
    refusal: Refused | None = None
    for how, extended, top in product(_HOW, (True, False), (_MOST, TOP_K, 5, 0)):
        traits = Traits("", "", model, how, False, extended, "none", top, 0, False, frozenset(), False, None, None)
        sent = prompt.text.decode() if how == "text" else prompt.tokens
        try:
            body = traits.body(sent, SamplerSettings(temperature=0), tokens=_LENGTH, top=top)
            sample = await _sample(upstream, names, body)
        except Refused as error:
            if error.code in (401, 403):
                raise
            refusal = error
            continue
        if not sample.text:
            raise EngineError(f"{upstream.url} answers nothing", _STRANGE)
        read = sample.prompt_tokens
        plain = len(tokenizer.encode(prompt.text.decode(), special=True)) if how == "text" else len(prompt.tokens)
        if read is None:
            raise EngineError(f"{upstream.url} does not say how many tokens it read", _STRANGE)
        if read != plain and not (how == "text" and read == plain + 1):
            raise EngineError(
                f"{upstream.url} reads {read} tokens where {plain} were sent: it changes the prompt",
                "serve the model without a template (Ollama: TEMPLATE {{ .Prompt }} in the Modelfile)",
            )
        return replace(traits, adds_first=read != plain), sample
    raise EngineError(f"{upstream.url} gives no completions ({refusal and refusal.message})", _STRANGE)


async def _sample(upstream: Upstream, names: Names, body: Object) -> _Sample:
    events: list[Event] = []
    made = 0
    async with aclosing(upstream.stream(body)) as stream:
        async for value in stream:
            events.append(read_event(value, names))
            made += len(events[-1].emitted) or bool(events[-1].text)
            if len(events) > 64 * _LENGTH:
                raise ProviderFailed(f"{upstream.url} sends without end", _STRANGE)
    counts = [event.completion_tokens for event in events if event.completion_tokens is not None]
    read = [event.prompt_tokens for event in events if event.prompt_tokens is not None]
    return _Sample(
        text="".join(event.text for event in events),
        emitted=tuple(emitted for event in events for emitted in event.emitted),
        prompt_tokens=read[-1] if read else None,
        made=max([made, *counts[-1:]]),
    )


def _told(sample: _Sample, tokenizer: Tokenizer) -> tuple[Ids, int]:
    """Where ids come from, and how many alternatives each token has.

    Raises:
        EngineError: the server's vocabulary is another one.
    """
    told = [emitted for emitted in sample.emitted if emitted.token is not None]
    if not told or len(told) < len(sample.emitted):
        return "none", 0
    ids = [emitted.token for emitted in told if emitted.token is not None]
    if any(token >= tokenizer.n_vocab for token in ids) or not _spells(ids, sample.text, tokenizer):
        raise EngineError(
            f"the server's tokens are not those of the model file: it calls {sample.text!r} {ids}",
            "name the model file that the server serves",
        )
    chosen = all(emitted.logprob is not None for emitted in told)
    top = min(len(emitted.top) for emitted in told) if chosen else 0
    return "given" if all(emitted.given for emitted in told) else "mapped", top


def _spells(ids: Sequence[int], text: str, tokenizer: Tokenizer) -> bool:
    return b"".join(map(tokenizer.piece, ids)).decode("utf-8", "replace").strip() == text.strip()


def _greedy(sample: _Sample, first: _Sample) -> bool:
    """Whether every token is the most probable one; without log-probabilities, whether the text says so."""
    if sample.emitted and all(emitted.top for emitted in sample.emitted):
        return all(emitted.top[0][0] == emitted.token for emitted in sample.emitted)
    return sample.text.startswith(first.text)


def _alike(one: _Sample, other: _Sample) -> bool:
    """Whether two samples of one position show the same natural log-probabilities, up to noise."""
    if not one.emitted or not other.emitted:
        return False
    left, right = dict(one.emitted[0].top), dict(other.emitted[0].top)
    both = left.keys() & right.keys()
    if 2 * len(both) <= max(len(left), len(right)) or sum(map(math.exp, left.values())) > 1.01:
        return False
    return sum(abs(left[token] - right[token]) for token in both) / len(both) < _NOISE


async def _models(upstream: Upstream) -> list[Object]:
    listed = (await upstream.get("/v1/models")).get("data")
    entries: list[Object] = [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
    named = [entry for entry in entries if isinstance(entry.get("id"), str)]
    if not named:
        raise EngineError(f"{upstream.url} lists no models", "load a model there first")
    return named


def _choose(listed: Sequence[Object], model: str, url: str) -> Object:
    """The entry named `model`; without a name, the only one."""
    chosen = [entry for entry in listed if entry["id"] == model] if model else listed
    if len(chosen) != 1:
        known = ", ".join(str(entry["id"])[:100] for entry in listed[:20])
        raise EngineError(
            f"{url} serves no model {model!r}" if model else f"{url} serves {len(listed)} models",
            f"name one with --upstream-model: {known}",
        )
    return chosen[0]


async def _optional(upstream: Upstream, path: str) -> Object:
    """What only some servers have."""
    try:
        return await upstream.get(path)
    except ProviderFailed:
        return {}


def _word(value: object) -> str:
    """What may stand in a profile and on a screen, of what a stranger calls itself."""
    kept = "".join(char for char in str(value or "")[:80] if char.isascii() and (char.isalnum() or char in "._-+"))
    return kept or "unknown"


def _request() -> Request:
    return Request(
        model="",
        kind="completion",
        messages=(),
        prompt=_TEXT,
        sampler=SamplerSettings(),
        max_tokens=_LENGTH,
        stop=(),
        tools="",
        tool_choice="none",
        response_format="",
        level="signed",
        nonce=bytes(32),
        created=0,
    )


def _without(text: str, first: int, tokenizer: Tokenizer) -> str:
    """`text` without the spelling of the control token `first` at its beginning."""
    ends = range(1, min(len(text), 64) + 1)
    return next((text[end:] for end in ends if tokenizer.encode(text[:end], special=True) == (first,)), text)
