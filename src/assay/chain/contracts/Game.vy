# pragma version 0.4.3
# pragma optimize gas
"""
@title The moves of a dispute over an exact receipt
@license Apache-2.0
@notice Leads both sides down to one cell, which a referee judges: docs/dispute.md. It keeps nothing: a state goes in with a
        move, and comes out. Whatever is not exactly what is wanted reverts, so that a side that has no such move runs out of
        time.
@dev What both sides agree on is in the state as a hash that grows. Digests that the prover shows are not kept: what is known is
     the node that they are under, and when the challenger has named one of them, the prover shows its siblings too.
     A move is read out of the call's data; there have to be zeros behind it.
"""

import opening
initializes: opening

struct Receipt:
    version: uint16
    level: uint8
    stop: uint8
    request: bytes32
    model: bytes32
    profile: bytes32
    promptText: bytes32
    promptTokens: bytes32
    output: bytes32
    evidence: bytes32
    promptCount: uint32
    outputCount: uint32
    channel: bytes32
    amount: uint128
    provider: address
    sequence: uint64
    issued: uint64

struct Dispute:  # the court's: what is in it is not looked at
    sides: uint256
    terms: uint256
    money: uint256
    wronged: address
    receipt: bytes32

struct Facts:
    parameters: bytes32
    evidence: bytes32
    promptTokens: bytes32
    output: bytes32
    promptCount: uint256
    outputCount: uint256
    seed: bytes32
    temperature: uint256
    topK: uint256
    topP: uint256
    minP: uint256
    position: uint256
    token: bool

struct Descent:
    node: bytes32  # that is known
    count: uint256  # leaves of the tree
    level: uint256  # of the node
    index: uint256
    below: uint256  # level of the nodes under it that were shown
    named: uint256  # the one of them that differs; UNNAMED: not yet; OFF: there is no descent in this tree

struct State:
    stage: uint256
    facts: bytes32
    one: Descent  # in keys and values, then in the cells
    other: Descent  # in the inputs of products

PROVER: constant(uint256) = 0  # turns, as the court knows them
CHALLENGER: constant(uint256) = 1

TOPS: constant(uint256) = 0  # stages: what is wanted
BRANCH: constant(uint256) = 1
NODES: constant(uint256) = 2
NAMES: constant(uint256) = 3
CHUNKS: constant(uint256) = 4
ENTRY: constant(uint256) = 5
CELLS: constant(uint256) = 6
CELL_NODES: constant(uint256) = 7
CELL_NAMES: constant(uint256) = 8
STEP: constant(uint256) = 9

UNNAMED: constant(uint256) = 2**40 - 1
OFF: constant(uint256) = 2**40 - 2
ONES: constant(uint256) = max_value(uint256)
NOBODY: constant(uint256) = 2**32 - 1  # what a challenger says that names none
FAN: constant(uint256) = 16  # children of a node; more than a tree has levels
MOST_CHUNKS: constant(uint256) = 2**23  # of each part: so that four bytes name a number
MOST_CELLS: constant(uint256) = 2**32
REQUEST_TAG: constant(bytes32) = sha256("assay/request/2")
PROFILE_TAG: constant(bytes32) = sha256("assay/profile/1")
REGIME: constant(Bytes[41]) = b',"regime":"exact/1","sampler":"gumbel/2",'  # in no string: quotes in one have a backslash

REFEREES: immutable(address[7])

judge: transient(address)  # of the last move


@deploy
def __init__(referees: address[7]):
    """
    @param referees Products, Stream, Norms, Heads, Softmax, Feed, Draws.
    """
    for referee: address in referees:
        assert referee.is_contract, "party"
    REFEREES = referees


