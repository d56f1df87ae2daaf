# pragma version 0.4.3
"""
@title What a step reads: an opening, bound to what was committed to
@license Apache-2.0
@notice An opening is one string, the last argument of the call. Each read takes its content from the front of what is left,
        then the path that binds it (docs/dispute.md). It mirrors `dispute/reading.py`, `trees.py` and `evidence.py`.
@dev Bytes are read out of the call's data, by pieces of constant size: a large one begins earlier where it would not fit.
     Numbers of the call stand in transient storage, which is emptied by the next call's.
"""

struct Terms:
    parameters: bytes32  # the model root
    evidence: bytes32  # of the receipt, as are the next four
    promptTokens: bytes32
    output: bytes32
    promptCount: uint256
    outputCount: uint256
    seed: bytes32  # of the draws; their settings
    temperature: uint256
    topK: uint256
    topP: uint256
    minP: uint256
    position: uint256  # of the challenged pass
    token: bool  # whether the token behind it is disputed, and no number
    keptCount: uint256  # chunks of both parts of its record, and their roots
    inputsCount: uint256
    kept: bytes32
    inputs: bytes32
    target: uint256  # the disputed number's place in the record
    claimed: int256  # what was committed to there
    count: uint256  # of the cells; their root
    cells: bytes32
    index: uint256  # of the disputed cell

struct Model:
    version: uint256
    layers: uint256
    width: uint256
    feed: uint256
    heads: uint256
    kvHeads: uint256
    headWidth: uint256
    vocabulary: uint256
    epsilon: int256
    scoreScale: int256
    halves: uint256
    gate: uint256
    embeddingScale: int256
    norm: int256
    tied: uint256
    has: uint256
    headBlock: uint256
    headFraction: int256
    headBytes: uint256
    embeddingBlock: uint256
    embeddingFraction: int256
    embeddingBytes: uint256

struct Section:
    start: uint256  # index of its first cell
    rows: uint256
    length: uint256  # numbers of a row
    piece: uint256  # of them, in a cell
    extra: uint256  # numbers before those in each cell
    width: uint256  # bytes of a number

MOST: constant(uint256) = 1056  # numbers that one read gives at most
BITS: constant(uint256) = 4  # of an index, a level of a tree: nodes have sixteen children
MODEL_BITS: constant(uint256) = 2  # those of the two trees over a model have four
ENDS: constant(int256) = -1
CHUNK_TAG: constant(bytes32) = sha256("assay/exact-chunk/1")
NODE_TAG: constant(bytes32) = sha256("assay/exact-node/1")
ROOT_TAG: constant(bytes32) = sha256("assay/exact-root/1")
PASS_TAG: constant(bytes32) = sha256("assay/exact-token/1")
PARAMETER_TAG: constant(bytes32) = sha256("assay/exact-parameter/1")
LAYER_TAG: constant(bytes32) = sha256("assay/exact-layer/1")
MODEL_TAG: constant(bytes32) = sha256("assay/exact-model/1")
CELL_TAG: constant(bytes32) = sha256("assay/exact-cell/1")
TOKEN_TAG: constant(bytes32) = sha256("assay/token/1")
EVIDENCE_TAG: constant(bytes32) = sha256("assay/evidence/2")
LEAF_TAG: constant(bytes32) = sha256("assay/merkle-leaf/1")
PAIR_TAG: constant(bytes32) = sha256("assay/merkle-node/1")
SEAL_TAG: constant(bytes32) = sha256("assay/merkle-root/1")
BYTES_16: constant(uint256) = 450552876409790643671482431940419874915447411150352389258589821042463539455
BYTES_32: constant(uint256) = 1766820105243087041267848467410591083712559083657179364930612997358944255
BYTES_64: constant(uint256) = 26959946660873538060741835960174461801791452538186943042387869433855

at: transient(uint256)
terms: transient(Terms)
model: transient(Model)
parameters: transient(bytes32)  # the root over the model's parameters; how many leaves it has
leaves: transient(uint256)
layer: transient(int256)  # of the disputed cell, or ENDS


