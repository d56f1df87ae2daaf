"""The product's journey among many peers in one process: real asyncio, with a clock that jumps to what happens next."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar

import numpy as np
from benchmarks._network import CONNECT_SECONDS, Arrivals, Job, Network, churn
from benchmarks._schedulers import ASK, an_offer
from typing_extensions import override

from assay.core.bundle import Bundle
from assay.core.completion import Completion, Prompt, Step
from assay.core.errors import AssayError, Busy, ProviderFailed
from assay.core.keys import Key
from assay.core.offer import Ask, Load, Offer
from assay.core.ports import Answer, Purse
from assay.core.profile import Profile
from assay.core.receipt import attest
from assay.core.request import Message, Request, SamplerSettings
from assay.journey import MarketAnswers
from assay.network.memory import MemoryTransport
from assay.store.receipts import ReceiptStore

TOKENS: Final = 8
"""Of each answer; each stands for an eighth of it."""
_PROFILE: Final = Profile(
    engine="simulated",
    build="1",
    regime="pinned/1",
    isa="any",
    kv_type="none",
    flash_attention=False,
    micro_batch=1,
    threads=0,
    context=32768,
    sampler="gumbel/1",
    template="none",
    grammar="none",
)
_T = TypeVar("_T")


class _Jumping(selectors.DefaultSelector):
    """Does not wait: the clock goes on instead."""

    passed = 0.0

    @override
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found and timeout:
            self.passed += timeout
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is simulated, and whose threads do their work at once."""

    def __init__(self) -> None:
        self._jumping: Final = _Jumping()
        super().__init__(self._jumping)

    @override
    def time(self) -> float:
        """Seconds since it began."""
        return self._jumping.passed

    @override
    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """The work is done before this returns, in no simulated time."""
        done: asyncio.Future[Any] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - whoever awaits it gets it
            done.set_exception(error)
        return done


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run to the end in simulated time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


class Peer:
    """Implements `Provider` by a column of a network; signs real receipts over made-up tokens."""

    def __init__(self, network: Network, number: int, dice: np.random.Generator, jobs: Mapping[bytes, Job]) -> None:
        self._key: Final = Key.from_secret((number + 1).to_bytes(32, "big"))
        self.network: Final = network
        self.number: Final = number
        self.jobs: Final = jobs
        self._sequence = 0
        offer = an_offer(number, dice)
        self._offer: Final = Offer(
            self._key.address,
            offer.url,
            offer.model,
            offer.model_digest,
            offer.level,
            offer.price,
            _PROFILE.context,
            True,
            False,
            _PROFILE.digest,
            _PROFILE.sampler,
        )

    @property
    def active(self) -> int:
        """As it says."""
        return self.network.said(self.number)[0]

    @property
    def parallel(self) -> int:
        """As it says."""
        return self.network.said(self.number)[1]

    @property
    def half(self) -> float:
        """Seconds to it."""
        return float(self.network.round_trip[self.number]) / 2

    async def models(self) -> Sequence[Offer]:
        """One."""
        return [self._offer]

    async def answer(self, request: Request, ask: Ask, *, top_logprobs: int | None = None) -> Answer:
        """Refuses if it is full, unless it lies: then it queues."""
        del ask, top_logprobs
        network = self.network
        await asyncio.sleep(self.half)
        while network.running[self.number] >= network.places[self.number]:
            if not network.lying[self.number]:
                await asyncio.sleep(self.half)
                raise Busy("full")
            await asyncio.sleep(0.25)
        network.running[self.number] += 1
        return _PeerAnswer(self, request)

    def sign(self, request: Request, tokens: Sequence[int]) -> Bundle:
        """A receipt for these tokens."""
        self._sequence += 1
        whole = len(tokens) == TOKENS
        completion = Completion(
            Prompt(b"x", (1,)), tuple(tokens), "x" * len(tokens), "length" if whole else "cancelled", ()
        )
        price = self._offer.price.of(1, len(tokens)) if tokens else 0
        receipt = attest(
            request,
            completion,
            model=self._offer.model_digest,
            profile=_PROFILE,
            key=self._key,
            sequence=self._sequence,
            issued=1,
            amount=price,
        )
        return Bundle(receipt, request, _PROFILE, completion.tokens, b"")


