"""How often honest answers raise an alarm, and how often each cheat is caught, at `pinned` and at `statistical`.

Provers and verifier share this process: what is counted is checks, not networking. Every answer is generated anew with
fresh engines, and the checks are those that `assay verify` makes.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks._audits import answers, at_temperatures, built, pools, requests

from assay.apps.cheats import CHEATS, Dishonest, Workshop
from assay.apps.checking import load_calibration, open_checker
from assay.apps.figures import Figure, Say
from assay.apps.wiring import find_model
from assay.core.bundle import Bundle
from assay.core.request import Request
from assay.core.verdict import Verdict
from assay.verify.calibration import REJECT
from assay.verify.policy import contradictions, pooled

MODEL: Final = "smollm2-135m"
TOKENS: Final = 64
FEWEST: Final = 48
"""Shorter honest answers are not counted."""
HONEST: Final = ((1, 1, 50), (1, 2, 50), (1, 4, 100), (2, 1, 20), (2, 4, 40))
"""Honest answers at `pinned`: threads, parallel streams, requests (some end early and are not counted)."""
PINNED_RUNS: Final = 12
"""Answers of each cheat at `pinned`."""
SINGLE: Final = ("other-model", "q4_0", "system-prompt")
SINGLE_RUNS: Final = 100
"""Answers of FEWEST tokens or more of each cheat that one answer gives away."""
POOLED: Final = ("temperature", "seed", "cheap-prefill")
POOLED_RUNS: Final = 80
POOL: Final = 8
POOLS: Final = 500
COST_RUNS: Final = 20
SAMPLERS: Final = ("temperature", "top-p", "seed")
"""Cheats that a short answer may come through unchanged: theirs have FEWEST tokens or more."""
Check = Callable[[Bundle], Verdict]


def measure(say: Say) -> Iterable[Figure]:
    """Both levels, honest answers first."""
    model = find_model(MODEL)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="assay-bench-")))
        check = stack.enter_context(open_checker(model))
        shop = Workshop(model.path, model.name, model.sha256, scratch, parallel=4, context=2048)
        yield from _pinned(say, check, shop)
        yield from _cost(say, check, shop)
        yield from _statistical(say, check, replace(shop, regime="free"))


def _pinned(say: Say, check: Check, shop: Workshop) -> Iterator[Figure]:
    verdicts: list[Verdict] = []
    contexts: list[int] = []
    for threads, parallel, count in HONEST:
        with built(_honest, replace(shop, threads=threads, parallel=parallel)) as provider:
            asked = list(requests(count, "pinned", TOKENS, seed=threads * 10 + parallel, long_every=16))
            contexts += [len(provider.engine.reader.render(request).tokens) for request in asked]
            verdicts += _checked(check, provider, iter(asked), parallel=parallel, fewest=FEWEST)
        say(f"pinned, honest, {threads} threads, {parallel} streams: {_fails(verdicts)} alarms in {len(verdicts)}")
    yield Figure("pinned.honest_answers", len(verdicts), "answers", 200, len(verdicts) >= 200, len(verdicts))
    yield Figure("pinned.shortest_prompt", min(contexts), "tokens", None, None, len(contexts))
    yield Figure("pinned.longest_prompt", max(contexts), "tokens", None, None, len(contexts))
    alarms = sum(not verdict.holds for verdict in verdicts)
    yield Figure("pinned.false_alarms", alarms, "answers", 0, alarms == 0, len(verdicts))
    for name, cheat in CHEATS.items():
        if (
            cheat.caught_by != "check" or shop.kind not in cheat.engines
        ):  # not for a check of the receipt alone to find, see apps/cheats/catalogue.py
            continue
        runs = PINNED_RUNS * (2 if name in SAMPLERS else 1)
        # Every cheat gets something to lie about: sampler cheats need a temperature, a replay the same question twice.
        asked = at_temperatures(requests(runs, "pinned", TOKENS, seed=7), 700_000, 1_000_000)
        if name == "top-p":
            asked = (replace(item, sampler=replace(item.sampler, top_p=500_000)) for item in asked)
        if name == "replayed":
            asked = _twice(asked)
        with built(cheat.build, shop) as provider:
            caught, n = _caught(check, provider, asked, name)
        say(f"pinned, {name}: {caught} of {n} caught")
        yield Figure(f"pinned.{name}", caught / n, "share caught", 1.0, caught == n, n)


def _cost(say: Say, check: Check, shop: Workshop) -> Iterator[Figure]:
    """Processor time of a check as a share of the time that generating took, one thread each, one after the other."""
    shares: list[float] = []

    async def run() -> None:
        with built(_honest, replace(shop, parallel=1)) as provider:
            for request in requests(COST_RUNS, "pinned", TOKENS, seed=3):
                started = time.process_time()
                bundles = [bundle async for bundle in answers(provider, iter([request]), parallel=1, fewest=FEWEST)]
                generated = time.process_time()
                for bundle in bundles:
                    check(bundle)
                    shares.append((time.process_time() - generated) / (generated - started))

    asyncio.run(run())
    say(f"pinned, a check takes {median(shares):.0%} of the processor time of generating")
    yield Figure("pinned.check_over_generating", median(shares), "ratio of CPU time", None, None, len(shares))


def _statistical(say: Say, check: Check, shop: Workshop) -> Iterator[Figure]:
    calibration = load_calibration()
    bound = max((entry.bound for entry in calibration.entries), default=1.0)
    tried = sum(entry.responses for entry in calibration.entries)
    yield Figure("statistical.stated_false_alarm_bound", bound, "chance", 0.01, bound <= 0.01, tried)
    yield Figure("statistical.stated_pooled_bound", 1 / REJECT, "chance", 0.001, REJECT >= 1000, tried)
    honest: list[Verdict] = []
    with built(_honest, shop) as provider:
        honest = _checked(check, provider, requests(SINGLE_RUNS, "statistical", TOKENS, seed=21, long_every=10))
        say(f"statistical, honest: {_fails(honest)} alarms in {len(honest)}")
        yield Figure("statistical.false_alarms", _fails(honest) / len(honest), "share", None, None, len(honest))
        alarms = _pools_caught(honest)
        yield Figure("statistical.pooled_false_alarms", alarms, "share of pools", None, None, POOLS)
    for name in (*SINGLE, "edited-token", "steered-token"):
        with built(CHEATS[name].build, shop) as provider:
            short = name != "system-prompt"  # hardest to see in a long context
            asked = requests(4 * SINGLE_RUNS, "statistical", TOKENS, seed=22, short=short)
            verdicts = _checked(check, provider, asked, fewest=FEWEST, enough=SINGLE_RUNS)
        share = _fails(verdicts) / len(verdicts)
        say(f"statistical, {name}: {_fails(verdicts)} of {len(verdicts)} caught")
        limit = 0.99 if name in SINGLE else 0.8
        yield Figure(f"statistical.{name}", share, "share caught", limit, share >= limit, len(verdicts))
    for name in POOLED:
        with built(CHEATS[name].build, shop) as provider:
            asked = at_temperatures(
                requests(POOLED_RUNS, "statistical", TOKENS, seed=23, short=True),
                300_000,
                700_000,
                1_000_000,
                1_200_000,
            )
            verdicts = _checked(check, provider, asked)
        share = _pools_caught(verdicts)
        say(f"statistical, {name}: {share:.1%} of {POOLS} pools of {POOL} out of {len(verdicts)} caught")
        yield Figure(f"statistical.pooled.{name}", share, "share of pools caught", 0.99, share >= 0.99, len(verdicts))


def _honest(shop: Workshop) -> Dishonest:
    return Dishonest(shop.engine())


def _checked(
    check: Check,
    provider: Dishonest,
    asked: Iterator[Request],
    *,
    parallel: int = 4,
    fewest: int = 1,
    enough: float = math.inf,
) -> list[Verdict]:
    """Verdicts on the answers, and no more questions when there are `enough`; checking goes on beside generating."""
    verdicts: list[Verdict] = []

    async def run() -> None:
        wanted = itertools.takewhile(lambda _: len(verdicts) < enough, asked)
        async for bundle in answers(provider, wanted, parallel=parallel, fewest=fewest):
            verdicts.append(await asyncio.to_thread(check, bundle))  # noqa: PERF401 - counted while it grows

    asyncio.run(run())
    return verdicts


def _caught(check: Check, provider: Dishonest, asked: Iterator[Request], name: str) -> tuple[int, int]:
    """How many of a cheat's answers are caught. Where the lie needs two answers, only the second of a pair counts."""

    async def run() -> tuple[int, int]:
        parallel, fewest = 1 if name == "replayed" else 4, FEWEST if name in SAMPLERS else 1
        bundles = [bundle async for bundle in answers(provider, asked, parallel=parallel, fewest=fewest)]
        if name == "equivocation":
            pairs = list(zip(bundles[::2], bundles[1::2], strict=False))
            return sum(bool(contradictions([one.receipt, two.receipt])) for one, two in pairs), len(pairs)
        if name == "replayed":
            bundles = bundles[1::2]
        return sum(check(bundle).outcome == "fails" for bundle in bundles), len(bundles)

    return asyncio.run(run())


def _twice(asked: Iterator[Request]) -> Iterator[Request]:
    """Each request, then the same question again with another nonce."""
    for request in asked:
        yield request
        yield replace(request, nonce=bytes(reversed(request.nonce)))


def _fails(verdicts: Sequence[Verdict]) -> int:
    return sum(verdict.outcome == "fails" for verdict in verdicts)


def _pools_caught(verdicts: Sequence[Verdict]) -> float:
    """Share of random choices of POOL answers whose pooled evidence rejects the provider."""
    rejected = 0
    for chosen in pools(POOLS, POOL, len(verdicts), seed=5):
        rejected += pooled([verdicts[number] for number in chosen]).outcome == "fails"
    return rejected / POOLS
