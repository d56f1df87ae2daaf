# pragma version 0.4.3
# pragma optimize gas
"""
@title A token for test networks
@license Apache-2.0
@notice ERC-20 with EIP-2612 permits (snekmate), and EIP-3009 authorisations, which x402's clients sign.
"""

from snekmate.auth import ownable
from snekmate.tokens import erc20
from snekmate.utils import ecdsa
from snekmate.utils import eip712_domain_separator

initializes: ownable
initializes: erc20[ownable := ownable]
exports: erc20.__interface__
uses: eip712_domain_separator

event AuthorizationUsed:
    authorizer: indexed(address)
    nonce: indexed(bytes32)

TRANSFER_TYPE: constant(bytes32) = keccak256(
    "TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)
RECEIVE_TYPE: constant(bytes32) = keccak256(
    "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
)

authorizationState: public(HashMap[address, HashMap[bytes32, bool]])


@deploy
def __init__(name_: String[25], symbol_: String[5], decimals_: uint8):
    ownable.__init__()
    erc20.__init__(name_, symbol_, decimals_, name_, "1")


@internal
def _use(
    type_hash: bytes32, owner: address, to: address, amount: uint256, after: uint256, before: uint256, nonce: bytes32,
    signature: Bytes[65]
):
    """
    @dev Transfer by a signature that is good between two times (Unix seconds) and for one nonce.
    """
    assert after < block.timestamp and block.timestamp < before, "authorization: not now"
    assert not self.authorizationState[owner][nonce], "authorization: used"
    struct_hash: bytes32 = keccak256(abi_encode(type_hash, owner, to, amount, after, before, nonce))
    signer: address = ecdsa._recover_sig(eip712_domain_separator._hash_typed_data_v4(struct_hash), signature)
    assert owner != empty(address) and signer == owner, "authorization: signature"
    self.authorizationState[owner][nonce] = True
    log AuthorizationUsed(authorizer=owner, nonce=nonce)
    erc20._transfer(owner, to, amount)


@external
def transferWithAuthorization(
    owner: address, to: address, amount: uint256, validAfter: uint256, validBefore: uint256, nonce: bytes32, v: uint8,
    r: bytes32, s: bytes32
):
    """
    @notice Transfer by the owner's signature; anybody may send it.
    """
    signature: Bytes[65] = concat(r, s, convert(v, bytes1))
    self._use(TRANSFER_TYPE, owner, to, amount, validAfter, validBefore, nonce, signature)


@external
def receiveWithAuthorization(
    owner: address, to: address, amount: uint256, validAfter: uint256, validBefore: uint256, nonce: bytes32,
    signature: Bytes[65]
):
    """
    @notice The same, sent by who receives, so that nobody can come before.
    """
    assert msg.sender == to, "authorization: not the receiver"
    self._use(RECEIVE_TYPE, owner, to, amount, validAfter, validBefore, nonce, signature)
