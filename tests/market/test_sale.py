"""Prices, places and hours: what is written and read, and which minutes of a day are sold."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.core.errors import EncodingError
from assay.core.offer import Price
from assay.core.request import LEVELS
from assay.market.sale import DAY, Hours, Sale

minutes = st.integers(0, DAY - 1)
prices = st.builds(Price, st.integers(0, 2**96), st.integers(0, 2**96))


@given(minutes, minutes.filter(bool))
def test_hours(begin: int, length: int) -> None:
    """From the first minute on, as many as there are to the last one, and no other; what is written is read again."""
    hours = Hours(begin, (begin + length) % DAY)
    assert Hours.parse(str(hours)) == hours
    assert [minute for minute in range(DAY) if hours.have(minute)] == sorted((begin + n) % DAY for n in range(length))


def test_hours_over_midnight() -> None:
    """The night is one piece."""
    night = Hours.parse("22:00-07:00")
    assert [night.have(60 * hour) for hour in (21, 22, 0, 6, 7, 12)] == [False, True, True, True, False, False]


@pytest.mark.parametrize(
    "written", ["", "22-07", "24:00-07:00", "22:60-07:00", "22:00-22:00", " 22:00-07:00", "٢٢:00-07:00"]
)
def test_no_hours(written: str) -> None:
    """Two times of day, in this form."""
    with pytest.raises(EncodingError, match="no hours of a day"):
        Hours.parse(written)


@given(
    st.builds(
        Sale,
        st.dictionaries(st.sampled_from(LEVELS), prices),
        st.integers(0, 2**40),
        st.none() | st.builds(Hours, st.just(5), minutes.filter(lambda m: m != 5)),
    )
)
def test_sales_are_kept(sale: Sale) -> None:
    """What is written is read again."""
    assert Sale.from_json(json.loads(json.dumps(sale.to_json()))) == sale


def test_places() -> None:
    """None outside of the hours."""
    sale = Sale({}, 3, Hours.parse("08:00-20:00"))
    assert (sale.places_at(8 * 60), sale.places_at(20 * 60), Sale({}, 3).places_at(0)) == (3, 0, 3)


@pytest.mark.parametrize(
    "change",
    [
        {"prices": []},
        {"prices": {"best": {"prompt": "1", "output": "1"}}},
        {"prices": {"signed": {"prompt": "1"}}},
        {"prices": {"signed": {"prompt": 1, "output": 1}}},
        {"prices": {"signed": {"prompt": "-1", "output": "1"}}},
        {"prices": {"signed": {"prompt": "1", "output": str(2**96 + 1)}}},
        {"places": -1},
        {"places": 1.5},
        {"places": True},
        {"places": None},
        {"hours": ""},
        {"hours": 7},
        {"hours": "always"},
        {"more": 1},
    ],
)
def test_what_is_no_sale(change: dict) -> None:
    """A member that is missing, unknown, of another type or out of range."""
    value = Sale({"signed": Price(1, 2)}, 1).to_json()
    with pytest.raises(EncodingError):
        Sale.from_json(value | change)
    for missing in value:
        with pytest.raises(EncodingError, match="exactly"):
            Sale.from_json({name: each for name, each in value.items() if name != missing})
