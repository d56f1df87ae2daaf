"""`assay bench`: finds benchmarks beside the package, and prints figures with the machine they were measured on."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.apps.cli_kit import Cli, in_process

import assay
from assay.apps import figures

MODULE = """
from assay.apps.figures import Figure

def measure(say):
    say("measuring")
    yield Figure("speed", 2.0, "tokens/s", 1.0, True, 5)
    yield Figure("size", 900, "bytes", None, None, 1)
    yield Figure("alarms", 3, "", 0, False, 200)
"""

READER = """
from assay.apps.figures import Figure

def measure(say, *, files=(), model="some"):
    for file in files:
        yield Figure(f"{model}.{file.name}", len(file.read_text()), "characters", None, None, 1)
"""


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_home: Path) -> Cli:
    """Runs commands in an empty home."""
    return in_process(capsys)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with one benchmark."""
    folder = tmp_path / "clone" / "benchmarks"
    (folder / "other").mkdir(parents=True)
    (folder / "toy.py").write_text(MODULE)
    (folder / "_shared.py").write_text("")
    (folder / "empty.py").write_text("")
    monkeypatch.setattr(assay, "__file__", str(tmp_path / "clone" / "src" / "assay" / "__init__.py"))
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    for name in [name for name in __import__("sys").modules if name.split(".")[0] == "benchmarks"]:
        monkeypatch.delitem(__import__("sys").modules, name)
    return folder


def test_figures_as_json(cli: Cli, bench: Path) -> None:
    """One object: every figure with its bar and sample size, the machine and the versions. It exits 0 in any case."""
    said = cli("bench", "toy", "--json")
    assert said.code == 0
    assert said.json["figures"] == [
        {"name": "speed", "value": 2.0, "unit": "tokens/s", "limit": 1.0, "holds": True, "n": 5},
        {"name": "size", "value": 900, "unit": "bytes", "limit": None, "holds": None, "n": 1},
        {"name": "alarms", "value": 3, "unit": "", "limit": 0, "holds": False, "n": 200},
    ]
    assert said.json["machine"]["cores"] >= 1
    assert said.json["versions"]["assay"] == assay.__version__
    assert "measuring" in said.err


def test_figures_as_text(cli: Cli, bench: Path) -> None:
    """For people: a row a figure, which says whether it keeps to its bar."""
    said = cli("bench", "toy")
    assert said.code == 0
    assert "misses" in said.out
    assert "tokens/s" in said.out


def test_names(cli: Cli, bench: Path) -> None:
    """Without a name the benchmarks are listed; an unknown one is refused with the list, an empty one by name."""
    assert cli("bench", "--json").json == {"benchmarks": ["empty", "toy"]}
    unknown = cli("bench", "nothing")
    assert (unknown.code, "empty, toy" in unknown.err) == (2, True)
    empty = cli("bench", "empty")
    assert (empty.code, "no function `measure`" in empty.err) == (2, True)


def test_an_installed_package_has_none(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a clone the command says where benchmarks are."""
    monkeypatch.setattr(assay, "__file__", str(tmp_path / "site-packages" / "assay" / "__init__.py"))
    said = cli("bench", "audit")
    assert said.code == 2
    assert "clone the repository" in said.err


def test_all(cli: Cli, bench: Path) -> None:
    """`all` runs every one, and its figures are named after theirs."""
    (bench / "empty.py").unlink()
    assert {figure["name"] for figure in cli("bench", figures.ALL, "--json").json["figures"]} == {
        "toy.speed",
        "toy.size",
        "toy.alarms",
    }


def test_files_and_model(cli: Cli, bench: Path) -> None:
    """A benchmark that takes files and a model gets those that were named, and its own where none was."""
    (bench / "reader.py").write_text(READER)
    (bench / "a b.txt").write_text("four")
    (bench / "été.txt").write_text("été")

    def named(*arguments: str) -> dict[str, int]:
        return {
            figure["name"]: figure["value"] for figure in cli("bench", "reader", *arguments, "--json").json["figures"]
        }

    files = [str(bench / "a b.txt"), str(bench / "été.txt")]
    assert named(*files, "--model", "other") == {"other.a b.txt": 4, "other.été.txt": 3}
    assert named(files[0]) == {"some.a b.txt": 4}
    assert named() == {}


def test_files_for_a_benchmark_that_takes_none(cli: Cli, bench: Path) -> None:
    """They are refused before anything is measured, and so is a model; `all` takes neither."""
    (bench / "empty.py").unlink()
    (bench / "reader.py").write_text(READER)
    for arguments, key in ((("toy", "text"), "files"), (("toy", "--model", "x"), "model"), (("all", "text"), "files")):
        said = cli("bench", *arguments)
        assert (said.code, f"the benchmark toy takes no {key}" in said.err) == (2, True)
        assert "measuring" not in said.err
