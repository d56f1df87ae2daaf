"""Faults: none may pass an audit, each is named, and honest answers raise no alarm."""

from __future__ import annotations

import secrets
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from benchmarks.exact._kit import SMOL, program_of, scaled
from tests.engines.exact.models import write_model
from tests.engines.exact.running import reference_passes
from tests.engines.exact.test_reference import VARIANTS

from assay.apps.figures import Figure, Say
from assay.core.errors import AuditMismatch, EncodingError, ReplayMismatch, TraceMismatch, VerificationError
from assay.core.evidence import evidence_root
from assay.core.request import SamplerSettings
from assay.engines.exact.audit import Examiner, Response, header_of
from assay.engines.exact.challenge import challenge
from assay.engines.exact.convert import convert
from assay.engines.exact.kernels.sampling import draw
from assay.engines.exact.kernels.state import PRODUCTS
from assay.engines.exact.parameters import MATRICES
from assay.engines.exact.program import Program
from assay.engines.exact.program import program_of as laid_out
from assay.engines.exact.record import evidence_leaves, record_root
from assay.engines.exact.reference import Model
from assay.engines.exact.runner import Runner
from assay.engines.exact.tables import exp2_table, sigmoid_table, sine_table
from assay.engines.exact.trace_stream import Computed, write_trace

PROMPT, OUTPUT = 5, 8
FAULTS, TABLES, REAL_FAULTS, HONEST, SEARCH = 20_000, 200, 500, 2_000, 4_000


@dataclass(frozen=True, slots=True)
class Said:
    """A response with everything that its provider has."""

    program: Program
    response: Response
    passes: tuple[Computed, ...]

    def stream(self, roots: Sequence[bytes] | None = None) -> bytes:
        """Its trace, as the provider would send it."""
        header = header_of(self.program, self.response)
        roots = roots_of(self) if roots is None else roots
        plan = header.plan(range(self.response.passes))
        return b"".join(write_trace(header, roots, plan, self.passes.__getitem__))

    def recommitted(self) -> Said:
        """The same with a receipt over what is in it now."""
        evidence = evidence_root(evidence_leaves(roots_of(self), self.response.prompt), self.response.nonce)
        return replace(self, response=replace(self.response, evidence=evidence))


def roots_of(said: Said) -> list[bytes]:
    """What each pass commits to."""
    return [record_root(said.program.layout, each.record) for each in said.passes]


def measure(say: Say) -> Iterator[Figure]:
    """Small models of every variant for the large numbers, SmolLM2 for the rest."""
    with tempfile.TemporaryDirectory() as folder:
        small = [laid_out(convert(write_model(Path(folder) / name, **given))) for name, given in VARIANTS.items()]
        yield from _trials(say, "small", small, scaled(FAULTS))
        yield from _trials(say, SMOL, [program_of(SMOL)], scaled(REAL_FAULTS))
        yield from _tables(say, Path(folder), scaled(TABLES))
        yield from _honest(say, small, scaled(HONEST))
        yield from _search(say, small, scaled(SEARCH))


def answered(program: Program, seed: int) -> Said:
    """An honest answer to an arbitrary prompt."""
    dice = np.random.default_rng(seed)
    nonce = dice.bytes(32)
    tokens = dice.integers(3, min(program.vocabulary, 40_000), PROMPT).tolist()
    runner = Runner(program, sequences=1, positions=PROMPT + OUTPUT, batch=16, threads=1, traced=True)
    passes: list[Computed] = []
    try:
        while len(tokens) < PROMPT + OUTPUT:
            start, part = len(passes), tokens[len(passes) :]
            runner.decode(part, range(start, start + len(part)), 0, [False] * (len(part) - 1) + [True])
            for n in range(len(part)):
                head = runner.head(n).copy() if n == len(part) - 1 else None
                passes.append(Computed(runner.record(n).copy(), runner.body(n).copy(), head))
            index = len(tokens) - PROMPT
            tokens.append(draw(runner.logits(len(part) - 1), SamplerSettings(), nonce, index))
    finally:
        runner.close()
    response = Response(tokens, PROMPT, bytes(32), nonce, SamplerSettings(), nonce)
    return Said(program, response, tuple(passes)).recommitted()


@cache
def examiner_of(program: Program) -> Examiner:
    """One auditor of each model, for all of its responses."""
    return Examiner(program)


