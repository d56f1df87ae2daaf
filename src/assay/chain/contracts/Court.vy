# pragma version 0.4.3
# pragma optimize gas
"""
@title Bonds, and disputes over receipts
@license Apache-2.0
@notice Providers bond tokens. Whoever doubts an exact receipt opens a dispute, in which its provider and the challenger move in
        turn until the game says who is right, or one lets its time run out. A provider that loses loses a share of its bond and
        all that its vault holds back. Two receipts under one number lose at once.
@dev Of moves it knows nothing: the game does. Here are money, turns and time; no owner, and nothing that can be changed but by
     `Params`, whose values a dispute keeps as they were when it was opened. Nothing is pushed: whatever somebody is due is a
     credit, which `collect` pays, so that a token that refuses an address holds up nobody else. What is burned is the credit
     of DEAD, whose key nobody has.
     A dispute is kept as one hash, for storage is what is dear. What is hashed comes with each call, as the events told it:
     who acts on what is not so any more, or is so of another dispute, is refused.
     A call costs gas for the longest arguments that it could have: so moves and data are no longer than they must be.
"""

from ethereum.ercs import IERC20

struct Receipt:
    version: uint16
    level: uint8
    stop: uint8
    request: bytes32
    model: bytes32
    profile: bytes32
    promptText: bytes32
    promptTokens: bytes32
    output: bytes32
    evidence: bytes32
    promptCount: uint32
    outputCount: uint32
    channel: bytes32
    amount: uint128
    provider: address
    sequence: uint64
    issued: uint64

struct ChannelConfig:
    payer: address
    payerAuthorizer: address
    receiver: address
    receiverAuthorizer: address
    token: address
    withdrawDelay: uint40
    salt: bytes32

struct Dispute:
    sides: uint256  # challenger, then from bit 160 deadline, 224 moves made, 232 turn
    terms: uint256  # provider, then from bit 160 window, 192 slashed share, 208 share of the wronged, 224 of the challenger
    money: uint256  # deposit; from bit 128 what the wronged gets at most
    wronged: address
    receipt: bytes32

struct Leaving:
    amount: uint256
    at: uint256

interface Game:
    def begin(receipt: Receipt, exhibit: Bytes[2048]) -> Bytes[MOST_STATE]: view
    def holds(receipt: Receipt, data: Bytes[MOST_DATA]) -> bool: nonpayable

interface Params:
    def all() -> uint256[10]: view

interface Channels:
    def getChannelId(config: ChannelConfig) -> bytes32: view

interface Vaults:
    def COURT() -> address: view
    def TOKEN() -> address: view
    def vaultOf(provider: address) -> address: view
    def open(provider: address) -> address: nonpayable

interface Vault:
    def frozenUntil() -> uint256: view
    def freeze(until: uint256): nonpayable

event Staked:
    provider: indexed(address)
    bond: uint256
    leaving: uint256

event Opened:
    id: indexed(uint256)
    provider: indexed(address)
    receipt: indexed(bytes32)
    dispute: Dispute
    state: Bytes[MOST_STATE]

event Moved:
    id: indexed(uint256)
    sides: uint256  # of the dispute, from now on
    state: Bytes[MOST_STATE]

event Ended:
    id: indexed(uint256)
    turn: uint256

event Slashed:
    provider: indexed(address)
    challenger: indexed(address)
    wronged: indexed(address)
    bond: uint256
    held: uint256
    compensation: uint256
    reward: uint256
    insured: uint256

TOKEN: public(immutable(address))
VAULTS: public(immutable(address))
PARAMS: public(immutable(address))
GAME: public(immutable(address))
CHANNELS: public(immutable(address))
DOMAIN: immutable(bytes32)

MOST_MOVES: public(constant(uint256)) = 20
MARGIN: public(constant(uint256)) = 7 * DAY
DEAD: public(constant(address)) = 0x000000000000000000000000000000000000dEaD
PROVER: constant(uint256) = 0
CHALLENGER: constant(uint256) = 1
PROVER_WINS: constant(uint256) = 2
CHALLENGER_WINS: constant(uint256) = 3
VOID: constant(uint256) = 4
EXACT: constant(uint8) = 3
DEMANDED: constant(bytes32) = empty(bytes32)  # where there is no game: the hash of no state
MOST_STATE: constant(uint256) = 192
MOST_MOVE: constant(uint256) = 40_960
MOST_TOKENS: constant(uint256) = 4_000
MOST_DATA: constant(uint256) = 32 * MOST_TOKENS + 1024  # nodes pass on transactions of at most 128 KB
DAY: constant(uint256) = 86_400
ADDRESS: constant(uint256) = 2**160 - 1
LOW: constant(uint256) = 2**128 - 1
HALF_ORDER: constant(uint256) = 57896044618658097711785492504343953926418782139537452191302581570759080747168
RECEIPT_TYPE: constant(bytes32) = keccak256(
    "Receipt(uint16 version,uint8 level,uint8 stop,bytes32 request,bytes32 model,bytes32 profile,bytes32 promptText,bytes32 promptTokens,bytes32 output,bytes32 evidence,uint32 promptCount,uint32 outputCount,bytes32 channel,uint128 amount,address provider,uint64 sequence,uint64 issued)"
)

