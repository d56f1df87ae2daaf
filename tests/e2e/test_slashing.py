"""Real processes: a provider that cheats is paid, disputed by an unattended validator, and loses its stake."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
from tests.e2e.kit import Place, until
from tests.e2e.scene import BOND, CREDIT, OUTPUT, PROMPT, Books, Chain, Scene, customer, missing, receipts, scene, tried

from assay.chain.client import NOBODY
from assay.chain.court_events import PROVER_WINS, read_ended, read_slashed
from assay.chain.devnet import HELD, MINTER, TOKENS
from assay.core.errors import ChainFailed
from assay.core.offer import Price
from assay.core.receipt import Receipt
from assay.market.pricing import amount_due

pytestmark = [pytest.mark.e2e, pytest.mark.model]
DAY = 86_400
DEAD = "0x" + "0" * 36 + "dead"
log = logging.getLogger(__name__)


def worth(found: Sequence[Receipt]) -> int:
    """Of answers, wei."""
    return sum(amount_due(Price(PROMPT, OUTPUT), each.prompt_count, each.output_count) for each in found)


def torment(here: Scene, victims: Sequence[str], chance: Random, longest: float, wait: Callable[[str], object]) -> None:
    """Kill these programs in a random order, at random moments: most after a `wait` for them, some while they start."""
    for name in chance.sample(victims, len(victims)):
        if chance.random() < 0.8:
            wait(name)
        end = time.monotonic() + chance.uniform(0, longest)
        while time.monotonic() < end:
            here.tend()
            here.hurry()
            time.sleep(0.2)
        check_promises(here)
        here.kill(name)
    here.wait(*here.running)


def check_promises(here: Scene) -> None:
    """At any moment: nobody counts on more than there is. What is read later is no less than it was."""
    with suppress(ChainFailed):
        first, then = Books.read(here), Books.read(here)
        assert first.claimed <= then.paid
        assert first.accepted <= then.paid
        assert first.paid <= then.signed
        assert first.earned <= then.owed
        assert first.signed <= then.owed + CREDIT


def sell(here: Scene, exact: int, victims: Sequence[str], chance: Random) -> list[Receipt]:
    """Answers are asked, paid and claimed, while programs are killed; in the end all agree. The exact ones that the
    gateway has then."""

    def answered(_: str) -> None:
        """One more."""
        had = len(seen)
        until(lambda: here.tend() or len(seen) > had, seconds=180)

    with customer(here, exact) as seen:
        answered("")
        torment(here, victims, chance, 1.5, answered)
        until(lambda: len(seen) > exact, seconds=60)
        # What was paid in mid-answer to a provider that was killed, the next answers are for.
        until(lambda: (books := Books.read(here)).earned == books.signed, seconds=60)
    until(lambda: not missing(here), seconds=180)
    until(lambda: Books.read(here).agree, seconds=60)
    books, issued, kept = Books.read(here), receipts(here, "provider"), receipts(here, "gateway")
    names = {each.digest for each in kept}
    assert seen <= set(kept) <= set(issued)
    assert len({each.sequence for each in issued}) == len(issued)
    assert worth(issued) == books.owed == max(each.amount for each in issued)
    assert worth(kept) == books.earned
    forgotten = [each for each in issued if each.digest not in names and each.output_count]
    assert len(forgotten) <= here.killed["gateway", "selling"]  # each in its first moment: see docs/paying.md
    log.info("%d answers, %d whole, %d forgotten: %s", len(issued), len(seen), len(forgotten), books)
    return [each for each in kept if each.level == "exact" and each.output_count]


def dispute(here: Scene, sold: Sequence[Receipt], victims: Sequence[str], chance: Random) -> None:
    """A validator looks at what was sold, while programs are killed; until all that is wrong is slashed."""

    def goes_on(before: Sequence[object] | None = None) -> bool:
        """Somebody has moved, or all is done."""
        time.sleep(0.4)
        here.tend()
        here.hurry()
        with suppress(ChainFailed):
            done = all(here.court.is_slashed(each.digest) for each in sold)
            return done or (before is not None and here.disputes() != before)
        return False

    def moved(_: str) -> None:
        """When all answer, one more move."""
        here.wait(*here.running)
        before = here.disputes()
        until(lambda: goes_on(before), seconds=180)

    here.start("validator")
    torment(here, victims, chance, 3.0, moved)
    until(goes_on, seconds=120 + 60 * len(sold))
    until(lambda: not here.disputes(), seconds=60)


def check_books(here: Scene, sold: Sequence[Receipt]) -> None:
    """Every token is where it should be, to the last wei."""
    court, client, last = here.court, here.court.client, here.court.node.head().number
    provider, gateway, validator = (here.address[name] for name in ("provider", "gateway", "validator"))
    events = court.happened("Slashed", 0, last)
    found = [read_slashed(each) for each in events]
    assert {each.provider for each in found} == {provider}
    assert {each.challenger for each in found} == {validator}
    assert len(found) == len(sold)
    assert max(court.node.head(each.block).timestamp for each in events) < min(each.issued for each in sold) + HELD
    bond = BOND
    for each in found:
        pot = each.bond + each.held
        assert each.bond == bond // 2
        assert each.reward == pot // 4
        assert each.compensation + each.insured == pot // 2
        assert each.compensation in (0, *(receipt.amount for receipt in sold))
        bond -= each.bond
    assert court.stake(provider).bond == bond
    assert court.stake(provider).running == 0
    ended = [read_ended(each) for each in court.happened("Ended", 0, last)]
    fees = court.values().fee * ended.count(PROVER_WINS)  # of what was demanded while nobody served it
    until(lambda: court.credit(validator) == court.credit(provider) == 0, seconds=60)
    assert client.token_balance(validator) == TOKENS + sum(each.reward for each in found) - fees
    assert client.token_balance(provider) == TOKENS - BOND + fees
    assert {each.wronged for each in found} <= {NOBODY, gateway}
    assert court.credit(gateway) == sum(each.compensation for each in found)
    assert court.credit(MINTER.address) == sum(each.insured for each in found)
    burned = sum(each.bond + each.held - each.reward - each.compensation - each.insured for each in found)
    assert court.credit(DEAD) == burned
    until(lambda: not tried(here.at("gateway"), "signed"), seconds=60)  # who cheats is asked no more, and what is left
    until(lambda: (books := Books.read(here)).claimed == books.signed, seconds=60)  # in the channel is taken back
    claimed = Books.read(here).claimed
    held = sum(each.held for each in found)
    until(lambda: client.token_balance(client.vault_of(provider)) + held == claimed, seconds=60)
    until(lambda: client.channel_state(sold[0].channel).leaving, seconds=60)
    here.pass_time(DAY)
    until(lambda: client.token_balance(gateway) == TOKENS - claimed, seconds=60)
    log.info("slashed %d, fees %d wei, claimed %d wei", len(found), fees, claimed)


@pytest.mark.parametrize(
    ("chain", "answers", "selling", "disputing"),
    [
        pytest.param("anvil", 1, 0, 0, marks=pytest.mark.slow),
        pytest.param("anvil", 3, 3, 3, marks=pytest.mark.long),
        pytest.param("devnet", 3, 1, 2, marks=pytest.mark.slow),
        pytest.param("devnet", 9, 6, 8, marks=pytest.mark.long),
    ],
    ids=str,
)
def test_a_cheat_is_slashed(
    tmp_path: Path, model_path: Path, chain: Chain, answers: int, selling: int, disputing: int
) -> None:
    """Answers are paid and found wrong, disputed by a validator and lost within the time for which earnings are held
    back, while each program is killed so often at random moments: no voucher is lost, nothing is paid twice, every
    receipt is slashed once, all tokens are accounted for, and everybody goes on by itself."""
    chance, started = Random(7), time.monotonic()
    with scene(Place(tmp_path), model_path, chain) as here:
        here.assay("stake", "bond", str(BOND), "--chain", here.url, data="provider")
        here.start("provider", "gateway")
        sold = sell(here, answers, list(here.running) * selling, chance)
        dispute(here, sold, [*here.running, "validator"] * disputing, chance)
        check_books(here, sold)
        shown = here.assay("disputes", "--chain", here.url, data="gateway")["disputes"]
        assert {each["receipt"] for each in shown if each["state"] == "challenger won"} == {
            each.digest.hex() for each in sold
        }
        assert sum(here.killed[name, "disputing"] for name in here.running) >= disputing
        kills = dict(sorted(here.killed.items()))
        log.info("%.0f s; killed %s; started again %s", time.monotonic() - started, kills, dict(here.restarted))
