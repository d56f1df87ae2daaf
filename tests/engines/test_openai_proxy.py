"""The engine over foreign servers: what it finds out about them, what it makes of their tokens, and hostile ones."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engines.foreign import Dialect, canned_app, foreign_app, llama_server
from tests.running import free_port, running
from tests.tiny import EOG, MODEL, N_VOCAB, TinyEngine, TinyModel, TinyReader, TinyTokenizer, tiny_key, tiny_request

from assay.apps.admission import offers_of
from assay.apps.cheats.variants import drop_layers
from assay.apps.checking import open_checker
from assay.core.bundle import Bundle
from assay.core.completion import Completion, Step
from assay.core.errors import AssayError, Busy, ContextOverflow, EngineError, InvalidRequest, ProviderFailed
from assay.core.evidence import read_top_leaf
from assay.core.receipt import attest
from assay.core.request import Request, SamplerSettings
from assay.engines.llama_model import LlamaModel
from assay.engines.llama_reader import LlamaReader
from assay.engines.models import ModelFile
from assay.engines.openai_proxy import ProxyEngine, connect
from assay.engines.proxy_events import Names, read_event, unfinished
from assay.engines.proxy_traits import Traits
from assay.engines.proxy_upstream import Patience, Upstream
from assay.verify.binding import check_offline, check_with_model

pytestmark = pytest.mark.anyio

CANNED = Traits(
    kind="fake", build="1", model="tiny", prompt="ids", adds_first=False, extended=True, ids="given", asked=20, top=20,
    raw=True, filters=frozenset(), keeps_limit=True, context=None, places=None,
)  # fmt: skip
IMPATIENT = Patience(connect=2.0, reply=2.0, first=2.0, token=0.5)


@asynccontextmanager
async def proxied(dialect: Dialect, **options: Any) -> AsyncIterator[ProxyEngine]:
    """An engine over a foreign server of that kind."""
    async with running(foreign_app(dialect)) as url:
        yield await connect(url, TinyReader(), name=MODEL, digest=TinyModel().digest, end=EOG, **options)


def canned_engine(url: str, patience: Patience | None = None) -> ProxyEngine:
    """An engine over a server that was taken for one like vLLM."""
    upstream, reader = Upstream(url, patience=patience), TinyReader()
    options: dict[str, Any] = {"name": MODEL, "digest": bytes(32), "end": EOG, "parallel": 4, "context": 512}
    return ProxyEngine(upstream, CANNED, reader, Names(reader.tokenizer), **options)


def completion_request(prompt: str = "hello", **changes: Any) -> Request:
    """A request that both kinds of servers can take: its prompt has no control tokens but the first."""
    return replace(
        tiny_request(max_tokens=40), kind="completion", messages=(), prompt=prompt, level="signed", **changes
    )


async def answer(engine: ProxyEngine, request: Request, top_logprobs: int | None = None) -> list[Step]:
    """All steps."""
    prompt = engine.reader.render(request)
    return [step async for step in engine.generate(request, prompt, top_logprobs=top_logprobs)]


def bundle_of(engine: ProxyEngine, request: Request, steps: list[Step]) -> Bundle:
    """The receipt of an answer, and what travels with it."""
    leaves = tuple(step.leaf for step in steps) if request.level != "signed" else ()
    completion = Completion(
        prompt=engine.reader.render(request),
        tokens=tuple(step.token for step in steps),
        text="".join(step.text for step in steps),
        stop=steps[-1].stop or "failed",
        leaves=leaves,
    )
    receipt = attest(
        request, completion, model=engine.model_digest, profile=engine.profile, key=tiny_key(), sequence=1,
        issued=1_790_000_001, amount=0,
    )  # fmt: skip
    return Bundle(receipt, request, engine.profile, completion.tokens, b"".join(leaves))


async def test_full_server() -> None:
    """From a server like vLLM come ids, raw log-probabilities and every filter: the receipt binds at `statistical`."""
    async with proxied(Dialect()) as engine:
        assert engine.levels == ("signed", "statistical")
        assert engine.traits.filters == {"top_k", "top_p", "min_p"}
        assert (engine.profile.engine, engine.profile.build, engine.profile.context) == ("openai:fake", "1.2.3", 504)
        request = tiny_request(level="statistical", max_tokens=40)
        steps = await answer(engine, request)
        bundle = bundle_of(engine, request, steps)
        check_offline(bundle)
        prompt = check_with_model(bundle, TinyReader(), TinyModel().digest)
        model = TinyModel()
        for step in steps:
            row = model.logits([*prompt.tokens, *bundle.tokens[: step.index]])
            assert read_top_leaf(step.leaf).ids[0] == row.argmax()
    assert steps[-1].stop == "length"
    assert len(steps) == 40


@pytest.mark.parametrize(
    ("dialect", "reason"),
    [
        (Dialect(logprobs=""), "no log-probabilities"),
        (Dialect(most=5), "5 alternatives"),
        (Dialect(processed=True), "after temperature"),
        (Dialect(ids=False, logprobs=""), "exact token ids"),
        (Dialect(ids=False, logprobs="content"), "do not name"),
    ],
)
async def test_only_signed(dialect: Dialect, reason: str) -> None:
    """What a server does not give is found out, and leaves the level `signed`, whose receipts still bind."""
    async with proxied(dialect) as engine:
        assert engine.levels == ("signed",)
        assert any(reason in lack for lack in engine.traits.lacks)
        request = completion_request()
        steps = await answer(engine, request)
        bundle = bundle_of(engine, request, steps)
        check_offline(bundle)
        check_with_model(bundle, TinyReader(), TinyModel().digest)
        assert not any(step.leaf for step in steps)


async def test_strict_server() -> None:
    """A server that refuses what OpenAI does not have is asked without it, and its missing filters are refused."""
    dialect = Dialect(strict=True)
    async with proxied(dialect) as engine:
        assert engine.levels == ("signed", "statistical")
        assert engine.traits.filters == {"top_p"}
        with pytest.raises(InvalidRequest) as caught:
            engine.reader.render(completion_request(sampler=SamplerSettings(top_k=5)))
        assert caught.value.field == "top_k"
        assert len(await answer(engine, completion_request(sampler=SamplerSettings(top_p=500_000)))) == 40


async def test_ignored_filters() -> None:
    """A server that takes a setting without following it is found out."""
    async with proxied(Dialect(ignores=("min_p", "top_p"))) as engine:
        assert engine.traits.filters == {"top_k"}


@pytest.mark.parametrize(
    ("dialect", "reason"),
    [
        (Dialect(ignores=("temperature",)), "temperature"),
        (Dialect(shift=1), "not those of the model file"),
        (Dialect(ids=False, template="<system>be kind"), "changes the prompt"),
    ],
)
async def test_unusable(dialect: Dialect, reason: str) -> None:
    """A server that ignores the temperature, has another vocabulary or changes prompts is not put to use."""
    with pytest.raises(EngineError, match=reason):
        async with proxied(dialect):
            pass


async def test_names_of_models() -> None:
    """The server's model is chosen by name, and the error lists those that it has."""
    async with proxied(Dialect(), served="tiny") as engine:
        assert engine.traits.model == "tiny"
    with pytest.raises(EngineError, match="--upstream-model: tiny"):
        async with proxied(Dialect(), served="large"):
            pass


