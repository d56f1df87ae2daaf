"""The court: whoever is right keeps its money, to the last unit; every fraud and every race that is tried fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from tests.chain.courtroom import (
    ADA,
    AGE,
    CHALLENGER_WINS,
    COMMIT_AGE,
    DAY,
    DEAD,
    DEPOSIT,
    EVE,
    FEE,
    HELD,
    HOUR,
    INSURER,
    MOST_MOVES,
    NONE,
    PAYER,
    PROVER_WINS,
    PROVIDER,
    UNBONDING,
    VALUES,
    VOID,
    WINDOW,
    Courtroom,
    as_struct,
    as_tuple,
    board,
    commitment,
    deploy_own,
    exhibit,
    next_but_one,
    resigned,
    take,
)  # fmt: skip
from tests.chain.kit import NOBODY, PEOPLE, Clock, Town, address, anvil, config, embedded, town_of

from assay.chain.contracts import artefact
from assay.chain.ethereum import Web3
from assay.core.keys import Key, keccak256
from assay.core.receipt import Receipt

BOB = PEOPLE[6]
OTHER = PEOPLE[7]
MARGIN = 7 * DAY
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


@pytest.fixture(scope="module")
def node() -> Iterator[Web3]:
    """A real one."""
    with anvil() as web3:
        yield web3


@pytest.fixture(params=["embedded", pytest.param("anvil", marks=pytest.mark.slow)])
def town(request: pytest.FixtureRequest) -> Iterator[Town]:
    """A chain, of either kind."""
    if request.param == "anvil":
        yield Town(request.getfixturevalue("node"))
    else:
        chain = embedded()
        yield town_of(chain)
        chain.close()


@pytest.fixture
def room(town: Town) -> Courtroom:
    """A court of the test's own."""
    return Courtroom(town)


@pytest.fixture
def clock() -> Clock:
    """Of `exact`."""
    return Clock()


@pytest.fixture
def exact(clock: Clock) -> Iterator[Courtroom]:
    """A court on a chain whose time stands still unless it is told."""
    chain = embedded(clock=clock)
    yield Courtroom(town_of(chain))
    chain.close()


@pytest.fixture
def rogue(town: Town) -> Courtroom:
    """A court over a token that may do anything."""
    token = deploy_own(town, "Rogue")
    room = Courtroom(town, token)
    for each in PEOPLE:
        town.send(each, token.functions.mint(address(each), 10**24))
    return room


def behave(room: Courtroom, *, fee: int = 0, silent: bool = False, target: str = NOBODY, call: Any = None) -> None:
    """The token from now on."""
    data = b"" if call is None else Web3.to_bytes(hexstr=room.court.encode_abi(call.fn_name, call.args))
    room.town.send(EVE, room.token.functions.behave(fee, silent, target, data))


def play(room: Courtroom, number: int, *moves: int, sticks: int = 5, turn: int = 0, challenger: Key = ADA) -> None:
    """Both sides take so many sticks in turn."""
    for count in moves:
        who = challenger if turn else PROVIDER
        room.town.send(who, room.move(number, board(sticks, turn), take(count)))
        sticks -= count
        turn = 1 - turn


def test_places(room: Courtroom) -> None:
    """A court knows its vaults' maker, and is known by it; what it needs is there."""
    found = artefact("Court")
    args = [room.token.address, room.vaults.address, room.params.address, room.game.address, room.town.channels.address]
    assert [room.call[name]().call() for name in ("TOKEN", "VAULTS", "PARAMS", "GAME", "CHANNELS")] == args
    assert (room.call.MOST_MOVES().call(), room.call.DEAD().call()) == (MOST_MOVES, DEAD)
    made = room.town.web3.eth.contract(abi=found.abi, bytecode=found.code)
    assert room.town.post(EVE, made.constructor(*args))["status"] == 0  # its vaults are another court's
    for wrong in ({0: room.game.address}, *({place: address(EVE)} for place in (2, 3, 4))):
        vaults = room.town.deploy("Vault", room.token.address, next_but_one(room.town), HELD)
        changed = [wrong.get(place, {1: vaults.address}.get(place, each)) for place, each in enumerate(args)]
        assert room.town.post(PEOPLE[0], made.constructor(*changed))["status"] == 0


def test_bonds(room: Courtroom) -> None:
    """Anybody adds to anybody's; nothing is none."""
    before = room.balance(PAYER.address)
    room.bond(1000)
    room.bond(234)
    assert room.call.bonds(address(PROVIDER)).call() == 1234
    assert room.balance(room.court.address) == 1234
    assert room.balance(PAYER.address) == before - 1234
    room.refused(PAYER, room.call.bond(address(PROVIDER), 0), "nothing")
    room.refused(PAYER, room.call.bond(NOBODY, 1), "party")
    assert room.town.post(PAYER, room.call.bond(address(PROVIDER), 2**100))["status"] == 0


def test_bonds_of_bad_tokens(rogue: Courtroom) -> None:
    """A token that takes a fee, or moves nothing, makes no bond."""
    behave(rogue, fee=1)
    rogue.refused(PAYER, rogue.call.bond(address(PROVIDER), 1000), "not collected")
    behave(rogue, silent=True)
    assert rogue.town.post(PAYER, rogue.call.bond(address(PROVIDER), 1000))["status"] == 0
    behave(rogue)
    rogue.bond(1000)
    rogue.town.send(PROVIDER, rogue.call.unbond(1000))
    rogue.town.pass_time(UNBONDING)
    behave(rogue, silent=True)
    assert rogue.town.post(PROVIDER, rogue.call.withdraw())["status"] == 0
    assert rogue.call.bonds(address(PROVIDER)).call() == 1000


def test_a_bond_leaves(exact: Courtroom, clock: Clock) -> None:
    """After the wait, to the second; asking again replaces and starts it again; 0 stays."""
    room = exact
    room.bond(1000)
    room.refused(PROVIDER, room.call.withdraw(), "nothing")
    room.refused(PROVIDER, room.call.unbond(1001), "more than is bonded")
    room.refused(EVE, room.call.unbond(1), "more than is bonded")
    room.town.send(PROVIDER, room.call.unbond(1000))
    assert room.call.leaving(address(PROVIDER)).call() == (1000, room.now + UNBONDING)
    clock.now += UNBONDING - 1
    room.refused(PROVIDER, room.call.withdraw(), "too early")
    room.town.send(PROVIDER, room.call.unbond(400))
    clock.now += UNBONDING - 1
    room.refused(PROVIDER, room.call.withdraw(), "too early")
    clock.now += 1
    room.refused(EVE, room.call.withdraw(), "nothing")
    before = room.balance(PROVIDER.address)
    room.town.send(PROVIDER, room.call.withdraw())
    assert room.balance(PROVIDER.address) == before + 400
    assert room.call.bonds(address(PROVIDER)).call() == 600
    room.refused(PROVIDER, room.call.withdraw(), "nothing")
    room.town.send(PROVIDER, room.call.unbond(600))
    room.town.send(PROVIDER, room.call.unbond(0))
    clock.now += UNBONDING
    room.refused(PROVIDER, room.call.withdraw(), "nothing")
    told = [tuple(each["args"].values()) for each in room.court.events.Staked().get_logs(from_block=0)]
    ours = address(PROVIDER)
    assert told == [
        (ours, 1000, 0), (ours, 1000, 1000), (ours, 1000, 400), (ours, 600, 0), (ours, 600, 600), (ours, 600, 0)
    ]  # fmt: skip


