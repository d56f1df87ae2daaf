"""The OpenAI surface as the official client and as strangers see it, over a real server on loopback."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from tests.apps.openai_kit import CHAT, MODEL, NOW, WORDS, Scripted, scripted_app
from tests.running import running

from assay.core.bundle import Bundle
from assay.core.encoding import b64
from assay.core.errors import Busy, ContextOverflow, NoProvider, ProviderFailed
from assay.core.receipt import Receipt, verify_signature
from assay.core.request import Request

pytestmark = pytest.mark.anyio
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Say something."}]
TEXT = "".join(WORDS)
WEATHER: list[ChatCompletionToolParam] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "x": {"multipleOf": 0.5}}},
        },
    }
]


@asynccontextmanager
async def client(answers: Scripted) -> AsyncIterator[AsyncOpenAI]:
    """The official client, connected to a real server."""
    async with (
        running(scripted_app(answers)) as url,
        AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as openai_client,
    ):
        yield openai_client


@asynccontextmanager
async def raw(answers: Scripted) -> AsyncIterator[httpx.AsyncClient]:
    """Without a socket: an exception that escapes from the application fails the test."""
    transport = httpx.ASGITransport(scripted_app(answers))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        yield http


async def test_chat() -> None:
    """A chat gives text, usage and a receipt that its signature binds and that is found again by the reply's id."""
    answers = Scripted()
    async with client(answers) as api:
        reply = await api.chat.completions.create(model=MODEL, messages=HELLO)
        found = await api._client.get(f"{str(api.base_url).removesuffix('/v1/')}/receipts/{reply.id}")
    message = reply.choices[0].message
    assert message.content is not None
    assert message.content.startswith(TEXT)
    assert (message.role, message.tool_calls, reply.choices[0].finish_reason) == ("assistant", None, "stop")
    assert (reply.object, reply.model, reply.created) == ("chat.completion", MODEL, NOW)
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (5, 9, 14)
    proof = reply.to_dict()["assay"]
    assert isinstance(proof, dict)
    receipt = Receipt.from_json(proof["receipts"][0])
    verify_signature(receipt)
    assert (proof["level"], proof["provider"]) == ("statistical", answers.key.address)
    bundle = Bundle.decode(found.content)
    assert bundle.receipt == receipt
    assert bundle.request.digest == receipt.request


async def test_chat_stream() -> None:
    """Chunks spell the same text; the last one before the end has the receipt, and no chunk has empty `choices`."""
    async with client(Scripted()) as api:
        stream = await api.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
        chunks = [chunk async for chunk in stream]
    assert {(chunk.object, chunk.created, chunk.model) for chunk in chunks} == {("chat.completion.chunk", NOW, MODEL)}
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(len(chunk.choices) == 1 for chunk in chunks)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks).startswith(TEXT)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert all(chunk.usage is None for chunk in chunks)
    assert [index for index, chunk in enumerate(chunks) if "assay" in chunk.to_dict()] == [len(chunks) - 1]


async def test_stream_with_usage() -> None:
    """With `include_usage` the last chunk has no choices, but usage and receipts."""
    async with client(Scripted()) as api:
        stream = await api.chat.completions.create(
            model=MODEL, messages=HELLO, stream=True, stream_options={"include_usage": True}, max_tokens=3
        )
        chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3
    assert chunks[-2].choices[0].finish_reason == "length"
    receipts = chunks[-1].to_dict()["assay"]
    assert isinstance(receipts, dict)
    verify_signature(Receipt.from_json(receipts["receipts"][0]))


async def test_completions() -> None:
    """The older endpoint, whole and streamed, with its default of 16 tokens."""
    answers = Scripted(script=lambda _: ["word "] * 40)
    async with client(answers) as api:
        whole = await api.completions.create(model=MODEL, prompt="Once")
        stream = await api.completions.create(model=MODEL, prompt=["Once"], stream=True, max_tokens=2)
        chunks = [chunk async for chunk in stream]
    assert whole.choices[0].text == "word " * 16
    assert (whole.object, whole.choices[0].finish_reason) == ("text_completion", "length")
    assert whole.id.startswith("cmpl-")
    assert "".join(chunk.choices[0].text for chunk in chunks) == "word word "
    assert chunks[-1].choices[0].finish_reason == "length"
    assert [request.prompt for request, _ in answers.asked] == ["Once", "Once"]


