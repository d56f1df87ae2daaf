"""The demonstration's bookkeeping: questions, verdicts as they come, refusals, and the summary."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from tests.apps.cli_kit import Cli, in_process
from tests.running import provider_process
from tests.tiny import MODEL

from assay.apps.cheats import CHEATS
from assay.apps.cli.demo import _folder
from assay.apps.client import Client
from assay.apps.demo.conversation import Conversation, Row, summary
from assay.apps.demo.money import Bill
from assay.apps.demo.network import Network, Provider
from assay.apps.demo.questions import Question, load_questions
from assay.core.errors import ConfigError, ProviderFailed

HONEST = Provider("ada", "0x" + "a" * 40, "http://ada", "")
CHEAT = Provider("mallory", "0x" + "b" * 40, "http://mallory", "other-model")
QUESTION = Question("Say something.", "English", "pinned", 1.0, 1.0, 12)


@dataclass
class Silent:
    """Implements `Watcher`: remembers."""

    events: list[str] = field(default_factory=list)

    def asking(self, number: int, question: Question, *, again: bool) -> None:
        self.events.append(f"asking {number}{' again' if again else ''}")

    def piece(self, text: str) -> None:
        if self.events[-1] != "piece":
            self.events.append("piece")

    def answered(self, row: Row) -> None:
        self.events.append(f"answered {row.number}")

    def judged(self, row: Row) -> None:
        self.events.append(f"judged {row.number} {row.outcome}")

    def waiting(self, count: int) -> None:
        pass


def conversation(tmp_path: Path, client: Client, *providers: Provider) -> Conversation:
    """With these providers; nothing was asked yet."""
    network = Network(providers=providers or (HONEST, CHEAT))
    return Conversation(network, client, Silent(), tmp_path, MODEL)


def verdict(receipt: str, outcome: str, *reasons: str) -> dict[str, object]:
    """What a validator prints."""
    return {"receipt": receipt, "outcome": outcome, "reasons": list(reasons), "level": "pinned", "seconds": 0.5}


@pytest.fixture
def client() -> Client:
    """A client that is never used."""
    return Client("http://127.0.0.1:9")


def test_the_questions() -> None:
    """About a dozen short questions in several languages, code among them; three levels, several temperatures."""
    questions = load_questions()
    assert 10 <= len(questions) <= 16
    assert {"English", "French", "Arabic", "code"} <= {question.language for question in questions}
    assert {question.level for question in questions} == {"pinned", "statistical", "exact"}
    assert len({question.temperature for question in questions}) >= 4
    assert all(48 <= question.max_tokens <= 64 and question.text for question in questions)


@pytest.mark.parametrize("text", ["", "{}", "[]", "[1]", '[{"text": "a"}]', "[", '[{"text": 1, "nothing": 2}]'])
def test_questions_that_are_none(tmp_path: Path, text: str) -> None:
    """Another file is refused with what it should look like."""
    path = tmp_path / "questions.json"
    path.write_text(text)
    with pytest.raises(ConfigError):
        load_questions(path)
    with pytest.raises(ConfigError):
        load_questions(tmp_path / "missing.json")


def test_an_answer_gets_its_verdict(tmp_path: Path) -> None:
    """The answer is streamed, its receipt is written, and the verdict on it is matched by the receipt's digest."""
    with provider_process(tmp_path) as (url, _), Client(url) as client:
        talk = conversation(tmp_path, client)
        talk._ask(QUESTION)
        (row,) = talk.rows
        assert row.path is not None
        assert row.path.is_file()
        talk.network.verdicts.put(verdict("0" * 64, "fails", "not ours"))
        talk.network.verdicts.put(verdict(row.receipt, "holds"))
        talk.network.verdicts.put(verdict(row.receipt, "fails", "too late: the first verdict counts"))
        talk._wait()
        talk._collect()
    assert (row.outcome, row.reason, row.check_seconds) == ("holds", "", 0.5)
    assert isinstance(talk.watcher, Silent)
    assert talk.watcher.events == ["asking 1", "piece", "answered 1", "judged 1 holds"]


