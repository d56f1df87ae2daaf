"""`assay economics`: what it prints, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.apps.cli_kit import Cli, in_process

PLAIN = ("economics", "--price", "1000", "--saving", "0.6", "--detection", "0", "--dispute", "0", "--margin", "0")
SLOW = ("economics", "--price", "1000", "--saving", "0.6", "--detection", "100", "--dispute", "300", "--margin", "0")


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_home: Path) -> Cli:
    """Runs commands in an empty home."""
    return in_process(capsys)


def test_bond(cli: Cli) -> None:
    """Solved for unless another number is; wei are strings, as they may pass what JSON readers keep."""
    said = cli(*PLAIN, "--json")
    assert said.code == 0
    assert (said.json["solved"], said.json["bond_wei"], said.json["safe"]) == ("bond", "48000", True)
    assert (said.json["cheat_profit_wei"], said.json["returned_share"]) == ("0", 0.75)
    huge = cli(*PLAIN[:1], "--price", str(10**40), *PLAIN[3:], "--json")
    assert huge.json["bond_wei"] == str(48 * 10**40)


def test_holdback_and_audit_share(cli: Cli) -> None:
    """From the others; the table marks nothing that is not in the JSON."""
    solved = cli(*SLOW, "--rate", "0.5", "--unclaimed", "40", "--bond", "900000", "--solve", "holdback", "--json").json
    assert (solved["holdback_seconds"], solved["held_seconds"]) == (248, 108)
    share = cli(*PLAIN, "--bond", "96000", "--solve", "audit-rate", "--json").json
    assert (share["audit_share"], share["caught_share"]) == (0.05, 0.05)
    said = cli(*PLAIN, "--bond", "96000", "--solve", "audit-rate")
    assert (said.code, "0.05" in said.out, "96000" in said.out) == (0, True, True)


def test_nothing_solved(cli: Cli) -> None:
    """The best cheat's profit at numbers that are given, which may be too small."""
    said = cli(*PLAIN, "--bond", "40000", "--solve", "nothing", "--json")
    assert (said.code, said.json["safe"], said.json["cheat_profit_wei"]) == (0, False, "1000")


def test_costs(cli: Cli) -> None:
    """Whether challengers and honest providers come out even."""
    costs = ("--audit-cost", "50", "--dispute-cost", "1000", "--defence-cost", "30", "--deposit", "30")
    said = cli(*PLAIN, *costs, "--json").json
    assert (said["reward_wei"], said["dispute_pays"], said["audits_pay_above"]) == ("6000", True, 0.01)
    assert said["deposit_covers_defence"] is True
    poor = cli(*PLAIN, "--dispute-cost", "6001", "--defence-cost", "1", "--json").json
    assert (poor["dispute_pays"], poor["audits_pay_above"], poor["deposit_covers_defence"]) == (False, None, False)


def test_levels(cli: Cli) -> None:
    """Only exact receipts are slashed: at others no bond helps, but what a name is worth does."""
    assert "how many: --power" in cli(*PLAIN, "--level", "statistical").err
    assert "no bond is lost" in cli(*PLAIN, "--level", "pinned").err
    known = ("--level", "statistical", "--power", "0.8", "--standing", "60000", "--solve", "audit-rate", "--json")
    assert cli(*PLAIN, *known).json["audit_share"] == 0.0125


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("--saving", "1.5"), "--saving is '1.5', not a number from 0 to 1"),
        (("--saving", "nan"), "--saving is 'nan'"),
        (("--saving", "1e-9"), "--saving is '1e-9'"),
        (("--saving", "1/3"), "--saving is '1/3'"),
        (("--saving", "٠"), "--saving is"),
        (("--rate", "-1"), "--rate is '-1'"),
        (("--rate", "9" * 5000), "--rate is '999"),
        (("--margin", ""), "--margin is ''"),
        (("--audit", "0"), "no false answer is ever caught"),
        (("--to-challenger", "0.6"), "returned is not from 0 to 1"),
        (("--to-challenger", "0.5"), "no bond is lost"),
        (("--unbonding", "0", "--detection", "1"), "before a false answer is punished"),
        (("--bond", "1"), "bond is what is solved for"),
        (("--solve", "holdback"), "nothing is sure to be held back"),
        (("--solve", "audit-rate"), "auditing every request does not suffice"),
        (("--price", "-1"), "Invalid value"),
        (("--bond", "x"), "Invalid value"),
        (("--bond", "9" * 5000, "--solve", "nothing"), "--bond"),
    ],
)
def test_what_is_no_number(cli: Cli, wrong: tuple[str, ...], said: str) -> None:
    """Is refused by its name, with what to do, and nothing is printed."""
    done = cli(*PLAIN, *wrong)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
