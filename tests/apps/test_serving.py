"""Answers of this machine's engines: admission, delivery, receipts, ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
from tests.tiny import TinyEngine, TinyReader, tiny_key, tiny_request

from assay.apps.local import LocalAnswer
from assay.apps.serving import LocalAnswers
from assay.core.completion import Prompt, Step
from assay.core.errors import Busy, InvalidRequest, NoProvider, NotFound, ProviderFailed, StoreError
from assay.core.offer import Ask, Load, Price
from assay.core.request import LEVELS, Level, Request
from assay.market.sale import Sale
from assay.store.parts import OpenPart, PartStore
from assay.store.receipts import ReceiptStore
from assay.verify.binding import check_offline, check_with_model

pytestmark = pytest.mark.anyio
KEY = tiny_key()
LONG = tiny_request(max_tokens=600, nonce=bytes([3]) * 32)


@pytest.fixture
def store(tmp_path: Path) -> ReceiptStore:
    """A database of the test's own."""
    return ReceiptStore(f"sqlite:///{tmp_path / 'receipts.db'}")


async def start(answers: LocalAnswers, request: Request) -> LocalAnswer:
    """Ask for just what the request says."""
    return await answers.answer(request, Ask(request.model, request.level))


async def test_the_receipt_is_stored_when_the_last_token_is_handed_over(store: ReceiptStore) -> None:
    """Nobody has to ask for it; asking twice gives the same one, and one number is spent."""
    answers = LocalAnswers([TinyEngine()], KEY, store)
    answer = await start(answers, tiny_request())
    tokens = [step.token async for step in answer.steps()]
    await answer.settled()
    assert store.count() == 1
    one, two = await asyncio.gather(answer.bundle(), answer.bundle())
    assert one == two
    assert list(one.tokens) == tokens
    assert store.count() == 1
    assert answers.active == 0


async def test_nobody_has_a_whole_answer_without_a_receipt(store: ReceiptStore) -> None:
    """When the last token is handed over, its receipt is on the disk."""
    answer = await start(LocalAnswers([TinyEngine()], KEY, store), tiny_request())
    async for step in answer.steps():
        assert store.count() == (step.stop is not None)
    assert step.stop == "length"


async def test_tokens_that_were_not_handed_over_are_not_covered(store: ReceiptStore) -> None:
    """The engine runs ahead of a slow consumer; the receipt does not."""
    engine = TinyEngine()
    answer = await start(LocalAnswers([engine], KEY, store), LONG)
    steps = answer.steps()
    got = [(await anext(steps)).token for _ in range(3)]
    await asyncio.sleep(0.05)
    assert engine.generated > 3
    bundle = await answer.bundle()
    assert list(bundle.tokens) == got
    assert bundle.receipt.stop == "cancelled"
    check_offline(bundle)
    assert [step async for step in steps] == []


async def test_hanging_up_before_the_first_token_leaves_an_empty_receipt_that_costs_nothing(
    store: ReceiptStore,
) -> None:
    """No token, no price."""
    answers = LocalAnswers([TinyEngine(delay=10)], KEY, store, prices=dict.fromkeys(LEVELS, Price(5, 5)))
    answer = await start(answers, LONG)
    await answer.close()
    bundle = await answer.bundle()
    check_offline(bundle)
    assert (bundle.tokens, bundle.receipt.amount, bundle.receipt.stop) == ((), 0, "cancelled")
    assert answers.active == 0


async def test_closing_from_another_task_wakes_who_waits(store: ReceiptStore) -> None:
    """A hang-up ends the wait for a token that does not come."""
    answer = await start(LocalAnswers([TinyEngine(delay=10)], KEY, store), LONG)
    waiting = asyncio.create_task(anext(answer.steps(), None))
    await asyncio.sleep(0.01)
    await answer.close()
    assert await asyncio.wait_for(waiting, 1) is None


async def test_places_are_given_back_however_an_answer_ends(store: ReceiptStore) -> None:
    """Finished, cut, broken or refused: the place is free again."""
    engine = TinyEngine(delay=0.001)
    answers = LocalAnswers([engine], KEY, store, parallel=1)
    for request in (tiny_request(max_tokens=3), LONG, tiny_request("x" * 5000)):
        try:
            answer = await start(answers, request)
        except InvalidRequest:
            continue
        with pytest.raises(Busy, match="all 1 places"):
            await start(answers, request)
        steps = answer.steps()
        await anext(steps)
        await answer.bundle()
    engine.breaks_at = 1
    answer = await start(answers, LONG)
    with pytest.raises(ProviderFailed):
        [step async for step in answer.steps()]
    assert answers.active == 0