async def test_seed() -> None:
    """The same body with a seed is the same request with the same answer; without one each answer is fresh."""
    async with client(Scripted()) as api:
        seeded = [await api.chat.completions.create(model=MODEL, messages=HELLO, seed=-3) for _ in range(2)]
        fresh = [await api.chat.completions.create(model=MODEL, messages=HELLO) for _ in range(2)]
    assert seeded[0].choices[0].message.content == seeded[1].choices[0].message.content
    assert seeded[0].id == seeded[1].id
    assert fresh[0].choices[0].message.content != fresh[1].choices[0].message.content
    assert fresh[0].id != fresh[1].id


async def test_several_choices() -> None:
    """`n` answers differ, carry their own index also when they are interleaved, and have a receipt each."""
    answers = Scripted(delay=0.002)
    async with client(answers) as api:
        whole = await api.chat.completions.create(model=MODEL, messages=HELLO, n=3)
        stream = await api.chat.completions.create(
            model=MODEL, messages=HELLO, n=3, stream=True, stream_options={"include_usage": True}
        )
        texts, order = ["", "", ""], []
        async for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                order.append(choice.index)
        found = await api._client.get(f"{str(api.base_url).removesuffix('/v1/')}/receipts/{whole.id}")
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in whole.choices}) == 3
    assert len(set(texts)) == 3
    assert all(text.startswith(TEXT) for text in texts)
    assert order != sorted(order)
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (5, 27)
    assert [Bundle.decode(line + b"\n").request.choice for line in found.content.split(b"\n") if line] == [0, 1, 2]


async def test_more_choices_than_places() -> None:
    """Choices that find no place wait for the others of their call instead of failing it."""
    answers = Scripted(places=2)
    async with client(answers) as api:
        reply = await api.chat.completions.create(model=MODEL, messages=HELLO, n=5)
    assert [choice.finish_reason for choice in reply.choices] == ["stop"] * 5
    assert answers.active == 0


async def test_logprobs() -> None:
    """Log-probabilities come in both shapes, whole and streamed, with the tokens' bytes."""
    async with client(Scripted()) as api:
        chat = await api.chat.completions.create(model=MODEL, messages=HELLO, logprobs=True, top_logprobs=2)
        stream = await api.chat.completions.create(
            model=MODEL, messages=HELLO, logprobs=True, top_logprobs=2, stream=True
        )
        streamed = [
            token
            async for chunk in stream
            if chunk.choices[0].logprobs
            for token in chunk.choices[0].logprobs.content or ()
        ]
        text = await api.completions.create(model=MODEL, prompt="Once", logprobs=2)
        texts = await api.completions.create(model=MODEL, prompt="Once", logprobs=2, stream=True)
        offsets = [
            offset
            async for chunk in texts
            if chunk.choices[0].logprobs
            for offset in chunk.choices[0].logprobs.text_offset or ()
        ]
    assert chat.choices[0].logprobs is not None
    content = chat.choices[0].logprobs.content
    assert content is not None
    assert [token.token for token in content[:6]] == list(WORDS)
    assert bytes(content[2].bytes or ()) == "wör".encode()
    assert [(top.token, top.logprob) for top in content[0].top_logprobs] == [("Hela", -0.25), ("Helb", -1.25)]
    assert [token.token for token in streamed] == [token.token for token in content[:7]] + [streamed[7].token, ""]
    logprobs = text.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens is not None
    assert logprobs.tokens[:6] == list(WORDS)
    assert logprobs.token_logprobs == [-0.25] * 9
    assert logprobs.top_logprobs is not None
    assert logprobs.top_logprobs[0] == {"Hela": -0.25, "Helb": -1.25}
    assert logprobs.text_offset == offsets == [0, 3, 7, 10, 13, 14, 15, 16, 22]


