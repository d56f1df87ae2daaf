"""Bundles: the receipt files of users."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import tiny_bundle, tiny_key, tiny_request

from assay.core import bundle as module
from assay.core.bundle import Bundle
from assay.core.encoding import MAX_IDS, b64, canonical, pack_ids
from assay.core.errors import EncodingError
from assay.core.request import LEVELS

BUNDLES = [tiny_bundle(tiny_request("Ça va ? 😀", level=level, max_tokens=5), tiny_key(), 3) for level in LEVELS]


@pytest.mark.parametrize("bundle", BUNDLES, ids=LEVELS)
def test_bundles_come_back(bundle: Bundle) -> None:
    """Encoding and decoding give the same bundle; the file is one line."""
    data = bundle.encode()
    assert Bundle.decode(data) == bundle
    assert data.count(b"\n") == 1
    assert data.endswith(b"}\n")
    assert Bundle.from_json(json.loads(data)) == bundle


@pytest.mark.parametrize("bundle", BUNDLES, ids=LEVELS)
def test_a_file_has_one_spelling(bundle: Bundle) -> None:
    """No newline, two of them, blanks, indentation, a byte-order mark or other encodings are refused."""
    data = bundle.encode()
    indented = json.dumps(json.loads(data), indent=1).encode() + b"\n"
    ascii_only = json.dumps(json.loads(data), separators=(",", ":"), sort_keys=True).encode() + b"\n"
    others = [data[:-1], data + b"\n", data[:-1] + b"\r\n", b" " + data, b"\xef\xbb\xbf" + data, data + data, indented]
    others += [ascii_only, data.decode().encode("utf-16"), data[: len(data) // 2], b"", b"\n", b"\0" + data]
    for other in others:
        with pytest.raises(EncodingError):
            Bundle.decode(other)


def test_a_cut_file_says_so() -> None:
    """A download that broke off is recognised for what it is."""
    with pytest.raises(EncodingError, match="fetch it again"):
        Bundle.decode(BUNDLES[0].encode()[:-100])


@pytest.mark.parametrize("name", ["receipt", "request", "profile", "tokens", "opening"])
def test_members_of_other_types_are_refused(name: str) -> None:
    """Members of other types or spellings, missing or added ones are refused."""
    good: dict[str, Any] = BUNDLES[1].to_json()
    for value in (None, True, 1, 1.5, [], {}, "*", "QQ==", "QR", "\ud800", [1, 2]):
        with pytest.raises(EncodingError):
            Bundle.from_json(good | {name: value})
    for other in ({k: v for k, v in good.items() if k != name}, good | {name + "_": 1}, [good], None, "x"):
        with pytest.raises(EncodingError):
            Bundle.from_json(other)


def test_token_lists_have_limits() -> None:
    """Half a token id, and more ids than any context holds, are refused."""
    good: dict[str, Any] = BUNDLES[0].to_json()
    for tokens in (bytes(3), bytes(4 * MAX_IDS + 4)):
        with pytest.raises(EncodingError, match="token"):
            Bundle.from_json(good | {"tokens": b64(tokens)})
    assert Bundle.from_json(good | {"tokens": b64(pack_ids([2**32 - 1]))}).tokens == (2**32 - 1,)


def test_large_files_are_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file over the limit costs nothing."""
    monkeypatch.setattr(module, "parse_canonical", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(EncodingError, match="larger than"):
        Bundle.decode(bytes(module.MAX_BUNDLE_BYTES + 1))


@pytest.mark.parametrize("item", [b"[]", b'{"a":0}', b"0", b'"a"'], ids=bytes.decode)
def test_hostile_files_cost_little_memory(item: bytes) -> None:
    """A file of millions of tiny values is refused in a few times its own size."""
    data = b"[" + b",".join([item] * 1_000_000) + b"]\n"
    tracemalloc.start()
    try:
        with pytest.raises(EncodingError, match="values"):
            Bundle.decode(data)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(data)
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_with_an_error_of_ours(data: bytes) -> None:
    """Random bytes never crash the reader."""
    for other in (data, data + b"\n", canonical(b64(data)) + b"\n"):
        with pytest.raises(EncodingError):
            Bundle.decode(other)
