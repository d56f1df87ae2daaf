"""A pass of a few tokens through all layers, run by every thread of a team: `reference.forward` at speed."""

from __future__ import annotations

import numpy as np

from assay.engines.exact.kernels.attention import TOGETHER, attend
from assay.engines.exact.kernels.freivalds import add_columns, add_rows
from assay.engines.exact.kernels.packing import CHUNK, unpack
from assay.engines.exact.kernels.products import lay_out, multiply_share
from assay.engines.exact.kernels.scalars import Whole, compiled
from assay.engines.exact.kernels.state import (
    DOWN,
    GATE,
    KEY,
    MOST,
    OUTPUT,
    PRODUCTS,
    QUERY,
    UP,
    VALUE,
    Cache,
    Desk,
    Plan,
    Shape,
    Test,
)
from assay.engines.exact.kernels.team import meet
from assay.engines.exact.kernels.vectors import added, angles, gated, head, joined, logits_of, normalised
from assay.engines.exact.reference import LOGIT_FRACTION, RESIDUAL


@compiled
def run(
    shape: Shape, plan: Plan, cache: Cache, desk: Desk, sequences: np.ndarray, positions: np.ndarray,
    record: np.ndarray, body: np.ndarray, stride: Whole, wanted: np.ndarray, head_accumulators: np.ndarray,
    logits: np.ndarray, test: Test, thread: Whole, threads: Whole,
) -> None:  # fmt: skip
    """One thread's share of a pass of n tokens, whose embeddings are in `desk.stream`.

    With a `test`, accumulators are not computed but unpacked, and everything goes on from them (`stride` is 0); both
    sums of the test are in it afterwards.

    `sequences`, `positions` int64 [n]: tokens of one sequence are in the order of their positions. Written are `record`
    int16 [n, record size]; `body` int64 [n, accumulators], those of a layer `stride` after those of the one before (0:
    over them, if nobody needs them); `head_accumulators` int64 [m, vocabulary] and `logits` int32 [m, vocabulary] of
    the tokens `wanted` int64 [m].
    """
    barrier = desk.barrier.ctypes.data
    count = positions.size
    for layer in range(shape.layers):
        base, first = layer * stride, layer * plan.inputs_step
        if test.r.shape[0]:
            for n in range(thread, count, threads):
                _unpack(plan, test, layer, n, test.places[n, layer], body[n])
        _normalise(shape, plan, desk, test, layer, 0, count, record, first + plan.inputs[QUERY], thread, threads)
        for n in range(thread, count, threads):
            angles(positions[n], plan.turns[layer], desk.waves[n, 0], desk.waves[n, 1])
        meet(barrier, threads)
        _products(plan, desk, test, layer, QUERY, VALUE, count, body, base, thread, threads)
        meet(barrier, threads)
        _heads(shape, plan, cache, desk, layer, sequences, positions, record, body, base, thread, threads)
        meet(barrier, threads)
        _attention(shape, plan, cache, desk, layer, sequences, positions, thread, threads)
        meet(barrier, threads)
        width, at = shape.heads * shape.head_width, first + plan.inputs[OUTPUT]
        for n in range(thread, count, threads):
            x = record[n, at : at + width]
            desk.fractions[n] = joined(desk.mixed[n], desk.mixed_fractions[n], desk.scratch[thread, 0], x)
            record[n, at + width] = min(max(desk.fractions[n], -MOST), MOST)
            _lay_out(desk, test, x, n, count)
        meet(barrier, threads)
        _products(plan, desk, test, layer, OUTPUT, OUTPUT, count, body, base, thread, threads)
        meet(barrier, threads)
        _add(shape, plan, desk, layer, OUTPUT, count, body, base, thread, threads)
        _normalise(shape, plan, desk, test, layer, 1, count, record, first + plan.inputs[GATE], thread, threads)
        meet(barrier, threads)
        _products(plan, desk, test, layer, GATE, UP, count, body, base, thread, threads)
        meet(barrier, threads)
        gate, up = plan.products[PRODUCTS * layer + GATE, 0], plan.products[PRODUCTS * layer + UP, 0]
        one, other = base + plan.offsets[GATE], base + plan.offsets[UP]
        at = first + plan.inputs[DOWN]
        for n in range(thread, count, threads):
            f = desk.fractions[n]
            x = record[n, at : at + shape.feed]
            desk.fractions[n] = gated(
                body[n, one : one + shape.feed], f + gate, body[n, other : other + shape.feed], f + up, shape.gelu,
                desk.scratch[thread, 0], x,
            )  # fmt: skip
            record[n, at + shape.feed] = min(max(desk.fractions[n], -MOST), MOST)
            _lay_out(desk, test, x, n, count)
        meet(barrier, threads)
        _products(plan, desk, test, layer, DOWN, DOWN, count, body, base, thread, threads)
        meet(barrier, threads)
        _add(shape, plan, desk, layer, DOWN, count, body, base, thread, threads)
        for n in range(thread, count if test.r.shape[0] else 0, threads):
            _test_inputs(plan, test, layer, n, record[n])
    meet(barrier, threads)
    _finish(shape, plan, desk, count, record, wanted, head_accumulators, logits, test, thread, threads)
    meet(barrier, threads)