async def test_tools() -> None:
    """A tool call becomes `tool_calls`, whole and streamed; its text is never shown, and what was said before is."""
    script = Scripted(script=lambda _: ["Let me ", "look", ". <ca", "ll>weather ", '{"city":', '"Paris"}'])
    async with client(script) as api:
        whole = await api.chat.completions.create(model=MODEL, messages=HELLO, tools=WEATHER)
        stream = await api.chat.completions.create(model=MODEL, messages=HELLO, tools=WEATHER, stream=True)
        chunks = [chunk async for chunk in stream]
        plain = await api.chat.completions.create(model=MODEL, messages=HELLO, tools=WEATHER, tool_choice="none")
    message = whole.choices[0].message
    assert whole.choices[0].finish_reason == chunks[-1].choices[0].finish_reason == "tool_calls"
    assert message.content == "Let me look."
    assert message.tool_calls is not None
    assert message.tool_calls[0].type == "function"
    assert (message.tool_calls[0].function.name, json.loads(message.tool_calls[0].function.arguments)) == (
        "weather",
        {"city": "Paris"},
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks).strip() == "Let me look."
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert calls[0].function is not None
    assert (calls[0].index, calls[0].function.name) == (0, "weather")
    assert plain.choices[0].message.tool_calls is None
    assert "<call>" in (plain.choices[0].message.content or "")
    assert json.loads(script.asked[0][0].tools) == WEATHER
    assert [request.tool_choice for request, _ in script.asked] == ["auto", "auto", "none"]


async def test_text_that_only_looks_like_a_tool_call() -> None:
    """With tools offered, text with a brace in it arrives whole, streamed as well."""
    script = Scripted(script=lambda _: ["if x ", "{ y", " }"])
    async with client(script) as api:
        stream = await api.chat.completions.create(model=MODEL, messages=HELLO, tools=WEATHER, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == "if x { y }"


async def test_call_of_a_tool_that_was_not_offered() -> None:
    """A model that invents a tool has written text: no client is asked to run what it does not have."""
    script = Scripted(script=lambda _: ["<call>", "erase {}"])
    async with client(script) as api:
        whole = await api.chat.completions.create(model=MODEL, messages=HELLO, tools=WEATHER)
        stream = await api.chat.completions.create(model=MODEL, messages=HELLO, tools=WEATHER, stream=True)
        chunks = [chunk async for chunk in stream]
    assert (whole.choices[0].message.content, whole.choices[0].message.tool_calls) == ("<call>erase {}", None)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "<call>erase {}"
    assert whole.choices[0].finish_reason == chunks[-1].choices[0].finish_reason == "stop"


async def test_conversation_with_tools() -> None:
    """The assistant's calls and the tools' answers of earlier turns reach the model as they were sent."""
    script = Scripted()
    async with client(script) as api:
        await api.chat.completions.create(
            model=MODEL,
            messages=[
                {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                },
                {"role": "tool", "tool_call_id": "1", "content": "22 °C"},
            ],
        )
    messages = script.asked[0][0].messages
    assert [message.content for message in messages] == ["a\nb", "", "22 °C"]
    assert json.loads(messages[1].tool_calls)[0]["function"] == {"name": "f", "arguments": "{}"}
    assert messages[2].tool_call_id == "1"


async def test_settings_reach_the_request() -> None:
    """What a body sets is what the provider is asked for, schema and wishes included."""
    script = Scripted()
    schema = {"type": "object", "properties": {"a": {"type": "number", "minimum": 0.5}}}
    async with client(script) as api:
        await api.chat.completions.create(
            model=MODEL,
            messages=HELLO,
            temperature=0.7,
            top_p=0.9,
            stop=["\n", "END"],
            max_completion_tokens=5,
            max_tokens=7,
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
            user="me",
            frequency_penalty=0,
            logit_bias={},
            extra_body={
                "top_k": 40,
                "min_p": 0.05,
                "assay": {
                    "level": "signed",
                    "max_price": {"completion": "12"},
                    "order": ["0xa"],
                    "only": ["0xa", "0xb"],
                    "ignore": ["0xc"],
                    "allow_fallbacks": False,
                    "seeded": True,
                    "region": "eu-west",
                    "min_stake": "1000000000000000000",
                    "model_digest": "ab" * 32,
                    "nonce": b64(b"n" * 32),
                },
            },
        )
    request, ask = script.asked[0]
    assert (request.sampler.temperature, request.sampler.top_p) == (700_000, 900_000)
    assert (request.sampler.top_k, request.sampler.min_p) == (40, 50_000)
    assert (request.stop, request.max_tokens, request.level) == (("\n", "END"), 5, "signed")
    assert (request.nonce, request.created) == (b"n" * 32, NOW)
    assert json.loads(request.response_format) == schema
    assert ask.max_price is not None
    assert (ask.max_price.output, ask.order, ask.only, ask.ignore) == (12, ("0xa",), ("0xa", "0xb"), ("0xc",))
    assert (ask.level, ask.allow_fallbacks, ask.seeded) == ("signed", False, True)
    assert (ask.region, ask.min_stake, ask.model_digest) == ("eu-west", 10**18, b"\xab" * 32)


async def test_models() -> None:
    """Models are listed once each with their offers, and found by names with slashes."""
    async with client(Scripted()) as api:
        listed = [model async for model in await api.models.list()]
        one = await api.models.retrieve(MODEL)
        with pytest.raises(openai.NotFoundError) as missing:
            await api.models.retrieve("other")
    assert [model.id for model in listed] == [MODEL] == [one.id]
    offers = one.to_dict()["assay"]
    assert isinstance(offers, dict)
    assert [offer["level"] for offer in offers["offers"]] == ["signed", "statistical"]
    assert missing.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("script", "kind", "code"),
    [
        (Scripted(refuses=ContextOverflow(5000, 4096)), openai.BadRequestError, "context_length_exceeded"),
        (Scripted(places=0), openai.RateLimitError, "rate_limit_exceeded"),
        (Scripted(refuses=NoProvider("nobody", "start one")), openai.APIStatusError, "no_provider"),
        (Scripted(breaks_at=0, breaks_with=ProviderFailed("gone")), openai.APIStatusError, "provider_failed"),
        (Scripted(breaks_at=3), openai.APIStatusError, "provider_failed"),
        (Scripted(no_receipt=ProviderFailed("no receipt")), openai.APIStatusError, "provider_failed"),
        (Scripted(no_receipt=Busy("receipts cannot be kept")), openai.RateLimitError, "rate_limit_exceeded"),
    ],
)
async def test_errors(script: Scripted, kind: type[openai.APIStatusError], code: str | None) -> None:
    """What stops an answer before it is sent becomes an error with its own status and OpenAI's shape."""
    async with client(script) as api:
        with pytest.raises(kind) as caught:
            await api.chat.completions.create(model=MODEL, messages=HELLO)
    assert caught.value.code == code
    assert caught.value.message
    assert script.active == 0


