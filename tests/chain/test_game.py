"""The game against whoever wants to be right and is not: each try has a test that names it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from eth_abi import decode, encode
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.chain.arena import Arena, Case, opening_of, profile_of
from tests.chain.courtroom import as_struct, as_tuple
from tests.chain.fighters import Forest, forest, shown
from tests.chain.kit import NOBODY, PEOPLE, Town, embedded, town_of
from tests.engines.exact.dispute.kit import answer

from assay.chain import referees
from assay.chain.contracts import artefact
from assay.chain.court_events import tail
from assay.chain.dispute import DISPUTE
from assay.chain.embedded import EmbeddedChain
from assay.chain.ethereum import Web3
from assay.chain.game import FILLING, PADDING, STAGES, UNNAMED, Descent, exhibit, read_state, step_move, word
from assay.chain.transactions import MAX_TRANSACTION
from assay.core.encoding import canonical
from assay.core.evidence import evidence_salt
from assay.core.hashing import Digest, digest
from assay.core.keys import keccak256
from assay.core.profile import MOST_BYTES as MOST_PROFILE
from assay.core.profile import Profile
from assay.core.receipt import Receipt
from assay.engines.exact.dispute import trees
from assay.engines.exact.dispute.evidence import evidence_of
from assay.engines.exact.dispute.moves import MOST_BYTES, Challenge, encode_indices
from assay.engines.exact.record import CHUNK, CHUNK_BYTES, both_parts

OFF = UNNAMED - 1
NONE = (1 << 32) - 1
MOST_MOVE = 40_960
MOVE, PROVE = (keccak256(f"{name}(uint256,{DISPUTE},bytes,bytes)".encode())[:4] for name in ("move", "prove"))
PROVER, CHALLENGER = 0, 1
EDGES = sorted({16**k + d for k in range(9) for d in (-1, 0, 1)} - {0, 16**8 + 1} | {2, 3, 1 << 31})
COUNTS = st.one_of(st.sampled_from(EDGES), st.integers(1, 1 << 32))
DICE = st.integers(0, 2**32).map(Random)


class Refused(Exception):
    """The contract reverts."""


def arguments(state: bytes, move: bytes) -> bytes:
    """Of the court's call, in whose number and dispute the game is not interested."""
    return encode(["uint256", DISPUTE, "bytes", "bytes"], [1, (2, 3, 4, NOBODY, bytes(32)), state, move])


class Board:
    """A game on a chain, which keeps nothing: calls are enough."""

    def __init__(self, chain: EmbeddedChain, game: Any) -> None:
        self.chain, self.game = chain, game

    def raw(self, data: bytes) -> bytes:
        """What a call returns."""
        outcome = self.chain.call(NOBODY, self.game.address.lower(), data)
        if not outcome.ok:
            raise Refused(outcome.output[68:].rstrip(b"\0").decode(errors="replace") or outcome.reason)
        self.gas = outcome.gas
        return outcome.output

    def next(self, state: bytes, move: bytes) -> tuple[bytes, int]:
        """State and turn after a move."""
        return decode(["bytes", "uint256"], self.raw(MOVE + arguments(state, move)))

    def prove(self, state: bytes, move: bytes) -> None:
        """The last move convinces."""
        self.raw(PROVE + arguments(state, move))

    def begin(self, case: Case, shows: bytes, **other: Any) -> bytes:
        """The first state."""
        receipt = replace(case.receipt, **other)
        data = bytes.fromhex(self.game.encode_abi("begin", [as_tuple(receipt), shows])[2:])
        return decode(["bytes"], self.raw(data))[0]


@pytest.fixture(scope="module")
def chain() -> Iterator[EmbeddedChain]:
    """Whose time stands still."""
    chain = embedded()
    yield chain
    chain.close()


@pytest.fixture(scope="module")
def arena(chain: EmbeddedChain) -> Arena:
    """With the real game."""
    return Arena(town_of(chain))


@pytest.fixture(scope="module")
def board(chain: EmbeddedChain, arena: Arena) -> Board:
    """The real game."""
    return Board(chain, arena.game)


@pytest.fixture(scope="module")
def blind(chain: EmbeddedChain) -> Board:
    """A game whose referees agree to everything: what it checks itself is left."""
    town = town_of(chain)
    yes = town.web3.eth.contract(abi=[], bytecode="0x6001600c60003960016000f300").constructor()
    where = [town.send(PEOPLE[0], yes)["contractAddress"]] * 7
    return Board(chain, town.deploy("Game", where))


def packed(stage: str, facts: bytes, one: Descent, other: Descent) -> bytes:
    """A state as the contract has it."""
    places = [d.count | d.index << 40 | d.named << 80 | d.level << 120 | d.below << 128 for d in (one, other)]
    return b"".join([word(STAGES.index(stage)), facts, one.node, word(places[0]), other.node, word(places[1])])


EMPTY = Descent(bytes(32), 0, 0, 0, 0, 0)


def agreed(terms: referees.Terms, upto: int = 4) -> bytes:
    """What a state says of the terms: in the beginning, and after three moves."""
    words = referees.encode(terms)
    known = b""
    for start, stop in pairwise((0, 13, 17, 19, 21)[: upto + 1]):
        known = keccak256(known + words[32 * start : 32 * stop])
    return known


