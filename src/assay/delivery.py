"""An answer under way, from its first token to its receipts: where its provider breaks off, another one goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final, Protocol

from assay.core.bundle import Bundle
from assay.core.completion import WHOLE, Step, StepStop
from assay.core.errors import AssayError, BindingMismatch, Busy, ProviderFailed, VerificationError
from assay.core.hashing import ZERO, Digest
from assay.core.offer import Ask, Offer
from assay.core.ports import Answer, Purse
from assay.core.request import Request
from assay.core.spelling import Spell, check_text, kept_back
from assay.core.trace import Diary
from assay.market.pricing import amount_due
from assay.market.routing import Router
from assay.verify.binding import check_offline

MOST_PARTS: Final = 4
"""Of one answer: each reads the prompt again, and wants to be paid for that."""
FULL_SECONDS: Final = 10.0
"""How long an answer that broke off waits for a place, where all who could go on are full."""
NOTE: Final = 200
"""Most characters of a provider's words in a trace."""


class Market(Protocol):
    """What an answer under way asks of the gateway's market."""

    @property
    def spell(self) -> Spell:
        """What tokens say, where that is known here."""
        ...

    @property
    def router(self) -> Router:
        """What is known of providers."""
        ...

    async def go_on(
        self, ask: Ask, request: Request, begun: Sequence[Part], *, top_logprobs: int | None, diary: Diary
    ) -> Part:
        """Send what is left of an answer to somebody else than the providers of `begun`.

        Raises:
            AssayError: nobody goes on with it.
        """
        ...

    async def keep(self, bundle: Bundle) -> None:
        """Store a receipt that was checked."""
        ...

    def good(self, offer: Offer) -> None:
        """Remember an answer that came whole, with its receipt."""
        ...

    def failed(self, offer: Offer, error: AssayError) -> None:
        """Remember a failure."""
        ...

    def missed(self, part: Part) -> None:
        """The receipt of what a provider delivered before it broke off is not to be had now."""
        ...

    def note(self, request: Request, diary: Diary) -> None:
        """Store what happened to a request."""
        ...