async def test_key() -> None:
    """The key reaches the server, and a wrong one is an error that says so."""
    async with proxied(Dialect(key="secret"), api_key="secret") as engine:
        assert len(await answer(engine, completion_request())) == 40
    with pytest.raises(ProviderFailed, match="give the right key"):
        async with proxied(Dialect(key="secret")):
            pass


async def test_words_are_not_control_tokens() -> None:
    """To a server that takes only text, a prompt that would be read as other tokens is not sent."""
    async with proxied(Dialect(ids=False)) as engine:
        with pytest.raises(InvalidRequest, match="text only"):
            engine.reader.render(tiny_request(level="signed"))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"response_format": "json_object"}, "response_format"),
        ({"tool_choice": "required", "tools": "[]"}, "tool_choice"),
        ({"tool_choice": "function:f", "tools": "[]"}, "tool_choice"),
    ],
)
async def test_grammars(changes: dict[str, str], field: str) -> None:
    """Forms that the server's own grammars might read otherwise are refused, by the name of the member."""
    async with proxied(Dialect()) as engine:
        assert engine.reader.constraint(completion_request()) is None
        with pytest.raises(InvalidRequest) as caught:
            engine.reader.constraint(completion_request(**changes))
        assert caught.value.field == field


async def test_answers_of_others() -> None:
    """A foreign server does not go on with them: refused before any work, and the offer says so."""
    async with proxied(Dialect()) as engine:
        with pytest.raises(InvalidRequest) as caught:
            engine.reader.render(completion_request(continues=(97,)))
        assert caught.value.field == "continues"
        assert [offer.continues for offer in offers_of(engine, tiny_key().address, "", {})] == [False, False]
    assert all(offer.continues for offer in offers_of(TinyEngine(), tiny_key().address, "", {}))