def any_terms(dice: Random, **other: Any) -> referees.Terms:
    """Terms of nothing."""
    some = dice.randbytes
    values = referees.Terms(
        some(32), some(32), some(32), some(32), 5, 9, some(32), 1, 2, 3, 4, 6, False, 50, 60, some(32), some(32), 70,
        -8, 0, bytes(32), 0,
    )  # fmt: skip
    return values._replace(**other)


def led(board: Board, tree: Forest, index: int, dice: Random) -> tuple[bytes, referees.Terms]:
    """From the first move about cells down to one: every state is what the trees in Python say."""
    terms = any_terms(dice, count=tree.count, cells=tree.root, index=index)
    state, turn = board.next(
        packed("cells", agreed(terms, 3), EMPTY, EMPTY), word(tree.count) + b"".join(tree.first()) + PADDING
    )
    level, place, low = len(trees.sizes_of(tree.count)) - 1, 0, trees.first_level(tree.count)
    while True:
        s = read_state(state)
        assert (turn, s.stage) == (CHALLENGER, "cell names")
        assert s.one == Descent(tree.part(level, place, place + 1)[0], tree.count, level, place, low, UNNAMED)
        assert not s.other.on
        if level > low:
            spans = trees.below(tree.count, level, place) if level - low == 2 else None
            assert spans is None or spans[0] != low or (s.one.first, s.one.first + shown(s.one)) == spans[1:]
        named = index // 16**low
        for wrong in (s.one.first - 1, s.one.first + shown(s.one), NONE):
            if 0 <= wrong <= NONE and not s.one.first <= wrong < s.one.first + shown(s.one):
                with pytest.raises(Refused, match="no such node"):
                    board.next(state, encode_indices(wrong) + FILLING)
        state, turn = board.next(state, encode_indices(named) + FILLING)
        s = read_state(state)
        assert (turn, s.one.named) == (PROVER, named)
        if low == 0:
            assert s.stage == "step"
            return state, terms
        assert s.stage == "cell nodes"
        under, beside = b"".join(tree.under(s.one)), b"".join(tree.beside(s.one))
        for spoilt in spoilt_ones(under + beside, dice):
            with pytest.raises(Refused, match="not what was committed to"):
                board.next(state, spoilt + PADDING)
        state, turn = board.next(state, under + beside + PADDING)
        level, place, low = low, named, max(0, low - 2)


def spoilt_ones(data: bytes, dice: Random) -> list[bytes]:
    """One bit changed somewhere, and two digests exchanged."""
    at = dice.randrange(len(data))
    one = data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :]
    pieces = [data[i : i + 32] for i in range(0, len(data), 32)]
    i, j = dice.randrange(len(pieces)), dice.randrange(len(pieces))
    pieces[i], pieces[j] = pieces[j], pieces[i]
    return [each for each in (one, b"".join(pieces)) if each != data]


@given(COUNTS, DICE)
@example(1 << 32, Random(1))
@example(1, Random(1))
@settings(deadline=None, max_examples=25)
def test_descents_in_trees_of_all_sizes(blind: Board, count: int, dice: Random) -> None:
    """Levels, places and numbers of digests are those of `trees.py`; the last digest is bound to the terms' root."""
    index = dice.choice([0, count - 1, dice.randrange(count)])
    leaf = dice.randbytes(32)
    tree = Forest(count, {index: leaf}, digest("assay/exact-cell/1", b"other"))
    state, terms = led(blind, tree, index, dice)
    move = last(terms, leaf, tree, state)
    with pytest.raises(Refused, match="stage"):
        blind.next(state, move)
    blind.prove(state, move)
    for n in range(len(terms)):
        words = bytearray(referees.encode(terms))
        words[32 * n + dice.randrange(32)] ^= 1 << dice.randrange(8)
        with pytest.raises(Refused, match="not what was committed to"):
            blind.prove(state, move[:4] + bytes(words) + move[4 + len(words) :])
    for wrong in (digest("assay/exact-cell/1", b"wrong"), bytes(32)):
        with pytest.raises(Refused, match="not what was committed to"):
            blind.prove(state, last(terms, wrong, tree, state))
    beside = b"".join(tree.beside(read_state(state).one))
    for spoilt in spoilt_ones(beside, dice) if beside else []:
        with pytest.raises(Refused, match="not what was committed to"):
            blind.prove(state, last(terms, leaf, tree, state, spoilt))


def last(terms: referees.Terms, leaf: Digest, tree: Forest, state: bytes, beside: bytes | None = None) -> bytes:
    """The last move."""
    siblings = b"".join(tree.beside(read_state(state).one)) if beside is None else beside
    return step_move("Stream", referees.encode_judge(terms, leaf, referees.Step("Stream", 0, 0, 0), b""), siblings)


