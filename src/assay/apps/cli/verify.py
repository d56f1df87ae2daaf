"""`assay verify`: does a receipt hold? Offline, with nothing but the file and the model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.text import Text

from assay.apps.cli.console import JsonFlag, err, out, print_error, print_json
from assay.apps.cli.exits import ExitCode, exit_code
from assay.core.errors import AssayError, EncodingError, InvalidRequest

if TYPE_CHECKING:
    from assay.core.bundle import Bundle
    from assay.core.receipt import Receipt
    from assay.core.verdict import Verdict

_MOST_LINES: Final = 512
"""Receipts of one file: OpenAI's `n` ends at 128, and an answer has four parts at most."""
_BARE_BYTES: Final = 65_536
"""A receipt alone has under 1,000."""
_NOTHING: Final = {"holds": False, "level": None, "tokens_checked": 0, "seconds": 0.0}


def verify(
    receipt: Annotated[
        Path, typer.Argument(help="A receipt file: what /receipts/ID gives, a line an answer.", show_default=False)
    ],
    model: Annotated[Path | None, typer.Option(help="The model's GGUF file; found by its digest if left out.")] = None,
    trace: Annotated[
        str, typer.Option(help="Level exact: audit this trace, a file or the provider's address, not all again.")
    ] = "",
    tokens: Annotated[
        float, typer.Option(min=0.001, max=1, help="With --trace: the share of the tokens to audit, at random.")
    ] = 1.0,
    threads: Annotated[int, typer.Option(min=1, help="Threads that compute.")] = 1,
    as_json: JsonFlag = False,
) -> None:
    """Check a receipt by recomputing the answer: exit code 0 it holds, 1 it does not, 3 it cannot be checked here.

    A file of several receipts holds if all do, and if those that are parts of one answer belong together; `--json`
    then prints a list.
    """
    from assay.apps.checking import check_linked
    from assay.core.bundle import Bundle

    try:
        if tokens < 1 and not trace:
            raise InvalidRequest("without a trace everything is computed again", remedy="leave --tokens out")
        found = read_receipts(receipt)
        if trace and len(found) > 1:
            raise InvalidRequest(f"{receipt} has {len(found)} receipts, and a trace is of one", remedy="divide it")
        verdicts = [_check(item, model, threads, trace, tokens) for item in found]
        bundles = [item for item in found if isinstance(item, Bundle)]
        verdicts = check_linked(verdicts, bundles) if bundles else verdicts
    except AssayError as error:
        if as_json:
            print_json({**_NOTHING, "reasons": [str(error)]})
        print_error(error)
        raise typer.Exit(exit_code(error)) from error
    _tell(verdicts, as_json=as_json)


def _check(item: Bundle | Receipt, model: Path | None, threads: int, trace: str, tokens: float) -> Verdict:
    from assay.apps.checking import check_bare, check_here
    from assay.apps.traces import no_traces, traces_at
    from assay.core.receipt import Receipt

    if isinstance(item, Receipt):
        return check_bare(item)
    traces = traces_at(trace, tokens) if trace else no_traces
    with err.status("Auditing the answer…" if trace else "Recomputing the answer…"):
        return check_here(item, model=model, threads=threads, traces=traces)


def _tell(verdicts: Sequence[Verdict], *, as_json: bool) -> None:
    """Print the verdicts and end with the code of the worst."""
    from assay.apps.cli.verdicts import CODES, lines

    if as_json:
        told = [verdict.to_json() for verdict in verdicts]
        print_json(told[0] if len(told) == 1 else told)
    else:
        for number, verdict in enumerate(verdicts, 1):
            head = f"line {number}: " if len(verdicts) > 1 else ""
            out.print(Text(head) + lines(verdict))
    codes = {CODES[verdict.outcome] for verdict in verdicts}
    worst = next(code for code in (ExitCode.FAILED_CHECK, ExitCode.INCONCLUSIVE, ExitCode.DONE) if code in codes)
    raise typer.Exit(worst)


def read_receipts(path: Path) -> list[Bundle] | list[Receipt]:
    """The bundles of a file, or the one receipt that it has alone.

    Raises:
        InvalidRequest: it cannot be read.
        EncodingError: it holds something else.
    """
    from assay.core.bundle import MAX_BUNDLE_BYTES, Bundle

    try:
        with path.open("rb") as file:
            first = file.readline(MAX_BUNDLE_BYTES + 1)
            rest = [file.readline(MAX_BUNDLE_BYTES + 1) for _ in range(_MOST_LINES)] if first.endswith(b"\n") else []
            if not first.startswith(b'{"opening"') and (bare := _bare(first + b"".join(rest))):
                return [bare]
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read ({error.strerror})", remedy="check the path") from error
    found: list[Bundle] = []
    lines = [first, *filter(None, rest)]
    if len(lines) > _MOST_LINES:
        raise EncodingError(f"{path} has more than {_MOST_LINES} lines", "divide it")
    for number, line in enumerate(lines, 1):
        try:
            found.append(Bundle.decode(line))
        except EncodingError as error:
            where = f"line {number} of {path}" if len(lines) > 1 else str(path)
            raise EncodingError(
                f"{where} is no receipt file: {error.message}", error.remedy or "fetch it again from where it came"
            ) from error
    return found


def _bare(data: bytes) -> Receipt | None:
    """The receipt if `data` is one alone, in whatever spelling of JSON; replies carry them so."""
    from assay.core.encoding import check_depth
    from assay.core.receipt import Receipt

    if len(data) > _BARE_BYTES:
        return None
    try:
        check_depth(data, what="it")
        return Receipt.from_json(json.loads(data))
    except (ValueError, RecursionError, EncodingError):
        return None
