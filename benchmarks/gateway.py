"""What gateway, provider and receipt cost, beside a bare decode loop and llama.cpp's own server, in one run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import httpx
from benchmarks._peers import PROMPT

from assay.apps.config import home
from assay.apps.figures import Figure, Say
from assay.apps.lifeline import PARENT
from assay.apps.wiring import find_model

TOKENS = 96
"""Tokens of each of four answers."""
LONG = 192
"""Tokens of a single answer, whose time counts to its last event, the receipt."""
ROUNDS = 9
"""Comparisons of throughput, each of the two sides in turn."""
FIRSTS = 40
"""Comparisons of the time to the first token."""
MODEL = "smollm2-135m"


def measure(say: Say) -> Iterable[Figure]:
    """Start everything, then measure each pair in turn."""
    path = find_model(MODEL).path
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="assay-bench-"))
        bare = stack.enter_context(_bare(path))
        provider = stack.enter_context(
            _assay(scratch, "serve", "--model", str(path), "--threads", "1", "--context", "1024")
        )
        gateway = stack.enter_context(_assay(scratch, "gateway", "--provider", provider))
        foreign = stack.enter_context(_python("-m", "benchmarks._peers", "server", str(path)))
        client = stack.enter_context(httpx.Client(timeout=120))
        model = client.get(f"{gateway}/v1/models").json()["data"][0]["id"]

        yield from _one_stream(say, client, gateway, model, bare)
        yield from _four_streams(say, gateway, model, foreign)
        yield from _first_token(say, client, gateway, provider, model)
        yield from _receipt_size(client, gateway, model)


def _one_stream(
    say: Say, client: httpx.Client, gateway: str, model: str, bare: subprocess.Popen[str]
) -> Iterator[Figure]:
    ratios, ours, theirs = [], [], []
    for number in range(-1, ROUNDS):
        baseline = _bare_seconds(bare)
        stream = _stream(client, gateway, model, LONG)
        if number < 0:
            continue
        ours.append((stream["tokens"] - 1) / stream["generating"])
        theirs.append(LONG / baseline)
        ratios.append(ours[-1] / theirs[-1])
        say(f"one stream {number + 1}/{ROUNDS}: {ours[-1]:.1f} against {theirs[-1]:.1f} tokens/s")
    yield Figure("one_stream", median(ours), "tokens/s", None, None, ROUNDS)
    yield Figure("bare_loop", median(theirs), "tokens/s", None, None, ROUNDS)
    ratio = median(ratios)
    yield Figure("one_stream_over_bare_loop", ratio, "ratio", 0.95, ratio >= 0.95, ROUNDS)


def _four_streams(say: Say, gateway: str, model: str, foreign: str) -> Iterator[Figure]:
    ratios, ours, theirs = [], [], []
    for number in range(-1, ROUNDS):
        one, other = _aggregate(foreign, ""), _aggregate(gateway, model)
        if number < 0:
            continue
        theirs.append(one)
        ours.append(other)
        ratios.append(other / one)
        say(f"four streams {number + 1}/{ROUNDS}: {other:.1f} against {one:.1f} tokens/s")
    yield Figure("four_streams", median(ours), "tokens/s", None, None, ROUNDS)
    yield Figure("llama_server_four_streams", median(theirs), "tokens/s", None, None, ROUNDS)
    ratio = median(ratios)
    yield Figure("four_streams_over_llama_server", ratio, "ratio", 0.9, ratio >= 0.9, ROUNDS)


def _first_token(say: Say, client: httpx.Client, gateway: str, provider: str, model: str) -> Iterator[Figure]:
    say("time to first token, through the gateway and straight from the provider")
    through, straight = [], []
    for number in range(FIRSTS):
        for url, times in (
            ((gateway, through), (provider, straight)) if number % 2 else ((provider, straight), (gateway, through))
        ):
            times.append(_stream(client, url, model, 2)["first"])
    yield Figure("first_token_through_gateway_p50", 1000 * median(through), "ms", None, None, FIRSTS)
    yield Figure("first_token_from_provider_p50", 1000 * median(straight), "ms", None, None, FIRSTS)
    added = 1000 * (median(through) - median(straight))
    yield Figure("gateway_adds_to_first_token_p50", added, "ms", 10, added <= 10, FIRSTS)


def _receipt_size(client: httpx.Client, gateway: str, model: str) -> Iterator[Figure]:
    # Counts of as many digits: what differs between these receipts would be there for each token.
    short, long = (_stream(client, gateway, model, count) for count in (100, 200))
    largest = max(int(short["receipt"]), int(long["receipt"]))
    yield Figure("receipt_size", largest, "bytes of JSON", 900, largest <= 900, 2)
    growth = (long["receipt"] - short["receipt"]) / (long["tokens"] - short["tokens"])
    yield Figure("receipt_bytes_per_token", growth, "bytes/token", 0, growth <= 0, 2)


def _aggregate(url: str, model: str) -> float:
    """Tokens a second of four streams together, from the first request to the last token."""
    barrier = threading.Barrier(5)

    def one(_: int) -> int:
        with httpx.Client(timeout=120) as client:
            barrier.wait()
            return int(_stream(client, url, model, TOKENS)["tokens"])

    with ThreadPoolExecutor(4) as pool:
        streams = [pool.submit(one, number) for number in range(4)]
        barrier.wait()
        started = time.perf_counter()
        tokens = sum(stream.result() for stream in streams)
    return tokens / (time.perf_counter() - started)


def _stream(client: httpx.Client, url: str, model: str, tokens: int) -> Mapping[str, float]:
    """One streamed answer: its tokens, seconds to the first and from there to the end, bytes of its receipt."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    started = time.perf_counter()
    first = 0.0
    count = receipt = 0
    with client.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line[6:])
            if not first and chunk.get("choices") and chunk["choices"][0]["delta"].get("content"):
                first = time.perf_counter()
            if chunk.get("usage"):
                count = chunk["usage"]["completion_tokens"]
            for item in (chunk.get("assay") or {}).get("receipts", []):
                receipt = len(json.dumps(item, separators=(",", ":")))
    ended = time.perf_counter()
    return {"tokens": count, "first": first - started, "generating": ended - first, "receipt": receipt}


def _bare_seconds(process: subprocess.Popen[str]) -> float:
    assert process.stdin
    assert process.stdout
    process.stdin.write("go\n")
    process.stdin.flush()
    return float(process.stdout.readline())


@contextmanager
def _bare(path: Path) -> Iterator[subprocess.Popen[str]]:
    with _spawn("-m", "benchmarks._peers", "bare", str(path), str(LONG)) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield process


@contextmanager
def _python(*arguments: str) -> Iterator[str]:
    with _spawn(*arguments) as process:
        assert process.stdout
        yield process.stdout.readline().strip()


@contextmanager
def _assay(scratch: str, *arguments: str) -> Iterator[str]:
    environment = {
        "ASSAY_DATA_DIR": str(Path(scratch) / arguments[0]),
        "ASSAY_HOME": str(home()),
        "ASSAY_LOG_LEVEL": "warning",
        PARENT: str(os.getpid()),
    }
    with _spawn("-m", "assay.apps.cli", *arguments, "--port", "0", "--json", env=environment) as process:
        assert process.stdout
        yield str(json.loads(process.stdout.readline())["url"])


@contextmanager
def _spawn(*arguments: str, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).resolve().parents[1],
        env={**os.environ, **(env or {})},
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)
