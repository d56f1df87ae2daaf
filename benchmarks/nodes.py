"""The same fifty nodes (`_scenario.py`) as discrete events, asyncio peers and real processes, and how far they differ.

The third tier is a real `assay gateway` and REAL real `assay serve` with a real model, each on a host (network
namespace) of its own, and the other nodes in processes of NODES_EACH, one host each: the provider's real application,
journey, store and HTTP over an engine that waits. Their distances are waited for, not in the cables. Linux only.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
from benchmarks._network import Job
from benchmarks._nodes import MODEL
from benchmarks._scenario import NODES, REAL, REAL_PLACES, asked, by_events, by_peers, network
from tests.e2e.hosts import Host, bridged, impossible
from tests.e2e.kit import ROOT, Place, all_running

from assay.apps.config import home
from assay.apps.figures import Figure, Say
from assay.apps.lifeline import start, stop
from assay.core.errors import MachineError
from assay.engines.models import pull

NODES_EACH: Final = 8
"""In one process, at most."""
WARM: Final = 30.0
"""Seconds that are not measured."""
SECONDS: Final = 120.0
PATIENCE: Final = 300.0
"""Seconds for a whole answer."""
_STORY: Final = "Write a long story about rivers."
_PROBES: Final = 5
"""Answers by which a real node's speed is measured, of each of two lengths."""


def measure(say: Say, *, warm: float = WARM, seconds: float = SECONDS) -> Iterator[Figure]:
    """Percentiles of the time to the first token in each tier.

    Raises:
        MachineError: there are no network namespaces here.
    """
    if reason := impossible():
        raise MachineError(
            f"there are no network namespaces here: {reason}", "run it on Linux, where users may make them"
        )
    with tempfile.TemporaryDirectory() as folder:
        read, write, real, lost = _by_processes(say, Path(folder), warm, seconds)
    yield Figure("real_read", 1 / read, "tokens a second", None, None, _PROBES)
    yield Figure("real_write", 1 / write, "tokens a second", None, None, _PROBES)
    tiers = {
        "events": by_events(read, write, warm=warm, seconds=seconds),
        "peers": by_peers(read, write, warm=warm, seconds=seconds),
        "processes": (real, lost),
    }
    for percent in (50, 90, 99):
        found = {name: float(np.percentile(times, percent)) for name, (times, _) in tiers.items()}
        for name, value in found.items():
            yield Figure(f"{name}_p{percent}", value, "s", None, None, len(tiers[name][0]))
        for name in ("peers", "processes"):
            ratio = found[name] / found["events"]
            yield Figure(f"{name}_over_events_p{percent}", ratio, "ratio", None, None, len(tiers[name][0]))
    for name, (times, missing) in tiers.items():
        yield Figure(f"{name}_not_answered", missing, "requests", 0, missing == 0, len(times) + missing)


