"""Vectors of the exact semantics: functions at their edges, small models of every variant, and a real one."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from gguf import GGMLQuantizationType as Kind
from tests.engines.exact.models import Dice, write_model
from tests.engines.exact.running import Pass, kernel_passes, reference_passes, running

from assay.core.evidence import evidence_root
from assay.engines.exact import reference, whole
from assay.engines.exact.challenge import challenge
from assay.engines.exact.convert import convert
from assay.engines.exact.parameters import Parameters
from assay.engines.exact.program import Program, program_of
from assay.engines.exact.record import both_parts, chunk_digests, evidence_leaves, root_of
from assay.engines.exact.reference import Gain, Model
from assay.engines.exact.tables import exp2_table, sigmoid_table, sine_table, turns_per_position

MODELS: dict[str, dict[str, Any]] = {
    "llama": {"layers": 2},
    "llama-factors": {"layers": 1, "factors": True, "tied": True, "kind": Kind.Q8_0},
    "llama-f16": {"layers": 1, "kind": Kind.F16},
    "qwen2": {"architecture": "qwen2", "layers": 1, "kind": Kind.Q5_0},
    "qwen3": {"architecture": "qwen3", "layers": 1, "kind": Kind.Q5_1},
    "gemma3": {"architecture": "gemma3", "layers": 6, "kind": Kind.Q4_0, "tied": True, "window": 3},
}
TOKENS = (1, 104, 101, 108, 108, 111, 287, 0)
PROMPT = 5
NONCE = bytes(range(32))
REAL = "exact/smollm2-135m.json"
"""The one file that takes a real model to write."""
REAL_TOKENS = (504, 3575, 282, 4649, 314, 7042, 30)
"""For SmolLM2-135M: `The capital of France is Paris.`"""
REAL_PROMPT = 5
EDGES = (0, 1, -1, 2, 3, -3, 32767, -32768, 2**31, 2**47 - 1, 2**61, 2**62 - 1, -(2**62) + 1)


def numbers(label: str, count: int, bits: int) -> np.ndarray:
    """int64 [count] out of SHAKE-256, as in the vectors of traces."""
    return np.frombuffer(hashlib.shake_256(label.encode()).digest(8 * count), ">i8").astype(np.int64) >> (64 - bits)


def words(values: np.ndarray) -> str:
    """SHA-256 of numbers as 8 bytes each, little-endian."""
    return hashlib.sha256(np.ascontiguousarray(values.astype("<i8"))).hexdigest()


def build() -> dict[str, Any]:
    """The files' contents, but the real model's."""
    with tempfile.TemporaryDirectory() as temporary:
        return {"functions": _functions(), "operations": _operations(), "models": list(_models(Path(temporary)))}


def _functions() -> dict[str, Any]:
    tables = {"exp2": exp2_table(), "sigmoid": sigmoid_table(), "sine": sine_table()}
    exponents = [0, 1, 63, 64, 65535, 65536, 65537, 15 << 16, (16 << 16) - 1, 16 << 16, 17 << 16, 2**41]
    arguments = [0, 1, -1, 255, 256, 257, -65536, 2**20 - 1, 2**20, -(2**20), 2**31 - 1, -(2**31) + 1]
    turns = [0, 1, 2**52 - 1, 2**52, 2**61, 2**62, 2**63 - 1, 2**63, 3 * 2**62, 2**64 - 1]
    halves = [(7, 2), (-7, 2), (5, 10), (-5, 10), (-15, 10), (2**60, 2**40 - 1), (-(2**60), 3)]
    vectors = [[0, 0], [1, -2], [32767, -32768], [65535, 1], [2**62 - 1, -(2**62) + 1, 12345], [-3, 2**40]]
    return {
        "tables": {
            name: {"entries": len(table), "sha256": words(table)} for name, table in tables.items()
        },
        "round_shift": [
            [x, by, int(whole.round_shift(np.int64(x), by))]
            for x in EDGES
            for by in (-100, -62, -40, -1, 0, 1, 2, 31, 62, 63)
        ],
        "narrow": [
            {"x": x, "fraction": 20, "activations": y.tolist(), "fraction_after": f}
            for x in vectors
            for y, f in [whole.narrow(np.array(x), 20)]
        ],
        "exp2_negative": [[x, int(whole.exp2_negative(np.array(x))[()])] for x in exponents],
        "sigmoid": [[x, int(whole.sigmoid(np.array(x))[()])] for x in arguments],
        "sine": [[str(t), *(int(part[0]) for part in whole.sine_and_cosine(np.array([t], np.uint64)))] for t in turns],
        "divide": [[x, by, int(whole.divide(np.array(x), by))] for x, by in halves],
        "silu": [[x, int(reference.activate(np.array(x), "silu"))] for x in arguments],
        "gelu": [[x, int(reference.activate(np.array(x), "gelu"))] for x in arguments],
        "turns": [
            {"base": base, "half": half, "factors": list(factors), "turns": [str(t) for t in turns_per_position(
                _decimal(base), half, tuple(map(_decimal, factors)))]}
            for base, half, factors in (("10000", 8, ()), ("1000000", 4, ()), ("500000", 4, ("1", "1.5", "8", "32")))
        ],
    }  # fmt: skip


def _decimal(text: str) -> Decimal:
    return Decimal(text)


def _operations() -> dict[str, Any]:
    gain = Gain(numbers("gain", 64, 16), 12)
    gain = Gain(np.clip(gain.weight, -32767, 32767), gain.fraction)
    model = cast("Model", SimpleNamespace(score_scale=6051102))
    norms: list[dict[str, Any]] = []
    for bits, fraction, epsilon in ((30, 16, 42950), (62, 40, 42950), (10, 30, 0), (1, 16, 4295), (48, -20, 2**31)):
        y, f = reference.normalise(numbers("norm", 64, bits), fraction, gain, epsilon)
        norms.append({"bits": bits, "fraction": fraction, "epsilon": epsilon, "first": y[:4].tolist(),
                      "sha256": words(y), "fraction_after": f})  # fmt: skip
    turned: list[dict[str, Any]] = []
    for halves in (False, True):
        turn = numbers("turn", 8, 64).view(np.uint64)
        turned.append(
            {"halves": halves, "y": reference.turn_heads(numbers("head", 16, 31), turn, halves=halves).tolist()}
        )
    heads: list[dict[str, Any]] = []
    for count, spread in ((1, 0), (20, 0), (20, 3), (300, 40)):
        keys = np.clip(numbers("keys", 16 * count, 16), -32767, 32767).reshape(count, 16)
        values = np.clip(numbers("values", 16 * count, 16), -32767, 32767).reshape(count, 16)
        query = np.clip(numbers("query", 16, 16), -32767, 32767)
        pairs = [(k, 14 + i % (spread + 1)) for i, k in enumerate(keys)]
        others = [(v, 9 + i * 7 % (spread + 1)) for i, v in enumerate(values)]
        y, f = reference.attend(model, query, 13, pairs, others)
        heads.append({"positions": count, "spread": spread, "mixed": y.tolist(), "fraction_after": f})
    return {"normalise": norms, "turn": turned, "attend": heads}


def passes_of(passes: Sequence[Pass], prompt: int, kept: int) -> dict[str, Any]:
    """What passes over a prompt and an output commit to."""
    roots = [
        both_parts(*(root_of(chunk_digests(part.astype(np.int16).reshape(-1, 256))) for part in parts))
        for parts in (np.split(each.record, [kept * 256]) for each in passes)
    ]
    rows = [
        {"logits": words(each.logits), "body": words(each.body), "head": words(each.head), "record": words(each.record),
         "root": root.hex()}
        for each, root in zip(passes, roots, strict=True)
    ]  # fmt: skip
    return {"passes": rows, "evidence": evidence_root(evidence_leaves(roots, prompt), NONCE).hex()}


def _models(folder: Path) -> Iterator[dict[str, Any]]:
    for name, given in MODELS.items():
        path = write_model(folder / name, **given, dice=Dice(name))
        model = convert(path)
        parameters = Parameters(model)
        program = program_of(model)
        yield {
            "name": name,
            "file": hashlib.sha256(path.read_bytes()).hexdigest(),
            "leaves": len(parameters.digests),
            "numbers": parameters.numbers.hex(),
            "layers": parameters.roots[0].hex(),
            "parameters": parameters.roots[1].hex(),
            "root": parameters.root.hex(),
            "challenge": _challenge(program),
            **passes_of(reference_passes(model, TOKENS), PROMPT, program.layout.kept_chunks),
        }


def _challenge(program: Program) -> dict[str, Any]:
    """Two repetitions: r in the order of the products, and W^T r for each number of a record's second part."""
    test = challenge(program, NONCE, batch=1, repetitions=2)
    body = test.r[:, : program.body].reshape(2, program.shape.layers, -1)[:, :, : program.plan.layer_size]
    r = np.concatenate([body.reshape(2, -1), test.r[:, program.body : program.body + program.vocabulary]], axis=1)
    inputs = (program.layout.chunks - program.layout.kept_chunks) * 256
    v = sum(test.v[:, digit].astype(object) << 12 * digit for digit in range(test.v.shape[1]))
    v[:, 2 * inputs - v.shape[1] : inputs] += v[:, inputs:]
    numbers = b"".join(number.to_bytes(16, "little", signed=True) for number in v[:, :inputs].reshape(-1).tolist())
    return {"r": words(r), "first": r[:, :4].tolist(), "v": hashlib.sha256(numbers).hexdigest()}


def real(program: Program) -> dict[str, Any]:
    """What the real model commits to."""
    with running(program, positions=len(REAL_TOKENS)) as runner:
        done = passes_of(kernel_passes(runner, REAL_TOKENS, [16]), REAL_PROMPT, program.layout.kept_chunks)
    return {"model": "smollm2-135m", "root": program.root.hex(), "tokens": REAL_TOKENS, "prompt": REAL_PROMPT, **done}
