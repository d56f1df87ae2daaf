"""Providers' records: one spelling, one signature, a short life; nothing else is read."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import tiny_key

from assay.core.encoding import b64, canonical
from assay.core.errors import EncodingError, InvalidSignature, RecordRefused, VerificationError
from assay.core.hashing import digest
from assay.core.offer import Offer, Price
from assay.core.payment import Requirements
from assay.core.record import (
    MAX_LIFE,
    MAX_SKEW,
    Endpoint,
    EndpointKind,
    ProviderRecord,
    Stake,
    next_sequence,
    sign_record,
    url_by_key,
)
from assay.core.request import LEVELS

KEY, OTHER = tiny_key(1), tiny_key(2)
NOW = 1_790_000_000
A = "0x" + "ab" * 20
OFFERS = tuple(
    Offer(
        KEY.address,
        url_by_key(KEY.address),
        "smollm2-135m",
        b"m" * 32,
        level,
        Price(5, 2**96),
        2048,
        True,
        False,
        b"p" * 32,
        "gumbel/1",
        Requirements(1, A, A, A, KEY.address, 900, 10**20),
        region="eu-west",
    )
    for level in LEVELS
)
RECORD = sign_record(
    ProviderRecord(
        provider=KEY.address,
        sequence=7,
        issued=NOW,
        expires=NOW + 3600,
        endpoints=(Endpoint("https", "node.example:443"), Endpoint("http", "[2001:db8::1]:8100")),
        offers=OFFERS,
        parallel=4,
        region="eu-west",
        stake=Stake(31_337, A),
        tls=b"t" * 32,
    ),
    KEY,
)
DATA = RECORD.encode()


def resigned(value: dict[str, Any]) -> bytes:
    """`value` with a good signature over whatever it says."""
    content = canonical({name: item for name, item in value.items() if name != "signature"})
    return canonical({**value, "signature": b64(KEY.sign(digest("assay/record/1", content)))})


def test_a_region_is_that_of_all_offers() -> None:
    """It is signed once, for the record; offers that were read have it, and no record has offers of elsewhere."""
    assert {offer.region for offer in ProviderRecord.decode(DATA).offers} == {"eu-west"}
    with pytest.raises(EncodingError, match="in its region"):
        replace(RECORD, region="us")


def test_records_come_back() -> None:
    """Encoding and decoding give the same record, which holds while it lives; also the smallest one."""
    least = sign_record(ProviderRecord(KEY.address, 0, NOW, NOW + 1, (), (), 0), KEY)
    for record in (RECORD, least):
        read = ProviderRecord.decode(record.encode())
        assert read == record
        assert read.digest == record.digest
        read.check(NOW)


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_no_changed_byte_goes_unnoticed(place: int, change: int) -> None:
    """Whatever byte is changed, the record is not read or does not hold."""
    changed = DATA[:place] + bytes([DATA[place] ^ change]) + DATA[place + 1 :]
    with pytest.raises((EncodingError, VerificationError)):
        ProviderRecord.decode(changed).check(NOW)


@given(st.integers(0, len(DATA)), st.integers(0, len(DATA)), st.binary(max_size=40))
def test_no_cut_or_addition_goes_unnoticed(start: int, end: int, put: bytes) -> None:
    """Bytes taken out, put in or in place of others: the record is not read or does not hold."""
    changed = DATA[: min(start, end)] + put + DATA[max(start, end) :]
    if changed == DATA:
        return
    with pytest.raises((EncodingError, VerificationError)):
        ProviderRecord.decode(changed).check(NOW)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_garbage_is_no_record(data: bytes) -> None:
    """Any bytes at all end in an error of ours."""
    with pytest.raises(EncodingError):
        ProviderRecord.decode(data)


WRONG: tuple[Any, ...] = (None, True, -1, 2**60, "x", "\ud800", [], {}, [1], [[]], [{}], {"a": 1}, "A" * 300)


@pytest.mark.parametrize("name", sorted(RECORD.to_json()))
def test_members_of_other_types_are_refused(name: str) -> None:
    """Other types, numbers out of range, missing members: refused before any signature is looked at."""
    good: dict[str, Any] = json.loads(DATA)
    may = {"payment": [None], "stake": [None], "endpoints": [[]], "offers": [[]], "region": ["x"]}
    for value in WRONG:
        if value in may.get(name, []) and type(value) in map(type, may.get(name, [])):
            continue
        with pytest.raises(EncodingError):
            ProviderRecord.decode(json.dumps({**good, name: value}, separators=(",", ":"), sort_keys=True).encode())
    with pytest.raises(EncodingError):
        ProviderRecord.decode(canonical({key: item for key, item in good.items() if key != name}))


@pytest.mark.parametrize(
    "where", [(), ("endpoints", 0), ("offers", 0), ("offers", 0, "price"), ("payment",), ("stake",)]
)
def test_members_that_are_not_known_are_refused(where: tuple[Any, ...]) -> None:
    """Also inside, also where the provider has signed them: a record has one meaning for everybody."""
    value = json.loads(DATA)
    inner = value
    for step in where:
        inner = inner[step]
    inner["more"] = 1
    with pytest.raises(EncodingError, match="members"):
        ProviderRecord.decode(resigned(value))


@pytest.mark.parametrize(
    ("name", "items"),
    [("endpoints", [{"kind": "http", "address": f"a:{port}"} for port in range(1, 10)]), ("offers", None)],
)
def test_lists_are_bounded(name: str, items: Any) -> None:
    """Nine endpoints and 65 offers are too many."""
    value = json.loads(DATA)
    value[name] = items or value["offers"][:1] * 65
    with pytest.raises(EncodingError, match="at most"):
        ProviderRecord.decode(resigned(value))


def test_records_are_bounded() -> None:
    """A provider is not let sign, nor a reader read, more than 64 KB."""
    with pytest.raises(EncodingError, match="at most 65536 bytes"):
        replace(RECORD, offers=(replace(OFFERS[0], model="😀" * 256),) * 64).encode()
    with pytest.raises(EncodingError, match="at most 65536 bytes"):
        ProviderRecord.decode(b" " * 65_537)


@pytest.mark.parametrize(
    "address",
    [
        "", "a", "a:0", "a:65536", "a:080", "A:80", "a b:80", "a:80/", "user@a:80", "a\n:80", "é:80", "-a:80", "[a:80",
        "2130706433:80", "0x7f000001:80", "127.1:80", "127.0.0.01:80", "1.2.3.4.5:80", "0x7f.1:80",
        "[0:0:0:0:0:0:0:1]:80", "[::FFFF]:80", "a" * 253 + ":80",
    ],
)  # fmt: skip
def test_addresses_have_one_spelling(address: str) -> None:
    """Only host:port in lower case; numbers that a resolver would read as addresses are spelled as addresses."""
    with pytest.raises(EncodingError):
        Endpoint("http", address)


def test_addresses() -> None:
    """Names and addresses of both families."""
    for address, host in (("a.example:1", "a.example"), ("10.0.0.1:65535", "10.0.0.1"), ("[fe80::1]:80", "fe80::1")):
        endpoint = Endpoint("https", address)
        assert (endpoint.host, endpoint.url) == (host, f"https://{address}")


NODE = "0f" * 32


@pytest.mark.parametrize(
    ("kind", "address", "place"),
    [
        ("relay", "wss://relay.example:443", "relay.example:443"),
        ("relay", "ws://[2001:db8::1]:80", "[2001:db8::1]:80"),
        ("iroh", NODE, ""),
        ("iroh", f"{NODE}@192.0.2.1:9", "192.0.2.1:9"),
    ],
)
def test_addresses_through_others(kind: EndpointKind, address: str, place: str) -> None:
    """A relay's, and a node's with or without a place of its own."""
    endpoint = Endpoint(kind, address)
    assert endpoint.place == place
    host, _, port = place.rpartition(":")
    assert (endpoint.host, endpoint.port) == (host.strip("[]"), int(port or 0))


@pytest.mark.parametrize(
    ("kind", "address"),
    [
        *(("relay", each) for each in ("a:1", "http://a:1", "wss://a", "wss://a:1/", "wss://A:1", "wss://u@a:1")),
        ("relay", "ws://127.1:1"),
        *(("iroh", each) for each in ("", NODE[1:], NODE.upper(), f"{NODE}@", f"{NODE}@a", f"{NODE}@127.1:1")),
        ("iroh", f"{NODE}\n"),
    ],
)  # fmt: skip
def test_addresses_through_others_have_one_spelling(kind: EndpointKind, address: str) -> None:
    """As all have; a relay is no more than scheme, host and port."""
    with pytest.raises(EncodingError):
        Endpoint(kind, address)


def test_another_key_cannot_sign() -> None:
    """A record names its signer, and the signature is over every member."""
    with pytest.raises(InvalidSignature, match=OTHER.address):
        sign_record(RECORD, OTHER).check(NOW)
    with pytest.raises(InvalidSignature):
        replace(RECORD, parallel=5).check(NOW)


def test_offers_of_others_are_refused() -> None:
    """Nobody puts another one's offers, or offers with two ways of payment, into a record."""
    for changes in ({"provider": OTHER.address}, {"url": "http://x"}, {"payment": None}):
        with pytest.raises(EncodingError, match="own"):
            replace(RECORD, offers=(OFFERS[0], replace(OFFERS[1], **changes)))


def test_a_record_lives_for_a_time() -> None:
    """From MAX_SKEW before its issue to its end, which is at most a day later."""
    for now in (NOW - MAX_SKEW, NOW, RECORD.expires - 1):
        RECORD.check(now)
    for now, reason in ((NOW - MAX_SKEW - 1, "future"), (RECORD.expires, "expired")):
        with pytest.raises(RecordRefused) as refusal:
            RECORD.check(now)
        assert refusal.value.reason == reason
    for life in (0, -1, MAX_LIFE + 1):
        with pytest.raises(EncodingError, match="lives"):
            replace(RECORD, expires=NOW + life)


def test_sequence_numbers_rise() -> None:
    """Also within a millisecond, after a restart, and when the clock goes back."""
    assert next_sequence(0, 5.0) == 5000
    assert next_sequence(5000, 5.0) == 5001
    assert next_sequence(9000, 5.0) == 9001
