"""A gateway's money on the chain: channels are opened, topped up and withdrawn from, within a budget.

Every step is on the disk before its transaction is sent, and transactions have names: whatever was under way when the
program ended is asked for again by its name, so nothing is deposited twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from assay.core.errors import ChainFailed, PaymentRequired, TransactionFailed
from assay.core.keys import Address
from assay.core.offer import Offer
from assay.core.payment import Requirements, channel_salt
from assay.core.voucher import Terms
from assay.store.channels import Channel, ChannelStore

if TYPE_CHECKING:
    from assay.chain.client import ChainClient
    from assay.chain.outbox_file import Sent

MOST_DELAY: Final = 7 * 86_400
"""Seconds: providers that want money to be bound for longer are not paid."""
_MOST_CHANNELS: Final = 1000
"""With one provider."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Wei."""

    total: int
    """That may be in channels and spent, in all."""
    deposit: int
    """Into a channel at a time."""
    top_up_below: int
    """Deposit again when less than this is left."""
    wait: float = 30.0
    """Seconds for a deposit to be final, before another provider is asked."""


class Funding:
    """Channels of one key on the chain."""

    def __init__(
        self,
        client: ChainClient,
        store: ChannelStore,
        budget: Budget,
        *,
        log: Callable[[str, Mapping[str, object]], None] = lambda _event, _facts: None,
    ) -> None:
        """`log` is told of events and facts."""
        self._client: Final = client
        self._store: Final = store
        self._log: Final = log
        self.budget: Final = budget

    @property
    def domain(self) -> bytes:
        """The EIP-712 domain of channels."""
        return self._client.domain

    def agree(self, offer: Offer, required: Requirements) -> None:
        """Check that channels as this provider wants them can be had here. Blocks.

        Raises:
            PaymentRequired: they cannot.
            ChainFailed: the chain cannot be asked for the provider's vault.
        """
        known = self._client.addresses
        wanted = (required.chain_id, required.contract, required.token)
        if wanted != (known.chain_id, known.channels, known.token):
            raise PaymentRequired(
                f"{offer.provider} is paid on chain {required.chain_id} by {required.contract} in {required.token}, "
                f"and the channels here are on chain {known.chain_id} at {known.channels} in {known.token}",
                "see [chain], or ask another provider",
                reason="terms",
            )
        if required.authorizer != offer.provider:
            raise PaymentRequired(
                f"{offer.provider} has another key claim ({required.authorizer})", "ask another one", reason="terms"
            )
        if required.delay > MOST_DELAY:
            raise PaymentRequired(
                f"{offer.provider} wants money to be bound for {required.delay} s", "ask another one", reason="terms"
            )
        if known.vault and required.receiver != self._client.vault_of(offer.provider):
            raise PaymentRequired(
                f"{offer.provider} is paid into {required.receiver}, which holds nothing back",
                "ask a provider that is paid into its vault",
                reason="terms",
            )

    def fits(self, terms: Terms, required: Requirements) -> bool:
        """A channel on these terms is what the provider wants now."""
        known = self._client.addresses
        given = (known.channels, terms.token, terms.receiver, terms.receiver_authorizer)
        wanted = (required.contract, required.token, required.receiver, required.authorizer)
        return given == wanted and terms.withdraw_delay >= required.delay

    def find_or_open(self, offer: Offer, required: Requirements) -> Channel:
        """The open channel on the provider's terms, made where there is none; without a deposit yet. Blocks.

        Raises:
            ChainFailed: the chain cannot be asked.
            PaymentRequired: there are too many already.
        """
        known = {
            channel.id: channel
            for channel in self._store.known()
            if channel.provider == offer.provider and channel.terms.payer == self._client.address
        }
        for number in range(_MOST_CHANNELS):
            terms = Terms(
                payer=self._client.address,
                payer_authorizer=self._client.address,
                receiver=required.receiver,
                receiver_authorizer=required.authorizer,
                token=required.token,
                withdraw_delay=required.delay,
                salt=channel_salt(offer.provider, number),
            )
            name = terms.channel(self.domain)
            found = known.get(name)
            if found is not None and found.state == "open":
                return found
            if found is None:
                lost = self._client.channel_state(name)
                if not lost.balance:
                    return self._store.add(name, offer.provider, offer.url, number, terms)
                # Ours, and not in the database, which was lost: what was signed is not known, so nothing more will be.
                self._store.add(name, offer.provider, offer.url, number, terms, "closing")
                self._store.change(
                    name, lambda it, money=lost.balance: replace(it, deposited=money, reason="found on the chain")
                )
                self._log("channel_found", {"channel": name.hex(), "provider": offer.provider})
        raise PaymentRequired(f"there are {_MOST_CHANNELS} channels with {offer.provider}", "ask another provider")

    def deposit(self, channel: Channel, seconds: float) -> Channel:
        """Deposit into a channel, or go on with a deposit under way. Blocks until it is final.

        Raises:
            PaymentRequired: the budget does not allow it, or the deposit failed.
            ChainFailed: it is not final within so many seconds.
        """
        planned = self._store.plan_deposit(channel.id, self.budget.deposit, self.budget.total)
        name = f"deposit {channel.id.hex()} {planned.deposits}"
        try:
            self._client.approve_and_deposit(planned.terms, planned.depositing, name)
            self._client.outbox.wait(f"{name}/deposit", seconds)
        except TransactionFailed as error:
            self._store.change(channel.id, lambda it: replace(it, depositing=0))
            raise PaymentRequired(
                f"the deposit of {planned.depositing} wei failed ({error.reason})",
                f"see that {self._client.address} has tokens, and coins for gas",
                reason="deposit",
            ) from error
        done = self._store.deposited(channel.id)
        self._log("deposited", {"channel": channel.id.hex(), "provider": channel.provider, "wei": planned.depositing})
        return done

    def withdraw(self, channel: Channel) -> Channel:
        """The next step of taking money back from a channel that is closing. Blocks.

        Raises:
            ChainFailed: the chain cannot be asked, or a transaction is not final yet; call this again.
        """
        state, name = self._client.channel_state(channel.id), channel.id.hex()
        if not state.leaving and state.balance > state.claimed:
            return self._initiate(channel, state.balance - state.claimed)
        if state.leaving:
            if self._client.now() < state.leaving_at + channel.terms.withdraw_delay:
                return channel if channel.state == "leaving" else self._store.change(channel.id, _leaving)
            self._send(f"finalize {name} ", lambda sent: self._client.finalize_withdraw(channel.terms, sent))
            state = self._client.channel_state(channel.id)
        closed = self._store.change(
            channel.id, lambda it: replace(it, state="closed", withdrawn=it.deposited - state.balance)
        )
        self._log("withdrawn", {"channel": name, "provider": channel.provider, "wei": closed.withdrawn})
        return closed

    async def withdraw_all(self) -> None:
        """The next step with every channel that is closing.

        Raises:
            StoreError: the database cannot be used.
        """
        for channel in await asyncio.to_thread(self._store.known):
            if channel.state in ("closing", "leaving"):
                try:
                    if channel.depositing:  # or it would arrive when all is over
                        await asyncio.to_thread(self.deposit, channel, self.budget.wait)
                    await asyncio.to_thread(self.withdraw, channel)
                except (ChainFailed, PaymentRequired) as error:
                    self._log("withdrawal_waits", {"channel": channel.id.hex(), "reason": error.message})

    def _initiate(self, channel: Channel, amount: int) -> Channel:
        name = f"withdraw {channel.id.hex()} "
        self._send(name, lambda sent: self._client.initiate_withdraw(channel.terms, amount, sent))
        self._log("withdrawing", {"channel": channel.id.hex(), "provider": channel.provider, "wei": amount})
        return self._store.change(channel.id, _leaving)

    def _send(self, prefix: str, send: Callable[[str], Sent]) -> None:
        """Wait for the transaction with this prefix that is under way, or for a new one. One too many does nothing: the
        contract refuses it."""
        waiting = self._client.outbox.unfinished(prefix)
        sent = waiting[-1] if waiting else send(self._client.outbox.new_name(prefix))
        self._client.outbox.wait(sent.name, self.budget.wait)


def _leaving(channel: Channel) -> Channel:
    return replace(channel, state="leaving")


def shown(channel: Channel) -> dict[str, object]:
    """A channel for people and scripts; amounts are wei, as decimal strings."""
    amounts = {name: str(getattr(channel, name)) for name in ("deposited", "withdrawn", "earned", "signed", "accepted")}
    return {
        "channel": channel.id.hex(), "provider": channel.provider, "url": channel.url, "state": channel.state,
        "reason": channel.reason, "left": str(max(channel.funds - channel.signed, 0)), **amounts,
    }  # fmt: skip


def is_named(channel: Channel, name: Address) -> bool:
    """`name` is the channel's id, its beginning, or its provider."""
    return name.lower() == channel.provider or (len(name) >= 8 and channel.id.hex().startswith(name.lower()))
