"""What the pages say of the code is so: links, files, settings, metrics, commands, exit codes, messages."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest
import typer
from typer.core import TyperCommand, TyperGroup

from assay.apps.cli.app import app
from assay.apps.cli.exits import ExitCode
from assay.apps.config import Config
from assay.apps.metrics import CheckMetrics, DiscoveryMetrics, DisputeMetrics, Metrics, RelayMetrics
from assay.store.receipts import ReceiptStore

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
DECISIONS = sorted((ROOT / "docs" / "decisions").iterdir())
COMMANDS = typer.main.get_command(app)
NO_SETTING = {"ASSAY_HOME", "ASSAY_CONFIG", "ASSAY_AUDIT_TOKEN", "ASSAY_URL", "ASSAY_DEBUG", "ASSAY_SECTION_KEY"}
"""Variables of their own, and the pattern of all others."""

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def code(text: str) -> Iterator[str]:
    """What a page sets as code, line by line: fenced, indented by four, or between backticks."""
    fenced = False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield line
        else:
            yield from re.findall(r"`([^`]+)`", line)


def section(title: str) -> str:
    """The part of operations.md under a heading, up to the next one."""
    return re.split(r"^#+ ", OPERATIONS.split(f" {title}\n", 1)[1], maxsplit=1, flags=re.M)[0]


def rows(title: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@cache
def words_of_the_source() -> tuple[frozenset[str], str]:
    """Every string in the source but docstrings, and all as one text; parts that are filled in become `…`."""
    found: set[str] = set()
    for path in (ROOT / "src").rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                found.add(node.value)
            elif isinstance(node, ast.JoinedStr):
                found.add("".join(p.value if isinstance(p, ast.Constant) else "…" for p in node.values))
    return frozenset(found), "\0".join(found)


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file that is there, and every anchor a heading in it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.M)
            assert anchor in map(slug, headings), target


@each_page
def test_files_that_are_named_are_there(page: Path) -> None:
    """A path to a source file, test or page, from the repository's root or from src/assay, leads to one."""
    for snippet in code(page.read_text(encoding="utf-8")):
        for name in re.findall(r"(?<![\w/.{])(?:[a-z_]+/)+[a-z_0-9]+\.(?:py|md)\b", snippet):
            assert (ROOT / name).exists() or (ROOT / "src" / "assay" / name).exists(), name


def command(words: Sequence[str]) -> tuple[TyperGroup | TyperCommand, Sequence[str]]:
    """The command that words after `assay` name, and the words after it."""
    found = COMMANDS
    while isinstance(found, TyperGroup) and words and not words[0].startswith("-"):
        assert words[0] in found.commands, " ".join(words)
        found, words = found.commands[words[0]], words[1:]
    assert isinstance(found, TyperGroup | TyperCommand)
    return found, words


@each_page
def test_commands_are_there(page: Path) -> None:
    """Every `assay COMMAND --option` in code exists just so."""
    for snippet in code(page.read_text(encoding="utf-8")):
        line = snippet.split(" #")[0]
        for told in re.findall(r"(?:^|[/ ])assay ((?:[a-z]|--)[^│]*)", line):
            found, rest = command(told.replace("[", "").replace("]", "").split())
            known = {option for parameter in found.params for option in parameter.opts}
            for word in rest:
                if word.startswith("--") and word != "--help":
                    assert word in known, snippet


def test_unknown_commands_are_seen() -> None:
    """The check above looks at groups and commands."""
    assert command(["keys", "new", "me"])[0].name == "new"
    for words in (["sell"], ["keys", "burn"]):
        with pytest.raises(AssertionError):
            command(words)


def test_settings() -> None:
    """The tables name every setting with its default, and no other."""
    defaults = Config().model_dump(mode="json")
    sections = [name for name, value in defaults.items() if isinstance(value, dict)]
    expected = {name: defaults[name] for name in sections}
    expected["Top level"] = {name: value for name, value in defaults.items() if name not in sections}
    told: dict[str, dict[str, object]] = {}
    for name in expected:
        title = name if name == "Top level" else f"`[{name}]`"
        told[name] = {
            key.strip("`"): None if default == "not set" else tomllib.loads(f"x = {default.strip('`')}")["x"]
            for key, default, _ in rows(title)
        }
    assert told == expected


@each_page
def test_environment_variables(page: Path) -> None:
    """Each one that is named is read: a setting's, or one of the few of their own."""
    for variable in re.findall(r"\bASSAY_[A-Z_]+[A-Z]\b", page.read_text(encoding="utf-8")):
        name, _, key = variable.removeprefix("ASSAY_").lower().partition("_")
        settings = getattr(Config(), name, None)
        is_setting = hasattr(settings, key) or f"{name}_{key}" in Config.model_fields
        assert is_setting or variable in NO_SETTING, variable


def test_variables_of_their_own_are_listed() -> None:
    """The table of variables has them all."""
    listed = " ".join(first for first, *_ in rows("Environment"))
    assert [name for name in NO_SETTING if name not in listed] == []


def test_metrics(tmp_path: Path) -> None:
    """The table names every metric as it is exposed, with its labels, and no other."""
    metrics, checks = Metrics(), CheckMetrics()
    store = ReceiptStore(f"sqlite:///{tmp_path / 'receipts.db'}")
    metrics.watch_verdicts(store)
    metrics.watch_money(lambda: {"owed": 1})
    DisputeMetrics(metrics.registry)
    DiscoveryMetrics(metrics.registry)
    RelayMetrics(metrics.registry)
    exposed = {
        family.name + ("_total" if family.type == "counter" else ""): family
        for registry in (metrics.registry, checks.registry)
        for family in registry.collect()
    }
    store.close()
    told = {name.strip("`"): labels for name, labels, _ in rows("Metrics")}
    assert set(told) == set(exposed)
    named = set(re.findall(r"\bassay_[a-z_]+\b", OPERATIONS))
    assert named <= set(exposed), named - set(exposed)
    assert set(re.findall(r"`(\w+)`", told["assay_answers_total"])) == set(metrics.answers._labelnames)
    assert set(re.findall(r"`(\w+)`", told["assay_checks_total"])) == set(checks.checks._labelnames)


def test_log_events() -> None:
    """Every event in the table is a word of the source."""
    strings, _ = words_of_the_source()
    events = [first.strip("`") for first, *_ in rows("Logs")]
    assert len(events) > 4
    assert [event for event in events if event not in strings] == []


def test_exit_codes() -> None:
    """The table has every code, in order."""
    assert [int(code) for code, _ in rows("Exit codes")] == sorted(ExitCode)


def test_messages() -> None:
    """Every message that the table of troubles explains is one that the programs can say."""
    _, text = words_of_the_source()
    told = [first.strip("`") for first, _ in rows("Trouble")]
    assert len(told) > 20
    for message in told:
        pattern = "[^\0]*".join(re.escape(part.strip()) for part in message.split("…"))
        assert re.search(pattern, text), message


def test_decisions_are_numbered() -> None:
    """A number, a title, the same number in the heading, and no number twice."""
    numbers: list[str] = []
    for path in DECISIONS:
        match = re.fullmatch(r"(\d{4})-[a-z0-9-]+\.md", path.name)
        assert match, path.name
        assert path.read_text(encoding="utf-8").startswith(f"# {match[1]} "), path.name
        numbers.append(match[1])
    assert len(numbers) == len(set(numbers)) > 0
