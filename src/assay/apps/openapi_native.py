"""What provider and gateway serve beside the OpenAI routes, for their OpenAPI documents."""

from __future__ import annotations

from typing import Final

from assay.apps.openapi import ADDRESS, COUNT, DIGEST, STRING, Schema, array_of, errors, object_of, ref
from assay.core.encoding import MICRO
from assay.core.profile import SAMPLERS
from assay.core.record import ENDPOINT_KINDS, MAX_ENDPOINTS, MAX_RECORD_OFFERS, VERSION
from assay.core.request import LEVELS
from assay.core.trace import STAGES
from assay.core.voucher import MAX_WITHDRAW_DELAY, MIN_WITHDRAW_DELAY
from assay.network.wire import MAX_OFFERS, MAX_TOP
from assay.verify.binding import MAX_STOP_CHARS, MAX_STOPS

_WEI: Final[Schema] = {"type": "string", "pattern": "^(0|[1-9][0-9]{0,28})$", "description": "wei per token"}
_AMOUNT: Final[Schema] = {"type": "string", "pattern": "^(0|[1-9][0-9]{0,38})$", "description": "wei"}
_SIGNATURE: Final[Schema] = {"type": "string", "pattern": "^[A-Za-z0-9_-]{87}$", "description": "65 bytes, base64url"}
_BOOLEAN: Final[Schema] = {"type": "boolean"}
_HEX: Final[Schema] = {"type": "string", "pattern": "^[0-9a-f]{64}$"}


def metrics_path() -> dict[str, Schema]:
    """`/metrics`, which every program has."""
    plain = {"text/plain": {"schema": STRING}}
    reply = {"200": {"description": "Numbers for Prometheus.", "content": plain}, **errors(500)}
    return {"/metrics": {"get": {"operationId": "metrics", "summary": "Numbers for Prometheus.", "responses": reply}}}


def traces_path() -> dict[str, Schema]:
    """What happened to a request; a gateway's."""
    mark = object_of(("facts",), stage={"enum": list(STAGES)}, at_us=COUNT, note=STRING, facts={"type": "object"})
    traces = object_of(traces=array_of(array_of(mark)))
    told = "What happened to a request, stage by stage."
    return {"/traces/{name}": {"get": _operation("traces", told, _json(traces), 404, 429, named="The reply's id.")}}


