"""How Sphinx builds these pages as a site: `make docs` writes `build/docs/index.html`."""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx

from assay import __version__

project = "Assay"
author = "Assay's contributors"
release = __version__
extensions = ["myst_parser"]
myst_enable_extensions = ["html_image"]
myst_heading_anchors = 4
# Pages link to folders and files of the tree, which are not part of the site; tests/test_docs.py follows every link.
suppress_warnings = ["myst.xref_missing"]
highlight_language = "text"
html_theme = "furo"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_title = "Assay"
html_copy_source = False
html_show_copyright = False


def setup(app: Sphinx) -> None:
    """Let the pages that are written for the tree's root, and included here, lead to those beside them."""
    app.connect("include-read", _from_here)


def _from_here(_app: Sphinx, _path: Path, _page: str, content: list[str]) -> None:
    content[0] = re.sub(r'(\]\(|src=")docs/', r"\1", content[0]).replace("](CONTRIBUTING.md)", "](contributing.md)")
