"""Channels, vaults and tokens as Python sees them: what is so now, and transactions that go through the outbox.

Everything blocks; from asynchronous code call it with `asyncio.to_thread`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from assay.chain.abi import CONFIG, encoded, words
from assay.chain.addresses import Addresses
from assay.chain.claims import Claim, batches
from assay.chain.ethereum import Web3
from assay.chain.events import KINDS, Events, Kind
from assay.chain.node import Asked, Node
from assay.chain.outbox import Outbox
from assay.chain.outbox_file import Sent, Wish
from assay.core.errors import ConfigError, InvalidRequest
from assay.core.hashing import Digest
from assay.core.keys import Address, Key
from assay.core.request import MAX_AMOUNT
from assay.core.voucher import Terms, Voucher, channels_domain

NOBODY: Final = "0x" + "0" * 40
_PAIR: Final = 8
"""Channels that one call reads: `multicall` takes 16 calls, and each channel is two."""


@dataclass(frozen=True, slots=True)
class ChannelState:
    """A channel as the chain has it, wei."""

    balance: int
    """Deposited and not taken back."""
    claimed: int
    leaving: int
    """That the payer is taking back: what is not claimed of it when the delay is over."""
    leaving_at: int
    """When the payer began to, Unix seconds; 0: nothing is leaving."""

    @property
    def sure(self) -> int:
        """What vouchers may add up to now: the balance less what is leaving."""
        return max(self.claimed, self.balance - self.leaving)


class ChainClient:
    """One key's view of the contracts. For use from several threads."""

    def __init__(self, provider: Web3 | Asked, addresses: Addresses, key: Key, outbox: Outbox) -> None:
        """`outbox`: of the same key and chain.

        Raises:
            ConfigError: it is of another one.
        """
        if (outbox.address, outbox.node.chain_id) != (key.address, addresses.chain_id):
            raise ConfigError("the outbox is of another key or chain", "open the one of this key")
        self.addresses: Final = addresses
        self.outbox: Final = outbox
        self.address: Final = key.address
        self.domain: Final = channels_domain(addresses.chain_id, addresses.channels)
        """For vouchers and channels' ids."""
        self.node: Final = Node(provider.provider if isinstance(provider, Web3) else provider, addresses.chain_id)

    def channel_state(self, channel: Digest) -> ChannelState:
        """A channel that nobody has paid into is all zeros.

        Raises:
            ChainFailed: the chain cannot be asked, or there are no channels at the address.
        """
        return self.channel_states([channel])[0]

    def channel_states(self, channels: Sequence[Digest]) -> list[ChannelState]:
        """Of several, in their order; eight at a time are read in one call, so of one block.

        Raises:
            ChainFailed: see `channel_state`.
        """
        found: list[ChannelState] = []
        for at in range(0, len(channels), _PAIR):
            part = channels[at : at + _PAIR]
            asked = [encoded(name, ("bytes32",), each) for each in part for name in ("channels", "pendingWithdrawals")]
            data = self.node.call(self.addresses.channels, encoded("multicall", ("bytes[]",), asked))
            flat, n = words(data, *[1 << 256] * (2 + 4 * len(asked)), what="a channel's state"), len(asked)
            for i in range(len(part)):
                # ABI: offset, length, an offset for each answer; then for each its length (64) and two words.
                own = [flat[2 + n + 3 * (2 * i + k) + word] for k in (0, 1) for word in (1, 2)]
                raw = b"".join(value.to_bytes(32, "big") for value in own)
                limit = MAX_AMOUNT + 1
                found.append(ChannelState(*words(raw, limit, limit, limit, 1 << 40, what="a channel's state")))
        return found

    def approve_and_deposit(self, terms: Terms, amount: int, name: str) -> Sent:
        """Put tokens of this key into a channel; the first deposit opens it. What is returned is the deposit.

        Raises:
            InvalidRequest: the payer is somebody else, or the amount out of range.
            StoreError: see `Outbox.send`.
        """
        if terms.payer != self.address or not 0 < amount <= MAX_AMOUNT:
            raise InvalidRequest("a payer deposits an amount of its own", remedy="use the payer's key")
        where = self.addresses.channels
        approval = encoded("approve", ("address", "uint256"), where, amount)
        deposit = encoded("deposit", (CONFIG, "uint128", "address", "bytes"), terms.values(), amount, NOBODY, b"")
        return self.outbox.send_all(
            [Wish(f"{name}/approve", terms.token, approval), Wish(f"{name}/deposit", where, deposit)]
        )[-1]

    def claim(self, claims: Sequence[tuple[Terms, Voucher, int]], name: str) -> list[Sent]:
        """Claim of each channel up to an amount in all: as few transactions as that takes, in the short form where it
        does. None is left out; the chain takes each transaction's claims all or none.

        Raises:
            InvalidRequest: an amount is over its voucher's, a channel is claimed twice, or is not this key's to claim.
            InvalidSignature, EncodingError: a voucher is not the channel's.
            StoreError: see `Outbox.send`.
        """
        data = batches([Claim(*each) for each in claims], self.domain, self.address)
        wishes = [Wish(f"{name}/{n}", self.addresses.channels, each) for n, each in enumerate(data)]
        return self.outbox.send_all(wishes) if wishes else []

    def settle(self, receiver: Address, token: Address, name: str) -> Sent:
        """Pay a receiver what was claimed for it."""
        return self._send(name, self.addresses.channels, encoded("settle", ("address", "address"), receiver, token))

    def owed(self, receiver: Address, token: Address) -> int:
        """What `settle` would pay, wei."""
        data = encoded("receivers", ("address", "address"), receiver, token)
        claimed, paid = words(
            self.node.call(self.addresses.channels, data), *[MAX_AMOUNT + 1] * 2, what="what a receiver is owed"
        )
        return max(0, claimed - paid)

    def initiate_withdraw(self, terms: Terms, amount: int, name: str) -> Sent:
        """Begin to take back what is not claimed."""
        data = encoded("initiateWithdraw", (CONFIG, "uint128"), terms.values(), amount)
        return self._send(name, self.addresses.channels, data)

    def finalize_withdraw(self, terms: Terms, name: str) -> Sent:
        """Take it back, once the channel's delay is over."""
        return self._send(name, self.addresses.channels, encoded("finalizeWithdraw", (CONFIG,), terms.values()))

    def vault_of(self, provider: Address) -> Address:
        """Where a provider's vault is, or will be.

        Raises:
            ConfigError: no vaults are known here.
            ChainFailed: the chain cannot be asked.
        """
        data = self.node.call(self._vaults(), encoded("vaultOf", ("address",), provider))
        (found,) = words(data, 1 << 160, what="a vault's address")
        return f"0x{found:040x}"

    def has_vault(self, provider: Address) -> bool:
        """It is there."""
        return bool(self.node.code(self.vault_of(provider)))

    def open_vault(self, name: str) -> Sent:
        """Make this key's vault."""
        return self._send(name, self._vaults(), encoded("open", ("address",), self.address))

    def vault_collect(self, name: str) -> Sent:
        """Hold back what this key's channels have paid: the window begins."""
        return self._send(name, self.vault_of(self.address), encoded("collect", ()))

    def vault_release(self, name: str) -> Sent:
        """Have this key's vault pay what has been held long enough."""
        return self._send(name, self.vault_of(self.address), encoded("release", ()))

    def vault_state(self, provider: Address) -> tuple[int, int]:
        """What a vault holds back (without what is not collected), and what of it `release` would pay, wei."""
        vault = self.vault_of(provider)
        asked = (self.node.call(vault, encoded(each, ())) for each in ("held", "ripe"))
        held, ripe = (words(each, 1 << 256, what="what a vault holds")[0] for each in asked)
        return held, ripe

    def balance_of(self, address: Address) -> int:
        """Of the chain's own coin, wei."""
        return self.node.balance(address)

    def token_balance(self, address: Address) -> int:
        """Of the token, wei."""
        data = self.node.call(self.addresses.token, encoded("balanceOf", ("address",), address))
        return words(data, 1 << 256, what="a balance")[0]

    def gas_price(self) -> int:
        """Wei for a unit of gas, now."""
        return self.node.head().base_fee + self.node.tip()

    def now(self) -> int:
        """The latest block's time, Unix seconds: what contracts go by."""
        return self.node.head().timestamp

    def events(self, kind: Kind, from_block: int) -> Events:
        """What happened in channels from a block on; see `Events`.

        Raises:
            InvalidRequest: there is no such kind.
        """
        if kind not in KINDS:
            raise InvalidRequest(f"channels have no event {kind!r}", remedy=f"ask for {', '.join(KINDS)}")
        return Events(self.node, self.addresses.channels, kind, from_block, confirmations=self.outbox.confirmations,
                      poll=self.outbox.pace.poll)  # fmt: skip

    def _send(self, name: str, to: Address, data: bytes) -> Sent:
        return self.outbox.send(name, to, data)

    def _vaults(self) -> Address:
        if not self.addresses.vault:
            raise ConfigError("no contract of vaults is known here", "name its address")
        return self.addresses.vault