def provider_paths() -> dict[str, Schema]:
    """The wire between gateway and provider."""
    price = object_of(prompt=_WEI, output=_WEI)
    offer = object_of(
        ("continues",),
        model=STRING,
        model_digest=DIGEST,
        level={"enum": list(LEVELS)},
        price=price,
        context=COUNT,
        chat=_BOOLEAN,
        tools=_BOOLEAN,
        profile=DIGEST,
        sampler={"enum": list(SAMPLERS)},
        continues=_BOOLEAN,
    )
    required = object_of(
        **dict.fromkeys(("contract", "token", "receiver", "authorizer"), ADDRESS),
        chain_id=COUNT,
        delay=COUNT,
        credit=_AMOUNT,
    )
    offers = object_of(
        ("payment",), provider=ADDRESS, offers=array_of(offer) | {"maxItems": MAX_OFFERS}, payment=required
    )
    load = object_of(running=COUNT, places=COUNT)
    terms = object_of(
        **dict.fromkeys(("payer", "payerAuthorizer", "receiver", "receiverAuthorizer", "token"), ADDRESS),
        withdrawDelay={"type": "integer", "minimum": MIN_WITHDRAW_DELAY, "maximum": MAX_WITHDRAW_DELAY},
        salt=DIGEST,
    )
    voucher = object_of(channel=DIGEST, amount=_AMOUNT, signature=_SIGNATURE)
    payment = object_of(terms=terms, voucher={"anyOf": [voucher, {"type": "null"}]}, signature=_SIGNATURE)
    top = {"anyOf": [{"type": "integer", "minimum": 0, "maximum": MAX_TOP}, {"type": "null"}]}
    stream: Schema = {
        "description": "Events: steps, then the receipt with all that a check needs; an error where something broke.",
        "content": {"text/event-stream": dict[str, object]()},
    }
    name = "The request's name in base64url."
    endpoint = object_of(kind={"enum": list(ENDPOINT_KINDS)}, address=STRING)
    record = object_of(
        v={"const": VERSION},
        provider=ADDRESS,
        **dict.fromkeys(("sequence", "issued", "expires", "parallel"), COUNT),
        endpoints=array_of(endpoint) | {"maxItems": MAX_ENDPOINTS},
        offers=array_of(offer) | {"maxItems": MAX_RECORD_OFFERS},
        payment={"anyOf": [required, {"type": "null"}]},
        region=STRING,
        stake={"anyOf": [object_of(chain_id=COUNT, court=ADDRESS), {"type": "null"}]},
        tls=DIGEST,
        signature=_SIGNATURE,
    )
    return {
        "/assay/v1/record": {"get": _operation("record", "What the provider says of itself.", _json(record), 404)},
        "/assay/v1/offers": {"get": _operation("offers", "What can be bought here.", _json(offers), 500)},
        "/assay/v1/load": {"get": _operation("load", "How busy it is here.", _json(load), 500)},
        "/assay/v1/answers": {
            "post": {
                **_operation(
                    "answer", "Answer a request; token ids as they come.", stream, 400, 402, 404, 408, 413, 424, 429
                ),
                "requestBody": _body(
                    object_of(
                        ("payment", "price"),
                        request=request_schema(),
                        top_logprobs=top,
                        payment=payment,
                        price=price,
                    )
                ),
            }
        },
        "/assay/v1/vouchers": {
            "post": {
                **_operation("pay", "Hand in a voucher.", {"description": "It is kept."}, 400, 402, 404, 408, 413, 429),
                "requestBody": _body(object_of(terms=terms, voucher=voucher)),
            }
        },
        "/assay/v1/answers/{name}": {
            "delete": _operation(
                "stop", "Stop an answer; its stream ends with its receipt.", {"description": "Done."}, 404, named=name
            )
        },
        "/assay/v1/bundles/{name}": {
            "get": _operation("bundle", "The receipt of an answer.", _json(ref("Bundle")), 404, 429, named=name)
        },
        "/assay/v1/bundles/{name}/trace": {"get": _trace(name)},
        **metrics_path(),
    }


def desk_paths() -> dict[str, Schema]:
    """Where validators look for receipts and leave verdicts; to strangers everything is a 404."""
    listed = object_of(receipts=array_of(object_of(row=COUNT, digest=DIGEST, provider=STRING)))
    pairs = object_of(contradictions=array_of(object_of(one=DIGEST, other=DIGEST)))
    after = {"name": "after", "in": "query", "description": "Rows over this number only.", "schema": COUNT}
    every = {"name": "all", "in": "query", "description": "1: those with verdicts too.", "schema": COUNT}
    since = {"name": "since", "in": "query", "description": "Unix seconds since when they came.", "schema": COUNT}
    wrong = object_of(receipts=array_of(DIGEST))
    paths: dict[str, Schema] = {
        "/assay/v1/unaudited": {
            "get": {
                **_operation("unaudited", "Receipts without a verdict.", _json(listed), 400, 404, 429),
                "parameters": [after],
            }
        },
        "/assay/v1/contradictions": {
            "get": {
                **_operation("contradictions", "Receipts that contradict each other.", _json(pairs), 400, 404, 429),
                "parameters": [every],
            }
        },
        "/assay/v1/disproven": {
            "get": {
                **_operation("disproven", "Exact receipts that checks found wrong.", _json(wrong), 400, 404, 429),
                "parameters": [since],
            }
        },
        "/assay/v1/verdicts/{provider}": {
            "get": _operation(
                "counts",
                "How many verdicts on a provider rest on statistics; of how many answers that were computed again no "
                "fault was found.",
                _json(object_of(tested=COUNT, passed=COUNT)),
                404,
                429,
                named="The provider's address.",
            )
        },
        "/assay/v1/receipts/{digest}": {
            "get": _operation(
                "receipt", "A receipt by its digest.", _json(ref("Bundle")), 400, 404, 429, named="In base64url."
            )
        },
        "/assay/v1/verdicts": {
            "post": {
                **_operation("judge", "Leave a verdict.", {"description": "Kept."}, 400, 404, 408, 413, 429),
                "requestBody": _body(verdict_schema()),
            }
        },
    }
    token: Schema = {"audit": list[str]()}
    for path in paths.values():
        for operation in path.values():
            assert isinstance(operation, dict)
            operation["security"] = [token]
    return paths


