"""Reading bodies from strangers: all is either understood or refused by name."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from assay.core.errors import InvalidRequest
from assay.core.request import Request, seeded_nonce
from assay.network.openai.accept import COMPLETION_TOKENS, NO_CEILING, Accepted, accept_chat, accept_completion
from assay.network.openai.bodies import MAX_MEMBERS, UNSUPPORTED, ChatBody, CompletionBody, read_body

CHAT: dict[str, object] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
COMPLETION: dict[str, object] = {"model": "m", "prompt": "once"}
FIELDS = sorted({*ChatBody.model_fields, *CompletionBody.model_fields, "unknown"})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["type", "function", "name", "role", "content", "text", "level"]) | st.text(), inner
        )
    ),
    max_leaves=12,
)


def chat(**more: object) -> Accepted:
    """A chat body with these members, accepted."""
    body = read_body(json.dumps({**CHAT, **more}).encode(), ChatBody)
    return accept_chat(body, nonce=b"f" * 32, now_s=9, default_level="pinned")


def completion(**more: object) -> Accepted:
    """A completion body with these members, accepted."""
    body = read_body(json.dumps({**COMPLETION, **more}).encode(), CompletionBody)
    return accept_completion(body, nonce=b"f" * 32, now_s=9, default_level="pinned")


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4))
@example({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"a": 1e400}}}]})
@example({"model": "\ud800"})
@example({"messages": [{"role": "assistant", "content": None}]})
def test_any_body(more: dict[str, object]) -> None:
    """Whatever stands in the fields, a body is refused as invalid, or becomes requests that have a canonical form."""
    for accept in (chat, completion):
        refusal, requests = "refused", ()
        try:
            requests = accept(**more).requests
        except InvalidRequest as error:
            refusal = str(error)
        assert 0 < len(refusal.encode()) < 1000
        for request in requests:
            assert Request.from_json(request.to_json()) == request
            assert len(request.digest) == 32


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """Bytes that are no body are refused as such."""
    for kind in (ChatBody, CompletionBody):
        with pytest.raises(InvalidRequest):
            read_body(data, kind)


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages":[' + b"1," * 900_000 + b"1]}",
        b'{"messages":[{"role":"user","content":[' + b"{}," * 19_000 + b"{}]}]}",
        b"{" + b",".join(b'"a%d":1' % i for i in range(300_000)) + b"}",
        b'{"metadata":{' + b",".join(b'"a%d":1' % i for i in range(MAX_MEMBERS - 1)) + b"}}",
        b"{" + b",".join(b'"a":1' for _ in range(15_000)) + b"}",
        b"[" * 1_000_000,
        b'{"a":' * 500_000,
        b'{"model":"' + b"\\u0000" * 600_000,
    ],
    ids=["numbers", "parts", "members", "metadata", "twice", "arrays", "objects", "cut"],
)
def test_floods(body: bytes) -> None:
    """Bodies made to be expensive to refuse are refused, with a short message."""
    with pytest.raises(InvalidRequest) as caught:
        read_body(body, ChatBody)
    assert len(str(caught.value)) < 600


def test_unsupported_fields_exist() -> None:
    """Every field that is said to be unsupported is one that a body may spell out."""
    assert set(ChatBody.model_fields) | set(CompletionBody.model_fields) >= UNSUPPORTED


@pytest.mark.parametrize("field", sorted(UNSUPPORTED))
def test_unsupported_fields(field: str) -> None:
    """What cannot be honoured is refused by name, and null asks for nothing."""
    kind, body = (ChatBody, CHAT) if field in ChatBody.model_fields else (CompletionBody, COMPLETION)
    read_body(json.dumps({**body, field: None}).encode(), kind)
    with pytest.raises(InvalidRequest, match="not supported") as caught:
        read_body(json.dumps({**body, field: {"some": "wish"}}).encode(), kind)
    assert caught.value.field.startswith(field)


def test_defaults() -> None:
    """The smallest body asks for OpenAI's defaults."""
    accepted = chat()
    request = accepted.requests[0]
    assert (request.sampler.temperature, request.sampler.top_p) == (1_000_000, 1_000_000)
    assert (request.max_tokens, request.stop, request.tools, request.tool_choice) == (0, (), "", "none")
    assert (request.nonce, request.created, request.level) == (b"f" * 32, 9, "pinned")
    assert accepted.delivery.top_logprobs is None
    assert not accepted.delivery.stream
    assert accepted.ask.max_price is None
    assert accepted.ask.allow_fallbacks
    assert completion().requests[0].max_tokens == COMPLETION_TOKENS


