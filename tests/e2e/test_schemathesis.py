"""Schemathesis on the OpenAPI documents of real programs with the real model: no 5xx, and nothing undocumented."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import negative_data_rejection, positive_data_acceptance
from tests.e2e.conftest import Network
from tests.e2e.kit import MODEL, TOOLS_MODEL

from assay.core.errors import EncodingError
from assay.core.offer import Price

pytestmark = [pytest.mark.e2e, pytest.mark.model, pytest.mark.slow]

LEFT_OUT = [positive_data_acceptance, negative_data_rejection]
"""Some fields contradict each other in ways that the schema does not tell, which is a documented 400; and `_bounded`
repairs some bodies that were meant to be wrong."""


def _bounded(_context: object, body: object) -> object:
    """Answers end soon, two valid bodies of three are for a model that exists, and most valid prices are left out, as
    no other one than the provider's is answered at."""
    if not isinstance(body, dict):
        return body
    if isinstance(asked := body.get("request"), dict):
        if _is_price(body.get("price")) and len(str(body["price"])) % 4:
            body = {name: value for name, value in body.items() if name != "price"}
        return {name: _whole(value) for name, value in body.items()} | {"request": _plainer(_known(asked))}
    body = _known(body)
    for field in ("max_tokens", "max_completion_tokens") if "messages" in body else ("max_tokens",):
        limit = body.get(field, 2)
        if isinstance(limit, int | float) and not isinstance(limit, bool) and not limit < 0:
            body = body | {field: 2 if limit else limit}
    return body


def _is_price(value: object) -> bool:
    try:
        return Price.from_json(value).to_json() == value  # type: ignore[arg-type]
    except EncodingError:
        return False


def _known(body: dict[str, object]) -> dict[str, object]:
    """Two valid names of three become those of models that exist."""
    name = body.get("model")
    if isinstance(name, str) and 0 < len(name) <= 256 and len(name) % 3:
        return body | {"model": MODEL if len(name) % 3 == 1 else TOOLS_MODEL}
    return body


def _whole(value: object) -> object:
    """2.0 as 2, also within."""
    if isinstance(value, dict):
        return {name: _whole(each) for name, each in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _plainer(request: dict[str, object]) -> dict[str, object]:
    """On the native wire no `max_tokens` is no limit, and valid JSON inside of strings is never generated; nor do most
    generators write an integer without a fraction, which JSON Schema counts as one and the canonical encoding does not.
    Random token ids are hardly ever known ones: most requests continue nothing.
    """
    begun = request.get("continues")
    kept = not isinstance(begun, str) or len(begun) % 4 == 0
    request = {name: _whole(value) for name, value in request.items() if kept or name != "continues"}
    plain = {"tools": "", "response_format": "", "tool_choice": "none", "max_tokens": 2}
    request = request | {name: value for name, value in plain.items() if isinstance(request.get(name), type(value))}
    messages = request.get("messages")
    if not isinstance(messages, list):
        return request
    called = [
        each | {"tool_calls": ""} if isinstance(each, dict) and isinstance(each.get("tool_calls"), str) else each
        for each in messages
    ]
    return request | {"messages": called}


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("program", ["gateway", "provider", "node", "exact"])
def test_schemathesis(network: Network, program: str, mode: GenerationMode, request: pytest.FixtureRequest) -> None:
    """Generated requests, valid and not, are answered as the document says."""
    if program == "exact":
        request.getfixturevalue("exact_nodes")
    here = network.providers[1] if program == "provider" else network.surface(program, MODEL)
    loaded = schemathesis.openapi.from_url(f"{here.url}/openapi.json")
    loaded.hook("map_body")(_bounded)
    seen: dict[str, set[int]] = {}
    for found in loaded.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and not operation.body:
            continue

        @settings(
            max_examples=120, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
        )
        @given(operation.as_strategy(generation_mode=mode))
        def probe(case: schemathesis.Case) -> None:
            response = case.call(timeout=60)
            seen.setdefault(case.path, set()).add(response.status_code)
            assert response.status_code < 500, response.text
            case.validate_response(response, excluded_checks=LEFT_OUT)

        probe()
    expected = {200, 400, 404} if mode is GenerationMode.POSITIVE else {400}
    assert seen["/v1/chat/completions"] >= expected
    assert seen["/v1/completions"] >= ({200} if mode is GenerationMode.POSITIVE else {400})
    if program != "gateway":
        assert seen["/assay/v1/answers"] >= (expected if mode is GenerationMode.POSITIVE else {400})
    with here.http as http:
        assert http.get("/health").json()["active"] == 0
