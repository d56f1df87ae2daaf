"""Channels against a model in Python, with real signatures: whatever is done in whatever order, tokens add up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from eth_abi import encode
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.chain.kit import NOBODY, PEOPLE, Clock, Town, address, config, embedded, runs, town_of

from assay.core.keys import keccak256
from assay.core.voucher import Terms

PAYERS, RECEIVERS, STRANGER = PEOPLE[1:3], PEOPLE[3:5], PEOPLE[5]
DELAY = 900
AMOUNTS = st.integers(1, 60)


@dataclass
class Channel:
    """What the contract should know of one."""

    payer: Any
    receiver: Any
    terms: Terms
    deposited: int = 0
    claimed: int = 0
    leaving: tuple[int, int] | None = None
    refunds: int = 0
    signed: list[int] = field(default_factory=list)


class ChannelsMachine(RuleBasedStateMachine):
    """Two payers and two receivers, four channels."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.chain = embedded(clock=self.clock)
        self.town: Town = town_of(self.chain)
        self.channels: list[Channel] = []
        self.settled = {each.address: 0 for each in RECEIVERS}

    @initialize()
    def open(self) -> None:
        """The channels, with nothing in them."""
        self.channels = [
            Channel(payer, receiver, self.town.terms(payer, receiver, 1, withdraw_delay=DELAY))
            for payer in PAYERS
            for receiver in RECEIVERS
        ]
        self.town.channels  # noqa: B018
        self.supply = self.town.token.functions.totalSupply().call()
        self.begin = {each.address: self.town.balance(each.address) for each in PEOPLE}

    def read(self, contract: Any, call: str, *args: Any) -> list[int]:
        """A view's numbers, without web3, which takes ten times as long: `name(types)` and arguments."""
        types = call[call.index("(") + 1 : -1]
        data = keccak256(call.encode())[:4] + (encode(types.split(","), args) if types else b"")
        output = self.chain.call(NOBODY, contract.address.lower(), data).output
        return [int.from_bytes(output[i : i + 32], "big") for i in range(0, len(output), 32)]

    def balance(self, of: str) -> int:
        """Tokens."""
        return self.read(self.town.token, "balanceOf(address)", of)[0]

    def expect(self, who: Any, call: Any, ok: bool) -> None:
        """The transaction holds, or not, as the model says."""
        assert self.town.post(who, call)["status"] == int(ok), self.town.why(who, call)

    @rule(which=st.integers(0, 3), amount=AMOUNTS)
    def deposit(self, which: int, amount: int) -> None:
        """Money in."""
        channel = self.channels[which]
        call = self.town.channels.functions.deposit(config(channel.terms), amount, NOBODY, b"")
        self.expect(channel.payer, call, True)
        channel.deposited += amount

    @rule(which=st.integers(0, 3), more=AMOUNTS)
    def sign(self, which: int, more: int) -> None:
        """A voucher, of which the receiver may make use at any time."""
        channel = self.channels[which]
        channel.signed.append(max(channel.signed, default=0) + more)

    @rule(picks=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=4),
          who=st.integers(0, 1), compact=st.booleans())  # fmt: skip
    def claim(self, picks: list[tuple[int, int, int]], who: int, compact: bool) -> None:
        """One or more vouchers, old and new, in either form: all hold or none."""
        receiver = RECEIVERS[who]
        chosen = []
        for payer, index, less in picks:
            channel = self.channels[2 * payer + who]
            if channel.signed:
                most = channel.signed[index % len(channel.signed)]
                chosen.append((channel, most, most if compact else max(0, most - less)))
        after = {id(channel): channel.claimed for channel, _, _ in chosen}
        ok = True
        for channel, _, amount in chosen:
            ok = ok and amount <= max(channel.deposited, after[id(channel)])
            after[id(channel)] = max(amount, after[id(channel)])
        if compact:
            entries = b"".join(self.town.compact(channel.payer, channel.terms, most) for channel, most, _ in chosen)
            call = self.town.channels.functions.claimCompact(address(receiver), self.town.token.address, DELAY, entries)
        else:
            call = self.town.channels.functions.claim(
                [
                    self.town.claim_of(channel.payer, channel.terms, amount, most=most)
                    for channel, most, amount in chosen
                ]
            )
        self.expect(receiver, call, ok)
        for channel, _, _ in chosen if ok else ():
            channel.claimed = after[id(channel)]

    @rule(which=st.integers(0, 3), amount=AMOUNTS)
    def steal(self, which: int, amount: int) -> None:
        """A stranger signs, claims, withdraws and gives back: nothing of it holds."""
        channel = self.channels[which]
        functions = self.town.channels.functions
        forged = self.town.claim_of(STRANGER, channel.terms, channel.claimed + amount)
        self.expect(channel.receiver, functions.claim([forged]), False)
        if channel.signed:
            mine = self.town.claim_of(channel.payer, channel.terms, channel.signed[-1])
            self.expect(STRANGER, functions.claim([mine]), False)
        self.expect(STRANGER, functions.initiateWithdraw(config(channel.terms), amount), False)
        self.expect(STRANGER, functions.refund(config(channel.terms), amount), False)
        self.expect(STRANGER, functions.finalizeWithdraw(config(channel.terms)), False)

    @rule(which=st.integers(0, 3), amount=AMOUNTS)
    def initiate(self, which: int, amount: int) -> None:
        """The payer wants to leave."""
        channel = self.channels[which]
        call = self.town.channels.functions.initiateWithdraw(config(channel.terms), amount)
        ok = channel.leaving is None and amount <= channel.deposited - channel.claimed
        self.expect(channel.payer, call, ok)
        if ok:
            channel.leaving = (amount, self.chain.head.timestamp)

    @rule(which=st.integers(0, 3))
    def finalize(self, which: int) -> None:
        """And leaves, if it is time."""
        channel = self.channels[which]
        rest = channel.deposited - channel.claimed
        now = max(int(self.clock()), self.chain.head.timestamp)
        ok = channel.leaving is not None and now >= channel.leaving[1] + DELAY
        self.expect(channel.payer, self.town.channels.functions.finalizeWithdraw(config(channel.terms)), ok)
        if ok and channel.leaving is not None:
            channel.deposited -= min(channel.leaving[0], rest)
            channel.leaving = None

    @rule(which=st.integers(0, 3), amount=AMOUNTS)
    def refund(self, which: int, amount: int) -> None:
        """The receiver gives back."""
        channel = self.channels[which]
        rest = channel.deposited - channel.claimed
        self.expect(channel.receiver, self.town.channels.functions.refund(config(channel.terms), amount), True)
        back = min(amount, rest)
        channel.deposited -= back
        channel.refunds += 1
        if channel.leaving is not None:
            left = channel.leaving[0] - back
            channel.leaving = (left, channel.leaving[1]) if left > 0 else None

    @rule(who=st.integers(0, 1))
    def settle(self, who: int) -> None:
        """Money out."""
        receiver = RECEIVERS[who]
        self.expect(STRANGER, self.town.channels.functions.settle(address(receiver), self.town.token.address), True)
        self.settled[receiver.address] = sum(
            channel.claimed for channel in self.channels if channel.receiver is receiver
        )

    @rule(seconds=st.sampled_from([1, 300, 899, 900, 5000]))
    def wait(self, seconds: int) -> None:
        """Time passes."""
        self.clock.now += seconds

    @invariant()
    def the_contract_is_the_model(self) -> None:
        """Each channel's numbers."""
        contract = self.town.channels
        for channel in self.channels:
            name = channel.terms.channel(self.town.domain)
            assert self.read(contract, "channels(bytes32)", name) == [channel.deposited, channel.claimed]
            assert channel.claimed <= channel.deposited
            assert channel.claimed <= max(channel.signed, default=0)
            amount, since = self.read(contract, "pendingWithdrawals(bytes32)", name)
            assert ((amount, since) if since else None) == channel.leaving
            assert self.read(contract, "refundNonce(bytes32)", name) == [channel.refunds]

    @invariant()
    def tokens_in_are_tokens_owed(self) -> None:
        """The contract holds what is in channels, and what is claimed and not paid; people have the rest."""
        if not self.channels:
            return
        paid = sum(self.settled.values())
        held = self.balance(self.town.channels.address)
        assert held == sum(channel.deposited for channel in self.channels) - paid
        assert self.read(self.town.token, "totalSupply()") == [self.supply]
        for receiver in RECEIVERS:
            assert self.balance(receiver.address) == self.begin[receiver.address] + self.settled[receiver.address]
        for payer in PAYERS:
            inside = sum(channel.deposited for channel in self.channels if channel.payer is payer)
            assert self.balance(payer.address) == self.begin[payer.address] - inside

    def teardown(self) -> None:
        """Nothing stays."""
        self.chain.close()


class TestChannels(ChannelsMachine.TestCase):
    """A few runs."""

    settings = runs(6, 20)


@pytest.mark.slow
class TestChannelsLong(ChannelsMachine.TestCase):
    """Many, long ones."""

    settings = runs(256, 50)