def refusal(said: Said, stream: bytes) -> VerificationError | EncodingError | None:
    """How an audit refuses it; None if it holds."""
    try:
        examiner_of(said.program).audit(said.response, [stream])
    except (VerificationError, EncodingError) as error:
        return error
    return None


Fault = Callable[[Said, np.random.Generator], tuple[Said, bytes, Callable[[Exception], bool]]]
"""Makes a faulty response and trace of an honest one, and says whether a refusal names the fault."""


def _accumulator(said: Said, dice: np.random.Generator) -> tuple[Said, bytes, Callable[[Exception], bool]]:
    """One bit of one accumulator."""
    program, position = said.program, int(dice.integers(len(said.passes)))
    each, layers = said.passes[position], said.program.shape.layers
    if each.head is not None and dice.random() < 0.2:
        head = each.head.copy()
        head[dice.integers(head.size)] ^= np.int64(1) << int(dice.integers(62))
        changed, layer, operation = replace(each, head=head), None, "head"
    else:
        layer, kind = int(dice.integers(layers)), int(dice.integers(PRODUCTS))
        body = each.body.copy()
        row = int(program.plan.offsets[kind] + dice.integers(program.plan.sizes[kind]))
        body.reshape(layers, -1)[layer, row] ^= np.int64(1) << int(dice.integers(62))
        changed, operation = replace(each, body=body), MATRICES[kind]
    other = _with_pass(said, position, changed)
    return other, other.stream(), _names(position, layer, operation)


def _activation(said: Said, dice: np.random.Generator) -> tuple[Said, bytes, Callable[[Exception], bool]]:
    """One bit of the record of one pass, under the receipt."""
    position, layout = int(dice.integers(len(said.passes))), said.program.layout
    while layout.name(index := int(dice.integers(layout.chunks * 256)))[1] == "nothing":
        pass
    record = said.passes[position].record.copy()
    record[index] ^= np.int16(1) << np.int16(dice.integers(15))
    other = _with_pass(said, position, replace(said.passes[position], record=record)).recommitted()
    layer, vector = layout.name(index)

    def named(error: Exception) -> bool:
        near = isinstance(error, AuditMismatch) and error.position == position
        return near and (vector in str(error) or error.layer == layer)  # pyrefly: ignore[missing-attribute]

    return other, other.stream(), named


def _uncommitted(said: Said, dice: np.random.Generator) -> tuple[Said, bytes, Callable[[Exception], bool]]:
    """One bit of a record that the receipt does not have."""
    position = int(dice.integers(len(said.passes)))
    record = said.passes[position].record.copy()
    record[dice.integers(record.size)] ^= 1
    other = _with_pass(said, position, replace(said.passes[position], record=record))
    return said, other.stream(roots_of(said)), _at(position)


def _token(said: Said, dice: np.random.Generator) -> tuple[Said, bytes, Callable[[Exception], bool]]:
    """Another token, of prompt or output."""
    position = int(dice.integers(len(said.response.tokens)))
    tokens = [*said.response.tokens]
    tokens[position] = (
        tokens[position] + 1 + int(dice.integers(said.program.vocabulary - 1))
    ) % said.program.vocabulary
    other = replace(said, response=replace(said.response, tokens=tokens))

    def named(error: Exception) -> bool:
        drawn = isinstance(error, ReplayMismatch) and error.step == position - PROMPT
        return drawn or (isinstance(error, AuditMismatch) and error.position == position)

    return other, said.stream(), named


def _seed(said: Said, dice: np.random.Generator) -> tuple[Said, bytes, Callable[[Exception], bool]]:
    """One bit of the sampler's seed."""
    seed = bytearray(said.response.seed)
    seed[dice.integers(32)] ^= 1 << int(dice.integers(8))
    other = replace(said, response=replace(said.response, seed=bytes(seed)))
    return other, said.stream(), lambda error: isinstance(error, ReplayMismatch)


def _order(said: Said, dice: np.random.Generator) -> tuple[Said, bytes, Callable[[Exception], bool]]:
    """Two passes, their roots, or both exchanged."""
    one, two = sorted(dice.choice(len(said.passes), 2, replace=False).tolist())
    roots, passes = roots_of(said), [*said.passes]
    if (how := int(dice.integers(3))) != 1:
        roots[one], roots[two] = roots[two], roots[one]
    if how != 0:
        a, b = passes[one], passes[two]
        passes[one], passes[two] = replace(b, head=a.head), replace(a, head=b.head)
    return said, replace(said, passes=tuple(passes)).stream(roots), lambda error: isinstance(error, TraceMismatch)


