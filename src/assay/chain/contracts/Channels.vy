# pragma version 0.4.3
# pragma optimize gas
"""
@title Payment channels
@license Apache-2.0
@notice One-way channels of an ERC-20: the payer deposits, signs cumulative vouchers off-chain, and the receiver claims many
        of them at once. Speaks the ABI of x402's `batch-settlement`, and a shorter one of its own (`claimCompact`).
@dev A channel is its terms: its id is their EIP-712 digest, so terms never change. Authorizers are keys, not contracts.
     A word of storage holds a channel: deposits less withdrawals in the upper half, what was claimed in the lower one.
     Whatever moves money is locked against calls from within it: a collector that deposits again while it collects would
     have the same tokens counted twice. Tokens that take a fee on transfer are refused by what arrives.
"""

from ethereum.ercs import IERC20

interface Collector:
    def collect(payer: address, token: address, amount: uint256, channelId: bytes32, data: Bytes[1024]): nonpayable

struct ChannelConfig:
    payer: address
    payerAuthorizer: address
    receiver: address
    receiverAuthorizer: address
    token: address
    withdrawDelay: uint40
    salt: bytes32

struct Voucher:
    channel: ChannelConfig
    maxClaimableAmount: uint128

struct VoucherClaim:
    voucher: Voucher
    signature: Bytes[65]
    totalClaimed: uint128

event Deposited:
    channelId: indexed(bytes32)
    payer: indexed(address)
    receiver: indexed(address)
    amount: uint128

event Claimed:
    channelId: indexed(bytes32)
    totalClaimed: uint128

event Settled:
    receiver: indexed(address)
    token: indexed(address)
    sender: indexed(address)
    amount: uint128

event WithdrawInitiated:
    channelId: indexed(bytes32)
    amount: uint128
    at: uint256

event Withdrawn:
    channelId: indexed(bytes32)
    amount: uint128

MIN_WITHDRAW_DELAY: public(constant(uint40)) = 900
MAX_WITHDRAW_DELAY: public(constant(uint40)) = 2_592_000
MAX_CLAIMS: constant(uint256) = 100
LOW: constant(uint256) = 2**128 - 1
HALF_ORDER: constant(uint256) = 57896044618658097711785492504343953926418782139537452191302581570759080747168
ENTRY: constant(uint256) = 132