def test_who_cheats_while_its_bond_leaves(room: Courtroom) -> None:
    """Unbond, cheat, withdraw: not while it is disputed, and what is slashed has not left."""
    room.bond(1000)
    room.town.send(PROVIDER, room.call.unbond(900))
    room.town.pass_time(UNBONDING)
    receipt = room.receipt()
    number = room.open(receipt)
    room.refused(PROVIDER, room.call.withdraw(), "disputed")
    room.town.pass_time(WINDOW + 1)
    room.refused(PROVIDER, room.call.withdraw(), "disputed")
    room.town.send(EVE, room.timeout(number))
    assert room.call.bonds(address(PROVIDER)).call() == 500
    before = room.balance(PROVIDER.address)
    room.town.send(PROVIDER, room.call.withdraw())
    assert room.balance(PROVIDER.address) == before + 500
    assert room.call.bonds(address(PROVIDER)).call() == 0


def test_demands_keep_bonds(room: Courtroom) -> None:
    """As disputes do."""
    room.bond(1000)
    room.town.send(PROVIDER, room.call.unbond(1000))
    room.town.pass_time(UNBONDING)
    data = b"commitments"
    receipt = room.receipt(evidence=keccak256(data))
    number = room.demand(receipt)
    room.refused(PROVIDER, room.call.withdraw(), "disputed")
    room.town.send(PROVIDER, room.produce(number, receipt, data))
    room.town.send(PROVIDER, room.call.withdraw())


def test_digests_are_those_of_python(room: Courtroom) -> None:
    """Of every member: signed by Python, the contract knows a receipt, and with any other value it is not signed."""
    room.bond(1000)
    receipt = room.receipt(
        request=keccak256(b"1"), channel=keccak256(b"2"), amount=2**128 - 1, sequence=2**64 - 1, prompt_count=2**32 - 1,
        output_count=2**32 - 2,
    )  # fmt: skip
    salt = room.commit(receipt)
    args = (receipt.signature, exhibit(5), salt, NONE)
    values = as_tuple(receipt)
    for place, value in enumerate(values):
        if place in (0, 1):
            continue
        changed = list(values)
        changed[place] = bytes(31) + b"\1" if isinstance(value, bytes) else address(EVE) if place == 14 else value - 1
        room.refused(ADA, room.call.open(tuple(changed), *args), "signature")
    room.town.send(ADA, room.call.open(values, *args))
    (opened,) = room.court.events.Opened().get_logs(from_block=room.town.web3.eth.block_number)
    assert opened["args"]["receipt"] == receipt.digest


def test_signatures(room: Courtroom) -> None:
    """Of another key, of the wrong size, or with a high s are none; nor is a receipt of another version known."""
    room.bond(1000)
    receipt = room.receipt()
    salt = room.commit(receipt)
    high = bytearray(receipt.signature)
    high[32:64] = (ORDER - int.from_bytes(high[32:64], "big")).to_bytes(32, "big")
    high[64] = 55 - high[64]
    theirs = resigned(receipt, EVE).signature
    for wrong in (theirs, bytes(high), receipt.signature[:64], b"", receipt.signature[:64] + b"\x1d"):
        call = room.call.open(as_tuple(receipt), wrong, exhibit(5), salt, NONE)
        room.refused(ADA, call, "signature")
        room.refused(ADA, room.call.demand(as_tuple(receipt), wrong, salt), "signature")
    nobody = replace(receipt, provider=NOBODY)
    room.refused(ADA, room.opening(replace(nobody, signature=receipt.signature[:64] + b"\x1d"), salt), "signature")
    values = (2, *as_tuple(receipt)[1:])
    room.refused(ADA, room.call.open(values, receipt.signature, exhibit(5), salt, NONE), "version")
    room.town.send(ADA, room.opening(receipt, salt))


def test_what_cannot_be_disputed(exact: Courtroom, clock: Clock) -> None:
    """Receipts of other levels, not issued yet, or too old; those of whom nothing can be taken from."""
    room = exact
    plain = room.receipt()
    room.refused(ADA, room.opening(plain, room.commit(plain)), "nothing at stake")
    room.refused(ADA, room.demanding(plain, room.commit(plain)), "nothing at stake")
    room.bond(1)
    for level in ("signed", "statistical", "pinned"):
        other = room.receipt(level=level)
        room.refused(ADA, room.demanding(other, room.commit(other)), "level")
        room.refused(ADA, room.opening(other, room.commit(other)), "not a dispute")
    early = room.receipt(issued=room.now + HOUR + COMMIT_AGE + 1)
    salt = room.commit(early)
    for call in (room.opening(early, salt), room.demanding(early, salt)):
        room.refused(ADA, call, "not issued yet")
    clock.now += 1
    room.town.send(ADA, room.opening(early, salt))
    late = room.receipt()
    clock.now += AGE - COMMIT_AGE
    salt = room.commit(late)
    room.town.send(ADA, room.opening(late, salt))
    salt = room.commit(late, wait=0)
    clock.now += COMMIT_AGE
    for call in (room.opening(late, salt), room.demanding(late, salt)):
        room.refused(ADA, call, "too old")


def test_what_the_game_does_not_take(room: Courtroom) -> None:
    """Is no dispute; nor is one that begins with nothing."""
    room.bond(1000)
    receipt = room.receipt()
    salt = room.commit(receipt)
    room.refused(ADA, room.opening(receipt, salt, sticks=0), "not a dispute")
    empty = room.call.open(as_tuple(receipt), receipt.signature, b"", salt, NONE)
    room.refused(ADA, empty, "no state")


def test_held_back_earnings_are_enough(room: Courtroom) -> None:
    """To dispute, without a bond, and before anybody made the vault."""
    room.earn(900)
    assert room.town.web3.eth.get_code(room.vault().address) == b""
    number = room.open(room.receipt())
    room.town.pass_time(WINDOW + 1)
    room.town.send(EVE, room.timeout(number))
    assert (room.credit(ADA), room.credit(INSURER), room.credit(DEAD)) == (DEPOSIT + 225, 450, 225)
    assert room.balance(room.court.address) == DEPOSIT + 900