class Part:
    """What one provider delivers of an answer: all of it, if nothing breaks."""

    def __init__(
        self,
        market: Market,
        offer: Offer,
        request: Request,
        inner: Answer,
        first: Step,
        rest: AsyncIterator[Step],
        diary: Diary,
        purse: Purse | None,
        *,
        before: str = "",
    ) -> None:
        """`first`: the step that has come; `rest`: those that follow. `before`: the text that others have shown."""
        self.offer: Final = offer
        self.request: Final = request
        self.inner: Final = inner
        self.purse: Final = purse
        self.tokens: Final[list[int]] = []
        """Those that came."""
        self.stop: StepStop | None = None
        """What the last one said."""
        self.owed = ""
        """Text that others kept back, to be shown before its own."""
        self.hung_up = False
        """Nobody reads on: that the answer ends is no failure."""
        self._market: Final = market
        self._first: Final = first
        self._rest: Final = rest
        self._diary: Final = diary
        self._shown: Final = [before]
        self._taking: asyncio.Task[Bundle] | None = None

    @property
    def shown(self) -> str:
        """The answer's text until here, what others have shown included."""
        return "".join(self._shown)

    @property
    def left(self) -> Request | None:
        """The request for what is missing, if somebody else can go on. Not after a last step: whoever says that the
        answer ends has let go of text that it had held back."""
        limit = self.request.max_tokens
        if self.stop is not None or not self.tokens or (limit and len(self.tokens) >= limit):
            return None
        return self.request.after(self.tokens)

    async def steps(self) -> AsyncIterator[Step]:
        """The tokens as they come, numbered within the whole answer.

        Raises:
            ProviderFailed: the provider broke off, or ended without saying that the answer is whole though nobody
                hung up.
        """
        step: Step | None = self._first
        before = len(self.request.continues)
        try:
            while step is not None:
                self.tokens.append(step.token)
                self._shown.append(step.text)
                self.stop = step.stop
                owed, self.owed = self.owed, ""
                yield replace(step, index=before + step.index, text=owed + step.text) if before else step
                step = await anext(self._rest, None)
            if self.stop not in WHOLE and not self.hung_up:
                raise ProviderFailed(
                    f"{self.offer.provider} ended the answer in the middle ({self.stop or 'it does not say why'})",
                    "ask again, or ask another provider",
                )
        except ProviderFailed as error:
            self._market.failed(self.offer, error)
            if self.offer.provider in error.message:
                raise
            raise ProviderFailed(f"{self.offer.provider} failed: {error.message}", error.remedy) from error

    def take(self) -> asyncio.Task[Bundle]:
        """Hang up if it is under way, and check and keep the receipt: once, whoever asks first, and whatever becomes of
        who asked. ProviderFailed: there is none now, or it does not hold."""
        if self._taking is None:
            self.hung_up = True
            self._taking = asyncio.create_task(self._attested())
            self._taking.add_done_callback(self._taken)
        return self._taking

    def leave(self) -> asyncio.Task[Bundle]:
        """As `take`, of an answer of which nobody wants more than the first token, which has come."""
        self.tokens.append(self._first.token)
        self._shown.append(self._first.text)
        self.stop = self._first.stop
        return self.take()

    def check_text(self) -> None:
        """Tokens are what a receipt binds, and text is what people read: it has to be what the tokens say.

        Raises:
            BindingMismatch: it is not.
        """
        check_text(self._market.spell, self.offer, self.request, self.tokens, self.shown, self.stop)

    def catch_up(self) -> str:
        """What its tokens say and it has kept back, which counts as shown from now on: who goes on takes it to be.

        Raises:
            BindingMismatch: what it has shown is not the beginning of that.
        """
        kept = kept_back(self._market.spell, self.offer, self.request, self.tokens, self.shown)
        self._shown.append(kept)
        return kept

    async def _attested(self) -> Bundle:
        try:
            bundle = await self.inner.bundle()
            self._diary.mark("attest", bundle.receipt.digest.hex())
            channel = ZERO if self.purse is None else self.purse.channel
            await asyncio.to_thread(
                check_promise, bundle, self.offer, self.request, self.tokens, self.stop, channel=channel
            )
            await asyncio.to_thread(self.check_text)
            if self.purse is not None:
                self.purse.settle(bundle)
            self._diary.mark("check")
            await self._market.keep(bundle)
            self._diary.mark("keep")
        except ProviderFailed as error:
            self._market.failed(self.offer, error)
            raise
        except VerificationError as error:
            if self.purse is not None:
                self.purse.refuse(error.message)
            self._market.failed(self.offer, error)
            raise ProviderFailed(
                f"the receipt of {self.offer.provider} does not hold: {error.message}", "ask another provider"
            ) from error
        if self.stop in WHOLE:
            self._market.good(self.offer)
        return bundle

    def _taken(self, task: asyncio.Task[Bundle]) -> None:
        if self.purse is not None:
            self.purse.over(len(self.tokens))
        self._market.router.over(self.offer)
        if not task.cancelled():
            error = task.exception()  # seen: who asks for the bundle gets it
            if error is not None and not isinstance(error.__cause__, VerificationError):
                self._market.missed(self)