def test_a_call_of_another_size(blind: Board) -> None:
    """Siblings stand behind as many bytes as the call is said to have: fewer or more, and they are others. It goes to
    one of the referees, and says which at its end."""
    dice = Random(2)
    tree = forest([dice.randbytes(32) for _ in range(20)])
    state, terms = led(blind, tree, 7, dice)
    move = last(terms, tree.part(0, 7, 8)[0], tree, state)
    size = int.from_bytes(move[-32:], "big") >> 8
    blind.prove(state, move)
    for other in (size - 1, size + 1, size - 32, size + 32, 0, 4, 708, len(move), 1 << 20, (1 << 248) - 1):
        with pytest.raises(Refused):
            blind.prove(state, move[:-32] + word(other << 8))
    for number in range(256):
        whole = move[:-32] + word(size << 8 | number)
        if number < 7:
            blind.prove(state, whole)
        else:
            with pytest.raises(Refused):
                blind.prove(state, whole)
    for cut in (0, 31, 32, 100, 32 + 4 + 704, len(move) - 600):
        with pytest.raises(Refused):
            blind.prove(state, move[:cut])


def test_a_proof_laid_out_differently(blind: Board) -> None:
    """What the game checks of the last move is what the referee is called with, wherever it stands in the call: before
    the state, in its middle, or where an offset past the end would wrap around to."""
    dice = Random(4)
    tree = forest([dice.randbytes(32) for _ in range(20)])
    state, terms = led(blind, tree, 7, dice)
    move = last(terms, tree.part(0, 7, 8)[0], tree, state)
    false = last(terms, bytes(32), tree, state)
    head, size = word(1) + bytes(5 * 32), 256 + 32 + len(move)
    assert len(move) == len(false)
    blind.raw(PROVE + b"".join([head, word(size), word(256), word(len(move)), move, word(192), state]))
    both = [word(len(move)), move, word(len(false)), false, word(192), state]
    at = 2 * (32 + len(move)) + 256
    blind.raw(PROVE + b"".join([head, word(at), word(256), *both]))
    for offset in (
        size,
        size - 32,
        256 + 32,
        256 + 4,
        0,
        4,
        2**256 - 4,
        2**256 - 36,
        2**256 - 37,
        2**256 - 4 + 256,
        2**255,
    ):
        with pytest.raises(Refused):
            blind.raw(PROVE + b"".join([head, word(at), word(offset % 2**256), *both]))
    for offset in (at - 1, at + 32, 2**256 - 4, 2**256 - 37):
        with pytest.raises(Refused):
            blind.raw(PROVE + b"".join([head, word(offset), word(256), *both]))
    for length in (0, 4, 836, len(move) - 32, len(move) + 32, 40_961, 2**255):
        with pytest.raises(Refused):
            blind.raw(PROVE + b"".join([head, word(at), word(256), word(length), *both[1:]]))


def test_a_call_of_something_else(board: Board) -> None:
    """The real referees have nothing but `judge`: another selector, or arguments cut short, fail."""
    dice = Random(3)
    tree = forest([dice.randbytes(32)])
    state, terms = led(board, tree, 0, dice)
    move = last(terms, tree.top, tree, state)
    for selector in (bytes(4), MOVE, PROVE, keccak256(b"begin()")[:4]):
        for number in range(7):
            with pytest.raises(Refused):
                board.prove(state, selector + move[4:-1] + bytes([number]))
    for size in (4, 740, 899):
        with pytest.raises(Refused):
            board.prove(state, move[:size] + PADDING + word(size << 8))


def test_stages_out_of_order(blind: Board) -> None:
    """`prove` proves nothing before its time, and a move of one stage is none of another; there are ten stages."""
    dice = Random(4)
    tree = forest([dice.randbytes(32) for _ in range(300)])
    terms = any_terms(dice, count=300, cells=tree.root, index=7)
    one = Descent(tree.top, 300, 3, 0, 1, UNNAMED)
    cells = word(300) + b"".join(tree.first()) + PADDING
    for stage in STAGES:
        state = packed(stage, agreed(terms, 3), one, one._replace(named=OFF))
        if stage != "step":
            with pytest.raises(Refused, match="stage"):
                blind.prove(state, last(terms, tree.part(0, 7, 8)[0], tree, state))
        if stage in ("tops", "nodes", "chunks", "cell nodes", "entry"):
            with pytest.raises(Refused):
                blind.next(state, cells)
        if stage in ("branch", "names", "cell names"):  # 300 is no node, of those that are shown
            with pytest.raises(Refused):
                blind.next(state, encode_indices(300, 300) + FILLING)
    assert read_state(blind.next(packed("cells", agreed(terms, 3), EMPTY, EMPTY), cells)[0]).stage == "cell names"


@pytest.mark.parametrize(
    ("count", "ok"), [(0, False), (1, True), (1 << 32, True), ((1 << 32) + 1, False), (2**256 - 1, False)]
)
def test_numbers_of_cells(blind: Board, count: int, ok: bool) -> None:
    """From one to 2^32."""
    nodes = Forest(min(max(count, 1), 1 << 32), {}, bytes(32)).first() * 2
    state = packed("cells", bytes(32), EMPTY, EMPTY)
    move = word(count) + b"".join(nodes) + PADDING
    if ok:
        assert read_state(blind.next(state, move)[0]).one.count == count
        return
    with pytest.raises(Refused, match="cells"):
        blind.next(state, move)