@external
@view
def begin(receipt: Receipt, exhibit: Bytes[2048]) -> Bytes[192]:
    """
    @notice What a dispute begins with.
    @param exhibit Position of the pass that is wrong, whether it is the token behind it (32 bytes each); the model's root, the
           opening of the request (body and seed, 32 bytes each, and 33 of rules); the profile's canonical JSON behind the root
           and a quotation mark; in one word, where its regime stands in that. Others are not judged by these referees.
    """
    rules: Bytes[33] = slice(exhibit, 160, 33)
    assert opening._digest(REQUEST_TAG, slice(exhibit, 96, 97)) == receipt.request, "request"
    build: Bytes[64] = self._hex(extract32(exhibit, 64))
    rest: Bytes[2048] = slice(exhibit, 193, len(exhibit) - 225)
    at: uint256 = extract32(exhibit, len(exhibit) - 32, output_type=uint256)
    assert opening._digest(PROFILE_TAG, concat(b'{"build":"', build, b'"', rest)) == receipt.profile, "profile"
    assert slice(rest, at, 41) == REGIME, "regime"
    facts: Facts = Facts(
        parameters=extract32(exhibit, 64),
        evidence=receipt.evidence,
        promptTokens=receipt.promptTokens,
        output=receipt.output,
        promptCount=convert(receipt.promptCount, uint256),
        outputCount=convert(receipt.outputCount, uint256),
        seed=extract32(exhibit, 128),
        temperature=self._part(rules, 0),
        topK=self._part(rules, 8),
        topP=self._part(rules, 16),
        minP=self._part(rules, 24),
        position=extract32(exhibit, 0, output_type=uint256),
        token=extract32(exhibit, 32, output_type=uint256) != 0,
    )
    assert facts.promptCount > 0 and facts.outputCount > 0, "no answer"
    assert facts.position < facts.promptCount + facts.outputCount - 1, "no such pass"
    assert not facts.token or facts.position + 1 >= facts.promptCount, "no token was drawn"
    assert convert(slice(rules, 32, 1), uint256) == 0, "a grammar restricts it"
    return self._packed(State(stage=TOPS, facts=keccak256(abi_encode(facts)), one=empty(Descent), other=empty(Descent)))


@external
@raw_return
def __default__() -> Bytes[288]:
    """
    @notice What follows from a move, and whose turn it is then.
    @dev The court passes its own call on as it is, whose last two arguments are state and move. Arguments are copied to
         where memory is paid for up to the longest that they can be: these are not.
    """
    start: uint256 = self._argument(1)
    opening.at = start
    found: Bytes[288] = self._next(self._unpacked(slice(msg.data, self._argument(0), 192)))
    length: uint256 = convert(slice(msg.data, start - 32, 32), uint256)
    assert opening.at <= start + length, "a move is longer than it says"  # or the other side would not know it
    return found


@external
def prove(id: uint256, dispute: Dispute, state: Bytes[192], move: Bytes[40960]):
    """
    @notice Returns if the last move shows that the prover is right, and reverts otherwise.
    @param move A call of a referee, which begins with terms and digest of the cell; the siblings of the disputed cell; at the
           end one word: which referee, and 256 times the bytes of its call.
    @dev The referee gets all of it: it does not look at what stands behind its own arguments, and nothing is copied. Nor is
         there a result in memory, which would be paid for up to behind the longest move.
    """
    self._choose(state)
    raw_call(self.judge, move)


@internal
def _choose(state: Bytes[192]):
    """
    @notice Find who is to judge the last move, which is over what both sides agree on and the cell that was named.
    """
    s: State = self._unpacked(state)
    assert s.stage == STEP, "stage"
    at: uint256 = self._argument(1)
    length: uint256 = convert(slice(msg.data, at - 32, 32), uint256)
    call: uint256 = convert(slice(msg.data, at + length - 32, 32), uint256)
    agreed: bytes32 = keccak256(slice(msg.data, at + 4, 416))
    agreed = keccak256(concat(agreed, slice(msg.data, at + 420, 128)))
    agreed = keccak256(concat(agreed, slice(msg.data, at + 548, 64)))
    opening._same(keccak256(concat(agreed, slice(msg.data, at + 612, 64))), s.facts)
    opening._same(convert(slice(msg.data, at + 676, 32), bytes32), convert(s.one.named, bytes32))
    opening.at = at + (call >> 8)
    self._risen(s.one, convert(slice(msg.data, at + 708, 32), bytes32))
    self.judge = REFEREES[call & 255]


@internal
@view
def _argument(which: uint256) -> uint256:
    """
    @return Where the bytes begin of the court's argument behind number and dispute.
    """
    return 36 + convert(slice(msg.data, 196 + 32 * which, 32), uint256)


@internal
@pure
def _unpacked(state: Bytes[192]) -> State:
    words: uint256[6] = abi_decode(state, uint256[6])
    return State(
        stage=words[0],
        facts=convert(words[1], bytes32),
        one=self._descent(words[2], words[3]),
        other=self._descent(words[4], words[5]),
    )


@internal
@pure
def _packed(s: State) -> Bytes[192]:
    return abi_encode(s.stage, s.facts, s.one.node, self._place(s.one), s.other.node, self._place(s.other))


@internal
@pure
def _descent(node: uint256, place: uint256) -> Descent:
    return Descent(
        node=convert(node, bytes32),
        count=place & UNNAMED,
        level=place >> 120 & 255,
        index=place >> 40 & UNNAMED,
        below=place >> 128,
        named=place >> 80 & UNNAMED,
    )