def _by_processes(say: Say, folder: Path, warm: float, seconds: float) -> tuple[float, float, list[float], int]:
    """Seconds a token that the real nodes read and write, seconds to each first token, and requests that failed."""
    model = pull(MODEL, home()).path
    waiting = NODES - REAL
    parts = [(at, min(at + NODES_EACH, waiting)) for at in range(0, waiting, NODES_EACH)]
    with ExitStack() as stack:
        hosts = stack.enter_context(bridged(REAL + len(parts) + 1))
        size = ("--port", "0", "--json", "--threads", "1", "--parallel", str(REAL_PLACES), "--context", "2048")
        serve = ("serve", "--host", "0.0.0.0", "--model", str(model), *size)
        starts = [
            _place(folder / f"real{host.number}").running("provider", *serve, wait=False, prefix=host.prefix)
            for host in hosts[:REAL]
        ]
        programs = stack.enter_context(all_running(starts))
        urls = [_at(host, program.url.rpartition(":")[2]) for host, program in zip(hosts[:REAL], programs, strict=True)]
        say(f"{REAL} nodes with a real model")
        read, write = _speeds(hosts[0], int(urls[0].rpartition(":")[2]), folder)
        say(f"they read {1 / read:.0f} and write {1 / write:.0f} tokens a second")
        processes: list[subprocess.Popen[bytes]] = []
        log = stack.enter_context((folder / "nodes.log").open("ab"))
        environment = {**_place(folder / "nodes").environment(), "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
        stack.callback(lambda: stop(processes))
        for host, (first, past) in zip(hosts[REAL:-1], parts, strict=True):
            command = [
                sys.executable,
                "-m",
                "benchmarks._nodes",
                str(folder),
                str(first),
                str(past),
                str(read),
                str(write),
            ]
            processes.append(start([*host.prefix, *command], env=environment, log=log))
        for host, process in zip(hosts[REAL:-1], processes, strict=True):
            assert process.stdout is not None
            urls += [_at(host, port) for port in json.loads(process.stdout.readline())["ports"]]
        say(f"{waiting} nodes in {len(processes)} processes")
        providers = [word for url in urls for word in ("--provider", url)]
        listen = ("gateway", "--host", "0.0.0.0", "--port", "0", "--json", *providers)
        gateway = stack.enter_context(_place(folder / "gateway").running("gateway", *listen, prefix=hosts[-1].prefix))
        port = int(gateway.url.rpartition(":")[2])
        with hosts[-1].client(port, folder) as http:
            _all_listed(http, len(urls))
        stack.enter_context(hosts[-1].client(port, folder))
        begin = time.time() + 1.0
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(f"{begin}\n".encode())
            process.stdin.flush()
        requests = asked(network(read, write), warm + seconds)
        times, lost = asyncio.run(_ask(say, folder / f"port{port}.sock", requests, begin, warm))
    return read, write, times, lost


def _place(root: Path) -> Place:
    root.mkdir(parents=True, exist_ok=True)
    return Place(root)


def _at(host: Host, port: str) -> str:
    return f"http://10.77.0.{host.number}:{port}"


def _all_listed(http: httpx.Client, count: int) -> None:
    end = time.monotonic() + 60.0
    while True:
        listed = http.get("/v1/models").json()
        signed = {
            offer["provider"]
            for each in listed.get("data", ())
            for offer in each["assay"]["offers"]
            if offer["level"] == "signed"
        }
        if len(signed) >= count:
            return
        if time.monotonic() > end:
            raise MachineError(
                f"{len(signed)} of {count} nodes were found within a minute", "run it on a quieter machine"
            )
        time.sleep(0.5)


def _body(job: Job, number: int) -> Mapping[str, Any]:
    """About as many tokens as the job has, for either kind of node; no two numbers are one conversation."""
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": f"{number} " + "the " * int(job.prompt) + _STORY}],
        "max_tokens": max(int(job.output), 1),
        "stream": True,
        "assay": {"level": "signed", "sort": "latency"},
    }


def _speeds(host: Host, port: int, folder: Path) -> tuple[float, float]:
    """Seconds a token, to read and to write, of the node there: medians."""
    firsts: dict[int, list[float]] = {50: [], 450: []}
    writes: list[float] = []
    with host.client(port, folder) as http:
        for number in range(_PROBES):
            for prompt, found in firsts.items():
                body = _body(Job(prompt, 24), number)
                began, seen = time.monotonic(), list[float]()
                with http.stream("POST", "/v1/chat/completions", json=body) as reply:
                    seen += [time.monotonic() - began for line in reply.iter_lines() if _is_token(line)]
                found.append(seen[0])
                if len(seen) > 2:
                    writes.append((seen[-1] - seen[0]) / (len(seen) - 1))
    short, long = (float(np.median(each)) for each in firsts.values())
    return max(long - short, 1e-3) / 400, float(np.median(writes))


def _is_token(line: str) -> bool:
    if not line.startswith("data: {"):
        return False
    choices = json.loads(line.removeprefix("data: ")).get("choices") or [{}]
    return bool(choices[0].get("delta", {}).get("content") or choices[0].get("finish_reason"))


async def _ask(
    say: Say, socket: Path, requests: Sequence[tuple[float, Job]], begin: float, warm: float
) -> tuple[list[float], int]:
    """Seconds to each first token of those asked after `warm`, as the client sees them; how many failed."""
    times: list[float] = []
    lost, late = 0, 0.0
    transport = httpx.AsyncHTTPTransport(uds=str(socket), limits=httpx.Limits(max_connections=None))
    async with httpx.AsyncClient(base_url="http://host", transport=transport, timeout=PATIENCE) as http:

        async def one(number: int, at: float, job: Job) -> None:
            nonlocal lost, late
            await asyncio.sleep(max(begin + at - time.time(), 0.0))
            late = max(late, time.time() - begin - at)
            began, first, done, last = time.monotonic(), 0.0, False, ""
            try:
                async with http.stream("POST", "/v1/chat/completions", json=_body(job, number)) as reply:
                    async for line in reply.aiter_lines():
                        if not first and _is_token(line):
                            first = time.monotonic() - began
                        done = done or line == "data: [DONE]"
                        last = line or last
            except httpx.HTTPError as error:
                done, last = False, repr(error)
            if at >= warm and first and done:
                times.append(first)
            elif at >= warm:
                lost += 1
                say(f"not answered: {last[:500]}")

        await asyncio.gather(*(one(number, at, job) for number, (at, job) in enumerate(requests)))
    say(f"{len(times)} answers, {lost} failed; requests were at most {late:.2f} s late")
    return times, lost