class Tops:
    """What the first move of a small answer is made of."""

    def __init__(self, arena: Arena, position: int = 2, *, token: bool = False, name: str = "llama") -> None:
        self.one = answer(name)
        self.own = self.one.own
        self.case = arena.case(self.own, self.one.root, Challenge(position, token))
        self.counts = [len(levels[0]) for levels in self.own.levels(position)]
        self.trees = [forest(levels[0]) for levels in self.own.levels(position)]
        settings_ = self.own.rules.settings
        terms = any_terms(Random(1))
        self.terms = terms._replace(
            parameters=self.one.root, evidence=self.own.evidence.root, prompt_tokens=self.own.token_roots.prompt,
            output=self.own.token_roots.output, prompt_count=self.own.evidence.prompt,
            output_count=self.own.evidence.output, seed=self.own.rules.seed, temperature=settings_.temperature,
            top_k=settings_.top_k, top_p=settings_.top_p, min_p=settings_.min_p, position=position, token=token,
            kept_count=self.counts[0], inputs_count=self.counts[1], kept=self.trees[0].root, inputs=self.trees[1].root,
            target=0, claimed=0,
        )  # fmt: skip
        self.path = self.own.path(position)

    @property
    def facts(self) -> bytes:
        """Words that are known from the beginning."""
        return referees.encode(self.terms)[: 13 * 32]

    def move(
        self, counts: tuple[int, int] | None = None, facts: bytes | None = None, path: bytes | None = None
    ) -> bytes:
        """The move, or another one."""
        nodes = [node for tree in self.trees for node in tree.first()]
        path = b"".join(self.path) if path is None else path
        return b"".join([*map(word, counts or self.counts), facts or self.facts, *nodes, path]) + 2 * PADDING


def test_the_first_move(arena: Arena, board: Board) -> None:
    """Binds both trees to the evidence; the facts are those that the dispute began with."""
    for token in (False, True):
        tops = Tops(arena, 4, token=token)
        state = board.begin(tops.case, tops.case.exhibit)
        assert state == packed("tops", agreed(tops.terms, 1), EMPTY, EMPTY)
        after, turn = board.next(state, tops.move())
        s = read_state(after)
        assert after[32:64] == agreed(tops.terms, 3 if token else 2)
        assert (turn, s.stage) == ((PROVER, "cells") if token else (CHALLENGER, "branch"))
        assert [s.one.count, s.other.count] == tops.counts
        assert [s.one.node, s.other.node] == [tree.top for tree in tops.trees]


def test_facts_of_another_receipt(arena: Arena, board: Board) -> None:
    """No word of what was known in the beginning can be another one."""
    tops = Tops(arena)
    state = board.begin(tops.case, tops.case.exhibit)
    dice = Random(5)
    for n in range(13):
        facts = bytearray(tops.facts)
        facts[32 * n + dice.randrange(32)] ^= 1 << dice.randrange(8)
        with pytest.raises(Refused, match="not what was committed to"):
            board.next(state, tops.move(facts=bytes(facts)))
    other = Tops(arena, 3)
    for move in (other.move(), other.move(facts=tops.facts), tops.move(facts=other.facts)):
        with pytest.raises(Refused, match="not what was committed to"):
            board.next(state, move)


def test_another_record_than_was_committed_to(arena: Arena, board: Board) -> None:
    """Not a digest, nor a step of the path, nor a number of chunks can be changed."""
    tops = Tops(arena)
    state = board.begin(tops.case, tops.case.exhibit)
    move, dice = tops.move(), Random(6)
    start = 64 + 13 * 32
    for at in range(start, len(move) - 2 * len(PADDING), 32):
        spoilt = bytearray(move)
        spoilt[at + dice.randrange(32)] ^= 1 << dice.randrange(8)
        with pytest.raises(Refused, match="not what was committed to"):
            board.next(state, bytes(spoilt))
    kept, inputs = tops.counts
    for counts in ((kept + 1, inputs), (kept, inputs + 1), (kept + 1, inputs - 1), (kept, inputs + 256)):
        with pytest.raises(Refused):
            board.next(state, tops.move(counts))
    for counts in ((0, inputs), (kept, 0), ((1 << 23) + 1, inputs), (kept, (1 << 23) + 1), (2**256 - 1, inputs)):
        with pytest.raises(Refused, match="chunks"):
            board.next(state, tops.move(counts))


