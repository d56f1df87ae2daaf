# pragma version 0.4.3
"""
@title A game for tests of the court: some sticks, each side takes one to three, and who takes the last wins
@dev Other moves: 0 passes, 9 keeps the turn, 10 names a turn that there is not, 11 leaves no state, 12 calls the sender back.
     The prover proves that it takes the last one.
"""

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

struct Dispute:
    sides: uint256
    terms: uint256
    money: uint256
    wronged: address
    receipt: bytes32

interface Court:
    def timeout(id: uint256, dispute: Dispute, state: bytes32): nonpayable


@view
@external
def begin(receipt: Receipt, exhibit: Bytes[4096]) -> Bytes[192]:
    assert receipt.level == 3, "not a dispute"
    if len(exhibit) == 0:
        return b""
    sticks: uint256 = abi_decode(exhibit, uint256)
    assert sticks > 0, "not a dispute"
    return abi_encode(sticks, empty(uint256))


@external
def move(id: uint256, dispute: Dispute, state: Bytes[192], data: Bytes[40960]) -> (Bytes[192], uint256):
    sticks: uint256 = 0
    turn: uint256 = 0
    sticks, turn = abi_decode(state, (uint256, uint256))
    take: uint256 = abi_decode(slice(data, 0, 32), uint256)
    if take == 9:
        return abi_encode(sticks, turn), turn
    if take == 10:
        return abi_encode(sticks, turn), 4
    if take == 11:
        return b"", 1 - turn
    if take == 12:
        extcall Court(msg.sender).timeout(id, dispute, keccak256(state))
    assert take <= 3, "take fewer"
    sticks -= take
    if sticks == 0:
        return abi_encode(sticks, turn), 2 + turn
    return abi_encode(sticks, 1 - turn), 1 - turn


@external
def prove(id: uint256, dispute: Dispute, state: Bytes[192], data: Bytes[40960]):
    sticks: uint256 = 0
    turn: uint256 = 0
    sticks, turn = abi_decode(state, (uint256, uint256))
    assert sticks == 1 and turn == 0, "not the last stick"


@external
def holds(receipt: Receipt, data: Bytes[129024]) -> bool:
    return keccak256(data) == receipt.evidence