@compiled
def _finish(
    shape: Shape, plan: Plan, desk: Desk, count: Whole, record: np.ndarray, wanted: np.ndarray,
    head_accumulators: np.ndarray, logits: np.ndarray, test: Test, thread: Whole, threads: Whole,
) -> None:  # fmt: skip
    """The last normalisation of all tokens, and the head of those that are wanted."""
    start, end, fraction = plan.gain_at[shape.layers, 0]
    at = plan.inputs[QUERY] + shape.layers * plan.inputs_step
    for n in range(thread, count, threads):
        desk.fractions[n] = normalised(
            desk.stream[n], RESIDUAL, plan.gains[start:end], fraction, shape.epsilon, desk.scratch[thread, 0],
            record[n, at : at + shape.width],
        )  # fmt: skip
        record[n, at + shape.width] = min(max(desk.fractions[n], -MOST), MOST)
    meet(desk.barrier.ctypes.data, threads)
    for m in range(thread, wanted.size, threads):
        _lay_out(desk, test, record[wanted[m], at : at + shape.width], m, wanted.size)
    meet(desk.barrier.ctypes.data, threads)
    if not wanted.size:
        return
    last, size = PRODUCTS * shape.layers, logits.shape[1]
    if test.r.shape[0] == 0:
        multiply_share(
            plan.products[last], desk.slots, desk.shift[: wanted.size], head_accumulators, 0, thread, threads
        )
    for m in range(thread, wanted.size if test.r.shape[0] else 0, threads):
        _unpack(plan, test, shape.layers, wanted[m], test.head_places[wanted[m]], head_accumulators[m])
        _test_head_input(plan, test, wanted[m], record[wanted[m]])
    meet(desk.barrier.ctypes.data, threads)
    low, high = size * thread // threads, size * (thread + 1) // threads
    for m in range(wanted.size):
        shift = desk.fractions[wanted[m]] + plan.products[last, 0] - LOGIT_FRACTION
        logits_of(head_accumulators[m, low:high], shift, logits[m, low:high])


@compiled
def _lay_out(desk: Desk, test: Test, x: np.ndarray, token: Whole, tokens: Whole) -> None:
    """Prepare an input of products, if they are to be computed."""
    if test.r.shape[0] == 0:
        lay_out(x, token, tokens, desk.slots, desk.halves_of_slots, desk.words_of_slots, desk.shift)


@compiled
def remember(
    shape: Shape, plan: Plan, cache: Cache, sequences: np.ndarray, positions: np.ndarray, record: np.ndarray
) -> None:
    """Put the keys and values of n tokens into the cache, from their records; one thread's work."""
    size = shape.kv_heads * shape.head_width
    for layer in range(shape.layers):
        for n in range(positions.size):
            for kind in (KEY, VALUE):
                at = layer * plan.kept_step + plan.kept[kind - KEY]
                for h in range(shape.kv_heads):
                    x = record[n, at + h * shape.head_width : at + (h + 1) * shape.head_width]
                    _keep(cache, layer, kind, h, sequences[n], positions[n], x, np.int64(record[n, at + size + h]))


