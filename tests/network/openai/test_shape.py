"""OpenAI's objects from steps and receipts."""

from __future__ import annotations

import json
import math

import pytest

from assay.core.completion import Step, StopReason, TopLogprobs
from assay.core.errors import (
    AssayError,
    Busy,
    ContextOverflow,
    InvalidRequest,
    ModelNotFound,
    NoProvider,
    ProviderFailed,
    StoreError,
)
from assay.network.openai.accept import accept_chat, accept_completion
from assay.network.openai.bodies import ChatBody, CompletionBody, read_body
from assay.network.openai.shape import Choice, Shape, encode, error_object, logprobs_of

CHAT = b'{"model":"m","messages":[{"role":"user","content":"hi"}]%s}'


def shape(more: bytes = b"") -> Shape:
    """The shape of a small chat's reply; `more`: further members of its body."""
    body = read_body(CHAT % more, ChatBody)
    return Shape.of(accept_chat(body, nonce=bytes(32), now_s=5, default_level="signed"), 5)


def test_chunk_is_what_json_would_write() -> None:
    """A chunk written by hand is the same JSON as the object it stands for, whatever the text."""
    made = shape()
    chunks = made.chunks(Choice(made.request))
    for text in ("plain", 'quo"te\\', "line\n\r\u2028\x00", "é🌍", "%d %s {}"):
        event = chunks.step(Step(0, 1, text, b""))
        assert event.startswith(b"data: ")
        assert event.endswith(b"\n\n")
        assert event.count(b"\n") == 2
        assert json.loads(event[6:]) == {
            "id": made.id,
            "object": "chat.completion.chunk",
            "created": 5,
            "model": "m",
            "choices": [{"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}],
        }
    assert json.loads(chunks.first()[6:])["choices"][0]["delta"]["role"] == "assistant"


def test_completion_chunk() -> None:
    """The older endpoint's chunks have `text` instead of a delta; usage is null until the end if it was asked for."""
    body = read_body(
        b'{"model":"m","prompt":"p","stream":true,"stream_options":{"include_usage":true}}', CompletionBody
    )
    made = Shape.of(accept_completion(body, nonce=bytes(32), now_s=5, default_level="signed"), 5)
    chunks = made.chunks(Choice(made.request))
    assert chunks.first() == b""
    value = json.loads(chunks.step(Step(0, 1, "x", b""))[6:])
    assert value["choices"] == [{"index": 0, "text": "x", "logprobs": None, "finish_reason": None}]
    assert value["usage"] is None
    assert value["object"] == "text_completion"


def test_tokens_without_text_make_no_chunk() -> None:
    """A token that shows nothing yet is not sent, unless its log-probability was asked for."""
    silent = shape()
    assert silent.chunks(Choice(silent.request)).step(Step(0, 1, "", b"")) == b""
    asked = shape(b',"logprobs":true')
    chunk = asked.chunks(Choice(asked.request)).step(Step(0, 1, "", b"", TopLogprobs(-1.0, (), (), b"\xc3")))
    choice = json.loads(chunk[6:])["choices"][0]
    assert choice["delta"] == {"content": ""}
    assert choice["logprobs"]["content"] == [{"token": "\ufffd", "logprob": -1.0, "bytes": [195], "top_logprobs": []}]


@pytest.mark.parametrize(
    ("stop", "reason"), [("stop", "stop"), ("length", "length"), ("cancelled", "length"), ("failed", "length")]
)
def test_finish_reasons(stop: StopReason, reason: str) -> None:
    """An answer that was cut is never shown as a whole one."""
    made = shape()
    choice = Choice(made.request, stop=stop)
    assert choice.finish(called=False) == reason
    assert json.loads(made.chunks(choice).last()[6:])["choices"][0] == {
        "index": 0,
        "delta": {},
        "logprobs": None,
        "finish_reason": reason,
    }


def test_logprobs_are_json() -> None:
    """Impossible tokens, and nonsense from a provider, become numbers that JSON has."""
    top = TopLogprobs(-math.inf, (1, 2, 3), (math.nan, math.inf, -1e300))
    shown, _ = logprobs_of([top], True)
    text = encode(shown)
    assert [entry["logprob"] for entry in json.loads(text)["content"][0]["top_logprobs"]] == [-9999.0, 0.0, -9999.0]
    assert json.loads(text)["content"][0]["logprob"] == -9999.0


def test_completion_logprobs_of_split_characters() -> None:
    """Tokens that are parts of a character keep different names, and offsets count whole characters."""
    tops = [TopLogprobs(-1.0, (), (), part) for part in (b"a", b"\xc3", b"\xa9", b"b")]
    shown, end = logprobs_of(tops, False)
    assert shown["tokens"] == ["a", "bytes:\\xc3", "bytes:\\xa9", "b"]
    assert shown["text_offset"] == [0, 1, 2, 2]
    assert end == 3


def test_half_surrogates_from_a_provider() -> None:
    """A string that is no Unicode does not break the reply."""
    made = shape()
    chunk = made.chunks(Choice(made.request)).step(Step(0, 1, "a\ud800b", b""))
    assert json.loads(chunk[6:])["choices"][0]["delta"]["content"] == "a?b"


@pytest.mark.parametrize(
    ("error", "kind", "param", "code"),
    [
        (InvalidRequest("m", field="stop"), "invalid_request_error", "stop", None),
        (InvalidRequest("m"), "invalid_request_error", None, None),
        (ContextOverflow(9, 8), "invalid_request_error", "messages", "context_length_exceeded"),
        (ModelNotFound("m"), "not_found_error", None, "model_not_found"),
        (Busy("m"), "rate_limit_error", None, "rate_limit_exceeded"),
        (NoProvider("m"), "provider_error", None, "no_provider"),
        (ProviderFailed("m", "remedy"), "provider_error", None, "provider_failed"),
        (StoreError("m"), "store_error", None, None),
    ],
)
def test_errors(error: AssayError, kind: str, param: str | None, code: str | None) -> None:
    """Errors have the four members that OpenAI's clients read; the message has the remedy."""
    assert error_object(error) == {"error": {"message": str(error), "type": kind, "param": param, "code": code}}