class MarketAnswer:
    """Implements `Answer`: one answer under way, at a provider that has sent its first token or at those after it."""

    def __init__(self, market: Market, ask: Ask, first: Part, diary: Diary, *, top_logprobs: int | None = None) -> None:
        """`ask`: by which the first provider was chosen, and any other one will be."""
        self.over: Final[asyncio.Future[None]] = asyncio.get_running_loop().create_future()
        """Done when the receipts were taken, or there are none."""
        self.earlier: Sequence[Bundle] = ()
        """See `Answer.earlier`."""
        self._market: Final = market
        self._ask: Final = ask
        self._parts: Final = [first]
        self._diary: Final = diary
        self._top_logprobs: Final = top_logprobs
        self._switching: asyncio.Task[None] | None = None
        self._taking: asyncio.Task[Bundle] | None = None

    async def steps(self) -> AsyncIterator[Step]:
        """The tokens as they come, whoever sends them.

        Raises:
            ProviderFailed: the provider broke off, and nobody goes on; `bundle` may still have its receipt.
        """
        while True:
            part = self._parts[-1]
            try:
                async for step in part.steps():
                    yield step
            except ProviderFailed as error:
                if self._taking is None:
                    await self._switch(part, error)
                if self._taking is None and part is self._parts[-1]:
                    raise
            if self._taking is not None or part is self._parts[-1]:
                return

    async def bundle(self) -> Bundle:
        """The receipt of the last part, checked and kept; hangs up first if the answer is still under way.

        Raises:
            ProviderFailed: there is none, or it does not hold.
        """
        return await asyncio.shield(self._take())

    async def close(self) -> None:
        """Hang up; the receipt of what came is taken all the same."""
        self._take()
        await self._parts[-1].inner.close()

    async def _switch(self, part: Part, error: ProviderFailed) -> None:
        """Let somebody else go on, if that can be; until then, or until who reads this hangs up."""
        part.take()
        self._diary.mark("failed", f"{part.offer.provider}: {error.message[:NOTE]}", provider=part.offer.provider)
        if (left := part.left) is None or not self._ask.allow_fallbacks or len(self._parts) >= MOST_PARTS:
            return
        self._switching = asyncio.create_task(self._go_on(part, left))
        try:
            await asyncio.wait({self._switching})
        finally:
            self._switching.cancel()

    async def _go_on(self, part: Part, left: Request) -> None:
        try:
            # After a lie nothing is to be shown; and who goes on would be blamed for what was kept back.
            owed = await asyncio.to_thread(part.catch_up)
            found = await self._found(left)
        except AssayError as error:
            self._diary.mark("failed", f"nobody goes on: {error.message[:NOTE]}")
        else:
            found.owed = owed
            self._parts.append(found)

    async def _found(self, left: Request) -> Part:
        """Somebody else who goes on; where all are full, there may be a place soon."""
        loop = asyncio.get_running_loop()
        until = loop.time() + FULL_SECONDS
        while True:
            try:
                return await self._market.go_on(
                    self._ask, left, self._parts, top_logprobs=self._top_logprobs, diary=self._diary
                )
            except Busy as error:
                if loop.time() + error.retry_after > until:
                    raise
                await asyncio.sleep(error.retry_after)

    def _take(self) -> asyncio.Task[Bundle]:
        """Once, whoever asks first, and whatever becomes of who asked."""
        if self._taking is None:
            self._parts[-1].hung_up = True
            self._taking = asyncio.create_task(self._receipts())
            self._taking.add_done_callback(self._taken)
        return self._taking

    async def _receipts(self) -> Bundle:
        """The last part's, and with it those of the others that can be had."""
        if self._switching is not None:
            self._switching.cancel()
            await asyncio.wait({self._switching})
        part = self._parts[-1]
        count = len(part.request.continues) + len(part.tokens)
        self._diary.mark("last_token", f"{count} tokens, {part.stop or 'cut'}")
        try:
            found = await asyncio.gather(*(each.take() for each in self._parts[:-1]), return_exceptions=True)
            self.earlier = [bundle for bundle in found if isinstance(bundle, Bundle)]
            return await part.take()
        except ProviderFailed as error:
            self._diary.mark("failed", f"{part.offer.provider}: {error.message[:NOTE]}", provider=part.offer.provider)
            raise
        finally:
            self._market.note(self._parts[0].request, self._diary)

    def _taken(self, task: asyncio.Task[Bundle]) -> None:
        self.over.set_result(None)
        if not task.cancelled():
            with suppress(ProviderFailed):
                task.exception()  # seen: who asks for the bundle gets it


def check_promise(
    bundle: Bundle,
    offer: Offer,
    request: Request,
    tokens: Sequence[int],
    stop: StepStop | None,
    *,
    channel: Digest = ZERO,
) -> None:
    """Check a receipt against itself, the offer, the request and what was delivered; no model is needed.

    `tokens` are those that came and `stop` is how the last one ended the answer, None if it was cut: then the
    receipt may cover tokens that were still on their way (the transport bounds how many). On a `channel` the amount is
    that of all answers, which its `Purse` checks.

    Raises:
        InvalidSignature, BindingMismatch: it does not hold.
    """
    check_offline(bundle)
    receipt = bundle.receipt
    due = amount_due(offer.price, receipt.prompt_count, receipt.output_count)
    for name, promised, found in (
        ("request", request.digest, receipt.request),
        ("model", offer.model_digest, receipt.model),
        ("provider", offer.provider, receipt.provider),
        ("channel", channel, receipt.channel),
        ("amount", due if channel == ZERO else receipt.amount, receipt.amount),
        ("context", offer.context, bundle.profile.context),
        ("sampler", offer.sampler, bundle.profile.sampler),
        ("profile", offer.profile, receipt.profile),
    ):
        if promised != found:
            raise BindingMismatch(name, f"the receipt's {name} is not what was promised")
    covered = bundle.tokens if stop else bundle.tokens[: len(tokens)]
    if covered != tuple(tokens):
        raise BindingMismatch("output", "the receipt is for other tokens than those that came")
    if stop and receipt.stop != stop:
        raise BindingMismatch("stop", f"the answer ended with {stop!r}, and the receipt says {receipt.stop!r}")