@compiled
def _keep(
    cache: Cache, layer: Whole, kind: Whole, h: Whole, sequence: Whole, position: Whole, x: np.ndarray, fraction: Whole
) -> None:
    """A head's keys or values into the cache."""
    if kind == KEY:
        cache.key_fractions[layer, sequence, h, position] = fraction
        tile = cache.keys[layer, sequence, h, position // 16]
        for i in range(x.size):
            tile[i // 2, position % 16, i % 2] = x[i]
    else:
        cache.value_fractions[layer, sequence, h, position] = fraction
        pair = cache.values[layer, sequence, h, position // 2]
        for i in range(x.size):
            pair[i, position % 2] = x[i]


@compiled
def _normalise(
    shape: Shape, plan: Plan, desk: Desk, test: Test, layer: Whole, part: Whole, count: Whole, record: np.ndarray,
    at: Whole, thread: Whole, threads: Whole,
) -> None:  # fmt: skip
    """The input of a layer's part, into the record at `at`."""
    start, end, fraction = plan.gain_at[layer, part]
    for n in range(thread, count, threads):
        x = record[n, at : at + shape.width]
        desk.fractions[n] = normalised(
            desk.stream[n], RESIDUAL, plan.gains[start:end], fraction, shape.epsilon, desk.scratch[thread, 0], x
        )
        record[n, at + shape.width] = min(max(desk.fractions[n], -MOST), MOST)
        _lay_out(desk, test, x, n, count)


@compiled
def _unpack(plan: Plan, test: Test, layer: Whole, n: Whole, place: Whole, out: np.ndarray) -> None:
    """A layer's accumulators, or the head's, from an address, and their sums. As late as this: they are still in the
    cache when they are used."""
    first = layer * ((plan.layer_size + CHUNK - 1) // CHUNK)
    for chunk in range(out.size // CHUNK):
        width, to = np.int64(test.widths[n, first + chunk]), out[chunk * CHUNK :].ctypes.data
        unpack(width, place, to)
        place += width * CHUNK
        for repetition in range(test.r.shape[0]):
            r = test.r[repetition, (first + chunk) * CHUNK :].ctypes.data
            add_rows(r, to, width, test.rows[n, repetition])


@compiled
def _test_inputs(plan: Plan, test: Test, layer: Whole, n: Whole, record: np.ndarray) -> None:
    """The sums over the chunks of a record that are finished with this layer."""
    start, last = plan.inputs[QUERY], layer == plan.windows.size - 1
    end = record.size - start if last else (layer + 1) * plan.inputs_step
    for chunk in range(layer * plan.inputs_step // CHUNK, end // CHUNK):
        x = record[start + chunk * CHUNK :].ctypes.data
        for repetition in range(test.r.shape[0]):
            add_columns(test.v[repetition], chunk * CHUNK, x, test.columns[n, repetition])


@compiled
def _test_head_input(plan: Plan, test: Test, n: Whole, record: np.ndarray) -> None:
    """Those over the input of the head."""
    inputs = record.size - plan.inputs[QUERY]
    ends = test.v.shape[2] - inputs
    for at in range(0, ends, CHUNK):
        x = record[record.size - ends + at :].ctypes.data
        for repetition in range(test.r.shape[0]):
            add_columns(test.v[repetition], inputs + at, x, test.columns[n, repetition])


@compiled
def _products(
    plan: Plan, desk: Desk, test: Test, layer: Whole, kind: Whole, last: Whole, count: Whole, body: np.ndarray,
    base: Whole, thread: Whole, threads: Whole,
) -> None:  # fmt: skip
    """The products `kind` to `last` of a layer, which share an input, if they are to be computed."""
    for each in range(kind, last + 1 if test.r.shape[0] == 0 else 0):
        fields = plan.products[PRODUCTS * layer + each]
        multiply_share(fields, desk.slots, desk.shift[:count], body, base + plan.offsets[each], thread, threads)


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
    record: np.ndarray, body: np.ndarray, base: Whole, thread: Whole, threads: Whole,
) -> None:  # fmt: skip
    """Queries, keys and values of all tokens."""
    width = shape.head_width
    kinds = shape.heads + 2 * shape.kv_heads
    for task in range(thread, positions.size * kinds, threads):
        n, h = task // kinds, task % kinds
        kind = QUERY if h < shape.heads else KEY if h < shape.heads + shape.kv_heads else VALUE
        h -= 0 if kind == QUERY else shape.heads if kind == KEY else shape.heads + shape.kv_heads
        start, end = plan.bias_at[layer, kind]
        bias = plan.biases[start + h * width : start + (h + 1) * width] if end > start else plan.biases[:0]
        gain, gain_fraction = plan.gains[:0], np.int64(0)
        if kind != VALUE:
            start, end, gain_fraction = plan.gain_at[layer, 2 + kind]
            gain = plan.gains[start:end]
        sines = desk.waves[n, 0] if kind != VALUE else desk.waves[n, 0, :0]
        at = base + plan.offsets[kind] + h * width
        fraction = desk.fractions[n] + plan.products[PRODUCTS * layer + kind, 0]
        kept = layer * plan.kept_step + plan.kept[max(kind - KEY, 0)]
        out = desk.queries[n, h] if kind == QUERY else record[n, kept + h * width : kept + (h + 1) * width]
        fraction = head(
            body[n, at : at + width], fraction, bias, gain, gain_fraction, shape.epsilon, sines, desk.waves[n, 1],
            shape.halves, desk.scratch[thread], out,
        )  # fmt: skip
        if kind == QUERY:
            desk.query_fractions[n, h] = fraction
        else:
            record[n, kept + shape.kv_heads * width + h] = min(max(fraction, -MOST), MOST)
            _keep(cache, layer, kind, h, sequences[n], positions[n], out, fraction)


@compiled
def _attention(
    shape: Shape, plan: Plan, cache: Cache, desk: Desk, layer: Whole, sequences: np.ndarray, positions: np.ndarray,
    thread: Whole, threads: Whole,
) -> None:  # fmt: skip
    group = shape.heads // shape.kv_heads
    parts = (group + TOGETHER - 1) // TOGETHER
    for task in range(thread, positions.size * shape.kv_heads * parts, threads):
        n, part = task // (shape.kv_heads * parts), task % (shape.kv_heads * parts)
        h = part // parts
        first = h * group + part % parts * TOGETHER
        last = min(first + TOGETHER, (h + 1) * group)
        s, p = sequences[n], positions[n]
        start = max(0, p + 1 - plan.windows[layer]) if plan.windows[layer] else 0
        attend(
            desk.queries[n, first:last], desk.query_fractions[n, first:last], cache.keys[layer, s, h],
            cache.key_fractions[layer, s, h], cache.values[layer, s, h], cache.value_fractions[layer, s, h], start, p,
            shape.score_scale, desk.scores[thread], desk.halves[thread], desk.totals[thread],
            desk.mixed[n, first:last], desk.mixed_fractions[n, first:last],
        )  # fmt: skip