async def test_places_are_opened_and_closed(store: ReceiptStore) -> None:
    """From now on; answers under way go on, and no more places are opened than there are."""
    answers = LocalAnswers([TinyEngine()], KEY, store, parallel=2)
    one = await start(answers, LONG)
    answers.sell(Sale({}, 1))
    assert answers.load == Load(1, 1)
    with pytest.raises(Busy, match="all 1 places"):
        await start(answers, LONG)
    answers.sell(Sale({}, 0))
    with pytest.raises(Busy, match="answers nobody now"):
        await start(answers, LONG)
    assert len([step async for step in one.steps()]) == (await one.bundle()).receipt.output_count > 1
    answers.sell(Sale({}, 2))
    await (await start(answers, LONG)).close()
    for wrong in (-1, 3):
        with pytest.raises(InvalidRequest, match="there are 2 places here"):
            answers.sell(Sale({}, wrong))


async def test_a_cancelled_start_gives_its_place_back(store: ReceiptStore) -> None:
    """A consumer that leaves while its prompt is rendered."""
    answers = LocalAnswers([TinyEngine()], KEY, store, parallel=1)
    starting = asyncio.create_task(start(answers, LONG))
    await asyncio.sleep(0)
    starting.cancel()
    await asyncio.wait([starting])
    assert answers.active == 0


async def test_many_at_once_get_different_numbers(store: ReceiptStore) -> None:
    """Receipts of answers that end together have consecutive numbers, each once."""
    answers = LocalAnswers([TinyEngine()], KEY, store, parallel=20)

    async def one(number: int) -> int:
        answer = await start(answers, tiny_request(nonce=bytes([number]) * 32, max_tokens=5))
        [step async for step in answer.steps()]
        return (await answer.bundle()).receipt.sequence

    numbers = sorted(await asyncio.gather(*map(one, range(20))))
    assert numbers == list(range(numbers[0], numbers[0] + 20))


async def test_stopping_by_name_needs_to_know_whose_answer_it_is(store: ReceiptStore) -> None:
    """Two consumers with one seed have one request: neither can stop the other."""
    answers = LocalAnswers([TinyEngine(delay=0.01)], KEY, store)
    one, two = await start(answers, LONG), await start(answers, LONG)
    with pytest.raises(NotFound, match="2 answers"):
        await answers.stop(LONG.name)
    await one.bundle()
    await answers.stop(LONG.name)
    assert (await two.bundle()).receipt.stop == "cancelled"
    with pytest.raises(NotFound, match="0 answers"):
        await answers.stop(LONG.name)


async def test_draining_refuses_new_answers_and_ends_old_ones(store: ReceiptStore) -> None:
    """After the grace time every answer is cut and signed."""
    answers = LocalAnswers([TinyEngine(delay=0.01)], KEY, store)
    answer = await start(answers, LONG)
    reading = asyncio.create_task(_read(answer))
    draining = asyncio.create_task(answers.drain(0.1))
    await asyncio.sleep(0.02)
    with pytest.raises(Busy, match="shutting down"):
        await start(answers, tiny_request())
    await asyncio.wait_for(draining, 2)
    assert list((await answer.bundle()).tokens) == await reading
    assert store.count() == 1


async def _read(answer: LocalAnswer) -> list[int]:
    return [step.token async for step in answer.steps()]


async def test_a_receipt_that_could_not_be_kept_is_signed_when_one_can(store: ReceiptStore) -> None:
    """A write that fails costs nobody a receipt: with the next answer, the next look for it, or at the end, it is
    signed once, under a number of its own, and found by name."""
    answers = LocalAnswers([TinyEngine()], KEY, store)
    asked = [tiny_request(nonce=bytes([number]) * 32, max_tokens=5) for number in range(4)]
    tokens: list[list[int]] = []

    async def fail(request: Request) -> None:
        with pytest.MonkeyPatch.context() as patch:
            answer = await start(answers, request)
            patch.setattr(store, "issue", _full)
            patch.setattr(store, "check", _full)
            tokens.append(await _read(answer))
            with pytest.raises(Busy, match="cannot be kept"):
                await answer.bundle()
            with pytest.raises(Busy, match="cannot be kept"):
                await start(answers, request)
            await answers.settled(request.name)
        assert store.find(request.name) == []

    await fail(asked[0])
    await _read(await start(answers, asked[3]))  # the next answer
    assert len(store.find(asked[0].name)) == 1
    await fail(asked[1])
    await asyncio.gather(*(answers.settled(asked[1].name) for _ in range(5)))  # somebody asks for it
    await fail(asked[2])
    await answers.drain(0)
    for request, delivered in zip(asked, tokens, strict=False):
        [bundle] = store.find(request.name)
        check_offline(bundle)
        assert list(bundle.tokens) == delivered
    numbers = [store.get(digest).receipt.sequence for _, digest, _ in store.unaudited(10)]
    assert len(set(numbers)) == len(numbers) == 4


def _full(*_: object) -> NoReturn:
    raise StoreError("the disk is full")


