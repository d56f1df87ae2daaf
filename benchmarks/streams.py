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
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Final

import httpx
from benchmarks._stream_client import Round, Stream, resident, run

from assay.apps.figures import Figure, Say
from assay.apps.lifeline import PARENT
from assay.core.bundle import Bundle
from assay.core.errors import AssayError
from assay.verify.binding import check_offline

STREAMS: Final = 1000
"""At once."""
TOKENS: Final = 256
"""Of each stream: as many as consumers ask for who say nothing else."""
SECONDS: Final = 1.0
"""From one token to the next: providers, gateway and client together then do not fill two cores, where tokens would
come several at a time."""
RAMP: Final = 120.0
"""Seconds over which the streams begin."""
ROUNDS: Final = 3
PROVIDERS: Final = 8
"""Each a process, with places for a quarter of the streams."""
MOST: Final = 1.5
"""Bar: the gateway's processor time over the proxy's."""

_OF_ALL: Final = ("per_token_under_way", "per_answer_beside_its_tokens", "memory_per_stream")
"""Known where all streams were under way at once."""


def measure(
    say: Say, *, streams: int = STREAMS, tokens: int = TOKENS, seconds: float = SECONDS, rounds: int = ROUNDS
) -> Iterator[Figure]:
    """Rounds of gateway and proxy in turn."""
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="assay-bench-"))
        program, places = "benchmarks._stream_programs", str(max(streams // 4, 1))
        providers = [
            stack.enter_context(_python(scratch, program, "provider", str(number + 1), places, str(seconds)))
            for number in range(PROVIDERS)
        ]
        urls = [_line(each) for each in providers]
        named = [part for url in urls for part in ("--provider", url)]
        gateway = stack.enter_context(_python(scratch, "assay.apps.cli", "gateway", *named, "--port", "0", "--json"))
        proxy = stack.enter_context(_python(scratch, program, "proxy", *urls))
        ours = Program("gateway", json.loads(_line(gateway))["url"], gateway.pid)
        theirs = Program("proxy", _line(proxy), proxy.pid)
        verified = 0
        for number in range(rounds):
            for each in (ours, theirs):
                last = asyncio.run(run(each.url, each.process, streams, tokens, RAMP * streams / STREAMS))
                each.rounds.append(last)
                if each is ours:
                    verified += _verified(ours.url, last.streams, tokens)
                say(f"{number + 1}/{rounds} {each.name}: {_said(last, tokens)}")
        yield from _figures(ours, theirs, verified, streams, tokens)


@dataclass
class Program:
    """Gateway or proxy."""

    name: str
    url: str
    process: int
    rounds: list[Round] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.empty = resident(self.process)
        """Bytes that it holds before the first stream."""


def _figures(ours: Program, theirs: Program, verified: int, streams: int, tokens: int) -> Iterator[Figure]:
    rounds = len(ours.rounds)
    asked = rounds * streams
    failed = sum(map(_failed, ours.rounds))
    broken = sum(map(_failed, theirs.rounds))
    at_once = min(each.most for each in ours.rounds)
    yield Figure("streams_at_once", at_once, "streams", streams, at_once >= streams, rounds)
    yield Figure("streams_refused_or_broken", failed, "streams", 0, failed == 0, asked)
    yield Figure("streams_broken_by_the_proxy", broken, "streams", 0, broken == 0, asked)
    yield Figure("receipts_verified", verified, "receipts", asked, verified == asked, asked)
    for each in (ours, theirs):
        yield from _costs(each, streams, tokens)
    pairs = list(zip(ours.rounds, theirs.rounds, strict=True))
    ratio = median(one.processor / other.processor for one, other in pairs)
    yield Figure("gateway_over_proxy", ratio, "ratio", MOST, ratio <= MOST, rounds)
    if min(each.most for pair in pairs for each in pair) == streams:
        ratio = median(_per_token(one) / _per_token(other) for one, other in pairs)
        yield Figure("gateway_over_proxy_per_token_under_way", ratio, "ratio", MOST, ratio <= MOST, rounds)
        ratio = median(_per_answer(one, tokens) / _per_answer(other, tokens) for one, other in pairs)
        yield Figure("gateway_over_proxy_per_answer_beside_its_tokens", ratio, "ratio", None, None, rounds)


def _costs(program: Program, streams: int, tokens: int) -> Iterator[Figure]:
    """Medians of its rounds; what tokens and memory cost beside the rest is only known of rounds that were all open."""
    for name, unit, of in (
        ("per_stream", "ms", lambda each: 1e3 * each.processor / streams),
        ("per_stream_and_token", "us", lambda each: 1e6 * each.processor / (streams * tokens)),
        ("pieces_per_token", "", lambda each: _pieces(each, tokens)),
        ("first_token_p50", "s", lambda each: quantiles(_first(each), n=100)[49]),
        ("first_token_p99", "s", lambda each: quantiles(_first(each), n=100)[98]),
        ("per_token_under_way", "us", _per_token),
        ("per_answer_beside_its_tokens", "ms", lambda each: _per_answer(each, tokens)),
        ("memory_per_stream", "KiB", lambda each: (each.memory - program.empty) / streams / 2**10),
    ):
        known = [each for each in program.rounds if each.most == streams or name not in _OF_ALL]
        if known:
            yield Figure(f"{program.name}_{name}", median(map(of, known)), unit, None, None, len(known))


def _said(each: Round, tokens: int) -> str:
    return (
        f"{each.most} at once, {_failed(each)} refused or broken, {1e3 * each.processor / len(each.streams):.1f} ms a "
        f"stream: {_per_token(each):.0f} us a token and {_per_answer(each, tokens):.1f} ms an answer; "
        f"{_pieces(each, tokens):.2f} pieces a token, first one after {median(_first(each)):.2f} s"
    )


def _per_answer(each: Round, tokens: int) -> float:
    """Milliseconds of processor time for an answer, beside what its tokens take."""
    return 1e3 * each.processor / len(each.streams) - _per_token(each) * tokens / 1e3


def _first(each: Round) -> Sequence[float]:
    """Seconds to the first token of those streams that have one; [0, 0] where none has."""
    return [stream.first - stream.asked for stream in each.streams if stream.first] or [0.0, 0.0]


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
def _python(scratch: str, module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A running program."""
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
            yield process
        finally:
            process.kill()


def _line(process: subprocess.Popen[str]) -> str:
    """The first line that a program prints."""
    assert process.stdout
    return process.stdout.readline().strip()