async def test_busy_says_when_to_come_again() -> None:
    """A refusal for want of places has `Retry-After`, for streams as well."""
    async with raw(Scripted(places=0)) as http:
        for stream in (False, True):
            reply = await http.post("/v1/chat/completions", json={**CHAT, "stream": stream})
            assert (reply.status_code, reply.headers["retry-after"]) == (429, "3")


async def test_failure_in_mid_stream() -> None:
    """A provider that breaks off leaves the text so far, an error event with the partial receipt, and an end."""
    script = Scripted(breaks_at=3, breaks_with=ProviderFailed("the provider is gone", "ask another"))
    async with client(script) as api:
        stream = await api.chat.completions.create(model=MODEL, messages=HELLO, stream=True)
        text = ""
        with pytest.raises(openai.APIError, match="the provider is gone"):
            async for chunk in stream:
                text += chunk.choices[0].delta.content or ""
    assert text == "".join(WORDS[:3])
    async with raw(script) as http:
        events = (await http.post("/v1/chat/completions", json={**CHAT, "stream": True})).text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    failure = json.loads(events[-3].removeprefix("data: "))
    assert failure["error"]["code"] == "provider_failed"
    assert (failure["assay"]["receipts"][0]["output_count"], failure["assay"]["receipts"][0]["stop"]) == (3, "failed")


