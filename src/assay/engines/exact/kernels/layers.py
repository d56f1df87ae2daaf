"""A pass of a few tokens through all layers, run by every thread of a team: `reference.forward` at speed."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from assay.engines.exact.kernels.attention import attend
from assay.engines.exact.kernels.freivalds import agrees
from assay.engines.exact.kernels.products import lay_out, multiply_share
from assay.engines.exact.kernels.scalars import Whole, compiled
from assay.engines.exact.kernels.team import meet
from assay.engines.exact.kernels.vectors import added, angles, gated, head, joined, logits_of, normalised
from assay.engines.exact.reference import LOGIT_FRACTION, RESIDUAL

QUERY, KEY, VALUE, OUTPUT, GATE, UP, DOWN = range(7)
"""The products of a layer, in the order of their accumulators."""
PRODUCTS: Final = 7


class Shape(NamedTuple):
    """Numbers of a model; see `reference.Model`."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    feed: int
    epsilon: int
    score_scale: int
    halves: int
    gelu: int


class Plan(NamedTuple):
    """Where each layer's parameters are; an empty slice stands for what a layer does not have."""

    gains: np.ndarray
    """int32: all layers' gains, and the last one's."""
    gain_at: np.ndarray
    """int64 [layers + 1, 6, 3]: start, end and fraction bits of the gains before attention and the feed-forward part,
    of queries and keys, and after the two parts; the last row: of the last normalisation."""
    biases: np.ndarray
    """int64."""
    bias_at: np.ndarray
    """int64 [layers, 3, 2]: start and end of the biases of queries, keys and values."""
    turns: np.ndarray
    """uint64 [layers, head width / 2]."""
    windows: np.ndarray
    """int64 [layers]."""
    products: np.ndarray
    """int64 [7 * layers + 1, fields]: see `products.describe`; the last is the head."""
    offsets: np.ndarray
    """int64 [8]: where the accumulators of a layer's products start within the layer's, and, last, where the fraction
    bits of the input of queries, keys and values are: they are committed to, so that keys can be known without the
    residual stream."""
    sizes: np.ndarray
    """int64 [7]: rows of a layer's products."""
    layer_size: int
    """Numbers that a pass commits to for one layer."""


class Cache(NamedTuple):
    """Keys and values of all sequences; see `attention.attend`."""

    keys: np.ndarray
    """int16 [layers, sequences, kv heads, tiles, head width / 2, 16, 2]."""
    key_fractions: np.ndarray
    """int32 [layers, sequences, kv heads, positions]."""
    values: np.ndarray
    """int16 [layers, sequences, kv heads, positions / 2, head width, 2]."""
    value_fractions: np.ndarray


class Desk(NamedTuple):
    """The working memory of a pass of at most n tokens."""

    stream: np.ndarray
    """int64 [n, width]."""
    x: np.ndarray
    """int16 [n, widest input of a product]."""
    fractions: np.ndarray
    """int64 [n]: of `x`."""
    slots: np.ndarray
    """int8 [slots, 80]: `x` as `products.lay_out` leaves it; `halves_of_slots` and `words_of_slots` are the same."""
    halves_of_slots: np.ndarray
    words_of_slots: np.ndarray
    shift: np.ndarray
    """int64 [n]: see `products.lay_out`."""
    queries: np.ndarray
    """int16 [n, heads, head width]."""
    query_fractions: np.ndarray
    """int64 [n, heads]."""
    mixed: np.ndarray
    """int64 [n, heads, head width]."""
    mixed_fractions: np.ndarray
    """int64 [n, heads]."""
    waves: np.ndarray
    """int64 [n, 2, head width / 2]: sines and cosines."""
    scratch: np.ndarray
    """int64 [threads, 2, widest vector]."""
    narrow: np.ndarray
    """int16 [threads, width]."""
    scores: np.ndarray
    """int64 [threads, positions + 64]."""
    halves: np.ndarray
    """int16 [threads, 2, positions + head width + 64]."""
    barrier: np.ndarray
    """int64 [2]."""


