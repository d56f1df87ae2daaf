"""What pages use of others is what was looked at."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files


def test_vendored_files_are_those_that_were_bundled() -> None:
    """Changed only by `make vendor`, and then here as well."""
    folder = files("assay.apps.window") / "vendor"
    known = json.loads((folder / "digests.json").read_text())
    assert known == {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in known}
    assert {each.name for each in folder.iterdir() if each.name.endswith(".js")} == known.keys()
