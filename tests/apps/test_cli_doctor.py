"""`assay doctor`: what it sees, and that every finding that is not well says what to do."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.apps.cli_kit import Cli, in_process
from tests.running import free_port, provider_process

from assay.apps import doctor
from assay.apps.doctor import Symptom, run_checks
from assay.apps.keyfile import key_path, new_key
from assay.core.errors import ConfigError


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_home: Path) -> Cli:
    """Runs commands in an empty home."""
    return in_process(capsys)


def test_an_empty_home(cli: Cli) -> None:
    """On a new machine nothing is bad: the model is not here yet, and the remedy is what fetches it."""
    said = cli("doctor", "--json")
    found = {item["check"]: item for item in said.json["findings"]}
    assert {"machine", "python", "engine", "isa", "models", "speed", "disk", "key"} <= set(found)
    assert [name for name, item in found.items() if item["health"] == "bad"] == []
    for check in ("models", "speed"):
        assert found[check]["health"] == "note"
        assert "assay models pull smollm2-135m" in found[check]["remedy"]
    assert (said.json["fit"], said.code) == (True, 0)


def test_a_model_that_nothing_fetches(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that names a model which is neither here nor in the catalogue is bad, with what can be done."""
    monkeypatch.setenv("ASSAY_NODE_MODEL", "my-own")
    said = cli("doctor", "--json")
    [bad] = [item for item in said.json["findings"] if item["health"] == "bad"]
    assert bad["check"] == "models"
    assert "my-own" in bad["detail"]
    assert bad["remedy"]
    assert said.code == 1


def test_what_is_not_well_has_a_remedy(cli: Cli) -> None:
    """In text, too, every finding is a line, and remedies stand under what is not well."""
    said = cli("doctor")
    assert said.code == 0
    assert "assay models pull smollm2-135m" in said.out
    assert "is fit" in said.out


@pytest.mark.model
def test_speed(model_path: Path) -> None:
    """The speed is measured on the real model, with one thread at least."""
    (found,) = doctor.check_speed(model_path.parent, str(model_path))
    assert found.health in ("well", "note")
    assert "tokens/s with 1 thread" in found.detail


def test_a_damaged_model(tmp_home: Path) -> None:
    """A model that is not what the catalogue says is bad, and is fetched again."""
    folder = tmp_home / "models"
    folder.mkdir()
    (folder / "smollm2-135m.gguf").write_bytes(b"GGUF" + bytes(100))
    (found,) = doctor.check_models(tmp_home)
    assert found.health == "bad"
    assert "assay models pull smollm2-135m" in found.remedy


def test_ports(tmp_path: Path) -> None:
    """A port that is taken is named, with who answers there if that is one of ours."""
    port = free_port()
    (found,) = doctor.check_ports({"up": ("127.0.0.1", port)})
    assert found.health == "well"
    with socket.create_server(("127.0.0.1", port)):
        (found,) = doctor.check_ports({"up": ("127.0.0.1", port)})
        (other,) = doctor.check_ports({"up": ("0.0.0.0", port)})
        assert other.health == "note"
    assert found.health == "note"
    assert "--port" in found.remedy
    with provider_process(tmp_path) as (url, _):
        (found,) = doctor.check_ports({"serve": ("127.0.0.1", int(url.rpartition(":")[2]))})
    assert "an Assay server answers there" in found.detail
    (found,) = doctor.check_ports({"serve": ("192.0.2.1", port)})
    assert found.health == "bad"
    assert "127.0.0.1" in found.remedy


def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Little room is a note; a home that does not exist yet is judged by the folder above it."""
    (found,) = doctor.check_disk(tmp_path / "not" / "yet")
    assert found.health in ("well", "note")
    monkeypatch.setattr(doctor, "ENOUGH_DISK", 2**80)
    (found,) = doctor.check_disk(tmp_path)
    assert (found.health, bool(found.remedy)) == ("note", True)


def test_key(tmp_path: Path) -> None:
    """A key that others may read is bad."""
    path = key_path(tmp_path, "provider")
    (found,) = doctor.check_key(path)
    assert found.health == "well"
    new_key(path)
    path.chmod(0o644)
    (found,) = run_checks([("key", lambda: doctor.check_key(path))])
    assert found.health == "bad"
    assert "chmod 600" in found.remedy


def test_a_check_that_breaks_is_a_finding() -> None:
    """What a check raises is told like anything else it finds, and the other checks are still made."""

    def refuses() -> Iterator[Symptom]:
        raise ConfigError("it is so", "do this")
        yield

    def fails() -> Iterator[Symptom]:
        yield Symptom("first", "well", "fine")
        raise PermissionError(13, "Permission denied")

    def breaks() -> Iterator[Symptom]:
        raise RuntimeError("a mistake of ours")
        yield

    checks = [("one", refuses), ("two", fails), ("three", breaks), ("four", doctor.check_machine)]
    found = list(run_checks(checks))
    told = [("one", "bad"), ("first", "well"), ("two", "bad"), ("three", "bad")]
    assert [(item.check, item.health) for item in found[:4]] == told
    assert found[0].remedy == "do this"
    assert all(item.remedy for item in found if item.health != "well")
    assert found[-1].check == "python"
