"""The heads of x402: what strangers send is read strictly, or refused by a word that they know."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.core.deposit import TokenDomain
from assay.core.errors import EncodingError
from assay.core.keys import Key
from assay.core.payment import Requirements
from assay.core.voucher import TERMS, Terms, channels_domain, sign_voucher
from assay.network.x402 import Standing, Wanted, WrongPayment, read_offered, required_header, response_header

PAYER, OWN = Key.from_secret(bytes([1]) * 32), Key.from_secret(bytes([2]) * 32).address
CONTRACT, TOKEN = "0x" + "aa" * 20, "0x" + "bb" * 20
DOMAIN = channels_domain(31337, CONTRACT)
WANTED = Wanted(
    Requirements(31337, CONTRACT, TOKEN, OWN, OWN, 900, 0), 500, 5000, TokenDomain("Test token", "1", 31337, TOKEN)
)
OPENED = Terms(PAYER.address, PAYER.address, OWN, OWN, TOKEN, 900, bytes(32))
CHANNEL = OPENED.channel(DOMAIN)
VOUCHER = sign_voucher(PAYER, DOMAIN, CHANNEL, 500)
DEPOSIT = {
    "amount": "5000",
    "authorization": {
        "erc3009Authorization": {
            "validAfter": "0",
            "validBefore": "99",
            "salt": "0x" + "01" * 32,
            "signature": "0x" + "02" * 65,
        }
    },
}


def payment() -> dict[str, Any]:
    """One that is right."""
    terms: dict[str, Any] = dict(zip([name for name, _ in TERMS], OPENED.values(), strict=True))
    return {
        "x402Version": 2,
        "accepted": WANTED.to_json(),
        "payload": {
            "type": "deposit",
            "channelConfig": {**terms, "salt": "0x" + "00" * 32, "payer": PAYER.address.upper().replace("X", "x")},
            "voucher": {
                "channelId": "0x" + CHANNEL.hex(),
                "maxClaimableAmount": "500",
                "signature": "0x" + VOUCHER.signature.hex(),
            },
            "deposit": DEPOSIT,
        },
    }


def head(value: object) -> str:
    """In base64."""
    return base64.b64encode(json.dumps(value).encode()).decode()


def told(text: str) -> dict[str, Any]:
    """Inverse."""
    return json.loads(base64.b64decode(text))


def test_reading() -> None:
    """Terms, voucher and deposit, whatever the case of addresses is."""
    offered = read_offered(head(payment()), WANTED, DOMAIN)
    assert (offered.terms, offered.voucher) == (OPENED, VOUCHER)
    assert offered.deposit is not None
    assert (offered.deposit.amount, offered.deposit.before) == (5000, 99)


def places(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """All members."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield (*path, name)
            yield from places(inner, (*path, name))


UNREAD = {("accepted", "maxTimeoutSeconds"), ("payload", "deposit", "authorization", "erc3009Authorization", "salt")}


@pytest.mark.parametrize(
    "path", [path for path in places(payment()) if "extra" not in path and path not in UNREAD], ids=".".join
)
@pytest.mark.parametrize("wrong", [None, "", "0x", [], {}, -1, True, 10**40, "9" * 5000, "0x" + "zz" * 32, "\ud800"])
def test_wrong_members(path: tuple[str, ...], wrong: object) -> None:
    """A member of another type or size is refused as such, wherever it is."""
    value = deepcopy(payment())
    inner = value
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = wrong
    with pytest.raises(EncodingError):
        read_offered(head(value), WANTED, DOMAIN)
    del inner[path[-1]]
    with pytest.raises(EncodingError):
        read_offered(head(value), WANTED, DOMAIN)


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda data: base64.b64encode(data).decode()))
def test_anything(text: str) -> None:
    """No head does more harm than that."""
    with pytest.raises(EncodingError):
        read_offered(text, WANTED, DOMAIN)


@pytest.mark.parametrize("value", ["[" * 10_000, "9" * 5_000, '{"x402Version": ' * 3000])
def test_costly_json(value: str) -> None:
    """Nesting and huge numbers are bounded."""
    with pytest.raises(EncodingError):
        read_offered(base64.b64encode(value.encode()).decode(), WANTED, DOMAIN)


def test_the_reason() -> None:
    """A payment for something else says so in x402's words."""
    value = payment()
    value["accepted"]["payTo"] = TOKEN
    with pytest.raises(WrongPayment) as refused:
        read_offered(head(value), WANTED, DOMAIN)
    assert refused.value.reason == "requirements"


def test_what_is_told() -> None:
    """Amounts are strings; a corrected client is shown its own voucher."""
    standing = Standing(CHANNEL, 5000, 100, 300, VOUCHER)
    wanted = told(required_header(WANTED, "http://a/b", reason="amount", standing=standing))
    assert wanted["error"] == "invalid_batch_settlement_evm_cumulative_amount_mismatch"
    extra = wanted["accepts"][0]["extra"]
    assert extra["channelState"]["chargedCumulativeAmount"] == "300"
    assert extra["voucherState"] == {"signedMaxClaimable": "500", "signature": "0x" + VOUCHER.signature.hex()}
    charged = told(response_header(WANTED, PAYER.address, standing, charged=20, deposit=b"\x01"))
    assert (charged["success"], charged["transaction"], charged["extra"]["chargedAmount"]) == (True, "0x01", "20")
    assert "channelState" not in told(required_header(WANTED, "http://a/b"))["accepts"][0]["extra"]
