# pragma version 0.4.3
"""
@title A token that can refuse addresses, take a fee, answer false, and call back while it moves
"""

balanceOf: public(HashMap[address, uint256])
refused: public(HashMap[address, bool])
fee: public(uint256)
silent: public(bool)
target: address
call: Bytes[8192]


@external
def mint(to: address, amount: uint256):
    self.balanceOf[to] += amount


@external
def refuse(who: address, refused: bool):
    self.refused[who] = refused


@external
def behave(fee: uint256, silent: bool, target: address, call: Bytes[8192]):
    """
    @param silent Moves answer false, and move nothing.
    @param call What is called on the target while tokens move.
    """
    self.fee = fee
    self.silent = silent
    self.target = target
    self.call = call


@internal
def _move(source: address, to: address, amount: uint256) -> bool:
    assert not self.refused[source] and not self.refused[to], "refused"
    if self.silent:
        return False
    self.balanceOf[source] -= amount
    self.balanceOf[to] += amount - self.fee
    if self.target != empty(address):
        raw_call(self.target, self.call)
    return True


@external
def transfer(to: address, amount: uint256) -> bool:
    return self._move(msg.sender, to, amount)


@external
def transferFrom(source: address, to: address, amount: uint256) -> bool:
    return self._move(source, to, amount)
