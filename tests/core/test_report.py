"""Reports: what is read of strangers' bytes, and whose word it is."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import tiny_bundle, tiny_key, tiny_request

from assay.core.encoding import canonical
from assay.core.errors import EncodingError, InvalidSignature, VerificationError
from assay.core.report import MAX_REPORT_BYTES, SignedReport, sign_report

PROVIDER, REPORTER = tiny_key(1), tiny_key(2)
RECEIPT = tiny_bundle(tiny_request(max_tokens=2), PROVIDER, 1).receipt
REPORT = sign_report(RECEIPT, REPORTER, good=True)
DATA = REPORT.encode()


def test_reports_come_back() -> None:
    """Encoding and decoding give the same, which holds; the verdict is signed."""
    for good in (True, False):
        report = sign_report(RECEIPT, REPORTER, good=good)
        read = SignedReport.decode(report.encode())
        assert read == report
        read.check()
    with pytest.raises(InvalidSignature):
        replace(REPORT, good=False).check()


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_no_changed_byte_goes_unnoticed(place: int, change: int) -> None:
    """Whatever byte is changed, the report is not read or does not hold."""
    changed = DATA[:place] + bytes([DATA[place] ^ change]) + DATA[place + 1 :]
    with pytest.raises((EncodingError, VerificationError)):
        SignedReport.decode(changed).check()


def test_a_receipt_that_nobody_signed_is_no_evidence() -> None:
    """Else a reporter could make up answers of others."""
    made_up = replace(RECEIPT, sequence=99)
    with pytest.raises(InvalidSignature, match="the receipt names"):
        sign_report(made_up, REPORTER, good=False).check()


@pytest.mark.parametrize("name", ["v", "reporter", "receipt", "good", "signature"])
def test_members_of_other_types_are_refused(name: str) -> None:
    """Also missing ones."""
    good: dict[str, Any] = json.loads(DATA)
    for value in (None, 2, "x", [], {}, 2**60):
        with pytest.raises(EncodingError):
            SignedReport.decode(canonical({**good, name: value}))
    with pytest.raises(EncodingError):
        SignedReport.decode(canonical({key: value for key, value in good.items() if key != name}))


def test_other_spellings_are_refused() -> None:
    """There is one of each report, and it is short."""
    with pytest.raises(EncodingError):
        SignedReport.decode(DATA + b" ")
    with pytest.raises(EncodingError, match="at most"):
        SignedReport.decode(b"[" + b" " * MAX_REPORT_BYTES + b"]")
    with pytest.raises(EncodingError):
        SignedReport.decode(canonical({**json.loads(DATA), "more": 1}))
