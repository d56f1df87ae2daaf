"""Foreign OpenAI servers: llama.cpp's, and one over the tiny model that speaks as others do (vLLM, Ollama, less)."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from tests.tiny import EOG, N_VOCAB, START, TinyModel, TinyTokenizer

KNOWN: Final = frozenset(
    (
        "model",
        "prompt",
        "max_tokens",
        "temperature",
        "top_p",
        "stream",
        "stream_options",
        "logprobs",
        "seed",
        "logit_bias",
    )
)
"""Members that OpenAI has."""


@dataclass
class Dialect:
    """How a server speaks. The default is vLLM's way."""

    ids: bool = True
    """Takes prompts as ids, and gives ids."""
    logprobs: str = "columns"
    """`columns`, `content` or nothing."""
    strict: bool = False
    """Refuses members that OpenAI does not have."""
    most: int = 20
    """Alternatives."""
    processed: bool = False
    """Log-probabilities are from after temperature and filters."""
    template: str = ""
    """Put before every prompt."""
    shift: int = 0
    """Added to every token id that it names: another vocabulary."""
    ignores: tuple[str, ...] = ()
    """Sampler settings that it takes and does not follow."""
    tells_end: bool = True
    """The token that ends an answer is among those that it sends."""
    ends_at: int | None = None
    """End there, or as soon after as the end is one of the five most probable tokens."""
    seed: int = 0
    """Of the tiny model."""
    delay: float = 0.0
    """Seconds before each token."""
    key: str = ""
    closed: int = 0
    """Answers whose consumer hung up."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    """What was asked."""


def foreign_app(dialect: Dialect) -> Starlette:
    """The server."""

    async def models(request: Request) -> Response:
        entry = {"id": "tiny", "object": "model", "owned_by": "fake", "max_model_len": 512}
        return JSONResponse({"object": "list", "data": [entry]})

    async def version(request: Request) -> Response:
        return JSONResponse({"version": "1.2.3"})

    async def completions(request: Request) -> Response:
        if dialect.key and request.headers.get("authorization") != f"Bearer {dialect.key}":
            return _error(401, "wrong key")
        body = json.loads(await request.body())
        dialect.bodies.append(body)
        unknown = body.keys() - KNOWN
        if dialect.strict and unknown:
            return _error(400, f"unknown members {sorted(unknown)}")
        if isinstance(body["prompt"], list) and not dialect.ids:
            return _error(400, "prompt: text is wanted")
        if body.get("logprobs", 0) > dialect.most:
            return _error(400, f"logprobs: at most {dialect.most}")
        prompt = body["prompt"]
        ids = list(prompt) if isinstance(prompt, list) else [START, *(dialect.template + prompt).encode()]
        return StreamingResponse(_stream(dialect, body, ids), media_type="text/event-stream")

    return Starlette(
        routes=[
            Route("/v1/models", models),
            Route("/version", version),
            Route("/v1/completions", completions, methods=["POST"]),
        ]
    )


async def _stream(dialect: Dialect, body: dict[str, Any], ids: list[int]) -> AsyncIterator[bytes]:
    model, random = TinyModel(dialect.seed), np.random.default_rng(body.get("seed", 0))
    made, finish = 0, "length"
    read = len(ids)
    try:
        while made < body["max_tokens"]:
            await asyncio.sleep(dialect.delay)
            row = model.logits(ids).astype(np.float64)
            for token, bias in body.get("logit_bias", {}).items():
                row[int(token)] += bias
            weights = _weights(row, {name: value for name, value in body.items() if name not in dialect.ignores})
            if dialect.ends_at is not None and body["max_tokens"] >= 32:
                if made >= dialect.ends_at and EOG in np.argsort(-row)[:5]:
                    weights = (np.arange(N_VOCAB) == EOG).astype(np.float64)
                else:
                    weights[EOG] = 0.0
            token = int(random.choice(N_VOCAB, p=weights / weights.sum()))
            made += 1
            ids.append(token)
            if token == EOG:
                finish = "stop"
                if not dialect.tells_end:
                    break
            shown = (
                np.log(np.maximum(weights / weights.sum(), 1e-300))
                if dialect.processed
                else _log(model.logits(ids[:-1]))
            )
            yield _event(dialect, token, shown, body, read, made)
            if token == EOG:
                break
    except BaseException:
        dialect.closed += 1
        raise
    usage = {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}
    final = {"choices": [{"index": 0, "text": "", "finish_reason": finish}], "usage": usage}
    yield f"data: {json.dumps(final)}\n\ndata: [DONE]\n\n".encode()


def _log(row: np.ndarray) -> np.ndarray:
    row = row.astype(np.float64)
    return row - row.max() - np.log(np.exp(row - row.max()).sum())


def _weights(row: np.ndarray, body: dict[str, Any]) -> np.ndarray:
    if body.get("temperature", 1.0) == 0:
        return (np.arange(N_VOCAB) == row.argmax()).astype(np.float64)
    weights = np.exp((row - row.max()) / body.get("temperature", 1.0))
    order = np.argsort(-weights, kind="stable")
    kept = np.zeros(N_VOCAB, dtype=bool)
    kept[order[: body.get("top_k") or N_VOCAB]] = True
    mass = np.cumsum(weights[order]) / weights.sum()
    kept[order[int(np.searchsorted(mass, body.get("top_p", 1.0))) + 1 :]] = False
    kept &= weights >= weights.max() * body.get("min_p", 0.0)
    return np.where(kept, weights, 0.0)


def _event(dialect: Dialect, token: int, shown: np.ndarray, body: dict[str, Any], read: int, made: int) -> bytes:
    piece = TinyTokenizer().piece(token)
    count = body.get("logprobs")
    choice: dict[str, Any] = {"index": 0, "text": piece.decode("utf-8", "replace"), "finish_reason": None}
    if count is not None and dialect.logprobs:
        best = np.argsort(-shown, kind="stable")[:count].tolist()
        if dialect.logprobs == "columns":
            choice["logprobs"] = {
                "tokens": [_name(dialect, token)],
                "token_logprobs": [shown[token]],
                "top_logprobs": [{_name(dialect, other): shown[other] for other in {*best, token}}],
            }
        else:
            choice["logprobs"] = {
                "content": [_entry(token, shown) | {"top_logprobs": [_entry(i, shown) for i in best]}]
            }
    if dialect.ids:
        choice["token_ids"] = [token + dialect.shift]
    value: dict[str, Any] = {"id": "cmpl-1", "object": "text_completion", "choices": [choice]}
    if (body.get("stream_options") or {}).get("continuous_usage_stats"):
        value["usage"] = {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}
    return f"data: {json.dumps(value)}\n\n".encode()


def _name(dialect: Dialect, token: int) -> str:
    return f"token_id:{token + dialect.shift}"


def _entry(token: int, shown: np.ndarray) -> dict[str, Any]:
    data = TinyTokenizer().piece(token)
    return {"token": data.decode("utf-8", "replace"), "bytes": list(data), "logprob": float(shown[token])}


def _error(code: int, message: str) -> Response:
    return JSONResponse({"error": {"message": message, "type": "invalid_request_error"}}, status_code=code)


def canned_app(
    events: Sequence[bytes], *, status: int = 200, pause: float = 0.0, headers: dict[str, str] | None = None
) -> Starlette:
    """A server that sends `events`, whatever it is asked."""

    async def completions(request: Request) -> Response:
        async def send() -> AsyncIterator[bytes]:
            for event in events:
                yield event
            await asyncio.sleep(pause)

        return StreamingResponse(send(), status_code=status, media_type="text/event-stream", headers=headers)

    return Starlette(routes=[Route("/v1/completions", completions, methods=["POST"])])


_SERVER = """
import sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.n_parallel, params.n_ctx, params.warmup, params.port = 2, 1024, False, 0
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


@contextmanager
def llama_server(path: Path) -> Iterator[str]:
    """llama.cpp's own server in a process of its own: two places of 512 positions, one thread."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()