def _count(said: Said, dice: np.random.Generator) -> tuple[Said, bytes, Callable[[Exception], bool]]:
    """A token more or fewer of prompt or output."""
    response = said.response
    other = [
        replace(response, prompt=response.prompt + 1),
        replace(response, prompt=response.prompt - 1),
        replace(response, tokens=response.tokens[:-1]),
        replace(response, tokens=[*response.tokens, 3]),
    ][int(dice.integers(4))]
    return replace(said, response=other), said.stream(), lambda error: isinstance(error, TraceMismatch | EncodingError)


def _weight(said: Said, dice: np.random.Generator) -> tuple[Said, bytes, Callable[[Exception], bool]]:
    """One bit of one weight, of the model that the provider computes with."""
    program = said.program
    product = int(dice.integers(len(program.products) - 1))
    packed = program.products[product]
    weights = packed.weights.copy()
    flat = weights.reshape(-1)
    flat[dice.integers(flat.size)] ^= 1 << int(dice.integers(8))
    products = [*program.products]
    products[product] = replace(packed, weights=weights)
    cheap = replace(program, products=tuple(products))
    made = replace(answered(cheap, int(dice.integers(2**31))), program=program)
    layer, kind = divmod(product, PRODUCTS)
    return made, made.stream(), _names(None, layer, MATRICES[kind])