@pytest.mark.parametrize("level", ["signed", "statistical", "pinned"])
async def test_what_a_dead_process_delivered_is_signed_once(store: ReceiptStore, tmp_path: Path, level: Level) -> None:
    """At the next start, for just the tokens that were handed over, at the price of then: found by the request's name.
    Where the process had died after its receipt was kept, there is no second one, though that covers more."""
    dead, request = PartStore(tmp_path / "parts"), replace(LONG, level=level)
    answers = LocalAnswers([TinyEngine()], KEY, store, prices=dict.fromkeys(LEVELS, Price(5, 7)), parts=dead)
    steps = (await start(answers, request)).steps()
    got = [(await anext(steps)).token for _ in range(4)]
    signed = (await start(answers, replace(LONG, max_tokens=5))).steps()
    await anext(signed)
    noted = files(tmp_path)
    assert len(noted) == 2
    kept = {path: path.read_bytes() for path in noted}
    assert len([step async for step in signed]) == 4
    (gone,) = [path for path in noted if not path.exists()]
    gone.write_bytes(kept[gone])  # as if it had died between the two
    dead._stack.close()  # as the system does when the process dies

    other = PartStore(tmp_path / "parts")
    again = LocalAnswers([TinyEngine(seed=3)], KEY, store, parts=other)
    again.recover()
    again.recover()
    (bundle,) = [item for item in store.find(request.name) if item.receipt.stop == "failed"]
    check_offline(bundle)
    check_with_model(bundle, TinyReader(), TinyEngine().model_digest)
    assert list(bundle.tokens) == got
    assert bundle.receipt.amount == 5 * bundle.receipt.prompt_count + 7 * 4
    assert store.count() == 2
    other.close()
    assert list((tmp_path / "parts").iterdir()) == []


async def test_an_answer_goes_on_where_its_tokens_cannot_be_noted(
    store: ReceiptStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk in mid-answer costs the consumer nothing as long as the receipt can be kept."""
    parts = PartStore(tmp_path / "parts")
    monkeypatch.setattr(OpenPart, "add", _full_disk)
    answer = await start(LocalAnswers([TinyEngine()], KEY, store, parts=parts), tiny_request())
    tokens = [step.token async for step in answer.steps()]
    assert list((await answer.bundle()).tokens) == tokens
    parts.close()
    assert list((tmp_path / "parts").iterdir()) == []


async def test_left_overs_of_another_key_stay(store: ReceiptStore, tmp_path: Path) -> None:
    """They are signed by nobody else."""
    dead = PartStore(tmp_path / "parts")
    steps = (await start(LocalAnswers([TinyEngine()], tiny_key(2), store, parts=dead), LONG)).steps()
    await anext(steps)
    dead._stack.close()
    LocalAnswers([TinyEngine()], KEY, store, parts=PartStore(tmp_path / "parts")).recover()
    assert store.count() == 0
    LocalAnswers([TinyEngine()], tiny_key(2), store, parts=PartStore(tmp_path / "parts")).recover()
    assert store.count() == 1


def files(root: Path) -> list[Path]:
    """Of answers under way."""
    return [path for path in root.glob("parts/*/*") if path.name != "lock"]


def _full_disk(*_: object) -> NoReturn:
    raise OSError(28, "No space left on device")


async def test_owed_receipts_are_bounded(store: ReceiptStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that never comes back does not fill the memory."""
    monkeypatch.setattr("assay.apps.serving._MOST_OWED", 2)
    answers = LocalAnswers([TinyEngine()], KEY, store, parallel=5)
    begun = [await start(answers, tiny_request(nonce=bytes([number]) * 32, max_tokens=5)) for number in range(4)]
    monkeypatch.setattr(store, "issue", _full)
    for answer in begun:
        await _read(answer)
        with pytest.raises(Busy):
            await answer.bundle()
    monkeypatch.undo()
    await answers.drain(0)
    assert store.count() == 2


async def test_levels_and_models_that_are_not_offered_are_refused(store: ReceiptStore) -> None:
    """With what is offered."""
    answers = LocalAnswers([TinyEngine(levels=("signed",))], KEY, store)
    assert [offer.level for offer in await answers.models()] == ["signed"]
    with pytest.raises(NoProvider, match="offered: signed"):
        await start(answers, tiny_request(level="pinned"))


async def test_an_engine_that_throws_anything_is_a_failed_provider(store: ReceiptStore) -> None:
    """Not a traceback: the consumer gets an error, and a receipt for the part."""

    class Wild(TinyEngine):
        async def generate(
            self, request: Request, prompt: Prompt, *, top_logprobs: int | None = None
        ) -> AsyncIterator[Step]:
            async for step in super().generate(request, prompt, top_logprobs=top_logprobs):
                yield step
                raise ZeroDivisionError("wild")

    answer = await start(LocalAnswers([Wild()], KEY, store), LONG)
    with pytest.raises(ProviderFailed, match="ZeroDivisionError: wild"):
        await _read(answer)
    bundle = await answer.bundle()
    assert (bundle.receipt.stop, len(bundle.tokens)) == ("failed", 1)