async def test_log_probabilities() -> None:
    """Log-probabilities are shown with the tokens' bytes, as many as asked for, and no more than the server has."""
    async with proxied(Dialect()) as engine:
        steps = await answer(engine, completion_request(), top_logprobs=3)
        tops = [step.top for step in steps if step.top]
        assert len(tops) == 40
        assert all(len(top.ids) == 3 and list(top.logprobs) == sorted(top.logprobs)[::-1] for top in tops)
        assert [top.chosen_bytes for top in tops] == [bytes([step.token]) for step in steps]
        assert (await answer(engine, completion_request(), top_logprobs=0))[0].top is not None
        with pytest.raises(InvalidRequest):
            await answer(engine, completion_request(), top_logprobs=21)
    async with proxied(Dialect(logprobs="")) as engine:
        with pytest.raises(InvalidRequest) as caught:
            await answer(engine, completion_request(), top_logprobs=1)
        assert caught.value.field == "logprobs"


@pytest.mark.parametrize("tells_end", [True, False])
@pytest.mark.parametrize("level", ["signed", "statistical"])
async def test_end(tells_end: bool, level: Any) -> None:
    """The token that ends an answer is part of it, with evidence, also where the server does not send it."""
    async with proxied(Dialect(ends_at=5, tells_end=tells_end)) as engine:
        request = replace(completion_request(max_tokens=400), level=level)
        steps = await answer(engine, request)
        assert steps[-1].stop == "stop"
        assert steps[-1].token == EOG
        bundle = bundle_of(engine, request, steps)
        check_offline(bundle)
        check_with_model(bundle, TinyReader(), TinyModel().digest)


async def test_stop_strings() -> None:
    """A stop string ends the answer with the token that completes it, and the server, which knows nothing of it, is
    hung up on."""
    dialect = Dialect(delay=0.01)
    async with proxied(dialect) as engine:
        before = dialect.closed
        request = completion_request(stop=("a", "e", "i", "o", "u"), max_tokens=400)
        steps = await answer(engine, request)
        assert steps[-1].stop == "stop"
        assert steps[-1].token in b"aeiou"
        assert not set("".join(step.text for step in steps)) & set("aeiou")
        check_with_model(bundle_of(engine, request, steps), TinyReader(), TinyModel().digest)
        assert "stop" not in dialect.bodies[-1]
        await closed(dialect, before)


async def test_cancellation() -> None:
    """Closing the steps closes the connection, and the server stops."""
    dialect = Dialect(delay=0.02)
    async with proxied(dialect) as engine:
        request = completion_request(max_tokens=400)
        before = dialect.closed
        async with aclosing(engine.generate(request, engine.reader.render(request))) as steps:
            await anext(steps)
            assert engine.active == 1
        assert engine.active == 0
        await closed(dialect, before)


async def closed(dialect: Dialect, before: int) -> None:
    """Wait up to a second until one answer more was hung up on."""
    for _ in range(100):
        if dialect.closed > before:
            return
        await asyncio.sleep(0.01)
    pytest.fail("the server goes on")


async def test_endless_server() -> None:
    """A server that does not keep to the limit is cut off there."""
    async with running(canned_app([chunk()] * 1000)) as url:
        engine = canned_engine(url)
        steps = await answer(engine, completion_request())
        assert (len(steps), steps[-1].stop) == (40, "length")


async def test_places_and_room() -> None:
    """One answer more than there are places is refused, and a prompt that fills the context."""
    async with proxied(Dialect(delay=0.02), parallel=1) as engine:
        request = completion_request()
        async with aclosing(engine.generate(request, engine.reader.render(request))) as steps:
            await anext(steps)
            with pytest.raises(Busy):
                await answer(engine, request)
        with pytest.raises(ContextOverflow):
            await answer(engine, completion_request("x" * 600))


async def test_same_nonce() -> None:
    """The sampler's seed follows the nonce, so that a server which keeps to seeds answers the same again."""
    async with proxied(Dialect()) as engine:
        one, again, other = [
            [step.token for step in await answer(engine, replace(completion_request(), nonce=bytes([byte]) * 32))]
            for byte in (1, 1, 2)
        ]
        assert one == again != other


