"""What payment costs: signing and checking a voucher, and the same answer with and without it, in turn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median, quantiles

import httpx

from assay.apps.config import home
from assay.apps.figures import Figure, Say
from assay.apps.lifeline import PARENT
from assay.apps.wiring import find_model
from assay.core.keys import Key, keccak256
from assay.core.payment import pay_for
from assay.core.voucher import Terms, channels_domain, sign_voucher

TOKENS = 64
"""Of each answer."""
ROUNDS = 100
"""Pairs of answers, each side first in turn."""
PAUSE = 0.1
"""Seconds after each answer, for what is done behind it: its processor time is counted, too."""
VOUCHERS = 2000
MODEL = "smollm2-135m"


def measure(say: Say, *, model: str = MODEL) -> Iterable[Figure]:
    """`model`: a name or a GGUF file."""
    yield from _vouchers()
    path = find_model(model).path
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="assay-bench-")))
        chain = stack.enter_context(_assay(scratch / "chain", [], "devnet"))
        processes: list[int] = []
        free, paid = stack.enter_context(_pair(scratch / "providers", str(path), chain, processes))
        named = ("--provider", free, "--provider", paid)
        gateway = stack.enter_context(_assay(scratch / "gateway", processes, "gateway", *named, "--chain", chain))
        client = stack.enter_context(httpx.Client(timeout=120))
        name = client.get(f"{gateway}/v1/models").json()["data"][0]["id"]
        yield from _answers(say, client, gateway, (free, paid), name, processes)
        yield from _money(client, gateway)


def _vouchers() -> Iterator[Figure]:
    """Signing one and checking it, with what goes beside a request."""
    key = Key.from_secret(keccak256(b"bench"))
    domain = channels_domain(31_337, key.address)
    terms = Terms(*[key.address] * 5, 900, bytes(32))
    channel = terms.channel(domain)
    times = []
    for amount in range(1, VOUCHERS + 1):
        started = time.perf_counter()
        voucher = sign_voucher(key, domain, channel, amount)
        pay_for(key, terms, channel, bytes(32), voucher).check(channel, bytes(32))
        voucher.check(domain, key.address)
        times.append(1000 * (time.perf_counter() - started))
    value = median(times)
    yield Figure("sign_and_check_voucher_p50", value, "ms", 1, value < 1, VOUCHERS)
    slow = quantiles(times, n=100)[98]
    yield Figure("sign_and_check_voucher_p99", slow, "ms", None, None, VOUCHERS)


def _answers(
    say: Say, client: httpx.Client, gateway: str, providers: tuple[str, str], model: str, processes: list[int]
) -> Iterator[Figure]:
    """Ratios of neighbours, which meet the machine in one state as far as it has one: the same gateway, the same
    engine, and two providers of which one is paid."""
    free, paid = providers
    ratios, firsts, sides, spent = [], [], {free: [], paid: []}, {free: 0.0, paid: 0.0}
    for number in range(-4, ROUNDS):
        order = (free, paid) if number % 2 else (paid, free)
        took = {}
        for url in order:
            before = _processor(processes)
            took[url] = _stream(client, gateway, url, model)
            time.sleep(PAUSE)
            if number >= 0:
                spent[url] += _processor(processes) - before
        if number < 0:
            continue
        ratios.append(took[paid]["whole"] / took[free]["whole"])
        firsts.append(1000 * (took[paid]["first"] - took[free]["first"]))
        for url, times in sides.items():
            times.append(took[url]["whole"])
        if number % 10 == 9:
            say(f"{number + 1}/{ROUNDS}: {median(ratios):.4f}")
    yield Figure("answer_unpaid", median(sides[free]), "s", None, None, ROUNDS)
    yield Figure("answer_paid", median(sides[paid]), "s", None, None, ROUNDS)
    ratio = median(ratios)
    yield Figure("paid_over_unpaid", ratio, "ratio", 1.01, ratio <= 1.01, ROUNDS)
    low, _, high = quantiles(ratios, n=4)
    yield Figure("paid_over_unpaid_quartile_1", low, "ratio", None, None, ROUNDS)
    yield Figure("paid_over_unpaid_quartile_3", high, "ratio", None, None, ROUNDS)
    # Of the order statistics, by the binomial distribution's normal approximation.
    ordered, half = sorted(ratios), round(0.98 * ROUNDS**0.5)
    for name, place in (("low", ROUNDS // 2 - half), ("high", ROUNDS // 2 + half)):
        yield Figure(f"paid_over_unpaid_95_{name}", ordered[place], "ratio", None, None, ROUNDS)
    if spent[free]:
        work = spent[paid] / spent[free]
        yield Figure("processor_time_paid_over_unpaid", work, "ratio", None, None, ROUNDS)
        more = 1000 * (spent[paid] - spent[free]) / ROUNDS
        yield Figure("processor_time_of_payment", more, "ms/answer", None, None, ROUNDS)
    yield Figure("payment_adds_to_first_token_p50", median(firsts), "ms", None, None, ROUNDS)


def _money(client: httpx.Client, gateway: str) -> Iterator[Figure]:
    """All of it arrived."""
    end = time.monotonic() + 10
    while (wei := _wei(client, gateway))["earned"] != wei["accepted"] and time.monotonic() < end:
        time.sleep(0.1)
    unpaid = wei["earned"] - wei["accepted"]
    yield Figure("unpaid_at_the_end", unpaid, "wei", 0, unpaid == 0, ROUNDS)


def _processor(processes: list[int]) -> float:
    """Seconds of processor time that they have had; 0 where the system does not tell."""
    try:
        stats = [Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split() for each in processes]
    except OSError:
        return 0.0
    return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")


def _wei(client: httpx.Client, url: str) -> Mapping[str, int]:
    lines = client.get(f"{url}/metrics").text.splitlines()
    return {line.split('"')[1]: int(float(line.split()[-1])) for line in lines if line.startswith("assay_wei{")}


def _stream(client: httpx.Client, gateway: str, provider: str, model: str) -> Mapping[str, float]:
    """Seconds to the first token, and to the end of one streamed answer."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Write a long story about a river and a mountain."}],
        "max_tokens": TOKENS,
        "temperature": 0,
        "stream": True,
        "assay": {"only": [provider], "level": "pinned"},
    }
    started, first, ended = time.perf_counter(), 0.0, False
    with client.stream("POST", f"{gateway}/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            if line.startswith("data: {") and '"content":"' in line and '"role"' not in line:
                first = first or time.perf_counter() - started
            ended = ended or line == "data: [DONE]"
    assert ended
    assert first
    return {"first": first, "whole": time.perf_counter() - started}


@contextmanager
def _pair(scratch: Path, model: str, chain: str, processes: list[int]) -> Iterator[tuple[str, str]]:
    """Two providers; their addresses."""
    with _python(scratch, processes, "-m", "benchmarks._paid_pair", model, chain) as line:
        free, paid = json.loads(line)
        yield free, paid


@contextmanager
def _assay(scratch: Path, processes: list[int], *arguments: str) -> Iterator[str]:
    """A running `assay` program; gives its address."""
    with _python(scratch, processes, "-m", "assay.apps.cli", *arguments, "--port", "0", "--json") as line:
        yield json.loads(line)["url"]


@contextmanager
def _python(scratch: Path, processes: list[int], *arguments: str) -> Iterator[str]:
    """A running program of its own home, noted in `processes`; gives its first line."""
    (scratch / "models").parent.mkdir(exist_ok=True)
    (scratch / "models").symlink_to(home() / "models")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ASSAY_")}
    with subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).resolve().parents[1],
        env={**kept, "ASSAY_HOME": str(scratch), PARENT: str(os.getpid())},
    ) as process:
        try:
            assert process.stdout
            processes.append(process.pid)
            yield process.stdout.readline()
        finally:
            process.kill()