bonds: public(HashMap[address, uint256])
leaving: public(HashMap[address, Leaving])
credits: public(HashMap[address, uint256])
commitments: public(HashMap[bytes32, uint256])
disputes: public(HashMap[uint256, bytes32])
count: public(uint256)
running: public(HashMap[address, uint256])
slashed: public(HashMap[bytes32, bool])
answered: public(HashMap[bytes32, bool])
demanded: HashMap[bytes32, uint256]
equivocated: public(HashMap[address, HashMap[uint64, bool]])


@deploy
def __init__(token: address, vaults: address, params: address, game: address, channels: address):
    """
    @param vaults The maker of vaults, which was told this contract's address before it was there.
    """
    assert staticcall Vaults(vaults).COURT() == self and staticcall Vaults(vaults).TOKEN() == token, "vaults"
    assert params.is_contract and game.is_contract and channels.is_contract, "party"
    TOKEN = token
    VAULTS = vaults
    PARAMS = params
    GAME = game
    CHANNELS = channels
    DOMAIN = keccak256(
        abi_encode(keccak256("EIP712Domain(string name,string version)"), keccak256("Assay"), keccak256("1"))
    )


@internal
def _pull(amount: uint256):
    """
    @dev Tokens that take a fee on transfer are refused by what arrives.
    """
    before: uint256 = staticcall IERC20(TOKEN).balanceOf(self)
    assert extcall IERC20(TOKEN).transferFrom(msg.sender, self, amount, default_return_value=True)
    assert staticcall IERC20(TOKEN).balanceOf(self) == before + amount, "not collected"


@view
@internal
def _digest(receipt: Receipt) -> bytes32:
    return keccak256(concat(x"1901", DOMAIN, keccak256(abi_encode(RECEIPT_TYPE, receipt))))


@view
@internal
def _check(receipt: Receipt, signature: Bytes[65]) -> bytes32:
    """
    @dev The digest of a receipt that its provider signed.
    """
    digest: bytes32 = self._digest(receipt)
    assert receipt.version == 1, "version"
    assert len(signature) == 65, "signature"
    s: uint256 = extract32(signature, 32, output_type=uint256)
    v: uint256 = convert(slice(signature, 64, 1), uint256)
    signer: address = ecrecover(digest, v, extract32(signature, 0, output_type=uint256), s)
    assert s <= HALF_ORDER and signer != empty(address) and signer == receipt.provider, "signature"
    return digest


@internal
def _vault(provider: address) -> address:
    """
    @dev Of a provider that has something to lose. It is made if it is not there: what was paid to its address is at stake.
    """
    vault: address = staticcall Vaults(VAULTS).vaultOf(provider)
    if not vault.is_contract:
        extcall Vaults(VAULTS).open(provider)
    assert self.bonds[provider] > 0 or staticcall IERC20(TOKEN).balanceOf(vault) > 0, "nothing at stake"
    return vault


@view
@internal
def _terms(provider: address, params: uint256[10]) -> uint256:
    return (
        convert(provider, uint256) | (params[0] << 160) | (params[5] << 192) | (params[6] << 208) | (params[7] << 224)
    )


