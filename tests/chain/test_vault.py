"""Vaults: earnings wait for the challenge window, are the court's until then, and nobody can delay them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.chain.kit import NOBODY, PEOPLE, Clock, Town, address, embedded, runs, town_of

from assay.chain.contracts import artefact

PROVIDER, COURT, EVE, PAYER = PEOPLE[1:5]
WINDOW = 16_000


class Place:
    """A maker of vaults, and one provider's."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.chain = embedded(clock=self.clock)
        self.town: Town = town_of(self.chain)
        self.maker = self.town.deploy("Vault", self.town.token.address, address(COURT), WINDOW)
        where = self.maker.functions.vaultOf(address(PROVIDER)).call()
        self.town.send(EVE, self.maker.functions.open(address(PROVIDER)))
        self.vault = self.town.web3.eth.contract(address=where, abi=artefact("Vault").abi)

    def pay(self, amount: int) -> None:
        """As a channel does."""
        self.town.send(PAYER, self.town.token.functions.transfer(self.vault.address, amount))

    def refused(self, who: Any, call: Any, why: str) -> None:
        """The call fails for this reason."""
        assert why in self.town.why(who, call)
        assert self.town.post(who, call)["status"] == 0


@pytest.fixture
def place() -> Place:
    """A chain of the test's own."""
    return Place()


def test_a_vault_is_where_it_was_said_to_be(place: Place) -> None:
    """Once, for one provider; the maker itself is nobody's, and a vault makes none."""
    assert place.vault.functions.provider().call() == address(PROVIDER)
    assert place.vault.functions.TOKEN().call() == place.town.token.address
    assert place.town.post(EVE, place.maker.functions.open(address(PROVIDER)))["status"] == 0
    place.refused(EVE, place.vault.functions.open(address(EVE)), "not a maker")
    for each in (place.vault, place.maker):
        place.refused(EVE, each.functions.begin(address(EVE)), "not the maker")
    place.refused(EVE, place.maker.functions.open(NOBODY), "party")
    other = place.maker.functions.vaultOf(address(EVE)).call()
    assert place.chain.code(other.lower()) == b""
    place.town.send(PROVIDER, place.maker.functions.open(address(EVE)))
    assert place.chain.code(other.lower())


def test_a_channel_pays_into_a_vault(place: Place) -> None:
    """With `receiver` the vault and its authorizer the provider's key; anybody settles."""
    town = place.town
    terms = replace(town.terms(PAYER, PROVIDER), receiver=place.vault.address.lower())
    town.deposit(PAYER, terms, 1000)
    town.send(PROVIDER, town.channels.functions.claim([town.claim_of(PAYER, terms, 600)]))
    town.send(EVE, town.channels.functions.settle(place.vault.address, town.token.address))
    before = town.balance(PROVIDER.address)
    place.refused(PROVIDER, place.vault.functions.release(), "nothing is ripe")
    town.send(EVE, place.vault.functions.collect())
    place.clock.now += WINDOW + WINDOW // 16 - 1
    place.refused(PROVIDER, place.vault.functions.release(), "nothing is ripe")
    place.clock.now += 1
    assert place.vault.functions.ripe().call() == 600
    town.send(EVE, place.vault.functions.release())
    assert town.balance(PROVIDER.address) == before + 600


