"""`assay trace`: fetch the accumulators behind a receipt at level `exact`, to audit them at leisure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from assay.apps.cli.console import JsonFlag, err, note, print_json
from assay.core.errors import InvalidRequest


def trace(
    receipt: Annotated[Path, typer.Argument(help="A receipt file with one receipt.", show_default=False)],
    provider: Annotated[str, typer.Option(help="Address of the provider that signed it.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.", show_default=False)],
    as_json: JsonFlag = False,
) -> None:
    """Fetch the trace of an answer at level exact, about a megabyte a token; `assay verify --trace` audits it."""
    from assay.apps.cli.verify import read_receipts
    from assay.apps.traces import passes_of
    from assay.core.bundle import Bundle
    from assay.network.traces import fetch_trace

    found = read_receipts(receipt)
    bundle = found[0]
    if len(found) > 1 or not isinstance(bundle, Bundle):
        raise InvalidRequest(f"{receipt} is not one receipt with its request", remedy="fetch it from /receipts/ID")
    if bundle.receipt.level != "exact":
        raise InvalidRequest(f"a receipt at level {bundle.receipt.level!r} has no trace", remedy="ask for level exact")
    size = 0
    part = out.with_name(f"{out.name}.part")
    try:
        with err.status("The provider computes the answer again…"), part.open("wb") as file:
            for block in fetch_trace(provider, bundle.request, passes_of(bundle)):
                file.write(block)
                size += len(block)
        part.replace(out)
    except OSError as error:
        raise InvalidRequest(f"{out} cannot be written ({error.strerror})", remedy="check path and disk") from error
    finally:
        part.unlink(missing_ok=True)
    if as_json:
        print_json({"file": str(out), "bytes": size})
    else:
        note(f"{size / 1e6:.1f} MB in {out}; check it with `assay verify {receipt} --trace {out}`")