@pytest.mark.parametrize("counts", [(1, 1 << 23), (1 << 23, 1 << 23), (257, 4097), (256, 1 << 16)])
def test_records_of_any_size(blind: Board, counts: tuple[int, int]) -> None:
    """The largest that is taken is led through within the stated moves: from the first level to chunks and a number."""
    content, dice = bytes(CHUNK_BYTES - 2) + b"\x05\x80", Random(7)
    leaf = digest("assay/exact-chunk/1", content)
    record = [Forest(count, {}, leaf) for count in counts]
    leaf_of_pass = both_parts(record[0].root, record[1].root)
    evidence = evidence_of([leaf_of_pass], bytes(32), 1)
    terms = any_terms(dice)._replace(
        evidence=evidence.root, prompt_count=1, output_count=1, position=0, kept_count=counts[0],
        inputs_count=counts[1], kept=record[0].root, inputs=record[1].root,
    )  # fmt: skip
    facts = referees.encode(terms)[: 13 * 32]
    path = evidence.prove([leaf_of_pass], 0, bytes(32))
    state, _ = blind.next(
        packed("tops", agreed(terms, 1), EMPTY, EMPTY),
        b"".join([*map(word, counts), facts, *record[0].first(), *record[1].first(), *path]) + 2 * PADDING,
    )
    moves = 1
    names = [count - 1 for count in counts]
    while read_state(state).stage != "entry":
        s = read_state(state)
        pairs = list(zip((s.one, s.other), record, names, strict=True))
        if s.stage in ("branch", "names"):
            data = encode_indices(
                *(
                    name // 16**d.below
                    for d, _, name in pairs
                    if d.named in (0, UNNAMED) and not (d.named == 0 and s.stage == "names")
                )
            )
        elif s.stage == "nodes":
            deep = [(d, tree) for d, tree, _ in pairs if d.below]
            data = b"".join(
                [n for d, tree in deep for n in tree.under(d)] + [n for d, tree in deep for n in tree.beside(d)]
            )
        else:
            data = content * 2 + b"".join(node for d, tree, _ in pairs for node in tree.beside(d))
        if s.stage in ("nodes", "chunks"):
            for n in range(0, len(data), 480):
                spoilt = data[:n] + bytes([data[n] ^ 1]) + data[n + 1 :]
                with pytest.raises(Refused, match="not what was committed to"):
                    blind.next(state, spoilt + PADDING)
        state, _ = blind.next(state, data + PADDING)
        moves += 1
    assert moves == 2 * max(trees.moves(count) for count in counts) + 1
    s = read_state(state)
    assert [d.index for d in (s.one, s.other)] == names
    for which, chunk in enumerate((counts[0] - 1, counts[0] + counts[1] - 1)):
        entry = chunk * CHUNK + CHUNK - 1
        after, turn = blind.next(state, encode_indices(entry) + content + FILLING)
        assert turn == PROVER
        assert after[32:64] == agreed(terms._replace(target=entry, claimed=5 - 0x8000), 3), which
        for wrong in (entry + 1, entry - CHUNK, NONE):
            if 0 <= wrong <= NONE and wrong // CHUNK not in (counts[0] - 1, counts[0] + counts[1] - 1):
                with pytest.raises(Refused, match="no such number"):
                    blind.next(state, encode_indices(wrong) + content + FILLING)
        with pytest.raises(Refused, match="not what was committed to"):
            blind.next(state, encode_indices(entry) + b"\1" + content[1:] + FILLING)


def test_naming_nothing(blind: Board) -> None:
    """One part can be left out, not both; later on nothing can. What stands for it in a state is no index."""
    one = Descent(bytes(32), 300, 3, 0, 1, UNNAMED)
    state = packed("branch", bytes(32), one, one)
    for names, on in (((NONE, 3), (False, True)), ((3, NONE), (True, False)), ((3, 3), (True, True))):
        s = read_state(blind.next(state, encode_indices(*names) + FILLING)[0])
        assert (s.one.on, s.other.on) == on
        assert s.stage == "nodes"
    with pytest.raises(Refused, match="nothing is named"):
        blind.next(state, encode_indices(NONE, NONE) + FILLING)
    for names in ((NONE - 1, 3), (3, NONE - 1), (19, 3), (3, 19)):
        with pytest.raises(Refused, match="no such node"):
            blind.next(state, encode_indices(*names) + FILLING)
    lower = Descent(bytes(32), 300, 1, 3, 0, UNNAMED)
    for state in (
        packed("names", bytes(32), lower, lower._replace(named=OFF)),
        packed("cell names", bytes(32), lower, lower._replace(named=OFF)),
    ):
        for name in (NONE, NONE - 1, 47, 64):
            with pytest.raises(Refused, match="no such node"):
                blind.next(state, encode_indices(name) + FILLING)
        s = read_state(blind.next(state, encode_indices(48, NONE) + FILLING)[0])
        assert s.one.named == 48
        assert not s.other.on


def test_a_part_that_was_left_out(blind: Board) -> None:
    """Neither its chunks are shown, nor can a number of it be named."""
    content = bytes(range(256)) * 2
    leaf = digest("assay/exact-chunk/1", content)
    on, off = Descent(leaf, 3, 0, 2, 0, UNNAMED), Descent(leaf, 3, 2, 0, 0, OFF)
    for one, other, right in ((on, off, 2), (off, on, 5)):
        state = packed("entry", bytes(32), one, other)
        for chunk in range(7):
            move = encode_indices(chunk * CHUNK + 9) + content + FILLING
            if chunk == right:
                assert blind.next(state, move)[1] == PROVER
                continue
            with pytest.raises(Refused, match="no such number"):
                blind.next(state, move)


def test_moves_cut_short(arena: Arena, board: Board) -> None:
    """What is read behind a move is not there, and nothing else stands for it."""
    tops = Tops(arena)
    state = board.begin(tops.case, tops.case.exhibit)
    move = tops.move()
    for cut in (0, 1, 31, 64, 479, 480, 512, len(move) - 2 * len(PADDING) - 1, len(move) - 2 * len(PADDING) - 32):
        with pytest.raises(Refused):
            board.next(state, move[:cut])
    after, _ = board.next(state, move)
    with pytest.raises(Refused):
        board.next(after, b"")


