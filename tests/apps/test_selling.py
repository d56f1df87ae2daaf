"""What an owner changes of what is sold: at once, and for the next start."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.tiny import TinyEngine, tiny_key, tiny_request

from assay.apps import selling as selling_module
from assay.apps.selling import Selling
from assay.apps.serving import LocalAnswers
from assay.core.errors import Busy, ConfigError, EncodingError, InvalidRequest
from assay.core.offer import Ask, Price
from assay.market.sale import Hours, Sale
from assay.store.receipts import ReceiptStore

CONFIGURED = Sale({"signed": Price(1, 2)}, 3)
NIGHT_HOURS = Hours.parse("22:00-07:00")
NIGHT, NOON = (time.mktime((2026, 11, 26, hour, 30, 0, 0, 0, -1)) for hour in (23, 12))

pytestmark = pytest.mark.anyio


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ReceiptStore]:
    """Of a provider."""
    found = ReceiptStore(f"sqlite:///{tmp_path / 'provider.db'}")
    yield found
    found.close()


def provider(store: ReceiptStore, parallel: int = 3, now: float = NIGHT) -> LocalAnswers:
    """One, at some time."""
    return LocalAnswers([TinyEngine()], tiny_key(), store, parallel=parallel, clock=lambda: now)


async def prices(local: LocalAnswers) -> dict[str, Price]:
    """By level, as offered."""
    return {offer.level: offer.price for offer in await local.models()}


async def test_changes_hold_at_once_and_after_the_next_start(store: ReceiptStore, tmp_path: Path) -> None:
    """Until they are taken back, which the next start knows as well. All else is as configured then: also prices of
    levels that were not on offer when others were set."""
    local, path = provider(store), tmp_path / "sale.json"
    selling = Selling(local, CONFIGURED, path)
    assert (await prices(local))["signed"] == Price(1, 2)
    assert selling.kept == []
    await selling.change({"hours": str(NIGHT_HOURS), "prices": {"pinned": {"prompt": "5", "output": "7"}}})
    await selling.change({"prices": {"signed": {"prompt": "3", "output": "4"}}})
    set_here = {"pinned": Price(5, 7), "signed": Price(3, 4)}
    for found in (local, provider(store)):
        again = Selling(found, CONFIGURED, path)
        assert (again.now, again.kept) == (Sale(set_here, 3, NIGHT_HOURS), ["hours", "prices"])
        assert await prices(found) == {"statistical": Price(0, 0), **set_here}
    dearer = Sale({"signed": Price(9, 9), "statistical": Price(9, 9)}, 2)
    other = Selling(provider(store), dearer, path)
    assert other.now == Sale({**dearer.prices, **set_here}, 2, NIGHT_HOURS)
    await other.change({"places": 1})
    assert Selling(provider(store), CONFIGURED, path).now.places == 1
    assert Selling(provider(store, parallel=1), CONFIGURED, path).now.places == 1
    await selling.reset()
    for found in (selling, Selling(provider(store), CONFIGURED, path)):
        assert (found.now, found.kept) == (CONFIGURED, [])
    await selling.reset()


async def test_what_cannot_be_kept_does_not_hold(
    store: ReceiptStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, more places than there are, what is no sale, and prices of who sells nothing."""
    local, path = provider(store), tmp_path / "sale.json"
    selling = Selling(local, CONFIGURED, path)
    for wrong in ({"places": 4}, {"places": -1}, {"hours": "x"}, {"prices": {"best": {}}}, {"prices": 7}, {"more": 1}):
        with pytest.raises((InvalidRequest, EncodingError)):
            await selling.change(wrong)
        assert (selling.now, selling.kept, path.exists()) == (CONFIGURED, [], False)
    with pytest.raises(EncodingError, match="sells nothing"):
        await Selling(local, CONFIGURED, path, priced=False).change({"prices": {}})

    def full(*_args: object, **_more: object) -> None:
        raise ConfigError("the disk is full")

    monkeypatch.setattr(selling_module, "write_private", full)
    with pytest.raises(ConfigError):
        await selling.change({"places": 1})
    assert (selling.now, selling.kept) == (CONFIGURED, [])
    assert (await prices(local))["signed"] == Price(1, 2)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"rooms": 1}', "9" * 20_000, "[" * 9000, '{"prices":[]}', '{"places":-1}', '{"hours":1}']
)
async def test_a_file_that_says_something_else(store: ReceiptStore, tmp_path: Path, text: str) -> None:
    """The provider does not start, and says what to do: a price that nobody wanted is worse."""
    path = tmp_path / "sale.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="does not say what is sold") as refused:
        Selling(provider(store), CONFIGURED, path)
    assert "delete it" in refused.value.remedy


async def test_hours_and_prices_of_answers(store: ReceiptStore) -> None:
    """Nothing is begun outside of the hours, nor at a price that is not the one of now; what is under way goes on."""
    night, noon = provider(store), provider(store, now=NOON)
    request = tiny_request(max_tokens=3)
    wish = Ask(request.model, request.level)
    for local in (night, noon):
        local.sell(Sale({request.level: Price(5, 7)}, 2, NIGHT_HOURS))
    with pytest.raises(Busy, match="answers nobody now"):
        await noon.answer(request, wish)
    with pytest.raises(Busy, match="the price is 5 wei a prompt token and 7 an output token now"):
        await night.answer(request, wish, price=Price(5, 6))
    assert night.active == 0
    answer = await night.answer(request, wish, price=Price(5, 7))
    night.sell(Sale({request.level: Price(500, 700)}, 0))
    tokens = len([step async for step in answer.steps()])
    receipt = (await answer.bundle()).receipt
    assert receipt.amount == 5 * receipt.prompt_count + 7 * tokens
