"""A provider's way from vouchers to money, unattended: claim, settle to the vault, hold back, release.

It keeps nothing of its own: vouchers are cumulative, a claim of what is claimed already gives nothing, and what was
sent is in the outbox. So after a crash it looks at the chain, and goes on.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from assay.chain.claims import MAX_CLAIMS, Claim
from assay.chain.client import ChainClient, ChannelState
from assay.core.errors import AssayError, ConfigError, EncodingError, TransactionFailed
from assay.core.hashing import Digest
from assay.core.keys import Address
from assay.core.voucher import MIN_WITHDRAW_DELAY, Terms, Voucher

Earning: TypeAlias = tuple[Terms, Voucher, int]
"""A channel's terms, its best voucher, and how much is known to be claimed of it, wei."""
Errand: TypeAlias = Literal["claim", "settle", "open", "collect", "release"]
GAS: Final[dict[Errand, int]] = {
    "claim": 45_000,
    "settle": 65_000,
    "open": 90_000,
    "collect": 100_000,
    "release": 80_000,
}
"""Of a transaction, at most about: a test compares."""
EACH_GAS: Final = 18_100, 27_000
"""More for each voucher, in the short form and in the long one."""
MOST: Final = 10 * MAX_CLAIMS
"""Vouchers that are claimed in one go."""
PATIENCE: Final = 6
"""After failures an errand rests for a look, then two, four, … up to two to this power."""
_LOOKS: Final = 200
"""Channels, at least, that are looked at each time."""
_PREFIX: Final = "cashier/"


@dataclass(frozen=True, slots=True)
class Habits:
    """When something is worth its gas."""

    factor: int = 20
    """When it is worth so many times the gas."""
    every: int = 86_400
    """Seconds of the chain after which being worth more than the gas is enough."""
    token_wei_per_gas_wei: float = 1.0
    """What a wei of what gas is paid in is worth in wei of the token; 0: gas costs nothing."""
    least: int = 1
    """Wei of the token that are worth a transaction, however little that costs."""
    look: float = 15.0
    """Seconds between two looks; in a quarter of the shortest delay all channels are looked at."""

    def __post_init__(self) -> None:
        """Check everything.

        Raises:
            ConfigError: something is out of range.
        """
        rate = self.token_wei_per_gas_wei
        if self.factor < 1 or self.every < 0 or self.least < 1 or not 0 < self.look <= MIN_WITHDRAW_DELAY / 4:
            raise ConfigError(
                "a cashier's habits are out of range", f"look every {MIN_WITHDRAW_DELAY // 4} s or oftener"
            )
        if not 0 <= rate < math.inf:
            raise ConfigError("the worth of gas is a number from 0 on", "give wei of the token for a wei of gas")


@dataclass(frozen=True, slots=True)
class _Due:
    """What can be claimed of a channel."""

    claim: Claim
    gain: int
    """Wei."""
    at_risk: bool
    """A withdrawal would take some of it."""

    @classmethod
    def of(cls, claim: Claim, state: ChannelState) -> _Due:
        """By the chain's state: never more than was signed, nor than is there."""
        most = min(claim.voucher.amount, state.balance)
        return cls(replace(claim, amount=most), most - state.claimed, most > state.sure)


