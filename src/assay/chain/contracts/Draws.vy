# pragma version 0.4.3
# pragma optimize gas
"""
@title Judges cells of a draw
@license Apache-2.0
@notice `judge` returns if the disputed cell follows from what the opening shows, and reverts otherwise: `sampling.py`, and `logit`.
"""

import opening
import plan
import whole
initializes: opening
initializes: plan[opening := opening]
initializes: whole

AT: constant(uint256) = 836  # where the opening stands in the call's data: behind the arguments, with zeros behind it
MOST: constant(uint256) = 1056
NATS: constant(uint256) = 26613026195688644983488525  # see `exact/sampling.py`


@deploy
def __init__(tables: address):
    whole.__init__(tables)


@external
def judge(terms: opening.Terms, leaf: bytes32, kind: uint256, layer: int256, use: uint256):
    """
    @notice Check one cell of kinds `logit` to `race`, or `number`.
    @param leaf The digest of the cell, which the descent led to.
    @param use Always 0.
    """
    plan._begin(terms, layer, AT)
    plan._ensure(layer == plan.layer)
    plan._ensure(terms.token)
    section: opening.Section = plan._draw(kind, use)
    plan._inside(section, self._section(plan.NUMBER))
    i: uint256 = terms.index - section.start
    claimed: DynArray[int256, MOST] = opening._claimed(section, i, leaf)
    found: DynArray[int256, MOST] = []
    if kind == plan.LOGIT:
        found = self._logit(section, i)
    elif kind == plan.LIKELIEST:
        found = self._likeliest(section, i)
    elif kind == plan.DEFICIT:
        found = self._deficit(i)
    elif kind == plan.COUNT:
        found = self._count(section, i)
    elif kind == plan.SHARE:
        found = self._share(i)
    elif kind == plan.TOTAL:
        found = self._total(section, i)
    elif kind == plan.MASS:
        found = self._mass(section, i)
    elif kind == plan.RACE:
        found = self._race(section, i)
    else:
        plan._ensure(kind == plan.NUMBER)
        last: uint256 = plan.LIKELIEST
        if terms.temperature > 0:
            last = plan.RACE
        found = [self._last(last)[1]]
        assert opening._token(terms.position + 1) == convert(found[0], uint256), "another token"
    opening._settle(claimed, found)


@internal
@view
def _section(kind: uint256) -> opening.Section:
    return plan._draw(kind, 0)


@internal
def _last(kind: uint256) -> DynArray[int256, MOST]:
    """
    @return The numbers of a section's last cell.
    """
    section: opening.Section = self._section(kind)
    return opening._cell(section, section.rows * plan._parts(section.length, section.piece) - 1)