def tables(said: Said, model: Model, dice: np.random.Generator) -> Said | None:
    """The same answer by somebody whose tables have one wrong entry; None if that entry is never used."""
    table = [exp2_table, sigmoid_table, sine_table][int(dice.integers(3))]()
    index = int(dice.integers(table.size))
    table[index] -= 1 << 18  # the reference reads the table of which this is the one copy
    try:
        passes = reference_passes(model, said.response.tokens[:-1])
    finally:
        table[index] += 1 << 18
    layers, made = said.program.shape.layers, []
    for honest, found in zip(said.passes, passes, strict=True):
        record, body = honest.record.copy(), honest.body.copy()
        record[: found.record.size] = found.record
        body.reshape(layers, -1)[:, : found.body.size // layers] = found.body.reshape(layers, -1)
        made.append(Computed(record, body, None if honest.head is None else found.head))
    if all(np.array_equal(one.record, other.record) for one, other in zip(made, said.passes, strict=True)):
        return None
    return replace(said, passes=tuple(made)).recommitted()


KINDS: dict[str, tuple[Fault, int]] = {
    "accumulator": (_accumulator, 8),
    "activation": (_activation, 4),
    "uncommitted": (_uncommitted, 1),
    "token": (_token, 2),
    "seed": (_seed, 1),
    "order": (_order, 1),
    "count": (_count, 1),
    "weight": (_weight, 2),
}
"""Faults, and how often each is tried."""


def _trials(say: Say, name: str, programs: Sequence[Program], count: int) -> Iterator[Figure]:
    dice = np.random.default_rng(11)
    kinds = [kind for kind, (_, often) in KINDS.items() for _ in range(often)]
    missed, unnamed, tried = Counter[str](), Counter[str](), Counter[str]()
    said = answered(programs[0], 0)
    for number in range(count):
        if number % 20 == 0:
            said = answered(programs[number // 20 % len(programs)], number)
        kind = kinds[number % len(kinds)]
        other, stream, named = KINDS[kind][0](said, dice)
        error = refusal(other, stream)
        tried[kind] += 1
        if error is None:
            missed[kind] += not _harmless(kind, other)
        else:
            unnamed[kind] += not named(error)
        if (number + 1) % max(1, count // 10) == 0:
            say(f"{name}: {number + 1} faults, {missed.total()} missed, {unnamed.total()} not named")
    yield Figure(f"faults.{name}.missed", missed.total(), "faults", 0, not missed.total(), count)
    yield Figure(f"faults.{name}.not_named", unnamed.total(), "faults", 0, not unnamed.total(), count)
    for kind in KINDS:
        caught = tried[kind] - missed[kind]
        yield Figure(f"faults.{name}.{kind}", caught, "caught", tried[kind], caught == tried[kind], tried[kind])


def _harmless(kind: str, said: Said) -> bool:
    """A weight that is only ever multiplied by zero is no fault of the answer: the true model gives it too."""
    if kind != "weight":
        return False
    runner = Runner(said.program, sequences=1, positions=PROMPT + OUTPUT, batch=16, threads=1, traced=True)
    try:
        runner.decode(said.response.tokens[:-1], range(said.response.passes), 0, False)
        return all(np.array_equal(runner.body(n), each.body) for n, each in enumerate(said.passes))
    finally:
        runner.close()


def _tables(say: Say, folder: Path, count: int) -> Iterator[Figure]:
    dice, missed, unnamed, tried = np.random.default_rng(13), 0, 0, 0
    models = [convert(folder / name) for name in VARIANTS]
    programs = [laid_out(model) for model in models]
    while tried < count:
        which = int(dice.integers(len(models)))
        made = tables(answered(programs[which], int(dice.integers(2**31))), models[which], dice)
        if made is not None:
            error = refusal(made, made.stream())
            tried += 1
            missed += error is None
            unnamed += error is not None and not isinstance(error, AuditMismatch)
    say(f"{count} wrong tables, {missed} missed, {unnamed} not named")
    yield Figure("faults.small.table", count - missed, "caught", count, not missed, count)
    yield Figure("faults.small.table.not_named", unnamed, "faults", 0, not unnamed, count)


def _honest(say: Say, programs: Sequence[Program], count: int) -> Iterator[Figure]:
    alarms = 0
    for number in range(count):
        said = answered(programs[number % len(programs)], 1_000_000 + number)
        alarms += refusal(said, said.stream()) is not None
    say(f"{count} honest audits, {alarms} alarms")
    yield Figure("honest_audits.alarms", alarms, "alarms", 0, alarms == 0, count)


def _search(say: Say, programs: Sequence[Program], count: int) -> Iterator[Figure]:
    """Errors made to pass: orthogonal to guessed numbers, zero modulo powers of two, rows exchanged, limits."""
    dice, passed = np.random.default_rng(12), 0
    said = answered(programs[0], 2_000_000)
    for number in range(count):
        if number % 50 == 0:
            said = answered(programs[number // 50 % len(programs)], 2_000_000 + number)
        program = said.program
        position = int(dice.integers(len(said.passes)))
        layers = program.shape.layers
        body = said.passes[position].body.copy()
        layer, kind = int(dice.integers(layers)), int(dice.integers(PRODUCTS))
        start, size = int(program.plan.offsets[kind]), int(program.plan.sizes[kind])
        rows = body.reshape(layers, -1)[layer, start : start + size]
        one, two = dice.choice(size, 2, replace=False)
        before = rows.copy()
        match number % 5:
            case 0:  # orthogonal to what another secret gives
                guess = challenge(program, secrets.token_bytes(32), batch=1, repetitions=1).r[0].astype(object)
                rows[one] += int(guess[two]) >> 8
                rows[two] -= int(guess[one]) >> 8
            case 1:
                rows[one] += np.int64(int(dice.integers(1, 4)) << int(dice.choice([31, 32, 33, 46, 47, 60])))
            case 2:
                rows[one], rows[two] = rows[two], rows[one]
            case 3:
                rows[one] = int(dice.choice([2**62 - 1, -(2**62), 2**63 - 1, -(2**63), 2**31, -(2**31)]))
            case _:
                rows[one] += 1 << 46
                rows[two] -= 1 << 46
        if np.array_equal(rows, before):
            continue
        other = _with_pass(said, position, replace(said.passes[position], body=body))
        passed += refusal(other, other.stream()) is None
    say(f"{count} errors made to pass, {passed} passed")
    yield Figure("adversarial_search.passed", passed, "errors", 0, passed == 0, count)


def _with_pass(said: Said, position: int, changed: Computed) -> Said:
    passes = [*said.passes]
    passes[position] = changed
    return replace(said, passes=tuple(passes))


def _names(position: int | None, layer: int | None, operation: str) -> Callable[[Exception], bool]:
    def named(error: Exception) -> bool:
        if not isinstance(error, AuditMismatch):
            return False
        return (position is None or error.position == position) and (error.layer, error.operation) == (layer, operation)

    return named


def _at(position: int) -> Callable[[Exception], bool]:
    return lambda error: isinstance(error, TraceMismatch) and error.position == position
