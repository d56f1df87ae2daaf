# pragma version 0.4.3
"""
@title Where everything stands: parameters in the model, numbers in a record, cells in a plan
@license Apache-2.0
@notice Mirrors `dispute/catalogue.py`, `record.py` and `plan.py`. A kind is a position among `plan.KINDS`, a use among
        "", the products of a layer, "head", the normalisations of a layer, "norm".
"""

import opening
uses: opening

EMBEDDED: constant(uint256) = 0
PRODUCT: constant(uint256) = 1
PEAK: constant(uint256) = 2
SQUARE: constant(uint256) = 3
INVERSE: constant(uint256) = 4
TOP: constant(uint256) = 5
SCALE: constant(uint256) = 6
NORMED: constant(uint256) = 7
ADDED: constant(uint256) = 8
BIASED: constant(uint256) = 9
KEPT: constant(uint256) = 10
QUERY: constant(uint256) = 11
KEY: constant(uint256) = 12
VALUE: constant(uint256) = 13
SCORE: constant(uint256) = 14
BEST: constant(uint256) = 15
WEIGHT: constant(uint256) = 16
LOW: constant(uint256) = 17
MIX: constant(uint256) = 18
QUOTIENT: constant(uint256) = 19
JOIN_LOW: constant(uint256) = 20
JOIN_PEAK: constant(uint256) = 21
JOIN_SCALE: constant(uint256) = 22
JOINED: constant(uint256) = 23
GATED: constant(uint256) = 24
GATED_PEAK: constant(uint256) = 25
GATED_SCALE: constant(uint256) = 26
ACTIVATED: constant(uint256) = 27
LOGIT: constant(uint256) = 28
LIKELIEST: constant(uint256) = 29
DEFICIT: constant(uint256) = 30
COUNT: constant(uint256) = 31
SHARE: constant(uint256) = 32
TOTAL: constant(uint256) = 33
MASS: constant(uint256) = 34
RACE: constant(uint256) = 35
NUMBER: constant(uint256) = 36

Q: constant(uint256) = 1  # uses: query, key, value, output, gate, up, down
K: constant(uint256) = 2
V: constant(uint256) = 3
OUTPUT: constant(uint256) = 4
GATE: constant(uint256) = 5
UP: constant(uint256) = 6
DOWN: constant(uint256) = 7
HEAD: constant(uint256) = 8
ATTENTION_NORM: constant(uint256) = 9
FEED_NORM: constant(uint256) = 10
QUERY_NORM: constant(uint256) = 11
KEY_NORM: constant(uint256) = 12
ATTENTION_AFTER: constant(uint256) = 13
FEED_AFTER: constant(uint256) = 14
NORM: constant(uint256) = 15
TURNS: constant(uint256) = 16  # tables beside the matrices and the gains: a layer's turns, its biases, the embedding
QUERY_BIAS: constant(uint256) = 17
KEY_BIAS: constant(uint256) = 18
VALUE_BIAS: constant(uint256) = 19
EMBEDDING: constant(uint256) = 20

KEYS: constant(uint256) = 1  # vectors of a record; 0: the target is a token
VALUES: constant(uint256) = 2
INPUT: constant(uint256) = 3
MIXED: constant(uint256) = 4
FEED: constant(uint256) = 5
ACTIVATIONS: constant(uint256) = 6
HEAD_INPUT: constant(uint256) = 7
NOTHING: constant(uint256) = 8  # zeros that fill up a record

ENDS: constant(int256) = -1
TABLES: constant(uint256) = 48  # leaves before the first layer's: the model's numbers, and tables of 1,025, 4,097, 4,097, 1,025 and 513
MICRO: constant(uint256) = 1_000_000
MASK: constant(uint256) = 2**64 - 1
EXTRA: constant(uint256) = 256  # one number more in each cell, before the others

struct Matrix:
    start: uint256  # its first leaf
    parts: uint256  # leaves of a row
    size: uint256  # bytes of a leaf
    columns: uint256
    span: uint256  # columns that share a scale
    fraction: int256
    wide: bool

layer: transient(int256)  # of the target, or ENDS
name: transient(uint256)  # the vector that it is in
place: transient(uint256)  # and where in it
numbers: transient(int256[28])  # of the disputed cell's layer


@internal
@pure
def _ensure(holds: bool):
    assert holds, "another plan"


@internal
@pure
def _parts(n: uint256, size: uint256) -> uint256:
    return (n + size - 1) // size


