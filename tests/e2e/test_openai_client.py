"""The official `openai` client against a gateway and against a node, with the real model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import openai as official
import pytest
from openai import OpenAI
from tests.e2e.conftest import EXACT, ROUNDABOUT, Network, surface_of
from tests.e2e.kit import MODEL, SAY, TOOLS_MODEL, Place, bundles, openai, with_template
from tests.engines.chat_templates import LLAMA3, QWEN

from assay.core.bundle import Bundle
from assay.core.encoding import b64
from assay.core.receipt import Receipt
from assay.core.verdict import Verdict
from assay.engines.llama_model import LlamaTokenizer
from assay.verify.binding import check_offline

pytestmark = [pytest.mark.e2e, pytest.mark.model]
Check = Callable[[Bundle], Verdict]

SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "green"]}, "count": {"type": "integer", "minimum": 1, "maximum": 99}},
    "required": ["colour", "count"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}


LEVELS: Mapping[str, tuple[str, ...]] = {
    "gateway": ("signed", "statistical", "pinned"),
    "node": ("signed", "statistical", "pinned"),
    "relay": ("signed", "statistical", "pinned"),
    "iroh": ("signed", "statistical", "pinned"),
    "exact": ("signed", "exact"),
}
"""What each surface offers, weakest first."""


@pytest.fixture(params=["gateway", "node", EXACT, *ROUNDABOUT])
def surface(request: pytest.FixtureRequest) -> str:
    """Against whom a test runs."""
    return surface_of(request)


@pytest.fixture
def client(network: Network, surface: str) -> OpenAI:
    """The official client by `base_url` alone."""
    return openai(network.surface(surface, MODEL).url)


@pytest.fixture
def tools_client(network: Network, surface: str) -> OpenAI:
    """The same for the model whose template takes tools."""
    return openai(network.surface(surface, TOOLS_MODEL).url)


def proof(reply: Any) -> Mapping[str, Any]:
    """The `assay` member of a reply."""
    return reply.model_extra["assay"]


def kept(client: OpenAI, reply: Any) -> list[Bundle]:
    """The receipt files of a reply, which are those that it carries."""
    found = bundles(str(client.base_url).removesuffix("/v1/"), reply.id)
    assert [bundle.receipt for bundle in found] == [Receipt.from_json(item) for item in proof(reply)["receipts"]]
    for bundle in found:
        check_offline(bundle)
    return found


def text_of(tokens: tuple[int, ...], tokenizer: LlamaTokenizer) -> str:
    """What output tokens say."""
    return b"".join(map(tokenizer.piece, tokens)).decode("utf-8", "replace")


def test_chat(client: OpenAI, network: Network, tokenizer: LlamaTokenizer, surface: str) -> None:
    """A chat is answered with text, usage and a receipt, which `assay verify` recomputes in another process."""
    reply = client.chat.completions.create(model=MODEL, messages=SAY, max_tokens=12, temperature=0.7, top_p=0.9)
    (choice,) = reply.choices
    (bundle,) = kept(client, reply)
    assert choice.message.role == "assistant"
    assert choice.message.content == text_of(bundle.tokens, tokenizer)
    assert choice.finish_reason == "length"
    assert choice.logprobs is None
    assert reply.usage.completion_tokens == len(bundle.tokens) == 12
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + 12
    assert reply.usage.prompt_tokens == bundle.receipt.prompt_count
    assert proof(reply)["level"] == LEVELS[surface][-1]
    assert bundle.request.sampler.temperature == 700_000
    assert bundle.request.sampler.top_p == 900_000
    verdict = network.place.verify(bundle.encode(), network.model)
    assert verdict["holds"]
    assert verdict["level"] == LEVELS[surface][-1]
    assert verdict["tokens_checked"] == 12


def test_chat_stream(client: OpenAI, check: Check, tokenizer: LlamaTokenizer) -> None:
    """A stream says the same in pieces; with `include_usage` its last chunk has no choices, the usage and the
    receipt."""
    stream = client.chat.completions.create(
        model=MODEL, messages=SAY, max_completion_tokens=12, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert len({chunk.id for chunk in chunks}) == 1
    last = chunks[-1]
    assert last.choices == []
    assert last.usage.completion_tokens == 12
    assert [c.choices[0].finish_reason for c in chunks[:-1] if c.choices[0].finish_reason] == ["length"]
    (bundle,) = kept(client, last)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert text == text_of(bundle.tokens, tokenizer)
    assert check(bundle).holds


def test_stream_without_usage(client: OpenAI) -> None:
    """Without `include_usage` every chunk has a choice, the last of them the receipt too."""
    chunks = list(client.chat.completions.create(model=MODEL, messages=SAY, max_tokens=2, stream=True))
    assert all(len(chunk.choices) == 1 and chunk.usage is None for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "length"
    assert len(kept(client, chunks[-1])) == 1


def test_completion(client: OpenAI, tokenizer: LlamaTokenizer) -> None:
    """A completion goes on from the prompt's very text, streamed or not."""
    ask = {"model": MODEL, "prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}
    reply = client.completions.create(**ask)
    assert "Paris" in reply.choices[0].text
    (bundle,) = kept(client, reply)
    assert reply.choices[0].text == text_of(bundle.tokens, tokenizer)
    chunks = list(client.completions.create(**ask, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == reply.choices[0].text
    assert len(kept(client, chunks[-1])) == 1


def test_stop(client: OpenAI) -> None:
    """The answer ends before the stop text, also where that lies across tokens, and says so."""
    ask = {"model": MODEL, "prompt": "1, 2, 3, 4, 5,", "max_tokens": 24, "temperature": 0}
    whole = client.completions.create(**ask).choices[0].text
    stop = whole[5:12]
    for streamed in (False, True):
        reply = client.completions.create(**ask, stop=["never to be seen", stop], stream=streamed)
        last = (parts := list(reply))[-1] if streamed else reply
        text = "".join(part.choices[0].text for part in parts) if streamed else reply.choices[0].text
        assert text == whole[: whole.index(stop)]
        assert last.choices[0].finish_reason == "stop"
        (bundle,) = kept(client, last)
        assert bundle.receipt.stop == "stop"


def test_an_answer_ends_by_itself(client: OpenAI) -> None:
    """The end-of-generation token is no text, counts as a token, and is the reason `stop`."""
    ask = [{"role": "user", "content": "Say only the word yes."}]
    reply = client.chat.completions.create(model=MODEL, messages=ask, temperature=0, max_tokens=60)
    assert reply.choices[0].finish_reason == "stop"
    assert "<|im_end|>" not in reply.choices[0].message.content
    assert reply.usage.completion_tokens == len(kept(client, reply)[0].tokens) < 60


def test_seed(client: OpenAI) -> None:
    """One seed gives one answer, in one piece or streamed; without a seed every answer is another."""

    def answer(**more: Any) -> str:
        reply = client.chat.completions.create(model=MODEL, messages=SAY, max_tokens=10, temperature=1.2, **more)
        return reply.choices[0].message.content

    first, again, other, unseeded, fresh = (answer(seed=7), answer(seed=7), answer(seed=8), answer(), answer())
    assert first == again
    assert len({first, other, unseeded, fresh}) == 4
    stream = client.chat.completions.create(
        model=MODEL, messages=SAY, max_tokens=10, temperature=1.2, seed=7, stream=True
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == first


def test_temperature_and_top_p(client: OpenAI) -> None:
    """Temperature 0 and the smallest top-p both take the likeliest token, whatever the seed."""
    answers = {
        client.chat.completions.create(model=MODEL, messages=SAY, max_tokens=8, **how).choices[0].message.content
        for how in ({"temperature": 0}, {"temperature": 0, "seed": 3}, {"temperature": 1.5, "top_p": 0.000001})
    }
    assert len(answers) == 1


def test_logprobs_of_a_chat(client: OpenAI, check: Check, tokenizer: LlamaTokenizer) -> None:
    """Each token comes with its own text, bytes and log-probability, and the likeliest alternatives, best first."""
    for streamed in (False, True):
        reply = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Écris « été » et 日本 🦊"}],
            max_tokens=12,
            temperature=0.8,
            seed=1,
            logprobs=True,
            top_logprobs=3,
            stream=streamed,
        )
        parts = list(reply) if streamed else [reply]
        (bundle,) = kept(client, parts[-1])
        entries = [
            entry for part in parts for choice in part.choices if choice.logprobs for entry in choice.logprobs.content
        ]
        assert len(entries) == len(bundle.tokens)
        assert check(bundle).holds
        for token, entry in zip(bundle.tokens, entries, strict=True):
            assert bytes(entry.bytes) == tokenizer.piece(token)
            assert entry.token == tokenizer.piece(token).decode("utf-8", "replace")
            assert entry.logprob <= 0
            assert len(entry.top_logprobs) == 3
            values = [each.logprob for each in entry.top_logprobs]
            assert values == sorted(values, reverse=True)
            assert all(bytes(each.bytes).decode("utf-8", "replace") == each.token for each in entry.top_logprobs)
            assert entry.logprob <= values[0] + 1e-5
            if entry.logprob >= values[-1]:
                assert entry.token in [each.token for each in entry.top_logprobs]


def test_logprobs_of_a_completion(client: OpenAI) -> None:
    """Completions name tokens by their text and say where each begins."""
    reply = client.completions.create(model=MODEL, prompt="One, two,", max_tokens=8, temperature=0, logprobs=2)
    found = reply.choices[0].logprobs
    assert "".join(found.tokens) == reply.choices[0].text
    assert len(found.tokens) == len(found.token_logprobs) == len(found.top_logprobs) == 8
    assert found.text_offset == [sum(map(len, found.tokens[:place])) for place in range(8)]
    for token, logprob, tops in zip(found.tokens, found.token_logprobs, found.top_logprobs, strict=True):
        assert len(tops) == 2
        assert tops[token] == logprob == max(tops.values())


@pytest.mark.parametrize("streamed", [False, True])
def test_n(client: OpenAI, check: Check, streamed: bool) -> None:
    """Several answers to one question differ, are told apart by their index, and have a receipt each."""
    reply = client.chat.completions.create(
        model=MODEL, messages=SAY, max_tokens=8, temperature=1.2, n=3, stream=streamed
    )
    texts = ["", "", ""]
    if streamed:
        last = None
        for last in reply:
            for choice in last.choices:
                texts[choice.index] += choice.delta.content or ""
    else:
        last = reply
        texts = [choice.message.content for choice in reply.choices]
        assert reply.usage.completion_tokens == 24
    found = kept(client, last)
    assert len(set(texts)) == len({bundle.receipt.sequence for bundle in found}) == 3
    assert [bundle.request.choice for bundle in found] == [0, 1, 2]
    assert check(found[2]).holds


def test_json_object(client: OpenAI) -> None:
    """With `json_object` the answer is a JSON object."""
    reply = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Describe Ann, aged 30, as JSON with name and age."}],
        max_tokens=120,
        temperature=0,
        response_format={"type": "json_object"},
    )
    assert reply.choices[0].finish_reason == "stop", reply.choices[0].message.content
    assert isinstance(json.loads(reply.choices[0].message.content), dict)
    kept(client, reply)


def test_json_schema(client: OpenAI, check: Check) -> None:
    """With a JSON schema the answer follows it, however hot the sampler, and the receipt still holds."""
    reply = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "How many apples, and which colour?"}],
        max_tokens=200,  # as hot as this it also draws many spaces
        temperature=1.5,
        response_format={"type": "json_schema", "json_schema": {"name": "apples", "schema": SCHEMA, "strict": True}},
    )
    jsonschema.validate(json.loads(reply.choices[0].message.content), SCHEMA)
    (bundle,) = kept(client, reply)
    assert check(bundle).holds


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_forced_tool_call(tools_client: OpenAI, check: Check, streamed: bool, choice: Any) -> None:
    """A tool that must be called is called, with arguments that fit its schema."""
    reply = tools_client.chat.completions.create(
        model=TOOLS_MODEL,
        messages=[{"role": "user", "content": "Is it raining in Rome?"}],
        tools=[WEATHER] if choice == "required" else [WEATHER, CLOCK],
        tool_choice=choice,
        max_tokens=200,  # drawn at random: JSON may begin with many blanks
        temperature=1.0,
        stream=streamed,
    )
    if streamed:
        chunks = list(reply)
        calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
        assert not any(chunk.choices[0].delta.content for chunk in chunks)
        assert calls[0].index == 0
        last = chunks[-1]
    else:
        calls, last = reply.choices[0].message.tool_calls, reply
        assert reply.choices[0].message.content is None
    assert last.choices[0].finish_reason == "tool_calls"
    (call,) = calls
    assert call.id
    assert call.type == "function"
    assert call.function.name == "weather"
    jsonschema.validate(json.loads(call.function.arguments), WEATHER["function"]["parameters"])
    (bundle,) = kept(tools_client, last)
    assert not streamed or check(bundle).holds