class Cashier:
    """For one thread, its own after `start`."""

    def __init__(
        self,
        client: ChainClient,
        source: Callable[[], Iterable[Earning]],
        habits: Habits | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`source` gives each channel of which not all is claimed, and is asked at each look; `clock`: seconds from
        anywhere."""
        self.trouble = ""
        """What was wrong at the last look; empty: nothing."""
        self._client: Final = client
        self._source: Final = source
        self._habits: Final = habits or Habits()
        self._clock: Final = clock
        self._states: dict[Digest, ChannelState] = {}
        self._checked: dict[Digest, Claim] = {}
        self._turn = 0
        self._sent: Final[dict[Errand, list[str]]] = {}
        self._failures: Final[dict[Errand, int]] = {}
        self._rest: Final[dict[Errand, float]] = {}
        self._began: int | None = None
        self._vault: Address | None = None
        self._now = self._price = 0
        self._stop: Final = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Look from a thread of its own, until `close`. The outbox has to be started, too."""
        self._thread = threading.Thread(target=self.run, name="cashier", daemon=True)
        self._thread.start()

    def run(self) -> None:
        """Look until `close`; outages are waited out."""
        while not self._stop.is_set():
            try:
                self.step()
            except AssayError as error:
                self.trouble = str(error)
            self._stop.wait(self._habits.look)

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def step(self) -> None:
        """Look once, and send what is due.

        Raises:
            ChainFailed: the chain cannot be asked.
            StoreError: the outbox cannot be written.
            AssayError: whatever `source` raises.
        """
        self.trouble = ""
        self._now, self._price = self._client.now(), self._client.gas_price()
        self._began = self._now if self._began is None else self._began
        claims = self._claims()
        if self._free("claim"):
            self._claim(claims)
        vault, token = self._own_vault(), self._client.addresses.token
        receivers = {each.terms.receiver for each in claims.values()} | ({vault} - {""})
        for receiver in sorted(receivers):
            if self._free("settle") and self._worth("settle", self._client.owed(receiver, token)):
                name = self._name("settle")
                self._sent["settle"] = [self._client.settle(receiver, token, name).name]
        if vault:
            self._empty(vault)

    def _claims(self) -> dict[Digest, Claim]:
        """What is earned, without what the contract would refuse: one such voucher would spoil those beside it."""
        found: dict[Digest, Claim] = {}
        for terms, voucher, claimed in self._source():
            claim = Claim(terms, voucher, voucher.amount)
            if voucher.amount <= claimed:
                continue
            try:
                if claim != self._checked.get(voucher.channel):
                    if terms.token != self._client.addresses.token:
                        raise EncodingError(f"it is paid in {terms.token}, whose worth is not known")
                    claim.check(self._client.domain, self._client.address)
                found[voucher.channel] = claim
            except AssayError as error:
                self.trouble = f"the voucher for channel {voucher.channel.hex()} is not claimed ({error})"
        self._checked = found
        return found

    def _claim(self, claims: dict[Digest, Claim]) -> None:
        """Claim what is due, after another look at it."""
        self._look(list(claims))
        for again in (True, False):
            due = self._choose([_Due.of(claims[name], state) for name, state in self._states.items()])
            if due and again:
                self._refresh([each.claim.voucher.channel for each in due])
            elif due:
                made = [(each.claim.terms, each.claim.voucher, each.claim.amount) for each in due]
                self._sent["claim"] = [each.name for each in self._client.claim(made, self._name("claim"))]

    def _choose(self, found: Sequence[_Due]) -> list[_Due]:
        """What a withdrawal would take, at once; or all, when it is worth it; or nothing."""
        worth = [each for each in found if each.gain > self._cost(self._gas([each]))]
        worth = sorted(worth, key=lambda each: -each.gain)[:MOST]
        at_risk = [each for each in worth if each.at_risk]
        for some, urgent in ((at_risk, True), (worth, False)):
            gas, gain = self._gas(some) + GAS["claim"] * -(-len(some) // MAX_CLAIMS), sum(each.gain for each in some)
            if some and (gain > self._cost(gas) if urgent else self._worth("claim", gain, gas)):
                return some
        return []

    def _gas(self, found: Sequence[_Due]) -> int:
        """Of the vouchers alone."""
        return sum(EACH_GAS[not each.claim.compact(self._client.address)] for each in found)

    def _look(self, channels: Sequence[Digest]) -> None:
        """Refresh some states, so that each gets its turn well before a withdrawal's delay is over."""
        known = {name: self._states[name] for name in channels if name in self._states}
        fresh = [name for name in channels if name not in known]
        number = max(_LOOKS, math.ceil(len(channels) * self._habits.look / (MIN_WITHDRAW_DELAY / 4)))
        order, self._states = list(known), known
        turn = [order[(self._turn + n) % len(order)] for n in range(min(number, len(order)))]
        self._turn = (self._turn + number) % max(1, len(order))
        self._refresh(fresh[:number] + turn)

    def _refresh(self, channels: Sequence[Digest]) -> None:
        self._states |= zip(channels, self._client.channel_states(channels), strict=True)

    def _empty(self, vault: Address) -> None:
        """Begin the window of what has come into the vault, and take out what has been there long enough."""
        there = self._client.token_balance(vault)
        if not self._client.has_vault(self._client.address):
            if self._free("open") and self._worth("open", there, GAS["open"] + GAS["collect"]):
                self._sent["open"] = [self._client.open_vault(self._name("open")).name]
            return
        held, ripe = self._client.vault_state(self._client.address)
        if self._free("collect") and self._worth("collect", there - held):
            self._sent["collect"] = [self._client.vault_collect(self._name("collect")).name]
        if self._free("release") and self._worth("release", ripe):
            self._sent["release"] = [self._client.vault_release(self._name("release")).name]

    def _worth(self, errand: Errand, value: int, gas: int | None = None) -> bool:
        """It is time for an errand that brings so much."""
        cost = self._cost(GAS[errand] if gas is None else gas)
        if value < self._habits.least or value <= cost:
            return False
        if value >= self._habits.factor * cost:
            return True
        last = self._client.outbox.last(f"{_PREFIX}{errand}/")
        since = self._began if last is None else self._client.node.head(last.block).timestamp
        return since is not None and self._now - since >= self._habits.every

    def _cost(self, gas: int) -> int:
        """Of gas, wei of the token."""
        return int(gas * self._price * self._habits.token_wei_per_gas_wei)

    def _free(self, errand: Errand) -> bool:
        """Nothing of the kind is under way, or has failed a moment ago."""
        if self._client.outbox.unfinished(f"{_PREFIX}{errand}/"):
            return False
        failed = None
        for name in self._sent.pop(errand, ()):
            try:
                self._client.outbox.result(name)
                self._failures.pop(errand, None)
            except TransactionFailed as error:
                failed = error
        if failed is not None:
            self.trouble = str(failed)
            count = self._failures[errand] = min(self._failures.get(errand, -1) + 1, PATIENCE)
            self._rest[errand] = self._clock() + self._habits.look * 2**count
        return self._clock() >= self._rest.get(errand, -math.inf)

    def _name(self, errand: Errand) -> str:
        return self._client.outbox.new_name(f"{_PREFIX}{errand}/")

    def _own_vault(self) -> Address:
        """Empty: there are none on this chain."""
        if self._vault is None:
            known = self._client.addresses.vault
            self._vault = self._client.vault_of(self._client.address) if known else ""
        return self._vault
