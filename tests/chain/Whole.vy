# pragma version 0.4.3
"""
@title The arithmetic of `whole.vy`, a function at a time
"""

import whole
initializes: whole


@deploy
def __init__(tables: address):
    whole.__init__(tables)


@external
@view
def shifted(x: int256, by: int256) -> int256:
    return whole._shifted(x, by)


@external
@view
def narrowScale(most: int256, fraction: int256) -> (int256, int256):
    return whole._narrow_scale(most, fraction)


@external
@view
def narrowed(x: int256, by: int256) -> int256:
    return whole._narrowed(x, by)


@external
@view
def normShift(most: int256, fraction: int256) -> int256:
    return whole._norm_shift(most, fraction)


@external
@view
def inverseRoot(squares: int256, n: int256, fraction: int256, small: int256) -> (int256, int256):
    return whole._inverse_root(squares, n, fraction, small)


@external
@view
def exp2Negative(x: int256) -> int256:
    return whole._exp2_negative(x)


@external
@view
def sigmoid(x: int256) -> int256:
    return whole._sigmoid(x)


@external
@view
def activate(x: int256, gelu: uint256) -> int256:
    return whole._activate(x, gelu == 1)


@external
@view
def divide(x: int256, by: int256) -> int256:
    return whole._divide(x, by)


@external
@view
def wave(turn: uint256) -> int256:
    return whole._wave(turn)


@external
@view
def weight(deficit: int256) -> int256:
    return whole._weight(deficit)


@external
@view
def log2(x: uint256) -> int256:
    return whole._log2(x)


@external
@view
def noise(hashed: uint256) -> int256:
    return whole._noise(hashed)


@external
@view
def hash32(key: uint256, token: uint256) -> uint256:
    return whole._hash(key, token)
