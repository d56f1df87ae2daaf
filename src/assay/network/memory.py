"""Providers within this process: the twin of `network/http.py` for tests and for a node that is its own gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from assay.core.bundle import Bundle
from assay.core.completion import Step
from assay.core.errors import ProviderFailed
from assay.core.offer import Ask, Load, Offer
from assay.core.ports import Answer, Provider, Purse
from assay.core.request import Request


class MemoryTransport:
    """Implements `Transport` over answers that are at hand, each under the address by which offers name it."""

    def __init__(self, providers: Mapping[str, Provider]) -> None:
        self._providers: Final = dict(providers)

    async def offers(self) -> Sequence[Offer]:
        """What the providers offer now."""
        return [replace(offer, url=url) for url, answers in self._providers.items() for offer in await answers.models()]

    async def load(self, offer: Offer) -> Load:
        """How busy the provider is."""
        provider = self._at(offer)
        return Load(provider.active, provider.parallel)

    async def send(
        self, offer: Offer, request: Request, *, top_logprobs: int | None = None, purse: Purse | None = None
    ) -> Answer:
        """Start an answer; errors are the provider's own. Nobody is paid within a process."""
        del purse
        wish = Ask(request.model, request.level)
        return _MemoryAnswer(await self._at(offer).answer(request, wish, top_logprobs=top_logprobs))

    def _at(self, offer: Offer) -> Provider:
        found = self._providers.get(offer.url)
        if found is None:
            raise ProviderFailed(f"no provider is known at {offer.url}", "ask for offers again")
        return found


class _MemoryAnswer:
    """Passes on what would cross the wire: steps without their leaves, receipts as canonical bytes."""

    earlier: Sequence[Bundle] = ()

    def __init__(self, inner: Answer) -> None:
        self._inner: Final = inner

    async def steps(self) -> AsyncIterator[Step]:
        async for step in self._inner.steps():
            yield replace(step, leaf=b"") if step.leaf else step

    async def bundle(self) -> Bundle:
        bundle = await self._inner.bundle()
        return await asyncio.to_thread(lambda: Bundle.decode(bundle.encode()))

    async def close(self) -> None:
        await self._inner.close()