def test_a_tool_round(tools_client: OpenAI, network: Network) -> None:
    """The result of a call goes back with the call's id, and the next answer has a receipt that holds."""
    ask: list[Any] = [{"role": "user", "content": "Is it raining in Rome?"}]
    how: dict[str, Any] = {"model": TOOLS_MODEL, "tools": [WEATHER], "temperature": 0}
    called = tools_client.chat.completions.create(messages=ask, tool_choice="required", max_tokens=80, **how)
    message = called.choices[0].message
    ask += [message.to_dict(), {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "It rains."}]
    reply = tools_client.chat.completions.create(messages=ask, max_tokens=8, **how)
    (bundle,) = kept(tools_client, reply)
    assert bundle.request.messages[-1].tool_call_id == message.tool_calls[0].id
    assert network.place.verify(bundle.encode(), network.tools_model)["holds"]


@pytest.mark.slow
@pytest.mark.parametrize("style", ["hermes", "llama3"])
def test_tool_calls_of_every_style(tmp_path: Path, model_path: Path, style: str) -> None:
    """Provider and gateway both read the calls of models that write them in another way."""
    path = with_template(model_path, tmp_path / "styled.gguf", LLAMA3 if style == "llama3" else QWEN)
    place = Place(tmp_path)
    serve = ("serve", "--port", "0", "--json", "--threads", "1", "--context", "512", "--model", str(path))
    with (
        place.running("provider", *serve) as provider,
        place.running("gateway", "gateway", "--port", "0", "--json", "--provider", provider.url) as gateway,
    ):
        for program in (provider, gateway):
            reply = openai(program.url).chat.completions.create(
                model="styled",
                messages=[{"role": "user", "content": "Is it raining in Rome?"}],
                tools=[WEATHER],
                tool_choice="required",
                max_tokens=60,
                stream=False,
            )
            (call,) = reply.choices[0].message.tool_calls
            assert call.function.name == "weather"
            assert json.loads(call.function.arguments)["city"] in ("Paris", "Rome")
            assert reply.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("streamed", [False, True])
