"""Make the calibration of the statistical tests: data in `benchmarks/calibration/`, thresholds in the package.

    python -m benchmarks.calibration collect MODEL.gguf DIRECTORY KIND...   statistics of answers, one CSV a kind
    python -m benchmarks.calibration fit DIRECTORY                          thresholds from them

A KIND is `honest` (prompts of the part `fit`), `held-out` (honest, prompts of the part `test`), `foreign` and
`foreign-held-out` (honest, but the tokens are drawn without the seed), `foreign-temperature`, or the name of a cheat.
Provers run llama.cpp outside the bit-exact regime; the verifier recomputes in the pinned regime and, to know the
noise, once more outside it.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import json
import platform
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, TextIO

import numpy as np
from benchmarks._audits import answers, built
from benchmarks.calibration.fit import fit

from assay.apps.cheats import Dishonest, Workshop, make_cheat
from assay.core.bundle import Bundle
from assay.core.encoding import MICRO
from assay.core.request import Message, Request, SamplerSettings
from assay.engines.llama_model import LlamaModel
from assay.engines.llama_regime import profile_of
from assay.engines.llama_replay import LlamaReplayer
from assay.verify.binding import check_offline
from assay.verify.calibration import TESTS
from assay.verify.statistics import measure

HERE: Final = Path(__file__).resolve().parent
PACKAGED: Final = HERE.parents[1] / "src/assay/verify/calibration.json"
TOKENS: Final = 64
"""Most tokens of an answer."""
SETTINGS: Final = (
    (0.0, 0, 1.0, 0.0), (0.2, 0, 1.0, 0.0), (0.5, 0, 0.95, 0.0), (0.7, 0, 1.0, 0.0),
    (0.8, 40, 1.0, 0.0), (1.0, 0, 0.9, 0.0), (1.0, 0, 1.0, 0.05), (1.2, 0, 1.0, 0.0),
)  # fmt: skip
"""Temperature, top-k, top-p, min-p."""
HONEST: Final = ("honest", "held-out", "foreign-held-out")
"""Kinds that are asked every prompt at all settings, others at two."""
LONG: Final = 300
"""Prompts of more tokens than this are asked one after the other, so that the engine reads them only once."""
COLUMNS: Final = (
    "prompt",
    "prompt_tokens",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "tokens",
    "noise",
    *TESTS,
    "reply_s",
    "check_s",
)


def requests(kind: str) -> Iterator[list[Request]]:
    """The requests of a kind, grouped by prompt."""
    data = json.loads((HERE.parent / "prompts.json").read_text(encoding="utf-8"))
    part = "test" if kind.endswith("held-out") else "fit"
    for number, prompt in enumerate(data["prompts"]):
        if prompt["part"] == part:
            chosen = SETTINGS if kind in HONEST else (SETTINGS[number % 8], SETTINGS[(number * 3 + 5) % 8])
            words = "\n\n".join([*(data["passages"][name] for name in prompt["read"]), prompt["ask"]])
            named = [_request(prompt, words, setting, f"{kind} {number} {turn}") for turn, setting in enumerate(chosen)]
            yield [replace(request, created=request.created + turn) for turn, request in enumerate(named)]


def _request(prompt: dict, words: str, setting: tuple[float, int, float, float], name: str) -> Request:
    temperature, top_k, top_p, min_p = setting
    chat = prompt["kind"] == "chat"
    said = [Message(role, text) for role, text in zip(["user", "assistant"] * 8, prompt["turns"], strict=False)]
    system = [Message("system", prompt["system"])] if prompt["system"] else []
    return Request(
        model=prompt["name"],
        kind="chat" if chat else "completion",
        messages=(*system, *said, Message("user", words)) if chat else (),
        prompt="" if chat else words,
        sampler=SamplerSettings(round(temperature * MICRO), top_k, round(top_p * MICRO), round(min_p * MICRO)),
        max_tokens=TOKENS,
        stop=(),
        tools="",
        tool_choice="auto",
        response_format="",
        level="statistical",
        nonce=hashlib.sha256(name.encode()).digest(),
        created=1_790_000_000,
    )


def collect(model: Path, directory: Path, kinds: Sequence[str]) -> None:
    """Generate and measure answers of these kinds, and write one CSV for each."""
    digest = hashlib.sha256(model.read_bytes()).digest()
    opened = LlamaModel(model)
    replayer = LlamaReplayer(opened, digest=digest, regime="pinned")
    control = LlamaReplayer(opened, digest=digest, regime="free")
    directory.mkdir(parents=True, exist_ok=True)
    provenance = {
        "model": {"sha256": digest.hex(), "description": opened.description},
        "prover": profile_of(opened, "free", context=2048, threads=1).to_json(),
        "verifier": replayer.profile.to_json(),
        "second recomputation": control.profile.to_json(),
        "tokens": TOKENS,
        "settings": [dict(zip(("temperature", "top_k", "top_p", "min_p"), each, strict=True)) for each in SETTINGS],
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    (directory / "provenance.json").write_text(json.dumps(provenance, indent=1) + "\n")
    with tempfile.TemporaryDirectory() as scratch:
        shop = Workshop(model, "model", digest, Path(scratch), parallel=8, regime="free")
        for kind in kinds:
            with built(_maker(kind), shop) as provider, (directory / f"{kind}.csv").open("w", newline="") as file:
                asyncio.run(_measure_all(kind, provider, replayer, control, file))


async def _measure_all(
    kind: str, provider: Dishonest, replayer: LlamaReplayer, control: LlamaReplayer, file: TextIO
) -> None:
    table = csv.writer(file, lineterminator="\n")
    table.writerow(COLUMNS)
    async for bundle, seconds in _answers(kind, provider):
        table.writerow(_row(bundle, seconds, replayer, control))
        file.flush()


def _maker(kind: str) -> Callable[[Workshop], Dishonest]:
    if kind in ("honest", "held-out") or kind.startswith("foreign"):
        return lambda shop: Dishonest(shop.engine())
    return lambda shop: make_cheat(kind, shop)


async def _answers(kind: str, provider: Dishonest) -> AsyncIterator[tuple[Bundle, float]]:
    for group in requests(kind):
        asked = {request.created: request for request in group}
        work = [_as_foreign(kind, request) for request in group] if kind.startswith("foreign") else group
        parallel = 1 if len(provider.engine.reader.render(group[0]).tokens) > LONG else 8
        started = time.process_time()
        done = [bundle async for bundle in answers(provider, iter(work), parallel=parallel)]
        each = (time.process_time() - started) / max(sum(len(bundle.tokens) for bundle in done), 1)
        for bundle in done:
            if kind.startswith("foreign"):
                profile = replace(bundle.profile, sampler="foreign")
                bundle = replace(bundle, request=asked[bundle.request.created], profile=profile)
            yield bundle, each * len(bundle.tokens)


def _as_foreign(kind: str, request: Request) -> Request:
    sampler = request.sampler
    if kind == "foreign-temperature":
        sampler = replace(sampler, temperature=MICRO if sampler.temperature < 850_000 else 300_000)
    return replace(request, sampler=sampler, nonce=secrets.token_bytes(32))


def _row(bundle: Bundle, seconds: float, replayer: LlamaReplayer, control: LlamaReplayer) -> list[str]:
    request, sampler = bundle.request, bundle.request.sampler
    started = time.process_time()
    if bundle.profile.sampler == "gumbel/1":
        check_offline(bundle)
    prompt = replayer.reader.render(request)
    measured = measure(bundle, prompt, replayer, control)
    spent = time.process_time() - started
    fractions = [sampler.temperature / MICRO, sampler.top_k, sampler.top_p / MICRO, sampler.min_p / MICRO]
    found = [f"{measured.statistics[test]:.5f}" if test in measured.statistics else "" for test in TESTS]
    cells = [request.model, len(prompt.tokens), *fractions, measured.tokens, f"{measured.noise:.5f}", *found]
    return [str(cell) for cell in (*cells, f"{seconds:.2f}", f"{spent:.2f}")]


def main() -> None:
    """See the module's docstring."""
    match sys.argv[1:]:
        case ["collect", model, directory, *kinds] if kinds:
            collect(Path(model), Path(directory), kinds)
        case ["fit", directory]:
            print(fit(Path(directory), PACKAGED))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
