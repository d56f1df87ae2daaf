"""A network under attack for half an hour: four honest providers of whom some are killed and frozen, nine Sybils for
each of them, a directory that lies, clients that waste; and consumers who want answers all the while.

Everybody honest is a process as people run it. `ASSAY_BENCH_SCALE` (1 by default) multiplies the 30 minutes.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.soak.consumers import WORDS, Consumers
from benchmarks.soak.hostile import Attackers, Sybils, directory, record_of
from benchmarks.soak.town import LASTING, MODEL, MORTAL, PROVIDERS, Town
from tests.e2e.bad_providers import BAD, Stranger, listening
from tests.e2e.kit import bundles

from assay.apps.checking import open_checker
from assay.apps.figures import Figure, Say
from assay.core.chain import check_chain, latest
from assay.core.errors import VerificationError
from assay.engines.models import resolve

MINUTES: Final = 30.0
LOOK_SECONDS: Final = 10.0
"""Between two looks at what everybody takes."""
SAY_SECONDS: Final = 30.0
ANSWERED: Final = 0.99
"""Share of the requests that have to be answered; the others are told why not."""
OPEN: Final = 0.01
"""Share of the answers that somebody may begin who then breaks off and signs nothing: who reads them can see it."""
MOST_GROWTH: Final = 20.0
"""MB by which a program may grow in the last two thirds of the time."""
MOST_MEMORY: Final = 300.0
"""MB that any program may take."""
MOST_FILES: Final = 300
"""That any program may have open."""
WAYS: Final = ("whole", "whole", "stream", "stream", "hang up")
"""What consumers do, at the same time."""
ATTACKERS: Final = 6
CHECKED: Final = 100
"""Answers that are computed again in the end."""
_SETTLE_SECONDS: Final = 400.0
"""More than the longest pause of a gateway that could not reach a provider."""


def measure(say: Say) -> Iterable[Figure]:
    """Let it run, then look at what is left."""
    minutes = MINUTES * float(os.environ.get("ASSAY_BENCH_SCALE", "1"))
    with ExitStack() as stack:
        town = Town(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="assay-soak-"))), stack)
        strangers = [stack.enter_context(listening(talk)) for talk in BAD.values()]
        sybils = Sybils([record_of(town.running[name].url) for name in PROVIDERS], strangers)
        town.open(stack.enter_context(listening(directory(sybils))).url)
        consumers = Consumers(town.gateway)
        with _attacked(town, sybils) as attackers, _watched(town), consumers.asking(WAYS):
            known = _through(town, 60 * minutes, say, consumers)
        say("waiting until all is paid")
        settled = _settled(town, say)
        yield Figure("minutes", minutes, "minutes", None, None, 1)
        yield from _served(consumers)
        yield from _checked(town, consumers, say)
        yield from _attacks(town, attackers, strangers, known)
        yield from _taken(town, say)
        books = town.books()
        yield Figure("earned", books.earned, "wei", None, None, 1)
        yield Figure("signed_but_not_claimed", books.signed - books.claimed, "wei", 0, settled and books.agree, 1)


def _through(town: Town, seconds: float, say: Say, consumers: Consumers) -> int:
    """Faults until the time is over, and looks in between; gives how many providers the gateway has known, at most."""
    dice, began, looked, known = random.Random(5), time.monotonic(), float("-inf"), 0
    while (passed := time.monotonic() - began) < seconds:
        town.revive()
        if time.monotonic() - looked >= SAY_SECONDS:
            looked = time.monotonic()
            known = max(known, town.known())
            memory = ", ".join(f"{name} {taken.memory[-1]:.0f}" for name, taken in town.taken.items() if taken.memory)
            say(f"{passed / 60:.1f} min: {dict(consumers.outcomes)}, {dict(town.faults)}; MB: {memory}")
        town.fault(dice)
        time.sleep(dice.uniform(1, 6))
    return known


@contextmanager
def _attacked(town: Town, sybils: Sybils) -> Iterator[Attackers]:
    """Clients that waste, and Sybils that hand themselves in, until the end of the block."""
    ask = {"model": MODEL, "messages": [{"role": "user", "content": WORDS[0]}], "max_tokens": 200, "stream": True}
    attackers = Attackers({name: each.url for name, each in town.running.items()}, json.dumps(ask).encode())
    over = threading.Event()

    def hand_in() -> None:
        while not over.is_set():
            sybils.hand_in(town.running["directory"].url)
            over.wait(60)

    threads = [threading.Thread(target=attackers.run, args=(seed,)) for seed in range(ATTACKERS)]
    threads.append(threading.Thread(target=hand_in))
    for thread in threads:
        thread.start()
    try:
        yield attackers
    finally:
        over.set()
        attackers.stop()
        for thread in threads:
            thread.join()


@contextmanager
def _watched(town: Town) -> Iterator[None]:
    """Looks at what everybody takes, until the end of the block."""
    over = threading.Event()

    def look() -> None:
        town.look()
        while not over.wait(LOOK_SECONDS):
            town.look()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _settled(town: Town, say: Say) -> bool:
    """All books agree, in good time."""
    end = time.monotonic() + _SETTLE_SECONDS
    while not (books := town.books()).agree:
        if time.monotonic() > end:
            say(f"the books do not agree: {books}")
            return False
        time.sleep(1)
    return True


def _served(consumers: Consumers) -> Iterator[Figure]:
    outcomes, due = consumers.outcomes, consumers.due
    share = outcomes["answered"] / max(due, 1)
    yield Figure("answered", share, "share", ANSWERED, share >= ANSWERED, due)
    yield Figure("neither_answer_nor_clear_error", outcomes["unclear"], "requests", 0, outcomes["unclear"] == 0, due)
    for said, count in consumers.errors.most_common(5):
        yield Figure(f"said: {said}", count, "requests", None, None, due)
    yield Figure("hung_up", outcomes["hung up"], "requests", None, None, outcomes["hung up"])
    times = sorted(consumers.seconds) or [0.0]
    yield Figure("answer_p50", median(times), "s", None, None, len(times))
    yield Figure("answer_p99", times[int(0.99 * len(times))], "s", None, None, len(times))


def _checked(town: Town, consumers: Consumers, say: Say) -> Iterator[Figure]:
    """Receipts that were given out, and some answers computed again."""
    yield Figure("receipts_that_do_not_hold", len(consumers.false), "", 0, not consumers.false, consumers.due)
    for each in consumers.false[:3]:
        say(each)
    failed, open_, names = 0, 0, list(consumers.names)
    with open_checker(resolve(str(town.model), town.model.parent)) as check:
        for number, name in enumerate(names):
            parts = latest(bundles(town.gateway, name))
            try:
                check_chain(parts)
            except VerificationError as error:  # whoever gave the first tokens never signed for them
                say(f"{name}: {error}")
                open_ += 1
            if number % (1 + len(names) // CHECKED) == 0:
                failed += not all(check(part).holds for part in parts)
    share, count = open_ / max(len(names), 1), len(names) // (1 + len(names) // CHECKED)
    yield Figure("answers_whose_beginning_nobody_signed", share, "share", OPEN, share <= OPEN, len(names))
    yield Figure("computed_again_and_not_the_same", failed, "answers", 0, failed == 0, count)


def _attacks(town: Town, attackers: Attackers, strangers: list[Stranger], known: int) -> Iterator[Figure]:
    for fault, count in sorted(town.faults.items()):
        yield Figure(fault, count, "", None, None, count)
    made, held = attackers.done.total(), attackers.held.total()
    yield Figure("attacks_by_clients", made, "", None, None, made)
    yield Figure("attackers_not_hung_up_on", held, "connections", 0, held == 0, made)
    for which, count in attackers.held.items():
        yield Figure(f"not hung up on: {which}", count, "connections", 0, False, made)
    share = 1 - len(PROVIDERS) / max(known, 1)
    yield Figure("sybils_among_known_providers", share, "share", 0.9, share >= 0.9, known)
    asked = sum(each.asked for each in strangers)
    yield Figure("requests_that_sybils_got", asked, "requests", None, None, asked)


def _taken(town: Town, say: Say) -> Iterator[Figure]:
    """Who died or stumbled, and what all took."""
    yield Figure("programs_that_ended_by_themselves", len(town.died), "", 0, not town.died, len(town.running))
    traces = town.traces()
    yield Figure("errors_that_nobody_expected", len(traces), "", 0, not traces, len(town.running))
    for each in (*town.died, *traces[:3]):
        say(each)
    for name in LASTING:
        taken, grown = town.taken[name], town.taken[name].growth
        looks = len(taken.at)
        # A development chain keeps every transaction in memory, for as long as it runs: that is what it is for.
        holds = None if name == "devnet" else grown <= MOST_GROWTH
        yield Figure(f"{name}_growth", grown, "MB", None if holds is None else MOST_GROWTH, holds, looks)
    for name in (*LASTING, *MORTAL):
        memory, files = max(town.taken[name].memory), max(town.taken[name].files)
        looks = len(town.taken[name].at)
        yield Figure(f"{name}_memory", memory, "MB", MOST_MEMORY, memory <= MOST_MEMORY, looks)
        yield Figure(f"{name}_files", files, "", MOST_FILES, files <= MOST_FILES, looks)