def test_seed_makes_requests_equal() -> None:
    """A seed replaces the fresh nonce and the clock; other seeds are other requests."""
    request = chat(seed=5).requests[0]
    assert (request.nonce, request.created) == (seeded_nonce(5), 0)
    assert chat(seed=6).requests[0].digest != request.digest
    assert chat(seed=-(2**63)).requests[0].nonce == seeded_nonce(-(2**63))


def test_whole_numbers() -> None:
    """16.0 is the integer 16, as in JSON schemas; true is no number."""
    assert chat(max_tokens=16.0).requests[0].max_tokens == 16
    with pytest.raises(InvalidRequest):
        chat(max_tokens=True)


def test_one_sided_ceiling() -> None:
    """A ceiling on one part of the price does not limit the other."""
    price = chat(assay={"max_price": {"prompt": "7"}}).ask.max_price
    assert price is not None
    assert (price.prompt, price.output) == (7, NO_CEILING)


def test_who_is_wished() -> None:
    """Region, stake and file come as they are; an amount may be too large for JSON's numbers."""
    ask = chat(assay={"region": "eu", "min_stake": "1" + 21 * "0", "model_digest": 32 * "0a"}).ask
    assert (ask.region, ask.min_stake, ask.model_digest) == ("eu", 10**21, b"\n" * 32)
    ask = chat(assay={"region": "", "min_stake": 0}).ask
    assert (ask.region, ask.min_stake) == ("", 0)
    ask = chat().ask
    assert (ask.region, ask.min_stake, ask.model_digest) == (None, None, None)


@pytest.mark.parametrize(
    "wish", [{"region": "EU"}, {"region": 17 * "a"}, {"min_stake": -1}, {"model_digest": "0A" * 32}]
)
def test_wishes_that_nobody_can_meet_are_refused(wish: dict[str, object]) -> None:
    """With the name of the field."""
    with pytest.raises(InvalidRequest) as caught:
        chat(assay=wish)
    assert caught.value.field == f"assay.{next(iter(wish))}"


def test_another_level() -> None:
    """Changing the level changes requests and ask together."""
    accepted = chat(n=2).at("signed")
    assert [request.level for request in accepted.requests] == ["signed", "signed"]
    assert accepted.ask.level == "signed"


def test_providers_is_only() -> None:
    """Both names mean the same; both at once are refused."""
    assert chat(assay={"providers": ["a", "b"]}).ask == chat(assay={"only": ["a", "b"]}).ask
    assert chat(assay={"providers": ["a"]}).ask.only == ("a",)
    with pytest.raises(InvalidRequest) as caught:
        chat(assay={"providers": ["a"], "only": ["a"]})
    assert caught.value.field == "assay.providers"


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
STRICT = {"type": "function", "function": {"name": "g", "strict": True}}


@pytest.mark.parametrize(
    ("field", "more"),
    [
        ("parallel_tool_calls", {"tools": [TOOL], "parallel_tool_calls": False}),
        ("tools[1].function.strict", {"tools": [TOOL, STRICT]}),
    ],
)
def test_promises_that_only_a_grammar_keeps(field: str, more: dict[str, object]) -> None:
    """One call at most, and arguments by the schema: kept where a call is forced, harmless where none is made, and
    refused by name where the model may choose."""
    for choice in ("required", {"type": "function", "function": {"name": "f"}}, "none"):
        assert chat(**more, tool_choice=choice).requests[0].tools
    for choice in ("auto", None):
        with pytest.raises(InvalidRequest) as caught:
            chat(**more, tool_choice=choice)
        assert caught.value.field == field
    assert chat(parallel_tool_calls=False).requests[0].tools == ""
    assert chat(**{**more, "parallel_tool_calls": True, "tools": [TOOL]}).requests[0].tools


def test_tool_choices() -> None:
    """A named function must be among the tools; without tools there is nothing to choose."""
    tools = [{"type": "function", "function": {"name": "f"}}]
    named = {"type": "function", "function": {"name": "f"}}
    assert chat(tools=tools).requests[0].tool_choice == "auto"
    assert chat(tools=tools, tool_choice=named).requests[0].tool_choice == "function:f"
    assert chat(tools=[], tool_choice="auto").requests[0].tool_choice == "none"
    for wrong in ({"tool_choice": named}, {"tool_choice": "required"}):
        with pytest.raises(InvalidRequest) as caught:
            chat(**wrong)
        assert caught.value.field == "tool_choice"
