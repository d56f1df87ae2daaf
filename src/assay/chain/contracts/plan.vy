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
TABLES: constant(uint256) = 47  # leaves before the first layer's: tables of 1,025, 4,097, 4,097, 1,025 and 513
MICRO: constant(uint256) = 1_000_000
MASK: constant(uint256) = 2**64 - 1
EXTRA: constant(uint256) = 1 << 24  # one number more in each cell, before the others
ONE: constant(uint256) = (8 << 16) | (1 << 32)  # cells of one number of 8 bytes
TWO: constant(uint256) = (8 << 16) | (2 << 32)
FOUR: constant(uint256) = (8 << 16) | (4 << 32)
SPAN: constant(uint256) = (8 << 16) | (128 << 32)
SHORT: constant(uint256) = (2 << 16) | (1 << 32)
SHORT_SPAN: constant(uint256) = (2 << 16) | (128 << 32)

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
numbers: transient(uint256)  # where those of the disputed cell's layer stand in the call's data


@internal
@pure
def _ensure(holds: bool):
    assert holds, "another plan"


@internal
@pure
def _parts(n: uint256, size: uint256) -> uint256:
    return (n + size - 1) // size


@internal
@view
def _number(i: uint256) -> int256:
    """
    @return One of the numbers of the disputed cell's layer.
    """
    return convert(slice(msg.data, self.numbers + 32 * i, 32), int256)


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
def _row(what: uint256, rows: uint256, length: uint256) -> uint256:
    """
    @param what Kind, use << 8, bytes of a number << 16, numbers before the others << 24, and numbers of a cell << 32.
    @return A section in one word.
    """
    return what | (length << 64) | (rows << 128)


@internal
@pure
def _find(rows: DynArray[uint256, 18], start: uint256, kind: uint256, use: uint256) -> opening.Section:
    """
    @return The section of a kind and a use among those that stand one behind the other.
    """
    name: uint256 = kind + 256 * use
    at: uint256 = start
    for row: uint256 in rows:
        if row & 65535 == name:
            return opening.Section(
                start=at,
                rows=row >> 128,
                length=row >> 64 & MASK,
                piece=row >> 32 & 65535,
                extra=row >> 24 & 255,
                width=row >> 16 & 255,
            )
        at = unsafe_add(at, self._cells(row))
    raise "another plan"


@internal
@pure
def _cells(row: uint256) -> uint256:
    return (row >> 128) * self._parts(row >> 64 & MASK, row >> 32 & 65535)


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
        self._row(PRODUCT | (product << 8) | ONE, self._parts(columns, 1024), width),
        self._row(PEAK | (after << 8) | TWO, there, 2 * groups),
        self._row(SQUARE | (after << 8) | ONE, there, groups),
        self._row(INVERSE | (after << 8) | FOUR, there, 4),
        self._row(ADDED | (after << 8) | SPAN, 1, width),
    ]