@internal
@pure
def _same(one: bytes32, other: bytes32):
    assert one == other, "not what was committed to"


@internal
@pure
def _digest(tag: bytes32, content: Bytes[2240]) -> bytes32:
    return sha256(concat(tag, tag, content))


@internal
@view
def _word() -> bytes32:
    """
    @dev The next 32 bytes, which stay the next.
    """
    return convert(slice(msg.data, self.at, 32), bytes32)


@internal
def _take() -> bytes32:
    """
    @return The next 32 bytes.
    """
    word: bytes32 = self._word()
    self.at += 32
    return word


@internal
@view
def _hashed(tag: bytes32, at: uint256, length: uint256) -> bytes32:
    """
    @return The digest of bytes that stand in the call's data.
    """
    piece: Bytes[4128] = b""
    begin: uint256 = at
    if length <= 32:
        piece = slice(msg.data, at, 32)
    elif length <= 1056:
        begin = min(at, len(msg.data) - 1056)
        piece = slice(msg.data, begin, 1056)
    elif length <= 2624:
        begin = min(at, len(msg.data) - 2624)
        piece = slice(msg.data, begin, 2624)
    else:
        begin = min(at, len(msg.data) - 4128)
        piece = slice(msg.data, begin, 4128)
    return sha256(concat(tag, tag, slice(piece, at - begin, length)))


@internal
@pure
def _swapped(word: uint256, width: uint256) -> uint256:
    """
    @return A word of little-endian numbers of 2, 4 or 8 bytes with each of them big-endian.
    """
    x: uint256 = ((word & BYTES_16) << 8) | ((word >> 8) & BYTES_16)
    if width > 2:
        x = ((x & BYTES_32) << 16) | ((x >> 16) & BYTES_32)
    if width > 4:
        x = ((x & BYTES_64) << 32) | ((x >> 32) & BYTES_64)
    return x


@internal
@view
def _numbers(at: uint256, count: uint256, width: uint256, little: bool) -> DynArray[int256, MOST]:
    """
    @return Numbers of so many bytes in two's complement, that stand in the call's data.
    """
    out: DynArray[int256, MOST] = []
    bits: uint256 = 8 * width
    left: uint256 = 0
    word: uint256 = 0
    place: uint256 = at
    for _: uint256 in range(count, bound=MOST):
        if left == 0:
            word = convert(slice(msg.data, place, 32), uint256)
            if little:
                word = self._swapped(word, width)
            place = unsafe_add(place, 32)
            left = 32
        out.append(convert(convert(word, bytes32), int256) >> unsafe_sub(256, bits))
        word = word << bits
        left = unsafe_sub(left, width)
    return out


@internal
@view
def _number(at: uint256) -> int256:
    """
    @return The little-endian number of four bytes that stands in the call's data.
    """
    word: uint256 = self._swapped(convert(slice(msg.data, at, 32), uint256), 4)
    return convert(convert(word, bytes32), int256) >> 224


