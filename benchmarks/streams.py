"""A thousand streams at once through one gateway: its processor time beside a bare proxy's, and every receipt checked.

Providers whose engine computes nothing, gateway, proxy and client are processes of their own on this machine. Gateway
and proxy run on the same server and serve the same number of streams in turn; the proxy passes on the same providers'
chat completions byte by byte, and neither matches, checks nor keeps anything. Linux only.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Final

import httpx
from benchmarks._stream_client import Round, Stream, run

from assay.apps.figures import Figure, Say
from assay.apps.lifeline import PARENT
from assay.core.bundle import Bundle
from assay.core.errors import AssayError
from assay.verify.binding import check_offline

STREAMS: Final = 1000
"""At once."""
TOKENS: Final = 32
"""Of each stream."""
SECONDS: Final = 1.0
"""From one token to the next: providers, gateway and client together then do not fill two cores, where tokens would
come several at a time."""
RAMP: Final = 15.0
"""Seconds over which the streams begin."""
ROUNDS: Final = 3
PROVIDERS: Final = 4
"""In one process; each has places for half of the streams."""
MOST: Final = 1.5
"""Bar: the gateway's processor time over the proxy's."""


def measure(
    say: Say, *, streams: int = STREAMS, tokens: int = TOKENS, seconds: float = SECONDS, rounds: int = ROUNDS
) -> Iterator[Figure]:
    """Rounds of gateway and proxy in turn."""
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="assay-bench-"))
        program = "benchmarks._stream_programs"
        given = program, "providers", str(PROVIDERS), str(streams), str(seconds)
        urls = json.loads(stack.enter_context(_python(scratch, *given))[0])
        named = [part for url in urls for part in ("--provider", url)]
        told, gateway_id = stack.enter_context(
            _python(scratch, "assay.apps.cli", "gateway", *named, "--port", "0", "--json")
        )
        gateway = json.loads(told)["url"]
        told, proxy_id = stack.enter_context(_python(scratch, program, "proxy", *urls))
        proxy = json.loads(told)
        ramp = RAMP * streams / STREAMS
        ours: list[Round] = []
        theirs: list[Round] = []
        verified = 0
        for number in range(rounds):
            for url, process, kept in ((gateway, gateway_id, ours), (proxy, proxy_id, theirs)):
                kept.append(asyncio.run(run(url, process, streams, tokens, ramp)))
                last, name = kept[-1], "gateway" if kept is ours else "proxy"
                if kept is ours:
                    verified += _verified(gateway, last.streams, tokens)
                say(
                    f"{number + 1}/{rounds} {name}: {last.most} at once, {_failed(last)} failed, "
                    f"{1000 * last.processor / streams:.1f} ms a stream, {_per_token(last):.0f} us a token, "
                    f"{_pieces(last, tokens):.2f} pieces a token"
                )
        yield from _figures(ours, theirs, verified, streams, tokens)


def _figures(
    ours: Sequence[Round], theirs: Sequence[Round], verified: int, streams: int, tokens: int
) -> Iterator[Figure]:
    rounds = len(ours)
    asked = rounds * streams
    failed = sum(map(_failed, ours))
    at_once = min(each.most for each in ours)
    yield Figure("streams_at_once", at_once, "streams", streams, at_once >= streams, rounds)
    yield Figure("streams_failed", failed, "streams", 0, failed == 0, asked)
    yield Figure("receipts_verified", verified, "receipts", asked, verified == asked, asked)
    for name, kept in (("gateway", ours), ("proxy", theirs)):
        whole = median(1e6 * each.processor / (streams * tokens) for each in kept)
        yield Figure(f"{name}_per_stream_and_token", whole, "us", None, None, rounds)
        yield Figure(f"{name}_per_token_under_way", median(map(_per_token, kept)), "us", None, None, rounds)
        once = median(1e3 * each.processor / streams - _per_token(each) * tokens / 1e3 for each in kept)
        yield Figure(f"{name}_per_answer_beside_its_tokens", once, "ms", None, None, rounds)
        yield Figure(f"{name}_pieces_per_token", median(_pieces(each, tokens) for each in kept), "", None, None, rounds)
        yield Figure(f"{name}_memory", max(each.memory for each in kept) / 2**20, "MiB", None, None, rounds)
    ratio = median(one.processor / other.processor for one, other in zip(ours, theirs, strict=True))
    yield Figure("gateway_over_proxy", ratio, "ratio", MOST, ratio <= MOST, rounds)
    ratio = median(_per_token(one) / _per_token(other) for one, other in zip(ours, theirs, strict=True))
    yield Figure("gateway_over_proxy_per_token_under_way", ratio, "ratio", MOST, ratio <= MOST, rounds)


def _failed(each: Round) -> int:
    return sum(not stream.whole for stream in each.streams)


def _per_token(each: Round) -> float:
    """Microseconds of processor time for a token while all streams are under way."""
    return 1e6 * each.between / max(each.tokens_between, 1)


def _pieces(each: Round, tokens: int) -> float:
    """In how many pieces the client got a token: below 1, several came at a time, which costs less."""
    return sum(stream.pieces for stream in each.streams) / (len(each.streams) * tokens)


def _verified(gateway: str, streams: Sequence[Stream], tokens: int) -> int:
    """How many of the streams have a receipt that holds, for all of their tokens."""
    count = 0
    with httpx.Client(timeout=60, trust_env=False) as client:
        for stream in streams:
            if not stream.whole:
                continue
            try:
                bundle = Bundle.decode(client.get(f"{gateway}/receipts/{stream.id}").content)
                check_offline(bundle)
            except AssayError:
                continue
            count += len(bundle.tokens) == tokens
    return count


@contextmanager
def _python(scratch: str, module: str, *arguments: str) -> Iterator[tuple[str, int]]:
    """A running program; gives its first line and its number."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ASSAY_")}
    with subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).resolve().parents[1],
        env={**kept, "ASSAY_HOME": scratch, "ASSAY_LOG_LEVEL": "warning", PARENT: str(os.getpid())},
    ) as process:
        try:
            assert process.stdout
            yield process.stdout.readline(), process.pid
        finally:
            process.kill()