def test_a_refused_receipt_is_the_named_providers(tmp_path: Path, client: Client) -> None:
    """What the gateway itself refuses counts against the provider that its message names, and nobody else."""
    talk = conversation(tmp_path, client)
    row = talk._refused(1, QUESTION, ProviderFailed(f"the receipt of {CHEAT.address} does not hold: why"), 1.0)
    assert (row.provider, row.outcome) == ("mallory", "fails")
    said = f"{CHEAT.address} failed: the provider does not stream as the protocol says (cancelled)"
    row = talk._refused(5, QUESTION, ProviderFailed(said), 1.0)
    assert (row.provider, row.outcome) == ("mallory", "fails")
    row = talk._refused(2, QUESTION, ProviderFailed("every provider is asleep"), 1.0)
    assert (row.provider, row.outcome) == ("nobody", "inconclusive")
    row = talk._refused(3, QUESTION, ProviderFailed(f"{HONEST.address} cannot be reached"), 1.0)
    assert (row.provider, row.outcome) == ("ada", "inconclusive")
    row = talk._refused(4, QUESTION, ProviderFailed("the provider broke off"), 1.0, [CHEAT.address])
    assert (row.provider, row.outcome) == ("mallory", "inconclusive")


def test_the_summary_counts(tmp_path: Path, client: Client) -> None:
    """Receipts that hold are listed apart from exhibits; a false alarm is a failed check of an honest answer."""
    talk = conversation(tmp_path, client)
    outcomes = [("ada", "holds"), ("ada", "fails"), ("mallory", "holds"), ("mallory", "fails"), ("ada", None)]
    for number, (name, outcome) in enumerate(outcomes, start=1):
        talk.rows.append(
            Row(number, QUESTION, name, outcome=outcome, reason="r" * (outcome == "fails"), path=tmp_path / f"{number}")  # type: ignore[arg-type]
        )
    bill = Bill({"buyer": 5, "ada": 1}, {"buyer": 3, "ada": 3}, 6, 4, 21_000, [])
    result = summary(talk, bill, 1.25)
    json.dumps(result)
    assert bill.adds_up
    assert not replace(bill, supply=7).adds_up
    assert not replace(bill, after={"buyer": 3, "ada": 2}).adds_up
    assert [result[name] for name in ("requests", "verified", "false_alarms", "inconclusive")] == [5, 2, 1, 1]
    assert result["receipts"] == [str(tmp_path / "1"), str(tmp_path / "3")]
    assert result["exhibits"] == [str(tmp_path / "2"), str(tmp_path / "4")]
    assert result["cheats"] == [
        {
            "kind": "other-model",
            "does": CHEAT.does,
            "provider": CHEAT.address,
            "name": "mallory",
            "caught": True,
            "caught_by": "check",
            "asked_last": False,
            "reason": "r",
            "answers": 2,
        }
    ]


def test_a_cheat_that_cannot_be_checked_here_is_not_called_caught(tmp_path: Path, client: Client) -> None:
    """Three answers at one level without a verdict either way: the story is that it is asked last, and why."""
    cheat = replace(CHEAT, cheat="other-isa")
    talk = conversation(tmp_path, client, HONEST, cheat)
    for number in (1, 2, 3):
        assert not talk.demoted(cheat)
        talk.rows.append(
            Row(number, QUESTION, "mallory", outcome="inconclusive", reason="isa differs", level="pinned", receipt="r")
        )
    assert talk.demoted(cheat)
    (told,) = summary(talk, Bill({}, {}, 0, 0, 0, []), 1.0)["cheats"]  # type: ignore[misc]
    assert (told["caught"], told["asked_last"], told["reason"]) == (False, True, "isa differs")


def test_old_demonstrations_go(tmp_home: Path) -> None:
    """The last few stay; folders that are not ours are left alone."""
    for name in ("1", "2", "3", "4", "5", "6", "kept"):
        (tmp_home / "demo" / name).mkdir(parents=True)
    place = _folder(None)
    assert (place / "receipts").is_dir()
    names = {path.name for path in (tmp_home / "demo").iterdir()}
    assert names == {"3", "4", "5", "6", "kept", place.name}
    (tmp_home / "file").touch()
    with pytest.raises(ConfigError, match="--out"):
        _folder(tmp_home / "file")


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_home: Path) -> Cli:
    """Runs commands in an empty home."""
    return in_process(capsys)


def test_the_ways_to_cheat_are_listed(cli: Cli) -> None:
    """`--cheats` names every one with what it does; an unknown one is refused before anything starts."""
    assert set(cli("demo", "--cheats", "--json").json["cheats"]) == {*CHEATS, "swap:FILE"}
    assert all(cheat.does in cli("demo", "--cheats").out for cheat in CHEATS.values())
    said = cli("demo", "--cheat", "kindness")
    assert (said.code, "--cheats" in said.err) == (2, True)
    said = cli("demo", "--cheat", "accumulator")
    assert (said.code, "by another provider" in said.err) == (2, True)
    said = cli("demo", "--cheat", "swap:/nowhere.gguf")
    assert (said.code, "swap:FILE" in said.err) == (2, True)