@internal
def _climb(
    count: uint256, start: uint256, items: DynArray[bytes32, 8], bits: uint256 = BITS, level: uint256 = 0
) -> bytes32:
    """
    @return The root of the tree of `count` leaves in which `items` stand at a level from `start` on: `trees.climb`.
    @param bits The logarithm of a node's children.
    @dev Sums do not overflow: counts of 2^64 and more are not sealed.
    """
    at: uint256 = self.at
    first: uint256 = start
    size: uint256 = count
    fan: uint256 = 1 << bits
    last: uint256 = unsafe_sub(fan, 1)
    for _: uint256 in range(level, bound=64):
        size = unsafe_add(size, last) >> bits
    many: uint256 = len(items)
    assert many > 0 and start + many <= size, "no such leaves"
    run: Bytes[320] = slice(abi_encode(items), 64, 32 * many)
    node: bytes32 = extract32(run, 0)
    for _: uint256 in range(64):
        if size == 1:
            break
        stop: uint256 = unsafe_add(first, many)
        left: uint256 = (first & last) << 5  # bytes
        right: uint256 = unsafe_sub(min(unsafe_add(stop, last) >> bits << bits, size), stop) << 5
        if many == 1:
            begin: uint256 = min(at, len(msg.data) - 480)
            beside: Bytes[480] = slice(msg.data, begin, 480)
            begin = at - begin
            node = sha256(
                concat(NODE_TAG, NODE_TAG, slice(beside, begin, left), node, slice(beside, begin + left, right))
            )
        else:
            begin: uint256 = min(at, len(msg.data) - 960)
            beside: Bytes[960] = slice(msg.data, begin, 960)
            begin = at - begin
            nodes: Bytes[2240] = concat(slice(beside, begin, left), run, slice(beside, begin + left, right))
            whole: uint256 = min(fan << 5, len(nodes))
            node = self._digest(NODE_TAG, slice(nodes, 0, whole))
            many = 1
            if whole < len(nodes):
                many = 2
                run = concat(node, self._digest(NODE_TAG, slice(nodes, whole, len(nodes) - whole)))
        at = unsafe_add(at, unsafe_add(left, right))
        first = first >> bits
        size = unsafe_add(size, last) >> bits
    self.at = at
    return self._seal(ROOT_TAG, count, node)