DOMAIN_TYPE: constant(bytes32) = keccak256(
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
CONFIG_TYPE: constant(bytes32) = keccak256(
    "ChannelConfig(address payer,address payerAuthorizer,address receiver,address receiverAuthorizer,address token,uint40 withdrawDelay,bytes32 salt)"
)
VOUCHER_TYPE: constant(bytes32) = keccak256("Voucher(bytes32 channelId,uint128 maxClaimableAmount)")
REFUND_TYPE: constant(bytes32) = keccak256("Refund(bytes32 channelId,uint256 nonce,uint128 amount)")
ENTRY_TYPE: constant(bytes32) = keccak256(
    "ClaimEntry(bytes32 channelId,uint128 maxClaimableAmount,uint128 totalClaimed)"
)
BATCH_TYPE: constant(bytes32) = keccak256(
    "ClaimBatch(ClaimEntry[] claims)ClaimEntry(bytes32 channelId,uint128 maxClaimableAmount,uint128 totalClaimed)"
)

DOMAIN: immutable(bytes32)
CHAIN: immutable(uint256)

words: HashMap[bytes32, uint256]
earned: HashMap[address, HashMap[address, uint256]]
leaving: HashMap[bytes32, uint256]
refundNonce: public(HashMap[bytes32, uint256])


@deploy
def __init__():
    CHAIN = chain.id
    DOMAIN = keccak256(abi_encode(DOMAIN_TYPE, keccak256("x402 Batch Settlement"), keccak256("1"), chain.id, self))


@view
@internal
def _digest(struct_hash: bytes32) -> bytes32:
    assert chain.id == CHAIN, "another chain"
    return keccak256(concat(x"1901", DOMAIN, struct_hash))


@view
@internal
def _id(config: ChannelConfig) -> bytes32:
    return self._digest(keccak256(abi_encode(CONFIG_TYPE, config)))


@view
@internal
def _check(digest: bytes32, r: uint256, s: uint256, v: uint256, signer: address):
    assert s <= HALF_ORDER, "signature"
    assert signer != empty(address) and ecrecover(digest, v, r, s) == signer, "signature"


@view
@internal
def _check_bytes(digest: bytes32, signature: Bytes[65], signer: address):
    assert len(signature) == 65, "signature"
    self._check(
        digest,
        extract32(signature, 0, output_type=uint256),
        extract32(signature, 32, output_type=uint256),
        convert(slice(signature, 64, 1), uint256),
        signer,
    )


@view
@internal
def _voucher_digest(channel_id: bytes32, amount: uint128) -> bytes32:
    return self._digest(keccak256(abi_encode(VOUCHER_TYPE, channel_id, amount)))


@view
@internal
def _refund_digest(channel_id: bytes32, nonce: uint256, amount: uint128) -> bytes32:
    return self._digest(keccak256(abi_encode(REFUND_TYPE, channel_id, nonce, amount)))


@internal
def _raise(channel_id: bytes32, claimed: uint256) -> uint256:
    """
    @dev Raise what was claimed of a channel; by how much. A claim that is no more than an earlier one gives nothing, so
         that nobody can spoil a batch by claiming a part of it before.
    """
    word: uint256 = self.words[channel_id]
    before: uint256 = word & LOW
    if claimed <= before:
        return 0
    assert claimed <= word >> 128, "more than was deposited"
    self.words[channel_id] = word + claimed - before
    log Claimed(channelId=channel_id, totalClaimed=convert(claimed, uint128))
    return claimed - before


@internal
def _claim(claims: DynArray[VoucherClaim, MAX_CLAIMS], authorizer: address):
    for each: VoucherClaim in claims:
        config: ChannelConfig = each.voucher.channel
        assert config.receiverAuthorizer == authorizer or config.receiver == authorizer, "not the receiver's"
        assert each.totalClaimed <= each.voucher.maxClaimableAmount, "more than was signed"
        channel_id: bytes32 = self._id(config)
        digest: bytes32 = self._voucher_digest(channel_id, each.voucher.maxClaimableAmount)
        self._check_bytes(digest, each.signature, config.payerAuthorizer)
        self.earned[config.receiver][config.token] += (
            self._raise(channel_id, convert(each.totalClaimed, uint256)) << 128
        )


@nonreentrant
@external
def deposit(config: ChannelConfig, amount: uint128, collector: address, collectorData: Bytes[1024]):
    """
    @notice Put tokens into a channel; the first deposit opens it.
    @param collector Who has the payer's authorisation; this contract's own address or zero: the caller pays from an
           allowance to this contract.
    """
    assert amount > 0, "nothing"
    assert config.payerAuthorizer != empty(address) and config.receiverAuthorizer != empty(address), "authorizer"
    assert config.receiver != empty(address) and config.payer != empty(address), "party"
    assert MIN_WITHDRAW_DELAY <= config.withdrawDelay and config.withdrawDelay <= MAX_WITHDRAW_DELAY, "delay"
    channel_id: bytes32 = self._id(config)
    word: uint256 = self.words[channel_id]
    assert (word >> 128) + convert(amount, uint256) <= LOW, "too much"
    self.words[channel_id] = word + (convert(amount, uint256) << 128)
    before: uint256 = staticcall IERC20(config.token).balanceOf(self)
    if collector == empty(address) or collector == self:
        assert msg.sender == config.payer, "not the payer"
        assert extcall IERC20(config.token).transferFrom(
            msg.sender, self, convert(amount, uint256), default_return_value=True
        )
    else:
        extcall Collector(collector).collect(
            config.payer, config.token, convert(amount, uint256), channel_id, collectorData
        )
    after: uint256 = staticcall IERC20(config.token).balanceOf(self)
    assert after == before + convert(amount, uint256), "not collected"
    log Deposited(channelId=channel_id, payer=config.payer, receiver=config.receiver, amount=amount)


@nonreentrant
@external
def claim(voucherClaims: DynArray[VoucherClaim, MAX_CLAIMS]):
    """
    @notice Claim vouchers as the receiver or its authorizer; `settle` pays them out.
    """
    self._claim(voucherClaims, msg.sender)


@nonreentrant
@external
def claimCompact(
    receiver: address, token: address, withdrawDelay: uint40, entries: Bytes[ENTRY * MAX_CLAIMS]
):
    """
    @notice `claim` for channels of one receiver whose authorizer calls, and whose payers sign themselves.
    @param entries For each voucher: payer (20 bytes), salt (32), amount (16), r (32), and s with the parity of y in its
           highest bit (32), see ERC-2098.
    """
    assert len(entries) % ENTRY == 0, "entries"
    total: uint256 = 0
    config: ChannelConfig = ChannelConfig(
        payer=empty(address), payerAuthorizer=empty(address), receiver=receiver, receiverAuthorizer=msg.sender,
        token=token, withdrawDelay=withdrawDelay, salt=empty(bytes32)
    )
    for i: uint256 in range(len(entries) // ENTRY, bound=MAX_CLAIMS):
        at: uint256 = i * ENTRY
        config.payer = convert(extract32(entries, at, output_type=uint256) >> 96, address)
        config.payerAuthorizer = config.payer
        config.salt = extract32(entries, at + 20)
        amount: uint256 = extract32(entries, at + 52, output_type=uint256) >> 128
        s: uint256 = extract32(entries, at + 100, output_type=uint256)
        channel_id: bytes32 = self._id(config)
        digest: bytes32 = self._voucher_digest(channel_id, convert(amount, uint128))
        self._check(digest, extract32(entries, at + 68, output_type=uint256), s & (2**255 - 1), 27 + (s >> 255), config.payer)
        total += self._raise(channel_id, amount)
    assert total <= LOW, "too much"
    self.earned[receiver][token] += total << 128


@nonreentrant
@external
def claimWithSignature(voucherClaims: DynArray[VoucherClaim, MAX_CLAIMS], authorizerSignature: Bytes[65]):
    """
    @notice `claim` for anybody who has the signature of the authorizer of all these channels.
    """
    assert len(voucherClaims) > 0, "nothing"
    authorizer: address = voucherClaims[0].voucher.channel.receiverAuthorizer
    self._check_bytes(self._batch_digest(voucherClaims), authorizerSignature, authorizer)
    self._claim(voucherClaims, authorizer)


@view
@internal
def _batch_digest(claims: DynArray[VoucherClaim, MAX_CLAIMS]) -> bytes32:
    hashes: DynArray[bytes32, MAX_CLAIMS] = []
    for each: VoucherClaim in claims:
        hashes.append(
            keccak256(
                abi_encode(ENTRY_TYPE, self._id(each.voucher.channel), each.voucher.maxClaimableAmount, each.totalClaimed)
            )
        )
    packed: Bytes[32 * MAX_CLAIMS + 64] = abi_encode(hashes)
    return self._digest(keccak256(abi_encode(BATCH_TYPE, keccak256(slice(packed, 64, len(packed) - 64)))))


@nonreentrant
@external
def settle(receiver: address, token: address):
    """
    @notice Pay a receiver what was claimed for it. Anybody may call.
    """
    word: uint256 = self.earned[receiver][token]
    amount: uint256 = (word >> 128) - (word & LOW)
    if amount == 0:
        return
    self.earned[receiver][token] = word + amount
    assert extcall IERC20(token).transfer(receiver, amount, default_return_value=True)
    log Settled(receiver=receiver, token=token, sender=msg.sender, amount=convert(amount, uint128))


@internal
def _take(config: ChannelConfig, channel_id: bytes32, amount: uint256) -> uint256:
    """
    @dev Give the payer back up to `amount` of what is not claimed; how much that was.
    """
    word: uint256 = self.words[channel_id]
    back: uint256 = min(amount, (word >> 128) - (word & LOW))
    if back > 0:
        self.words[channel_id] = word - (back << 128)
        assert extcall IERC20(config.token).transfer(config.payer, back, default_return_value=True)
    log Withdrawn(channelId=channel_id, amount=convert(back, uint128))
    return back


@internal
def _refund(config: ChannelConfig, channel_id: bytes32, amount: uint128):
    """
    @dev What is given back counts as withdrawn.
    """
    assert amount > 0, "nothing"
    self.refundNonce[channel_id] += 1
    back: uint256 = self._take(config, channel_id, convert(amount, uint256))
    word: uint256 = self.leaving[channel_id]
    if word != 0:
        self.leaving[channel_id] = 0 if back >= word >> 128 else word - (back << 128)


@view
@internal
def _check_payer(config: ChannelConfig):
    assert msg.sender == config.payer or msg.sender == config.payerAuthorizer, "not the payer"


@external
def initiateWithdraw(config: ChannelConfig, amount: uint128):
    """
    @notice Begin to take back what is not claimed; the receiver has the channel's delay to claim. One at a time.
    @dev Once the delay is over, the payer can take it at any moment: receivers do not count on what is leaving.
    """
    self._check_payer(config)
    channel_id: bytes32 = self._id(config)
    word: uint256 = self.words[channel_id]
    assert self.leaving[channel_id] == 0, "initiated already"
    assert 0 < amount and convert(amount, uint256) <= (word >> 128) - (word & LOW), "more than is left"
    self.leaving[channel_id] = (convert(amount, uint256) << 128) | block.timestamp
    log WithdrawInitiated(channelId=channel_id, amount=amount, at=block.timestamp)


@nonreentrant
@external
def finalizeWithdraw(config: ChannelConfig):
    """
    @notice Take back what is not claimed meanwhile, once the delay is over.
    """
    self._check_payer(config)
    channel_id: bytes32 = self._id(config)
    word: uint256 = self.leaving[channel_id]
    assert word != 0, "not initiated"
    assert block.timestamp >= (word & LOW) + convert(config.withdrawDelay, uint256), "too early"
    self.leaving[channel_id] = 0
    self._take(config, channel_id, word >> 128)


@nonreentrant
@external
def refund(config: ChannelConfig, amount: uint128):
    """
    @notice The receiver, or its authorizer, gives back at once up to `amount` of what is not claimed.
    """
    assert msg.sender == config.receiverAuthorizer or msg.sender == config.receiver, "not the receiver's"
    self._refund(config, self._id(config), amount)


@nonreentrant
@external
def refundWithSignature(
    config: ChannelConfig, amount: uint128, nonce: uint256, receiverAuthorizerSignature: Bytes[65]
):
    """
    @notice `refund` for anybody who has the authorizer's signature.
    """
    channel_id: bytes32 = self._id(config)
    assert nonce == self.refundNonce[channel_id], "nonce"
    digest: bytes32 = self._refund_digest(channel_id, nonce, amount)
    self._check_bytes(digest, receiverAuthorizerSignature, config.receiverAuthorizer)
    self._refund(config, channel_id, amount)


@external
def multicall(data: DynArray[Bytes[4096], 16]) -> DynArray[Bytes[256], 16]:
    """
    @notice Several of these calls in one transaction; all hold or none.
    """
    results: DynArray[Bytes[256], 16] = []
    for each: Bytes[4096] in data:
        results.append(raw_call(self, each, max_outsize=256, is_delegate_call=True))
    return results


@view
@external
def channels(channelId: bytes32) -> (uint128, uint128):
    """
    @return What was deposited and not taken back, and what was claimed.
    """
    word: uint256 = self.words[channelId]
    return convert(word >> 128, uint128), convert(word & LOW, uint128)


@view
@external
def receivers(receiver: address, token: address) -> (uint128, uint128):
    """
    @return What was claimed for a receiver, and what was paid out.
    """
    word: uint256 = self.earned[receiver][token]
    return convert(word >> 128, uint128), convert(word & LOW, uint128)


@view
@external
def pendingWithdrawals(channelId: bytes32) -> (uint128, uint40):
    """
    @return The amount, and when the withdrawal began (Unix seconds); zeros: none.
    """
    word: uint256 = self.leaving[channelId]
    return convert(word >> 128, uint128), convert(word & LOW, uint40)


@view
@external
def getChannelId(config: ChannelConfig) -> bytes32:
    """
    @return The id of a channel with these terms: their EIP-712 digest.
    """
    return self._id(config)


@view
@external
def getVoucherDigest(channelId: bytes32, maxClaimableAmount: uint128) -> bytes32:
    """
    @return What the payer's authorizer signs.
    """
    return self._voucher_digest(channelId, maxClaimableAmount)


@view
@external
def getRefundDigest(channelId: bytes32, nonce: uint256, amount: uint128) -> bytes32:
    """
    @return What the receiver's authorizer signs for `refundWithSignature`.
    """
    return self._refund_digest(channelId, nonce, amount)


@view
@external
def getClaimBatchDigest(voucherClaims: DynArray[VoucherClaim, MAX_CLAIMS]) -> bytes32:
    """
    @return What the receiver's authorizer signs for `claimWithSignature`.
    """
    return self._batch_digest(voucherClaims)