def chunk(token: int = 97, **choice: Any) -> bytes:
    """One well-formed event of a server like vLLM, changed."""
    value = {"text": chr(token), "token_ids": [token], "finish_reason": None} | choice
    return f"data: {json.dumps({'choices': [value]})}\n\n".encode()


MEMBERS = [
    "text", "token_ids", "logprobs", "content", "tokens", "token_logprobs", "top_logprobs", "id", "token", "bytes",
    "logprob", "finish_reason", "prompt_tokens", "completion_tokens",
]  # fmt: skip
"""Names that events have."""
HOSTILE = {
    "html": [b"<html><body>404</body></html>\n\n"],
    "not json": [b"data: {broken\n\n"],
    "not a number": [b'data: {"choices": [{"text": "a", "logprobs": {"tokens": ["a"], "token_logprobs": [NaN]}}]}\n\n'],
    "list": [b"data: [1, 2]\n\n"],
    "deep": [b"data: " + b"[" * 100_000 + b"\n\n"],
    "endless line": [b"data: " + b"x" * 2**20] * 20,
    "no choices": [b'data: {"choices": 7}\n\n'],
    "two choices": [b'data: {"choices": [{"text": "a"}, {"text": "b"}]}\n\n'],
    "text is no text": [chunk(text=["a"])],
    "text without tokens": [chunk(token_ids=[])],
    "id is no number": [chunk(token_ids=["97"])],
    "unknown token": [chunk(token_ids=[N_VOCAB])],
    "giant token": [chunk(token_ids=[10**30])],
    "columns of two lengths": [chunk(logprobs={"tokens": ["token_id:97"], "token_logprobs": []})],
    "positive logprob": [chunk(logprobs={"tokens": ["token_id:97"], "token_logprobs": [3.0]})],
    "wrong bytes": [
        chunk(token_ids=None, logprobs={"content": [{"id": 97, "token": "b", "bytes": [98], "logprob": -1}]})
    ],
    "bytes over 255": [
        chunk(token_ids=None, logprobs={"content": [{"id": 97, "token": "b", "bytes": [300], "logprob": -1}]})
    ],
    "nothing": [],
    "cut off": [chunk(), chunk()[:20]],
    "ends without a reason": [chunk(), b"data: [DONE]\n\n"],
    "ends too early": [chunk(), chunk(finish_reason="length")],
    "odd end": [chunk(), chunk(finish_reason="content_filter")],
    "error event": [chunk(), b'data: {"error": {"message": "out of memory"}}\n\n'],
    "events without tokens": [b'data: {"choices": []}\n\n'] * 1000,
    "other prompt": [b'data: {"choices": [], "usage": {"prompt_tokens": 99}}\n\n'],
    "withheld": [
        chunk(),
        b'data: {"choices": [{"text": "", "finish_reason": "stop"}], "usage": {"completion_tokens": 9}}\n\n',
    ],
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile(name: str) -> None:
    """Whatever a server sends instead of an answer is a ProviderFailed with a remedy, in bounded time and memory."""
    async with running(canned_app(HOSTILE[name])) as url:
        engine = canned_engine(url, replace(IMPATIENT, token=5.0))
        with pytest.raises(ProviderFailed) as caught:
            await answer(engine, completion_request())
        assert caught.value.remedy


async def test_silence() -> None:
    """A server that goes silent is given up, also if it keeps sending comments."""
    comments = [b": ping\n\n"] * 3
    async with running(canned_app([chunk(), *comments], pause=60.0)) as url:
        engine = canned_engine(url, IMPATIENT)
        started = time.monotonic()
        with pytest.raises(ProviderFailed, match="silent"):
            await answer(engine, completion_request())
        assert time.monotonic() - started < 10


async def test_statistical_without_evidence() -> None:
    """A token without log-probabilities is not passed on at level `statistical`."""
    async with running(canned_app([chunk()])) as url:
        engine = canned_engine(url)
        with pytest.raises(ProviderFailed, match="left out"):
            await answer(engine, replace(completion_request(), level="statistical"))


@pytest.mark.parametrize(("status", "kind"), [(429, Busy), (503, Busy), (500, ProviderFailed), (302, ProviderFailed)])
async def test_http_errors(status: int, kind: type[AssayError]) -> None:
    """A full server is Busy, for as long as it says; every other status is a failure."""
    headers = {"retry-after": "7", "location": "http://127.0.0.1:1/"}
    async with running(canned_app([b"{}"], status=status, headers=headers)) as url:
        engine = canned_engine(url)
        with pytest.raises(kind) as caught:
            await answer(engine, completion_request())
        if isinstance(caught.value, Busy):
            assert caught.value.retry_after == 7


@pytest.mark.parametrize("url", ["", "localhost:80", "ftp://x", "http://", "http://[::1", "http://x:99999999"])
async def test_bad_addresses(url: str) -> None:
    """An address that is none is an error of the setting."""
    with pytest.raises(EngineError, match="address"):
        await connect(url, TinyReader(), name=MODEL, digest=bytes(32), end=EOG)


async def test_nobody_there() -> None:
    """A server that is not there is a ProviderFailed that names it."""
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ProviderFailed, match=url):
        await connect(url + "/v1/", TinyReader(), name=MODEL, digest=bytes(32), end=EOG)