class _PeerAnswer:
    """Implements `Answer`."""

    def __init__(self, peer: Peer, request: Request) -> None:
        self._peer: Final = peer
        self._request: Final = request
        self._tokens: list[int] = []
        self._over = False

    async def steps(self) -> AsyncIterator[Step]:
        """The first after the prompt was read, the others at the pace of the peer."""
        peer, job = self._peer, self._peer.jobs[self._request.nonce]
        await asyncio.sleep(peer.network.first_token(peer.number, job) + peer.half)
        for index in range(TOKENS):
            if index:
                await asyncio.sleep(peer.network.rest(peer.number, job) / (TOKENS - 1))
            self._tokens.append(index)
            last = index == TOKENS - 1
            if last:
                self._free()
            yield Step(index, index, "x", b"", stop="length" if last else None)

    async def bundle(self) -> Bundle:
        """For what was delivered."""
        return self._peer.sign(self._request, self._tokens)

    async def close(self) -> None:
        """Hang up."""
        self._free()

    def _free(self) -> None:
        if not self._over:
            self._over = True
            self._peer.network.running[self._peer.number] -= 1


class LossyTransport(MemoryTransport):
    """Memory between a gateway and peers, with the network's delays, and silence of the dead."""

    def __init__(self, network: Network, peers: Mapping[str, Peer], listed: Sequence[Offer]) -> None:
        super().__init__(peers)
        self._network: Final = network
        self._peers: Final = peers
        self._listed: Final = listed

    @override
    async def offers(self) -> Sequence[Offer]:
        """The same object as long as nothing changes."""
        return self._listed

    @override
    async def load(self, offer: Offer) -> Load:
        """After the way there and back."""
        peer = self._peers[offer.url]
        await self._reach(peer)
        await asyncio.sleep(2 * peer.half)
        return await super().load(offer)

    @override
    async def send(
        self, offer: Offer, request: Request, *, top_logprobs: int | None = None, purse: Purse | None = None
    ) -> Answer:
        """To who is not dead."""
        await self._reach(self._peers[offer.url])
        return await super().send(offer, request, top_logprobs=top_logprobs, purse=purse)

    async def _reach(self, peer: Peer) -> None:
        if self._network.dead[peer.number]:
            await asyncio.sleep(CONNECT_SECONDS if self._network.mute[peer.number] else 2 * peer.half)
            raise ProviderFailed("it cannot be reached")


async def first_tokens(
    network: Network,
    gateways: int,
    dice: np.random.Generator,
    arrivals: Arrivals,
    *,
    warm: float,
    churning: np.random.Generator | None = None,
    first: int | None = None,
) -> tuple[list[float], int]:
    """Seconds to the first token of each request after `warm`; how many got no answer with a receipt that holds.
    `churning`: dice by which providers come and go, if not `dice`. `first`: see `churn`."""
    loop = asyncio.get_running_loop()
    jobs: dict[bytes, Job] = {}
    peers = [Peer(network, number, dice, jobs) for number in range(network.count)]
    listed = [(await peer.models())[0] for peer in peers]
    at = {offer.url: peer for offer, peer in zip(listed, peers, strict=True)}
    markets = [
        MarketAnswers(LossyTransport(network, at, listed), ReceiptStore("sqlite://"), clock=loop.time, dice=child)
        for child in dice.spawn(gateways)
    ]
    times: list[float] = []
    lost = 0

    async def one(number: int, job: Job, after: float) -> None:
        nonlocal lost
        await asyncio.sleep(after)
        nonce = number.to_bytes(32, "big")
        jobs[nonce] = job
        request = _request(job, nonce)
        asked, market = loop.time(), markets[int(dice.integers(gateways))]
        try:
            answer = await market.answer(request, ASK)
            began = loop.time() - asked
            async for _ in answer.steps():
                pass
            await answer.bundle()
        except AssayError:
            lost += asked >= warm
        else:
            if asked >= warm:
                times.append(began)

    stop = churn(network, churning or dice, lambda wait, event: loop.call_later(wait, event), first=first)
    await asyncio.gather(*(one(i, job, at) for i, (at, job) in enumerate(arrivals)))
    stop()
    for market in markets:
        await market.drain(0)
    return times, lost


def _request(job: Job, nonce: bytes) -> Request:
    return Request(
        model=ASK.model,
        kind="chat",
        messages=(Message("user", nonce.hex()[-8:] + "x" * int(4 * job.prompt)),),  # no two are one conversation
        prompt="",
        sampler=SamplerSettings(),
        max_tokens=TOKENS,
        stop=(),
        tools="",
        tool_choice="auto",
        response_format="",
        level=ASK.level,
        nonce=nonce,
        created=0,
    )