async def test_level_by_default() -> None:
    """A body that names no level gets the strongest one that fits its other wishes."""
    script = Scripted(levels=("signed", "statistical", "pinned"))
    async with raw(script) as http:
        await http.post("/v1/chat/completions", json=CHAT)
        script.levels = ("signed",)
        await http.post("/v1/chat/completions", json=CHAT)
        await http.post("/v1/chat/completions", json={**CHAT, "assay": {"level": "statistical"}})
    assert [request.level for request, _ in script.asked] == ["pinned", "signed", "statistical"]
    assert [ask.level for _, ask in script.asked] == ["pinned", "signed", "statistical"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b'"text"', None),
        (b"\xff\xfe", None),
        (b"[" * 100_000, None),
        (b'{"model":' * 300 + b"1" + b"}" * 300, None),
        (json.dumps({**CHAT, "n": 2}).encode("utf-16"), None),
        (json.dumps(CHAT).replace("Say", "\\ud800").encode(), None),
        (b'{"temperature": NaN}', None),
        (b'{"model":"a","model":"b"}', "model"),
        (b'{"model":"a","messages":[{"role":"user","content":"a","content":"b"}]}', "content"),
        (b'{"seed": ' + b"9" * 5000 + b"}", None),
        (json.dumps({**CHAT, "frequency_penalty": 0.5}).encode(), "frequency_penalty"),
        (json.dumps({**CHAT, "logit_bias": {"1": 1}}).encode(), "logit_bias"),
        (json.dumps({**CHAT, "functions": []}).encode(), "functions"),
        (json.dumps({**CHAT, "reasoning_effort": "low"}).encode(), "reasoning_effort"),
        (json.dumps({**CHAT, "unheard_of": 1}).encode(), "unheard_of"),
        (json.dumps({**CHAT, "temperature": 2.5}).encode(), "temperature"),
        (json.dumps({**CHAT, "temperature": "1"}).encode(), "temperature"),
        (json.dumps({**CHAT, "temperature": 1e400}).encode().replace(b"Infinity", b"1e400"), "temperature"),
        (json.dumps({**CHAT, "seed": 2**63}).encode(), "seed"),
        (json.dumps({**CHAT, "n": 9}).encode(), "n"),
        (json.dumps({**CHAT, "stream": 1}).encode(), "stream"),
        (json.dumps({**CHAT, "stop": ["x"] * 17}).encode(), "stop"),
        (json.dumps({**CHAT, "top_logprobs": 2}).encode(), "top_logprobs"),
        (json.dumps({**CHAT, "messages": []}).encode(), "messages"),
        (json.dumps({**CHAT, "messages": [{"role": "robot", "content": ""}]}).encode(), "messages[0]"),
        (json.dumps({**CHAT, "messages": [{"role": "user"}]}).encode(), "messages[0].content"),
        (json.dumps({**CHAT, "messages": [{"role": "assistant"}]}).encode(), "messages[0].content"),
        (
            json.dumps({**CHAT, "messages": [{"role": "user", "content": [{"type": "image_url"}]}]}).encode(),
            "messages[0].content[0].type",
        ),
        (json.dumps({**CHAT, "tool_choice": "required"}).encode(), "tool_choice"),
        (
            json.dumps({**CHAT, "tool_choice": {"type": "function", "function": {"name": "f"}}}).encode(),
            "tool_choice",
        ),
        (json.dumps({**CHAT, "response_format": {"type": "grammar"}}).encode(), "response_format"),
        (
            json.dumps(
                {
                    **CHAT,
                    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"a": 2**60}}},
                }
            ).encode(),
            "response_format.json_schema.schema",
        ),
        (json.dumps({**CHAT, "assay": {"level": "certain"}}).encode(), "assay.level"),
        (json.dumps({**CHAT, "assay": {"nonce": "A" * 42 + "B"}}).encode(), "assay.nonce"),
        (json.dumps({**CHAT, "seed": 1, "assay": {"nonce": "A" * 43}}).encode(), "assay.nonce"),
        (json.dumps({**CHAT, "assay": {"max_price": {"prompt": -1}}}).encode(), "assay.max_price.prompt"),
    ],
)
async def test_hostile_bodies(body: bytes, param: str | None) -> None:
    """Every malformed or unsupported body is a 400 that names the field, and starts nothing."""
    script = Scripted()
    async with raw(script) as http:
        reply = await http.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert 0 < len(error["message"]) < 600
    assert script.asked == []