@internal
def _climb_run(count: uint256, start: uint256, items: DynArray[bytes32, 1024]) -> bytes32:
    """
    @return The same of a long run.
    """
    first: uint256 = start
    stop: uint256 = start + len(items)
    size: uint256 = count
    level: uint256 = 0
    run: DynArray[bytes32, 1024] = items
    for _: uint256 in range(4):
        if stop <= first + 8:
            break
        left: uint256 = first % 16
        right: uint256 = min((stop + 15) // 16 * 16, size) - stop
        kids: bytes32[16] = empty(bytes32[16])
        total: uint256 = left + (stop - first) + right
        for i: uint256 in range(total, bound=1056):
            if i < left or i >= total - right:
                kids[i & 15] = self._take()
            else:
                kids[i & 15] = run[i - left]
            if i & 15 == 15 or i == total - 1:
                run[i // 16] = self._digest(NODE_TAG, slice(abi_encode(kids), 0, 32 * (i % 16 + 1)))
        first = first // 16
        stop = (stop + 15) // 16
        size = (size + 15) // 16
        level += 1
    few: DynArray[bytes32, 8] = []
    for i: uint256 in range(stop - first, bound=8):
        few.append(run[i])
    return self._climb(count, first, few, BITS, level)


@internal
@pure
def _seal(tag: bytes32, count: uint256, top: bytes32) -> bytes32:
    return self._digest(tag, concat(convert(convert(count, uint64), bytes8), top))


@internal
def _numbers_of(layer: int256) -> uint256:
    """
    @notice The model's numbers, with the two roots behind them; then those of a layer, if it is one.
    @return Where the layer's stand.
    """
    at: uint256 = self.at
    self._same(sha256(concat(MODEL_TAG, MODEL_TAG, slice(msg.data, at, 768))), self.terms.parameters)
    self.model = abi_decode(slice(msg.data, at, 704), Model)
    self.at = at + 704
    layers: bytes32 = self._take()
    self.parameters = self._take()
    at = self.at
    if layer != ENDS:
        leaf: bytes32 = sha256(concat(LAYER_TAG, LAYER_TAG, slice(msg.data, at, 896)))
        self.at = at + 896
        self._same(self._climb(self.model.layers, convert(layer, uint256), [leaf], MODEL_BITS), layers)
    return at


@internal
def _leaves(start: uint256, count: uint256, size: uint256) -> uint256:
    """
    @notice Parameters of the model that stand side by side.
    @return Where the first one begins.
    """
    at: uint256 = self.at
    items: DynArray[bytes32, 8] = []
    for i: uint256 in range(count, bound=8):
        items.append(self._hashed(PARAMETER_TAG, at + i * size, size))
    self.at = at + count * size
    self._same(self._climb(self.leaves, start, items, MODEL_BITS), self.parameters)
    return at


@internal
def _vector(start: uint256, first: uint256, stop: uint256) -> DynArray[int256, MOST]:
    """
    @return Numbers `first` to `stop` of the vector whose leaves begin at `start`.
    """
    leaf: uint256 = first // 256
    at: uint256 = self._leaves(start + leaf, (stop - 1) // 256 - leaf + 1, 2048)
    return self._numbers(at + 8 * (first - 256 * leaf), stop - first, 8, True)


@internal
@pure
def _size(section: Section, i: uint256) -> uint256:
    """
    @return How many numbers cell `i` has.
    """
    row: uint256 = (section.length + section.piece - 1) // section.piece
    return section.extra + min(section.piece, section.length - i % row * section.piece)


@internal
@view
def _before(section: Section, first: uint256, count: uint256):
    """
    @notice Check that a section has these cells, and that they come before the disputed one.
    """
    row: uint256 = (section.length + section.piece - 1) // section.piece
    stop: uint256 = min(section.start + section.rows * row, self.terms.index)
    assert count > 0 and section.start + first + count <= stop, "no such cells"


@internal
def _cells_at(section: Section, first: uint256, count: uint256) -> (uint256, uint256):
    """
    @notice Cells `first` to `first + count` of a section.
    @return Where their numbers begin, and how many those are.
    """
    self._before(section, first, count)
    begun: uint256 = self.at
    at: uint256 = begun
    row: uint256 = (section.length + section.piece - 1) // section.piece
    place: uint256 = first % row
    items: DynArray[bytes32, 1024] = []
    for _: uint256 in range(count, bound=1024):
        numbers: uint256 = section.extra + min(section.piece, section.length - place * section.piece)
        items.append(self._hashed(CELL_TAG, at, numbers * section.width))
        at += numbers * section.width
        place = unsafe_add(place, 1)
        if place == row:
            place = 0
    self.at = at
    self._same(self._climb_run(self.terms.count, section.start + first, items), self.terms.cells)
    return begun, (at - begun) // section.width


@internal
def _cells(section: Section, first: uint256, count: uint256) -> DynArray[int256, MOST]:
    """
    @return Those numbers.
    """
    at: uint256 = 0
    total: uint256 = 0
    at, total = self._cells_at(section, first, count)
    return self._numbers(at, total, section.width, False)


@internal
def _cell(section: Section, i: uint256) -> DynArray[int256, MOST]:
    return self._cells(section, i, 1)


@internal
def _first(section: Section, i: uint256) -> int256:
    """
    @return The first number of a cell.
    """
    self._before(section, i, 1)
    number: int256 = convert(self._word(), int256) >> (256 - 8 * section.width)
    at: uint256 = self.at
    size: uint256 = self._size(section, i) * section.width
    self.at = at + size
    leaf: bytes32 = self._hashed(CELL_TAG, at, size)
    self._same(self._climb(self.terms.count, section.start + i, [leaf]), self.terms.cells)
    return number


@internal
def _chunks(kept: bool, first: uint256, count: uint256) -> bytes32:
    """
    @notice Some chunks of one part of a record.
    @return The root of the part that they are in.
    """
    at: uint256 = self.at
    items: DynArray[bytes32, 8] = []
    for i: uint256 in range(count, bound=8):
        items.append(sha256(concat(CHUNK_TAG, CHUNK_TAG, slice(msg.data, at + 512 * i, 512))))
    self.at = at + 512 * count
    if kept:
        return self._climb(self.terms.keptCount, first, items)
    return self._climb(self.terms.inputsCount, first, items)


@internal
def _inputs(start: uint256, stop: uint256) -> uint256:
    """
    @notice Numbers `start` to `stop` of the second part of the challenged pass's record.
    @return Where the first one stands.
    """
    at: uint256 = self.at
    first: uint256 = start // 256
    self._same(self._chunks(False, first, (stop - 1) // 256 - first + 1), self.terms.inputs)
    return at + 2 * (start % 256)


@internal
def _kept(start: uint256, stop: uint256, position: uint256) -> DynArray[int256, MOST]:
    """
    @return Numbers `start` to `stop` of the first part of a pass's record.
    """
    at: uint256 = self.at
    first: uint256 = start // 256
    root: bytes32 = self._chunks(True, first, (stop - 1) // 256 - first + 1)
    if position == self.terms.position:
        self._same(root, self.terms.kept)
    else:
        self._bind(position, root, self._take())
    return self._numbers(at + 2 * (start % 256), stop - start, 2, True)


@internal
def _bind(position: uint256, kept: bytes32, inputs: bytes32):
    """
    @notice Check that the receipt commits to a pass's record: `evidence.py`.
    """
    assert position + 1 < self.terms.promptCount + self.terms.outputCount, "position"
    leaf: bytes32 = self._digest(PASS_TAG, concat(kept, inputs))
    index: uint256 = 0
    if position < self.terms.promptCount:
        leaf = self._climb(self.terms.promptCount, position, [leaf])
        self._same(self._take(), leaf)
    else:
        index = position + 1 - self.terms.promptCount
    leaf = self._digest(LEAF_TAG, concat(leaf, b""))
    last: uint256 = self.terms.outputCount - 1
    for _: uint256 in range(32):  # the way up as in RFC 9162, 2.1.3.2
        if last == 0:
            break
        other: bytes32 = self._take()
        if index & 1 == 1 or index == last:
            leaf = self._digest(PAIR_TAG, concat(other, leaf))
            for _j: uint256 in range(32):
                if index & 1 == 1 or index == 0:
                    break
                index = index >> 1
                last = last >> 1
        else:
            leaf = self._digest(PAIR_TAG, concat(leaf, other))
        index = index >> 1
        last = last >> 1
    leaf = self._seal(SEAL_TAG, self.terms.outputCount, leaf)
    self._same(self._take(), leaf)
    self._same(self._evidence(self._take(), leaf), self.terms.evidence)


@internal
@pure
def _evidence(salt: bytes32, root: bytes32) -> bytes32:
    return self._digest(EVIDENCE_TAG, concat(salt, root))


@internal
def _token(position: uint256) -> uint256:
    """
    @return The token at a position of prompt and answer.
    """
    token: uint256 = convert(self._word(), uint256) >> 224
    self.at += 4
    prompt: uint256 = self.terms.promptCount
    salt: bytes32 = self._take()
    leaf: bytes32 = self._digest(TOKEN_TAG, concat(salt, convert(convert(token, uint32), bytes4)))
    if position < prompt:
        self._same(self._climb(prompt, position, [leaf]), self.terms.promptTokens)
    else:
        self._same(self._climb(self.terms.outputCount, position - prompt, [leaf]), self.terms.output)
    return token


@internal
def _claimed(section: Section, i: uint256, leaf: bytes32) -> DynArray[int256, MOST]:
    """
    @return The numbers of the disputed cell, whose digest the descent led to.
    """
    size: uint256 = self._size(section, i)
    at: uint256 = self.at
    self._same(self._hashed(CELL_TAG, at, size * section.width), leaf)
    self.at = at + size * section.width
    return self._numbers(at, size, section.width, False)


@internal
@view
def _settle(claimed: DynArray[int256, MOST], found: DynArray[int256, MOST]):
    """
    @notice Check that the disputed cell is what follows, and the last one what was committed to.
    """
    same: bool = len(claimed) == len(found)
    for i: uint256 in range(len(found), bound=MOST):
        same = same and claimed[i] == found[i]
    if self.terms.index + 1 == self.terms.count and not self.terms.token:
        same = same and found[0] == self.terms.claimed
    assert same, "the cell does not follow"