def test_arguments_laid_out_differently(arena: Arena, board: Board) -> None:
    """A move that stands before the state is the same bytes; one whose length says less than is read fails, or nobody
    would know it. Whoever calls the court chooses the layout, and the game reads what the court has checked."""
    tops = Tops(arena)
    state, move = board.begin(tops.case, tops.case.exhibit), tops.move()
    plain = board.next(state, move)
    padded = move + bytes(-len(move) % 32)
    head = word(1) + bytes(5 * 32)
    swapped = [head, word(256 + 32 + len(padded)), word(256), word(len(move)), padded, word(192), state]
    assert decode(["bytes", "uint256"], board.raw(MOVE + b"".join(swapped))) == plain
    short = [head, word(256), word(256 + 32 + 192), word(192), state, word(3), padded]
    with pytest.raises(Refused):
        board.raw(MOVE + b"".join(short))
    for offsets in ((256, 224), (256, 2**256 - 1), (2**256 - 36, 480), (160, 480), (256, 1 << 20)):
        with pytest.raises(Refused):
            board.raw(MOVE + b"".join([head, *map(word, offsets), word(192), state, word(len(move)), padded]))


def test_a_proof_before_its_time(arena: Arena) -> None:
    """The court's last move is the game's, by the same name: at any other stage it wins nothing, whatever is proved."""
    tops = Tops(arena)
    arena.bond(10**6)
    fight = arena.start(tops.case)
    for data in (tops.move(), b"", bytes(2000)):
        call = arena.call.prove(fight.number, as_struct(fight.dispute), fight.raw, data)
        assert arena.town.post(fight.people[0], call)["status"] == 0
    fight.move(tops.move())


def test_the_court_and_the_game_read_the_same_state(arena: Arena) -> None:
    """A call in which the checked state and the one that is played from would differ is refused."""
    tops = Tops(arena)
    arena.bond(10**6)
    fight = arena.start(tops.case)
    town, court = arena.town, arena.court.address
    state, move = fight.raw, tops.move()
    padded = move + bytes(-len(move) % 32)
    other = bytes(191) + b"\1"
    head = encode(["uint256", DISPUTE], [fight.number, fight.dispute.values])
    layouts = [
        [head, word(256), word(480), word(192), other, word(len(move)), padded],
        [head, word(256), word(480), word(191), state, word(len(move)), padded],
        [head, word(256), word(480), word(193), state, word(len(move)), padded],
        [head, word(2**256 - 4), word(480), word(192), state, word(len(move)), padded],
    ]
    good = [head, word(256 + 32 + len(padded)), word(256), word(len(move)), padded, word(192), state]
    sender = fight.people[0]
    for layout in layouts:
        outcome = chain_call(town, sender.address, court, MOVE + b"".join(layout))
        assert not outcome
    assert chain_call(town, sender.address, court, MOVE + b"".join(good))


def test_a_length_that_is_not_there(arena: Arena) -> None:
    """A move may say that it is longer than the call, up to the longest that who reads it takes (`CourtClient.moved`);
    past that it would be a move that the other side cannot read, and the court refuses it."""
    tops = Tops(arena)
    arena.bond(10**6)
    fight = arena.start(tops.case)
    state, move = fight.raw, tops.move()
    head = encode(["uint256", DISPUTE], [fight.number, fight.dispute.values])
    for size in (len(move), MOST_MOVE, MOST_MOVE + 1, 2**64, 2**255, 2**256 - 500, 2**256 - 1):
        data = b"".join([head, word(256), word(480), word(192), state, word(size), move])
        for selector in (MOVE, PROVE):
            held = chain_call(arena.town, fight.people[0].address, arena.court.address, selector + data)
            assert held == (selector == MOVE and size <= MOST_MOVE)
            assert (tail(data, 7, MOST_MOVE) is not None) == (size <= MOST_MOVE)


def chain_call(town: Town, sender: str, to: str, data: bytes) -> bool:
    """Whether a call holds."""
    try:
        town.web3.eth.call({"from": Web3.to_checksum_address(sender), "to": Web3.to_checksum_address(to), "data": data})
    except Exception:  # noqa: BLE001
        return False
    return True


def test_exhibits(arena: Arena, board: Board) -> None:
    """What a dispute begins with is the receipt's request, profile and model; cut short or changed it is not."""
    tops = Tops(arena)
    case, shows = tops.case, tops.case.exhibit
    board.begin(case, shows)
    for cut in (*range(0, 200, 7), 192, 193, 194, len(shows) - 1):
        with pytest.raises(Refused):
            board.begin(case, shows[:cut])
    with pytest.raises(Refused, match="profile"):
        board.begin(case, shows + b" ")
    dice = Random(8)
    for at, why in (
        (64, "profile"),
        (96, "request"),
        (128, "request"),
        (160, "request"),
        (192, "request"),
        (200, "profile"),
    ):
        spoilt = bytearray(shows)
        spoilt[at] ^= 1 << dice.randrange(8)
        with pytest.raises(Refused, match=why):
            board.begin(case, bytes(spoilt))
    for name in ("request", "profile"):
        with pytest.raises(Refused, match=name):
            board.begin(case, shows, **{name: bytes(32)})


