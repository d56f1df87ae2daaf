"""The canonical encoding: one spelling for each value, and every other spelling refused."""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.core import encoding
from assay.core.encoding import (
    MAX_BRACKETS,
    b64,
    canonical,
    canonical_text,
    check_depth,
    micros,
    pack_ids,
    parse_canonical,
    unb64,
    unpack_ids,
)
from assay.core.errors import EncodingError

TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-encoding.MAX_INTEGER, encoding.MAX_INTEGER) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def spell(value: Any) -> str:
    """RFC 8785 for values without floats, written again from the RFC's text."""
    if isinstance(value, dict):
        members = sorted(value.items(), key=lambda item: [*item[0].encode("utf-16-be")])
        return "{" + ",".join(f"{spell(key)}:{spell(item)}" for key, item in members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(spell, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


@given(VALUES)
def test_canonical_is_rfc_8785(value: Any) -> None:
    """The bytes are those of a second implementation of RFC 8785, and reading them gives the value back."""
    data = canonical(value)
    assert data == spell(value).encode()
    assert parse_canonical(data, what="it") == value


def test_keys_are_sorted_by_utf_16_units() -> None:
    """A key beyond the basic plane sorts before U+E000, as in JavaScript, not after it as by code point."""
    assert canonical({"\ue000": 1, "\U00010000": 2}) == '{"\U00010000":2,"\ue000":1}'.encode()


@pytest.mark.parametrize(
    "value",
    [
        1.0,
        float("nan"),
        2**53,
        -(2**53),
        10**5000,
        "\ud800",
        {"\udfff": 1},
        {1: 2},
        b"bytes",
        {"deep": [object()]},
        {1, 2},
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_without_a_canonical_encoding(value: Any) -> None:
    """Floats, integers over 2^53 (however large), lone surrogates, foreign types and other keys are refused."""
    with pytest.raises(EncodingError):
        canonical(value)


def test_nesting_has_a_limit() -> None:
    """Deep values are refused before they exhaust the stack, written and read."""
    value: Any = 0
    for _ in range(encoding.MAX_DEPTH):
        value = [value]
    assert parse_canonical(canonical(value), what="it") == value
    for deep in ([value], {"a": value}):
        with pytest.raises(EncodingError, match="deep"):
            canonical(deep)
    for bomb in (b"[" * 1_000_000, b'{"a":' * 1_000_000, b"[" * 500 + b"]" * 500):
        with pytest.raises(EncodingError):
            parse_canonical(bomb, what="it")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"1\n",
        b" 1",
        b"1 ",
        b"01",
        b"+1",
        b"-0",
        b"1.0",
        b"1e0",
        b"-0.0",
        b"NaN",
        b"Infinity",
        b"9007199254740992",
        b"9" * 5000,
        b"1" * 400 + b".5",
        b'{"b":1,"a":2}',
        b'{"a":1,"a":1}',
        b'{"a":1, "b":2}',
        b'{"a":1,}',
        b'"\\u0041"',
        b'"\\/"',
        b'"\\u000A"',
        b'"\\n\\u001F"',
        b'"\\ud800"',
        b'"\\ud83d\\ude00"',
        b'"\xed\xa0\x80"',
        b'"\xff"',
        b'"\x00"',
        b"\xef\xbb\xbf1",
        "1".encode("utf-16"),
        "1".encode("utf-32-be"),
        b"true false",
        "١".encode(),
    ],
)
def test_other_spellings_are_refused(data: bytes) -> None:
    """Whatever is not the canonical spelling of a value is refused, with an error of ours."""
    with pytest.raises(EncodingError):
        parse_canonical(data, what="it")


@given(st.binary(max_size=64) | TEXTS.map(str.encode) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """Bytes from outside are the canonical spelling of what is read, or an EncodingError."""
    try:
        value = parse_canonical(data, what="it")
    except EncodingError:
        return
    assert canonical(value) == data


@pytest.mark.parametrize(
    "item",
    [b"[]", b"0", b'{"a":0}', b'"a"', b'{"\\\\":"\\""}', b"[" * 40 + b"]" * 40],
    ids=lambda item: item[:8].decode(),
)
def test_a_giant_of_tiny_values_is_refused_unparsed(item: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A document of more than MAX_VALUES values is refused before it is parsed into 40 times its size."""
    monkeypatch.setattr(encoding.json, "loads", lambda *_, **__: pytest.fail("it was parsed"))
    giant = b"[" + b",".join([item] * (4 * encoding.MAX_VALUES)) + b"]"
    with pytest.raises(EncodingError, match="values"):
        parse_canonical(giant, what="it")


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"[":'], ids=bytes.decode)
def test_deep_text_is_refused_unparsed(opening: bytes) -> None:
    """With a recursion limit that a library has raised, deep nesting would kill the process; it is refused before."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)
    try:
        for repeats in (MAX_BRACKETS, 100_000):
            for data in (opening * repeats, opening * repeats + b'"'):
                with pytest.raises(EncodingError):
                    parse_canonical(data, what="it")
        with pytest.raises(EncodingError, match="deep"):
            check_depth(opening * 100_000, what="it")
    finally:
        sys.setrecursionlimit(limit)


def test_many_brackets_side_by_side_or_in_text_are_no_depth() -> None:
    """Flat values, texts full of brackets and broken JSON pass the check of depth."""
    for value in ([[]] * 5000, [{"a": [{}]}] * 5000, ["[" * 5000], {"]]" + "{" * 5000: '"[["' * 2000}):
        check_depth(canonical(value), what="it")
        assert parse_canonical(canonical(value), what="it") == value
    for data in (b"]" * 5000, b"[]]" * 5000, b"", b'"' + b"[" * 5000):
        check_depth(data, what="it")


def test_a_giant_text_is_not_mistaken_for_many_values() -> None:
    """Quotes, commas and brackets inside of strings do not count."""
    value = ['"' * encoding.MAX_VALUES, "[{,:" * encoding.MAX_VALUES, "\\" * (encoding.MAX_VALUES + 1), "é,"]
    assert parse_canonical(canonical(value), what="it") == value


def test_canonical_text_takes_floats_as_javascript_spells_them() -> None:
    """Values that are carried as text may hold floats, spelled as ECMAScript does (RFC 8785, appendix B)."""
    numbers = [
        333333333.33333329,
        1e30,
        4.50,
        2e-3,
        0.000000000000000000000000001,
        -0.0,
        1e21,
        1e20,
        5e-324,
        1e-6,
        1e-7,
    ]
    spelled = "[333333333.3333333,1e+30,4.5,0.002,1e-27,0,1e+21,100000000000000000000,5e-324,0.000001,1e-7]"
    assert canonical_text(numbers) == spelled


def test_canonical_text_refuses_what_is_not_json() -> None:
    """NaN, infinity, lone surrogates, foreign types and bottomless nesting are refused."""
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    for value in (float("nan"), float("inf"), "\ud800", {"\ud800": 0}, {1: 2}, object(), 10**5000, deep):
        with pytest.raises(EncodingError):
            canonical_text(value)


def test_micros() -> None:
    """Millionths, half to even; what has none is refused."""
    assert [micros(x, what="it") for x in (0.7, 1, 0, 0.0000005, 0.0000015, -2)] == [
        700_000,
        10**6,
        0,
        0,
        2,
        -2_000_000,
    ]
    for value in (float("nan"), float("inf"), -float("inf"), 1e308, 1e10, 10**400):
        with pytest.raises(EncodingError, match="temperature"):
            micros(value, what="temperature")


@given(st.binary(max_size=80))
def test_base64url_has_one_spelling(data: bytes) -> None:
    """Each byte string has one text, without padding; whatever is added is refused or read otherwise."""
    text = b64(data)
    assert unb64(text, size=len(data), what="it") == data
    assert text == base64.b64encode(data).decode().rstrip("=").replace("+", "-").replace("/", "_")
    for other in (text + "=", text + "==", text + "A", text + "\n", " " + text, text + "é", text + "\ud800"):
        try:
            assert unb64(other, size=None, what="it") != data
        except EncodingError:
            continue


@pytest.mark.parametrize(
    "text", ["QR", "QQ==", "QQ=", "Q", "+/+/", "QUJ ", "QUJé", "QUJ\ud800", "QQ\n", "QUI=", "ＱＱ"]
)
def test_stray_bits_and_characters_are_refused(text: str) -> None:
    """Trailing bits that decode to nothing, padding, and letters of other alphabets are refused."""
    with pytest.raises(EncodingError):
        unb64(text, size=None, what="it")


def test_base64url_of_another_length_is_refused() -> None:
    """A digest of 31 or 33 bytes is named with its length."""
    with pytest.raises(EncodingError, match="31 bytes, not 32"):
        unb64(b64(bytes(31)), size=32, what="it")


@given(st.lists(st.integers(0, 2**32 - 1), max_size=20))
def test_ids_come_back(ids: list[int]) -> None:
    """Token ids are four bytes each, big-endian."""
    data = pack_ids(ids)
    assert data == b"".join(i.to_bytes(4, "big") for i in ids)
    assert unpack_ids(data, what="it") == tuple(ids)


def test_ids_that_do_not_fit() -> None:
    """Negative and larger ids, broken and endless lists are refused."""
    for ids in ([-1], [2**32], [0, 10**30]):
        with pytest.raises(EncodingError):
            pack_ids(ids)
    for data in (b"abc", bytes(5), bytes(4 * encoding.MAX_IDS + 4)):
        with pytest.raises(EncodingError):
            unpack_ids(data, what="it")
