"""What gateway and provider tell each other about money: one spelling, signatures over the right thing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.tiny import tiny_key

from assay.core.errors import EncodingError, InvalidSignature
from assay.core.payment import Payment, Requirements, channel_salt, pay_for
from assay.core.voucher import Terms, channels_domain, sign_voucher

PAYER, PROVIDER, OTHER = tiny_key(1), tiny_key(2), tiny_key(3)
DOMAIN = channels_domain(31_337, OTHER.address)
SALT = channel_salt(PROVIDER.address, 0)
TERMS = Terms(PAYER.address, PAYER.address, PROVIDER.address, PROVIDER.address, OTHER.address, 900, SALT)
CHANNEL = TERMS.channel(DOMAIN)
REQUEST = bytes([5]) * 32
VOUCHER = sign_voucher(PAYER, DOMAIN, CHANNEL, 2**128 - 1)
REQUIREMENTS = Requirements(31_337, OTHER.address, OTHER.address, PROVIDER.address, PROVIDER.address, 900, 2**128 - 1)


@pytest.mark.parametrize("voucher", [None, VOUCHER])
def test_payments_have_one_form(voucher: Any) -> None:
    """What is written is read, to the last bit."""
    payment = pay_for(PAYER, TERMS, CHANNEL, REQUEST, voucher)
    assert Payment.from_json(payment.to_json()) == payment
    assert Terms.from_json(TERMS.to_json()) == TERMS
    payment.check(CHANNEL, REQUEST)


def test_requirements_have_one_form() -> None:
    """Members that a later version adds are passed over."""
    assert Requirements.from_json(REQUIREMENTS.to_json() | {"more": 1}) == REQUIREMENTS


@pytest.mark.parametrize(("channel", "request_"), [(bytes(32), REQUEST), (CHANNEL, bytes(32))])
def test_a_payment_is_for_one_request_on_one_channel(channel: bytes, request_: bytes) -> None:
    """Nobody can have another request paid with it, nor from another channel."""
    with pytest.raises(InvalidSignature):
        pay_for(PAYER, TERMS, CHANNEL, REQUEST, None).check(channel, request_)


def test_only_the_channels_key_pays() -> None:
    """A stranger's signature is none, and that of another authorizer only where the terms name it."""
    with pytest.raises(InvalidSignature):
        pay_for(OTHER, TERMS, CHANNEL, REQUEST, None).check(CHANNEL, REQUEST)
    terms = replace(TERMS, payer_authorizer=OTHER.address)
    pay_for(OTHER, terms, CHANNEL, REQUEST, None).check(CHANNEL, REQUEST)


def _without(value: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: each for key, each in value.items() if key != name}


PAYMENT = pay_for(PAYER, TERMS, CHANNEL, REQUEST, VOUCHER).to_json()


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        {},
        *(_without(PAYMENT, name) for name in PAYMENT),
        PAYMENT | {"more": 1},
        PAYMENT | {"signature": "AA"},
        PAYMENT | {"signature": 7},
        PAYMENT | {"voucher": {}},
        PAYMENT | {"voucher": VOUCHER.to_json() | {"amount": "-1"}},
        PAYMENT | {"voucher": VOUCHER.to_json() | {"amount": "01"}},
        PAYMENT | {"voucher": VOUCHER.to_json() | {"amount": str(2**128)}},
        PAYMENT | {"voucher": VOUCHER.to_json() | {"amount": 5}},
        *(PAYMENT | {"terms": _without(TERMS.to_json(), name)} for name in TERMS.to_json()),
        PAYMENT | {"terms": TERMS.to_json() | {"payer": PAYER.address.upper()}},
        PAYMENT | {"terms": TERMS.to_json() | {"withdrawDelay": 899}},
        PAYMENT | {"terms": TERMS.to_json() | {"withdrawDelay": 900.0}},
        PAYMENT | {"terms": TERMS.to_json() | {"salt": "AA"}},
    ],
)
def test_other_spellings_are_refused(wrong: Any) -> None:
    """Anything else is an error, and nothing but an EncodingError."""
    with pytest.raises(EncodingError):
        Payment.from_json(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        *(_without(REQUIREMENTS.to_json(), name) for name in REQUIREMENTS.to_json()),
        REQUIREMENTS.to_json() | {"credit": str(2**128)},
        REQUIREMENTS.to_json() | {"credit": 5},
        REQUIREMENTS.to_json() | {"delay": 2_592_001},
        REQUIREMENTS.to_json() | {"chain_id": -1},
        REQUIREMENTS.to_json() | {"receiver": "0x"},
    ],
)
def test_requirements_that_are_none(wrong: Any) -> None:
    """Of strangers, too."""
    with pytest.raises(EncodingError):
        Requirements.from_json(wrong)


def test_salts_differ() -> None:
    """By provider and by number."""
    salts = {channel_salt(key.address, number) for key in (PAYER, PROVIDER) for number in range(3)}
    assert len(salts) == 6