def test_passes_that_there_are(arena: Arena, board: Board) -> None:
    """All but the last token went through the model, and tokens are drawn from the prompt's last on."""
    tops = Tops(arena)
    case, own = tops.case, tops.own
    passes, prompt = own.evidence.passes, own.evidence.prompt
    for position in (0, passes - 1, passes, passes + 1, 2**64, 2**256 - 1):
        for token in (False, True):
            shows = word(position) + word(token) + case.exhibit[64:]
            if position >= passes:
                with pytest.raises(Refused, match=r"no such pass|^$"):
                    board.begin(case, shows)
            elif token and position < prompt - 1:
                with pytest.raises(Refused, match="no token was drawn"):
                    board.begin(case, shows)
            else:
                board.begin(case, shows)
    for counts in ({"prompt_count": 0}, {"output_count": 0}, {"prompt_count": 0, "output_count": 0}):
        with pytest.raises(Refused, match="no answer"):
            board.begin(case, case.exhibit, **counts)
    for counts in (
        {"prompt_count": 2**32 - 1},
        {"output_count": 2**32 - 1},
        {"prompt_count": 2**32 - 1, "output_count": 2**32 - 1},
    ):
        board.begin(case, case.exhibit, **counts)


@pytest.mark.parametrize("masked", [0, 1, 2, 255])
def test_rules_with_a_mask(arena: Arena, board: Board, masked: int) -> None:
    """An answer under a grammar is not disputed: its provider, who refuses such terms, would have no move."""
    tops = Tops(arena, 4)
    opening = opening_of(tops.own)
    opening = opening._replace(rules=opening.rules[:32] + bytes([masked]))
    for token in (False, True):
        shows = exhibit(4, token=token, parameters=tops.one.root, opening=opening, profile=profile_of(tops.one.root))
        if masked:
            with pytest.raises(Refused, match="a grammar restricts it"):
                board.begin(tops.case, shows, request=opening.digest)
        else:
            board.begin(tops.case, shows, request=opening.digest)


def test_a_build_that_goes_on_behind_the_root(arena: Arena, board: Board) -> None:
    """The profile's build is the model's root, and no more: of another build there is no dispute with that root."""
    tops = Tops(arena)
    opening, root = opening_of(tops.own), tops.one.root
    honest = profile_of(root)
    for build in (root.hex() + "00", root.hex()[:-1], root.hex().upper(), '"' + root.hex()):
        other = replace(honest, build=build)
        rest = case_rest(other, 64)
        for cut in range(4):
            shows = b"".join([word(2), word(0), root, *opening, rest[cut:], word(rest.index(b',"regime":') - cut)])
            with pytest.raises(Refused, match="profile"):
                board.begin(tops.case, shows, profile=other.digest)


def test_builds_of_all_digits(arena: Arena, board: Board) -> None:
    """Every digit is written as Python does, at every place."""
    tops = Tops(arena)
    opening, dice = opening_of(tops.own), Random(9)
    roots = [bytes([16 * digit + 15 - digit]) * 32 for digit in range(16)]
    roots += [bytes(32), b"\xff" * 32, bytes(31) + b"\1", b"\x9a" + bytes(31), bytes(15) + b"\xfa\x9f" + bytes(15)]
    for root in (*roots, *(dice.randbytes(32) for _ in range(10))):
        profile = profile_of(root)
        shows = exhibit(2, token=False, parameters=root, opening=opening, profile=profile)
        board.begin(tops.case, shows, profile=profile.digest)
        other = bytes([root[0] ^ 16, *root[1:]])
        with pytest.raises(Refused, match="profile"):
            board.begin(tops.case, shows[:64] + other + shows[96:], profile=profile.digest)


def test_semantics_that_are_not_judged_here(arena: Arena, board: Board) -> None:
    """A court has one game for good, and the game one version of the semantics: who signs under another one, honestly,
    is not led through this one. Nor is a profile taken for it because the words stand somewhere else in it; the longest
    profile there may be is one that can be shown."""
    tops = Tops(arena)
    opening, root = opening_of(tops.own), tops.one.root
    words = ',"regime":"exact/1","sampler":"gumbel/2",'
    honest = profile_of(root)
    for isa in ("", words, "x" * (MOST_PROFILE - len(canonical(honest.to_json())))):
        longer = replace(honest, isa=isa)
        shows = exhibit(2, token=False, parameters=root, opening=opening, profile=longer)
        board.begin(tops.case, shows, profile=longer.digest)
    for other in (
        replace(honest, regime="exact/2"), replace(honest, regime="exact/10"), replace(honest, regime="free"),
        replace(honest, sampler="gumbel/1"), replace(honest, regime="exact/2", isa=words),
        replace(honest, regime="exact/2", isa=words + ",", template=words[1:-1]), replace(honest, regime=words),
    ):  # fmt: skip
        shows = exhibit(2, token=False, parameters=root, opening=opening, profile=other)
        rest = case_rest(other, 65)
        for where in (*range(len(rest) + 1), 2**256 - 1, 2**256 - 41):
            with pytest.raises(Refused):
                board.begin(tops.case, shows[:-32] + word(where), profile=other.digest)


def case_rest(profile: Profile, size: int) -> bytes:
    """The canonical JSON behind so many digits of the build."""
    return canonical(profile.to_json())[len('{"build":"') + size :]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 79), DICE)
