"""`python -m assay.apps.cli`: the command line without the installed script."""

from __future__ import annotations

from assay.apps.cli import main

if __name__ == "__main__":
    main()
