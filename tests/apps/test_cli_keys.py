"""Signing keys on disk and the commands that make and show them."""

from __future__ import annotations

import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.apps.cli_kit import Cli, in_process

from assay.apps.keyfile import key_path, load_key, load_or_new, new_key
from assay.core.errors import ConfigError, NotFound

posix = pytest.mark.skipif(sys.platform == "win32", reason="file modes are POSIX's")


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_home: Path) -> Cli:
    """Runs commands in an empty home."""
    return in_process(capsys)


def test_new_and_show(cli: Cli, tmp_home: Path) -> None:
    """`new` makes a key and `show` names the same address; neither prints the secret."""
    made = cli("keys", "new", "--json")
    shown = cli("keys", "show", "--json")
    assert made.code == shown.code == 0
    assert made.json == shown.json
    secret = (tmp_home / "keys" / "provider.key").read_text().strip()
    assert len(secret) == 64
    assert not any(secret in text for text in (made.out, made.err, shown.out, shown.err))
    assert load_key(Path(made.json["path"])).address == made.json["address"]


@posix
def test_only_the_owner_reads_it(tmp_path: Path) -> None:
    """The file has mode 0600 and its folder 0700 from the start; a key that others may read is refused."""
    path = key_path(tmp_path / "home", "a")
    new_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.chmod(0o640)
    with pytest.raises(ConfigError, match=f"chmod 600 {path}"):
        load_key(path)


def test_a_key_is_not_overwritten(cli: Cli, tmp_home: Path) -> None:
    """A second `new` changes nothing; with --force it does. No drafts are left behind."""
    address = cli("keys", "new", "--json").json["address"]
    refused = cli("keys", "new")
    assert refused.code == 2
    assert "--force" in refused.err
    assert cli("keys", "show", "--json").json["address"] == address
    assert cli("keys", "new", "--force", "--json").json["address"] != address
    assert [path.name for path in (tmp_home / "keys").iterdir()] == ["provider.key"]


@pytest.mark.parametrize("name", ["", ".", "../up", "a/b", "a\0b", ".hidden", "clé"])
def test_names_that_leave_the_folder(tmp_path: Path, name: str) -> None:
    """A key's name is a plain file name."""
    with pytest.raises(ConfigError, match="cannot be a key's name"):
        key_path(tmp_path, name)


@pytest.mark.parametrize("data", [b"", b"00" * 32, b"zz" * 32, b"ab" * 31, b"ab" * 40, b"\xff" * 64, b"ff" * 32])
def test_files_that_are_no_keys(tmp_path: Path, data: bytes) -> None:
    """A damaged key is named as such."""
    path = tmp_path / "bad.key"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="does not hold a key"):
        load_key(path)


def test_a_folder_is_no_key(tmp_path: Path) -> None:
    """A folder in the key's place is an error with a remedy, and so is a file in the folder's place."""
    with pytest.raises(ConfigError, match="is not a file"):
        load_key(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError):
        new_key(tmp_path / "file" / "a.key")


def test_a_missing_key(tmp_path: Path) -> None:
    """What is missing says how it is made."""
    with pytest.raises(NotFound, match="assay keys new"):
        load_key(tmp_path / "none.key")


def test_one_of_many_makes_it(tmp_path: Path) -> None:
    """Programs that start at the same time all sign with one key."""
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: load_or_new(tmp_path / "keys" / "a.key"), range(16)))
    assert len({key.address for key, _ in found}) == 1
    assert sum(made for _, made in found) == 1