@internal
@pure
def _place(d: Descent) -> uint256:
    return d.count | (d.index << 40) | (d.named << 80) | (d.level << 120) | (d.below << 128)


@internal
def _next(before: State) -> Bytes[288]:
    s: State = before
    turn: uint256 = CHALLENGER
    if s.stage == TOPS:
        s = self._tops(s)
    elif s.stage == BRANCH:
        s.one = self._named(s.one, True)
        s.other = self._named(s.other, True)
        assert s.one.named != OFF or s.other.named != OFF, "nothing is named"
        s.stage = NAMES
    elif s.stage == NODES or s.stage == CELL_NODES:
        s = self._nodes(s)
    elif s.stage == NAMES or s.stage == CELL_NAMES:
        s.one = self._named(s.one, False)
        s.other = self._named(s.other, False)
    elif s.stage == CHUNKS:
        s = self._chunks(s)
    elif s.stage == ENTRY:
        s = self._entry(s)
    else:
        assert s.stage == CELLS, "stage"
        s = self._cells(s)
    if s.stage == NAMES and s.one.named != UNNAMED and s.other.named != UNNAMED:
        turn = PROVER
        s.stage = CHUNKS
        if self._deep(s.one) or self._deep(s.other):
            s.stage = NODES
    elif s.stage == CELL_NAMES and s.one.named != UNNAMED:
        turn = PROVER
        s.stage = CELL_NODES if s.one.below > 0 else STEP
    elif s.stage == CELLS:
        turn = PROVER
    return abi_encode(self._packed(s), turn)


@external
def holds(receipt: Receipt, data: Bytes[129024]) -> bool:
    """
    @notice Whether these are the commitments of all passes of a receipt.
    @param data Salt of the evidence, then 32 bytes each, in order.
    """
    prompt: uint256 = convert(receipt.promptCount, uint256)
    output: uint256 = convert(receipt.outputCount, uint256)
    if prompt == 0 or output == 0 or len(data) < 32 * (prompt + output):
        return False
    opening.at = 36 + convert(slice(msg.data, 4 + 17 * 32, 32), uint256)
    salt: bytes32 = opening._take()
    return opening._evidence(salt, self._answer(self._prompt(prompt), output)) == receipt.evidence


@internal
@pure
def _part(rules: Bytes[33], at: uint256) -> uint256:
    return convert(slice(rules, at, 8), uint256)