def test_front_running(room: Courtroom) -> None:
    """Who sees an opening before it is in a block cannot come first: it has no commitment that is old enough, the
    other's is not its own, and making the other's again does not delay it."""
    room.bond(1000)
    receipt = room.receipt()
    salt = room.commit(receipt)
    room.refused(EVE, room.opening(receipt, salt), "not committed")
    room.refused(EVE, room.demanding(receipt, salt), "not committed")
    room.refused(EVE, room.call.commit(commitment(receipt, ADA, salt)), "committed already")
    room.town.send(EVE, room.call.commit(commitment(receipt, EVE, salt)))
    room.refused(EVE, room.opening(receipt, salt), "committed too late")
    room.refused(EVE, room.demanding(receipt, salt), "committed too late")
    other = room.receipt()
    room.refused(ADA, room.opening(other, salt), "not committed")
    room.town.send(ADA, room.opening(receipt, salt))
    room.refused(ADA, room.opening(receipt, salt), "not committed")


def test_commitments_to_the_second(exact: Courtroom, clock: Clock) -> None:
    """Good from a minute on for a day; then it can be made again."""
    room = exact
    room.bond(1000)
    receipt = room.receipt()
    salt = room.commit(receipt, wait=0)
    name = commitment(receipt, ADA, salt)
    since = room.now
    assert room.call.commitments(name).call() == since
    clock.now += COMMIT_AGE - 1
    room.refused(ADA, room.opening(receipt, salt), "committed too late")
    clock.now += 1
    assert room.town.why(ADA, room.opening(receipt, salt)) == ""
    clock.now = since + DAY
    assert room.town.why(ADA, room.opening(receipt, salt)) == ""
    room.refused(EVE, room.call.commit(name), "committed already")
    clock.now += 1
    room.refused(ADA, room.opening(receipt, salt), "not committed")
    room.town.send(EVE, room.call.commit(name))
    clock.now += COMMIT_AGE
    room.town.send(ADA, room.opening(receipt, salt))
    assert room.call.commitments(name).call() == 0


def test_the_honest_prover(room: Courtroom) -> None:
    """Keeps its bond and its earnings, and gets the deposit."""
    room.bond(1001)
    room.earn(77)
    before = room.balance(ADA.address)
    number = room.open(room.receipt(), sticks=5)
    assert room.balance(ADA.address) == before - DEPOSIT
    play(room, number, 2, 1, 2)
    assert room.credit(PROVIDER) == DEPOSIT
    assert (room.credit(ADA), room.credit(INSURER), room.credit(DEAD)) == (0, 0, 0)
    assert room.call.bonds(address(PROVIDER)).call() == 1001
    assert room.balance(room.vault().address) == 77
    assert room.call.running(address(PROVIDER)).call() == 0
    own = room.balance(PROVIDER.address)
    room.town.send(EVE, room.call.collect(address(PROVIDER)))
    assert room.balance(PROVIDER.address) == own + DEPOSIT
    assert room.balance(room.court.address) == 1001
    room.refused(EVE, room.call.collect(address(PROVIDER)), "nothing")
    room.refused(EVE, room.timeout(number), "no such dispute")


def test_the_cheat(room: Courtroom) -> None:
    """Loses half of its bond and all that is held back; every unit of it goes where it should."""
    room.bond(1001)
    room.earn(776)
    receipt = room.receipt()
    number = room.open(receipt, sticks=4)
    play(room, number, 1, 3, sticks=4)
    pot = 500 + 776
    assert room.call.bonds(address(PROVIDER)).call() == 501
    assert room.credit(ADA) == DEPOSIT + pot // 4
    assert room.credit(INSURER) == pot // 2
    assert room.credit(DEAD) == pot - pot // 4 - pot // 2
    assert room.balance(room.court.address) == 1001 + 776 + DEPOSIT
    assert room.balance(room.vault().address) == 0
    assert room.call.slashed(receipt.digest).call()
    for who in (address(ADA), address(INSURER), DEAD):
        before = room.balance(who)
        due = room.credit(who)
        room.town.send(EVE, room.call.collect(who))
        assert room.balance(who) == before + due
        assert room.credit(who) == 0
    assert room.balance(room.court.address) == 501