def test_tools_of_the_models_own_choice(tools_client: OpenAI, streamed: bool) -> None:
    """With `auto` text stays text, word for word, and with `none` the tools are not even shown."""
    ask: dict[str, Any] = {"model": TOOLS_MODEL, "messages": SAY, "tools": [WEATHER], "max_tokens": 12}
    for choice in ("auto", "none"):
        reply = tools_client.chat.completions.create(**ask, tool_choice=choice, temperature=0, stream=streamed)
        if streamed:
            chunks = list(reply)
            text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            assert not any(chunk.choices[0].delta.tool_calls for chunk in chunks)
        else:
            text = reply.choices[0].message.content
            assert not reply.choices[0].message.tool_calls
        assert text


def test_tools_that_the_template_does_not_take(client: OpenAI) -> None:
    """A model whose template has no place for tools refuses them by name."""
    with pytest.raises(official.BadRequestError) as error:
        client.chat.completions.create(model=MODEL, messages=SAY, tools=[WEATHER], max_tokens=8)
    assert error.value.param == "tools"
    assert "template does not take tools" in error.value.message


def test_models(client: OpenAI, network: Network, surface: str) -> None:
    """`/v1/models` lists what can be asked for, and each one by name."""
    listed = sorted(model.id for model in client.models.list())
    assert listed == ([MODEL, TOOLS_MODEL] if surface not in ("node", "exact") else [MODEL])
    offers = client.models.retrieve(MODEL).model_extra["assay"]["offers"]
    assert {offer["level"] for offer in offers} == set(LEVELS[surface])
    with pytest.raises(official.NotFoundError) as error:
        client.models.retrieve("no-such-model")
    assert error.value.code == "model_not_found"