@internal
def _begin(
    receipt: Receipt,
    signature: Bytes[65],
    salt: bytes32,
    fee: uint256,
    times: uint256,
    wronged: address,
    state: Bytes[MOST_STATE],
) -> (uint256, bytes32):
    """
    @dev A dispute over a receipt, and the prover's turn in it; empty state: data are demanded. The commitment keeps others
         from copying it out of a transaction that is not yet in a block.
    @return Its number, and the receipt's digest.
    """
    params: uint256[10] = staticcall Params(PARAMS).all()
    digest: bytes32 = self._check(receipt, signature)
    assert receipt.level == EXACT, "level"
    issued: uint256 = convert(receipt.issued, uint256)
    assert issued <= block.timestamp + 3600, "not issued yet"
    assert issued + params[2] >= block.timestamp, "too old"
    assert not self.slashed[digest], "slashed already"
    name: bytes32 = keccak256(abi_encode(digest, msg.sender, salt))
    since: uint256 = self.commitments[name]
    assert since != 0 and block.timestamp <= since + DAY, "not committed"
    assert since + params[8] <= block.timestamp, "committed too late"
    self.commitments[name] = 0
    provider: address = receipt.provider
    vault: address = self._vault(provider)
    until: uint256 = block.timestamp + MOST_MOVES * params[0] + MARGIN
    extcall Vault(vault).freeze(max(until, staticcall Vault(vault).frozenUntil()))
    self.running[provider] += 1
    id: uint256 = self.count + 1
    self.count = id
    dispute: Dispute = Dispute(
        sides=convert(msg.sender, uint256) | ((block.timestamp + params[0]) << 160),
        terms=self._terms(provider, params),
        money=params[fee] * times | (convert(receipt.amount, uint256) << 128 if wronged != empty(address) else 0),
        wronged=wronged,
        receipt=digest,
    )
    self.disputes[id] = self._hash(dispute, keccak256(state) if len(state) > 0 else DEMANDED)
    self._pull(params[fee] * times)
    log Opened(id=id, provider=provider, receipt=digest, dispute=dispute, state=state)
    return id, digest


@internal
def _slash(terms: uint256, challenger: address, wronged: address, most: uint256):
    """
    @dev A vault whose tokens cannot be moved keeps no dispute from ending. Who gives too little gas gains nothing: the 64th
         part that a call leaves does not suffice for the rest. What division leaves over is burned.
    """
    provider: address = convert(terms & ADDRESS, address)
    bond: uint256 = self.bonds[provider] * ((terms >> 192) & 65535) // 10_000
    self.bonds[provider] -= bond
    before: uint256 = staticcall IERC20(TOKEN).balanceOf(self)
    vault: address = staticcall Vaults(VAULTS).vaultOf(provider)
    taken: bool = raw_call(vault, method_id("forfeit()"), revert_on_failure=False)
    held: uint256 = staticcall IERC20(TOKEN).balanceOf(self) - before
    pot: uint256 = bond + held
    reward: uint256 = pot * ((terms >> 224) & 65535) // 10_000
    share: uint256 = pot * ((terms >> 208) & 65535) // 10_000
    compensation: uint256 = min(share, most)
    insurance: address = convert((staticcall Params(PARAMS).all())[9], address)
    self.credits[wronged] += compensation
    self.credits[insurance] += share - compensation
    self.credits[challenger] += reward
    self.credits[DEAD] += pot - share - reward
    log Slashed(
        provider=provider, challenger=challenger, wronged=wronged, bond=bond, held=held, compensation=compensation,
        reward=reward, insured=share - compensation
    )


@internal
def _end(id: uint256, dispute: Dispute, turn: uint256):
    """
    @dev The deposit is for who was right, the provider's for its trouble. It is void if another dispute over the receipt was
         won meanwhile, however this one went: so nobody has to ask before.
    """
    self.disputes[id] = empty(bytes32)
    outcome: uint256 = VOID if self.slashed[dispute.receipt] else turn
    provider: address = convert(dispute.terms & ADDRESS, address)
    challenger: address = convert(dispute.sides & ADDRESS, address)
    self.credits[provider if outcome == PROVER_WINS else challenger] += dispute.money & LOW
    if outcome == CHALLENGER_WINS:
        self.slashed[dispute.receipt] = True
        self._slash(dispute.terms, challenger, dispute.wronged, dispute.money >> 128)
    running: uint256 = self.running[provider] - 1
    self.running[provider] = running
    if running == 0:
        extcall Vault(staticcall Vaults(VAULTS).vaultOf(provider)).freeze(0)
    log Ended(id=id, turn=outcome)


@pure
@internal
def _hash(dispute: Dispute, state: bytes32) -> bytes32:
    """
    @param state Hash of the game's state, or DEMANDED.
    """
    return keccak256(abi_encode(dispute, state))


@view
@internal
def _check_open(id: uint256, dispute: Dispute, state: bytes32):
    """
    @dev What a caller says of a dispute is how it stands now. No hash is that of what has ended.
    """
    kept: bytes32 = self.disputes[id]
    assert kept != empty(bytes32), "no such dispute"
    assert kept == self._hash(dispute, state), "not how it stands"