def request_schema() -> Schema:
    """A `Request` (core/request.py), within what apps/admission.py lets in; numbers of the sampler are millionths."""
    message = object_of(
        role={"enum": ["system", "developer", "user", "assistant", "tool"]},
        **dict.fromkeys(("content", "tool_calls", "tool_call_id", "name"), STRING),
    )
    return object_of(
        ("continues",),
        kind={"enum": ["chat", "completion"]},
        messages=array_of(message),
        sampler=object_of(
            temperature=_up_to(100 * MICRO), top_k=_up_to(2**31 - 1), top_p=_up_to(MICRO), min_p=_up_to(MICRO)
        ),
        stop=array_of(STRING | {"minLength": 1, "maxLength": MAX_STOP_CHARS}) | {"maxItems": MAX_STOPS},
        tool_choice=STRING | {"pattern": "^(none|auto|required|function:.*)$"},
        level={"enum": list(LEVELS)},
        nonce=DIGEST,
        **dict.fromkeys(("model", "prompt", "tools", "response_format"), STRING),
        max_tokens=_up_to(2**31 - 1),
        created=_up_to(2**40),
        choice=_up_to(127),
        continues=STRING | {"pattern": "^[A-Za-z0-9_-]+$"},
    )


def verdict_schema() -> Schema:
    """A `Verdict` (core/verdict.py), as `assay verify --json` prints it; `holds` and `reasons` follow from the rest."""
    outcome: Schema = {"enum": ["holds", "fails", "inconclusive"]}
    number = {"anyOf": [{"type": "number"}, {"type": "null"}]}
    finding = object_of(
        ("step", "statistic", "threshold"),
        check=STRING,
        outcome={"enum": ["holds", "fails", "inconclusive", "unchecked"]},
        reason=STRING,
        step={"anyOf": [{"type": "integer"}, {"type": "null"}]},
        statistic=number,
        threshold=number,
    )
    return object_of(
        ("holds", "reasons", "evidence"),
        evidence=number,
        receipt=_HEX,
        provider=STRING,
        level={"enum": list(LEVELS)},
        outcome=outcome,
        findings=array_of(finding),
        tokens_checked=COUNT,
        seconds={"type": "number"},
        holds=_BOOLEAN,
        reasons=array_of(STRING),
    )


def _trace(name: str) -> Schema:
    stream: Schema = {
        "description": "The trace, as docs/protocol.md describes it, in pieces as they are computed.",
        "content": {"application/octet-stream": dict[str, object]()},
    }
    operation = _operation(
        "trace", "The accumulators of an answer at level `exact`.", stream, 400, 404, 429, named=name
    )
    positions = {
        "name": "positions",
        "in": "query",
        "description": "Passes to be audited, as `3,7,10-12`; all, if left out.",
        "schema": STRING | {"pattern": "^[0-9]{1,9}(-[0-9]{1,9})?(,[0-9]{1,9}(-[0-9]{1,9})?)*$"},
    }
    return operation | {"parameters": [_parameter("name", name), positions]}


def _up_to(most: int) -> Schema:
    return {"type": "integer", "minimum": 0, "maximum": most}


def _operation(name: str, summary: str, reply: Schema, *statuses: int, named: str = "") -> Schema:
    status = "200" if "content" in reply else "204"
    parameter = {"receipt": "digest", "counts": "provider"}.get(name, "name")
    return {
        "operationId": name,
        "summary": summary,
        **({"parameters": [_parameter(parameter, named)]} if named else {}),
        "responses": {status: reply, **errors(*statuses, 500)},
    }


def _parameter(name: str, described: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "description": described, "schema": STRING}


def _json(schema: Schema) -> Schema:
    return {"description": "As asked.", "content": {"application/json": {"schema": schema}}}


def _body(schema: Schema) -> Schema:
    return {"required": True, "content": {"application/json": {"schema": schema}}}