@settings(deadline=None, max_examples=40)
def test_paths_to_all_passes(arena: Arena, board: Board, prompt: int, output: int, at: int, dice: Random) -> None:
    """Shapes of the trees over prompts and answers are those of `tree16.py` and `merkle.py`."""
    own = answer("llama").own
    position = at % (prompt + output - 1)
    kept, inputs = (trees.root_of(levels) for levels in own.levels(0))
    leaves = [dice.randbytes(32) for _ in range(prompt + output - 1)]
    leaves[position] = both_parts(kept, inputs)
    nonce = dice.randbytes(32)
    evidence = evidence_of(leaves, nonce, prompt)
    tops = Tops(arena, 0)
    tops.terms = tops.terms._replace(
        evidence=evidence.root, prompt_count=prompt, output_count=output, position=position
    )
    tops.path = evidence.prove(leaves, position, nonce)
    state = packed("tops", agreed(tops.terms, 1), EMPTY, EMPTY)
    assert board.next(state, tops.move())[0][32:64] == agreed(tops.terms, 2)
    n = dice.randrange(len(tops.path))
    path = [*tops.path]
    path[n] = bytes([path[n][0] ^ 1]) + path[n][1:]
    with pytest.raises(Refused, match="not what was committed to"):
        board.next(state, tops.move(path=b"".join(path)))


def commitments(prompt: int, output: int, dice: Random) -> tuple[bytes, dict[str, Any]]:
    """Salt and commitments of all passes, and what a receipt says of them."""
    leaves = [dice.randbytes(32) for _ in range(prompt + output - 1)]
    nonce = dice.randbytes(32)
    evidence = evidence_of(leaves, nonce, prompt)
    data = evidence_salt(nonce) + b"".join(leaves) + PADDING
    return data, {"evidence": evidence.root, "prompt_count": prompt, "output_count": output}


def holds(board: Board, receipt: Receipt, data: bytes) -> bool:
    """The contract's word."""
    call = bytes.fromhex(board.game.encode_abi("holds", [as_tuple(receipt), data])[2:])
    return bool(int.from_bytes(board.raw(call), "big"))


@given(st.integers(1, 60), st.integers(1, 40), DICE)
@example(1, 1, Random(1))
@example(256, 1, Random(1))
@example(257, 2, Random(1))
@example(240, 2, Random(1))
@settings(deadline=None, max_examples=40)
def test_commitments_of_all_passes(arena: Arena, board: Board, prompt: int, output: int, dice: Random) -> None:
    """Those of the receipt hold, and no others: none changed, exchanged or left out, nor another salt."""
    data, says = commitments(prompt, output, dice)
    receipt = replace(Tops(arena).case.receipt, **says)
    assert holds(board, receipt, data)
    size = 32 * (prompt + output)
    for spoilt in spoilt_ones(data[:size], dice):
        assert not holds(board, receipt, spoilt + PADDING)
    assert not holds(board, receipt, data[: size - 1])
    assert prompt > 1 or holds(board, receipt, data[:size])
    assert not holds(board, receipt, b"")
    assert not holds(board, replace(receipt, prompt_count=prompt + 1, output_count=output), data + bytes(32))
    if prompt > 1:
        assert not holds(board, replace(receipt, prompt_count=prompt - 1, output_count=output + 1), data)


def test_commitments_of_nothing(arena: Arena, board: Board) -> None:
    """Without a prompt or an answer there are none, and more than fit are none."""
    receipt = Tops(arena).case.receipt
    for says in ({"prompt_count": 0}, {"output_count": 0}, {"prompt_count": 2**32 - 1}, {"output_count": 2**32 - 1}):
        assert not holds(board, replace(receipt, **says), bytes(4096))


@pytest.mark.parametrize(("prompt", "output"), [(3999, 1), (2000, 2000), (1, 3999)])
def test_the_most_passes(arena: Arena, board: Board, prompt: int, output: int) -> None:
    """4,000 fit into a transaction, and into half of a block."""
    data, says = commitments(prompt, output, Random(9))
    receipt = replace(Tops(arena).case.receipt, **says)
    assert holds(board, receipt, data)
    call = arena.court.encode_abi("produce", [1, (2, 3, 4, NOBODY, bytes(32)), as_tuple(receipt), data])
    assert len(call) // 2 - 1 + 200 <= MAX_TRANSACTION
    assert board.gas <= 16_000_000


def test_referees_are_there(chain: EmbeddedChain) -> None:
    """A game without one of them would let every step hold."""
    town = town_of(chain)
    there = town.token.address
    for missing in range(7):
        where = [there] * 7
        where[missing] = PEOPLE[3].address
        found = artefact("Game")
        made = town.web3.eth.contract(abi=found.abi, bytecode=found.code).constructor(
            [Web3.to_checksum_address(each) for each in where]
        )
        assert town.post(PEOPLE[0], made)["status"] == 0


def test_the_largest_last_move_fits() -> None:
    """Of the largest opening that a model can have, with all siblings; so do two trees at once."""
    terms = any_terms(Random(1))
    call = referees.encode_judge(terms, bytes(32), referees.Step("Stream", 0, 0, 0), bytes(MOST_BYTES))
    assert len(step_move("Stream", call, bytes(32 * 30))) <= MOST_MOVE
    assert 2 * 32 * (256 + 30) + len(PADDING) <= MOST_MOVE