@internal
def _numbers(kind: uint256, group: uint256, size: uint256) -> DynArray[int256, MOST]:
    """
    @return So many numbers of cells of 256.
    """
    section: opening.Section = self._section(kind)
    first: uint256 = group * (size // 256)
    return opening._cells(section, first, min(size // 256, plan._parts(section.length, 256) - first))


@internal
@view
def _key(logit: int256, token: uint256, bits: uint256) -> int256:
    """
    @param bits Of a token.
    @return A number by which candidates are ordered: larger for a larger logit, and for a lower token.
    """
    return ((logit + whole.MOST) << bits) + convert((1 << bits) - 1 - token, int256)


@internal
def _logit(section: opening.Section, i: uint256) -> DynArray[int256, MOST]:
    by: int256 = plan._fraction(plan.HEAD) - 16
    y: DynArray[int256, MOST] = plan._products(
        plan._draw(plan.PRODUCT, plan.HEAD), i * 256, opening._size(section, i)
    )
    for n: uint256 in range(len(y), bound=256):
        y[n] = whole._clip(whole._shifted(y[n], by), whole.MOST)
    return y


@internal
def _likeliest(section: opening.Section, i: uint256) -> DynArray[int256, MOST]:
    """
    @return The largest logit, and the lowest token that has it, of 1,024 tokens and those before.
    """
    numbers: DynArray[int256, MOST] = self._numbers(plan.LOGIT, i, 1024)
    most: int256 = min_value(int256)
    token: uint256 = 0
    for n: uint256 in range(len(numbers), bound=1024):
        if numbers[n] > most:
            most = numbers[n]
            token = i * 1024 + n
    if i > 0:
        before: DynArray[int256, MOST] = opening._cell(section, i - 1)
        if before[0] >= most:
            return before
    return [most, convert(token, int256)]


@internal
def _deficit(i: uint256) -> DynArray[int256, MOST]:
    """
    @return By how many octaves 256 tokens are less probable than the likeliest.
    """
    peak: int256 = self._last(plan.LIKELIEST)[0]
    quotient: uint256 = NATS // opening.terms.temperature
    spare: uint256 = convert(whole._length(convert(quotient, int256)), uint256) - 31
    out: DynArray[int256, MOST] = opening._cell(self._section(plan.LOGIT), i)
    for n: uint256 in range(len(out), bound=256):
        assert out[n] <= peak, "logit"
        out[n] = ((peak - out[n]) * convert(quotient >> spare, int256)) >> (56 - spare)
    return out


@internal
def _tried(section: opening.Section, i: uint256, least: int256) -> (int256, int256):
    """
    @return The floor that is tried in a row of cells, and what was counted before.
    """
    row: uint256 = plan._parts(section.length, section.piece)
    if i % row > 0:
        before: DynArray[int256, MOST] = opening._cell(section, i - 1)
        return before[0], before[1]
    bit: uint256 = i // row
    lowest: int256 = 0
    if bit > 0:
        lowest = self._settled(section, bit, least)
    return lowest + (1 << (plan._bits() - 1 - bit)), 0


@internal
def _settled(section: opening.Section, bits: uint256, least: int256) -> int256:
    """
    @return The upper bits of the floor.
    """
    cell: DynArray[int256, MOST] = opening._cell(
        section, bits * plan._parts(section.length, section.piece) - 1
    )
    if cell[1] >= least:
        return cell[0]
    return cell[0] - (1 << (plan._bits() - bits))


@internal
def _needed() -> int256:
    """
    @return The weight that `top_p` asks for, at least that of one token.
    """
    wanted: int256 = self._last(plan.TOTAL)[0] * convert(opening.terms.topP, int256)
    return max(1, (wanted + 999_999) // 1_000_000)


@internal
def _count(section: opening.Section, i: uint256) -> DynArray[int256, MOST]:
    """
    @return A key, and how many of 1,024 tokens and those before have that one or a larger.
    """
    lowest: int256 = 0
    many: int256 = 0
    lowest, many = self._tried(section, i, convert(opening.terms.topK, int256))
    group: uint256 = i % plan._parts(section.length, section.piece)
    bits: uint256 = plan._bits() - 32
    logits: DynArray[int256, MOST] = self._numbers(plan.LOGIT, group, 1024)
    for n: uint256 in range(len(logits), bound=1024):
        if self._key(logits[n], group * 1024 + n, bits) >= lowest:
            many += 1
    return [lowest, many]


@internal
def _share(i: uint256) -> DynArray[int256, MOST]:
    """
    @return The weights of 256 tokens, 0 of those that `top_k` leaves out.
    """
    out: DynArray[int256, MOST] = opening._cell(self._section(plan.DEFICIT), i)
    lowest: int256 = 0
    bits: uint256 = plan._bits() - 32
    logits: DynArray[int256, MOST] = []
    if plan._counts():
        lowest = self._settled(self._section(plan.COUNT), plan._bits(), convert(opening.terms.topK, int256))
        logits = opening._cell(self._section(plan.LOGIT), i)
    for n: uint256 in range(len(out), bound=256):
        if len(logits) > 0 and self._key(logits[n], i * 256 + n, bits) < lowest:
            out[n] = 0
        else:
            out[n] = whole._weight(out[n])
    return out


@internal
def _total(section: opening.Section, i: uint256) -> DynArray[int256, MOST]:
    """
    @return The sum of 1,024 weights, and of those before.
    """
    total: int256 = 0
    if i > 0:
        total = opening._cell(section, i - 1)[0]
    shares: DynArray[int256, MOST] = self._numbers(plan.SHARE, i, 1024)
    for n: int256 in shares:
        total += n
    return [total]


@internal
def _mass(section: opening.Section, i: uint256) -> DynArray[int256, MOST]:
    """
    @return A key, and the weight of 512 tokens and those before that have that one or a larger.
    """
    least: int256 = self._needed()
    lowest: int256 = 0
    mass: int256 = 0
    lowest, mass = self._tried(section, i, least)
    group: uint256 = i % plan._parts(section.length, section.piece)
    bits: uint256 = plan._bits() - 32
    logits: DynArray[int256, MOST] = self._numbers(plan.LOGIT, group, 512)
    shares: DynArray[int256, MOST] = self._numbers(plan.SHARE, group, 512)
    for n: uint256 in range(len(logits), bound=512):
        if self._key(logits[n], group * 512 + n, bits) >= lowest:
            mass += shares[n]
    return [lowest, mass]


@internal
def _race(section: opening.Section, i: uint256) -> DynArray[int256, MOST]:
    """
    @return The largest score of 256 tokens and those before, and the lowest token that has it.
    """
    best: int256 = -(2**62)
    token: int256 = 0
    bits: uint256 = plan._bits() - 32
    if i > 0:
        before: DynArray[int256, MOST] = opening._cell(section, i - 1)
        best = before[0]
        token = before[1]
    lowest: int256 = 0
    if opening.terms.topP < plan.MICRO:
        lowest = self._settled(self._section(plan.MASS), plan._bits(), self._needed())
    elif plan._counts():
        lowest = self._settled(self._section(plan.COUNT), plan._bits(), convert(opening.terms.topK, int256))
    first: int256 = self._last(plan.LIKELIEST)[1]
    logits: DynArray[int256, MOST] = []
    if lowest != 0:
        logits = opening._cell(self._section(plan.LOGIT), i)
    place: uint256 = opening.terms.position + 1 - opening.terms.promptCount
    seed: bytes32 = sha256(concat(opening.terms.seed, convert(convert(place, uint64), bytes8)))
    key: uint256 = convert(seed, uint256) >> 192
    deficits: DynArray[int256, MOST] = opening._cell(self._section(plan.DEFICIT), i)
    for n: uint256 in range(len(deficits), bound=256):
        each: uint256 = i * 256 + n
        if lowest != 0 and self._key(logits[n], each, bits) < lowest:
            continue
        if opening.terms.minP > 0 and convert(each, int256) != first:
            if whole._weight(deficits[n]) * 1_000_000 < convert(opening.terms.minP << 40, int256):
                continue
        score: int256 = whole._noise(whole._hash(key, each)) - deficits[n]
        if score > best:
            best = score
            token = convert(each, int256)
    return [best, token]
