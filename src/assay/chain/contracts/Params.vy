# pragma version 0.4.3
# pragma optimize gas
"""
@title What can be changed about the court, and how far
@license Apache-2.0
@notice The owner proposes a value, and can have it LOCK later: so everybody sees it coming. No value leaves its bounds, which
        are for good. The owner can hand over, or be given up: then nothing changes any more.
@dev Values are numbered by the constants below; times are seconds, shares ten-thousandths. A dispute keeps the values it was
     opened with. Unbonding takes longer than a receipt can be disputed and any dispute can last together, whatever is changed.
     At most 7,500 of what is slashed is paid to challenger and wronged, who both may be the cheat: it loses the rest.
"""

from snekmate.auth import ownable

initializes: ownable
exports: (ownable.owner, ownable.transfer_ownership, ownable.renounce_ownership)

struct Proposal:
    value: uint256
    since: uint256

event Proposed:
    name: indexed(uint256)
    value: uint256

event Applied:
    name: indexed(uint256)
    value: uint256

event Cancelled:
    name: indexed(uint256)

WINDOW: public(constant(uint256)) = 0  # for a move
UNBONDING: public(constant(uint256)) = 1  # until a bond can leave
AGE: public(constant(uint256)) = 2  # at which a receipt is too old to be disputed
DEPOSIT: public(constant(uint256)) = 3  # of who opens a dispute, token units
FEE: public(constant(uint256)) = 4  # of who demands data, token units
SLASH: public(constant(uint256)) = 5  # share of a bond
WRONGED: public(constant(uint256)) = 6  # share of what is slashed, for who paid for the receipt, or insurance
CHALLENGER: public(constant(uint256)) = 7  # share of what is slashed, for who won
COMMIT_AGE: public(constant(uint256)) = 8  # from a commitment until its use
INSURANCE: public(constant(uint256)) = 9  # the address of the pool
COUNT: constant(uint256) = 10
SHORT: constant(uint256[7]) = [WINDOW, UNBONDING, AGE, SLASH, WRONGED, CHALLENGER, COMMIT_AGE]
WORD: constant(uint256) = 2**32 - 1

MOST_MOVES: public(constant(uint256)) = 20
LOCK: public(constant(uint256)) = 7 * DAY
GRACE: public(constant(uint256)) = 30 * DAY
DAY: constant(uint256) = 86_400
LOWEST: immutable(uint256[COUNT])
HIGHEST: immutable(uint256[COUNT])

times: uint256  # the seven short ones side by side, 32 bits each: whoever opens a dispute pays for each word that is read
amounts: uint256  # DEPOSIT, then from bit 128 FEE
insurance: uint256
proposals: public(HashMap[uint256, Proposal])


@deploy
def __init__(values: uint256[COUNT]):
    """
    @param values To begin with. DEPOSIT and FEE, whose sense depends on the token, stay within a tenth and ten times these.
    """
    ownable.__init__()
    deposit: uint256 = values[DEPOSIT]
    fee: uint256 = values[FEE]
    assert max(deposit, fee) < 2**120, "bounds"
    LOWEST = [600, DAY, 3600, max(1, deposit // 10), max(1, fee // 10), 1000, 0, 500, 12, 1]
    HIGHEST = [2 * DAY, 90 * DAY, 30 * DAY, deposit * 10, fee * 10, 10_000, 5_000, 2_500, 3600, 2**160 - 1]
    for name: uint256 in range(COUNT):
        assert LOWEST[name] <= values[name] and values[name] <= HIGHEST[name], "bounds"
    self._keep(values)


@internal
def _keep(values: uint256[COUNT]):
    assert values[UNBONDING] > values[AGE] + MOST_MOVES * values[WINDOW], "unbonding"
    times: uint256 = 0
    for name: uint256 in SHORT:
        times = (times << 32) | values[name]
    self.times = times
    self.amounts = values[DEPOSIT] | (values[FEE] << 128)
    self.insurance = values[INSURANCE]


@internal
@view
def _values() -> uint256[COUNT]:
    values: uint256[COUNT] = empty(uint256[COUNT])
    times: uint256 = self.times
    amounts: uint256 = self.amounts
    values[WINDOW] = times >> 192
    values[UNBONDING] = (times >> 160) & WORD
    values[AGE] = (times >> 128) & WORD
    values[DEPOSIT] = amounts & (2**128 - 1)
    values[FEE] = amounts >> 128
    values[SLASH] = (times >> 96) & WORD
    values[WRONGED] = (times >> 64) & WORD
    values[CHALLENGER] = (times >> 32) & WORD
    values[COMMIT_AGE] = times & WORD
    values[INSURANCE] = self.insurance
    return values


@external
def propose(name: uint256, wanted: uint256):
    """
    @notice Announce a value; it replaces an earlier proposal, and starts the wait again.
    """
    ownable._check_owner()
    assert LOWEST[name] <= wanted and wanted <= HIGHEST[name], "bounds"
    self.proposals[name] = Proposal(value=wanted, since=block.timestamp)
    log Proposed(name=name, value=wanted)


@external
def apply(name: uint256):
    """
    @notice Put a proposal into force, from LOCK after it was made until GRACE after that.
    """
    ownable._check_owner()
    proposal: Proposal = self.proposals[name]
    assert proposal.since != 0, "not proposed"
    assert block.timestamp >= proposal.since + LOCK, "too early"
    assert block.timestamp <= proposal.since + LOCK + GRACE, "too late"
    self.proposals[name] = empty(Proposal)
    values: uint256[COUNT] = self._values()
    values[name] = proposal.value
    self._keep(values)
    log Applied(name=name, value=proposal.value)


@external
def cancel(name: uint256):
    """
    @notice Drop a proposal.
    """
    ownable._check_owner()
    assert self.proposals[name].since != 0, "not proposed"
    self.proposals[name] = empty(Proposal)
    log Cancelled(name=name)


@view
@external
def all() -> uint256[COUNT]:
    """
    @return The values, by their numbers.
    """
    return self._values()
