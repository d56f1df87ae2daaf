"""The OpenAPI document tells the truth."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator
from schemathesis import GenerationMode
from schemathesis.checks import positive_data_acceptance
from starlette.applications import Starlette
from starlette.routing import Route
from tests.apps.openai_kit import CHAT, MODEL, Scripted, ScriptedAnswer, scripted_app
from tests.tiny import TinyEngine, tiny_bundle, tiny_key, tiny_request

from assay.apps.gateway import gateway_app
from assay.apps.openapi import openapi_document
from assay.apps.openapi_native import desk_paths, provider_paths, request_schema, verdict_schema
from assay.apps.provider import provider_app
from assay.apps.serving import LocalAnswers
from assay.core.encoding import b64
from assay.core.errors import Busy, ContextOverflow, Equivocation, ProviderFailed
from assay.core.offer import Ask
from assay.core.request import Request
from assay.core.verdict import Finding, Verdict
from assay.journey import MarketAnswers
from assay.network.memory import MemoryTransport
from assay.store.receipts import ReceiptStore

COMPLETION = {"model": MODEL, "prompt": "Once"}
TOOL = {"type": "function", "function": {"name": "f"}}


def check(name: str, value: object) -> None:
    """`value` is what the document says of `name`."""
    document = json.loads(json.dumps(openapi_document()))
    Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": document["components"]}).validate(value)


@pytest.mark.parametrize(
    ("name", "path", "body"),
    [
        ("ChatCompletion", "/v1/chat/completions", {**CHAT, "logprobs": True, "top_logprobs": 2, "n": 2}),
        ("ChatCompletion", "/v1/chat/completions", {**CHAT, "tools": [TOOL]}),
        ("TextCompletion", "/v1/completions", {**COMPLETION, "logprobs": 2}),
        ("TextCompletion", "/v1/completions", COMPLETION),
        ("ModelList", "/v1/models", None),
        ("Model", f"/v1/models/{MODEL}", None),
        ("Health", "/health", None),
        ("Error", "/v1/models/other", None),
        ("Error", "/v1/completions", {}),
    ],
)
@pytest.mark.anyio
async def test_replies_are_as_documented(name: str, path: str, body: object) -> None:
    """Replies have the documented members and no others."""
    script = Scripted(script=lambda request: ["<call>f {}"] if request.tools else ["word"])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(scripted_app(script)), base_url="http://test") as http:
        reply = await (http.get(path) if body is None else http.post(path, json=body))
        check(name, reply.json())
        if "choices" in reply.json():
            receipts = (await http.get(f"/receipts/{reply.json()['id']}")).content.splitlines()
            assert len(receipts) == len(reply.json()["choices"])
            for line in receipts:
                check("Bundle", json.loads(line))


@pytest.mark.anyio
async def test_failures_are_as_documented() -> None:
    """A failure with a partial receipt has the documented shape."""
    script = Scripted(breaks_at=1, breaks_with=ProviderFailed("gone"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(scripted_app(script)), base_url="http://test") as http:
        reply = await http.post("/v1/chat/completions", json=CHAT)
    assert reply.status_code == 424
    assert reply.json()["assay"]["receipts"][0]["output_count"] == 1
    check("Error", reply.json())


def programs(root: Path) -> dict[str, Starlette]:
    """The applications that serve a document."""
    store = ReceiptStore(f"sqlite:///{root / 'receipts.db'}")
    market = MarketAnswers(MemoryTransport({}), store)
    return {
        "provider": provider_app(LocalAnswers([TinyEngine()], tiny_key(), store), store, tiny_key().address),
        "gateway": gateway_app(market, store),
        "gateway with a desk": gateway_app(market, store, audit_token="secret"),
    }


@pytest.mark.anyio
async def test_each_program_documents_what_it_serves(tmp_path: Path) -> None:
    """Every route with its methods, and no other, is in the document of its program; operations have names of their
    own."""
    for name, app in programs(tmp_path).items():
        served = {
            (route.path.replace(":path}", "}"), method.lower())
            for route in app.routes
            if isinstance(route, Route)
            for method in (route.methods or set()) - {"HEAD"}
        }
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
            document = (await http.get("/openapi.json")).json()
        told = {(path, method) for path, methods in document["paths"].items() for method in methods}
        assert told == served, name
        names = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
        assert len(set(names)) == len(names)


@pytest.mark.anyio
async def test_native_replies_are_as_documented(tmp_path: Path) -> None:
    """Offers, lists of the desk, requests and verdicts fit the schemas."""
    bundle = tiny_bundle(tiny_request(max_tokens=3), tiny_key(), 1)
    Draft202012Validator(request_schema()).validate(bundle.request.to_json())
    finding = Finding("replay", "fails", "another model", step=2)
    receipt = bundle.receipt
    verdict = Verdict(receipt.digest.hex(), receipt.provider, receipt.level, "fails", (finding,), 3, 0.1)
    Draft202012Validator(verdict_schema()).validate(verdict.to_json())
    apps = programs(tmp_path)
    store = ReceiptStore(f"sqlite:///{tmp_path / 'receipts.db'}")
    store.put(bundle)
    with pytest.raises(Equivocation):
        store.put(tiny_bundle(tiny_request("other", max_tokens=3), tiny_key(), 1))
    name, digest = b64(bundle.request.name), b64(receipt.digest)
    asked = {
        "provider": {"offers": "offers", "bundles/{name}": f"bundles/{name}"},
        "gateway with a desk": {
            "unaudited": "unaudited?after=0",
            "contradictions": "contradictions",
            "verdicts/{provider}": f"verdicts/{receipt.provider}",
            "receipts/{digest}": f"receipts/{digest}",
        },
    }
    for program, paths in asked.items():
        transport = httpx.ASGITransport(apps[program])
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            document = (await http.get("/openapi.json")).json()
            for path, url in paths.items():
                reply = await http.get(f"/assay/v1/{url}", headers={"authorization": "Bearer secret"})
                assert reply.status_code == 200, reply.text
                told = document["paths"][f"/assay/v1/{path}"]["get"]["responses"]["200"]["content"]["application/json"]
                schema = told["schema"] | {"components": document["components"]}
                Draft202012Validator(schema).validate(reply.json())
    store.close()


def test_every_reference_is_there() -> None:
    """No reference of the document leads nowhere."""
    text = json.dumps(openapi_document(provider_paths() | desk_paths()))
    document = json.loads(text)
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names == set(document["components"]["schemas"]) & names
    assert {"ChatBody", "CompletionBody", "ChatCompletion", "Error"} <= names


class Fickle(Scripted):
    """Fails at some requests in the ways that providers may."""

    async def answer(self, request: Request, ask: Ask, *, top_logprobs: int | None = None) -> ScriptedAnswer:
        self.calls = getattr(self, "calls", 0) + 1
        match self.calls % 5:
            case 1:
                raise ContextOverflow(5000, 4096)
            case 2:
                raise ProviderFailed("the provider is gone")
            case 3:
                raise Busy("no place")
        return await super().answer(request, ask, top_logprobs=top_logprobs)


def _known_model(_context: object, body: object) -> object:
    """Generated names are of no model that exists: every other valid one is replaced by one that does."""
    name = body.get("model") if isinstance(body, dict) else None
    return body | {"model": MODEL} if isinstance(name, str) and len(name) % 2 and len(name) <= 256 else body


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_schemathesis(mode: GenerationMode) -> None:
    """Generated requests, valid and not, find no 5xx and nothing that the document does not say.

    Left out is the check that every body that fits the schema is accepted: some fields contradict each other in ways
    that the schema does not tell (`top_logprobs` without `logprobs`), and that is a documented 400.
    """
    loaded = schemathesis.openapi.from_asgi("/openapi.json", scripted_app(Fickle(script=lambda _: ["word"] * 3)))
    loaded.hook("map_body")(_known_model)
    seen: dict[str, set[int]] = {}

    for found in loaded.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and not operation.body:
            continue

        @settings(
            max_examples=150,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy(generation_mode=mode))
        def probe(case: schemathesis.Case) -> None:
            response = case.call()
            seen.setdefault(case.path, set()).add(response.status_code)
            case.validate_response(response, excluded_checks=[positive_data_acceptance])

        probe()
    if mode is GenerationMode.POSITIVE:
        assert seen["/v1/chat/completions"] >= {200, 400, 404, 424, 429}
        assert seen["/v1/completions"] >= {200, 400, 404, 424, 429}
    else:
        assert 400 in seen["/v1/chat/completions"]
