"""The OpenAPI 3.1 document of a program: the OpenAI routes, whose bodies come from the models that read them, and what
else that program serves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

from pydantic.json_schema import models_json_schema

from assay import __version__
from assay.core.completion import STOP_REASONS
from assay.core.profile import SAMPLERS
from assay.core.request import LEVELS
from assay.network.openai.bodies import ChatBody, CompletionBody

Schema: TypeAlias = dict[str, object]

STRING: Final[Schema] = {"type": "string"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
NUMBER: Final[Schema] = {"type": "number"}
ADDRESS: Final[Schema] = {"type": "string", "pattern": "^0x[0-9a-f]{40}$"}
DIGEST: Final[Schema] = {
    "type": "string",
    "pattern": "^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$",
    "description": "32 bytes in base64url",
}
_STATUSES: Final = {
    400: "The request cannot be served as written; `param` names the field.",
    404: "Nothing has this name here.",
    405: "The path has no such method.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    402: "The answer has to be paid, and the payment is missing, wrong, or not enough.",
    424: "No provider fits the wishes, or the one that was asked failed.",
    429: "No capacity now, or receipts cannot be kept; `Retry-After` says in how many seconds to come again.",
    500: "The server itself failed.",
}


def openapi_document(more: Mapping[str, Schema] | None = None) -> Schema:
    """The whole document; `more`: what the program serves beside the OpenAI routes (see `openapi_native.py`)."""
    _, bodies = models_json_schema(
        [(ChatBody, "validation"), (CompletionBody, "validation")], ref_template="#/components/schemas/{model}"
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Assay",
            "version": __version__,
            "description": "The OpenAI API with a signed receipt for every answer.",
        },
        "paths": {
            "/v1/chat/completions": {"post": _call("chat", "ChatBody", "ChatCompletion")},
            "/v1/completions": {"post": _call("completion", "CompletionBody", "TextCompletion")},
            "/v1/models": {"get": _get("models", "What can be asked for.", ref("ModelList"))},
            "/v1/models/{name}": {"get": _get("model", "One model.", ref("Model"), named="The model's name.")},
            "/receipts/{name}": {"get": _receipts()},
            "/health": {"get": _get("health", "The server runs.", ref("Health"))},
            "/openapi.json": {"get": _get("openapi", "This document.", {"type": "object"})},
            **(more or {}),
        },
        "components": {
            "schemas": {**_dict(bodies["$defs"]), **_replies()},
            "securitySchemes": {"audit": {"type": "http", "scheme": "bearer", "description": "ASSAY_AUDIT_TOKEN"}},
        },
    }


def _call(name: str, body: str, reply: str) -> Schema:
    return {
        "operationId": name,
        "summary": "Answer; in one piece, or with `stream` as server-sent events that end with `data: [DONE]`.",
        "requestBody": {"required": True, "content": {"application/json": {"schema": ref(body)}}},
        "responses": {
            "200": {
                "description": "The answer; a stream that fails has an event with an `error` before its end.",
                "content": {"application/json": {"schema": ref(reply)}, "text/event-stream": {}},
            },
            **errors(400, 402, 404, 408, 413, 424, 429, 500),
        },
    }


def _get(name: str, summary: str, schema: Schema, *, named: str = "") -> Schema:
    parameters = [{"name": "name", "in": "path", "required": True, "description": named, "schema": STRING}]
    return {
        "operationId": name,
        "summary": summary,
        **({"parameters": parameters} if named else {}),
        "responses": {
            "200": {"description": summary, "content": {"application/json": {"schema": schema}}},
            **(errors(404, 424, 429, 500) if named else errors(424, 500)),
        },
    }


def _receipts() -> Schema:
    operation = _get(
        "receipts",
        "Receipts with all that an offline check needs.",
        ref("Bundle"),
        named="A reply's `id`.",
    )
    content = _dict(_dict(_dict(operation["responses"])["200"])["content"])
    content["application/x-ndjson"] = dict[str, object]()
    return operation


def errors(*statuses: int) -> Schema:
    """The replies with these statuses."""
    return {
        str(status): {
            "description": _STATUSES[status],
            "content": {"application/json": {"schema": ref("Error")}},
            **({"headers": {"Retry-After": {"schema": {"type": "string"}}}} if status == 429 else {}),
        }
        for status in statuses
    }


def _replies() -> Schema:
    usage = object_of(prompt_tokens=COUNT, completion_tokens=COUNT, total_tokens=COUNT)
    token = object_of(token=STRING, logprob=NUMBER, bytes=array_of({"type": "integer", "minimum": 0, "maximum": 255}))
    call = object_of(
        id=STRING, type={"const": "function"}, function=object_of(name=STRING, arguments=STRING)
    )  # fmt: skip
    message = object_of(
        ("tool_calls",),
        role={"const": "assistant"},
        content=_nullable(STRING),
        refusal={"type": "null"},
        tool_calls=array_of(call),
    )
    chat_logprobs = object_of(
        content=array_of(object_of(**_dict(token["properties"]), top_logprobs=array_of(token))),
        refusal={"type": "null"},
    )
    text_logprobs = object_of(
        tokens=array_of(STRING),
        token_logprobs=array_of(NUMBER),
        top_logprobs=array_of({"type": "object", "additionalProperties": NUMBER}),
        text_offset=array_of(COUNT),
    )
    price = object_of(prompt=STRING, completion=STRING)
    offer = object_of(
        provider=ADDRESS,
        model_digest={"type": "string", "pattern": "^[0-9a-f]{64}$"},
        level={"enum": list(LEVELS)},
        price=price,
        context=COUNT,
        chat={"type": "boolean"},
        tools={"type": "boolean"},
        profile={"type": "string", "pattern": "^[0-9a-f]{64}$"},
        sampler={"enum": list(SAMPLERS)},
        continues={"type": "boolean"},
    )
    return {
        "Error": object_of(
            ("id", "assay"),
            id=STRING,
            error=object_of(message=STRING, type=STRING, param=_nullable(STRING), code=_nullable(STRING)),
            assay=ref("Proof"),
        ),
        "Receipt": object_of(
            v={"const": 1},
            level={"enum": list(LEVELS)},
            stop={"enum": list(STOP_REASONS)},
            provider=ADDRESS,
            amount={"type": "string", "pattern": "^[0-9]{1,39}$", "description": "wei"},
            signature={"type": "string", "description": "65 bytes in base64url"},
            **dict.fromkeys(("prompt_count", "output_count", "sequence", "issued"), COUNT),
            **dict.fromkeys(
                ("request", "model", "profile", "prompt_text", "prompt_tokens", "output", "evidence", "channel"),
                DIGEST,
            ),
        ),
        "Proof": object_of(receipts=array_of(ref("Receipt")), provider=ADDRESS, level={"enum": list(LEVELS)}),
        "Bundle": object_of(
            receipt=ref("Receipt"),
            request={"type": "object"},
            profile={"type": "object"},
            tokens=STRING,
            opening=STRING,
        ),
        "ChatCompletion": _completion(
            "chat.completion",
            usage,
            message=message,
            logprobs=_nullable(chat_logprobs),
            reasons=["stop", "length", "tool_calls"],
        ),
        "TextCompletion": _completion(
            "text_completion", usage, text=STRING, logprobs=_nullable(text_logprobs), reasons=["stop", "length"]
        ),
        "Model": object_of(
            id=STRING,
            object={"const": "model"},
            created=COUNT,
            owned_by=STRING,
            assay=object_of(offers=array_of(offer)),
        ),
        "ModelList": object_of(object={"const": "list"}, data=array_of(ref("Model"))),
        "Health": {"type": "object", "properties": {"status": {"const": "ok"}}, "required": ["status"]},
    }


def _completion(name: str, usage: Schema, *, reasons: list[str], **choice: Schema) -> Schema:
    return object_of(
        id=STRING,
        object={"const": name},
        created=COUNT,
        model=STRING,
        choices=array_of(object_of(index=COUNT, finish_reason={"enum": reasons}, **choice)),
        usage=usage,
        assay=ref("Proof"),
    )


def object_of(optional: tuple[str, ...] = (), /, **members: object) -> Schema:
    """An object with just these members, those in `optional` perhaps not there."""
    required = [name for name in members if name not in optional]
    return {"type": "object", "properties": members, "required": required, "additionalProperties": False}


def array_of(items: Schema) -> Schema:
    """A list of these."""
    return {"type": "array", "items": items}


def _nullable(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def ref(name: str) -> Schema:
    """A schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def _dict(value: object) -> Schema:
    assert isinstance(value, dict)
    return value
