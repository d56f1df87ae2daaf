"""Who decides where requests go, in simulated time: all-knowing, by chance, and the product's router."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Final

import numpy as np
from benchmarks._events import Process, Signal, Until, World
from benchmarks._network import DEAD, SLOW, SLOWER, Job, Network

from assay.core.errors import Busy
from assay.core.offer import Ask, Load, Offer, Price
from assay.market.matching import Catalogue
from assay.market.routing import Router
from assay.market.steps import Heard, Probe
from assay.market.work import Work
from assay.probing import PROBE_SECONDS

ASK: Final = Ask("model", "signed", sort="latency")
_TRIES: Final = 64
_DIGEST: Final = bytes(32)


class Omniscient:
    """Knows the true state of everything, and takes where the first token comes first.

    `patience`: of the time that the rest of the answer takes, how much counts as well. Without any, short prompts go to
    whoever is near, however long they then hold the place.
    """

    def __init__(self, patience: float) -> None:
        self._patience: Final = patience

    def serve(self, world: World, job: Job) -> Process:
        """See `Scheduler`."""
        asked = world.now
        for _ in range(_TRIES):
            seconds = world.network.first_tokens(job) + self._patience * world.network.rests(job)
            best = int(seconds.argmin())
            if not np.isfinite(seconds[best]):
                yield 0.05
            elif (yield from world.send(best, job, reserved=True)) == "good":
                world.began(asked)
                return
        world.gave_up(asked)


class Chance:
    """Takes any, and another one if that one is dead or full."""

    def serve(self, world: World, job: Job) -> Process:
        """See `Scheduler`."""
        asked = world.now
        for _ in range(_TRIES):
            if (yield from world.send(int(world.dice.integers(world.network.count)), job)) == "good":
                world.began(asked)
                return
        world.gave_up(asked)


class Gateways:
    """Several buyers, each with a router of its own that knows nothing of the others."""

    def __init__(self, network: Network, count: int, dice: np.random.Generator, *, ask: Ask = ASK) -> None:
        self.offers: Final = [an_offer(number, dice) for number in range(network.count)]
        self.cpu: Final[list[float]] = []
        """Seconds for each shortlist."""
        self.probes = 0
        self.sends = 0
        self.refused = 0
        self._ask: Final = ask
        self._numbers: Final = {offer.url: number for number, offer in enumerate(self.offers)}
        catalogue = Catalogue(self.offers).index()
        self.routers: Final = [Router(child) for child in dice.spawn(count)]
        for router in self.routers:
            router.use(catalogue)

    def remember(self, network: Network, dice: np.random.Generator, jobs: list[Job], each: int) -> None:
        """What each has seen in the half hour before the clock starts: `each` answers of providers that chance chose.

        They were dead or slow then in their usual share of the time.
        """
        for router in self.routers:
            numbers = dice.integers(network.count, size=each).tolist()
            states = zip(dice.random(each) < DEAD, np.where(dice.random(each) < SLOW, SLOWER, 1.0), strict=True)
            for index, (number, (dead, slower)) in enumerate(zip(numbers, states, strict=True)):
                job, offer = jobs[int(dice.integers(len(jobs)))], self.offers[number]
                now = 1800.0 * (index / each - 1)
                router.asked(offer)
                if dead:
                    router.failed(offer, now)
                else:
                    reading, writing = job.prompt * network.read[number], job.output * network.write[number]
                    seconds = float(network.round_trip[number] + slower * reading)
                    router.first(offer, Work(int(job.prompt), int(job.output)), seconds, now)
                    router.wrote(offer, int(job.output), float(slower * writing), now)
                    router.good(offer, now)
                router.over(offer, begun=not dead)

    def serve(self, world: World, job: Job) -> Process:
        """See `Scheduler`."""
        asked, router = world.now, self.routers[int(world.dice.integers(len(self.routers)))]
        work = Work(int(job.prompt), int(job.output))
        started = time.thread_time()
        route = router.route(self._ask, work, world.now)
        step = next(route, None)
        self.cpu.append(time.thread_time() - started)
        race = _Race(self, world, router, job, work)
        while step is not None:
            if isinstance(step, Probe):
                heard = yield from self._probe(world, step)
            else:
                race.ask(step.offer)
                yield Until(race.news, step.patience)
                heard = Heard(world.now, late=frozenset(race.waiting))
            if race.won:
                break
            try:
                step = route.send(heard)
            except StopIteration:
                break
        while race.waiting and not race.won:
            yield Until(race.news, np.inf)
        if race.won:
            world.began(asked)
        else:
            world.gave_up(asked)

    def _probe(self, world: World, step: Probe) -> Generator[float, None, Heard]:
        self.probes += 1
        network = world.network
        begun, end = world.now, world.now + PROBE_SECONDS
        replies: list[tuple[float, str, int]] = []
        for offer in step.offers:
            number = self._numbers[offer.url]
            silent = network.dead[number] and network.mute[number]
            replies.append((np.inf if silent else float(network.round_trip[number]), offer.url, number))
        loads: dict[str, Load | None] = {}
        waited: dict[str, float] = {}
        refused: set[str] = set()
        for after, url, number in sorted(replies):
            if begun + after > end:
                break
            if begun + after > world.now:
                yield begun + after - world.now
            if network.dead[number]:
                refused.add(url)
                continue
            load = Load(*network.said(number))
            loads[url], waited[url] = load, after
            if load.room:
                end = min(end, world.now + max(world.now - begun, step.grace))
            if step.settled(loads, refused):
                end = world.now
        if len(loads) + len(refused) < len(replies) and end > world.now:
            yield end - world.now
        patient = end >= begun + PROBE_SECONDS
        late = frozenset() if patient else frozenset(offer.url for offer in step.offers) - set(loads) - refused
        return Heard(world.now, loads, late, waited)

    def number(self, offer: Offer) -> int:
        """Of its provider."""
        return self._numbers[offer.url]


class _Race:
    """Providers that were asked for the same answer."""

    def __init__(self, buyers: Gateways, world: World, router: Router, job: Job, work: Work) -> None:
        self.news: Final = Signal()
        """One of them failed, or has the first token."""
        self.won = False
        self.waiting: Final[dict[str, tuple[Offer, float, Process]]] = {}
        """Whose first token is waited for, by URL; since when."""
        self._buyers: Final = buyers
        self._world: Final = world
        self._router: Final = router
        self._job: Final = job
        self._work: Final = work

    def ask(self, offer: Offer) -> None:
        """One more."""
        self._buyers.sends += 1
        self._router.asked(offer)
        process = self._asked(offer)
        self.waiting[offer.url] = offer, self._world.now, process
        self._world.start(process)

    def _asked(self, offer: Offer) -> Process:
        world, router, number, sent = self._world, self._router, self._buyers.number(offer), self._world.now
        outcome = yield from world.send(number, self._job)
        del self.waiting[offer.url]
        if outcome == "good":
            self.won = True
            self._hang_up()
            router.first(offer, self._work, world.now - sent, world.now)
            rest = world.network.rest(number, self._job)

            def ended() -> None:
                router.wrote(offer, self._work.output, rest, world.now)
                router.good(offer, world.now)
                router.over(offer)

            world.after(rest, ended)
        else:
            router.over(offer, begun=False)
            self._buyers.refused += 1
            if outcome == "busy":
                router.busy(offer, world.now, Busy("full", retry_after=1))
            else:
                router.failed(offer, world.now)
        self.news.give()

    def _hang_up(self) -> None:
        for offer, since, process in self.waiting.values():
            process.close()
            self._router.late(offer, self._work, self._world.now - since, self._world.now)
            self._router.over(offer, begun=False)
        self.waiting.clear()


def an_offer(number: int, dice: np.random.Generator) -> Offer:
    """By provider `number`, at a price of its own."""
    price = int(100 * np.exp(0.5 * dice.standard_normal()))
    return Offer(
        provider=f"0x{number:040x}",
        url=f"http://{number}.example",
        model=ASK.model,
        model_digest=_DIGEST,
        level=ASK.level,
        price=Price(price, 3 * price),
        context=32768,
        chat=True,
        tools=False,
        profile=_DIGEST,
        sampler="gumbel/1",
    )
