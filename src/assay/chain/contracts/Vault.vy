# pragma version 0.4.3
# pragma optimize gas
"""
@title What a provider has earned, held back
@license Apache-2.0
@notice A provider's channels pay its vault, and the vault pays the provider once the challenge window has passed: until
        then earnings are at stake as the bond is. The contract that is deployed makes the vaults, as minimal proxies.
@dev What comes in is kept in buckets. A bucket takes what comes in within a sixteenth of the window, and is released the
     window after that: so at most 18 are unripe, and nothing is delayed, however often dust is sent.
"""

from ethereum.ercs import IERC20

event Opened:
    provider: indexed(address)
    vault: address

event Held:
    amount: uint256
    until: uint256

event Released:
    amount: uint256

event Frozen:
    until: uint256

event Forfeited:
    to: indexed(address)
    amount: uint256

TOKEN: public(immutable(address))
COURT: public(immutable(address))
WINDOW: public(immutable(uint256))
MAKER: immutable(address)
MAX_FREEZE: public(constant(uint256)) = 60 * 86_400
MOST: constant(uint256) = 18
LOW: constant(uint256) = 2**64 - 1

provider: public(address)
held: public(uint256)
ready: uint256
frozenUntil: public(uint256)
first: uint256
next: uint256
buckets: HashMap[uint256, uint256]


@deploy
def __init__(token: address, court: address, window: uint256):
    assert token != empty(address) and court != empty(address), "party"
    assert 3600 <= window and window <= 30 * 86_400, "window"
    TOKEN = token
    COURT = court
    WINDOW = window
    MAKER = self


@external
def open(provider: address) -> address:
    """
    @notice Make a provider's vault, at the address that `vaultOf` tells before. Anybody may.
    """
    assert self == MAKER, "not a maker"
    assert provider != empty(address), "party"
    vault: address = create_minimal_proxy_to(self, salt=convert(provider, bytes32))
    extcall Vault(vault).begin(provider)
    log Opened(provider=provider, vault=vault)
    return vault


interface Vault:
    def begin(provider: address): nonpayable


@external
def begin(provider: address):
    """
    @notice Called by the maker, once.
    """
    assert msg.sender == MAKER and self.provider == empty(address), "not the maker"
    self.provider = provider


@view
@external
def vaultOf(provider: address) -> address:
    """
    @return Where a provider's vault is, or will be (EIP-1014 of EIP-1167's proxy).
    """
    code: Bytes[54] = concat(
        x"602d3d8160093d39f3363d3d373d3d3d363d73", convert(MAKER, bytes20), x"5af43d82803e903d91602b57fd5bf3"
    )
    name: bytes32 = keccak256(concat(x"ff", convert(MAKER, bytes20), convert(provider, bytes32), keccak256(code)))
    return convert(convert(name, uint256) & (2**160 - 1), address)


@internal
def _collect():
    """
    @dev Put what has come in since the last time into the newest bucket, or a new one.
    """
    balance: uint256 = staticcall IERC20(TOKEN).balanceOf(self)
    more: uint256 = balance - self.held
    if more == 0:
        return
    last: uint256 = self.next
    until: uint256 = 0
    if last > self.first:
        until = self.buckets[last - 1] & LOW
    if until >= block.timestamp + WINDOW:
        self.buckets[last - 1] += more << 64
    else:
        until = block.timestamp + WINDOW + WINDOW // 16
        if last - self.first == MOST:  # the oldest was begun 17 sixteenths of the window ago, or earlier
            self.ready += self.buckets[self.first] >> 64
            self.first += 1
        self.buckets[last] = (more << 64) | until
        self.next = last + 1
    self.held = balance
    log Held(amount=more, until=until)


@external
def collect():
    """
    @notice Hold back what channels have paid. Anybody may call.
    """
    self._collect()


@external
def release():
    """
    @notice Pay the provider what has been held long enough, unless a dispute is under way. Anybody may call. It fails when
            there is nothing to pay: `collect` is what starts the window.
    """
    self._collect()
    assert block.timestamp >= self.frozenUntil, "frozen"
    at: uint256 = self.first
    total: uint256 = self.ready
    for _: uint256 in range(MOST):
        if at == self.next or (self.buckets[at] & LOW) > block.timestamp:
            break
        total += self.buckets[at] >> 64
        at += 1
    assert total > 0, "nothing is ripe"
    self.first = at
    self.ready = 0
    self.held -= total
    assert extcall IERC20(TOKEN).transfer(self.provider, total, default_return_value=True)
    log Released(amount=total)


@external
def freeze(until: uint256):
    """
    @notice The court forbids releases until a time (Unix seconds), or allows them again (0).
    """
    assert msg.sender == COURT, "not the court"
    assert until <= block.timestamp + MAX_FREEZE, "too long"
    self.frozenUntil = until
    log Frozen(until=until)


@external
def forfeit() -> uint256:
    """
    @notice The court takes all that is here, to divide it.
    @return How much that was.
    """
    assert msg.sender == COURT, "not the court"
    self._collect()
    amount: uint256 = self.held
    self.first = self.next
    self.ready = 0
    self.held = 0
    if amount > 0:
        assert extcall IERC20(TOKEN).transfer(COURT, amount, default_return_value=True)
    log Forfeited(to=COURT, amount=amount)
    return amount


@view
@external
def ripe() -> uint256:
    """
    @return What `release` would pay now.
    """
    if block.timestamp < self.frozenUntil:
        return 0
    total: uint256 = self.ready
    for at: uint256 in range(self.first, self.next, bound=MOST):
        if (self.buckets[at] & LOW) <= block.timestamp:
            total += self.buckets[at] >> 64
    return total