@internal
def _fraction(use: uint256) -> int256:
    """
    @return Fraction bits of a product's accumulators: those of what is multiplied are read.
    """
    at: uint256 = 0
    size: uint256 = 0
    at, size = self._input(use)
    bits: DynArray[int256, 1056] = opening._numbers(opening._inputs(at + size, at + size + 1), 1, 2, True)
    return bits[0] + self._matrix(use).fraction


@internal
def _products(section: opening.Section, start: uint256, count: uint256) -> DynArray[int256, 1056]:
    """
    @return Accumulators of some rows of a product: its last running sums.
    """
    return opening._cells(section, (section.rows - 1) * section.length + start, count)


@internal
@pure
def _row(name: uint256, rows: uint256, length: uint256, piece: uint256, shape: uint256) -> uint256:
    """
    @return A section in one word: kind and use, rows, numbers of a row, numbers of a cell, more numbers and their bytes.
    """
    return name | (shape << 16) | (piece << 32) | (length << 64) | (rows << 128)


@internal
@pure
def _find(rows: DynArray[uint256, 18], start: uint256, kind: uint256, use: uint256) -> opening.Section:
    """
    @return The section of a kind and a use among those that stand one behind the other.
    """
    at: uint256 = start
    for row: uint256 in rows:
        if row & 65535 == kind + 256 * use:
            return opening.Section(
                start=at,
                rows=row >> 128,
                length=row >> 64 & MASK,
                piece=row >> 32 & 65535,
                extra=row >> 24 & 255,
                width=row >> 16 & 255,
            )
        at += self._cells(row)
    raise "another plan"


@internal
@pure
def _cells(row: uint256) -> uint256:
    return (row >> 128) * self._parts(row >> 64 & MASK, row >> 32 & 65535)


@internal
@pure
def _size(rows: DynArray[uint256, 18]) -> uint256:
    total: uint256 = 0
    for row: uint256 in rows:
        total += self._cells(row)
    return total


@internal
@view
def _part(width: uint256, product: uint256, columns: uint256, after: uint256, normed: bool) -> DynArray[uint256, 18]:
    """
    @return What attention or the feed-forward part adds to the stream.
    """
    groups: uint256 = self._parts(width, 1024)
    there: uint256 = 0
    if normed:
        there = 1
    return [
        self._row(PRODUCT + 256 * product, self._parts(columns, 1024), width, 1, 8),
        self._row(PEAK + 256 * after, there, 2 * groups, 2, 8),
        self._row(SQUARE + 256 * after, there, groups, 1, 8),
        self._row(INVERSE + 256 * after, there, 4, 4, 8),
        self._row(ADDED + 256 * after, 1, width, 128, 8),
    ]


@internal
@view
def _stream(kind: uint256, layer: int256, use: uint256) -> opening.Section:
    """
    @return Sections of the residual stream up to a normalisation, and of that.
    """
    width: uint256 = opening.model.width
    if kind == EMBEDDED:
        self._ensure(layer == ENDS and use == 0)
        return opening.Section(start=0, rows=1, length=width, piece=128, extra=0, width=8)
    attention: DynArray[uint256, 18] = self._part(width, OUTPUT, opening.model.heads * opening.model.headWidth, ATTENTION_AFTER, opening.model.has & 4 != 0)
    feed: DynArray[uint256, 18] = self._part(width, DOWN, opening.model.feed, FEED_AFTER, opening.model.has & 8 != 0)
    half: uint256 = self._size(attention)
    whole: uint256 = half + self._size(feed)
    start: uint256 = self._parts(width, 128)
    last: uint256 = opening.model.layers
    norm: uint256 = NORM
    if self.name != HEAD_INPUT:
        last = convert(self.layer, uint256)
        norm = ATTENTION_NORM
    if self.name == FEED:
        norm = FEED_NORM
    if kind != NUMBER and use != norm:
        at: uint256 = convert(layer, uint256)
        if use == OUTPUT or use == ATTENTION_AFTER:
            self._ensure(at < last or (at == last and self.name == FEED))
            return self._find(attention, start + at * whole, kind, use)
        self._ensure(at < last)
        return self._find(feed, start + at * whole + half, kind, use)
    self._ensure(layer == self.layer)
    start += last * whole
    if self.name == FEED:
        start += half
    groups: uint256 = self._parts(width, 1024)
    return self._find(
        [
            self._row(PEAK + 256 * norm, 1, 2 * groups, 2, 8),
            self._row(SQUARE + 256 * norm, 1, groups, 1, 8),
            self._row(INVERSE + 256 * norm, 1, 4, 4, 8),
            self._row(TOP + 256 * norm, 1, self._parts(width, 512), 1, 8),
            self._row(SCALE + 256 * norm, 1, 2, 2, 8),
            self._row(NORMED + 256 * norm, 1, width, 128, 2),
            self._row(NUMBER, 1, 1, 1, 2),
        ],
        start,
        kind,
        use,
    )


