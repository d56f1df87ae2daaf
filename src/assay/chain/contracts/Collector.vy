# pragma version 0.4.3
# pragma optimize gas
"""
@title Deposits by EIP-3009
@license Apache-2.0
@notice Takes a payer's tokens to `Channels` by an authorisation that the payer signed for one channel, so that a payer
        needs neither gas nor an allowance.
"""

from ethereum.ercs import IERC20

interface Authorized:
    def receiveWithAuthorization(
        owner: address, to: address, amount: uint256, validAfter: uint256, validBefore: uint256, nonce: bytes32,
        signature: Bytes[65]
    ): nonpayable

CHANNELS: public(immutable(address))


@deploy
def __init__(channels: address):
    CHANNELS = channels


@external
def collect(payer: address, token: address, amount: uint256, channelId: bytes32, data: Bytes[1024]):
    """
    @notice Called by `Channels.deposit`.
    @param data ABI-encoded: valid after, valid before (Unix seconds), a salt, the signature. The authorisation's nonce is
           the hash of channel and salt, so that it is good for that channel only.
    """
    assert msg.sender == CHANNELS, "not Channels"
    after: uint256 = 0
    before: uint256 = 0
    salt: uint256 = 0
    signature: Bytes[65] = b""
    after, before, salt, signature = abi_decode(data, (uint256, uint256, uint256, Bytes[65]))
    nonce: bytes32 = keccak256(abi_encode(channelId, salt))
    extcall Authorized(token).receiveWithAuthorization(payer, self, amount, after, before, nonce, signature)
    assert extcall IERC20(token).transfer(msg.sender, amount, default_return_value=True)