@pytest.mark.parametrize("level", ["signed", "statistical", "pinned", "exact"])
def test_levels(client: OpenAI, check: Check, level: str, surface: str) -> None:
    """The buyer's wishes go in `assay`; the receipt is at the level asked for, or the refusal names it."""
    more = {"assay": {"level": level, "max_price": {"prompt": 0}}}
    if level not in LEVELS[surface]:
        with pytest.raises(official.APIStatusError, match=f"at level '{level}'"):
            client.chat.completions.create(model=MODEL, messages=SAY, max_tokens=4, extra_body=more)
        return
    reply = client.chat.completions.create(model=MODEL, messages=SAY, max_tokens=4, extra_body=more)
    assert proof(reply)["level"] == level
    (bundle,) = kept(client, reply)
    assert bundle.receipt.level == level
    assert check(bundle).holds


def test_wishes_that_nobody_fulfils(client: OpenAI, surface: str) -> None:
    """A wish that leaves nobody is named."""
    ask = {"model": MODEL, "messages": SAY, "max_tokens": 4}
    with pytest.raises(official.APIStatusError) as error:
        client.chat.completions.create(**ask, extra_body={"assay": {"only": ["0x" + "0" * 40]}})
    assert error.value.status_code == 424
    assert "`only`" in error.value.message
    with pytest.raises(official.NotFoundError) as missing:
        client.chat.completions.create(**ask | {"model": "gpt-5"})
    assert missing.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("frequency_penalty", 0.5),
        ("presence_penalty", 1),
        ("logit_bias", {"50": 1}),
        ("audio", {"format": "wav", "voice": "alloy"}),
        ("modalities", ["text", "audio"]),
        ("prediction", {"type": "content", "content": "x"}),
        ("reasoning_effort", "high"),
        ("store", True),
        ("functions", [{"name": "f"}]),
        ("web_search_options", {}),
        ("verbosity", "low"),
        ("temperature", 3),
        ("top_p", -0.1),
        ("n", 0),
        ("max_tokens", 0),
        ("stop", ["x"] * 17),
        ("top_logprobs", 21),
        ("nonsense", 1),
    ],
)
def test_fields_that_are_not_supported(client: OpenAI, field: str, value: Any) -> None:
    """What cannot be honoured is refused in OpenAI's shape, with the field's name."""
    with pytest.raises(official.BadRequestError) as error:
        client.chat.completions.create(model=MODEL, messages=SAY, extra_body={field: value})
    assert error.value.param.startswith(field)
    assert error.value.type == "invalid_request_error"
    assert field in error.value.message


