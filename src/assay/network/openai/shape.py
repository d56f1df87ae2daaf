"""Steps and receipts as OpenAI's objects: completions, stream chunks, log-probabilities, usage, errors.

A chunk is written by hand around the one part that differs from token to token, so that streaming costs a few
microseconds a token.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from assay.core.bundle import Bundle
from assay.core.completion import Step, StopReason, TopLogprobs
from assay.core.encoding import b64
from assay.core.errors import (
    AssayError,
    BodyTooLarge,
    Busy,
    ContextOverflow,
    Forbidden,
    InvalidRequest,
    ModelNotFound,
    NoProvider,
    NotFound,
    PaymentRequired,
    PriceChanged,
    ProviderFailed,
)
from assay.core.request import Request
from assay.network.openai.accept import Accepted

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls"]
_PREFIXES: Final = {"chat": "chatcmpl-", "completion": "cmpl-"}
_OBJECTS: Final = {"chat": ("chat.completion", "chat.completion.chunk"), "completion": ("text_completion",) * 2}
_CODES: Final[tuple[tuple[type[AssayError], str], ...]] = (
    (ContextOverflow, "context_length_exceeded"),
    (BodyTooLarge, "body_too_large"),
    (ModelNotFound, "model_not_found"),
    (NotFound, "not_found"),
    (Forbidden, "forbidden"),
    (PriceChanged, "price_changed"),
    (Busy, "rate_limit_exceeded"),
    (PaymentRequired, "payment_required"),
    (NoProvider, "no_provider"),
    (ProviderFailed, "provider_failed"),
)
_JSON: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
"""Made once: `json.dumps` would make one for every token."""
_FLOOR: Final = -9999.0
"""What OpenAI shows for log-probabilities of nothing; JSON has no infinity."""
_OPENINGS: Final = "<{["
"""A tool call begins with one of these in every chat template that is known."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model asks for."""

    name: str
    arguments: str
    """JSON text, as the model wrote it."""


ToolReader: TypeAlias = Callable[[str], tuple[str, Sequence[ToolCall]]]
"""Divides an answer's whole text into what is said and the calls that are asked for."""


@dataclass(slots=True)
class Choice:
    """One of the `n` answers while it comes in, and when it has ended."""

    request: Request
    read_tools: ToolReader | None = None
    text: list[str] = field(default_factory=list)
    tops: list[TopLogprobs] = field(default_factory=list)
    stop: StopReason | None = None

    def add(self, step: Step) -> None:
        """The next token."""
        self.text.append(step.text)
        if step.top is not None:
            self.tops.append(step.top)
        self.stop = step.stop

    @property
    def takes_tools(self) -> bool:
        """The text may turn out to be tool calls."""
        return self.read_tools is not None and bool(self.request.tools) and self.request.tool_choice != "none"

    def divided(self) -> tuple[str, Sequence[ToolCall]]:
        """What is said, and the tool calls; a call of a tool that was not offered is text like any other."""
        text = "".join(self.text)
        if self.read_tools is None or not self.takes_tools:
            return text, ()
        said, calls = self.read_tools(text)
        offered = {tool["function"]["name"] for tool in json.loads(self.request.tools)}
        return (said, calls) if all(call.name in offered for call in calls) else (text, ())

    def finish(self, *, called: bool) -> FinishReason:
        """OpenAI has no word for an answer that was cut (`cancelled`, `failed`): it is shown as `length`, because
        nobody may take it for a whole one. The receipt has the true reason."""
        if self.stop == "stop":
            return "tool_calls" if called else "stop"
        return "length"