class Test(NamedTuple):
    """What an audit tests the products with; nothing in it (no repetitions): the pass computes them."""

    r: np.ndarray
    """int32 [repetitions, rows of all products]: see `freivalds.agrees`."""
    v: np.ndarray
    """int64 [repetitions, 3, columns of all products]."""
    r_at: np.ndarray
    """int64 [products + 1]: where each product's rows start."""
    v_at: np.ndarray
    """int64 [products + 1]: where each product's columns start."""
    failed: np.ndarray
    """int64 [n]: the first product of each token that is wrong, FRACTION for its committed fraction bits (times the
    layer, see `run`); -1: none."""


FRACTION: Final = PRODUCTS
"""In a token's list of operations (8 a layer), the place of the committed fraction bits."""
MOST_FRACTION: Final = 1 << 20
"""More fraction bits than any vector has."""
_NO_GAIN: Final = np.zeros(0, np.int32)
_NO_WAVE: Final = np.zeros(0, np.int64)
_NO_BIAS: Final = np.zeros(0, np.int64)


@compiled
def run(
    shape: Shape, plan: Plan, cache: Cache, desk: Desk, sequences: np.ndarray, positions: np.ndarray,
    body: np.ndarray, wanted: np.ndarray, head_accumulators: np.ndarray, logits: np.ndarray, test: Test,
    thread: Whole, threads: Whole,
) -> None:  # fmt: skip
    """One thread's share of a pass of n tokens, whose embeddings are in `desk.stream`.

    With a `test`, accumulators are not computed but tested, and everything goes on from those given. What is wrong
    first is noted as 8 * layer + product in `test.failed`; 8 * layers for the head.

    `sequences`, `positions` int64 [n]: tokens of one sequence are in the order of their positions. `body` int64 [n,
    accumulators of all layers], `head_accumulators` int64 [m, vocabulary] and `logits` int32 [m, vocabulary] are
    written, for the tokens `wanted` int64 [m].
    """
    barrier = desk.barrier.ctypes.data
    count = positions.size
    for layer in range(shape.layers):
        _prepare_normalised(shape, plan, desk, layer, 0, count, thread, threads)
        for n in range(thread, count, threads):
            angles(positions[n], plan.turns[layer], desk.waves[n, 0], desk.waves[n, 1])
        meet(barrier, threads)
        base = layer * plan.layer_size
        for n in range(thread, count, threads):
            at = base + plan.offsets[FRACTION]
            if test.r.shape[0] == 0:
                body[n, at] = desk.fractions[n]
            elif body[n, at] != desk.fractions[n]:
                _note(test, n, layer, FRACTION)
        for kind in (QUERY, KEY, VALUE):
            _product(plan, desk, test, layer, kind, count, body, base, thread, threads)
        meet(barrier, threads)
        _heads(shape, plan, cache, desk, layer, sequences, positions, body, base, 0, thread, threads)
        meet(barrier, threads)
        _attention(shape, plan, cache, desk, layer, sequences, positions, thread, threads)
        meet(barrier, threads)
        for n in range(thread, count, threads):
            width = shape.heads * shape.head_width
            x = desk.x[n, :width]
            desk.fractions[n] = joined(desk.mixed[n], desk.mixed_fractions[n], desk.scratch[thread, 0], x)
            _lay_out(desk, x, n, count)
        meet(barrier, threads)
        _product(plan, desk, test, layer, OUTPUT, count, body, base, thread, threads)
        meet(barrier, threads)
        _add(shape, plan, desk, layer, OUTPUT, count, body, base, thread, threads)
        _prepare_normalised(shape, plan, desk, layer, 1, count, thread, threads)
        meet(barrier, threads)
        _product(plan, desk, test, layer, GATE, count, body, base, thread, threads)
        _product(plan, desk, test, layer, UP, count, body, base, thread, threads)
        meet(barrier, threads)
        gate, up = plan.products[PRODUCTS * layer + GATE, 0], plan.products[PRODUCTS * layer + UP, 0]
        for n in range(thread, count, threads):
            at = base + plan.offsets[GATE]
            further = base + plan.offsets[UP]
            f = desk.fractions[n]
            x = desk.x[n, : shape.feed]
            desk.fractions[n] = gated(
                body[n, at : at + shape.feed], f + gate, body[n, further : further + shape.feed], f + up, shape.gelu,
                desk.scratch[thread, 0], x,
            )  # fmt: skip
            _lay_out(desk, x, n, count)
        meet(barrier, threads)
        _product(plan, desk, test, layer, DOWN, count, body, base, thread, threads)
        meet(barrier, threads)
        _add(shape, plan, desk, layer, DOWN, count, body, base, thread, threads)
    meet(barrier, threads)  # wanted token m is not always this thread's token
    for m in range(thread, wanted.size, threads):
        start, end, fraction = plan.gain_at[shape.layers, 0]
        desk.fractions[m] = normalised(
            desk.stream[wanted[m]], RESIDUAL, plan.gains[start:end], fraction, shape.epsilon, desk.scratch[thread, 0],
            desk.x[m, : shape.width],
        )  # fmt: skip
        _lay_out(desk, desk.x[m, : shape.width], m, wanted.size)
    meet(barrier, threads)
    if wanted.size:
        last = PRODUCTS * shape.layers
        if test.r.shape[0] == 0:
            multiply_share(
                plan.products[last], desk.slots, desk.shift[: wanted.size], head_accumulators, 0, thread, threads
            )
        for m in range(thread, wanted.size if test.r.shape[0] else 0, threads):
            if not _tested(test, last, head_accumulators[m], desk.x[m, : shape.width]):
                _note(test, wanted[m], shape.layers, 0)
        meet(barrier, threads)
        size = logits.shape[1]
        low, high = size * thread // threads, size * (thread + 1) // threads
        for m in range(wanted.size):
            shift = desk.fractions[m] + plan.products[last, 0] - LOGIT_FRACTION
            logits_of(head_accumulators[m, low:high], shift, logits[m, low:high])
    meet(barrier, threads)


