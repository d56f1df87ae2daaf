"""Values of the court: seen coming, within bounds, and never so that a bond can leave before a dispute is over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.chain.courtroom import DAY, HOUR, VALUES
from tests.chain.kit import NOBODY, PEOPLE, Clock, Town, address, embedded, town_of

from assay.chain.contracts import artefact

OWNER, EVE = PEOPLE[0], PEOPLE[2]
LOCK, GRACE = 7 * DAY, 30 * DAY
NAMES = ("WINDOW", "UNBONDING", "AGE", "DEPOSIT", "FEE", "SLASH", "WRONGED", "CHALLENGER", "COMMIT_AGE", "INSURANCE")
LOWEST = (600, DAY, HOUR, 100, 30, 1000, 0, 500, 12, 1)
HIGHEST = (2 * DAY, 90 * DAY, 30 * DAY, 10_000, 3000, 10_000, 5000, 2500, HOUR, 2**160 - 1)


@pytest.fixture
def clock() -> Clock:
    """Of the test's own chain."""
    return Clock()


@pytest.fixture
def town(clock: Clock) -> Iterator[Town]:
    """A chain of the test's own."""
    chain = embedded(clock=clock)
    yield town_of(chain)
    chain.close()


@pytest.fixture
def params(town: Town) -> Any:
    """With the values that it begins with."""
    return town.deploy("Params", VALUES)


def refused(town: Town, who: Any, call: Any, why: str) -> None:
    """The call fails for this reason, and so does its transaction."""
    assert why in town.why(who, call)
    assert town.post(who, call)["status"] == 0


def with_value(name: str, value: int) -> list[int]:
    """The first values but one."""
    return [value if each == name else before for each, before in zip(NAMES, VALUES, strict=True)]


def test_numbers_of_names(town: Town, params: Any) -> None:
    """Are told by the contract, in the order of `all`; of moves the court knows the same number."""
    assert [params.functions[name]().call() for name in NAMES] == list(range(len(NAMES)))
    assert tuple(params.functions.all().call()) == VALUES
    moves = [params.functions[name]().call() for name in ("MOST_MOVES", "LOCK", "GRACE")]
    assert moves == [20, LOCK, GRACE]
    assert params.functions.owner().call() == address(OWNER)


@pytest.mark.parametrize(("name", "lowest", "highest"), list(zip(NAMES, LOWEST, HIGHEST, strict=True)))
def test_bounds(town: Town, params: Any, name: str, lowest: int, highest: int) -> None:
    """Of each value, to the last unit, at the beginning and for proposals."""
    which = NAMES.index(name)
    for value in (lowest, highest):
        town.send(OWNER, params.functions.propose(which, value))
    for value in (*([lowest - 1] if lowest else []), highest + 1, 2**256 - 1):
        refused(town, OWNER, params.functions.propose(which, value), "bounds")
    found = artefact("Params")
    if name in ("DEPOSIT", "FEE"):
        return
    for value in (*([lowest - 1] if lowest else []), highest + 1):
        made = town.web3.eth.contract(abi=found.abi, bytecode=found.code).constructor(with_value(name, value))
        assert town.post(EVE, made)["status"] == 0


CORNERS = {
    "lowest": (600, DAY, HOUR, 1, 1, 1000, 0, 500, 12, 1),
    "highest": (2 * DAY, 90 * DAY, 30 * DAY, 2**120 - 1, 2**120 - 1, 10_000, 5000, 2500, HOUR, 2**160 - 1),
    "both": (2 * DAY, 90 * DAY, HOUR, 1, 2**120 - 1, 1000, 5000, 500, HOUR, 1),
    "other": (600, DAY, HOUR, 2**120 - 1, 1, 10_000, 0, 2500, 12, 2**160 - 1),
}


