"""`assay ask`: one question, one answer, one receipt."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from assay.apps.cli.console import JsonFlag, err, note, out, plain, print_json, spoken
from assay.apps.cli.talk import UrlOption, default_url, describe, pick_model, save

Level = Annotated[str, typer.Option(help="signed, statistical, pinned or exact. The strongest offered if left out.")]


def ask(
    question: Annotated[str, typer.Argument(help="The question; `-` reads standard input.", show_default=False)],
    url: UrlOption = "",
    model: Annotated[str, typer.Option(help="Which model; the first one offered if left out.")] = "",
    level: Level = "",
    max_tokens: Annotated[int, typer.Option(min=0, help="Most tokens of the answer; 0: no limit.")] = 0,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="0 takes the likeliest words.")] = 0.7,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same answer again.")] = None,
    receipt: Annotated[Path | None, typer.Option(help="Write the receipt into this file.")] = None,
    region: Annotated[str | None, typer.Option(help="Where the provider says that it is.")] = None,
    min_stake: Annotated[int | None, typer.Option(min=0, help="Wei that the provider has to lose.")] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="Never ask this provider, address or URL (repeat it for several).")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Ask one question and print the answer; needs a node (`assay up`) or a gateway."""
    from assay.apps.client import Client, Wish

    text = spoken(sys.stdin.read() if question == "-" else question, "the question")
    with Client(url or default_url()) as client:
        chosen = pick_model(client, spoken(model, "the model's name"))
        wish = Wish(
            model=chosen,
            messages=[{"role": "user", "content": text}],
            max_tokens=max_tokens or None,
            temperature=temperature,
            seed=seed,
            level=spoken(level, "the level") or None,
            ignore=[spoken(name, "a provider to ignore") for name in ignore or ()],
            region=None if region is None else spoken(region, "the region"),
            min_stake=min_stake,
        )
        with client.ask(wish) as stream:
            for piece in stream:
                if not as_json:
                    out.out(plain(piece), end="", highlight=False)
                    sys.stdout.flush()
        if not as_json:
            out.print()
        answered = stream.answered
        assert answered is not None  # a stream without an end has raised
        cost = client.cost(answered, chosen)
        if receipt is not None and answered.receipts:
            save(client.parts(answered), receipt)
    if as_json:
        print_json(
            {
                "id": answered.completion,
                "text": answered.text,
                "finish": answered.finish,
                "tokens": answered.tokens,
                "seconds": round(answered.seconds, 3),
                "provider": answered.provider,
                "level": answered.level,
                "cost_wei": None if cost is None else str(cost),
                "receipts": [dict(item.to_json()) for item in answered.receipts],
                "receipt_file": str(receipt) if receipt else None,
            }
        )
        return
    err.print(describe(answered, cost))
    if receipt is not None:
        note(f"receipt in {receipt}: check it with `assay verify {receipt}`")