@internal
@pure
def _hex(root: bytes32) -> Bytes[64]:
    """
    @return 32 bytes as hexadecimal digits.
    """
    words: uint256[2] = [convert(root, uint256) >> 128, convert(root, uint256) & (2**128 - 1)]
    for i: uint256 in range(2):
        x: uint256 = words[i]  # digits are moved apart, half of them at a time, until each has a byte
        x = (x | (x << 64)) & (ONES // (2**128 - 1) * (2**64 - 1))
        x = (x | (x << 32)) & (ONES // (2**64 - 1) * (2**32 - 1))
        x = (x | (x << 16)) & (ONES // (2**32 - 1) * (2**16 - 1))
        x = (x | (x << 8)) & (ONES // (2**16 - 1) * (2**8 - 1))
        x = (x | (x << 4)) & (ONES // 255 * 15)
        letters: uint256 = ((x + ONES // 255 * 6) >> 4) & (ONES // 255)
        words[i] = x + ONES // 255 * 48 + letters * 39
    return concat(convert(words[0], bytes32), convert(words[1], bytes32))


@internal
@pure
def _wide(count: uint256, level: uint256) -> uint256:
    """
    @return How many digests a level of a tree of `count` leaves has.
    """
    return (count + (1 << (4 * level)) - 1) >> (4 * level)


@internal
@pure
def _begun(count: uint256) -> Descent:
    """
    @return A descent in a tree of which the first level that is shown has at most 256 digests: its top will be known.
    """
    top: uint256 = 0
    for _: uint256 in range(FAN):
        if self._wide(count, top) <= 1:
            break
        top += 1
    return Descent(
        node=empty(bytes32), count=count, level=top, index=0, below=top - min(2, top), named=UNNAMED
    )


@internal
@pure
def _deep(d: Descent) -> bool:
    """
    @return Whether there is more under the named node.
    """
    return d.named != OFF and d.below > 0


@internal
@pure
def _first(d: Descent) -> uint256:
    """
    @return The first of the nodes under the known one that are shown.
    """
    return d.index << (4 * (d.level - d.below))


@internal
@pure
def _shown(d: Descent) -> uint256:
    """
    @return How many those are.
    """
    stop: uint256 = min((d.index + 1) << (4 * (d.level - d.below)), self._wide(d.count, d.below))
    return stop - self._first(d)


@internal
def _node(count: uint256) -> bytes32:
    """
    @return The node over so many of the next digests.
    """
    at: uint256 = opening.at
    opening.at = at + 32 * count
    children: Bytes[512] = slice(msg.data, at, 512)
    if count == FAN:
        return sha256(concat(opening.NODE_TAG, opening.NODE_TAG, children))
    return opening._digest(opening.NODE_TAG, slice(children, 0, 32 * count))


@internal
def _over(d: Descent) -> bytes32:
    """
    @return The node over the next digests.
    """
    count: uint256 = self._shown(d)
    steps: uint256 = d.level - d.below
    if steps == 0:
        return opening._take()
    parents: DynArray[bytes32, FAN] = []
    for i: uint256 in range((count + FAN - 1) // FAN, bound=FAN):
        parents.append(self._node(min(FAN, count - FAN * i)))
    if steps == 1:
        return parents[0]
    return opening._digest(opening.NODE_TAG, slice(abi_encode(parents), 64, 32 * len(parents)))


@internal
def _risen(d: Descent, digest: bytes32):
    """
    @notice Check that a digest is that of the named node of the level that was shown: the next digests are its siblings.
    """
    node: bytes32 = digest
    place: uint256 = d.named
    for level: uint256 in range(d.below, d.level, bound=2):
        left: uint256 = place % FAN
        many: uint256 = min(FAN, self._wide(d.count, level) - (place - left))
        piece: Bytes[512] = slice(msg.data, opening.at, 512)
        opening.at += 32 * (many - 1)
        node = opening._digest(
            opening.NODE_TAG,
            concat(slice(piece, 0, 32 * left), node, slice(piece, 32 * left, 32 * (many - 1 - left))),
        )
        place = place // FAN
    opening._same(node, d.node)


@internal
def _index() -> uint256:
    """
    @return The next four bytes, as a number.
    """
    at: uint256 = opening.at
    opening.at = at + 4
    return convert(slice(msg.data, at, 4), uint256)


@internal
def _named(d: Descent, optional: bool) -> Descent:
    """
    @notice The challenger names a node of those that were just shown, if any were; or none, where that is optional.
    """
    if d.named != UNNAMED:
        return d
    found: Descent = d
    found.named = self._index()
    if optional and found.named == NOBODY:
        found.named = OFF
        return found
    assert self._first(d) <= found.named and found.named < self._first(d) + self._shown(d), "no such node"
    return found


@internal
def _tops(s: State) -> State:
    """
    @notice The prover shows how the pass is committed to: how many chunks both parts of its record have, the facts, the first
            level of both trees, and the way up to the evidence.
    """
    keys: uint256 = convert(opening._take(), uint256)
    inputs: uint256 = convert(opening._take(), uint256)
    assert 0 < keys and keys <= MOST_CHUNKS and 0 < inputs and inputs <= MOST_CHUNKS, "chunks"
    shown: Bytes[416] = slice(msg.data, opening.at, 416)
    opening._same(keccak256(shown), s.facts)
    facts: Facts = abi_decode(shown, Facts)
    opening.at += 416
    next: State = s
    next.stage = BRANCH
    next.one = self._begun(keys)
    next.one.node = self._over(next.one)
    next.other = self._begun(inputs)
    next.other.node = self._over(next.other)
    kept: bytes32 = opening._seal(opening.ROOT_TAG, keys, next.one.node)
    rest: bytes32 = opening._seal(opening.ROOT_TAG, inputs, next.other.node)
    opening.terms.evidence = facts.evidence
    opening.terms.promptCount = facts.promptCount
    opening.terms.outputCount = facts.outputCount
    opening._bind(facts.position, kept, rest)
    next.facts = keccak256(abi_encode(s.facts, keys, inputs, kept, rest))
    if facts.token:
        next.stage = CELLS
        next.facts = keccak256(abi_encode(next.facts, empty(uint256), empty(int256)))
    return next


@internal
def _lower(d: Descent, digest: bytes32) -> Descent:
    """
    @notice What is known is now the named node; the next two levels under it are shown.
    """
    found: Descent = d
    found.node = digest
    found.level = d.below
    found.index = d.named
    found.below = d.below - min(2, d.below)
    found.named = UNNAMED
    return found


@internal
def _nodes(s: State) -> State:
    """
    @notice The prover shows what is under the named nodes, and then their siblings.
    """
    next: State = s
    next.stage = s.stage + 1
    one: bool = self._deep(s.one)
    other: bool = self._deep(s.other)
    if one:
        next.one = self._lower(s.one, empty(bytes32))
        next.one.node = self._over(next.one)
    if other:
        next.other = self._lower(s.other, empty(bytes32))
        next.other.node = self._over(next.other)
    if one:
        self._risen(s.one, next.one.node)
    if other:
        self._risen(s.other, next.other.node)
    return next


@internal
def _chunks(s: State) -> State:
    """
    @notice The prover shows the named chunks, and then their siblings.
    """
    next: State = s
    next.stage = ENTRY
    if s.one.named != OFF:
        next.one = self._lower(s.one, opening._digest(opening.CHUNK_TAG, slice(msg.data, opening.at, 512)))
        opening.at += 512
    if s.other.named != OFF:
        next.other = self._lower(s.other, opening._digest(opening.CHUNK_TAG, slice(msg.data, opening.at, 512)))
        opening.at += 512
    if s.one.named != OFF:
        self._risen(s.one, next.one.node)
    if s.other.named != OFF:
        self._risen(s.other, next.other.node)
    return next


@internal
def _entry(s: State) -> State:
    """
    @notice The challenger names a number of those chunks, and shows the one that it is in.
    """
    entry: uint256 = self._index()
    chunk: uint256 = entry // 256
    digest: bytes32 = opening._digest(opening.CHUNK_TAG, slice(msg.data, opening.at, 512))
    word: uint256 = convert(slice(msg.data, opening.at + 2 * (entry % 256), 32), uint256)
    claimed: int256 = convert((word >> 240 & 255) << 8 | word >> 248, int256)
    if claimed >= 2**15:
        claimed -= 2**16
    if s.one.named != OFF and chunk == s.one.index:
        opening._same(digest, s.one.node)
    else:
        assert s.other.named != OFF and chunk == s.one.count + s.other.index, "no such number"
        opening._same(digest, s.other.node)
    next: State = s
    next.stage = CELLS
    next.facts = keccak256(abi_encode(s.facts, entry, claimed))
    return next


@internal
def _cells(s: State) -> State:
    """
    @notice The prover shows how many cells lead to what is disputed, and the first level of the tree over them.
    """
    count: uint256 = convert(opening._take(), uint256)
    assert 0 < count and count <= MOST_CELLS, "cells"
    next: State = s
    next.stage = CELL_NAMES
    next.one = self._begun(count)
    next.one.node = self._over(next.one)
    next.other = empty(Descent)
    next.other.named = OFF
    root: bytes32 = opening._seal(opening.ROOT_TAG, count, next.one.node)
    next.facts = keccak256(abi_encode(s.facts, count, root))
    return next


@internal
def _prompt(count: uint256) -> bytes32:
    """
    @return The root over the commitments of a prompt's passes, the next digests.
    """
    if count == 1:
        return opening._seal(opening.ROOT_TAG, 1, opening._take())
    level: DynArray[bytes32, 256] = []
    for i: uint256 in range((count + FAN - 1) // FAN, bound=256):
        level.append(self._node(min(FAN, count - FAN * i)))
    size: uint256 = len(level)
    for _: uint256 in range(2):
        if size == 1:
            break
        for i: uint256 in range((size + FAN - 1) // FAN, bound=FAN):
            kids: bytes32[FAN] = empty(bytes32[FAN])
            many: uint256 = min(FAN, size - FAN * i)
            for j: uint256 in range(many, bound=FAN):
                kids[j] = level[FAN * i + j]
            level[i] = opening._digest(opening.NODE_TAG, slice(abi_encode(kids), 0, 32 * many))
        size = (size + FAN - 1) // FAN
    return opening._seal(opening.ROOT_TAG, count, level[0])


@internal
def _answer(prompt: bytes32, count: uint256) -> bytes32:
    """
    @return The root over an answer's passes: the first one's is that over the prompt's, the others are the next digests.
    @dev Full subtrees wait on a stack, the largest first, as in RFC 6962.
    """
    stack: DynArray[bytes32, FAN] = []
    item: bytes32 = prompt
    for n: uint256 in range(1, count + 1, bound=4096):
        if n > 1:
            item = opening._take()
        node: bytes32 = opening._digest(opening.LEAF_TAG, concat(item, b""))
        for bit: uint256 in range(FAN):
            if (n >> bit) & 1 == 1:
                break
            node = opening._digest(opening.PAIR_TAG, concat(stack.pop(), node))
        stack.append(node)
    top: bytes32 = stack.pop()
    for _: uint256 in range(FAN):
        if len(stack) == 0:
            break
        top = opening._digest(opening.PAIR_TAG, concat(stack.pop(), top))
    return opening._seal(opening.SEAL_TAG, count, top)
