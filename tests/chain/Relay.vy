# pragma version 0.4.3
"""
@title Makes calls for others
"""


@external
def relay(target: address, data: Bytes[40_960]):
    raw_call(target, data)