@internal
@view
def _seen() -> (uint256, uint256, uint256):
    """
    @return The first position that attention sees, how many, and at how many of them one step looks.
    """
    position: uint256 = opening.terms.position
    window: uint256 = convert(self.numbers[0], uint256)
    first: uint256 = 0
    if window > 0 and position + 1 > window:
        first = position + 1 - window
    return first, position + 1 - first, max(1, min(32, 2048 // opening.model.headWidth))


@internal
@view
def _kept(kind: uint256, use: uint256) -> opening.Section:
    """
    @return Sections of the head of keys or values that the target is in.
    """
    wide: uint256 = opening.model.headWidth
    product: uint256 = K
    bias: uint256 = opening.model.has >> 5 & 1
    if self.name == VALUES:
        product = V
        bias = opening.model.has >> 6 & 1
    return self._find(
        [
            self._row(PRODUCT + 256 * product, self._parts(opening.model.width, 1024), wide, 1, 8),
            self._row(BIASED + 256 * product, bias, wide, wide, 8),
            self._row(KEPT + 256 * product, 1, wide, wide, EXTRA + 2),
            self._row(NUMBER, 1, 1, 1, 2),
        ],
        0,
        kind,
        use,
    )


@internal
@view
def _attention(kind: uint256, use: uint256) -> opening.Section:
    """
    @return Sections of attention up to the input of the output product.
    """
    wide: uint256 = opening.model.headWidth
    first: uint256 = 0
    seen: uint256 = 0
    keys: uint256 = 0
    first, seen, keys = self._seen()
    blocks: uint256 = self._parts(seen, keys)
    inner: uint256 = opening.model.heads * wide
    return self._find(
        [
            self._row(PRODUCT + 256 * Q, self._parts(opening.model.width, 1024), inner, 1, 8),
            self._row(BIASED + 256 * Q, opening.model.heads * (opening.model.has >> 4 & 1), wide, wide, 8),
            self._row(QUERY, opening.model.heads, wide, wide, EXTRA + 2),
            self._row(KEY, opening.model.kvHeads * seen, wide, wide, EXTRA + 2),
            self._row(VALUE, opening.model.kvHeads * seen, wide, wide, EXTRA + 2),
            self._row(SCORE, opening.model.heads, seen, keys, 8),
            self._row(BEST, opening.model.heads, self._parts(blocks, 8), 1, 8),
            self._row(WEIGHT, opening.model.heads, seen, keys, 2),
            self._row(LOW, blocks * opening.model.kvHeads, 1, 1, 8),
            self._row(MIX, opening.model.heads * blocks, wide, wide, EXTRA + 8),
            self._row(QUOTIENT, opening.model.heads, wide, wide, 4),
            self._row(JOIN_LOW, 1, 1, 1, 8),
            self._row(JOIN_PEAK, 1, opening.model.heads, 1, 8),
            self._row(JOIN_SCALE, 1, 2, 2, 8),
            self._row(JOINED, 1, inner, 128, 2),
            self._row(NUMBER, 1, 1, 1, 2),
        ],
        0,
        kind,
        use,
    )


@internal
@view
def _feed(kind: uint256, use: uint256) -> opening.Section:
    """
    @return Sections of the feed-forward part up to the input of the product down.
    """
    feed: uint256 = opening.model.feed
    groups: uint256 = self._parts(opening.model.width, 1024)
    return self._find(
        [
            self._row(PRODUCT + 256 * GATE, groups, feed, 1, 8),
            self._row(PRODUCT + 256 * UP, groups, feed, 1, 8),
            self._row(GATED, 1, feed, 128, 8),
            self._row(GATED_PEAK, 1, self._parts(feed, 1024), 1, 8),
            self._row(GATED_SCALE, 1, 2, 2, 8),
            self._row(ACTIVATED, 1, feed, 128, 2),
            self._row(NUMBER, 1, 1, 1, 2),
        ],
        0,
        kind,
        use,
    )


@internal
@view
def _draw(kind: uint256, use: uint256) -> opening.Section:
    """
    @return Sections of the draw of a token.
    """
    vocabulary: uint256 = opening.model.vocabulary
    heat: uint256 = 0  # whether anything is drawn
    if opening.terms.temperature > 0:
        heat = 1
    k: uint256 = 0
    if self._counts():
        k = heat
    p: uint256 = 0
    if opening.terms.topP < MICRO:
        p = heat
    bits: uint256 = self._bits()
    groups: uint256 = self._parts(vocabulary, 1024)
    return self._find(
        [
            self._row(PRODUCT + 256 * HEAD, self._parts(opening.model.width, 1024), vocabulary, 1, 8),
            self._row(LOGIT, 1, vocabulary, 256, 4),
            self._row(LIKELIEST, 1, 2 * groups, 2, 8),
            self._row(DEFICIT, heat, vocabulary, 256, 8),
            self._row(COUNT, bits * k, 2 * groups, 2, 8),
            self._row(SHARE, p, vocabulary, 256, 8),
            self._row(TOTAL, p, groups, 1, 8),
            self._row(MASS, bits * p, 2 * self._parts(vocabulary, 512), 2, 8),
            self._row(RACE, heat, 2 * self._parts(vocabulary, 256), 2, 8),
            self._row(NUMBER, 1, 1, 1, 4),
        ],
        0,
        kind,
        use,
    )


@internal
@view
def _bits() -> uint256:
    """
    @return Bits of the numbers by which candidates are ordered.
    """
    bits: uint256 = 32
    for i: uint256 in range(64):
        if (opening.model.vocabulary - 1) >> i == 0:
            break
        bits += 1
    return bits


@internal
@view
def _counts() -> bool:
    """
    @return Whether `top_k` leaves anything out.
    """
    k: uint256 = opening.terms.topK
    return 0 < k and k < opening.model.vocabulary


@internal
@view
def _matrix(use: uint256) -> Matrix:
    """
    @return A matrix of the disputed cell's layer, the head, or the embedding.
    """
    inner: uint256 = opening.model.heads * opening.model.headWidth
    columns: uint256 = opening.model.width
    if use == OUTPUT:
        columns = inner
    elif use == DOWN:
        columns = opening.model.feed
    span: uint256 = opening.model.headBlock
    fraction: int256 = opening.model.headFraction
    size: uint256 = opening.model.headBytes
    if use == EMBEDDING:
        span = opening.model.embeddingBlock
        fraction = opening.model.embeddingFraction
        size = opening.model.embeddingBytes
    elif use != HEAD:
        span = convert(self.numbers[4 + 3 * use], uint256)
        fraction = self.numbers[5 + 3 * use]
        size = convert(self.numbers[6 + 3 * use], uint256)
    return Matrix(
        start=self._table(use),
        parts=self._parts(columns, 256),
        size=(256 * size + 256 // span * 8 + 63) // 64 * 64,
        columns=columns,
        span=span,
        fraction=fraction,
        wide=size == 2,
    )


@internal
@view
def _step() -> (uint256, DynArray[uint256, 17]):
    """
    @return Leaves of a layer, and where each of its tables begins: gains, biases, turns and matrices in their order.
    """
    inner: uint256 = opening.model.heads * opening.model.headWidth
    kv: uint256 = opening.model.kvHeads * opening.model.headWidth
    gain: uint256 = self._parts(opening.model.width, 256)
    own: uint256 = self._parts(opening.model.headWidth, 256)
    sizes: uint256[17] = [
        gain,
        gain,
        own * (opening.model.has & 1),
        own * (opening.model.has >> 1 & 1),
        gain * (opening.model.has >> 2 & 1),
        gain * (opening.model.has >> 3 & 1),
        self._parts(inner, 256) * (opening.model.has >> 4 & 1),
        self._parts(kv, 256) * (opening.model.has >> 5 & 1),
        self._parts(kv, 256) * (opening.model.has >> 6 & 1),
        self._parts(opening.model.headWidth // 2, 256),
        inner * gain,
        kv * gain,
        kv * gain,
        opening.model.width * self._parts(inner, 256),
        opening.model.feed * gain,
        opening.model.feed * gain,
        opening.model.width * self._parts(opening.model.feed, 256),
    ]
    starts: DynArray[uint256, 17] = []
    at: uint256 = 1
    for size: uint256 in sizes:
        starts.append(at)
        at += size
    return at, starts


@internal
@view
def _table(use: uint256) -> uint256:
    """
    @return The first leaf of a table of the disputed cell's layer, or of one behind all layers.
    """
    step: uint256 = 0
    starts: DynArray[uint256, 17] = []
    step, starts = self._step()
    ends: uint256 = TABLES + opening.model.layers * step
    gain: uint256 = self._parts(opening.model.width, 256)
    if use == NORM:
        return ends
    if use == HEAD or (use == EMBEDDING and opening.model.tied != 0):
        return ends + gain
    if use == EMBEDDING:
        return ends + gain + opening.model.vocabulary * gain
    base: uint256 = TABLES + convert(opening.layer, uint256) * step
    if use <= DOWN:
        return base + starts[9 + use]
    if use <= FEED_AFTER:
        return base + starts[use - ATTENTION_NORM]
    if use == TURNS:
        return base + starts[9]
    return base + starts[use - QUERY_BIAS + 6]


@internal
@view
def _head() -> uint256:
    """
    @return The head that the target, a number of keys or values, is in or counts the fraction bits of.
    """
    wide: uint256 = opening.model.headWidth
    heads: uint256 = opening.model.kvHeads
    if self.place < heads * wide:
        return self.place // wide
    return self.place - heads * wide


@internal
@view
def _first_row() -> uint256:
    """
    @return The row of the matrix with which a product's cells begin.
    """
    if self.name == KEYS or self.name == VALUES:
        return self._head() * opening.model.headWidth
    return 0


@internal
@view
def _input(use: uint256) -> (uint256, uint256):
    """
    @return Where what a product of the disputed cell's layer is multiplied with begins in its part of the record, and how
            many numbers it has, without its fraction bits.
    """
    inner: uint256 = opening.model.heads * opening.model.headWidth
    step: uint256 = 2 * opening.model.width + inner + opening.model.feed + 4
    if use == HEAD:
        return opening.model.layers * step, opening.model.width
    at: uint256 = convert(opening.layer, uint256) * step
    if use <= V:
        return at, opening.model.width
    if use == OUTPUT:
        return at + opening.model.width + 1, inner
    if use <= UP:
        return at + opening.model.width + inner + 2, opening.model.width
    return at + 2 * opening.model.width + inner + 3, opening.model.feed


@internal
def _begin(terms: opening.Terms, layer: int256, at: uint256):
    """
    @notice Read the model's numbers and those of the cell's layer, and find what the target is.
    @param at Where the opening stands in the call's data.
    """
    opening.at = at
    opening.terms = terms
    opening.layer = layer
    opening.model = abi_decode(slice(msg.data, at, 704), opening.Model)
    step: uint256 = 0
    starts: DynArray[uint256, 17] = []
    step, starts = self._step()
    gain: uint256 = self._parts(opening.model.width, 256)
    opening.leaves = TABLES + opening.model.layers * step + gain + opening.model.vocabulary * gain
    if opening.model.tied == 0:
        opening.leaves += opening.model.vocabulary * gain
    opening._leaves(0, 1, 704)
    if layer != ENDS:
        self._ensure(layer >= 0 and convert(layer, uint256) < opening.model.layers)
        self.numbers = abi_decode(slice(msg.data, opening.at, 896), int256[28])
        opening._leaves(TABLES + convert(layer, uint256) * step, 1, 896)
    self._aim()


@internal
@view
def _inside(found: opening.Section, number: opening.Section):
    """
    @notice Check that the disputed cell is in a section, and that the plan ends with the target's number.
    """
    index: uint256 = opening.terms.index
    self._ensure(found.start <= index)
    self._ensure(index < found.start + found.rows * self._parts(found.length, found.piece))
    self._ensure(opening.terms.count == number.start + 1)


@internal
def _aim():
    """
    @notice Find what the target is, and check the sizes of a record's trees.
    """
    inner: uint256 = opening.model.heads * opening.model.headWidth
    keys: uint256 = opening.model.kvHeads * (opening.model.headWidth + 1)
    inputs: uint256 = 2 * opening.model.width + inner + opening.model.feed + 4
    kept: uint256 = self._parts(opening.model.layers * 2 * keys, 256)
    self._ensure(opening.terms.keptCount == kept)
    self._ensure(opening.terms.inputsCount == self._parts(opening.model.layers * inputs + opening.model.width + 1, 256))
    self.layer = ENDS
    self.name = 0
    if opening.terms.token:
        return
    at: uint256 = opening.terms.target
    if at < 256 * kept:
        if at >= opening.model.layers * 2 * keys:
            self.name = NOTHING
            return
        self.layer = convert(at // (2 * keys), int256)
        at = at % (2 * keys)
        self.name = KEYS + at // keys
        self.place = at % keys
        return
    at -= 256 * kept
    if at >= opening.model.layers * inputs:
        self.name = HEAD_INPUT
        self.place = at - opening.model.layers * inputs
        if self.place > opening.model.width:
            self.name = NOTHING
        return
    self.layer = convert(at // inputs, int256)
    at = at % inputs
    self.name = INPUT
    for size: uint256 in [opening.model.width + 1, inner + 1, opening.model.width + 1, opening.model.feed + 1]:
        if at < size:
            break
        at -= size
        self.name += 1
    self.place = at