@compiled
def _lay_out(desk: Desk, x: np.ndarray, token: Whole, tokens: Whole) -> None:
    lay_out(x, token, tokens, desk.slots, desk.halves_of_slots, desk.words_of_slots, desk.shift)


@compiled
def remember(
    shape: Shape, plan: Plan, cache: Cache, desk: Desk, sequences: np.ndarray, positions: np.ndarray, body: np.ndarray
) -> None:
    """Put the keys and values of n tokens into the cache, from what their passes committed to; one thread's work.

    Of `body` int64 [n, accumulators of all layers] it reads the accumulators of keys and values, and the fraction bits.
    """
    for layer in range(shape.layers):
        base = layer * plan.layer_size
        for n in range(positions.size):
            desk.fractions[n] = min(max(body[n, base + plan.offsets[FRACTION]], -MOST_FRACTION), MOST_FRACTION)
            angles(positions[n], plan.turns[layer], desk.waves[n, 0], desk.waves[n, 1])
        _heads(shape, plan, cache, desk, layer, sequences, positions, body, base, shape.heads, 0, 1)


@compiled
def _prepare_normalised(
    shape: Shape, plan: Plan, desk: Desk, layer: Whole, part: Whole, count: Whole, thread: Whole, threads: Whole
) -> None:
    start, end, fraction = plan.gain_at[layer, part]
    gain = plan.gains[start:end]
    for n in range(thread, count, threads):
        x = desk.x[n, : shape.width]
        desk.fractions[n] = normalised(
            desk.stream[n], RESIDUAL, gain, fraction, shape.epsilon, desk.scratch[thread, 0], x
        )
        _lay_out(desk, x, n, count)


@compiled
def _product(
    plan: Plan, desk: Desk, test: Test, layer: Whole, kind: Whole, count: Whole, body: np.ndarray, base: Whole,
    thread: Whole, threads: Whole,
) -> None:  # fmt: skip
    product = PRODUCTS * layer + kind
    at = base + plan.offsets[kind]
    if test.r.shape[0] == 0:
        multiply_share(plan.products[product], desk.slots, desk.shift[:count], body, at, thread, threads)
        return
    columns = test.v_at[product + 1] - test.v_at[product]
    for n in range(thread, count, threads):
        if not _tested(test, product, body[n, at : at + plan.sizes[kind]], desk.x[n, :columns]):
            _note(test, n, layer, kind)


@compiled
def _tested(test: Test, product: Whole, y: np.ndarray, x: np.ndarray) -> bool:
    rows = slice(test.r_at[product], test.r_at[product + 1])
    columns = slice(test.v_at[product], test.v_at[product + 1])
    for repetition in range(test.r.shape[0]):
        if not agrees(test.r[repetition, rows], y, test.v[repetition, :, columns], x):
            return False
    return True


