"""A request's way, stage by stage."""

from __future__ import annotations

from assay.core.trace import Diary


def test_marks_are_timed_from_the_start() -> None:
    """In microseconds on the clock that was handed in, in the order in which they came."""
    times = iter([100.0, 100.25, 101.000001, 102.0])
    diary = Diary(lambda: next(times))
    diary.mark("match", "2 of 3 offers fit")
    diary.mark("send")
    diary.mark("failed", "a: b", provider="a")
    assert diary.trace.to_json() == [
        {"stage": "match", "at_us": 250_000, "note": "2 of 3 offers fit"},
        {"stage": "send", "at_us": 1_000_001, "note": ""},
        {"stage": "failed", "at_us": 2_000_000, "note": "a: b", "facts": {"provider": "a"}},
    ]
