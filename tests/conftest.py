"""Fixtures that every test may use, and how hypothesis runs."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every machine, and no stopwatch on busy ones.
settings.register_profile("assay", deadline=None, derandomize=True)
settings.load_profile("assay")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts its background jobs so, and programs that tests start would not hear Ctrl-C either.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def anyio_backend() -> str:
    """Asynchronous tests (`@pytest.mark.anyio`) run on asyncio only."""
    return "asyncio"


@pytest.fixture(scope="session")
def model_path() -> Path:
    """The real model's GGUF in the user's own ASSAY_HOME, fetched once if it is missing."""
    from assay.apps.config import home
    from assay.engines.models import pull

    return pull("smollm2-135m", home()).path


@pytest.fixture
def tmp_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty ASSAY_HOME of the test's own, and no setting from the environment."""
    for name in [name for name in os.environ if name.startswith("ASSAY_")]:
        monkeypatch.delenv(name)
    root = tmp_path / "home"
    root.mkdir()
    monkeypatch.setenv("ASSAY_HOME", str(root))
    return root
