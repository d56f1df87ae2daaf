"""Settings from file and environment."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from assay.apps.config import Config, home, load_config
from assay.core.errors import ConfigError


def write(root: Path, text: str) -> None:
    """Write the configuration file of `root`."""
    (root / "config.toml").write_text(text, encoding="utf-8")


def test_defaults(tmp_home: Path) -> None:
    """Without a file the defaults hold, and nothing listens beyond loopback."""
    config = load_config()
    assert config == Config()
    assert {config.provider.host, config.gateway.host, config.validator.host, config.node.host} == {"127.0.0.1"}
    assert config.data == tmp_home / "data"


def test_file_and_environment(tmp_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment overrides the file, which overrides the defaults."""
    write(tmp_home, '[provider]\nport = 1\nmodel = "mine"\nlevels = ["signed"]\n[gateway]\nproviders = ["http://a"]\n')
    monkeypatch.setenv("ASSAY_PROVIDER_PORT", "2")
    monkeypatch.setenv("ASSAY_GATEWAY_PROVIDERS", "http://b, http://c,")
    monkeypatch.setenv("ASSAY_VALIDATOR_AUDIT_SHARE", "0.5")
    monkeypatch.setenv("ASSAY_PROVIDER_OUTPUT_PRICE_WEI", "1000000000000000000000")
    monkeypatch.setenv("ASSAY_LOG_LEVEL", "debug")
    config = load_config()
    assert (config.provider.port, config.provider.model, config.provider.levels) == (2, "mine", ("signed",))
    assert config.gateway.providers == ("http://b", "http://c")
    assert config.validator.audit_share == 0.5
    assert config.provider.output_price_wei == 10**21
    assert config.log.level == "debug"
    assert config.node == Config().node


def test_named_files(tmp_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A named file is read instead of the one at home, and must exist."""
    write(tmp_home, "[node]\nport = 1\n")
    other = tmp_path / "other.toml"
    other.write_text("[node]\nport = 2\n")
    assert load_config().node.port == 1
    assert load_config(other).node.port == 2
    monkeypatch.setenv("ASSAY_CONFIG", str(other))
    assert load_config().node.port == 2
    other.unlink()
    with pytest.raises(ConfigError, match="there is no configuration file"):
        load_config()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[provider]\nprot = 1\n", r"unknown setting \[provider\] prot: did you mean port"),
        ("[provder]\nport = 1\n", r"unknown setting provder: did you mean provider"),
        ("[log]\nzzzzzz = 1\n", r"unknown setting \[log\] zzzzzz: known are level, format"),
        ("port = 1\n", r"unknown setting port"),
        ("[provider]\nport = 70000\n", r"\[provider\] port cannot be '70000'"),
        ('[provider]\nport = "x"\n', r"\[provider\] port cannot be 'x'"),
        ('[provider]\nlevels = ["sworn"]\n', r"\[provider\] levels.0 cannot be 'sworn'"),
        ("[provider]\nprompt_price_wei = -1\n", r"prompt_price_wei cannot be '-1'"),
        ("[provider]\nprompt_price_wei = 0.5\n", r"prompt_price_wei cannot be '0.5'"),
        ("[validator]\naudit_share = 2\n", r"audit_share cannot be '2'"),
        ("[validator]\naudit_share = nan\n", r"audit_share cannot be 'nan'"),
        ("provider = 1\n", r"provider cannot be '1'"),
        ("[provider\n", "is not TOML"),
        ("a = " + "[" * 5000, "is not TOML"),
        ("#" * (1 << 21), "is over"),
    ],
)
def test_bad_settings(tmp_home: Path, text: str, message: str) -> None:
    """Each wrong setting is refused with its name and what to do."""
    write(tmp_home, text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config()
    assert caught.value.remedy
    assert str(tmp_home) in caught.value.message


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("ASSAY_PROVIDER_PROT", "1", r"ASSAY_PROVIDER_PROT: unknown setting \[provider\] prot: did you mean port"),
        ("ASSAY_NODE_PORT", "many", r"ASSAY_NODE_PORT: \[node\] port cannot be 'many'"),
        ("ASSAY_PROVIDER_LEVELS", "signed,sworn", r"ASSAY_PROVIDER_LEVELS: \[provider\] levels.1 cannot be 'sworn'"),
    ],
)
def test_bad_environment(
    tmp_home: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    """A wrong variable is named."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=message):
        load_config()


def test_file_that_is_not_text(tmp_home: Path) -> None:
    """A folder or binary data in the file's place gives a clear error."""
    path = tmp_home / "config.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not TOML"):
        load_config()
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config()


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="XDG folders are for other systems")
def test_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ASSAY_HOME wins, then XDG_DATA_HOME if absolute, then the default below the user's home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ASSAY_HOME", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert home() == tmp_path / ".local" / "share" / "assay"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    assert home() == tmp_path / "xdg" / "assay"
    monkeypatch.setenv("ASSAY_HOME", "~/mine")
    assert home() == tmp_path / "mine"