@view
@internal
def _check_time(id: uint256, dispute: Dispute, state: bytes32):
    """
    @dev It is time to move, and what is moved stands in a transaction's own data, where everybody can read it: not behind
         another contract, nor behind code that an account has for itself (EIP-7702).
    """
    assert msg.sender == tx.origin and not msg.sender.is_contract, "not by a contract"
    self._check_open(id, dispute, state)
    assert block.timestamp <= (dispute.sides >> 160) & (2**64 - 1), "too late"


@view
@internal
def _check_turn(id: uint256, dispute: Dispute, state: bytes32):
    self._check_time(id, dispute, state)
    side: uint256 = dispute.sides if dispute.sides >> 232 == CHALLENGER else dispute.terms
    assert msg.sender == convert(side & ADDRESS, address), "not your turn"


@nonreentrant
@external
def bond(provider: address, amount: uint128):
    """
    @notice Add to a provider's bond, from an allowance. Anybody may.
    """
    assert amount > 0, "nothing"
    assert provider != empty(address), "party"
    self.bonds[provider] += convert(amount, uint256)
    self._pull(convert(amount, uint256))
    log Staked(provider=provider, bond=self.bonds[provider], leaving=self.leaving[provider].amount)


@nonreentrant
@external
def unbond(amount: uint256):
    """
    @notice Begin to take back so much of the bond. One at a time: asking again replaces, and starts the wait again; 0: stay.
    @dev It can be slashed until it is taken. Once the wait is over that is at any moment: nobody counts on what is leaving.
    """
    assert amount <= self.bonds[msg.sender], "more than is bonded"
    wait: uint256 = (staticcall Params(PARAMS).all())[1]
    self.leaving[msg.sender] = Leaving(amount=amount, at=block.timestamp + wait)
    log Staked(provider=msg.sender, bond=self.bonds[msg.sender], leaving=amount)


@nonreentrant
@external
def withdraw():
    """
    @notice Take back what is left of it when the wait is over, and no dispute open.
    """
    leaving: Leaving = self.leaving[msg.sender]
    assert leaving.amount > 0, "nothing"
    assert block.timestamp >= leaving.at, "too early"
    assert self.running[msg.sender] == 0, "disputed"
    amount: uint256 = min(leaving.amount, self.bonds[msg.sender])
    self.leaving[msg.sender] = empty(Leaving)
    self.bonds[msg.sender] -= amount
    assert extcall IERC20(TOKEN).transfer(msg.sender, amount, default_return_value=True)
    log Staked(provider=msg.sender, bond=self.bonds[msg.sender], leaving=0)


@nonreentrant
@external
def collect(who: address):
    """
    @notice Pay somebody's credit. Anybody may call; for DEAD it burns.
    """
    amount: uint256 = self.credits[who]
    assert amount > 0, "nothing"
    self.credits[who] = 0
    assert extcall IERC20(TOKEN).transfer(who, amount, default_return_value=True)


@nonreentrant
@external
def commit(name: bytes32):
    """
    @notice Announce a dispute without saying over what. Good for a day, after a wait.
    @param name keccak256 of ABI-encoded receipt's digest, challenger and a secret salt.
    """
    assert self.commitments[name] + DAY < block.timestamp, "committed already"
    self.commitments[name] = block.timestamp


@nonreentrant
@external
def open(receipt: Receipt, signature: Bytes[65], exhibit: Bytes[2048], salt: bytes32, config: ChannelConfig) -> uint256:
    """
    @notice Dispute a receipt. The caller pays a deposit from an allowance. Others may dispute it at the same time.
    @param exhibit What the game wants to see.
    @param config Terms of the receipt's channel, whose payer is compensated; zeros: none is known.
    """
    if config.payer != empty(address):
        assert config.token == TOKEN, "channel"
        assert staticcall Channels(CHANNELS).getChannelId(config) == receipt.channel, "channel"
    state: Bytes[MOST_STATE] = staticcall Game(GAME).begin(receipt, exhibit)
    assert len(state) > 0, "no state"
    return self._begin(receipt, signature, salt, 3, 1, config.payer, state)[0]