async def test_body_with_defaults_spelled_out() -> None:
    """A client that sends the defaults of what is not supported is served."""
    nothing = {
        **dict.fromkeys(
            ("audio", "frequency_penalty", "functions", "logit_bias", "logprobs", "max_tokens", "prediction")
        ),
        **dict.fromkeys(
            ("prediction", "seed", "stop", "store", "stream", "stream_options", "tools", "top_p", "verbosity", "assay")
        ),
        "presence_penalty": 0.0,
        "modalities": ["text"],
        "service_tier": "auto",
        "parallel_tool_calls": False,
        "metadata": {"a": "b"},
        "tool_choice": "auto",
        "response_format": {"type": "text"},
        "n": 1,
    }
    async with raw(Scripted()) as http:
        reply = await http.post("/v1/chat/completions", json={**CHAT, **nothing})
    assert reply.status_code == 200


async def test_large_bodies() -> None:
    """A body over the limit is refused with 413, announced or not; one below it is read."""
    script = Scripted()
    big = json.dumps({**CHAT, "messages": [{"role": "user", "content": "x" * 10_000_000}]}).encode()

    async def dribble() -> AsyncIterator[bytes]:
        for start in range(0, len(big), 100_000):
            yield big[start : start + 100_000]

    async with running(scripted_app(script)) as url, httpx.AsyncClient(base_url=url, timeout=20) as http:
        headers = {"content-type": "application/json"}
        sent = [
            await http.post("/v1/chat/completions", content=big, headers=headers),
            await http.post("/v1/chat/completions", content=dribble(), headers=headers),
        ]
        fits = await http.post("/v1/chat/completions", content=big.replace(b"x" * 8_000_000, b""), headers=headers)
    assert [reply.status_code for reply in sent] == [413, 413]
    assert sent[0].json()["error"]["code"] == "body_too_large"
    assert fits.status_code == 200
    assert len(script.asked) == 1


async def test_other_content_types() -> None:
    """What a web page may post across origins without asking is refused."""
    script = Scripted()
    async with raw(script) as http:
        reply = await http.post(
            "/v1/chat/completions", content=json.dumps(CHAT), headers={"content-type": "text/plain"}
        )
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "content-type")
    assert script.asked == []


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example", "content-type": "application/json"},
    ],
)
async def test_pages_of_other_sites(headers: dict[str, str]) -> None:
    """A body of bytes has no type, and browsers send it across origins without asking: nobody's page may spend what
    is not its own."""
    script = Scripted()
    async with raw(script) as http:
        reply = await http.post("/v1/chat/completions", content=json.dumps(CHAT).encode(), headers=headers)
    assert reply.status_code == 403
    assert script.asked == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("GET", "/receipts/chatcmpl-short", 404),
        ("GET", "/receipts/" + "A" * 43, 404),
        ("GET", "/receipts/%ff%00", 404),
        ("GET", "/receipts/" + "0" * 64, 404),
        ("GET", "/v1/models/%F0%9F%8C%8D", 404),
    ],
)
async def test_unknown_paths(method: str, path: str, status: int) -> None:
    """Unknown paths, methods and names have OpenAI-shaped errors too."""
    async with raw(Scripted()) as http:
        reply = await http.request(method, path)
    assert reply.status_code == status
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}


async def test_health_and_document() -> None:
    """Health and the OpenAPI document are there."""
    async with raw(Scripted()) as http:
        health = await http.get("/health")
        document = await http.get("/openapi.json")
    assert health.json() == {"status": "ok"}
    assert set(document.json()["paths"]) >= {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/models",
        "/receipts/{name}",
    }


def test_requests_differ_by_choice_only() -> None:
    """The choices of one call share everything but their number, so one name finds them all."""
    from assay.network.openai.accept import accept_chat
    from assay.network.openai.bodies import ChatBody, read_body

    body = read_body(json.dumps({**CHAT, "n": 2}).encode(), ChatBody)
    accepted = accept_chat(body, nonce=bytes(32), now_s=NOW, default_level="pinned")
    first, second = accepted.requests
    assert second == first.for_choice(1)
    assert first.call == second.call == first.name != second.name
    assert Request.from_json(first.to_json()) == first


async def test_a_compressed_body_is_not_unpacked() -> None:
    """Neither a bomb nor a good request: what arrives is read as it is."""
    good = json.dumps({"model": MODEL, "messages": HELLO}).encode()
    async with raw(Scripted()) as http:
        for body in (good, bytes(50_000_000)):
            reply = await http.post(
                "/v1/chat/completions",
                content=gzip.compress(body),
                headers={"content-type": "application/json", "content-encoding": "gzip"},
            )
            assert reply.status_code == 400, reply.text