def test_what_division_leaves_over(room: Courtroom) -> None:
    """Is burned, of any amount."""
    for bond in (1, 2, 3, 7, 13, 101):
        room.bond(bond)
        room.earn(bond + 1)
        whole = room.call.bonds(address(PROVIDER)).call()
        before = [room.credit(who) for who in (ADA, INSURER, DEAD)]
        room.lose(room.receipt())
        got = [room.credit(who) - old for who, old in zip((ADA, INSURER, DEAD), before, strict=True)]
        pot = whole // 2 + bond + 1
        assert got == [DEPOSIT + pot // 4, pot // 2, pot - pot // 4 - pot // 2]
        assert room.call.bonds(address(PROVIDER)).call() == whole - whole // 2


def test_who_paid_for_it(room: Courtroom) -> None:
    """Gets what it paid back, but no more than its share; what is left of that is for the insurance."""
    town = room.town
    terms = town.terms(PAYER, PROVIDER, 1)
    channel = terms.channel(town.domain)
    for amount, got in ((0, 0), (120, 120), (250, 250), (251, 250), (2**128 - 1, 250)):
        room.bond(1000 - room.call.bonds(address(PROVIDER)).call())
        paid, insured = room.credit(PAYER), room.credit(INSURER)
        room.lose(room.receipt(channel=channel, amount=amount), config=config(terms))
        assert (room.credit(PAYER) - paid, room.credit(INSURER) - insured) == (got, 250 - got)
    room.bond(500)
    paid, insured = room.credit(PAYER), room.credit(INSURER)
    room.lose(room.receipt(channel=channel, amount=120))
    assert (room.credit(PAYER) - paid, room.credit(INSURER) - insured) == (0, 250)


def test_the_largest_amounts(exact: Courtroom, clock: Clock) -> None:
    """Deposit and fee as high as they can be, for the longest answer, and the largest receipt, which are kept in one
    word: neither changes the other, and each goes to whom it is due."""
    most = 2**120 - 1
    room = Courtroom(exact.town, values=(*VALUES[:3], most, most, 10_000, *VALUES[6:]))
    town = room.town
    town.send(PEOPLE[0], town.token.functions.mint(address(ADA), 2**128))
    change(room, {3: 10 * most, 4: 10 * most})
    terms = town.terms(PAYER, PROVIDER, 1)
    answer: dict[str, Any] = {"channel": terms.channel(town.domain), "amount": 2**128 - 1}
    room.bond(1000)
    number = room.open(room.receipt(**answer), config=config(terms))
    dispute = room.dispute(number)
    assert (dispute.deposit, dispute.money >> 128) == (10 * most, 2**128 - 1)
    clock.now += WINDOW + 1
    town.send(EVE, room.timeout(number))
    assert (room.credit(ADA), room.credit(PAYER), room.credit(INSURER)) == (10 * most + 250, 500, 0)
    town.send(ADA, room.call.collect(address(ADA)))
    room.earn(8)
    receipt = room.receipt(prompt_count=3800, output_count=200, evidence=keccak256(b"data"), **answer)
    town.send(PEOPLE[0], town.token.functions.mint(address(ADA), 2**128))
    number = room.demand(receipt)
    dispute = room.dispute(number)
    assert (dispute.deposit, dispute.money >> 128) == (160 * most, 0)
    town.send(BOB, room.produce(number, receipt, b"data"))
    assert (room.credit(ADA), room.credit(PROVIDER)) == (0, 160 * most)


def test_channels_of_others(room: Courtroom) -> None:
    """Only that of the receipt, in the court's token, names who paid."""
    town = room.town
    terms = town.terms(PAYER, PROVIDER, 1)
    elsewhere = replace(terms, token=town.channels.address.lower())
    room.bond(1000)
    receipt = room.receipt(channel=terms.channel(town.domain))
    salt = room.commit(receipt)
    for wrong in (town.terms(EVE, PROVIDER, 1), town.terms(PAYER, PROVIDER, 2)):
        room.refused(ADA, room.opening(receipt, salt, config=config(wrong)), "channel")
    other = room.receipt(channel=elsewhere.channel(town.domain))
    room.refused(ADA, room.opening(other, room.commit(other), config=config(elsewhere)), "channel")
    room.town.send(ADA, room.opening(receipt, salt, config=config(terms)))


def test_silence(exact: Courtroom, clock: Clock) -> None:
    """Loses, on either side, from the second after its time on; who moves has a whole window for each move."""
    room = exact
    room.bond(1000)
    number = room.open(room.receipt())
    for turn, sticks in ((0, 5), (1, 4)):
        clock.now += WINDOW
        room.refused(EVE, room.timeout(number), "too early")
        play(room, number, 1, sticks=sticks, turn=turn)
    clock.now += WINDOW + 1
    room.refused(PROVIDER, room.move(number, board(3, 0), take(1)), "too late")
    room.town.send(EVE, room.timeout(number))
    assert room.credit(ADA) == DEPOSIT + 125
    number = room.open(room.receipt())
    play(room, number, 1)
    clock.now += WINDOW + 1
    room.refused(ADA, room.move(number, board(4, 1), take(1)), "too late")
    room.town.send(EVE, room.timeout(number))
    assert room.credit(PROVIDER) == DEPOSIT
    assert room.credit(ADA) == DEPOSIT + 125


def test_moves_that_are_none(room: Courtroom) -> None:
    """Out of turn, by others, from another state, or not the game's: nothing happens."""
    room.bond(1000)
    one, two = room.open(room.receipt()), room.open(room.receipt(), OTHER)
    move = room.move
    for who in (ADA, EVE, OTHER):
        room.refused(who, move(one, board(5, 0), take(1)), "not your turn")
    for wrong in (board(4, 0), board(5, 1), b"", board(5, 0) + b"\0"):
        room.refused(PROVIDER, move(one, wrong, take(1)), "not how it stands")
    room.refused(PROVIDER, move(one, board(5, 0), take(4)), "take fewer")
    room.refused(PROVIDER, move(one, board(5, 0), take(10)), "turn")
    room.refused(PROVIDER, move(one, board(5, 0), take(11)), "turn")
    assert room.town.post(PROVIDER, move(one, board(5, 0), take(12)))["status"] == 0
    room.refused(PROVIDER, move(two + 1, board(5, 0), take(1)), "no such dispute")
    room.refused(PROVIDER, move(0, board(5, 0), take(1)), "no such dispute")
    play(room, one, 1)
    for who in (PROVIDER, EVE, OTHER):
        room.refused(who, move(one, board(4, 1), take(1)), "not your turn")
    room.refused(OTHER, move(two, board(5, 0), take(1)), "not your turn")
    room.refused(ADA, move(one, board(5, 0), take(1)), "not how it stands")
    play(room, one, 3, sticks=4, turn=1)
    room.refused(PROVIDER, room.produce(one, room.receipt(), b""), "not how it stands")


def calls_on(room: Courtroom, number: int, struct: Any, state: bytes, receipt: Receipt) -> list[tuple[Key, Any]]:
    """All that can be done to a dispute as somebody says that it is, and who may."""
    what, name = (number, struct), keccak256(state) if state else bytes(32)
    return [
        (PROVIDER, room.call.move(*what, state, take(0))), (ADA, room.call.move(*what, state, take(0))),
        (PROVIDER, room.call.prove(*what, state, b"")), (EVE, room.call.timeout(*what, name)),
        (PROVIDER, room.call.produce(*what, as_tuple(receipt), b"data")),
    ]  # fmt: skip


def refuse_all(room: Courtroom, calls: list[tuple[Key, Any]], why: str) -> None:
    """Each of them."""
    for who, call in calls:
        room.refused(who, call, why)


def test_what_is_not_so(room: Courtroom) -> None:
    """A dispute of which anything is changed, whoever would gain by that, is not the one that is open."""
    room.bond(1000)
    receipt = room.receipt(evidence=keccak256(b"data"))
    for number, state in ((room.open(receipt), board(5, 0)), (room.demand(receipt), b"")):
        now = as_struct(room.dispute(number))
        sides, terms, money = now[:3]
        gainful = [
            (sides + (1 << 160), *now[1:]), (sides - (WINDOW << 160), *now[1:]), (sides + (1 << 224), *now[1:]),
            (sides | 1 << 232, *now[1:]), (sides ^ int(ADA.address, 16) ^ int(EVE.address, 16), *now[1:]),
            (sides, terms ^ int(PROVIDER.address, 16) ^ int(EVE.address, 16), *now[2:]),
            (sides, terms + (5000 << 192), *now[2:]), (sides, terms, 2 * money, *now[3:]),
            (sides, terms, money + (1 << 128), *now[3:]), (*now[:3], address(EVE), now[4]), (*now[:4], bytes(32)),
        ]  # fmt: skip
        for wrong in gainful:
            refuse_all(room, calls_on(room, number, wrong, state, receipt), "not how it stands")
        for other in (board(4, 0), b"" if state else board(5, 0)):
            refuse_all(room, calls_on(room, number, now, other, receipt)[:4], "not how it stands")


def test_what_was_so(exact: Courtroom, clock: Clock) -> None:
    """An earlier state of a dispute is refused, though its hash was kept: by then nobody had lost, and now somebody may
    have. One that passes through the same game's state again is not the same."""
    room = exact
    room.bond(1000)
    receipt = room.receipt()
    number = room.open(receipt)
    old = []
    for turn in (0, 1, 0):
        old.append((as_struct(room.dispute(number)), board(5, turn)))
        clock.now += 10
        play(room, number, 0, turn=turn)
    clock.now += WINDOW + 1  # the provider's time in the first state is over, and so is the challenger's now
    for struct, state in old:
        refuse_all(room, calls_on(room, number, struct, state, receipt)[:4], "not how it stands")
    refuse_all(room, calls_on(room, number, as_struct(room.dispute(number)), board(5, 1), receipt)[:2], "too late")
    room.town.send(EVE, room.timeout(number))
    assert (room.credit(PROVIDER), room.credit(ADA)) == (DEPOSIT, 0)


def test_what_is_so_of_another(room: Courtroom) -> None:
    """What is right of one dispute is refused under another's number."""
    room.bond(1000)
    receipt = room.receipt(evidence=keccak256(b"data"))
    one, two, demand = room.open(receipt), room.open(receipt, sticks=4), room.demand(receipt)
    known = {one: board(5, 0), two: board(4, 0), demand: b""}
    for number in known:
        for other in known.keys() - {number}:
            calls = calls_on(room, number, as_struct(room.dispute(other)), known[other], receipt)
            refuse_all(room, calls, "not how it stands")


def test_what_is_over(room: Courtroom) -> None:
    """However a dispute ended: nothing can be done to its last state, nor to any before, nor to one of zeros."""
    room.bond(1000)
    data = b"data"
    receipts = [room.receipt(evidence=keccak256(data)) for _ in range(3)]
    won, proved, lost = (room.open(each, sticks=1) for each in receipts)
    demand = room.demand(receipts[0])
    known = {number: room.dispute(number) for number in (won, proved, lost, demand)}
    play(room, won, 1, sticks=1)
    room.town.send(PROVIDER, room.prove(proved, board(1, 0), b""))
    room.town.send(PROVIDER, room.produce(demand, receipts[0], data))
    room.town.pass_time(WINDOW + 1)
    room.town.send(EVE, room.timeout(lost))
    before = [room.credit(who) for who in (PROVIDER, ADA, INSURER, DEAD)]
    for number, was in known.items():
        assert room.call.disputes(number).call() == bytes(32)
        state = b"" if was.demanded else board(1, 0)
        for struct in (as_struct(was), as_struct(room.dispute(number)), (0, 0, 0, NOBODY, bytes(32))):
            refuse_all(room, calls_on(room, number, struct, state, receipts[0]), "no such dispute")
    assert [room.credit(who) for who in (PROVIDER, ADA, INSURER, DEAD)] == before


def test_who_copies_a_call(room: Courtroom) -> None:
    """A move or proof out of a transaction that is not yet in a block is good for nobody else, nor a second time; what
    somebody else does before fails it, and costs nobody a turn."""
    room.bond(1000)
    receipt = room.receipt()
    number = room.open(receipt, sticks=2)
    first = room.move(number, board(2, 0), take(0))
    for thief in (EVE, ADA):
        room.refused(thief, first, "not your turn")
    room.town.send(PROVIDER, first)
    room.refused(PROVIDER, first, "not how it stands")
    room.refused(EVE, room.timeout(number), "too early")
    play(room, number, 1, sticks=2, turn=1)
    proof = room.prove(number, board(1, 0), b"")
    for thief in (EVE, ADA):
        room.refused(thief, proof, "not your turn")
    room.town.send(PROVIDER, proof)
    room.refused(PROVIDER, proof, "no such dispute")
    assert room.credit(PROVIDER) == DEPOSIT


def test_proofs(room: Courtroom) -> None:
    """Are the prover's, in its turn and in time, and when the game takes them; they end the dispute at once."""
    room.bond(1000)
    number = room.open(room.receipt(), sticks=2)
    room.refused(PROVIDER, room.prove(number, board(2, 0), b""), "not the last stick")
    play(room, number, 1, sticks=2)
    room.refused(PROVIDER, room.prove(number, board(1, 1), b""), "not your turn")
    room.refused(ADA, room.prove(number, board(1, 1), b""), "not the last stick")
    play(room, number, 0, sticks=1, turn=1)
    room.refused(PROVIDER, room.prove(number, board(1, 1), b""), "not how it stands")
    room.town.send(PROVIDER, room.prove(number, board(1, 0), b""))
    assert (room.credit(PROVIDER), room.credit(ADA)) == (DEPOSIT, 0)
    assert room.call.running(address(PROVIDER)).call() == 0
    number = room.open(room.receipt(), sticks=1)
    room.town.pass_time(WINDOW + 1)
    room.refused(PROVIDER, room.prove(number, board(1, 0), b""), "too late")


def test_a_side_may_move_twice(room: Courtroom) -> None:
    """If the game says so."""
    room.bond(1000)
    number = room.open(room.receipt())
    for _ in range(2):
        room.town.send(PROVIDER, room.move(number, board(5, 0), take(9)))
    play(room, number, 2, 3)
    assert room.credit(ADA) == DEPOSIT + 125


def test_a_game_that_does_not_end(room: Courtroom) -> None:
    """Is over after so many moves, and was none: nobody wins."""
    room.bond(1000)
    number = room.open(room.receipt())
    for turn in range(MOST_MOVES - 1):
        play(room, number, 0, turn=turn % 2)
    assert room.call.running(address(PROVIDER)).call() == 1
    play(room, number, 0, turn=1)
    assert (room.credit(ADA), room.credit(PROVIDER)) == (DEPOSIT, 0)
    assert room.call.running(address(PROVIDER)).call() == 0
    assert room.call.bonds(address(PROVIDER)).call() == 1000
    number = room.open(room.receipt(), sticks=3)
    for turn in range(MOST_MOVES - 1):
        play(room, number, 0, sticks=3, turn=turn % 2)
    play(room, number, 3, sticks=3, turn=1)  # the last move wins all the same
    assert room.credit(ADA) == 2 * DEPOSIT + 125


def test_a_sham_dispute(room: Courtroom) -> None:
    """A cheat that disputes its own receipt, and wins, shields nothing: others dispute it too, and afterwards."""
    room.bond(1000)
    receipt = room.receipt()
    sham = room.open(receipt, EVE, sticks=1)
    real = room.open(receipt, ADA)
    play(room, sham, 1, sticks=1)
    assert room.credit(PROVIDER) == DEPOSIT
    assert room.call.running(address(PROVIDER)).call() == 1
    play(room, real, 2, 3)
    assert room.credit(ADA) == DEPOSIT + 125
    receipt = room.receipt()
    sham = room.open(receipt, EVE, sticks=1)
    play(room, sham, 1, sticks=1)
    real = room.open(receipt, ADA)
    play(room, real, 2, 3)
    assert room.credit(ADA) == 2 * DEPOSIT + 125 + 62


def test_one_receipt_is_slashed_once(room: Courtroom) -> None:
    """Other disputes over it are void, at once or however they go on, and so are demands; commitments to it are worth
    nothing."""
    room.bond(1000)
    receipt = room.receipt()
    first, second, third = room.open(receipt, ADA), room.open(receipt, BOB), room.open(receipt, OTHER)
    fourth, fifth = room.open(receipt, EVE, sticks=2), room.open(receipt, OTHER, sticks=2)
    demand = room.demand(receipt, EVE)
    salt = room.commit(receipt, EVE)
    play(room, third, 1, sticks=5)
    play(room, fourth, 1, sticks=2)
    play(room, fifth, 0, sticks=2)
    play(room, second, 2, sticks=5)
    room.town.send(BOB, room.move(second, board(3, 1), take(3)))
    assert room.credit(BOB) == DEPOSIT + 125
    room.refused(PROVIDER, room.produce(demand, receipt, b""), "settled already")
    room.refused(EVE, room.opening(receipt, salt), "slashed already")
    room.refused(EVE, room.demanding(receipt, salt), "slashed already")
    assert room.call.running(address(PROVIDER)).call() == 5
    play(
        room, fourth, 1, sticks=1, turn=1, challenger=EVE
    )  # the challenger wins this one, and then the provider that one
    play(room, fifth, 0, 1, 0, sticks=2, turn=1, challenger=OTHER)
    room.town.send(PROVIDER, room.prove(fifth, board(1, 0), b""))
    assert (room.credit(OTHER), room.credit(EVE)) == (DEPOSIT, DEPOSIT)
    for number in (first, third, demand):
        room.town.send(PROVIDER, room.timeout(number))
    assert (room.credit(ADA), room.credit(OTHER), room.credit(EVE)) == (DEPOSIT, 2 * DEPOSIT, DEPOSIT + FEE)
    assert room.credit(PROVIDER) == 0
    assert room.call.bonds(address(PROVIDER)).call() == 500
    assert room.call.running(address(PROVIDER)).call() == 0


def test_disputes_over_different_receipts(room: Courtroom) -> None:
    """Each costs half of what is left."""
    room.bond(1000)
    room.earn(10)
    one, two = room.open(room.receipt(), ADA), room.open(room.receipt(), BOB)
    play(room, one, 2, 3)
    room.earn(20)
    room.town.send(PROVIDER, room.move(two, board(5, 0), take(2)))
    room.town.send(BOB, room.move(two, board(3, 1), take(3)))
    assert room.credit(ADA) == DEPOSIT + 510 // 4
    assert room.credit(BOB) == DEPOSIT + 270 // 4
    assert room.call.bonds(address(PROVIDER)).call() == 250


def test_data_on_demand(room: Courtroom) -> None:
    """Who produces them gets the deposit for its provider, once; then they are demanded no more."""
    room.bond(1000)
    data = bytes(range(256)) * 3
    receipt = room.receipt(evidence=keccak256(data))
    before = room.balance(ADA.address)
    number = room.demand(receipt, ADA)
    assert room.balance(ADA.address) == before - FEE
    room.refused(BOB, room.demanding(receipt, room.commit(receipt, BOB)), "demanded already")
    produce = room.produce
    room.refused(PROVIDER, produce(number, receipt, data[:-1]), "not the data")
    other = room.receipt(evidence=keccak256(b""))
    room.refused(PROVIDER, produce(number, other, b""), "not demanded")
    room.refused(PROVIDER, produce(number + 2, receipt, data), "no such dispute")
    for call in (room.move(number, b"", b""), room.prove(number, b"", b"")):
        room.refused(PROVIDER, call, "not how it stands")
    room.town.send(OTHER, produce(number, receipt, data))
    assert (room.credit(PROVIDER), room.credit(ADA), room.credit(OTHER)) == (FEE, 0, 0)
    room.refused(PROVIDER, produce(number, receipt, data), "no such dispute")
    room.refused(ADA, room.demanding(receipt, room.commit(receipt)), "produced already")
    assert room.call.bonds(address(PROVIDER)).call() == 1000
    number = room.open(receipt)
    room.refused(PROVIDER, produce(number, receipt, data), "not how it stands")
    play(room, number, 2, 3)
    assert room.credit(ADA) == DEPOSIT + 125


def test_data_that_are_not_produced(exact: Courtroom, clock: Clock) -> None:
    """In time: slashed."""
    room = exact
    room.bond(1000)
    receipt = room.receipt(evidence=keccak256(b"data"))
    number = room.demand(receipt)
    clock.now += WINDOW
    room.refused(EVE, room.timeout(number), "too early")
    assert room.town.why(PROVIDER, room.produce(number, receipt, b"data")) == ""
    clock.now += 1
    room.refused(PROVIDER, room.produce(number, receipt, b"data"), "too late")
    room.town.send(EVE, room.timeout(number))
    assert (room.credit(ADA), room.credit(INSURER), room.credit(DEAD)) == (FEE + 125, 250, 125)


def test_a_long_answer(room: Courtroom) -> None:
    """The commitments of 4,000 passes can be produced in one transaction; more are not demanded."""
    room.bond(1000)
    data = keccak256(b"commitment") * 4000
    longer = room.receipt(prompt_count=3801, output_count=200)
    room.refused(ADA, room.demanding(longer, room.commit(longer)), "too long")
    absurd = room.receipt(prompt_count=2**32 - 1, output_count=2**32 - 1)
    room.refused(ADA, room.demanding(absurd, room.commit(absurd)), "too long")
    receipt = room.receipt(prompt_count=3800, output_count=200, evidence=keccak256(data))
    number = room.demand(receipt)
    room.town.send(PROVIDER, room.produce(number, receipt, data))
    assert room.credit(PROVIDER) == 16 * FEE


@pytest.mark.parametrize("counts", [{"output_count": 0}, {"prompt_count": 0}])
def test_no_data_of_no_answer(room: Courtroom, counts: dict[str, int]) -> None:
    """Whoever hangs up before the first token gets an honest receipt, for which there is nothing to produce."""
    room.bond(1000)
    receipt = room.receipt(**counts)
    room.refused(ADA, room.demanding(receipt, room.commit(receipt)), "no answer")


def test_nobody_moves_behind_a_contract(room: Courtroom) -> None:
    """Moves and data stand in a transaction's own data, or whoever has to read them could not."""
    room.bond(1000)
    relay = deploy_own(room.town, "Relay").functions.relay
    data = b"data"
    receipt = room.receipt(evidence=keccak256(data))
    number = room.demand(receipt)
    hidden = room.produce(number, receipt, data)._encode_transaction_data()
    room.refused(EVE, relay(room.court.address, hidden), "not by a contract")
    number = room.open(receipt)
    for call in (room.move(number, board(5, 0), take(1)), room.prove(number, board(5, 0), b"")):
        hidden = call._encode_transaction_data()
        room.refused(PROVIDER, relay(room.court.address, hidden), "not by a contract")


def test_contradiction(room: Courtroom) -> None:
    """Two receipts under one number are slashed at once, and once, whichever two, at any level."""
    room.bond(2000)
    room.earn(100)
    one = room.receipt(level="signed")
    two, three = resigned(one, PROVIDER, amount=701), resigned(one, PROVIDER, level="exact")

    def show(a: Any, b: Any) -> Any:
        return room.call.equivocate(as_tuple(a), a.signature, as_tuple(b), b.signature)

    room.refused(EVE, show(one, one), "no contradiction")
    room.refused(EVE, show(one, resigned(two, PROVIDER, sequence=one.sequence + 1)), "no contradiction")
    room.refused(EVE, show(one, resigned(two, EVE, provider=EVE.address)), "no contradiction")
    room.refused(EVE, show(one, resigned(two, EVE)), "signature")
    room.refused(EVE, show(resigned(two, EVE), one), "signature")
    room.town.send(ADA, show(one, two))
    assert (room.credit(ADA), room.credit(INSURER), room.credit(DEAD)) == (275, 550, 275)
    for again in (show(one, two), show(two, one), show(one, three), show(three, two)):
        room.refused(EVE, again, "slashed already")
    four = room.receipt()
    room.town.send(EVE, show(four, resigned(four, PROVIDER, amount=1)))
    assert room.call.bonds(address(PROVIDER)).call() == 500
    assert room.call.equivocated(address(PROVIDER), four.sequence).call()
    theirs = room.receipt(OTHER)
    room.refused(EVE, show(theirs, resigned(theirs, OTHER, amount=1)), "nothing at stake")
    room.bond(8, OTHER)
    for left in (4, 2):  # so little uses up no number
        room.town.send(EVE, show(theirs, resigned(theirs, OTHER, amount=1)))
        assert room.call.bonds(address(OTHER)).call() == left


def test_earnings_stay_while_there_are_disputes(exact: Courtroom, clock: Clock) -> None:
    """A vault is frozen longer than the longest dispute, until the last one ends; one that was not there is made."""
    room = exact
    room.earn(100)
    receipt = room.receipt()
    one = room.open(receipt)
    vault = room.vault().functions
    until = room.now + MOST_MOVES * WINDOW + MARGIN
    assert vault.frozenUntil().call() == until
    clock.now += DAY
    two = room.open(receipt, BOB)  # the first one's deadline is long over, and nobody said so
    three = room.demand(room.receipt(evidence=keccak256(b"data")), EVE)
    assert vault.frozenUntil().call() == room.now + MOST_MOVES * WINDOW + MARGIN
    room.town.send(OTHER, vault.collect())
    clock.now += 2 * HELD
    room.refused(PROVIDER, vault.release(), "frozen")
    room.town.send(EVE, room.timeout(one))
    assert room.balance(room.vault().address) == 0
    room.earn(30)
    for number in (two, three):
        assert vault.frozenUntil().call() > room.now
        room.town.send(EVE, room.timeout(number))
    assert vault.frozenUntil().call() == 0
    assert room.credit(EVE) == FEE + 7
    assert room.balance(room.vault().address) == 0


def change(room: Courtroom, values: dict[int, int]) -> None:
    """By the owner of the parameters, when the lock is over."""
    for name, value in values.items():
        room.town.send(PEOPLE[0], room.params.functions.propose(name, value))
    room.town.pass_time(7 * DAY)
    for name in values:
        room.town.send(PEOPLE[0], room.params.functions.apply(name))


def test_terms_are_those_of_the_beginning(exact: Courtroom, clock: Clock) -> None:
    """Whatever changes while a dispute is open; the next one has the new ones, and thaws nothing too early."""
    room = exact
    change(room, {0: 12 * HOUR})
    room.bond(1000)
    room.earn(1)
    values = {0: 600, 1: 10 * DAY, 2: DAY, 3: 500, 4: 600, 5: 1000, 6: 4000, 7: 1000, 8: 120}
    for name, value in values.items():
        room.town.send(PEOPLE[0], room.params.functions.propose(name, value))
    clock.now += 7 * DAY - 60
    number = room.open(room.receipt())
    until = room.vault().functions.frozenUntil().call()
    assert until == room.now + MOST_MOVES * 12 * HOUR + MARGIN
    clock.now += 60
    for name in values:
        room.town.send(PEOPLE[0], room.params.functions.apply(name))
    clock.now += 6 * HOUR
    play(room, number, 2)
    receipt = room.receipt()
    salt = room.commit(receipt, OTHER)
    room.refused(OTHER, room.opening(receipt, salt), "committed too late")
    clock.now += 60
    before = room.balance(OTHER.address)
    room.town.send(OTHER, room.opening(receipt, salt))
    assert room.balance(OTHER.address) == before - 500
    assert room.vault().functions.frozenUntil().call() == until
    clock.now += 6 * HOUR
    play(room, number, 3, sticks=3, turn=1)
    assert (room.credit(ADA), room.credit(INSURER), room.credit(DEAD)) == (DEPOSIT + 125, 250, 126)
    room.town.send(EVE, room.timeout(number + 1))
    assert room.credit(OTHER) == 500 + 5
    assert room.credit(INSURER) == 250 + 20
    assert room.credit(DEAD) == 126 + 25
    room.town.send(PROVIDER, room.call.unbond(450))
    assert room.call.leaving(address(PROVIDER)).call() == (450, room.now + 10 * DAY)
    old = room.receipt(issued=room.now - DAY)
    room.refused(OTHER, room.opening(old, room.commit(old, OTHER, wait=120)), "too old")
    receipt = room.receipt()
    before = room.balance(OTHER.address)
    room.town.send(OTHER, room.demanding(receipt, room.commit(receipt, OTHER, wait=120)))
    assert room.balance(OTHER.address) == before - 600


def test_the_pool_that_is_named(exact: Courtroom) -> None:
    """At the time gets what is for it."""
    change(exact, {9: int(OTHER.address, 16)})
    exact.bond(1000)
    exact.lose(exact.receipt())
    assert (exact.credit(INSURER), exact.credit(OTHER)) == (0, 250)


def test_a_token_that_refuses_people(rogue: Courtroom) -> None:
    """Challenger, payer, pool, provider and DEAD refused: all disputes end, and what others are due is paid."""
    room = rogue
    town = room.town
    terms = replace(town.terms(PAYER, PROVIDER, 1), token=room.token.address.lower())
    room.bond(1000)
    room.earn(200)
    number = room.open(room.receipt(channel=terms.channel(town.domain), amount=100), config=config(terms))
    everybody = [address(each) for each in (PAYER, ADA, INSURER, PROVIDER)] + [DEAD]
    for who in everybody:
        town.send(EVE, room.token.functions.refuse(who, True))
    play(room, number, 2, 3)
    due = [100, DEPOSIT + 175, 250, 0, 175]
    assert [room.credit(who) for who in everybody] == due
    for who in everybody[:3]:
        room.refused(EVE, room.call.collect(who), "refused")
    town.send(EVE, room.token.functions.refuse(address(ADA), False))
    before = room.balance(ADA.address)
    town.send(EVE, room.call.collect(address(ADA)))
    assert room.balance(ADA.address) == before + due[1]
    assert [room.credit(who) for who in everybody] == [100, 0, 250, 0, 175]


def test_a_token_that_refuses_a_vault(rogue: Courtroom) -> None:
    """What it holds cannot be moved, by anybody; the bond is slashed all the same."""
    rogue.bond(1000)
    rogue.earn(200)
    number = rogue.open(rogue.receipt())
    rogue.town.send(EVE, rogue.token.functions.refuse(rogue.vault().address, True))
    play(rogue, number, 2, 3)
    assert (rogue.credit(ADA), rogue.credit(INSURER), rogue.credit(DEAD)) == (DEPOSIT + 125, 250, 125)
    assert rogue.call.running(address(PROVIDER)).call() == 0


def test_calls_from_within(rogue: Courtroom) -> None:
    """While tokens move, nothing of the court can be called, so nothing is counted twice."""
    room = rogue
    room.bond(1000)
    room.town.send(PROVIDER, room.call.unbond(1000))
    receipt = room.receipt()
    number, demand = room.open(receipt), room.demand(room.receipt(), BOB)
    play(room, number, 1)
    salt, other = room.commit(receipt), room.receipt()
    two = resigned(other, PROVIDER, amount=1)
    inner = [
        room.call.bond(address(PROVIDER), 1), room.call.unbond(0), room.call.withdraw(),
        room.call.collect(address(ADA)), room.call.commit(bytes(32)), room.opening(receipt, salt),
        room.demanding(receipt, salt), room.produce(demand, receipt, b""),
        room.move(number, board(4, 1), take(1)), room.prove(number, board(4, 1), b""), room.timeout(number),
        room.call.equivocate(as_tuple(other), other.signature, as_tuple(two), two.signature),
    ]  # fmt: skip
    outer = room.call.bond(address(PROVIDER), 5)
    for call in inner:
        behave(room, target=room.court.address, call=call)
        assert room.town.post(PAYER, outer)["status"] == 0
    mint = Web3.to_bytes(hexstr=room.token.encode_abi("mint", [address(EVE), 1]))
    room.town.send(EVE, room.token.functions.behave(0, False, room.token.address, mint))
    room.town.send(PAYER, outer)  # it is not the calling that fails


def test_locked_as_a_whole(rogue: Courtroom) -> None:
    """Whatever moves tokens is locked while it does: a harmless call from within fails in each."""
    room = rogue
    room.bond(1000)
    room.town.send(PROVIDER, room.call.unbond(100))
    room.town.pass_time(UNBONDING)
    room.lose(room.receipt())
    receipt, other = room.receipt(), room.receipt()
    salts = room.commit(receipt), room.commit(other)
    outer = [
        (PAYER, room.call.bond(address(PROVIDER), 5)),
        (PROVIDER, room.call.withdraw()),
        (ADA, room.call.collect(address(ADA))),
        (ADA, room.opening(receipt, salts[0])),
        (ADA, room.demanding(other, salts[1])),
    ]
    for inner in (room.call.commit(bytes(31) + b"\1"), room.call.unbond(0)):
        behave(room, target=room.court.address, call=inner)
        for who, call in outer:
            assert room.town.post(who, call)["status"] == 0
    behave(room)
    for who, call in outer:
        room.town.send(who, call)


def test_what_is_told(exact: Courtroom, clock: Clock) -> None:
    """Events say what a watcher has to know to move: the state, whose turn it is, and until when."""
    room = exact
    town = room.town
    terms = town.terms(PAYER, PROVIDER, 1)
    room.bond(1000)
    room.earn(10)
    receipt = room.receipt(channel=terms.channel(town.domain), amount=100)
    number = room.open(receipt, config=config(terms))
    opened = room.now
    clock.now += 100
    play(room, number, 2)
    moved = room.now
    clock.now += 100
    play(room, number, 3, sticks=3, turn=1)
    ended = room.now
    demand = room.demand(room.receipt())
    clock.now += WINDOW + 1
    room.town.send(EVE, room.timeout(demand))
    events = room.court.events

    def told(event: Any) -> list[tuple[Any, ...]]:
        found = (each["args"].values() for each in event().get_logs(from_block=0))
        return [tuple(tuple(v.values()) if isinstance(v, Mapping) else v for v in values) for values in found]

    def sides(deadline: int, moves: int, turn: int) -> int:
        return int(ADA.address, 16) | deadline << 160 | moves << 224 | turn << 232

    shares = int(PROVIDER.address, 16) | WINDOW << 160 | 5000 << 192 | 5000 << 208 | 2500 << 224
    first, second = told(events.Opened)
    begun = (sides(opened + WINDOW, 0, 0), shares, DEPOSIT | 100 << 128, address(PAYER), receipt.digest)
    assert first == (number, address(PROVIDER), receipt.digest, begun, board(5, 0))
    assert (second[0], second[3][2:4], second[4]) == (demand, (FEE, NOBODY), b"")
    assert told(events.Moved) == [
        (number, sides(moved + WINDOW, 1, 1), board(3, 1)),
        (number, sides(ended + WINDOW, 2, CHALLENGER_WINS), board(0, 1)),
    ]
    assert told(events.Ended) == [(number, CHALLENGER_WINS), (demand, CHALLENGER_WINS)]
    pot = 500 + 10
    assert told(events.Slashed) == [
        (address(PROVIDER), address(ADA), address(PAYER), 500, 10, 100, pot // 4, pot // 2 - 100),
        (address(PROVIDER), address(ADA), NOBODY, 250, 0, 0, 62, 125),
    ]


def test_how_disputes_end(room: Courtroom) -> None:
    """Is told, of each kind."""
    room.bond(1000)
    block = room.town.web3.eth.block_number + 1
    receipt = room.receipt()
    one, two = room.open(receipt, sticks=1), room.open(receipt, sticks=2)
    three = room.open(receipt)
    play(room, one, 1, sticks=1)
    play(room, two, 1, 1, sticks=2)
    room.town.send(EVE, room.timeout(three))
    told = [tuple(each["args"].values()) for each in room.court.events.Ended().get_logs(from_block=block)]
    assert told == [(one, PROVER_WINS), (two, CHALLENGER_WINS), (three, VOID)]
