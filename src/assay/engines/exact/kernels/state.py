"""What a pass works with: a model's numbers and places, the KV cache, working memory, and an audit's test."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

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
    """int64 [7]: where the accumulators of a layer's products start within the layer's."""
    sizes: np.ndarray
    """int64 [7]: rows of a layer's products."""
    layer_size: int
    """Accumulators of one layer."""
    inputs: np.ndarray
    """int64 [7]: where the input of the first layer's product starts in a record (see `record.py`)."""
    inputs_step: int
    """From there to that of the next layer."""
    kept: np.ndarray
    """int64 [2]: where the first layer's keys and values start in a record; each head's fraction bits stand behind."""
    kept_step: int
    """From there to those of the next layer."""


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
    fractions: np.ndarray
    """int64 [n]: of the last input of a product."""
    slots: np.ndarray
    """int8 [slots, 80]: that input as `products.lay_out` leaves it; the next two are the same memory."""
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
    scores: np.ndarray
    """int64 [threads, 3, positions + 64]; this and the next two: see `attention.attend`."""
    halves: np.ndarray
    """int16 [threads, 3, 2, positions + head width + 64]."""
    totals: np.ndarray
    """int64 [threads, 3, head width rounded up to 16]."""
    barrier: np.ndarray
    """int64 [2]."""


class Test(NamedTuple):
    """What an audit tests n passes with (see `freivalds.py`); nothing in it (no repetitions): they are computed."""

    r: np.ndarray
    """int32 [repetitions, body + head]: for each accumulator of a pass, zeros included, chunk by chunk."""
    v: np.ndarray
    """int16 [repetitions, digits, inputs + ends]: for each number of a record's second part, but for the head's input;
    then, for the chunks in which that stands, only for the head's input."""
    widths: np.ndarray
    """uint8 [n, chunks of body and head]: of the accumulators, see `chunks.py`."""
    places: np.ndarray
    """int64 [n, layers + 1]: addresses of each layer's chunks, and of the end of the last one's."""
    head_places: np.ndarray
    """int64 [n]: addresses of the head's chunks."""
    rows: np.ndarray
    """int64 [n, repetitions, 2, 8]: the sums over accumulators, see `freivalds.add_rows`."""
    columns: np.ndarray
    """int64 [n, repetitions, digits]: the sums over activations, see `freivalds.add_columns`."""


MOST: Final = 32767
"""Largest magnitude of fraction bits in a record."""