@pytest.mark.parametrize(("field", "value"), [("best_of", 2), ("echo", True), ("suffix", "x"), ("logprobs", 21)])
def test_fields_of_completions_that_are_not_supported(client: OpenAI, field: str, value: Any) -> None:
    """The same for completions."""
    with pytest.raises(official.BadRequestError) as error:
        client.completions.create(model=MODEL, prompt="x", extra_body={field: value})
    assert error.value.param == field


def _chat_words(client: OpenAI, words: str) -> None:
    client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": words}], max_tokens=4)


def _completion_words(client: OpenAI, words: str) -> None:
    client.completions.create(model=MODEL, prompt=words, max_tokens=4)


@pytest.mark.parametrize("ask", [_chat_words, _completion_words])
def test_context_overflow(client: OpenAI, ask: Callable[[OpenAI, str], None]) -> None:
    """A prompt longer than the context is refused as OpenAI refuses it, with both numbers."""
    with pytest.raises(official.BadRequestError) as error:
        ask(client, "word " * 600)
    assert error.value.code == "context_length_exceeded"
    assert "320" in error.value.message


def test_an_answer_up_to_the_context_s_end(client: OpenAI) -> None:
    """Without a limit the answer may go on to the context's end, and then ends as `length`."""
    reply = client.completions.create(model=MODEL, prompt="word " * 300, max_tokens=100, temperature=0)
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage.total_tokens == 320
    kept(client, reply)


def test_receipts_by_name(client: OpenAI, network: Network, surface: str) -> None:
    """A receipt is found by the completion's id and by nothing that it shows; unknown names are 404."""
    reply = client.chat.completions.create(model=MODEL, messages=SAY, max_tokens=2)
    (bundle,) = kept(client, reply)
    url = network.surface(surface, MODEL).url
    assert bundles(url, reply.id) == [bundle]
    with network.surface(surface, MODEL).http as http:
        for digest in (bundle.receipt.digest, bundle.receipt.request):
            for name in (b64(digest), digest.hex(), f"chatcmpl-{b64(digest)}"):
                assert http.get(f"/receipts/{name}").status_code == 404
        assert http.get("/receipts/chatcmpl-nothing").status_code == 404
        assert http.get("/receipts/" + "0" * 64).status_code == 404