def test_dust_delays_nothing(place: Place) -> None:
    """Somebody sends a wei every few minutes: what was there before is released as if he had not."""
    place.pay(1000)
    place.town.send(EVE, place.vault.functions.collect())
    for _ in range(60):
        place.clock.now += (WINDOW + WINDOW // 16) // 60 + 1
        place.pay(1)
        place.town.send(EVE, place.vault.functions.collect())
    assert place.vault.functions.ripe().call() >= 1000
    before = place.town.balance(PROVIDER.address)
    place.town.send(PROVIDER, place.vault.functions.release())
    assert place.town.balance(PROVIDER.address) >= before + 1000


def test_a_vault_that_nobody_empties(place: Place) -> None:
    """For a year of payments nothing gets stuck, for provider or court."""
    for _ in range(40):
        place.clock.now += WINDOW
        place.pay(10)
        place.town.send(EVE, place.vault.functions.collect())
    place.clock.now += 2 * WINDOW
    assert place.vault.functions.ripe().call() == 400
    before = place.town.balance(PROVIDER.address)
    place.town.send(PROVIDER, place.vault.functions.release())
    assert place.town.balance(PROVIDER.address) == before + 400
    assert place.vault.functions.held().call() == 0
    place.pay(5)
    place.refused(PROVIDER, place.vault.functions.release(), "nothing is ripe")
    for _ in range(20):
        place.clock.now += WINDOW
        place.pay(1)
        place.town.send(EVE, place.vault.functions.collect())
    before = place.town.balance(COURT.address)
    place.town.send(COURT, place.vault.functions.forfeit())
    assert place.town.balance(COURT.address) == before + 25
    place.clock.now += 2 * WINDOW
    place.pay(7)
    place.refused(PROVIDER, place.vault.functions.release(), "nothing is ripe")
    assert place.vault.functions.ripe().call() == 0


def test_many_payments_at_once(place: Place) -> None:
    """More than there are buckets, within seconds: none is released before its time, and all are then."""
    for n in range(40):
        place.clock.now += 2
        place.pay(10)
        place.town.send(EVE, place.vault.functions.collect())
        if n % 10 == 9:
            place.refused(PROVIDER, place.vault.functions.release(), "nothing is ripe")
    place.clock.now += WINDOW - 100
    place.refused(PROVIDER, place.vault.functions.release(), "nothing is ripe")
    place.clock.now += WINDOW // 16 + 200
    assert place.vault.functions.ripe().call() == 400


def test_each_payment_has_its_own_window(place: Place) -> None:
    """What comes in half a window later is released half a window later."""
    place.pay(100)
    place.town.send(EVE, place.vault.functions.collect())
    place.clock.now += WINDOW // 2
    place.pay(30)
    place.town.send(EVE, place.vault.functions.collect())
    place.clock.now += WINDOW // 2 + WINDOW // 16
    assert place.vault.functions.ripe().call() == 100
    place.town.send(PROVIDER, place.vault.functions.release())
    place.refused(PROVIDER, place.vault.functions.release(), "nothing is ripe")
    place.clock.now += WINDOW // 2
    assert place.vault.functions.ripe().call() == 30


def test_what_is_told(place: Place) -> None:
    """Events say what was held and until when, released, frozen and forfeited; nothing is told of nothing."""
    events, start = place.vault.events, place.chain.head.timestamp
    (opened,) = place.maker.events.Opened().get_logs(from_block=0)
    assert (opened["args"]["provider"], opened["args"]["vault"]) == (address(PROVIDER), place.vault.address)
    place.pay(40)
    for _ in range(2):
        place.town.send(EVE, place.vault.functions.collect())
    (held,) = events.Held().get_logs(from_block=0)
    assert dict(held["args"]) == {"amount": 40, "until": start + WINDOW + WINDOW // 16}
    place.clock.now += 2 * WINDOW
    place.town.send(EVE, place.vault.functions.release())
    place.pay(2)
    place.town.send(COURT, place.vault.functions.freeze(start))
    place.town.send(COURT, place.vault.functions.forfeit())
    assert [each["args"]["amount"] for each in events.Released().get_logs(from_block=0)] == [40]
    assert [each["args"]["until"] for each in events.Frozen().get_logs(from_block=0)] == [start]
    (forfeited,) = events.Forfeited().get_logs(from_block=0)
    assert dict(forfeited["args"]) == {"to": address(COURT), "amount": 2}


def test_a_dispute(place: Place) -> None:
    """Freezes what is ripe too; the court takes all of it, or lets go."""
    place.pay(500)
    place.town.send(EVE, place.vault.functions.collect())
    place.clock.now += 2 * WINDOW
    place.pay(70)
    now = place.chain.head.timestamp
    place.refused(PROVIDER, place.vault.functions.freeze(0), "not the court")
    latest = max(int(place.clock()), now) + 60 * 86_400
    place.refused(COURT, place.vault.functions.freeze(latest + 1), "too long")
    place.town.send(COURT, place.vault.functions.freeze(latest))
    place.refused(PROVIDER, place.vault.functions.release(), "frozen")
    assert place.vault.functions.ripe().call() == 0
    place.town.send(COURT, place.vault.functions.freeze(int(place.clock()) + 10))
    place.clock.now += 10
    assert place.town.why(PROVIDER, place.vault.functions.release()) == ""
    place.town.send(COURT, place.vault.functions.freeze(0))
    assert place.vault.functions.ripe().call() == 500
    place.town.send(COURT, place.vault.functions.freeze(now + 50 * 86_400))
    place.refused(PROVIDER, place.vault.functions.forfeit(), "not the court")
    before = place.town.balance(COURT.address)
    place.town.send(COURT, place.vault.functions.forfeit())
    assert place.town.balance(COURT.address) == before + 570
    assert place.vault.functions.held().call() == 0
    place.clock.now += 60 * 86_400
    place.refused(PROVIDER, place.vault.functions.release(), "nothing is ripe")


def test_makers_that_nobody_should_have(place: Place) -> None:
    """Without a court, a token or a sensible window."""
    found, token = artefact("Vault"), place.town.token.address
    for args in ((NOBODY, token, WINDOW), (token, NOBODY, WINDOW), (token, token, 3599), (token, token, 31 * 86_400)):
        made = place.town.web3.eth.contract(abi=found.abi, bytecode=found.code).constructor(*args)
        assert place.town.post(EVE, made)["status"] == 0
    for window in (3600, 30 * 86_400):
        place.town.deploy("Vault", token, address(COURT), window)


class VaultMachine(RuleBasedStateMachine):
    """Payments, releases, freezes and forfeits in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.place: Place | None = None
        self.paid: list[tuple[int, int]] = []
        """What came in, and when it was collected."""
        self.waiting = self.released = self.forfeited = self.frozen = 0

    @initialize()
    def begin(self) -> None:
        """A vault."""
        self.place = Place()
        self.before = {each.address: self.place.town.balance(each.address) for each in (PROVIDER, COURT)}

    def here(self) -> Place:
        """It is there when rules run."""
        assert self.place is not None
        return self.place

    def now(self) -> int:
        """Of the next block."""
        return max(int(self.here().clock()), self.here().chain.head.timestamp)

    @rule(amount=st.integers(1, 1000))
    def pay(self, amount: int) -> None:
        """Money comes in."""
        self.here().pay(amount)
        self.waiting += amount

    def collected(self) -> None:
        """Whatever waited is held from now on."""
        if self.waiting:
            self.paid.append((self.waiting, self.now()))
            self.waiting = 0

    @rule()
    def collect(self) -> None:
        """By anybody."""
        self.here().town.send(EVE, self.here().vault.functions.collect())
        self.collected()

    @rule()
    def release(self) -> None:
        """Pays what was held for a window and a sixteenth; nothing that was held for less than a window."""
        place, now = self.here(), self.now()
        ripe = sum(amount for amount, since in self.paid if since + WINDOW + WINDOW // 16 <= now)
        could = sum(amount for amount, since in self.paid if since + WINDOW <= now)
        before = place.town.balance(PROVIDER.address)
        ok = place.town.post(EVE, place.vault.functions.release())["status"] == 1
        gained = place.town.balance(PROVIDER.address) - before
        if now < self.frozen:
            assert not ok
        else:
            assert ripe <= gained <= could
            assert ok == (gained > 0)
        if ok:
            self.collected()
            self.released += gained
            rest = gained
            while rest:
                amount, since = self.paid.pop(0)
                rest -= min(rest, amount)
                assert since + WINDOW <= now

    @rule(seconds=st.sampled_from([0, 10, 5000]))
    def freeze(self, seconds: int) -> None:
        """By the court, for a time."""
        self.frozen = self.now() + seconds
        self.here().town.send(COURT, self.here().vault.functions.freeze(self.frozen))

    @rule()
    def forfeit(self) -> None:
        """Everything."""
        self.here().town.send(COURT, self.here().vault.functions.forfeit())
        self.forfeited += self.waiting + sum(amount for amount, _ in self.paid)
        self.waiting, self.paid = 0, []

    @rule(seconds=st.sampled_from([1, 500, 1000, 5000, WINDOW, 3 * WINDOW]))
    def wait(self, seconds: int) -> None:
        """Time passes."""
        self.here().clock.now += seconds

    @invariant()
    def tokens_add_up(self) -> None:
        """What came in is here, or was paid to the one or the other."""
        if self.place is None:
            return
        town, vault = self.place.town, self.place.vault
        held = sum(amount for amount, _ in self.paid)
        assert vault.functions.held().call() == held
        assert town.balance(vault.address) == held + self.waiting
        assert town.balance(PROVIDER.address) == self.before[PROVIDER.address] + self.released
        assert town.balance(COURT.address) == self.before[COURT.address] + self.forfeited

    def teardown(self) -> None:
        """Nothing stays."""
        if self.place is not None:
            self.place.chain.close()


class TestVault(VaultMachine.TestCase):
    """A few runs."""

    settings = runs(5, 25)


@pytest.mark.slow
class TestVaultLong(VaultMachine.TestCase):
    """Many, long ones."""

    settings = runs(256, 50)