@compiled
def _note(test: Test, n: Whole, layer: Whole, operation: Whole) -> None:
    if test.failed[n] < 0:
        test.failed[n] = (PRODUCTS + 1) * layer + operation


@compiled
def _add(
    shape: Shape, plan: Plan, desk: Desk, layer: Whole, kind: Whole, count: Whole, body: np.ndarray, base: Whole,
    thread: Whole, threads: Whole,
) -> None:  # fmt: skip
    """A part's result onto the residual stream. Each token is added and then normalised by the same thread."""
    start, end, gain_fraction = plan.gain_at[layer, 4 if kind == OUTPUT else 5]
    fraction = plan.products[PRODUCTS * layer + kind, 0]
    at = base + plan.offsets[kind]
    for n in range(thread, count, threads):
        added(
            desk.stream[n], body[n, at : at + shape.width], desk.fractions[n] + fraction, plan.gains[start:end],
            gain_fraction, shape.epsilon, desk.scratch[thread],
        )  # fmt: skip


@compiled
def _heads(
    shape: Shape, plan: Plan, cache: Cache, desk: Desk, layer: Whole, sequences: np.ndarray, positions: np.ndarray,
    body: np.ndarray, base: Whole, first: Whole, thread: Whole, threads: Whole,
) -> None:  # fmt: skip
    """Queries, keys and values of all tokens; without queries if `first` is the number of their heads, not 0."""
    width = shape.head_width
    kinds = shape.heads + 2 * shape.kv_heads - first
    for task in range(thread, positions.size * kinds, threads):
        n, h = task // kinds, first + task % kinds
        kind = QUERY if h < shape.heads else KEY if h < shape.heads + shape.kv_heads else VALUE
        h -= 0 if kind == QUERY else shape.heads if kind == KEY else shape.heads + shape.kv_heads
        start, end = plan.bias_at[layer, kind]
        bias = plan.biases[start + h * width : start + (h + 1) * width] if end > start else _NO_BIAS
        gain, gain_fraction = _NO_GAIN, np.int64(0)
        if kind != VALUE:
            start, end, gain_fraction = plan.gain_at[layer, 2 + kind]
            gain = plan.gains[start:end]
        sines = desk.waves[n, 0] if kind != VALUE else _NO_WAVE
        at = base + plan.offsets[kind] + h * width
        fraction = desk.fractions[n] + plan.products[PRODUCTS * layer + kind, 0]
        out = desk.queries[n, h] if kind == QUERY else desk.narrow[thread, :width]
        fraction = head(
            body[n, at : at + width], fraction, bias, gain, gain_fraction, shape.epsilon, sines, desk.waves[n, 1],
            shape.halves, desk.scratch[thread, :, :width], out,
        )  # fmt: skip
        position, sequence = positions[n], sequences[n]
        if kind == QUERY:
            desk.query_fractions[n, h] = fraction
        elif kind == KEY:
            cache.key_fractions[layer, sequence, h, position] = fraction
            tile = cache.keys[layer, sequence, h, position // 16]
            for i in range(width):
                tile[i // 2, position % 16, i % 2] = out[i]
        else:
            cache.value_fractions[layer, sequence, h, position] = fraction
            pair = cache.values[layer, sequence, h, position // 2]
            for i in range(width):
                pair[i, position % 2] = out[i]


@compiled
def _attention(
    shape: Shape, plan: Plan, cache: Cache, desk: Desk, layer: Whole, sequences: np.ndarray, positions: np.ndarray,
    thread: Whole, threads: Whole,
) -> None:  # fmt: skip
    group = shape.heads // shape.kv_heads
    for task in range(thread, positions.size * shape.heads, threads):
        n, h = task // shape.heads, task % shape.heads
        s, p = sequences[n], positions[n]
        start = max(0, p + 1 - plan.windows[layer]) if plan.windows[layer] else 0
        desk.mixed_fractions[n, h] = attend(
            desk.queries[n, h], desk.query_fractions[n, h], cache.keys[layer, s, h // group],
            cache.key_fractions[layer, s, h // group], cache.values[layer, s, h // group],
            cache.value_fractions[layer, s, h // group], start, p, shape.score_scale, desk.scores[thread],
            desk.halves[thread], desk.scratch[thread, 0, : shape.head_width], desk.mixed[n, h],
        )  # fmt: skip