@dataclass(frozen=True, slots=True)
class Shape:
    """What all objects of one reply have in common."""

    accepted: Accepted
    created: int
    """Unix seconds."""
    id: str
    """The completion's name: the receipts are found by the call in it."""

    @classmethod
    def of(cls, accepted: Accepted, created: int) -> Shape:
        """Hashes the request: CPU-bound in proportion to its length."""
        first = accepted.requests[0]
        return cls(accepted, created, _PREFIXES[first.kind] + b64(first.call))

    @property
    def request(self) -> Request:
        """The first choice's."""
        return self.accepted.requests[0]

    def whole(self, choices: Sequence[Choice], bundles: Sequence[Bundle]) -> dict[str, object]:
        """A reply in one piece: `chat.completion` or `text_completion`."""
        shaped = _chat_choice if self.request.kind == "chat" else _completion_choice
        logprobs = self.accepted.delivery.top_logprobs is not None
        return {
            **self._head(_OBJECTS[self.request.kind][0]),
            "choices": [shaped(index, choice, logprobs) for index, choice in enumerate(choices)],
            "usage": usage(bundles),
            "assay": proof(bundles),
        }

    def last_chunk(self, bundles: Sequence[Bundle]) -> bytes:
        """The chunk after all choices: no choices, the usage, the receipts."""
        head = self._head(_OBJECTS[self.request.kind][1])
        return event({**head, "choices": [], "usage": usage(bundles), "assay": proof(bundles)})

    def chunks(self, choice: Choice) -> Chunks:
        """The writer of one choice's chunks."""
        head = _json(self._head(_OBJECTS[self.request.kind][1]))[:-1]
        return Chunks(
            choice,
            head=b"data: " + head + b',"choices":[{"index":%d,' % choice.request.choice,
            tail=b"}]" + (b',"usage":null' if self.accepted.delivery.include_usage else b""),
            logprobs=self.accepted.delivery.top_logprobs is not None,
        )

    def _head(self, name: str) -> dict[str, object]:
        return {"id": self.id, "object": name, "created": self.created, "model": self.request.model}


class Chunks:
    """Writes the stream chunks of one choice, as whole server-sent events."""

    def __init__(self, choice: Choice, *, head: bytes, tail: bytes, logprobs: bool) -> None:
        self._choice = choice
        self._chat = choice.request.kind == "chat"
        self._tail = tail
        self._end = tail + b"}\n\n"
        self._head = head
        self._delta = head + (b'"delta":{"content":' if self._chat else b'"text":')
        self._after = (b"}" if self._chat else b"") + b',"logprobs":'
        self._plain = self._after + b'null,"finish_reason":null' + self._end
        self._logprobs = logprobs
        self._held = choice.takes_tools
        self._shown = ""
        self._seen = 0
        self._offset = 0

    def first(self) -> bytes:
        """Who speaks; nothing for a completion."""
        if not self._chat:
            return b""
        return self._head + b'"delta":{"role":"assistant","content":"","refusal":null}' + self._plain[1:]

    def step(self, step: Step) -> bytes:
        """What a token adds; nothing if there is nothing to show yet."""
        text = self._showable(step.text) if self._held else step.text
        if self._logprobs and step.top is not None:
            shaped, self._offset = logprobs_of([step.top], self._chat, self._offset)
            return self._delta + _json(text) + self._after + _json(shaped) + b',"finish_reason":null' + self._end
        return self._delta + _json(text) + self._plain if text else b""

    def rest(self) -> bytes:
        """At the end: text that was held back because it could have been a tool call, or the calls."""
        if not self._held:
            return b""
        text, calls = self._choice.divided()
        out = b""
        if rest := text.removeprefix(self._shown) if text.startswith(self._shown) else "":
            out += self._delta + _json(rest) + self._plain
        if calls:
            listed = [{"index": i, **call} for i, call in enumerate(_calls(self._choice.request, calls))]
            out += self._head + b'"delta":{"tool_calls":' + _json(listed) + self._plain
        return out

    def last(self, bundles: Sequence[Bundle] | None = None) -> bytes:
        """Why the choice ended; with `bundles`, the receipts of all choices too."""
        reason = self._choice.finish(called=bool(self._held and self._choice.divided()[1]))
        body = b'"delta":{}' if self._chat else b'"text":""'
        end = self._end if bundles is None else self._tail + b',"assay":' + _json(proof(bundles)) + b"}\n\n"
        return self._head + body + b',"logprobs":null,"finish_reason":"' + reason.encode() + b'"' + end

    def _showable(self, text: str) -> str:
        """Text before anything that may begin a tool call."""
        if self._seen:
            return ""
        cut = next((place for place, letter in enumerate(text) if letter in _OPENINGS), None)
        if cut is not None:
            self._seen = 1
            text = text[:cut]
        self._shown += text
        return text


def event(value: Mapping[str, object]) -> bytes:
    """A server-sent event with a JSON object."""
    return b"data: " + _json(value) + b"\n\n"


