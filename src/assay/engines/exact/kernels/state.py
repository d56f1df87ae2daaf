"""What a pass works with: a model's numbers and places, the KV cache, working memory, and an audit's test."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

QUERY, KEY, VALUE, OUTPUT, GATE, UP, DOWN = range(7)
"""The products of a layer, in the order of their accumulators."""
PRODUCTS: Final = 7
GROUPS: Final = 4
"""Inputs of a layer's products: QUERY to VALUE share one, and so do GATE and UP."""


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
    """int32 [repetitions, 3, columns of all groups]."""
    r_at: np.ndarray
    """int64 [groups + 1]: where each group's rows start. A group is the products of one input, tested as one matrix."""
    v_at: np.ndarray
    """int64 [groups + 1]: where each group's columns start."""
    widths: np.ndarray
    """uint8 [n, chunks of all layers]: of the accumulators that are tested, see `chunks.py`."""
    places: np.ndarray
    """int64 [n, layers]: addresses of each layer's chunks."""
    failed: np.ndarray
    """int64 [n]: the first group of each token in which something is wrong, by its number in the model; -1: none."""


MOST: Final = 32767
"""Largest magnitude of fraction bits in a record."""