@nonreentrant
@external
def demand(receipt: Receipt, signature: Bytes[65], salt: bytes32) -> uint256:
    """
    @notice Demand the commitments of a receipt's passes, which are served to nobody: the caller pays a deposit for every 256
            tokens begun, which the provider gets if it produces them. One demand at a time.
    """
    assert receipt.promptCount > 0 and receipt.outputCount > 0, "no answer"
    tokens: uint256 = convert(receipt.promptCount, uint256) + convert(receipt.outputCount, uint256)
    assert tokens <= MOST_TOKENS, "too long"
    id: uint256 = 0
    digest: bytes32 = empty(bytes32)
    id, digest = self._begin(receipt, signature, salt, 4, 1 + tokens // 256, empty(address), b"")
    assert not self.answered[digest], "produced already"
    assert self.disputes[self.demanded[digest]] == empty(bytes32), "demanded already"
    self.demanded[digest] = id
    return id


@nonreentrant
@external
def produce(id: uint256, dispute: Dispute, receipt: Receipt, data: Bytes[MOST_DATA]):
    """
    @notice Answer a demand. Anybody may who has the data; they are demanded no more.
    @param dispute As events told it; likewise below.
    """
    self._check_time(id, dispute, DEMANDED)
    assert self._digest(receipt) == dispute.receipt, "not demanded"
    assert not self.slashed[dispute.receipt], "settled already"
    self.answered[dispute.receipt] = True
    self._end(id, dispute, PROVER_WINS)
    assert extcall Game(GAME).holds(receipt, data), "not the data"


@nonreentrant
@external
def move(id: uint256, dispute: Dispute, state: Bytes[MOST_STATE], data: Bytes[MOST_MOVE]):
    """
    @notice Move in a dispute, as the provider or the challenger in its turn.
    @param state The game's, as the last event told.
    """
    self._move(id, dispute, keccak256(state))


@internal
def _move(id: uint256, dispute: Dispute, state: bytes32):
    """
    @dev The call is passed on to the game as it came, which reads the same arguments. Memory of what stands here is below that
         of the arguments, so that it does not cost what their longest would; nor does a result that is not in memory.
    """
    self._check_turn(id, dispute, state)
    after: Bytes[MOST_STATE] = b""
    turn: uint256 = 0
    after, turn = abi_decode(raw_call(GAME, msg.data, max_outsize=MOST_STATE + 96), (Bytes[MOST_STATE], uint256))
    assert turn <= CHALLENGER_WINS and len(after) > 0, "turn"
    moves: uint256 = ((dispute.sides >> 224) & 255) + 1
    deadline: uint256 = block.timestamp + ((dispute.terms >> 160) & (2**32 - 1))
    next: Dispute = dispute
    next.sides = (dispute.sides & ADDRESS) | (deadline << 160) | (moves << 224) | (turn << 232)
    log Moved(id=id, sides=next.sides, state=after)
    if turn >= PROVER_WINS or moves == MOST_MOVES:
        self._end(id, dispute, turn if turn >= PROVER_WINS else VOID)
    else:
        self.disputes[id] = self._hash(next, keccak256(after))


@nonreentrant
@external
def prove(id: uint256, dispute: Dispute, state: Bytes[MOST_STATE], data: Bytes[MOST_MOVE]):
    """
    @notice Make the last move, after which the game has nothing more to ask: the prover wins, or has not moved.
    """
    self._prove(id, dispute, keccak256(state))


@internal
def _prove(id: uint256, dispute: Dispute, state: bytes32):
    self._check_turn(id, dispute, state)
    raw_call(GAME, msg.data)
    self._end(id, dispute, PROVER_WINS)


@nonreentrant
@external
def timeout(id: uint256, dispute: Dispute, state: bytes32):
    """
    @notice End a dispute in which a side has let its time run out, or which another one has settled: that one is void.
            Anybody may call.
    @param state Hash of the game's state, or DEMANDED.
    """
    self._check_open(id, dispute, state)
    late: bool = block.timestamp > (dispute.sides >> 160) & (2**64 - 1)
    assert late or self.slashed[dispute.receipt], "too early"
    self._end(id, dispute, PROVER_WINS if dispute.sides >> 232 == CHALLENGER else CHALLENGER_WINS)


@nonreentrant
@external
def equivocate(one: Receipt, signature: Bytes[65], other: Receipt, otherSignature: Bytes[65]):
    """
    @notice Show two different receipts of one provider under one number, once for each number. What costs less than half a
            deposit can be shown again: nobody uses numbers up while there is nothing to lose.
    """
    assert one.provider == other.provider and one.sequence == other.sequence, "no contradiction"
    assert self._check(one, signature) != self._check(other, otherSignature), "no contradiction"
    assert not self.equivocated[one.provider][one.sequence], "slashed already"
    params: uint256[10] = staticcall Params(PARAMS).all()
    self.equivocated[one.provider][one.sequence] = self.bonds[one.provider] >= params[3]
    self._vault(one.provider)
    self._slash(self._terms(one.provider, params), msg.sender, empty(address), 0)