def test_unfinished() -> None:
    """A text is unfinished while its last character lacks bytes."""
    for text in ("a", "é", "€", "😀"):
        data = text.encode()
        assert [unfinished(b"x" + data[:n]) for n in range(1, len(data) + 1)] == [True] * (len(data) - 1) + [False]
    assert not unfinished(b"")
    assert not unfinished(b"\xff")
    assert not unfinished(b"\x80\x80\x80\x80\x80")


def test_names() -> None:
    """Tokens are found by their bytes or their texts, and sequences by the bytes that were kept back."""
    names = Names(TinyTokenizer())
    assert names.find("a", None) == 97
    assert names.find("\ufffd", b"\xe2") == 0xE2
    assert names.find("\ufffd", None) is None
    assert names.find("two", None) is None
    assert names.fill("€".encode()[:2], 2) == (0xE2, 0x82)
    assert names.fill("€".encode(), 3) is None, "the last one finishes the character"
    assert names.fill(b"\xe2", 2) is None


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(["token_id:97", "a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(MEMBERS), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(MEMBERS), JSON, max_size=4), JSON)
def test_any_json(choice: dict[str, Any], usage: Any) -> None:
    """Any JSON at all is an event or a ProviderFailed."""
    names = Names(TinyTokenizer())
    try:
        event = read_event({"choices": [choice], "usage": usage}, names)
    except ProviderFailed:
        return
    for emitted in event.emitted:
        assert emitted.token is None or 0 <= emitted.token < 2**32
        assert all(-1e30 <= logprob <= 0 for _, logprob in emitted.top)


def test_alternatives_are_ranked() -> None:
    """Alternatives come best first, the lowest id first among equals; one without an id hides them all."""
    entry = {"token": "a", "logprob": -1.0}
    tops = [{"token": "b", "logprob": -2.0}, {"token": "c", "logprob": -1}, {"token": "a", "logprob": -1.0}]
    names = Names(TinyTokenizer())

    def top(alternatives: list[dict[str, Any]]) -> tuple[tuple[int, float], ...]:
        content = [entry | {"top_logprobs": alternatives}]
        return read_event({"choices": [{"text": "a", "logprobs": {"content": content}}]}, names).emitted[0].top

    assert top(tops) == ((97, -1.0), (99, -1.0), (98, -2.0))
    assert top([*tops, {"token": "<end>", "logprob": -3.0}]) == ()


@pytest.fixture(scope="module")
def server_url(model_path: Path) -> Iterator[str]:
    """The address of a server that serves the real model."""
    with llama_server(model_path) as url:
        yield url


@pytest.fixture(scope="module")
def vocabulary(model_path: Path) -> Iterator[LlamaModel]:
    """The real model's tokenizer and template."""
    with LlamaModel(model_path, vocab_only=True) as model:
        yield model


async def real_engine(url: str, vocabulary: LlamaModel) -> ProxyEngine:
    """An engine over the real server."""
    end = vocabulary.tokenizer.eos()
    assert end is not None
    return await connect(url, LlamaReader(vocabulary), name=MODEL, digest=bytes(32), end=end)


@pytest.mark.model
async def test_llama_server(server_url: str, vocabulary: LlamaModel) -> None:
    """llama-server gives everything; its answers bind, end with a token that ends generation, and are what it says."""
    engine = await real_engine(server_url + "/v1", vocabulary)
    assert engine.levels == ("signed", "statistical")
    assert engine.profile.engine == "openai:llamacpp"
    assert engine.profile.context == 504
    assert engine.traits.places == 2
    for level in engine.levels:
        request = tiny_request("Say hello in one short sentence.", level=level, temperature=0.3, max_tokens=60)
        steps = await answer(engine, request)
        assert steps[-1].stop == "stop"
        assert vocabulary.tokenizer.is_eog(steps[-1].token)
        bundle = bundle_of(engine, request, steps)
        check_offline(bundle)
        check_with_model(bundle, LlamaReader(vocabulary), bytes(32))


@pytest.mark.model
@pytest.mark.parametrize("level", ["signed", "statistical"])
async def test_unfinished_characters(server_url: str, vocabulary: LlamaModel, level: Any) -> None:
    """Tokens that llama-server keeps back because they end within a character are found, with their evidence."""
    engine = await real_engine(server_url, vocabulary)
    text = "".join("😀🎉🚀🌍"[i % 4] for i in range(24))
    request = replace(completion_request(text), level=level, max_tokens=24, sampler=SamplerSettings(temperature=0))
    steps = await answer(engine, request)
    pieces = [vocabulary.tokenizer.piece(step.token) for step in steps]
    assert sum(unfinished(piece) for piece in pieces) > 3, "the answer has no emoji, or they are single tokens"
    assert "".join(step.text for step in steps) == b"".join(pieces).decode("utf-8", "replace")
    assert len(steps) == 24
    bundle = bundle_of(engine, request, steps)
    check_offline(bundle)
    check_with_model(bundle, LlamaReader(vocabulary), bytes(32))
    if level == "statistical":
        for step in steps:
            top = read_top_leaf(step.leaf)
            assert top.chosen > top.logprobs[0] - 1.0, "at temperature 0 the chosen token is among the best"


@pytest.mark.model
async def test_llama_server_stops(server_url: str, vocabulary: LlamaModel) -> None:
    """When a consumer hangs up, llama-server stops within a second."""
    engine = await real_engine(server_url, vocabulary)
    request = tiny_request("Write a long story.", level="statistical", max_tokens=400)
    async with aclosing(engine.generate(request, engine.reader.render(request))) as steps:
        for _ in range(3):
            await anext(steps)
    async with httpx.AsyncClient(trust_env=False) as client:
        for _ in range(20):
            slots = (await client.get(f"{server_url}/slots")).json()
            if not any(slot["is_processing"] for slot in slots):
                return
            await asyncio.sleep(0.05)
    pytest.fail("llama-server goes on")


@pytest.mark.model
def test_texts_of_control_tokens(vocabulary: LlamaModel) -> None:
    """A server that names tokens by their texts is understood, control tokens and bytes of characters included."""
    names = Names(vocabulary.tokenizer)
    assert names.find("<|im_end|>", None) == vocabulary.tokenizer.eos()
    for token in range(0, vocabulary.tokenizer.n_vocab, 97):
        piece = vocabulary.tokenizer.piece(token)
        if piece and not vocabulary.tokenizer.is_control(token):
            assert names.find(piece.decode("utf-8", "replace"), piece) in (token, None)


@pytest.mark.model
@pytest.mark.parametrize("data", ["", "Hello, world", "héé ∑ 😀", "  two  spaces\n", b"\xe2\x82", b"a\xf0\x9f"])
def test_spelling(vocabulary: LlamaModel, data: str | bytes) -> None:
    """Any bytes can be written in tokens, and texts are written as the tokenizer does."""
    names = Names(vocabulary.tokenizer)
    wanted = data.encode() if isinstance(data, str) else data
    spelled = names.spell(wanted)
    assert b"".join(map(vocabulary.tokenizer.piece, spelled)) == wanted
    if isinstance(data, str):
        assert spelled == vocabulary.tokenizer.encode(data, special=False)


@pytest.mark.model
@pytest.mark.slow
async def test_another_model_is_caught(
    server_url: str, model_path: Path, vocabulary: LlamaModel, tmp_path: Path
) -> None:
    """What a server with the model computes holds at `statistical`; what one with another model computes fails."""
    other = drop_layers(model_path, tmp_path / "other.gguf", [14])
    with llama_server(other) as other_url:
        for url, outcome in ((server_url, "holds"), (other_url, "fails")):
            engine = await real_engine(url, vocabulary)
            request = tiny_request("Tell me about lighthouses.", level="statistical", temperature=0.7, max_tokens=64)
            bundle = bundle_of(engine, request, await answer(engine, request))
            with open_checker(ModelFile(MODEL, model_path, bytes(32), 0)) as check:
                verdict = check(bundle)
            assert verdict.outcome == outcome, verdict.reasons