def usage(bundles: Sequence[Bundle]) -> dict[str, int]:
    """Token counts as the receipts have them: the prompt's once, the answers' together. What other providers delivered
    of an answer is counted by its last part: their receipts may be missing, or cover more than came."""
    last = {bundle.request.choice: bundle for bundle in bundles}
    before = {choice: len(bundle.request.continues) for choice, bundle in last.items()}
    prompt = min(bundle.receipt.prompt_count - before[choice] for choice, bundle in last.items())
    output = sum(bundle.receipt.output_count + before[choice] for choice, bundle in last.items())
    return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}


def proof(bundles: Sequence[Bundle]) -> dict[str, object]:
    """The `assay` member of a reply: one receipt a choice, or one for each part of it, in order."""
    first = bundles[0].receipt
    return {
        "receipts": [bundle.receipt.to_json() for bundle in bundles],
        "provider": first.provider,
        "level": first.level,
    }


def error_object(error: AssayError) -> dict[str, object]:
    """The error as OpenAI's clients expect it."""
    return {
        "error": {
            "message": str(error),
            "type": error.kind,
            "param": (error.field or None) if isinstance(error, InvalidRequest) else None,
            "code": next((code for kind, code in _CODES if isinstance(error, kind)), None),
        }
    }


def logprobs_of(tops: Sequence[TopLogprobs], chat: bool, offset: int = 0) -> tuple[dict[str, object], int]:
    """Log-probabilities in the chat's or the completion's shape, and the text offset after them.

    Every output token is shown, also those without text (the end-of-generation token).
    """
    if chat:
        return {"content": [_chat_logprob(top) for top in tops], "refusal": None}, offset
    offsets: list[int] = []
    for top in tops:
        offsets.append(offset)
        offset += sum(byte & 0xC0 != 0x80 for byte in top.chosen_bytes)  # characters that begin in this token
    return {
        "tokens": [_token(top.chosen_bytes) for top in tops],
        "token_logprobs": [_finite(top.chosen) for top in tops],
        "top_logprobs": [
            {_token(data): _finite(value) for data, value in zip(_texts(top), top.logprobs, strict=True)}
            for top in tops
        ],
        "text_offset": offsets,
    }, offset


def encode(value: Mapping[str, object]) -> bytes:
    """JSON in UTF-8, whatever strings a provider sent (half surrogate pairs become question marks)."""
    return _json(value)


def _chat_choice(index: int, choice: Choice, logprobs: bool) -> dict[str, object]:
    text, calls = choice.divided()
    message: dict[str, object] = {"role": "assistant", "content": text, "refusal": None}
    if calls:
        message |= {"content": text or None, "tool_calls": _calls(choice.request, calls)}
    return {
        "index": index,
        "message": message,
        "logprobs": logprobs_of(choice.tops, True)[0] if logprobs else None,
        "finish_reason": choice.finish(called=bool(calls)),
    }


def _completion_choice(index: int, choice: Choice, logprobs: bool) -> dict[str, object]:
    return {
        "index": index,
        "text": "".join(choice.text),
        "logprobs": logprobs_of(choice.tops, False)[0] if logprobs else None,
        "finish_reason": choice.finish(called=False),
    }


def _calls(request: Request, calls: Sequence[ToolCall]) -> list[dict[str, object]]:
    name = b64(request.digest)[:22]
    return [
        {
            "id": f"call_{name}{place}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for place, call in enumerate(calls)
    ]


def _chat_logprob(top: TopLogprobs) -> dict[str, object]:
    return _entry(top.chosen_bytes, top.chosen) | {
        "top_logprobs": [_entry(data, value) for data, value in zip(_texts(top), top.logprobs, strict=True)]
    }


def _entry(data: bytes, logprob: float) -> dict[str, object]:
    return {"token": data.decode("utf-8", "replace"), "logprob": _finite(logprob), "bytes": list(data)}


def _texts(top: TopLogprobs) -> Sequence[bytes]:
    return top.top_bytes or (b"",) * len(top.ids)


def _token(data: bytes) -> str:
    """A token as completions name it: part of a character is spelled out, so that names stay apart."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def _finite(logprob: float) -> float:
    return round(min(logprob, 0.0), 6) if logprob > _FLOOR else _FLOOR


def _json(value: object) -> bytes:
    return _JSON.encode(value).encode("utf-8", "replace")