@internal
@pure
def _cells_of_part(width: uint256, columns: uint256, normed: bool) -> uint256:
    """
    @return How many cells `_part` has.
    """
    cells: uint256 = self._parts(columns, 1024) * width + self._parts(width, 128)
    if normed:
        cells += 2 * self._parts(width, 1024) + 1
    return cells


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
    inner: uint256 = opening.model.heads * opening.model.headWidth
    feed: uint256 = opening.model.feed
    has: uint256 = opening.model.has
    half: uint256 = self._cells_of_part(width, inner, has & 4 != 0)
    whole: uint256 = half + self._cells_of_part(width, feed, has & 8 != 0)
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
            return self._find(self._part(width, OUTPUT, inner, ATTENTION_AFTER, has & 4 != 0), start + at * whole, kind, use)
        self._ensure(at < last)
        return self._find(self._part(width, DOWN, feed, FEED_AFTER, has & 8 != 0), start + at * whole + half, kind, use)
    self._ensure(layer == self.layer)
    start += last * whole
    if self.name == FEED:
        start += half
    groups: uint256 = self._parts(width, 1024)
    return self._find(
        [
            self._row(PEAK | (norm << 8) | TWO, 1, 2 * groups),
            self._row(SQUARE | (norm << 8) | ONE, 1, groups),
            self._row(INVERSE | (norm << 8) | FOUR, 1, 4),
            self._row(TOP | (norm << 8) | ONE, 1, self._parts(width, 512)),
            self._row(SCALE | (norm << 8) | TWO, 1, 2),
            self._row(NORMED | (norm << 8) | SHORT_SPAN, 1, width),
            self._row(NUMBER | SHORT, 1, 1),
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
    window: uint256 = convert(self._number(0), uint256)
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
            self._row(PRODUCT | (product << 8) | ONE, self._parts(opening.model.width, 1024), wide),
            self._row(BIASED | (product << 8) | (8 << 16) | (wide << 32), bias, wide),
            self._row(KEPT | (product << 8) | EXTRA | (2 << 16) | (wide << 32), 1, wide),
            self._row(NUMBER | SHORT, 1, 1),
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
    heads: uint256 = opening.model.heads
    kvHeads: uint256 = opening.model.kvHeads
    inner: uint256 = heads * wide
    return self._find(
        [
            self._row(PRODUCT | (Q << 8) | ONE, self._parts(opening.model.width, 1024), inner),
            self._row(BIASED | (Q << 8) | (8 << 16) | (wide << 32), heads * (opening.model.has >> 4 & 1), wide),
            self._row(QUERY | EXTRA | (2 << 16) | (wide << 32), heads, wide),
            self._row(KEY | EXTRA | (2 << 16) | (wide << 32), kvHeads * seen, wide),
            self._row(VALUE | EXTRA | (2 << 16) | (wide << 32), kvHeads * seen, wide),
            self._row(SCORE | (8 << 16) | (keys << 32), heads, seen),
            self._row(BEST | ONE, heads, self._parts(blocks, 8)),
            self._row(WEIGHT | (2 << 16) | (keys << 32), heads, seen),
            self._row(LOW | ONE, blocks * kvHeads, 1),
            self._row(MIX | EXTRA | (8 << 16) | (wide << 32), heads * blocks, wide),
            self._row(QUOTIENT | (4 << 16) | (wide << 32), heads, wide),
            self._row(JOIN_LOW | ONE, 1, 1),
            self._row(JOIN_PEAK | ONE, 1, heads),
            self._row(JOIN_SCALE | TWO, 1, 2),
            self._row(JOINED | SHORT_SPAN, 1, inner),
            self._row(NUMBER | SHORT, 1, 1),
        ],
        0,
        kind,
        use,
    )


@internal
@view
def _group() -> uint256:
    """
    @return Query heads that share a key head.
    """
    return opening.model.heads // opening.model.kvHeads


@internal
def _lows(head: uint256, count: uint256) -> DynArray[int256, 1056]:
    """
    @return The fewest fraction bits of value heads over all positions.
    """
    lows: opening.Section = self._attention(LOW, 0)
    return opening._cells(lows, lows.rows - opening.model.kvHeads + head, count)


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
            self._row(PRODUCT | (GATE << 8) | ONE, groups, feed),
            self._row(PRODUCT | (UP << 8) | ONE, groups, feed),
            self._row(GATED | SPAN, 1, feed),
            self._row(GATED_PEAK | ONE, 1, self._parts(feed, 1024)),
            self._row(GATED_SCALE | TWO, 1, 2),
            self._row(ACTIVATED | SHORT_SPAN, 1, feed),
            self._row(NUMBER | SHORT, 1, 1),
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
            self._row(PRODUCT | (HEAD << 8) | ONE, self._parts(opening.model.width, 1024), vocabulary),
            self._row(LOGIT | (4 << 16) | (256 << 32), 1, vocabulary),
            self._row(LIKELIEST | TWO, 1, 2 * groups),
            self._row(DEFICIT | (8 << 16) | (256 << 32), heat, vocabulary),
            self._row(COUNT | TWO, bits * k, 2 * groups),
            self._row(SHARE | (8 << 16) | (256 << 32), p, vocabulary),
            self._row(TOTAL | ONE, p, groups),
            self._row(MASS | TWO, bits * p, 2 * self._parts(vocabulary, 512)),
            self._row(RACE | TWO, heat, 2 * self._parts(vocabulary, 256)),
            self._row(NUMBER | (4 << 16) + (1 << 32), 1, 1),
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
        span = convert(self._number(4 + 3 * use), uint256)
        fraction = self._number(5 + 3 * use)
        size = convert(self._number(6 + 3 * use), uint256)
    self._ensure(span in [16, 32, 64, 128, 256] and size in [1, 2])
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
def _sizes() -> uint256[17]:
    """
    @return Leaves of each of a layer's tables: gains, biases, turns and matrices in their order.
    """
    width: uint256 = opening.model.width
    wide: uint256 = opening.model.headWidth
    has: uint256 = opening.model.has
    feed: uint256 = opening.model.feed
    gain: uint256 = self._parts(width, 256)
    own: uint256 = self._parts(wide, 256)
    inner: uint256 = opening.model.heads * wide
    kv: uint256 = opening.model.kvHeads * wide
    mixed: uint256 = self._parts(inner, 256)
    bias: uint256 = self._parts(kv, 256)
    return [
        gain,
        gain,
        own * (has & 1),
        own * (has >> 1 & 1),
        gain * (has >> 2 & 1),
        gain * (has >> 3 & 1),
        mixed * (has >> 4 & 1),
        bias * (has >> 5 & 1),
        bias * (has >> 6 & 1),
        self._parts(wide // 2, 256),
        inner * gain,
        kv * gain,
        kv * gain,
        width * mixed,
        feed * gain,
        feed * gain,
        width * self._parts(feed, 256),
    ]


@internal
def _table(use: uint256) -> uint256:
    """
    @return The first leaf of a table of the cell's layer, or of one behind all layers; all leaves are counted as well.
    """
    stop: uint256 = 9  # of turns
    if use <= DOWN:
        stop = 9 + use
    elif use > HEAD and use <= FEED_AFTER:
        stop = use - ATTENTION_NORM
    elif use > TURNS:
        stop = use - QUERY_BIAS + 6
    sizes: uint256[17] = self._sizes()
    step: uint256 = 0  # leaves of a layer
    before: uint256 = 0
    for i: uint256 in range(17):
        if i == stop:
            before = step
        step += sizes[i]
    ends: uint256 = TABLES + opening.model.layers * step
    head: uint256 = ends + sizes[0]
    embedding: uint256 = head
    size: uint256 = opening.model.vocabulary * sizes[0]
    if opening.model.tied == 0:
        embedding += size
    opening.leaves = embedding + size
    if use == NORM:
        return ends
    if use == HEAD:
        return head
    if use == EMBEDDING:
        return embedding
    return TABLES + convert(opening.layer, uint256) * step + before


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
    self.numbers = opening._numbers_of(layer)
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
    wide: uint256 = opening.model.headWidth
    width: uint256 = opening.model.width
    feed: uint256 = opening.model.feed
    layers: uint256 = opening.model.layers
    inner: uint256 = opening.model.heads * wide
    keys: uint256 = opening.model.kvHeads * (wide + 1)
    inputs: uint256 = 2 * width + inner + feed + 4
    kept: uint256 = self._parts(layers * 2 * keys, 256)
    self._ensure(opening.terms.keptCount == kept)
    self._ensure(opening.terms.inputsCount == self._parts(layers * inputs + width + 1, 256))
    self.layer = ENDS
    self.name = 0
    if opening.terms.token:
        return
    at: uint256 = opening.terms.target
    if at < 256 * kept:
        if at >= layers * 2 * keys:
            self.name = NOTHING
            return
        self.layer = convert(at // (2 * keys), int256)
        at = at % (2 * keys)
        self.name = KEYS + at // keys
        self.place = at % keys
        return
    at -= 256 * kept
    if at >= layers * inputs:
        self.name = HEAD_INPUT
        self.place = at - layers * inputs
        if self.place > width:
            self.name = NOTHING
        return
    self.layer = convert(at // inputs, int256)
    at = at % inputs
    name: uint256 = INPUT
    for size: uint256 in [width + 1, inner + 1, width + 1, feed + 1]:
        if at < size:
            break
        at -= size
        name += 1
    self.name = name
    self.place = at
