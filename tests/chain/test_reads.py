"""What referees read out of a call, at the edges: runs of leaves, bytes that end where the call does, extreme numbers,
and where all of it stands in models of every size.

Whatever of this differs from Python would make an honest prover unable to prove, or bind something to a root that does
not have it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from hashlib import sha256
from itertools import product
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.chain.tribunal import Bench
from tests.engines.exact.dispute.meter import SHAPES, shape_of

from assay.chain import contracts
from assay.chain.game import word
from assay.chain.referees import KINDS, USES, Terms, encode
from assay.core.hashing import Digest, digest
from assay.core.keys import keccak256
from assay.core.request import SamplerSettings
from assay.core.tree16 import FAN
from assay.engines.exact import parameters
from assay.engines.exact.dispute import trees
from assay.engines.exact.dispute.catalogue import Catalogue, Weights
from assay.engines.exact.dispute.plan import NumberTarget, Plan, Rules, Section, TokenTarget
from assay.engines.exact.dispute.shape import ENDS, VECTORS, Shape

FRONT = 4128
"""Bytes before what is read; in a dispute, these are terms and numbers of the model."""
TAG = "assay/exact-parameter/1"
DICE = st.integers(0, 2**32).map(Random)
TERMS = ",".join(
    ["bytes32"] * 4 + ["uint256"] * 2 + ["bytes32"] + ["uint256"] * 5 + ["bool"] + ["uint256"] * 2 + ["bytes32"] * 2
    + ["uint256", "int256", "uint256", "bytes32", "uint256"]
)  # fmt: skip
MODEL = ",".join(
    ["uint256"] * 8 + ["int256"] * 2 + ["uint256"] * 2 + ["int256"] * 2 + ["uint256"] * 3 + ["int256"]
    + ["uint256"] * 2 + ["int256", "uint256"]
)  # fmt: skip
"""Types of the two structs, as `opening.vy` has them."""
MOST_RUN = {parameters.FAN: 4, FAN: 8}
"""Leaves that a referee opens side by side at most: of a row of weights; of a record."""


@cache
def bench() -> Bench:
    """With the contract of these tests."""
    from vyper.cli.vyper_compile import compile_files

    paths = [str(Path(contracts.__file__).parent)]
    (found,) = compile_files([Path(__file__).with_name("Reads.vy")], ["bytecode"], paths=paths).values()
    bench = Bench()
    bench.deploy("Reads", bytes.fromhex(found["bytecode"].removeprefix("0x")), None)
    return bench


def ask(name: str, types: str, args: Sequence[int | bytes], tails: Sequence[bytes], front: int = FRONT) -> bytes | None:
    """What a function returns whose last arguments are `tails`, each with its length; the call ends with the last."""
    at = 32 * (len(args) + len(tails)) + front
    head, body = [each if isinstance(each, bytes) else word(each) for each in args], bytes(front)
    for each in tails:
        head.append(word(at))
        body += each
        at += len(each)
    found = bench().call("Reads", keccak256(f"{name}({types})".encode())[:4] + b"".join(head) + body)
    return found and found[0]


def climbed(
    count: int, start: int, fan: int, items: Sequence[Digest], path: Sequence[Digest]
) -> tuple[Digest, int] | None:
    """Root, and bytes of the path that were read."""
    run, way = word(len(items)) + b"".join(items), word(32 * len(path)) + b"".join(path)
    args = (count, start, fan.bit_length() - 1)
    found = ask("climb", "uint256,uint256,uint256,bytes32[],bytes", args, (run, way))
    return found and (found[:32], int.from_bytes(found[32:], "big"))


def leaves_of(count: int) -> list[Digest]:
    """So many."""
    return [digest(TAG, word(n)) for n in range(count)]


def check_run(fan: int, count: int, start: int, many: int) -> None:
    """A run of leaves opens to the root, and to no other with a digest of it changed."""
    levels = trees.levels_of(leaves_of(count), fan)
    items, path = levels[0][start : start + many], trees.prove(levels, start, start + many, fan)
    root = trees.root_of(levels)
    assert climbed(count, start, fan, items, path) == (root, 32 * len(path))
    for part in (items, path):
        for at in range(len(part)):
            spoilt = [*part[:at], bytes(32), *part[at + 1 :]]
            found = climbed(count, start, fan, *((spoilt, path) if part is items else (items, spoilt)))
            assert found is not None
            assert found[0] != root


@pytest.mark.parametrize("fan", MOST_RUN)
def test_all_runs_in_small_trees(fan: int) -> None:
    """Wherever they begin and end, and however little is right of them."""
    for count in (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 15, 16, 17, 20, 31, 32, 33):
        for start, many in product(range(count), range(1, MOST_RUN[fan] + 1)):
            if start + many <= count and (count < 18 or start + many + 9 > count or start % 5 == 0):
                levels = trees.levels_of(leaves_of(count), fan)
                path = trees.prove(levels, start, start + many, fan)
                found = climbed(count, start, fan, levels[0][start : start + many], path)
                assert found == (trees.root_of(levels), 32 * len(path)), (count, start, many)


@given(st.sampled_from(sorted(MOST_RUN)), st.integers(1, 700), DICE)
@settings(deadline=None, max_examples=30)
def test_runs_in_trees(fan: int, count: int, dice: Random) -> None:
    """Of any size."""
    many = dice.randrange(1, min(count, MOST_RUN[fan]) + 1)
    check_run(fan, count, dice.choice([0, count - many, dice.randrange(count - many + 1)]), many)


def test_a_tree_of_other_nodes() -> None:
    """The same leaves in nodes of four are under another root than in nodes of sixteen, if one does not hold them all.
    A leaf opened as if it were of the other tree, with its path as it stands or cut to fit, leads to neither."""
    for count in (5, 16, 17, 64, 65, 300):
        leaves = leaves_of(count)
        levels = {fan: trees.levels_of(leaves, fan) for fan in MOST_RUN}
        roots = {fan: trees.root_of(levels[fan]) for fan in MOST_RUN}
        assert len(set(roots.values())) == 2
        for fan, other in ((4, 16), (16, 4)):
            for start in {0, count // 2, count - 1}:
                own = trees.prove(levels[fan], start, start + 1, fan)
                need = trees.path_length(count, start, start + 1, other)
                for path in (own, own[:need], [*own, *leaves][:need]):
                    found = climbed(count, start, other, [leaves[start]], path)
                    assert found is None or found[0] not in roots.values()


def test_leaves_that_there_are_not() -> None:
    """Behind the last one, none, or of more than can be counted."""
    items = leaves_of(8)
    for fan in MOST_RUN:
        for count, start, many in (
            (1, 1, 1), (1, 0, 2), (5, 5, 1), (5, 4, 2), (0, 0, 1), (9, 2**256 - 1, 1), (9, 2**256 - 8, 8), (9, 0, 0),
            (2**64, 0, 1), (2**128 + 1, 2**128, 1), (2**256 - 1, 2**255, 2), (2**256 - 1, 2**256 - 2, 1),
        ):  # fmt: skip
            assert climbed(count, start, fan, items[:many], leaves_of(60)) is None, (count, start, many)


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 320, 1055, 1056, 1057, 1280, 2048, 2623, 2624, 2625, 4127, 4128])
def test_bytes_at_the_end_of_a_call(length: int) -> None:
    """Are hashed as they are where nothing stands behind them, or something does; cut short they never are."""
    content = Random(length).randbytes(length)
    tag = sha256(TAG.encode()).digest()
    wanted = digest(TAG, content)
    for behind in (0, 1, 31, 32, 1055, 5000):
        if length + behind >= 32:  # less is not read anywhere
            tail = word(length) + content + b"\xff" * behind
            assert ask("hashed", "bytes32,uint256,bytes", (tag, length), (tail,)) == wanted
    for cut in (1, 32, length // 2):
        if 0 < cut <= length:
            tail = word(length) + content[: length - cut]
            assert ask("hashed", "bytes32,uint256,bytes", (tag, length), (tail,)) != wanted


def test_more_bytes_than_a_piece() -> None:
    """Are not hashed at all."""
    tail = word(4128) + bytes(4200)
    for length in (4129, 4200, 2**255, 2**256 - 1):
        assert ask("hashed", "bytes32,uint256,bytes", (bytes(32), length), (tail,)) is None


def leaf_size(span: int, *, wide: bool) -> int:
    """Bytes, as `plan.vy` has it."""
    return (256 * (1 + wide) + 256 // span * 8 + 63) // 64 * 64


def packed(weights: Weights, count: int, *, wide: bool) -> bytes:
    """Leaves of a row."""
    out, blocks = b"", 256 // weights.block
    for leaf in range(-(-count // 256)):
        q, numbers = weights.q[256 * leaf :][:256], slice(blocks * leaf, blocks * (leaf + 1))
        part = struct.pack(f"<256{'H' if wide else 'B'}", *q)
        part += struct.pack(f"<{blocks}i", *weights.scale[numbers]) + struct.pack(
            f"<{blocks}i", *weights.offset[numbers]
        )
        out += part.ljust(leaf_size(weights.block, wide=wide), b"\0")
    return out


def dot(weights: Weights, x: Sequence[int], *, wide: bool, front: int = FRONT, behind: int = 0) -> int | None:
    """What `Products.vy` says."""
    leaves = packed(weights, len(x), wide=wide)
    tails = word(2 * len(x)) + struct.pack(f"<{len(x)}h", *x), word(len(leaves)) + leaves + bytes(behind)
    args = leaf_size(weights.block, wide=wide), weights.block, int(wide), len(x)
    found = ask("dot", "uint256,uint256,bool,uint256,bytes,bytes", args, tails, front)
    return None if found is None else int.from_bytes(found, "big", signed=True)


def row(count: int, span: int, q: Sequence[int], scale: Sequence[int], offset: Sequence[int]) -> Weights:
    """Numbers that repeat over whole leaves."""
    whole = -(-count // 256) * 256
    repeat = [
        [part[k % len(part)] for k in range(n)]
        for part, n in ((q, whole), (scale, whole // span), (offset, whole // span))
    ]
    return Weights(*repeat, span)


LOW, HIGH = -(2**31), 2**31 - 1
FORMATS = [(span, wide) for span in (16, 32, 64, 128, 256) for wide in (False, True)]


@pytest.mark.parametrize(("span", "wide"), FORMATS)
def test_products_of_extremes(span: int, wide: bool) -> None:
    """Sums of lanes neither leave them nor take from the next: all largest weights, all smallest and largest inputs,
    with their signs in every pattern over even and odd lanes, halves, and single lanes that differ from all others."""
    most = 65535 if wide else 255
    inputs: list[Sequence[int]] = [
        (-32768,),
        (32767,),
        (-32768, 32767),
        (32767, -32768),
        (-32768, 0),
        (0, -32768),
        (-1,),
    ]
    inputs += [[-32768] * at + [32767] + [-32768] * (15 - at) for at in range(16)]
    inputs += [[0] * at + [-1] + [0] * (15 - at) for at in range(16)]
    inputs += [[-32768] * 8 + [32767] * 8, [32767] * 8 + [-32768] * 8]
    for pattern in inputs:
        for q, scale, offset in (
            ((most,), (HIGH,), (HIGH,)),
            ((most,), (LOW,), (LOW,)),
            ((most, 0), (HIGH, LOW), (LOW, HIGH)),
            ((0, most), (LOW, HIGH), (0,)),
            ((most - 255, 255), (1,), (0,)),
            ((0,), (HIGH,), (HIGH, 1, LOW)),
        ):
            count = 1024 if pattern in inputs[:4] else max(span, 32)
            x = [pattern[k % len(pattern)] for k in range(count)]
            weights = row(count, span, q, scale, offset)
            assert dot(weights, x, wide=wide) == weights.times(x), (pattern, q, scale)


@given(st.sampled_from(FORMATS), st.integers(1, 64), DICE)
@settings(deadline=None, max_examples=60)
def test_products_of_any_numbers(kind: tuple[int, bool], blocks: int, dice: Random) -> None:
    """Of any length, with nothing or anything behind the call; where the call is shorter than a piece, it fails, and
    gives nothing else."""
    span, wide = kind
    most = 65535 if wide else 255
    count = min(1024, span * blocks)

    def some(low: int, high: int, many: int) -> list[int]:
        return [dice.choice([low, high, dice.randint(low, high)]) for _ in range(many)]

    weights = row(count, span, some(0, most, 256), some(LOW, HIGH, 16), some(LOW, HIGH, 16))
    x = some(-32768, 32767, count)
    assert dot(weights, x, wide=wide, behind=dice.choice([0, 0, 32, 3000])) == weights.times(x)
    assert dot(weights, x, wide=wide, front=dice.randrange(0, 3000)) in (None, weights.times(x))


TABLES = {
    **{name: USES.index(name) for name in USES[1:]},
    "embedding": 20, "turns": 16, "query_bias": 17, "key_bias": 18, "value_bias": 19,
}  # fmt: skip
"""By their numbers in `plan.vy`."""


def some_shape(dice: Random) -> Shape:
    """Of any variant, with sizes that are at no edge, or at one."""

    def size(most: int) -> int:
        return dice.choice([16, 128, 256, 272, 1024, 1040, most, 16 * dice.randrange(1, most // 16 + 1)])

    kv_heads = dice.choice([1, 2, 3, 16])
    heads, wide = kv_heads * dice.choice([1, 2, 7]), dice.choice([16, 64, 80, 256, 272, 512])
    more = {name: dice.random() < 0.5 for name in ("head_norms", "after", "biases")}
    width, feed, vocabulary = size(16384), size(65536), size(1 << 18)
    shape = shape_of(width, dice.choice([1, 2, 126]), heads, kv_heads, wide, feed, vocabulary,
                     window=dice.choice([0, 1, 3, 4096]), **more)  # fmt: skip
    return replace(shape, tied=dice.random() < 0.5)


@pytest.mark.parametrize("name", SHAPES)
def test_where_all_stands_in_real_models(name: str) -> None:
    """Each table's first leaf, and each section's cells, in every layer that is at an end or in the middle."""
    shape, prompt, output = SHAPES[name]
    check_shape(shape, prompt + output - 2, prompt, output, Random(name))


@given(DICE, st.sampled_from([0, 31, 32, 255, 131_000]))
@settings(deadline=None, max_examples=8)
def test_where_all_stands(dice: Random, position: int) -> None:
    """In models of any size, and passes at any place."""
    check_shape(some_shape(dice), position, position + 1, 1, dice)


def check_shape(shape: Shape, position: int, prompt: int, output: int, dice: Random) -> None:
    """Contracts look where Python does."""
    catalogue = Catalogue(shape)
    last = len(shape.layers) - 1
    for (layer, table), placed in catalogue.tables.items():
        if layer in (ENDS, 0, last // 2, last):
            found = ask("table", f"({MODEL}),int256,uint256", (shape.leaf, layer, TABLES[table]), ())
            assert found == word(placed.start) + word(catalogue.count), (layer, table)
    draws = (SamplerSettings(0), SamplerSettings(700_000), SamplerSettings(700_000, top_k=40, top_p=900_000))
    plans = [Plan(shape, TokenTarget(position), Rules(each, bytes(32), prompt)) for each in draws]
    for layer, vector in {(0, "input"), *((n, name) for n in (0, last // 2, last) for name in VECTORS[:-1])}:
        start, size = shape.vector(layer, vector)
        plans.append(Plan(shape, NumberTarget(position, start + dice.choice([0, size - 1, dice.randrange(size)]))))
    start, size = shape.vector(ENDS, "head input")
    plans += [Plan(shape, NumberTarget(position, start + at)) for at in (0, size - 1)]
    for plan in plans:
        for section in plan.sections:
            if section.layer in (ENDS, 0, last // 2, last):
                check_section(plan, section, prompt, output)


def check_section(plan: Plan, section: Section, prompt: int, output: int) -> None:
    """Where it begins, and how its cells are cut."""
    shape, target, rules = plan.shape, plan.target, plan.rules.settings
    zeros, layout = bytes(32), shape.layout
    terms = Terms(
        zeros, zeros, zeros, zeros, prompt, output, zeros, rules.temperature, rules.top_k, rules.top_p, rules.min_p,
        target.position, isinstance(target, TokenTarget), layout.kept_chunks, layout.chunks - layout.kept_chunks, zeros,
        zeros, target.index if isinstance(target, NumberTarget) else 0, 0, plan.count, zeros, section.start,
    )  # fmt: skip
    numbers = b"" if section.layer == ENDS else shape.layers[section.layer].leaf
    args = (encode(terms), shape.leaf, section.layer, KINDS.index(section.kind), USES.index(section.use), numbers)
    found = ask("section", f"({TERMS}),({MODEL}),int256,uint256,uint256", args, ())
    wanted = (section.start, section.rows, section.length, section.piece, section.extra, section.width)
    assert found == b"".join(map(word, wanted)), section