@pytest.mark.parametrize("corner", CORNERS)
def test_values_at_their_bounds_stay_apart(town: Town, clock: Clock, corner: str) -> None:
    """However small or large, each is told as it is, and none changes another that is kept beside it: neither at the
    beginning, nor when one after the other is changed to an end of what it may be."""
    values = list(CORNERS[corner])
    params = town.deploy("Params", values)
    assert params.functions.all().call() == values
    most = [10 * value for value in values]
    highest = [most[n] if n in (3, 4) else HIGHEST[n] for n in range(10)]
    lowest = [max(1, values[n] // 10) if n in (3, 4) else LOWEST[n] for n in range(10)]
    for ends in (highest, lowest, highest):
        for name in sorted(
            range(10), key=lambda n: (n != 1) if ends is highest else (n == 1)
        ):  # what frees others first
            town.send(OWNER, params.functions.propose(name, ends[name]))
            clock.now += LOCK
            town.send(OWNER, params.functions.apply(name))
            values[name] = ends[name]
            assert params.functions.all().call() == values


def test_the_token_s_units(town: Town) -> None:
    """What DEPOSIT and FEE begin with sets their bounds; nothing, and more than can be kept, are no beginning."""
    found = artefact("Params")
    for name in ("DEPOSIT", "FEE"):
        for value in (0, 2**120):
            made = town.web3.eth.contract(abi=found.abi, bytecode=found.code).constructor(with_value(name, value))
            assert town.post(EVE, made)["status"] == 0
        for value in (1, 2**120 - 1):
            params = town.deploy("Params", with_value(name, value))
            which = NAMES.index(name)
            for wanted in (max(1, value // 10), 10 * value):
                town.send(OWNER, params.functions.propose(which, wanted))
            for wanted in (max(1, value // 10) - 1, 10 * value + 1):
                refused(town, OWNER, params.functions.propose(which, wanted), "bounds")


def test_seen_coming(town: Town, clock: Clock, params: Any) -> None:
    """A proposal is in force from LOCK on, when its owner says so, and once."""
    town.send(OWNER, params.functions.propose(3, 2000))
    since = town.web3.eth.get_block("latest")["timestamp"]
    assert params.functions.proposals(3).call() == (2000, since)
    clock.now += LOCK - 1
    refused(town, OWNER, params.functions.apply(3), "too early")
    refused(town, EVE, params.functions.apply(3), "not the owner")
    clock.now += 1
    refused(town, EVE, params.functions.apply(3), "not the owner")
    assert params.functions.all().call()[3] == 1000
    town.send(OWNER, params.functions.apply(3))
    assert params.functions.all().call() == with_value("DEPOSIT", 2000)
    refused(town, OWNER, params.functions.apply(3), "not proposed")
    (told,) = params.events.Applied().get_logs(from_block=0)
    assert dict(told["args"]) == {"name": 3, "value": 2000}
    (told,) = params.events.Proposed().get_logs(from_block=0)
    assert dict(told["args"]) == {"name": 3, "value": 2000}


def test_a_proposal_that_everybody_has_forgotten(town: Town, clock: Clock, params: Any) -> None:
    """Cannot be put into force out of the blue."""
    town.send(OWNER, params.functions.propose(3, 2000))
    clock.now += LOCK + GRACE
    assert town.why(OWNER, params.functions.apply(3)) == ""
    clock.now += 1
    refused(town, OWNER, params.functions.apply(3), "too late")


def test_changed_minds(town: Town, clock: Clock, params: Any) -> None:
    """Another proposal starts the wait again; a cancelled one is gone."""
    town.send(OWNER, params.functions.propose(3, 2000))
    clock.now += LOCK
    town.send(OWNER, params.functions.propose(3, 3000))
    refused(town, OWNER, params.functions.apply(3), "too early")
    refused(town, EVE, params.functions.cancel(3), "not the owner")
    refused(town, OWNER, params.functions.cancel(4), "not proposed")
    town.send(OWNER, params.functions.cancel(3))
    assert [each["args"]["name"] for each in params.events.Cancelled().get_logs(from_block=0)] == [3]
    clock.now += LOCK
    refused(town, OWNER, params.functions.apply(3), "not proposed")
    refused(town, OWNER, params.functions.cancel(3), "not proposed")


def test_a_bond_stays_longer_than_any_dispute(town: Town, clock: Clock, params: Any) -> None:
    """Whatever is changed: unbonding takes longer than 20 moves and the age of a receipt."""
    found = artefact("Params")
    least = 7 * DAY + 20 * HOUR
    made = town.web3.eth.contract(abi=found.abi, bytecode=found.code).constructor(with_value("UNBONDING", least))
    assert town.post(EVE, made)["status"] == 0
    town.deploy("Params", with_value("UNBONDING", least + 1))
    longest = (14 * DAY) // 20
    for name, wanted in ((0, longest), (1, 8 * DAY - 4 * HOUR), (2, 30 * DAY)):
        town.send(OWNER, params.functions.propose(name, wanted))
    clock.now += LOCK
    for name in (0, 1, 2):
        refused(town, OWNER, params.functions.apply(name), "unbonding")
    town.send(OWNER, params.functions.propose(0, longest - 1))
    clock.now += LOCK
    town.send(OWNER, params.functions.apply(0))
    assert params.functions.all().call()[0] == longest - 1


def test_owners(town: Town, clock: Clock, params: Any) -> None:
    """Only the owner proposes; it may hand over, or be given up: then nothing changes, not even what is proposed."""
    refused(town, EVE, params.functions.propose(3, 2000), "not the owner")
    town.send(OWNER, params.functions.propose(3, 2000))
    town.send(OWNER, params.functions.transfer_ownership(address(EVE)))
    refused(town, OWNER, params.functions.propose(4, 200), "not the owner")
    town.send(EVE, params.functions.propose(4, 200))
    town.send(EVE, params.functions.renounce_ownership())
    assert params.functions.owner().call() == NOBODY
    clock.now += LOCK
    for who in (OWNER, EVE):
        refused(town, who, params.functions.apply(3), "not the owner")
    assert tuple(params.functions.all().call()) == VALUES


def test_what_a_cheat_gets_back(params: Any) -> None:
    """As its own challenger and its own customer it loses a quarter of what is slashed, at whatever values."""
    assert HIGHEST[6] + HIGHEST[7] == 7500
    assert LOWEST[5] > 0


def test_no_such_name(town: Town, params: Any) -> None:
    """There are ten."""
    for call in (params.functions.propose(10, 1), params.functions.apply(10), params.functions.cancel(10)):
        assert town.post(OWNER, call)["status"] == 0
