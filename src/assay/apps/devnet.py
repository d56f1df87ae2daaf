"""The development chain over HTTP: Ethereum's JSON-RPC for wallets and web3, on loopback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from assay.apps.failures import error_response
from assay.apps.limits import Limits
from assay.chain.devnet import CHAIN_ID, ETHER, TOKENS, Devnet
from assay.chain.rpc import ChainRpc, RpcError
from assay.core.encoding import check_bounds
from assay.core.errors import AssayError, EncodingError

MAX_BODY: Final = 1 << 20
MAX_BATCH: Final = 100
"""Calls in one request."""
MAX_BATCH_BYTES: Final = 32 << 20
_PARSE, _REQUEST = -32700, -32600
"""JSON-RPC's error codes."""


def devnet_app(devnet: Devnet) -> Starlette:
    """Answers `POST /` (JSON-RPC 2.0, batches too), `POST /fund/ADDRESS`, `GET /` and `GET /health`."""
    rpc, lock = ChainRpc(devnet.chain), asyncio.Lock()

    async def answer(request: Request) -> Response:
        body = await request.body()
        try:
            check_bounds(body, what="the request")
            asked = json.loads(body)
        except (EncodingError, ValueError, RecursionError):
            return JSONResponse(_error(None, _PARSE, "this is no JSON"), status_code=400)
        if isinstance(asked, list):
            if not 0 < len(asked) <= MAX_BATCH:
                return JSONResponse(_error(None, _REQUEST, f"a batch has 1 to {MAX_BATCH} calls"), status_code=400)
            return _json(await asyncio.to_thread(_all_answered, rpc, asked))
        return _json(json.dumps(await asyncio.to_thread(_answered, rpc, asked)))

    async def fund(request: Request) -> Response:
        try:
            async with lock:
                await asyncio.to_thread(devnet.fund, request.path_params["address"])
        except AssayError as error:
            return error_response(error)
        return JSONResponse({"ether": str(ETHER), "tokens": str(TOKENS)})

    async def about(_request: Request) -> JSONResponse:
        head = devnet.chain.head
        return JSONResponse({"chain_id": CHAIN_ID, "block": head.number, **asdict(devnet.contracts)})

    routes = [
        Route("/", answer, methods=["POST"]),
        Route("/", about),
        Route("/health", about),
        Route("/fund/{address}", fund, methods=["POST"]),
    ]
    return Starlette(routes=routes, middleware=[Middleware(Limits, max_body=MAX_BODY)])


def _json(text: str) -> Response:
    """Of ASCII: what was asked may hold half a surrogate pair, which has no UTF-8."""
    return Response(text, media_type="application/json")


def _all_answered(rpc: ChainRpc, asked: Sequence[object]) -> str:
    """The answers to a batch; when they are too long, the last ones are errors."""
    answers: list[str] = []
    size = 0
    for each in asked:
        answer = json.dumps(_answered(rpc, each))
        if size + len(answer) > MAX_BATCH_BYTES:
            answer = json.dumps(_error(None, _REQUEST, f"a batch is answered with at most {MAX_BATCH_BYTES} bytes"))
        size += len(answer)
        answers.append(answer)
    return f"[{','.join(answers)}]"


def _answered(rpc: ChainRpc, asked: object) -> dict[str, object]:
    """The answer to one call."""
    if not isinstance(asked, Mapping) or not isinstance(asked.get("method"), str):
        return _error(None, _REQUEST, "a call is an object with a method")
    name = asked.get("id")
    name = name if isinstance(name, int | str) else None
    params = asked.get("params", [])
    if not isinstance(params, list):
        return _error(name, _REQUEST, "parameters are a list")
    try:
        return {"jsonrpc": "2.0", "id": name, "result": rpc.answer(asked["method"], params)}
    except RpcError as error:
        return _error(name, error.code, error.message, error.data)


def _error(name: int | str | None, code: int, message: str, data: str | None = None) -> dict[str, object]:
    error: dict[str, object] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return {"jsonrpc": "2.0", "id": name, "error": error}
