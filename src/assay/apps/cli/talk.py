"""What `ask` and `chat` share: whom to ask, which model, and the line under an answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from assay.apps.cli.console import plain
from assay.core.errors import InvalidRequest, ModelNotFound, VerificationError
from assay.core.hashing import ZERO

if TYPE_CHECKING:
    from assay.apps.client import Answered, Client, Wish
    from assay.core.bundle import Bundle

UrlOption = Annotated[
    str,
    typer.Option(
        help="Node or gateway, as OpenAI clients take it; this machine's node if left out.", envvar="ASSAY_URL"
    ),
]


def default_url() -> str:
    """This machine's own node."""
    from assay.apps.config import load_config

    node = load_config().node
    return f"http://{node.host}:{node.port}/v1"


def pick_model(client: Client, wanted: str) -> str:
    """`wanted`, or the first model that is offered.

    Raises:
        ModelNotFound: none is.
    """
    if wanted:
        return wanted
    offered = client.models()
    if not offered:
        raise ModelNotFound(f"{client.url} offers no model", "start a provider with `assay serve`")
    return offered[0]


def describe(answered: Answered, cost: int | None = None) -> Text:
    """The line under an answer: speed, level, who signed, on which channel, what it costs (wei, if that is known)."""
    parts = [f"{answered.tokens} tokens"]
    if answered.rate:
        parts.append(f"{answered.rate:.0f}/s")
    if answered.level:
        parts.append(answered.level)
    for receipt in answered.receipts:
        parts.append(f"signed by {receipt.provider[:10]}…")
        parts.append(f"receipt {receipt.digest.hex()[:12]}…")
        if receipt.channel != ZERO:
            parts.append(f"channel {receipt.channel.hex()[:12]}…")
    if cost:
        parts.append(f"{cost} wei")
    if not answered.receipts:
        parts.append("no receipt")
    return Text(plain(" · ".join(parts)), style="dim")


def save(parts: Sequence[Bundle], path: Path) -> None:
    """Write a receipt file, a line for each part of the answer.

    Raises:
        InvalidRequest: it cannot be written.
    """
    try:
        path.write_bytes(b"".join(part.encode() for part in parts))
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be written ({error.strerror})", remedy="name another file") from error


def judge(bundle: Bundle, wish: Wish) -> Text:
    """The line that says what a look at the receipt showed, without recomputing anything."""
    from assay.apps.checking import check_covers

    try:
        check_covers(bundle, wish)
    except VerificationError as error:
        return Text(f"the receipt does not hold: {plain(error.message)}", style="bold red")
    return Text("the receipt is signed and covers this very question (/check recomputes the answer)", style="green")
